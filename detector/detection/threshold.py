"""The threshold that keeps a false-alarm budget: a return level of the peaks seen, and a credit that watches the count.

Everything is in ln score; v is the ln of the n-th largest of the last m scores, floored at `FLOOR_V`. The functions of
a `Sensor` are twins of those in recurrences.c; see sensor.py.

The return level: of the scores' declustered peaks a reservoir keeps the eight highest. Their excesses over the m-th
are taken as exponential (with a prior of weight 15 and scale 0.35), and the level r is the one that a episodes in B
rows are expected to exceed: r = y_m + w s ((m B / (a N))^(1/w) - 1), never below y_m, N the rows behind the reservoir.
The aim a is 3, which the credit then corrects; it falls towards 1 where N is under a third of B, because there is
nothing to correct yet. The credit D counts allowed minus opened episodes: where much of it lies unspent the threshold's
floor sinks below 1, below zero it lifts the threshold.

An episode that rises far above the tail is likely a fault, and a fault must not deafen its sensor: its peak is left out
of the reservoir. Such peaks are kept aside, and learnt once they are a habit of the sensor; see `leave_unlearnt`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import c_float
from typing import Any

import numpy as np

from detector.arrays import F64
from detector.detection.sensor import Sensor, larger, smaller

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
"""Of the ln threshold, for each episode that credit is overspent by, up to a factor of 2 in all."""
PEAK_CAP = 1.5
"""What rises more scales s than this above the return level is no part of the tail."""
LN_2 = math.log(2.0)
UNLEARNT, HABIT = 12, 8
"""Peaks that are kept aside, and how many of them that are alike make a habit."""
LONG_AGO = 10_000_000
"""Rows are counted no further."""
BUDGET_MIN, BUDGET_MAX = 300.0, 1e6
NO_BUDGET = math.inf


def nth_largest_log(u: F64, n: int, m: int) -> F64:
    """v of each row: max(ln of the n-th largest of the last m scores, -2.5).

    `u` (m - 1 + T, k): scores over time of k sensors, m - 1 earlier ones first. Returns (T, k).

    >>> np.exp(nth_largest_log(np.array([[1.0], [8.0], [4.0], [2.0]]), n=2, m=3)).round(6).tolist()
    [[4.0], [4.0]]
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
        "unlearnt": -math.inf,
        "unlearnt_age": LONG_AGO,
        "unlearnt_rows": 0,
    }


def smallest_of_recent(s: Sensor, u: float) -> float:
    """v of the newest row, whose score is u; fewer than m scores: the first one stands for the missing."""
    last = [u if one != one else one for one in s.recent]
    last.append(u)
    s.recent = last[1:]
    return larger(math.log(larger(nth_largest(last[len(last) - s.m :], s.n), TINY_SCORE)), FLOOR_V)


def nth_largest(last: list[float], n: int) -> float:
    """The n-th largest of some scores; no number, if there are fewer numbers.

    >>> nth_largest([1.0, 8.0, 4.0], 2)
    4.0
    """
    numbers = sorted((one for one in last if one == one), reverse=True)
    return numbers[n - 1] if len(numbers) >= n else math.nan


def begin(s: Sensor) -> None:
    """Derive what follows from the budget and the reservoir, before the first row is judged."""
    loose = smaller(s.budget / STRICT, 1.0)
    s.per_row = 1.0 / s.budget
    s.free = CREDIT_FREE * math.pow(loose, FREE_POWER) if loose < 1.0 else CREDIT_FREE
    s.speed = FLOOR_SPEED * math.pow(loose, SPEED_POWER) if loose < 1.0 else FLOOR_SPEED
    refresh(s)


def refresh(s: Sensor) -> None:
    """Derive what only an insertion changes: y_m, s, w, m B and the forgetting a row."""
    m = min(s.peaks_kept, max(1, s.peaks_seen // 2))
    s.base = base = s.peaks[m - 1]
    over = [peak - base if i < m - 1 else 0.0 for i, peak in enumerate(s.peaks)]
    total = ((over[0] + over[1]) + (over[2] + over[3])) + ((over[4] + over[5]) + (over[6] + over[7]))
    s.weight = m - 1 + PRIOR_WEIGHT
    s.excess = (total + PRIOR_WEIGHT * PRIOR_SCALE) / s.weight
    s.ratio = m * s.budget
    s.forget = s.excess / s.horizon


def advance(s: Sensor) -> None:
    """Credit, ages and forgetting move on by a row."""
    if s.unlearnt_rows < LONG_AGO:
        s.unlearnt_rows += 1
    s.credit = smaller(s.credit + s.per_row, CREDIT_MAX)
    if s.rows < s.horizon:
        s.rows += 1.0
    else:
        s.forgotten += s.forget


def threshold(s: Sensor) -> float:
    """The ln threshold of the row."""
    if math.isinf(s.budget):
        return 0.0
    level = return_level(s)
    if s.rows < s.budget:
        level = smaller(level, math.log(YOUNG_CAP * s.budget / s.rows))
    floor = -s.speed * larger(s.credit - s.free, 0.0)
    return larger(level, floor) + smaller(LIFT * larger(-s.credit, 0.0), LN_2)


def return_level(s: Sensor) -> float:
    """The level r that as many episodes exceed as the return level aims at."""
    level = s.base - s.forgotten
    ratio = s.ratio / s.rows if s.rows else math.nan
    if ratio > 1.0:
        ratio /= 1.0 + (AIM - 1.0) * math.sqrt(smaller(s.rows * s.per_row / AIM_ROWS, 1.0))
        level += s.weight * s.excess * (math.pow(larger(ratio, 1.0), 1.0 / s.weight) - 1.0)
    return level


def end_of_tail(s: Sensor, known: float) -> float:
    """What is higher does not belong to the tail, of which this share is known."""
    return return_level(s) + PEAK_CAP * s.excess * known


def insert_peak(s: Sensor, v: float) -> None:
    """Count a peak, and keep it if it is among the highest."""
    s.peaks = [peak - s.forgotten for peak in s.peaks]
    s.forgotten = 0.0
    at = RESERVOIR - 1
    if v > s.peaks[at]:
        while at > 0 and s.peaks[at - 1] < v:
            s.peaks[at] = s.peaks[at - 1]
            at -= 1
        s.peaks[at] = v
    s.peaks_seen += 1
    s.peaks_kept = min(s.peaks_kept + 1, RESERVOIR)
    refresh(s)


def habit_of(peaks: Sequence[float]) -> float:
    """The least of the peaks that are a habit; infinity, where none is.

    At least eight within a factor of 2 are one. So are all of them, where there is no room for more: that is more than
    twice what a budget allows, and the least of them is reached by all.
    """
    habit = least = math.inf
    for peak in peaks:
        alike = sum(peak <= other <= peak + LN_2 for other in peaks)
        if alike >= HABIT and peak > -math.inf:
            habit = smaller(peak, habit)
        least = smaller(peak, least)
    return least if habit == math.inf and least > -math.inf else habit


def leave_unlearnt(s: Sensor, v: float) -> None:
    """Keep the peak of an episode aside, in place of the oldest one, and learn those that are a habit by now.

    Those of the last five budgets of rows count. A habit is learnt as at most twice its least peak.
    """
    oldest = 0
    for i in range(UNLEARNT):
        s.unlearnt_age[i] += s.unlearnt_rows
        if s.unlearnt_age[i] >= s.horizon or s.unlearnt_age[i] > LONG_AGO:
            s.unlearnt[i] = -math.inf
        if s.unlearnt[i] == -math.inf:
            s.unlearnt_age[i] = LONG_AGO
        if s.unlearnt_age[i] > s.unlearnt_age[oldest]:
            oldest = i
    s.unlearnt[oldest] = c_float(v).value
    s.unlearnt_age[oldest] = s.unlearnt_rows = 0
    kept = sum(peak > -math.inf for peak in s.unlearnt)
    habit = habit_of(s.unlearnt)
    for i, peak in enumerate(s.unlearnt):
        if peak >= habit and (kept == UNLEARNT or peak <= habit + LN_2):
            insert_peak(s, smaller(peak, habit + LN_2))
            s.unlearnt[i] = -math.inf


def quiet_row(s: Sensor, v: float) -> None:
    """Decluster: a running maximum is a peak once 100 rows pass with nothing higher."""
    s.pending_age += 1
    if v > s.pending:
        s.pending, s.pending_age = v, 0
    if s.pending_age >= QUIET_ROWS:
        insert_peak(s, smaller(s.pending, end_of_tail(s, 1.0)))
        forget_pending(s)


def forget_pending(s: Sensor) -> None:
    """What is pending belongs to an episode."""
    s.pending, s.pending_age = -math.inf, 0


def spend(s: Sensor, peak: float) -> None:
    """An episode ends: its peak counts once, if it belongs to the tail, and one episode is spent.

    Until a budget of rows has passed no episode is expected, and hardly any is learnt.
    """
    if peak > end_of_tail(s, smaller(s.rows * s.per_row, 1.0)):
        leave_unlearnt(s, peak)
    else:
        insert_peak(s, peak)
    s.credit = larger(s.credit - 1.0, CREDIT_MIN)
