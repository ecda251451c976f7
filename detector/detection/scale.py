"""The two scales of a score, for one sensor, and what the adaptive one learns.

The *frozen* scale is the worst of training. The *adaptive* one is a running mean and variance of each signal.

Twin of recurrences.c; see sensor.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from detector.detection.sensor import Sensor, larger, within
from detector.detection.signals import ADAPTIVE_RATE, LEARNING_LIMIT, MACHINE_LIMIT, TINY
from detector.detection.views import together


def on_frozen_scale(s: Sensor, signals: Sequence[float]) -> float:
    """The worst signal in units of its maximum on the prefix. Those of a channel that the row lacks are NaN."""
    most = -math.inf
    for i, signal in enumerate(signals):
        if signal == signal:
            most = larger(signal / s.worst[i], most)
    return most


def on_adaptive_scale(s: Sensor, zz: Sequence[float]) -> float:
    """The largest deviation, at least 0, in units of the prefix's largest."""
    most = -math.inf
    for one in zz:
        if one == one:
            most = larger(one, most)
    return larger(most / s.worst_zz, 0.0)


def units_of(variance: Sequence[float]) -> list[float]:
    """What deviations are counted in."""
    return [math.sqrt(one) + TINY for one in variance]


def deviations(s: Sensor, signals: Sequence[float], mean: Sequence[float], units: Sequence[float]) -> list[float]:
    """How many units each signal lies above a mean. One that is mute (without a maximum: infinity) lies 0 above it."""
    worst, infinity = s.worst, math.inf
    return [
        0.0 if worst[i] == infinity and signal == signal else (signal - mean[i]) / units[i]
        for i, signal in enumerate(signals)
    ]


def learn(s: Sensor, zz: Sequence[float], units: Sequence[float]) -> None:
    """Let the running mean and variance learn a row.

    Exponential forgetting at 2/8001 a row, faster (1/count) while the sensor is young; the deviation counts no more
    than `LEARNING_LIMIT` units, of a machine `MACHINE_LIMIT`.
    """
    s.count += 1.0
    rate = larger(ADAPTIVE_RATE, 1.0 / s.count)
    keep = 1.0 - rate
    mean, variance = s.mean, s.variance
    limit = MACHINE_LIMIT if together(s) else LEARNING_LIMIT
    for i, one in enumerate(zz):
        if one != one:
            continue
        step = within(one, limit) * units[i]
        gain = rate * step
        mean[i] += gain
        variance[i] = (variance[i] + gain * step) * keep
