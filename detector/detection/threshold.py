"""The threshold that keeps a false-alarm budget: a return level of the peaks seen, and a credit that watches the count.

One `Thresholds` holds the threshold state of n sensors side by side and is advanced row by row. Everything is in
ln score; v is the ln of the n-th largest of the last m scores, floored at `FLOOR_V`.

The return level: of the scores' declustered peaks a reservoir keeps the eight highest. Their excesses over the m-th
are taken as exponential (with a prior of weight 15 and scale 0.35), and the level r is the one that a episodes in B
rows are expected to exceed: r = y_m + w s ((m B / (a N))^(1/w) - 1), never below y_m, N the rows behind the reservoir.
The aim a is 3, which the credit then corrects; it falls towards 1 where N is under a third of B, because there is
nothing to correct yet. The credit D counts allowed minus opened episodes: where much of it lies unspent the threshold's
floor sinks below 1, below zero it lifts the threshold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64

Rows = dict[str, NDArray[Any]]
"""State columns of n sensors, compact, by name; the sensors on the first axis."""
Index = NDArray[np.intp]

FLOOR_V = -2.5
TINY_SCORE = 1e-9
QUIET_ROWS = 100
"""A peak ends once this many rows pass with nothing higher."""
RESERVOIR = 8
PRIOR_WEIGHT, PRIOR_SCALE = 15.0, 0.35
AIM, AIM_ROWS = 3.0, 1 / 3
"""Episodes a budget that the return level aims at, and the budgets of rows from which on it does."""
HORIZON = 5.0
"""Budgets of rows the reservoir remembers; beyond them it forgets."""
YOUNG_CAP = 3.0
"""Times B / N, the return level's limit as a score while a sensor has seen fewer rows than one budget."""
CREDIT_FREE, CREDIT_MIN = 3.0, -4.0
FLOOR_SPEED = 0.07
CREDIT_MAX = CREDIT_FREE + 1 / FLOOR_SPEED
STRICT = 1e4
"""Budgets looser than one in this many rows spend their credit sooner: less is free, and the floor sinks faster."""
FREE_POWER, SPEED_POWER = 0.25, -0.75
LIFT = 0.4
PEAK_CAP = 1.5
"""A streamed peak enters at most this many scales s above the return level: a glitch must not deafen a sensor."""
BUDGET_MIN, BUDGET_MAX = 300.0, 1e6
NO_BUDGET = math.inf


def nth_largest_log(u: F64, n: int, m: int) -> F64:
    """v of each row: max(ln of the n-th largest of the last m scores, -2.5).

    `u` (m - 1 + T, k): scores over time of k sensors, m - 1 earlier ones first. Returns (T, k).
    """
    rows = len(u) - (m - 1)
    if n == m:
        chosen = u[:rows].copy()
        for back in range(1, m):
            np.minimum(chosen, u[back : back + rows], out=chosen)
    else:
        stacked = np.stack([u[back : back + rows] for back in range(m)])
        chosen = np.ascontiguousarray(np.partition(stacked, m - n, axis=0)[m - n])
    np.maximum(chosen, TINY_SCORE, out=chosen)
    np.log(chosen, out=chosen)
    return np.maximum(chosen, FLOOR_V, out=chosen)


def first_reservoir(peaks: list[float], rows: int, budget: float) -> dict[str, Any]:
    """Threshold columns of a sensor whose prefix had these ln peaks in its last `rows` scored rows.

    Each peak is raised by 100 / rows: a prefix is short, and its worst understates what is to come.
    """
    kept = sorted((peak + QUIET_ROWS / rows for peak in peaks), reverse=True)[:RESERVOIR]
    return {
        "budget": budget,
        "horizon": max(HORIZON * budget, float(rows)),
        "rows": float(rows),
        "credit": 0.0,
        "peaks": kept + [-math.inf] * (RESERVOIR - len(kept)),
        "peaks_kept": len(kept),
        "peaks_seen": len(peaks),
        "forgotten": 0.0,
        "pending": -math.inf,
        "pending_age": 0,
    }


class Thresholds:
    """Threshold state of n sensors, advanced in place. Rows are processed for the first k of them at a time."""

    def __init__(self, rows: Rows) -> None:
        n = len(rows["budget"])
        self._rows = rows
        self._per_row = 1.0 / rows["budget"]
        looseness = np.minimum(rows["budget"] / STRICT, 1.0)
        self._free = CREDIT_FREE * np.power(looseness, FREE_POWER)
        self._speed = FLOOR_SPEED * np.power(looseness, SPEED_POWER)
        self._unlimited = ~np.isfinite(rows["budget"])
        self._some_unlimited = bool(self._unlimited.any())
        self._base, self._scale, self._weight = np.empty(n), np.empty(n), np.empty(n)
        self._ratio, self._forget = np.empty(n), np.empty(n)
        self._refresh(slice(0, n))

    def before_row(self, k: int) -> F64:
        """Advance credit, age and forgetting of the first k sensors by one row; their ln thresholds for it (k,)."""
        rows = self._rows
        credit, age, forgotten = rows["credit"][:k], rows["rows"][:k], rows["forgotten"][:k]
        np.minimum(credit + self._per_row[:k], CREDIT_MAX, out=credit)
        growing = age < rows["horizon"][:k]
        age += growing
        forgotten += np.where(growing, 0.0, self._forget[:k])
        level = self._level(slice(0, k))
        young = age < rows["budget"][:k]
        if young.any():
            level = np.where(young, np.minimum(level, np.log(YOUNG_CAP * rows["budget"][:k] / age)), level)
        threshold = np.maximum(level, -self._speed[:k] * np.maximum(credit - self._free[:k], 0.0))
        threshold += LIFT * np.maximum(-credit, 0.0)
        if self._some_unlimited:
            threshold[self._unlimited[:k]] = 0.0
        return threshold

    def quiet_row(self, v: F64, loud: Index) -> None:
        """Decluster v (k,) of the first k sensors but `loud`, whose episode is open: nothing is pending there."""
        pending, age = self._rows["pending"][: len(v)], self._rows["pending_age"][: len(v)]
        age += 1
        age[v > pending] = 0
        np.maximum(pending, v, out=pending)
        if len(loud):
            pending[loud] = -np.inf
            age[loud] = 0
        ended = np.flatnonzero(age >= QUIET_ROWS)
        if len(ended):
            self._insert(ended, pending[ended])
            pending[ended] = -np.inf
            age[ended] = 0

    def opened(self, at: Index) -> None:
        """What was pending belongs to the episode that opens now."""
        self._rows["pending"][at] = -np.inf
        self._rows["pending_age"][at] = 0

    def closed(self, at: Index, peak_v: F64) -> None:
        """An episode closed: its peak counts once, and one episode is spent."""
        self._insert(at, peak_v)
        credit = self._rows["credit"]
        credit[at] = np.maximum(credit[at] - 1.0, CREDIT_MIN)

    def _level(self, at: slice | Index) -> F64:
        rows = self._rows
        level = self._base[at] - rows["forgotten"][at]
        ratio = self._ratio[at] / rows["rows"][at]
        if (ratio > 1.0).any():
            ratio /= 1.0 + (AIM - 1.0) * np.sqrt(np.minimum(rows["rows"][at] * self._per_row[at] / AIM_ROWS, 1.0))
            weight = self._weight[at]
            rise = np.power(np.maximum(ratio, 1.0), 1.0 / weight) - 1.0
            level += weight * self._scale[at] * rise
        return level

    def _insert(self, at: Index, peak_v: F64) -> None:
        rows = self._rows
        limited = np.minimum(peak_v, self._level(at) + PEAK_CAP * self._scale[at])
        kept = rows["peaks"][at] - rows["forgotten"][at][:, None]
        kept = np.sort(np.concatenate([kept, limited[:, None]], axis=1), axis=1)[:, :0:-1]
        rows["peaks"][at] = kept
        rows["forgotten"][at] = 0.0
        rows["peaks_seen"][at] += 1
        rows["peaks_kept"][at] = np.minimum(rows["peaks_kept"][at] + 1, RESERVOIR)
        self._refresh(at)

    def _refresh(self, at: slice | Index) -> None:
        """Derive what only an insertion changes: y_m, s, w, m B and the forgetting a row."""
        rows = self._rows
        m = np.minimum(rows["peaks_kept"][at], np.maximum(1, rows["peaks_seen"][at] // 2))
        weight = m - 1 + PRIOR_WEIGHT
        peaks = rows["peaks"][at]
        base = np.take_along_axis(peaks, m[:, None] - 1, axis=1)
        excess = np.where(np.arange(RESERVOIR) < m[:, None] - 1, peaks - base, 0.0).sum(axis=1)
        scale = (excess + PRIOR_WEIGHT * PRIOR_SCALE) / weight
        self._base[at], self._weight[at], self._scale[at] = base[:, 0], weight, scale
        self._ratio[at] = m * rows["budget"][at]
        self._forget[at] = scale / rows["horizon"][at]
