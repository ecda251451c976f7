"""What the log is told of sensors that are not watched."""

from __future__ import annotations

import logging

import pytest

from detector.detection.watch import Reason, WatchChange
from detector.service.watchlog import AGAIN, WatchLog

MINUTE = 60 * 10**9
Told = list[tuple[str, str, str | None]]


class Listener:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.caplog, self.log = caplog, WatchLog()

    def told(self, clock: int, *changes: tuple[str, Reason | None, Reason | None]) -> Told:
        """What is told of changes: event, sensor, reason."""
        self.caplog.clear()
        self.log.changed([WatchChange(*one) for one in changes], clock)
        fields = [(record.getMessage(), record.__dict__["fields"]) for record in self.caplog.records]
        return [(name, one["sensor_id"], one.get("reason")) for name, one in fields]


@pytest.fixture
def listener(caplog: pytest.LogCaptureFixture) -> Listener:
    return Listener(caplog)


def test_each_change_is_told_once(listener: Listener) -> None:
    assert listener.told(0, ("a", "gaps", None), ("b", "failed", None)) == [
        ("sensor_unwatched", "a", "gaps"),
        ("sensor_unwatched", "b", "failed"),
    ]
    assert listener.told(MINUTE) == []
    assert listener.told(2 * MINUTE, ("a", "relearning", "gaps")) == [("sensor_unwatched", "a", "relearning")]
    assert listener.told(3 * MINUTE, ("a", None, "relearning")) == [("sensor_watched", "a", None)]


def test_warming_up_is_not_told(listener: Listener) -> None:
    assert listener.told(0, ("a", None, "warming"), ("b", "warming", None), ("b", None, "warming")) == []


def test_back_and_forth_is_told_once_an_hour_and_what_lasts_is_told_then(listener: Listener) -> None:
    told: Told = []
    for minute in range(0, 180, 5):
        told += listener.told(minute * MINUTE, ("a", "gaps", None))
        told += listener.told((minute + 1) * MINUTE, ("a", None, "gaps"))
    assert told == 3 * [("sensor_unwatched", "a", "gaps"), ("sensor_watched", "a", None)]
    assert listener.told(181 * MINUTE) == []


def test_what_waits_is_told_when_the_hour_is_over(listener: Listener) -> None:
    listener.told(0, ("a", "gaps", None))
    listener.told(MINUTE, ("a", None, "gaps"))
    assert listener.told(2 * MINUTE, ("a", "gaps", None)) == []
    assert listener.told(AGAIN - 1) == []
    assert listener.told(AGAIN) == [("sensor_unwatched", "a", "gaps")]
    assert listener.told(AGAIN + MINUTE, ("a", None, "gaps")) == [("sensor_watched", "a", None)]


def test_after_a_restart_the_end_is_told_of_what_was_told_before(listener: Listener) -> None:
    assert listener.told(0, ("a", None, "gaps")) == [("sensor_watched", "a", None)]
