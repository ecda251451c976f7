"""Declustered peaks of a prefix: how high a signal, or a score, rose apart from the rows around."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from detector.arrays import F64, I64
from detector.detection.threshold import QUIET_ROWS

MOST_PEAKS: Final = 3
PEAK_ROWS: Final = 4000
"""Rows. Of a shorter prefix the worst of a machine's signal is the highest peak. From this length on it is the second,
from twice this length on the third."""


def standing_maxima(v: F64) -> tuple[I64, I64, F64]:
    """Runs (first row, last row, value) of rows that no later one within 100 rows exceeds; equal neighbours merged.

    >>> standing_maxima(np.array([1.0, 3.0, 2.0]))
    (array([1, 2]), array([1, 2]), array([3., 2.]))
    """
    ahead = np.concatenate([v[1:], np.full(QUIET_ROWS, -np.inf)])
    standing = np.flatnonzero(sliding_window_view(ahead, QUIET_ROWS).max(axis=1) <= v)
    new_run = np.ones(len(standing), dtype=bool)
    new_run[1:] = (np.diff(standing) > 1) | (np.diff(v[standing]) != 0)
    starts = np.flatnonzero(new_run)
    ends = np.append(starts[1:], len(standing)) - 1
    return standing[starts], standing[ends], v[standing[starts]]


def declustered(first: I64, last: I64, v: F64, begin: int, rows: int) -> list[float]:
    """The peaks among the rows begin .. rows - 1, oldest first, the pending one included; runs by `standing_maxima`.

    A running maximum ends once 100 rows pass with nothing higher, so each is the first *standing* row at or after the
    end of the one before.
    """
    begins, ends = first.tolist(), last.tolist()
    peaks = []
    row = begin
    while row < rows:
        run = bisect_left(ends, row)
        peaks.append(float(v[run]))
        row = max(begins[run], row) + QUIET_ROWS + 1
    return peaks


def usual_worst(signal: F64) -> float:
    """The worst of a machine's signal (R,) on a prefix, half of the highest at least. NaN: a row, or all, have none.

    With many channels a long prefix hardly ever is without a fault of one of them, and one is not to be the measure.
    """
    there = ~np.isnan(signal)
    if not there.any():
        return np.nan
    v = np.where(there, signal, signal[there].min())
    peaks = sorted(declustered(*standing_maxima(v), 0, len(v)), reverse=True)
    place = min(MOST_PEAKS, 1 + len(v) // PEAK_ROWS, len(peaks))
    return max(peaks[place - 1], peaks[0] / 2)
