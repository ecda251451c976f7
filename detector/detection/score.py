"""From what a row's window says to its score, for one sensor: moving averages, and the smaller of two scales.

Twin of recurrences.c; see sensor.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from detector.detection.faultmemory import remember
from detector.detection.scale import deviations, learn, on_adaptive_scale, on_frozen_scale, units_of
from detector.detection.sensor import Sensor, moved, smaller
from detector.detection.signals import LEVEL_RATE, PREDICTION_RATE


def fill(s: Sensor, squares: Sequence[float]) -> None:
    """Let a row move the level, which needs no complete window; `squares` (C,): of its values, NaN: it lacks one."""
    for i, x in enumerate(squares):
        if x == x:
            s.level[i] = moved(s.level[i], x, x, LEVEL_RATE)


def signals_of(s: Sensor, errors: Sequence[float], squares: Sequence[float], error: float) -> list[float]:
    """The K signals of a row of C prediction `errors`, `squares` of values, and a reconstruction `error`.

    The last of these is NaN where a stride leaves the row out: then the one before is held. Of a channel that the row
    lacks the others are NaN: its averages stay, and its signals are NaN.
    """
    for i, x in enumerate(errors):
        # One of the first errors, alone, may be an alarm: an average begins at its running mean.
        if x == x:
            s.prediction[i] = moved(s.prediction[i], x, s.mean[i], PREDICTION_RATE)
    if error == error:
        s.held_error = error
    s.completions += 1
    fill(s, squares)
    return [*_of(errors, s.prediction), s.held_error, *_of(squares, s.level)]


def _of(raw: Sequence[float], averages: Sequence[float]) -> list[float]:
    """The averages, NaN where the row lacks the channel."""
    return [average if x == x else x for x, average in zip(raw, averages, strict=True)]


def score_row(s: Sensor, signals: Sequence[float], inside: bool) -> float:
    """The score of a row, which the adaptive scale then learns; `inside`: the row lies in a maintenance window."""
    units = units_of(s.variance)
    zz = deviations(s, signals, s.mean, units)
    u = smaller(on_frozen_scale(s, signals), on_adaptive_scale(s, zz))
    high = u >= 1.0
    if (high or s.high or s.kept) and remember(s, high, signals):
        units = units_of(s.variance)
        zz = deviations(s, signals, s.mean, units)
    if not (high and inside):
        learn(s, zz, units)
    return u
