"""After a long fault: the adaptive scale forgets what the fault has taught it, once the signals are back.

The running mean and variance learn every row, faulty ones too; a fault of thousands of rows would so become the normal
case, and the next one like it pass unnoticed. So where scores have been high for long, a copy of mean and variance is
kept from then on. If the signals come back to what the copy calls normal, the copy is put back; if they do not within
`PATIENCE` rows, what looked like a fault is the new normal, and what was learnt stays. Scoring uses the running values
throughout, so that an episode over a lasting new level closes as if there were no copy.

Twin of recurrences.c; see sensor.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float
from typing import Final

from detector.detection import scale
from detector.detection.sensor import Sensor

LEARNT_ROWS: Final = 300
"""A fault teaches this many rows for good."""
COLD_ROWS: Final = 50
"""This many rows in a row with a score below 1 end the count of high ones."""
CALM_ROWS: Final = 50
"""This many rows in a row that the copy calls normal end a fault."""
PATIENCE: Final = 8000
"""Rows after which a copy is given up."""


def remember(s: Sensor, high: bool, signals: Sequence[float]) -> bool:
    """Take in a row that is scored and not learnt yet; returns whether mean and variance were put back.

    `high`: whether the score is at least 1. Where there is no copy and no high row counted, one that is not `high`
    changes nothing and need not come here.
    """
    held = s.kept
    if high and not held:
        s.high += 1
    s.cold = 0 if high or held or s.high == 0 else s.cold + 1
    if s.cold >= COLD_ROWS:
        s.high = s.cold = 0
    back = held and watch(s, signals)
    if s.high > LEARNT_ROWS:
        s.kept_mean, s.kept_variance = rounded(s.mean), rounded(s.variance)
        s.kept = True
        s.high = s.cold = s.kept_rows = s.calm = 0
    return back


def watch(s: Sensor, signals: Sequence[float]) -> bool:
    """While there is a copy: is the fault over, so that the copy is put back, or has it become the normal case?"""
    zz = scale.deviations(s, signals, s.kept_mean, scale.units_of(s.kept_variance))
    s.calm = s.calm + 1 if scale.on_adaptive_scale(s, zz) < 1.0 else 0
    s.kept_rows += 1
    back = s.calm >= CALM_ROWS
    if back:
        s.mean, s.variance = s.kept_mean.copy(), s.kept_variance.copy()
    if back or s.kept_rows >= PATIENCE:
        s.kept = False
    return back


def rounded(numbers: Sequence[float]) -> list[float]:
    """In single precision, as they are stored: at once, so that it does not matter where a batch ends."""
    return [c_float(number).value for number in numbers]
