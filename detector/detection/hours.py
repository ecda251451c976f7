"""Which hour of which day a row belongs to, as the clocks of a time zone show it, and what day it goes by."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import translate
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import I64
from detector.config.load import CalendarConfig
from detector.config.values import WEEKDAYS
from detector.times import SECOND
from detector.zones import offsets

DAY: Final = 86_400
NO_WEEKDAY: Final = -1
_UTC: Final = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
_THURSDAY: Final = 3
"""The day 0, the first of 1970."""


class Local(NamedTuple):
    """Of rows (n,): the day, counted from 1970 on, the hour, 0 to 23, and the weekday that it goes by, Monday is 0.

    `NO_WEEKDAY`: it goes by none.
    """

    day: I64
    hour: I64
    weekday: I64


@dataclass(frozen=True, slots=True)
class _Days:
    pattern: re.Pattern[str]
    first: int
    last: int
    weekday: int


class Hours:
    """The clocks of a `zone`, and days that are not what their weekday says; None: no row goes by any clock.

    >>> berlin = Hours("Europe/Berlin")
    >>> noon = np.array([1_772_366_400 * SECOND])  # 2026-03-01T12:00:00Z, a Sunday
    >>> [int(one[0]) for one in berlin.of(noon)]
    [20513, 13, 6]
    """

    def __init__(self, zone: str | None = "UTC", calendar: Sequence[CalendarConfig] = ()) -> None:
        self.zone = zone
        self._begin, self._ahead = offsets(zone) if zone not in (None, "UTC") else _UTC
        self._days = [
            _Days(re.compile(translate(one.match)), _number(one.first), _number(one.last), _weekday(one))
            for one in calendar
        ]

    def days(self, times: I64) -> I64:
        """The days of rows at `times` (n,) ns."""
        return self._seconds(times) // DAY

    def of(self, times: I64, sensor_id: str | None = None) -> Local:
        """The hours of rows at `times` (n,) ns; without a sensor the calendar counts for nothing."""
        day, second = np.divmod(self._seconds(times), DAY)
        local = Local(day, second // 3600, (day + _THURSDAY) % 7)
        return local if sensor_id is None else self.as_called(local, sensor_id)

    def as_called(self, local: Local, sensor_id: str) -> Local:
        """Rows of a sensor with the weekdays that the calendar says they go by. The first one that matches counts."""
        weekday = local.weekday
        if not self._days or not len(weekday):
            return local
        for one in reversed(self._days):
            inside = (local.day >= one.first) & (local.day <= one.last)
            if inside.any() and one.pattern.match(sensor_id):
                weekday = np.where(inside, one.weekday, weekday)
        return local._replace(weekday=weekday)

    def concerns(self, day: I64) -> bool:
        """Whether the calendar says something of any of these days."""
        return any(bool(((day >= one.first) & (day <= one.last)).any()) for one in self._days)

    def without_sensors(self, sensor_ids: Collection[str]) -> list[int]:
        """The entries of the calendar, by their place in it, that are of none of these sensors."""
        return [i for i, one in enumerate(self._days) if not any(map(one.pattern.match, sensor_ids))]

    def _seconds(self, times: I64) -> I64:
        seconds: I64 = times // SECOND
        if self._ahead.any():
            seconds = seconds + self._ahead[np.searchsorted(self._begin, seconds, side="right") - 1]
        return seconds


def _number(day: str) -> int:
    return (date.fromisoformat(day) - date(1970, 1, 1)).days


def _weekday(one: CalendarConfig) -> int:
    return NO_WEEKDAY if one.like is None else WEEKDAYS.index(one.like)
