"""Machines that are watched through three channels, which one load drives, and faults of one channel among them.

The load is two cycles and a slow wandering. Pressure and flow follow it at once, temperature with a delay of some ten
rows; each has noise of its own. Everything follows from the seed.
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from detector.arrays import F64

CHANNELS: Final = ("temperature", "pressure", "flow")
FAULTS: Final = ("shift", "stuck", "foreign", "inverted")
"""`shift`: the channel reads too high by about its range; `stuck`: it stays where it was. Two are of the relation
alone, each channel looks healthy: `foreign`: it follows another machine's load; `inverted`: it falls where it rose."""
_LEVEL: Final = np.array([68.0, 101_325.0, 120.0])
_SWING: Final = np.array([3.0, 900.0, 8.0])
_NOISE: Final = np.array([0.3, 150.0, 2.0])
_MEMORY: Final = 0.95
_LINKED_LEVEL: Final = np.array([70.0, 100_000.0, 120.0, 5.0])
_LINKED_SWING: Final = np.array([3.0, 900.0, 8.0, 1.0])
_DELAY: Final = 0.1


def machine(number: int, rows: int, seed: int) -> F64:
    """(rows, 3) healthy readings."""
    rng = np.random.default_rng([seed, number])
    return _channels(_load(rng, rows), rng)


def faulty(number: int, rows: int, seed: int, fault: str, channel: int, span: slice) -> F64:
    """The same machine with a fault of one channel over some rows. Raises KeyError for an unknown fault."""
    values = machine(number, rows, seed)
    if fault == "shift":
        values[span, channel] += 4 * _SWING[channel]
    elif fault == "stuck":
        values[span, channel] = values[span.start, channel]
    elif fault == "foreign":
        values[span, channel] = machine(number + 1_000_000, rows, seed)[span, channel]
    elif fault == "inverted":
        values[span, channel] = 2 * _LEVEL[channel] - values[span, channel]
    else:
        raise KeyError(fault)
    return values


def _load(rng: np.random.Generator, rows: int) -> F64:
    row = np.arange(rows)
    cycles = np.sin(2 * np.pi * (row / 61 + rng.uniform())) + 0.5 * np.sin(2 * np.pi * (row / 233 + rng.uniform()))
    return cycles + _followed(rng.normal(0, 0.25, rows), _MEMORY, 1.0)


def _channels(load: F64, rng: np.random.Generator) -> F64:
    driven = np.stack([_followed(load, 1 - _DELAY, _DELAY), load, load], axis=1)
    noise = rng.normal(size=driven.shape)
    return np.ascontiguousarray(_LEVEL + _SWING * driven + _NOISE * noise)


def _followed(driver: F64, kept: float, taken: float) -> F64:
    """y_t = kept y_(t-1) + taken x_t, from 0."""
    path = itertools.accumulate(driver.tolist(), lambda state, x: kept * state + taken * x, initial=0.0)
    return np.fromiter(itertools.islice(path, 1, None), np.float64, len(driver))


def linked_machine(number: int, rows: int, seed: int) -> F64:
    """(rows, 4) healthy readings of another machine: three channels follow its load at once, the fourth is noise."""
    rng = np.random.default_rng([seed, number, 4])
    row = np.arange(rows)
    cycles = np.sin(2 * np.pi * (row / rng.uniform(40, 90) + rng.uniform()))
    cycles += 0.5 * np.sin(2 * np.pi * (row / 233 + rng.uniform()))
    load = cycles + _followed(rng.normal(0, 0.25, rows), _MEMORY, 1.0)
    values = np.stack([load, load, load, rng.normal(size=rows)], axis=1)
    values[:, :3] += 0.12 * rng.normal(size=(rows, 3))
    return np.ascontiguousarray(_LINKED_LEVEL + _LINKED_SWING * values)
