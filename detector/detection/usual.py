"""What a channel usually does, as its own forecast has it: how alike its rows are, and in which cycles it moves.

The forecast of section 1 of docs/detection.md is an autoregression of order 99, so it implies a spectrum, and that the
covariance of the 100 rows of a window (unit variance). Rows multiplied by the inverse of the covariance's Cholesky
factor are *whitened*: each is what the rows before it in the window leave open, in units of what they usually do. A
healthy window becomes white noise, and a fault keeps its own form, whitened alike: to find it is plain least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from detector.arrays import F64
from detector.detection.signals import WINDOW

_GRID: Final = 32_768
_PEAK: Final = 1e-6
"""Keeps a cycle that never fades from having infinite power."""
_WHITE: Final = 1e-4
"""Variance of a row that no other row knows of."""
_BACK: Final = 1e-4
_APART: Final = (1, 5)
_LINE: Final = 0.004
_SHARP: Final = 0.75
REMEMBERED: Final = 64
"""Forecasts of which it is kept what they imply."""
PROMINENT: Final = 0.3
"""A cycle that has this share of all variance is one that is missed when it is gone."""


@dataclass(frozen=True, slots=True)
class Usual:
    """`whiten` (100, 100): see above. `alike` (100,): correlation of rows this far apart.

    `cycle`: rows of the strongest cycle that fits into a window; `share`: the part of the variance that it has, 0 where
    it is none that goes on.
    """

    whiten: F64
    alike: F64
    cycle: float
    share: float

    def calm(self, x: F64) -> float:
        """How large the moves of the newest rows of x are, squared, in units of the usual ones."""
        return max(
            float(np.square(x[apart:] - x[:-apart]).mean()) / (2 * (1 - float(self.alike[apart])) + _WHITE)
            for apart in _APART
        )

    def cycling(self, x: F64) -> float | None:
        """The power of the usual cycle in rows x, in units of its usual one; None: there is none, or too few rows."""
        if self.share < PROMINENT or len(x) < self.cycle:
            return None
        row = np.arange(len(x))
        angle = 2 * np.pi * row / self.cycle
        known = np.column_stack([np.ones(len(x)), row / len(x) - 0.5, np.cos(angle), np.sin(angle)])
        *_, along, across = np.linalg.lstsq(known, x, rcond=None)[0].tolist()
        return float(along**2 + across**2) / 2 / self.share


def usual_level(ridge: F64, bias: float) -> float:
    """Where values lie that a forecast would leave where they are; next to 0 where it would leave them anywhere.

    >>> round(usual_level(np.full(99, 0.5 / 99), 0.2), 2)
    0.4
    """
    back = 1 - float(ridge.sum())
    return bias * back / (back * back + _BACK)


def usual_of(ridge: F64) -> Usual:
    """By the coefficients (99,) of a forecast, newest row last.

    >>> white = usual_of(np.zeros(99))
    >>> bool(np.allclose(white.whiten, np.eye(100), atol=1e-3))
    True
    """
    return _usual_of(ridge.astype(np.float64).tobytes())


@lru_cache(REMEMBERED)
def _usual_of(coefficients: bytes) -> Usual:
    """An open episode is looked at again and again, and its sensor's forecast stays; each takes 85 KB."""
    ridge = np.frombuffer(coefficients)
    response = np.abs(np.fft.rfft(np.concatenate([[1.0], -ridge[::-1]]), _GRID))
    power = 1.0 / (np.square(response) + _PEAK)
    alike = np.fft.irfft(power)
    power *= 2 / _GRID / alike[0]
    alike = alike[:WINDOW] / alike[0]
    row = np.arange(WINDOW)
    covariance = alike[np.abs(row[:, None] - row)] + _WHITE * np.eye(WINDOW)
    frequency = np.arange(len(power)) / _GRID
    best = int(np.where(frequency >= 1 / WINDOW, power, 0.0).argmax())
    apart = np.abs(frequency - frequency[best])
    line, around = float(power[apart <= _LINE].sum()), float(power[apart <= 1 / WINDOW].sum())
    share = line if line > _SHARP * around else 0.0  # noise has hills, cycles have lines
    return Usual(np.linalg.inv(np.linalg.cholesky(covariance)), alike, 1 / float(frequency[best]), share)
