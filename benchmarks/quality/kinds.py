"""The sensors of the catalogue: 13 kinds of one channel, and machines of three. Everything follows from the seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import numpy as np

from benchmarks.quality import synthetic
from benchmarks.quality.drive import SECOND, START
from benchmarks.quality.machines import machine
from detector.arrays import F64

Rng = np.random.Generator
SHIFT_INTERVAL: Final = 600 * SECOND
SHIFT_DAY: Final = 144
"""Rows of a day, ten minutes apart."""
_DAY: Final = 86_400 * SECOND


def healthy(kind: str, number: int, rows: int, seed: int) -> F64:
    """`rows` readings (rows, C) of sensor `number` of a kind in good health."""
    if kind == MACHINE:
        return machine(number, rows, seed)
    if kind in synthetic.KINDS:
        return synthetic.sensor(kind, number, rows, seed)[:, None]
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    return np.ascontiguousarray(_OWN[kind](rng, rows)[:, None])


def interval(kind: str) -> int:
    """The time between rows of a kind, ns."""
    return SHIFT_INTERVAL if kind == "shifts" else SECOND


def day(kind: str) -> int | None:
    """Rows of a day, where a kind goes by it."""
    return SHIFT_DAY if kind == "shifts" else None


def _durations(rng: Rng, rows: int, least: float, most: float) -> list[int]:
    """Lengths of states, exponential around a mean of the sensor's own, at least 5."""
    mean = rng.uniform(least, most)
    lengths: list[int] = (5 + rng.exponential(mean, int(rows / mean) + 60)).astype(int).tolist()
    return lengths


def _states(rng: Rng, rows: int) -> F64:
    """A machine with four modes of work, in an order by chance."""
    lengths = _durations(rng, rows, 40, 150)
    levels = np.array([0.0, 1.0, 2.5, 4.0])[rng.integers(0, 4, len(lengths))]
    return np.repeat(levels, lengths)[:rows] + rng.normal(0, 0.1, rows)


def _boolean(rng: Rng, rows: int) -> F64:
    """A switch, without noise."""
    lengths = _durations(rng, rows, 20, 120)
    return np.repeat(np.arange(len(lengths)) % 2, lengths)[:rows].astype(np.float64)


def _counter(rng: Rng, rows: int) -> F64:
    """A counter of what passes, which begins again when it is full."""
    steps = rng.gamma(4.0, 0.25, rows)
    full = rng.uniform(200, 600)
    return np.floor(np.cumsum(steps) % full)


def _shifts(rng: Rng, rows: int) -> F64:
    """A machine that runs from six to ten in the evening on working days, by ten minutes."""
    times = START + np.arange(rows) * SHIFT_INTERVAL
    of_day, days = times % _DAY, times // _DAY
    working = (days + 3) % 7 < 5  # 1970 began on a Thursday
    runs = working & (of_day >= 6 * 3600 * SECOND) & (of_day < 22 * 3600 * SECOND)
    load = np.where(runs, 10.0, 1.0) + np.where(runs, 1.0, 0.2) * rng.normal(size=rows)
    return load + rng.uniform(-1, 1)


_OWN: Final[dict[str, Callable[[Rng, int], F64]]] = {
    "states": _states,
    "boolean": _boolean,
    "counter": _counter,
    "shifts": _shifts,
}
MACHINE: Final = "machine"
KINDS: Final = (
    "white", "ar .95", "ar .999", "seasonal", "daily", "cycles", "bursty", "counts", "steps",
    "states", "boolean", "counter", "shifts",
)  # fmt: skip
