"""Lengths of time and alerts in words."""

from __future__ import annotations

import pytest

from detector.errors import counted
from detector.reports.text import describe, duration, moment, span
from tests.reports.made import NOON, SECOND, alert, at


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (1, "1 s"),
        (9.5, "9.5 s"),
        (45, "45 s"),
        (60, "1 min"),
        (90, "1.5 min"),
        (720, "12 min"),
        (3600, "1 h"),
        (12_600, "3.5 h"),
        (86_400, "1 d"),
        (864_000, "10 d"),
    ],
)
def test_two_figures_are_enough(seconds: float, text: str) -> None:
    assert duration(seconds * SECOND) == text


def test_an_alert_that_opens_says_why() -> None:
    assert describe(alert()).split() == [
        "opened",
        "pump-7",
        "warning",
        "score",
        "2.5",
        "(threshold",
        "1.25)",
        "at",
        at(10),
    ]


def test_an_alert_that_closes_says_from_when_to_when() -> None:
    line = describe(alert("closed", severity="critical", ended_at=at(60), close_reason="recovered"))
    assert line.split() == [
        "closed", "pump-7", "critical", "peak", "score", "2.5,", at(0), "..", at(60)[11:], "(recovered)",
    ]  # fmt: skip


def test_silence_and_what_is_muted_are_told() -> None:
    line = describe(alert(reason="silent", muted=True, channels={}))
    assert line.split() == ["opened", "pump-7", "warning", "muted,", "silent", "since", at(0)]
    line = describe(alert("closed", reason="silent", channels={}, ended_at=at(60), close_reason="recovered"))
    assert line.split() == ["closed", "pump-7", "warning", "silent,", at(0), "..", at(60)[11:], "(recovered)"]


def test_times_are_told_to_the_second_and_the_date_once() -> None:
    assert moment(NOON + 999_999_999) == at(0)
    assert span(NOON, NOON + 60 * SECOND) == f"{at(0)} .. 14:14:20Z"
    assert span(NOON, NOON + 86_400 * SECOND) == f"{at(0)} .. {at(86_400)}"


def test_things_are_counted() -> None:
    assert [counted(number, "sensor") for number in (0, 1, 2000)] == ["0 sensors", "1 sensor", "2,000 sensors"]
