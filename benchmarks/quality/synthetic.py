"""Sensors that are never faulty, of many kinds, and faults to put into them. Everything follows from the seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from detector.arrays import F64

Rng = np.random.Generator


def sensor(kind: str, number: int, rows: int, seed: int) -> F64:
    """`rows` readings of sensor `number` of a kind, at a level and in a unit of its own."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    level, unit = rng.uniform(-100, 100), np.exp(rng.uniform(-3, 3))
    return np.ascontiguousarray(level + unit * KINDS[kind](rng, rows))


def _autoregressive(noise: F64, share: float) -> F64:
    """x_t = share x_(t-1) + e_t from its stationary distribution, with unit variance for unit noise."""
    value, out = float(noise[0]), []
    gain = float(np.sqrt(1 - share * share))
    for e in (gain * noise).tolist():
        value = share * value + e
        out.append(value)
    return np.array(out)


def _ar(share: float) -> Callable[[Rng, int], F64]:
    return lambda rng, rows: _autoregressive(rng.normal(size=rows), share)


def _seasonal(rng: Rng, rows: int) -> F64:
    angle = 2 * np.pi * (np.arange(rows) / rng.uniform(30, 300) + rng.uniform())
    return np.sin(angle) + rng.normal(0, rng.uniform(0.05, 0.5), rows)


def _daily(rng: Rng, rows: int) -> F64:
    """A slow cycle longer than a window, with its first harmonic, and correlated noise."""
    angle = 2 * np.pi * (np.arange(rows) / rng.uniform(500, 1500) + rng.uniform())
    return np.sin(angle) + 0.5 * np.sin(2 * angle + 1) + 0.2 * _autoregressive(rng.normal(size=rows), 0.8)


def _cycles(rng: Rng, rows: int) -> F64:
    """A machine that is switched on and off, with durations that vary a little."""
    period = rng.uniform(40, 200)
    lengths = rng.normal(period / 2, period / 20, 2 * int(rows / period) + 40).round().clip(5).astype(int)
    states = np.repeat(np.arange(len(lengths)) % 2, lengths)[:rows]
    return states + rng.normal(0, 0.05, rows)


def _heavy(rng: Rng, rows: int) -> F64:
    return rng.standard_t(3, rows)


def _bursty(rng: Rng, rows: int) -> F64:
    """Noise that is three times as loud now and then."""
    quiet, loud = rng.uniform(200, 600), rng.uniform(20, 60)
    count = int(2 * rows / (quiet + loud)) + 20
    lengths = np.stack([rng.exponential(quiet, count), rng.exponential(loud, count)], axis=1).astype(int) + 1
    states = np.repeat(np.tile([1.0, 3.0], count), lengths.ravel())[:rows]
    return states * rng.normal(size=rows)


def _volatile(rng: Rng, rows: int) -> F64:
    return np.exp(0.4 * _autoregressive(rng.normal(size=rows), 0.99)) * rng.normal(size=rows)


def _counts(rng: Rng, rows: int) -> F64:
    return rng.poisson(rng.uniform(2, 30), rows).astype(float)


def _steps(rng: Rng, rows: int) -> F64:
    """A coarse converter."""
    return np.round(2 * _autoregressive(rng.normal(size=rows), 0.9)) / 2


def _skewed(rng: Rng, rows: int) -> F64:
    return np.exp(0.7 * _autoregressive(rng.normal(size=rows), 0.7))


KINDS: dict[str, Callable[[Rng, int], F64]] = {
    "white": _ar(0.0),
    "ar .5": _ar(0.5),
    "ar .95": _ar(0.95),
    "ar .999": _ar(0.999),
    "seasonal": _seasonal,
    "daily": _daily,
    "cycles": _cycles,
    "heavy": _heavy,
    "bursty": _bursty,
    "volatile": _volatile,
    "counts": _counts,
    "steps": _steps,
    "skewed": _skewed,
}


def shifted(values: F64, first: int, rows: int | None, deviations: float, warmup: int) -> F64:
    """The values, moved by `deviations` of the first `warmup` rows from row `first` on; `rows` None: to the end."""
    out = values.copy()
    out[first : None if rows is None else first + rows] += deviations * values[:warmup].std()
    return out
