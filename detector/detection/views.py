"""What the channels of a machine say together: two views of a row, each an average.

Where many channels are watched, some of them are always unusual. The worst of all their signals is decided by the
jumpiest, and a fault that is in many of them, or between them, goes under. So a machine has two signals. *Prediction*:
how badly its channels are forecast, on average. *Place*: where its row lies, the average of reconstruction, level, and
*relation*, which is how far the row is from what its principal components make of it. Each is counted in units of what
is usual for it; prediction and level, by channel, of what is usual for the channel. Of a channel that hardly ever moves
they say nothing.

The functions of a `Sensor` are twins of those in recurrences.c; see sensor.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from detector.arrays import F32, F64, Bools
from detector.detection.sensor import Sensor, moved, within
from detector.detection.signals import PREDICTION_RATE, TINY, Z_LIMIT

VIEWS: Final = 2
"""Prediction and place."""
COMPONENTS: Final = 4
"""Principal components that are kept at most."""
EXPLAINED: Final = 0.5
"""The share of the variance that those used explain. More of them would explain what belongs to single channels."""
HARDLY_MOVES: Final = 0.9
"""A channel whose commonest value makes up as large a share of the prefix."""
ROUNDS: Final = 32
"""Steps towards what the components make of a channel that a row lacks: of two that go together each halves the way."""


def several(channels: int) -> int:
    """Channels that are looked at together: none of one.

    >>> several(1), several(2)
    (0, 2)
    """
    return channels if channels > 1 else 0


def typical_count(channels: int) -> int:
    """What is usual for a machine, numbers: for the signals of its channels, and for the relation.

    >>> typical_count(1), typical_count(2)
    (0, 6)
    """
    return 2 * channels + 2 if several(channels) else 0


# -- of a prefix -----------------------------------------------------------------------------------------------------


def typical_of(values: F64, signals: F64, relation: F64) -> F32:
    """What is usual (2 C + 2,): for the signals (2 C + 1, R) of a prefix in their order, and for `relation` (R,).

    `values` (L, C): of the prefix. NaN: a row has no such signal. 0 for prediction and level of a channel that hardly
    ever moves.
    """
    channels = values.shape[1]
    typical = np.zeros(2 * channels + 2, dtype=np.float32)
    for place, signal in enumerate((*signals, relation)):
        there = signal[~np.isnan(signal)]
        typical[place] = there.mean() + TINY if len(there) else 0.0
    for channel, column in enumerate(values.T):
        _, counts = np.unique(column, return_counts=True)
        if counts.max() >= HARDLY_MOVES * len(column):
            typical[[channel, channels + 1 + channel]] = 0.0
    return typical


def final_error(rows: int, coefficients: int) -> float:
    """How much larger the errors of a linear forecast are on rows that it was not fitted to: Akaike's final error.

    An average over many channels hardly varies, so this shows. Of few rows it is kept finite.

    >>> final_error(901, 99)
    1.2468827930174564
    """
    return (rows + coefficients) / max(rows - coefficients, rows / 10)


def components_of(z: F64) -> F32:
    """The first principal components of rows z (C, n): (4, C), rows of zeros where fewer are used."""
    found = np.zeros((COMPONENTS, len(z)), dtype=np.float32)
    variances, vectors = np.linalg.eigh(z @ z.T)
    explained = np.cumsum(variances[::-1])
    if explained[-1] > 0:
        enough = int(np.searchsorted(explained, EXPLAINED * explained[-1])) + 1
        used = min(enough, COMPONENTS, len(z) - 1)
        found[:used] = vectors[:, ::-1].T[:used]
    return found


def relation_errors(z: F64, components: F32, lacks: Bools) -> F64:
    """`relation_error` of rows z (C, n), of which some values are missing: `lacks` (C, n). Returns (n,)."""
    z = np.where(lacks, 0.0, z)
    weights = components.astype(np.float64)
    parts = np.zeros((len(weights), z.shape[1]))
    for part, row in zip(parts, weights, strict=True):
        for weight, value in zip(row, z, strict=True):
            part += weight * value
    incomplete = np.flatnonzero(lacks.any(axis=0))
    for _ in range(ROUNDS if len(incomplete) else 0):
        some = parts[:, incomplete]
        for channel, column in enumerate(weights.T):
            here = lacks[channel, incomplete]
            step = np.where(here, _rebuilt(column, some) - z[channel, incomplete], 0.0)
            z[channel, incomplete] += step
            for part, weight in zip(some, column, strict=True):
                part += weight * step
        parts[:, incomplete] = some
    total = np.zeros(z.shape[1])
    for channel, column in enumerate(weights.T):
        error = z[channel] - _rebuilt(column, parts)
        total += np.where(lacks[channel], 0.0, error * error)
    there = (~lacks).sum(axis=0)
    return np.where(there > 0, total / np.maximum(there, 1), np.nan)


def _rebuilt(column: F64, parts: F64) -> F64:
    rebuilt = np.zeros(parts.shape[1])
    for weight, part in zip(column, parts, strict=True):
        rebuilt += weight * part
    return rebuilt


def views(signals: F64, relation: F64, typical: F32) -> F64:
    """The views (2, n) of rows by the signals of their channels (2 C + 1, n) and `relation` (n,); see `views_of`."""
    channels = len(signals) // 2
    parts = np.stack([
        signals[channels], mean_share(signals[channels + 1 :], typical[channels + 1 : -1]), relation
    ])  # fmt: skip
    parts[[0, 2]] /= typical[[channels, -1], None].astype(np.float64)
    return np.stack([mean_share(signals[:channels], typical[:channels]), mean_share(parts, np.ones(3, np.float32))])


def mean_share(signals: F64, typical: F32) -> F64:
    """`share` of rows, whose signals are (C, n). Returns (n,)."""
    total, count = np.zeros(signals.shape[1]), np.zeros(signals.shape[1])
    for signal, usual in zip(signals, typical.astype(np.float64), strict=True):
        if usual > 0.0:
            there = ~np.isnan(signal)
            total += np.where(there, signal / usual, 0.0)
            count += there
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


# -- row by row ------------------------------------------------------------------------------------------------------


def together(s: Sensor) -> bool:
    """Whether the sensor's channels are judged together. By a profile of a release before 0.9.0 they are not."""
    return s.channels > 1 and s.typical[0] == s.typical[0]


def views_of(s: Sensor, signals: Sequence[float], values: Sequence[float]) -> list[float]:
    """The views of a row from the signals of its channels and its values (C,), NaN: the row lacks the channel.

    A part of the place that a row lacks is left out of the average. A reconstruction that is mute counts as usual.
    """
    channels, typical = s.channels, s.typical
    error = relation_error(s, values)
    if error == error:
        s.relation[0] = moved(s.relation[0], error, typical[-1], PREDICTION_RATE)
    reconstruction = 1.0 if typical[channels] == math.inf else signals[channels] / typical[channels]
    parts = (
        reconstruction,
        share(signals[channels + 1 :], typical[channels + 1 : -1]),
        s.relation[0] / typical[-1] if error == error else error,
    )
    return [share(signals[:channels], typical[:channels]), share(parts, (1.0, 1.0, 1.0))]


def share(signals: Sequence[float], typical: Sequence[float]) -> float:
    """The mean of a signal over the channels that have it, in units of what is usual; NaN: none has."""
    total, count = 0.0, 0
    for signal, usual in zip(signals, typical, strict=True):
        if usual > 0.0 and signal == signal:
            total += signal / usual
            count += 1
    return total / count if count else math.nan


def relation_error(s: Sensor, values: Sequence[float]) -> float:
    """The mean squared distance of a row's values (C,) from what the principal components make of them.

    A value that is missing is what the components make of the others, and does not count itself. NaN: all are missing.
    """
    rows, channels = s.components, range(s.channels)
    lacks = [value != value for value in values]
    z = [0.0 if lacks[i] else within((values[i] - s.center[i]) / s.scale[i], Z_LIMIT) for i in channels]
    parts = []
    for row in rows:
        part = 0.0
        for i in channels:
            part += row[i] * z[i]
        parts.append(part)
    for _ in range(ROUNDS if any(lacks) else 0):
        for i in channels:
            if lacks[i]:
                step = _of_components(rows, parts, i) - z[i]
                z[i] += step
                for k, row in enumerate(rows):
                    parts[k] += row[i] * step
    total, count = 0.0, 0
    for i in channels:
        if not lacks[i]:
            error = z[i] - _of_components(rows, parts, i)
            total += error * error
            count += 1
    return total / count if count else math.nan


def _of_components(rows: Sequence[Sequence[float]], parts: Sequence[float], channel: int) -> float:
    rebuilt = 0.0
    for row, part in zip(rows, parts, strict=True):
        rebuilt += row[channel] * part
    return rebuilt
