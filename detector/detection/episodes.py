"""From scores and thresholds to episodes: one opening and one closing a fault, row by row, sensors side by side.

An episode opens on a row whose v (ln of the n-th largest of the last m scores) reaches the ln threshold, and closes
after `close_after` consecutive rows below its closing level, which is the threshold at opening but at most 0 (score 1).
After it was ended from outside (`hold`) none opens before one quiet row.

An episode that opens on a row inside a maintenance window is muted, up to the first row outside of one that reaches the
closing level. One that ends while it is muted counts neither as a peak nor against the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.detection.threshold import Index, Rows, Thresholds

NOBODY: Index = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Opening:
    """Sensor `at` opened an episode on its row `tick`. `ended`: when its last episode ended, ns."""

    at: int
    tick: int
    ln_threshold: float
    ended: int


@dataclass(frozen=True, slots=True)
class Closing:
    """Sensor `at` closed its episode on its row `tick`. `ended`: time of the last row above the closing level, ns."""

    at: int
    tick: int
    ended: int
    peak: float


def follow(
    rows: Rows,
    v: F64,
    times: I64,
    active: list[int],
    close_after: I64,
    inside: Bools | None = None,
) -> tuple[list[Opening | Closing], F64]:
    """Advance threshold and episode columns of n sensors by up to T rows each, in place.

    v, times (T, n): row t concerns the first `active[t]` sensors; `close_after` (n,); `inside` (T, n): which rows lie
    in a maintenance window, None: none. Returns the transitions in order of t, and the ln thresholds (T, n), of which
    only the active part is defined.
    """
    thresholds = Thresholds(rows)
    is_open, hold = rows["open"], rows["hold"]
    transitions: list[Opening | Closing] = []
    limits = np.empty_like(v)
    excited = bool(is_open.any() or hold.any())
    for tick, k in enumerate(active):
        now, within = v[tick, :k], None if inside is None else inside[tick, :k]
        limit = thresholds.before_row(k)
        limits[tick, :k] = limit
        loud = now >= limit
        busy = NOBODY
        if excited or loud.any():
            before = np.flatnonzero(is_open[:k])
            held = hold[:k] & loud
            opening = np.flatnonzero(loud & ~is_open[:k] & ~held)
            busy = np.concatenate([before, opening, np.flatnonzero(held)])
            hold[:k] = held
            if len(before):
                transitions += _continue(rows, thresholds, before, now, times[tick], tick, close_after, within)
            if len(opening):
                transitions += _open(rows, thresholds, opening, now, limit, times[tick], tick)
                rows["muted"][opening] = within is not None and within[opening]
            excited = bool(is_open.any() or hold.any())
        if within is not None:
            # What is as bad as the worst of training is no peak of normal operation there.
            busy = np.concatenate([busy, np.flatnonzero(within & (now >= 0.0))])
        thresholds.quiet_row(now, busy)
    return transitions, limits


def closing_level(ln_threshold: float) -> float:
    """The ln score from which on a row belongs to an episode with this ln threshold."""
    return min(ln_threshold, 0.0)


def end_from_outside(rows: Rows, *, hold: bool) -> list[Closing]:
    """Close the open episodes of all these sensors now, whatever their rows say (gap, longest duration)."""
    at = np.flatnonzero(rows["open"])
    _count(rows, Thresholds(rows), at)
    rows["hold"][at] = hold
    return _close(rows, at, -1)


def _open(
    rows: Rows, thresholds: Thresholds, at: Index, now: F64, limit: F64, times: NDArray[Any], tick: int
) -> list[Opening]:
    thresholds.opened(at)
    rows["open"][at] = True
    rows["quiet"][at] = 0
    rows["peak"][at] = now[at]
    rows["close_level"][at] = np.minimum(limit[at], 0.0)
    rows["loud_time"][at] = times[at]
    return [Opening(int(i), tick, float(limit[i]), int(rows["ended"][i])) for i in at]


def _continue(
    rows: Rows,
    thresholds: Thresholds,
    at: Index,
    now: F64,
    times: NDArray[Any],
    tick: int,
    close_after: I64,
    within: Bools | None,
) -> list[Closing]:
    loud = now[at] >= rows["close_level"][at]
    rows["quiet"][at] = np.where(loud, 0, rows["quiet"][at] + 1)
    rows["loud_time"][at] = np.where(loud, times[at], rows["loud_time"][at])
    rows["peak"][at] = np.maximum(rows["peak"][at], now[at])
    rows["muted"][at] &= ~loud if within is None else ~loud | within[at]
    over = at[rows["quiet"][at] >= close_after[at]]
    if not len(over):
        return []
    _count(rows, thresholds, over)
    return _close(rows, over, tick)


def _count(rows: Rows, thresholds: Thresholds, at: Index) -> None:
    """Let the thresholds learn of the episodes that end now, but for those that are muted."""
    told = at[~rows["muted"][at]]
    if len(told):
        thresholds.closed(told, rows["peak"][told])


def _close(rows: Rows, at: Index, tick: int) -> list[Closing]:
    rows["open"][at] = False
    rows["muted"][at] = False
    rows["ended"][at] = rows["loud_time"][at]
    return [Closing(int(i), tick, int(rows["ended"][i]), float(rows["peak"][i])) for i in at]
