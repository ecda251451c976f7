"""Rivals that run beside the product: each is fitted to a healthy prefix and scores rows causally.

What others publish as packages is used where it is installed, and left out with a line where it is not. A directory of
installed packages may be named in $DETECTOR_RIVALS.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from benchmarks.quality.baseline import WINDOW, WindowPca
from detector.arrays import F64

VARIABLE: Final = "DETECTOR_RIVALS"
Score = Callable[[F64], F64]
"""Scores rows (n, C): (n,), the higher the worse. The first 100 are context."""
Fit = Callable[[F64], Score]
"""Fits a healthy prefix (L, C)."""

if (_extra := os.environ.get(VARIABLE)) and _extra not in sys.path:
    sys.path.append(_extra)

_TREES, _HEIGHT, _WINDOW = 10, 8, 250
_LAGS: Final = 8
_CUT_TREES, _CUT_POINTS, _CUT_EVERY = 5, 128, 10


def sigma(prefix: F64) -> Score:
    """How many standard deviations the newest value is off."""
    mean, deviation = prefix.mean(axis=0), prefix.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    return lambda rows: np.abs((rows - mean) / scale).max(axis=1)


def window_pca(prefix: F64) -> Score:
    """The newest 50 errors of 40 principal components of the window, of the worst channel."""
    fitted = [WindowPca.of(np.ascontiguousarray(column), 40) for column in prefix.T]
    return lambda rows: np.max(
        [one.errors(np.ascontiguousarray(column), 50) for one, column in zip(fitted, rows.T, strict=True)], axis=0
    )


def row_pca(prefix: F64) -> Score:
    """The squared error of a row outside the principal components that hold 90 % of the variance, over 50 rows."""
    mean, deviation = prefix.mean(axis=0), prefix.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    z = (prefix - mean) / scale
    values, vectors = np.linalg.eigh(z.T @ z)
    kept = int(np.searchsorted(np.cumsum(values[::-1]) / max(values.sum(), 1e-12), 0.9)) + 1
    components = vectors[:, ::-1][:, : min(kept, z.shape[1] - 1)]

    def score(rows: F64) -> F64:
        z = (rows - mean) / scale
        errors = ((z - z @ components @ components.T) ** 2).sum(axis=1)
        out: F64 = np.convolve(errors, np.ones(50) / 50)[: len(errors)]
        return out

    return score


def half_space_trees(prefix: F64) -> Score:
    """river's HalfSpaceTrees on the newest 8 values, in units of the prefix's range; what it scores it does not learn,
    so that a fault never becomes normal to it.
    """
    anomaly = importlib.import_module("river.anomaly")
    low, high = prefix.min(axis=0), prefix.max(axis=0)
    room = np.where(high > low, high - low, 1.0)
    forest = anomaly.HalfSpaceTrees(n_trees=_TREES, height=_HEIGHT, window_size=_WINDOW, seed=1)
    for row in _lagged((prefix - low) / room):
        forest.learn_one(row)
    return lambda rows: np.array([forest.score_one(row) for row in _lagged((rows - low) / room)])


def cut_forest(prefix: F64) -> Score:
    """rrcf's collusive displacement of the newest 8 values among 128 of the prefix, every 10th row, held in between."""
    rrcf = importlib.import_module("rrcf")
    rng = np.random.default_rng(1)
    points = _shingles(prefix)
    trees: list[Any] = [
        rrcf.RCTree(points[rng.choice(len(points), min(_CUT_POINTS, len(points)), replace=False)], random_state=number)
        for number in range(_CUT_TREES)
    ]

    def of(point: F64) -> float:
        total = 0.0
        for tree in trees:
            tree.insert_point(point, index="new")
            total += tree.codisp("new")
            tree.forget_point("new")
        return total / len(trees)

    def score(rows: F64) -> F64:
        found = np.array([of(point) for point in _shingles(rows)[::_CUT_EVERY]])
        return np.repeat(found, _CUT_EVERY)[: len(rows)]

    return score


def _shingles(rows: F64) -> F64:
    """(n, 8 C): each row with the seven before it; the first ones with themselves."""
    padded = np.concatenate([np.repeat(rows[:1], _LAGS - 1, axis=0), rows])
    return np.concatenate([padded[lag : lag + len(rows)] for lag in range(_LAGS)], axis=1)


def _lagged(rows: F64) -> list[dict[int, float]]:
    return [dict(enumerate(row)) for row in _shingles(rows).tolist()]


RIVALS: Final[dict[str, Fit]] = {
    "4 sigma": sigma,
    "window PCA": window_pca,
    "row PCA": row_pca,
    "HalfSpaceTrees": half_space_trees,
    "RRCF": cut_forest,
}
SEVERAL_CHANNELS: Final = frozenset({"row PCA"})
"""Rivals that have nothing to say of one channel."""
SLOW: Final = frozenset({"HalfSpaceTrees", "RRCF"})
"""Rivals that take one sensor of each kind alone."""
_PACKAGES: Final = {"HalfSpaceTrees": "river", "RRCF": "rrcf"}


def installed() -> tuple[list[str], list[str]]:
    """The names of rivals that can run, and a line for each that cannot."""
    names, notes = [], []
    for name in RIVALS:
        package = _PACKAGES.get(name)
        try:
            if package is not None:
                importlib.import_module(package)
        except ImportError:
            notes.append(
                f"{name} is left out: the package `{package}` is not installed (or name a place in ${VARIABLE})"
            )
        else:
            names.append(name)
    return names, notes


def context(first: int) -> int:
    """Where rows begin that are scored from `first` on."""
    return max(first - WINDOW, 0)
