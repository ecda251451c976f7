"""What people may look back at."""

from __future__ import annotations

import pytest

from detector.incidents.history import ROWS, History
from detector.wire.incidents import Incident
from tests.incidents.made import alert_id, book, news, take


def history_of(*many: object) -> History:
    history = History()
    for one in many:
        if isinstance(one, Incident):
            history.incident(one)
        else:
            history.alert(one)  # type: ignore[arg-type]
    return history


def test_the_windows_of_all_messages_are_joined_without_a_row_twice() -> None:
    history = history_of(
        news("p-1", 0, seen=10), news("p-1", 0, "updated", seen=60), news("p-1", 0, "closed", seen=200, sequence=5)
    )
    (one,) = history.episodes()
    assert len(one.times) == 100 + 50 + 100
    assert list(one.times) == sorted(set(one.times))
    (track,) = one.tracks
    assert len(track.values) == len(track.expected) == len(one.times)
    assert one.news.event == "closed"


def test_of_a_long_one_the_beginning_and_the_end_are_kept() -> None:
    messages = [news("p-1", 0, "updated", sequence=number, seen=number * 100) for number in range(12)]
    (one,) = history_of(*messages).episodes()
    assert len(one.times) == ROWS
    assert (one.times[0], one.times[-1]) == (messages[0].evidence.timestamps[0], messages[-1].evidence.timestamps[-1])  # type: ignore[union-attr]


def test_older_messages_and_those_that_come_twice_change_nothing() -> None:
    history = history_of(news("p-1", 0, "closed"), news("p-1", 0), news("p-1", 0, "updated"))
    assert [one.news.event for one in history.episodes()] == ["closed"]


def test_a_verdict_stays() -> None:
    history = history_of(news("p-1", 0, "updated", verdict="real"), news("p-1", 0, "closed"))
    assert history.episodes()[0].verdict == "real"


def test_the_last_verdict_that_was_acknowledged_counts_whenever_it_comes() -> None:
    history = History()
    history.verdict(alert_id("p-1"), "false")
    history.alert(news("p-1", 0, "closed", verdict="expected"))
    assert history.episodes()[0].verdict == "false"
    history.verdict(alert_id("p-1"), "real")
    found = history.episode(alert_id("p-1"))
    assert found is not None
    assert found.verdict == "real"


def test_without_rows_an_episode_is_listed_all_the_same() -> None:
    history = history_of(news("p-1", 0, reason="silent", window=None, channels={}))
    assert history.episodes()[0].times == ()


def test_episodes_know_their_incident_and_are_found_by_the_beginning_of_their_id() -> None:
    alerts = [news("p-1", 0), news("p-2", 1)]
    incidents = take(book(), *alerts)
    history = history_of(*alerts, *incidents)
    found = history.episode(alert_id("p-2")[:8])
    assert found is not None
    assert found.incident_id == incidents[0].incident_id
    assert history.episode("") is None
    assert history.episode("nothing") is None
    assert [one.news.sensor_id for one in history.episodes("p-1")] == ["p-1"]


def test_open_incidents_come_first_and_the_newest_message_counts() -> None:
    incidents = take(
        book(within=1),
        news("p-1", 0), news("p-2", 1000), news("p-3", 2000), news("p-3", 2000, "closed"),
    )  # fmt: skip
    history = history_of(*incidents, *incidents)
    assert [(one.title[:3], one.event) for one in history.incidents()] == [
        ("p-2", "opened"), ("p-1", "opened"), ("p-3", "closed")
    ]  # fmt: skip


def test_it_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.incidents.history.EPISODES", 5)
    monkeypatch.setattr("detector.incidents.history.INCIDENTS", 3)
    alerts = [news(f"p-{number}", number * 1000) for number in range(9)]
    history = history_of(*alerts, *take(book(within=1), *alerts))
    assert [one.news.sensor_id for one in history.episodes()] == ["p-8", "p-7", "p-6", "p-5", "p-4"]
    assert [one.incident_id is None for one in history.episodes()] == [False, False, False, True, True]
    assert len(history.incidents()) == 3
