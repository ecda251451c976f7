"""From standardised windows to one score a row: three signals, two scales.

Everything here is row by row: a row's result has the same bits whichever rows are computed beside it. So no BLAS
product, only products summed in an order that is written down, and recurrences that run reading by reading.

Signals, in this order, for C channels (K = 2 C + 1): C times *prediction* (how far the newest value lies from its
linear forecast), *reconstruction* (how badly the autoencoder reproduces the window), C times *level* (how far the
values lie from their usual place). Higher is worse throughout. What is made of them of several channels: views.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from detector.arrays import F32, F64, Bools

WINDOW = 100
"""Rows in a window."""
Z_LIMIT = 1e4
"""Standardised values are limited to this in either direction, so that their squares stay finite."""
LANES = 20
"""So many sums run side by side where products are added up."""

STEPS = 4
"""Steps towards what the autoencoder makes of values that are missing; behind the third nothing changes that counts."""
LONG_PATCH = 3
"""While this many patched values in a row are in the window of a channel, its forecasts do not count."""

PREDICTION_RATE = 2 / (50 + 1)
LEVEL_RATE = 2 / (40 + 1)
NEWEST_FIRST: F64 = np.power(1 - 2 / (50 + 1), np.arange(WINDOW - 1, -1, -1, dtype=np.float64))
"""Weights of a window's squared errors: exponential with a span of 50 rows, heaviest on the newest, sum 1."""
NEWEST_FIRST /= NEWEST_FIRST.sum()
ROOT_WEIGHTS: F32 = np.sqrt(NEWEST_FIRST).astype(np.float32)

ADAPTIVE_RATE = 2 / (8000 + 1)
LEARNING_LIMIT = 5.0
"""The running mean and variance learn from deviations limited to this many standard deviations."""
MACHINE_LIMIT = 4.0
"""The same of a machine, which so learns less of a fault."""
TINY = 1e-6


def signal_count(channels: int) -> int:
    """Signals of a sensor with that many value columns."""
    return 2 * channels + 1


def standardise(values: F64, center: F64, scale: F64) -> F64:
    """(values - center) / scale in float64, limited to +-`Z_LIMIT`. Shapes broadcast; channels come last."""
    z = (values - center) / scale
    return np.clip(z, -Z_LIMIT, Z_LIMIT, out=z)


def summed(products: F64) -> F64:
    """Sums of products (n, L), L a multiple of 20, added in one order whatever the processor: twin of recurrences.c.

    >>> summed(np.ones((1, 100)))
    array([100.])
    """
    lanes = products[:, :LANES].copy()
    for begin in range(LANES, products.shape[1], LANES):
        lanes += products[:, begin : begin + LANES]
    half = lanes[:, : LANES // 2] + lanes[:, LANES // 2 :]
    five = half[:, : LANES // 4] + half[:, LANES // 4 :]
    total: F64 = five[:, 0] + five[:, 1] + five[:, 2] + five[:, 3] + five[:, 4]
    return total


def prediction_errors(windows: F64, forecast: F64, bias: F64) -> F64:
    """Squared error of the linear one-step forecast of each window's newest value.

    `windows` (n, 100) of one channel; `forecast` (n, 100): the coefficients, with a 0 for the newest value itself;
    `bias` (n,). C-contiguous. Returns (n,).
    """
    error = summed(windows * forecast)
    error += bias
    error -= windows[:, -1]
    error *= error
    return error


def rebuild(windows: F32, patched: Bools | None, reconstruct: Callable[[F32], F32]) -> F32:
    """The reconstruction of windows (n, 100, C) of which the `patched` (n, 100, C) values stand for missing ones.

    The autoencoder sees the channels together: a value that stands still while others move would spoil what it makes of
    these. So in place of patched values it is given what it made of them itself, `STEPS` times.
    """
    rebuilt = np.ascontiguousarray(reconstruct(windows), dtype=np.float32)
    if patched is None or not patched.any():
        return rebuilt
    some = np.flatnonzero(patched.any(axis=(1, 2)))
    part, holes = windows[some], patched[some]
    for _ in range(STEPS):
        part = np.where(holes, rebuilt[some], part)
        rebuilt[some] = reconstruct(part)
    return rebuilt


def reconstruction_errors(windows: F32, expected: F32, patched: Bools | None = None) -> F64:
    """Weighted squared error of each window's reconstruction, mean over channels: (n, 100, C) twice -> (n,).

    What is `patched` (n, 100, C) does not count.
    """
    rows, _, channels = windows.shape
    error = windows - expected
    error *= ROOT_WEIGHTS[:, None]
    if patched is not None:
        error[patched] = 0.0
    flat = error.reshape(rows, WINDOW * channels).astype(np.float64)
    flat *= flat
    total = summed(flat)
    return total if channels == 1 else total / channels


def unforeseen(patched: Bools) -> Bools:
    """Of which channels (n, C) of windows (n, 100, C) the newest value has no forecast that says anything.

    It is patched itself, or the window holds `LONG_PATCH` patched values in a row.
    """
    runs = patched[:, : WINDOW - LONG_PATCH + 1].copy()
    for back in range(1, LONG_PATCH):
        runs &= patched[:, back : WINDOW - LONG_PATCH + 1 + back]
    none: Bools = runs.any(axis=1) | patched[:, -1]
    return none


def ewma_path(x: F64, rate: float) -> F64:
    """The exponentially weighted average after each element of `x` (n,), started at the first element.

    >>> ewma_path(np.array([1.0, 0.0, 0.0]), 0.5)
    array([1.  , 0.5 , 0.25])
    """
    out: list[float] = []
    value: float | None = None
    for element in x.tolist():
        value = element if value is None else value + rate * (element - value)
        out.append(value)
    return np.array(out, dtype=np.float64)


def forward_filled(values: F64) -> F64:
    """The values (L, C), in place of each NaN the one before it, before the first the first one; 0 where there is none.

    >>> forward_filled(np.array([[np.nan], [1.0], [np.nan], [2.0]])).ravel()
    array([1., 1., 1., 2.])
    """
    there = ~np.isnan(values)
    if there.all():
        return values
    row = np.arange(len(values))[:, None]
    newest = np.maximum.accumulate(np.where(there, row, -1), axis=0)
    source = np.where(newest < 0, there.argmax(axis=0), newest)
    return np.nan_to_num(np.take_along_axis(values, source, axis=0))


def deviation(signals: F64, mean: F64, variance: F64, mute: Bools | None = None) -> tuple[F64, F64]:
    """How many running standard deviations each signal lies above its running mean, and those deviations' unit.

    Signals that are `mute` (see `mute_of`) lie 0 above it.
    """
    unit = np.sqrt(variance) + TINY
    zz = (signals - mean) / unit
    if mute is not None:
        zz[mute] = 0.0
    return zz, unit


def mute_of(worst: F64) -> Bools | None:
    """Which signals, shaped as `worst`, are mute: those without a maximum, infinity; None if there are none.

    A mute signal is 0 on the frozen scale by itself, and on the adaptive one by `deviation`.
    """
    mute = np.isinf(worst)
    return mute if mute.any() else None


def learn(zz: F64, unit: F64, mean: F64, variance: F64, count: F64) -> None:
    """Let the running mean and variance (K, n) and count (n,) learn one row, in place.

    Exponential forgetting at 2/8001 a row, faster (1/count) while the sensor is young; the deviation counts no more
    than `LEARNING_LIMIT` units.
    """
    count += 1.0
    rate = np.maximum(ADAPTIVE_RATE, 1.0 / count)
    step = np.minimum(np.maximum(zz, -LEARNING_LIMIT), LEARNING_LIMIT)
    step *= unit
    gain = rate * step
    mean += gain
    gain *= step
    variance += gain
    variance *= 1.0 - rate


def frozen_scale(signals: F64, worst: F64) -> F64:
    """The worst signal in units of its maximum on the prefix, `worst`; signals on the first axis, NaN: none."""
    return np.fmax.reduce(signals / worst, axis=0)  # type: ignore[no-any-return]


def adaptive_scale(zz: F64, worst_zz: Any) -> F64:
    """The largest deviation, at least 0, in units of the prefix's largest, `worst_zz`; signals on the first axis."""
    return np.maximum(np.fmax.reduce(zz, axis=0) / worst_zz, 0.0)  # type: ignore[no-any-return]


def combine(signals: F64, zz: F64, worst: F64, worst_zz: Any) -> F64:
    """The score u = min(frozen, adaptive) of rows; signals on the first axis.

    1.0 reads: as bad as the worst row of training on both scales.
    """
    return np.minimum(frozen_scale(signals, worst), adaptive_scale(zz, worst_zz))
