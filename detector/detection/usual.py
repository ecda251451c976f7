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
from detector.detection.kernel.choice import choose
from detector.detection.signals import WINDOW

_COARSE: Final = 4096
_FINE: Final = 32_768
_STEEP: Final = 0.25
"""A spectrum that changes more than this (ln) from one frequency of the coarse grid to the next needs the fine one."""
_PEAK: Final = 1e-6
"""Keeps a cycle that never fades from having infinite power."""
_WHITE: Final = 1e-4
"""Variance of a row that no other row knows of."""
_BACK: Final = 1e-4
_APART: Final = (1, 5)
_LINE: Final = 0.004
_SHARP: Final = 0.75
REMEMBERED: Final = 1024
"""Forecasts of which it is kept what they imply; each takes 5 KB."""
PROMINENT: Final = 0.3
"""A cycle that has this share of all variance is one that is missed when it is gone."""


@dataclass(frozen=True, slots=True)
class Usual:
    """`whiten` (100, 100): see above. `alike` (100,): correlation of rows this far apart.

    `cycle`: rows of the strongest cycle that fits into a window; `share`: the part of the variance that it has, 0 where
    it is none that goes on. `slopes` (100,): the sum of squares of a whitened slope that begins at each row; `straight`
    (100, 2): spans what is whitened of a straight line.
    """

    whiten: F64
    alike: F64
    cycle: float
    share: float
    slopes: F64
    straight: F64

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
    implied = _implied(ridge.astype(np.float64).tobytes())
    return Usual(_whitening(implied[0]), *implied)


@lru_cache(REMEMBERED)
def _implied(coefficients: bytes) -> tuple[F64, float, float, F64, F64]:
    """The fields of `Usual` behind `whiten`, which are small.

    An open episode is looked at again and again, and its sensor's forecast stays.
    """
    ridge = np.frombuffer(coefficients)
    power = _spectrum(ridge, _COARSE)
    if float(np.abs(np.diff(np.log(power))).max()) > _STEEP:
        power = _spectrum(ridge, _FINE)
    grid = 2 * (len(power) - 1)
    alike = np.fft.irfft(power)
    power *= 2 / grid / alike[0]
    alike = alike[:WINDOW] / alike[0]
    frequency = np.arange(len(power)) / grid
    best = int(np.where(frequency >= 1 / WINDOW, power, 0.0).argmax())
    apart = np.abs(frequency - frequency[best])
    line, around = float(power[apart <= _LINE].sum()), float(power[apart <= 1 / WINDOW].sum())
    share = line if line > _SHARP * around else 0.0  # noise has hills, cycles have lines
    steps = sums(_whitening(alike))
    slopes = sums(steps)
    straight, _ = np.linalg.qr(np.column_stack([steps[:, 0], slopes[:, 0]]))
    return alike, 1 / float(frequency[best]), share, np.square(slopes).sum(axis=0), straight


def _spectrum(ridge: F64, grid: int) -> F64:
    """Of an autoregression, from frequency 0 to 1/2, at every 1/grid."""
    response = np.fft.rfft(np.concatenate([[1.0], -ridge[::-1]]), grid)
    return np.asarray(1.0 / (np.square(np.abs(response)) + _PEAK))


def _whitening(alike: F64) -> F64:
    covariance = alike.copy()
    covariance[0] += _WHITE
    return choose().kernel.whitening(covariance)


def sums(x: F64) -> F64:
    """Of each element and all after it, along the last axis.

    >>> sums(np.array([1.0, 2.0, 3.0])).tolist()
    [6.0, 5.0, 3.0]
    """
    return np.asarray(np.cumsum(x[..., ::-1], axis=-1)[..., ::-1])
