"""What is said of an incident."""

from __future__ import annotations

from tests.incidents.made import book, news, take

STUCK = {"kind": "stuck", "text": "holds 3.2 exactly"}


def test_a_title_names_the_place_the_number_and_who_was_first() -> None:
    incidents = take(
        book(["{line}/*"]),
        news("line 2/pressure-03", 120, what=STUCK),
        news("line 2/b", 150),
    )
    assert incidents[0].title == "line 2: line 2/pressure-03 (stuck), 10:02"
    assert incidents[1].title == "line 2: 2 sensors, first line 2/pressure-03 (stuck), 10:02"
    assert take(book(), news("a", 120))[0].title == "a, 10:02"


def test_two_episodes_of_one_sensor_are_no_two_sensors() -> None:
    (_, second) = take(book(), news("a", 0), news("a", 100, episode="second"))
    assert second.title == "a, 2 episodes, 10:00"


def test_a_silent_sensor_is_said_to_be_silent() -> None:
    (opened,) = take(book(), news("a", 0, reason="silent", window=None, channels={}))
    assert opened.title == "a (silent), 10:00"
    assert opened.members[0].channel is None


def test_a_name_of_any_length_keeps_the_title_short() -> None:
    (opened,) = take(book(), news("x" * 256, 0))
    assert len(opened.title) < 100
    assert opened.members[0].sensor_id == "x" * 256


def test_who_was_first_by_more_than_the_error_of_an_onset_stands_alone() -> None:
    *_, last = take(book(), news("b", 40), news("a", 0))
    (only,) = last.suspects
    assert (only.sensor_id, only.why) == ("a", "seen first, at 10:00:00 UTC, 40 s before any other")


def test_who_cannot_be_told_from_the_first_is_named_beside_it() -> None:
    *_, last = take(book(), news("b", 10), news("a", 0), news("c", 11), news("d", 12))
    assert [one.sensor_id for one in last.suspects] == ["a", "b"]
    why = "seen first, at 10:00:10 UTC, with 1 other: which of them was first cannot be told within 10 s"
    assert last.suspects[1].why == why


def test_of_one_there_is_no_other() -> None:
    (opened,) = take(book(), news("a", 0))
    assert [one.why for one in opened.suspects] == ["seen first, at 10:00:00 UTC; no other was seen"]
