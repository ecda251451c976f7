"""What a target has still to be told, and when."""

from __future__ import annotations

import pytest

from detector.notify.outbox import LONGEST_PAUSE, Outbox, Patience
from tests.notify.made import NOW, value


def outbox(**more: object) -> Outbox:
    return Outbox(Patience(settle=10.0, give_up_after=3600.0), jitter=lambda: 1.0, **more)  # type: ignore[arg-type]


def told(box: Outbox, now: float, *, hurry: bool = False) -> list[tuple[str, int]]:
    """Deliver all that is due."""
    found = []
    while (due := box.due(now, hurry=hurry)) is not None:
        key, entry = due
        found.append((key, entry.sequence))
        box.delivered(key, entry.sequence)
    return found


def test_an_incident_may_grow_before_it_is_first_told_of_and_the_newest_counts() -> None:
    box = outbox()
    box.put(value(), NOW)
    box.put(value(event="updated"), NOW + 5)
    assert told(box, NOW + 9) == []
    assert told(box, NOW + 10) == [("one", 1)]
    box.put(value(event="updated", sequence=2), NOW + 11)
    assert told(box, NOW + 11) == [("one", 2)]
    assert [entry.sequence for entry in box.open()] == [2]


def test_one_that_is_over_before_is_told_of_once() -> None:
    box = outbox()
    box.put(value(), NOW)
    box.put(value(event="closed"), NOW + 5)
    assert told(box, NOW + 10) == [("one", 2)]
    assert box.entries == {}


def test_nothing_is_waited_for_when_nothing_more_comes() -> None:
    box = outbox()
    box.put(value(), NOW)
    assert told(box, NOW, hurry=True) == [("one", 0)]


def test_what_was_told_is_not_told_again() -> None:
    box = outbox()
    box.put(value(event="updated"), NOW)
    assert told(box, NOW + 10) == [("one", 1)]
    box.put(value(), NOW + 20)
    box.put(value(event="updated"), NOW + 20)
    assert told(box, NOW + 99) == []


def test_a_target_that_fails_is_left_alone_for_longer_each_time() -> None:
    box, now = outbox(), NOW + 10
    box.put(value(), NOW)
    box.put(value("two"), NOW)
    pauses = []
    for _ in range(9):
        due = box.due(now)
        assert due is not None
        assert not box.failed(due[0], now)
        assert box.due(box.not_before - 0.001) is None
        pauses.append(box.not_before - now)
        now = box.not_before
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE])
    assert box.undelivered(now) == pytest.approx(now - NOW - 10)
    told(box, now)
    assert box.undelivered(now) == 0
    assert box.not_before == 0


def test_pauses_are_not_in_step_and_as_long_as_the_target_asks() -> None:
    box = Outbox(Patience(0, 9), jitter=lambda: 0.0)
    box.pause(NOW)
    assert box.not_before == NOW + 0.5
    box.pause(NOW, after=30)
    assert box.not_before == NOW + 30
    box.pause(NOW, after=1e9)
    assert box.not_before == NOW + LONGEST_PAUSE


def test_it_is_given_up_in_the_end_and_what_is_new_of_it_counts_again() -> None:
    box = outbox()
    box.put(value(), NOW)
    assert not box.failed("one", NOW + 10)
    assert not box.failed("one", NOW + 3609)
    assert box.failed("one", NOW + 3610)
    assert box.due(NOW + 9999) is None
    box.put(value(event="closed"), NOW + 4000)
    assert told(box, NOW + 9999) == [("one", 2)]


def test_what_is_refused_is_not_tried_again_and_the_others_go_on() -> None:
    box = outbox()
    box.put(value(), NOW)
    box.put(value("two"), NOW)
    box.refused("one", 0)
    assert told(box, NOW + 10) == [("two", 0)]


def test_one_that_fails_alone_lets_others_go_first() -> None:
    box = outbox()
    box.put(value(), NOW)
    box.put(value("two"), NOW + 1)
    box.failed("one", NOW + 11)
    due = box.due(box.not_before)
    assert due is not None
    assert due[0] == "two"


def test_a_filter_decides_until_it_is_told_of() -> None:
    box = outbox(passes=lambda incident: incident.severity == "critical")
    box.put(value(), NOW)
    assert box.due(NOW + 99) is None
    box.put(value(event="updated", severity="critical"), NOW)
    box.put(value(event="closed", severity="warning"), NOW)
    assert told(box, NOW + 99) == [("one", 2)]


def test_the_state_goes_on_where_it_was() -> None:
    box = outbox()
    box.put(value(), NOW)
    box.put(value("two"), NOW)
    box.delivered("two", 0)
    box.failed("one", NOW)
    again = outbox()
    again.restore(box.pack())
    assert again.entries == box.entries
    assert told(again, NOW + 10) == [("one", 0)]
    again.restore(None)
    assert again.entries == {}


def test_what_is_no_incident_is_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        outbox().put(b"{}", NOW)
    with pytest.raises(ValueError, match="format 9"):
        outbox().restore(outbox().pack().replace(b"\xa6format\x01", b"\xa6format\x09"))
