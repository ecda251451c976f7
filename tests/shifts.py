"""Machines that run in shifts: values by local hours, for the rule of other hours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detector.arrays import F64, I64
from detector.times import SECOND

HOUR = 3600 * SECOND
DAY = 24 * HOUR
MONDAY = 1_799_020_800 * SECOND
"""2027-01-04T00:00:00Z, a Monday."""
Spans = list[tuple[float, float]]
"""Hours of a day, from and to."""
TWO_SHIFTS: Spans = [(6, 22)]


def two_shifts(day: int) -> Spans:
    """From six to ten in the evening on working days; day 0 is a Monday."""
    return TWO_SHIFTS if day % 7 < 5 else []


def shifts(
    days: float,
    runs: Callable[[int], Spans] = two_shifts,
    *,
    interval: int = HOUR // 2,
    begin: int = MONDAY,
    seed: int = 0,
    noise: float = 1.0,
) -> tuple[I64, F64]:
    """Times (n,) ns and values (n,): about 10 while it runs, about 1 else."""
    times = begin + np.arange(int(days * DAY / interval)) * interval
    day, hour = np.divmod((times - MONDAY) / HOUR, 24)
    on = np.zeros(len(times), dtype=bool)
    for one in np.unique(day).tolist():
        for first, last in runs(int(one)):
            on |= (day == one) & (hour >= first) & (hour < last)
    return times, np.where(on, 10.0, 1.0) + np.where(on, 1.0, 0.2) * noise * np.random.default_rng(seed).normal(
        size=len(times)
    )
