"""A level that moves away slowly: the rule of evidence beside the score, from what the prefix does over the same span.

The two scales of the score follow slow moves, as they are meant to: a daily swing is no fault. So a drift of some
hundred rows teaches them that it is normal while it lasts. This rule looks at nothing but slow moves. Two averages of a
channel follow its values, one over some 200 rows and one over some 1 000; the *way* is how far they are apart, but no
farther than the quick one is from the usual place: who comes back has not moved away. Its square is compared with its
largest one on the prefix, and with its own running mean and variance, as signals are (see scale.py), but with more
room, and the more of it the shorter the prefix is. Below that limit the rule says nothing.

The function of a `Sensor` is a twin of that in recurrences.c; see sensor.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, Bools
from detector.detection.sensor import Sensor, larger, smaller, within
from detector.detection.signals import ADAPTIVE_RATE, LEARNING_LIMIT, TINY

QUICK_RATE: Final = 2 / (200 + 1)
SLOW_RATE: Final = 2 / (1000 + 1)
SETTLED: Final = 500
"""Rows before the slow average is one: until then the rule is silent, and of a prefix as many have to be left."""
FARTHEST: Final = 5.0
"""Values count no farther from the usual place than this many deviations: one of them is no drift."""
LEARNING: Final = 2.0
"""The running mean and variance learn from ways limited to this many deviations, so a drift hides itself late."""
BEYOND: Final = 8.0
"""From this many limits on they learn as those of signals do. By then it is told; and a swing that a quiet prefix has
nothing of, as that of a machine known from a weekend alone, becomes usual within days, not after a dozen alarms."""
MOST: Final = 20.0
"""What a drift is worth at most, as a value that sticks; see `stillness.MOST`."""
_ROOM: Final = 2.5
_SHORT: Final = 1000.0
"""Rows. A prefix of this length gives twice the room that a very long one gives."""
_BEGIN: Final = 250
_SELDOM: Final = 0.9


class Drift(NamedTuple):
    """What a prefix says of slow moves, by channel (C,).

    `worst`: the square of the way that is the limit, infinity: there is none; `worst_zz`: the same in deviations of the
    running mean and variance, which start at `mean`, `variance`. `quick`, `slow`: the averages at the prefix's end.
    """

    worst: F64
    worst_zz: F64
    mean: F64
    variance: F64
    quick: F64
    slow: F64


def drift_of(z: F64, there: Bools) -> Drift:
    """By the standardised values (C, L) of a prefix, of which those that are `there` (C, L) count.

    There is no limit where they are few, and for a switch that is hardly ever on: a few times more are no drift.
    """
    return Drift(*np.array([_of_channel(column[kept]) for column, kept in zip(z, there, strict=True)]).T.copy())


def _of_channel(z: F64) -> tuple[float, float, float, float, float, float]:
    quick = slow = 0.0
    squares: list[float] = []
    for row, value in enumerate(np.clip(z, -FARTHEST, FARTHEST).tolist(), 1):
        quick += max(QUICK_RATE, 1 / row) * (value - quick)
        slow += max(SLOW_RATE, 1 / row) * (value - slow)
        squares.append(way_of(quick, slow) ** 2)
    ways = np.array(squares[_BEGIN:])
    if len(z) < SETTLED or ways.max() <= TINY or _seldom_on(z):
        return math.inf, 1.0, 0.0, 1.0, quick, slow
    mean, variance = float(ways.mean()), float(ways.var())
    zz = float(ways.max() - mean) / (math.sqrt(variance) + TINY)
    room = _ROOM * (1 + _SHORT / len(z))
    return room * (float(ways.max()) + TINY), room * max(1.0, zz), mean, variance, quick, slow


def _seldom_on(z: F64) -> bool:
    values, rows = np.unique(z, return_counts=True)
    return len(values) <= 2 and bool(rows.max() >= _SELDOM * len(z))


def way_of(quick: float, slow: float) -> float:
    """How far a channel has moved away from the usual place, 0, by two averages of it.

    >>> way_of(3.0, 1.0), way_of(3.0, -1.0), way_of(1.0, 3.0)
    (2.0, 3.0, 0.0)
    """
    apart = quick - slow
    return smaller(abs(apart), abs(quick)) if apart * quick > 0.0 else 0.0


def drift(s: Sensor, values: Sequence[float], inside: bool) -> float:
    """What the way of a row of C values is worth, which the running mean and variance then learn; 0: it is not far.

    NaN is the value of a channel that the row lacks: it counts for nothing. In a maintenance window (`inside`) a way
    that is too far is not learnt.
    """
    settled = s.completions >= SETTLED
    most, row, rate = 0.0, 0.0 if settled else 1.0 / s.completions, larger(ADAPTIVE_RATE, 1.0 / s.count)
    for i, value in enumerate(values):
        if value != value or s.drift_worst[i] == math.inf:
            continue
        z = within((value - s.center[i]) / s.scale[i], FARTHEST)
        s.drift_quick[i] += larger(QUICK_RATE, row) * (z - s.drift_quick[i])
        s.drift_slow[i] += larger(SLOW_RATE, row) * (z - s.drift_slow[i])
        if not settled:
            continue
        way = way_of(s.drift_quick[i], s.drift_slow[i])
        square, worth = way * way, 0.0
        off, unit = square - s.drift_mean[i], math.sqrt(s.drift_variance[i]) + TINY
        if square >= s.drift_worst[i]:
            worth = smaller(square / s.drift_worst[i], off / unit / s.drift_worst_zz[i])
        if worth >= 1.0:
            most = larger(smaller(worth, MOST), most)
        if not (inside and worth >= 1.0):
            step = within(off, (LEARNING_LIMIT if worth >= BEYOND else LEARNING) * unit)
            gain = rate * step
            s.drift_mean[i] += gain
            s.drift_variance[i] = (s.drift_variance[i] + gain * step) * (1.0 - rate)
    return most
