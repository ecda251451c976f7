"""Which hour of which day a row belongs to, and what day it goes by."""

from __future__ import annotations

import numpy as np
import pytest

from detector.config.load import CalendarConfig
from detector.detection.hours import NO_WEEKDAY, Hours
from detector.times import parse_time


def calendar(first: str, last: str, like: str | None, match: str = "*") -> CalendarConfig:
    return CalendarConfig.model_validate({"from": first, "to": last, "like": like, "match": match})


def of(hours: Hours, *moments: str, sensor: str = "press") -> list[tuple[int, int]]:
    local = hours.of(np.array([parse_time(one) for one in moments]), sensor)
    return list(zip(local.hour.tolist(), local.weekday.tolist(), strict=True))


def test_clocks_go_back_in_autumn() -> None:
    moments = [f"2026-10-24T{hour}:30:00Z" for hour in (22, 23)] + [f"2026-10-25T0{hour}:30:00Z" for hour in (0, 1, 2)]
    assert of(Hours("Europe/Berlin"), *moments) == [(0, 6), (1, 6), (2, 6), (2, 6), (3, 6)]


def test_a_day_ends_where_the_clocks_say() -> None:
    times = np.array([parse_time("2026-12-23T22:59:59Z"), parse_time("2026-12-23T23:00:00Z")])
    assert np.diff(Hours("Europe/Berlin").days(times)) == 1
    assert np.diff(Hours("UTC").days(times)) == 0


@pytest.mark.parametrize(("like", "weekday"), [("sunday", 6), ("monday", 0), (None, NO_WEEKDAY)])
def test_days_of_the_calendar_go_by_another_weekday(like: str | None, weekday: int) -> None:
    hours = Hours("UTC", [calendar("2026-12-24", "2026-12-25", like, "p*")])
    moments = ["2026-12-23T23:59:59Z", "2026-12-24T00:00:00Z", "2026-12-25T23:00:00Z", "2026-12-26T00:00:00Z"]
    assert [day for _, day in of(hours, *moments)] == [2, weekday, weekday, 5]
    assert [day for _, day in of(hours, *moments, sensor="fan")] == [2, 3, 4, 5]


def test_of_two_entries_for_a_day_the_first_counts() -> None:
    hours = Hours("UTC", [calendar("2026-12-24", "2026-12-24", "sunday"), calendar("2026-12-01", "2026-12-31", None)])
    assert of(hours, "2026-12-24T10:00:00Z", "2026-12-25T10:00:00Z") == [(10, 6), (10, NO_WEEKDAY)]
