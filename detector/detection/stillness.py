"""A value that sticks: the rule of evidence beside the score, from the runs of equal values that a prefix has.

What a sensor says again and again is one *run*: rows that differ from its first one by no more than the data's own
resolution. How long runs of a healthy sensor become is seen in its prefix: noise hardly repeats a value, a coarse
converter does for some rows, a switch for as long as it is left alone. The *limit* of a channel is a length that this
hardly ever comes to. A run beyond it scores the square of how many limits long it is; a shorter one says nothing.

The function of a `Sensor` is a twin of that in recurrences.c; see sensor.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, I64, Bools
from detector.detection.sensor import Sensor, larger, smaller
from detector.detection.threshold import BUDGET_MAX

FEWEST: Final = 20.0
"""Rows: the least limit. Sensors that never repeat a value do so when what reads them is late."""
MOST: Final = 20.0
"""What a run scores at most: as much as any threshold that still counts as watching (`watch.ABSURD`)."""
LONG: Final = 1e7
"""Rows are counted no further."""
_LONGEST: Final = 8
"""Runs that the tail of the lengths is estimated from."""
_TAIL: Final = 0.5
"""Of the longest run: the scale of the tail is at least this, because runs of some switches have a heavy one."""
_FEW: Final = 4.0
"""A longest run that is one of n as long as half of it may be longer the next time by this over n."""
_ROUNDING: Final = 8 * float(np.finfo(np.float64).eps)
_SAME: Final = 1e-9


def limits_of(values: F64, there: Bools) -> tuple[F64, F64]:
    """By channel (C,) the longest run in rows that is plausible, and the resolution, of a prefix (L, C).

    Only values that are `there` (L, C) count. A channel that never moves cannot stick: its limit is infinity.

    >>> noise = np.random.default_rng(0).normal(size=(1000, 1))
    >>> limits_of(noise, np.full((1000, 1), True))[0]
    array([20.])
    """
    known = [_of_channel(np.ascontiguousarray(column[kept])) for column, kept in zip(values.T, there.T, strict=True)]
    limits, resolutions = zip(*known, strict=True)
    return np.array(limits), np.array(resolutions)


def _of_channel(column: F64) -> tuple[float, float]:
    resolution = _resolution(column)
    runs = np.sort(_runs(column, resolution))[::-1].astype(np.float64)
    if len(runs) < 2:
        return math.inf, resolution
    longest = float(runs[0])
    if longest <= 1:
        return FEWEST, resolution
    few = _FEW / float((2 * runs >= longest).sum())
    tail = runs[: min(_LONGEST, len(runs) // 2)]
    scale = max(float((tail - tail[-1]).mean()), _TAIL * longest)
    limit = longest * (1 + few) + scale * math.log(max(BUDGET_MAX / len(column), 1.0))
    return max(FEWEST, float(math.ceil(limit))), resolution


def _resolution(column: F64) -> float:
    """Half of the smallest step between two values, or what is no difference at all between numbers of this size."""
    least = max(
        _ROUNDING * float(np.abs(column).max(initial=0.0)), _SAME * float(np.ptp(column)) if len(column) else 0.0
    )
    steps = np.diff(np.unique(column))
    steps = steps[steps > least]
    return max(float(steps.min()) / 2, least) if len(steps) else least


def _runs(column: F64, resolution: float) -> I64:
    """The lengths of the runs."""
    begins = np.flatnonzero(np.abs(np.diff(column)) > resolution) + 1
    return np.diff(np.concatenate([[0], begins, [len(column)]]))


def still(s: Sensor, values: Sequence[float]) -> float:
    """What the runs that a row of C values goes on with are worth; 0: none is too long.

    NaN is the value of a channel that the row lacks: it counts for nothing.
    """
    most = 0.0
    for i, value in enumerate(values):
        if value != value:
            continue
        if not abs(value - s.still_value[i]) <= s.resolution[i]:
            s.still_value[i], s.still_rows[i] = value, 1.0
        elif s.still_rows[i] < LONG:
            s.still_rows[i] += 1.0
        if s.still_rows[i] >= s.still_limit[i]:
            limits = s.still_rows[i] / s.still_limit[i]
            most = larger(smaller(limits * limits, MOST), most)
    return most


class Run(NamedTuple):
    """A channel that has not moved since a row; `sticks`: for longer than is plausible, as far as its rows say."""

    channel: int
    row: int
    sticks: bool


def newest_run(values: F64, limits: F64, resolution: F64) -> Run:
    """The channel of the rows (n, C) that has not moved for the most of its limits (C,).

    >>> newest_run(np.array([[1.0, 3.0], [2.0, 4.0], [2.0, 4.0], [2.0, 5.0]]), np.array([3.0, 3.0]), np.zeros(2))
    Run(channel=0, row=1, sticks=True)
    """
    moves = np.abs(values - values[-1]) > resolution
    since = np.where(moves.any(axis=0), len(values) - moves[::-1].argmax(axis=0), 0)
    rows = len(values) - since
    channel = int((rows / limits).argmax())
    return Run(channel, int(since[channel]), bool(rows[channel] >= min(limits[channel], len(values))))
