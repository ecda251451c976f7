"""Sensors whose readings no longer come at the pace of their profile: from which row on they learn it again.

A gap that is too long to fill empties the window. Where that happens three times and the window was never complete in
between, or the intervals no longer fit the median (of the last ones a hundred more do not than do), the sensor
*relearns*: it warms up from that row on. What it learns may be that it has no interval to speak of (`keeps_windows`).
"""

from __future__ import annotations

import numpy as np

from detector.arrays import I64, Bools
from detector.detection.kernel.choice import choose
from detector.detection.profile import REGULAR_BAND
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable
from detector.detection.windows import WindowRows, newest_times, paces_of, spans_of

MOST_RESTARTS = 3
"""Restarts without a complete window in between after which a sensor relearns."""
UNFIT = 100
"""This many more intervals that do not fit than fit, since they last were as many."""
MOST_RELEARNT = 3
"""A sensor that relearnt so often has no interval."""
KEPT = 0.5
"""With a usable interval windows are complete at this share of the rows at least."""


def relearning_rows(
    table: SensorTable, rows: WindowRows, ignored: Bools | None, max_gap: I64, max_fill: I64
) -> dict[int, int]:
    """By group of the rows: the row from which on the sensor relearns. Counts intervals up to there.

    `ignored`: rows that do not become rows of a window. `max_gap`, `max_fill`: by the number of a sensor's rules.
    """
    if not len(rows.times):
        return {}
    paces = paces_of(table)
    suspicious = choose().kernel.uneven(paces, spans_of(rows))
    if ignored is not None:
        regular = paces.regular[rows.slots] & (paces.median[rows.slots] > 0)
        suspicious |= regular & np.logical_or.reduceat(ignored, rows.first)
    found: dict[int, int] = {}
    for group in np.flatnonzero(suspicious).tolist():
        slot, rule = int(rows.slots[group]), int(table["rules"][rows.slots[group]])
        mine = np.arange(rows.first[group], rows.last[group])
        if ignored is not None:
            mine = mine[~ignored[mine]]
        at = _relearns(table, slot, rows, mine, int(max_gap[rule]), int(max_fill[rule]))
        if at is not None:
            found[group] = at
    return found


def _relearns(table: SensorTable, slot: int, rows: WindowRows, mine: I64, max_gap: int, max_fill: int) -> int | None:
    """The same of one sensor; `mine`: its rows."""
    median, filled = int(table["median"][slot]), int(table["filled"][slot])
    restarts, unfit = abs(int(table["restarts"][slot])), int(table["unfit"][slot])
    before = int(newest_times(table, np.array([slot]))[0]) if filled else None
    for row in map(int, mine):
        time, restart = int(rows.times[row]), bool(rows.restarts[row])
        missing = 0
        if before is not None and not restart:
            gap = time - before
            missing = max((2 * gap + median) // (2 * median) - 1, 0)
            unfit = unfit + 1 if abs(gap - median) > REGULAR_BAND * median else max(unfit - 1, 0)
            too_long = missing > max_fill
            restart = too_long or gap > max_gap
            if unfit >= UNFIT or (too_long and gap <= max_gap and restarts + 1 >= MOST_RESTARTS):
                table["unfit"][slot] = 0
                return row
        if restart:
            filled, restarts, missing = 0, restarts + 1, 0
        filled = min(filled + missing + 1, WINDOW)
        restarts = 0 if filled == WINDOW else restarts
        before = time
    table["unfit"][slot] = unfit
    return None


def cut(rows: WindowRows, at: dict[int, int]) -> tuple[WindowRows, WindowRows | None]:
    """The rows, of some groups only those before a row, and what is left."""
    if not at:
        return rows, None
    now = np.ones(len(rows.times), dtype=bool)
    for group, row in at.items():
        now[row : rows.last[group]] = False
    return rows.only(now), rows.only(~now)


def keeps_windows(times: I64, median: int, max_fill: int) -> bool:
    """Whether windows become complete if rows at these times (L,) ns are taken to come every `median` ns."""
    missing = np.maximum((2 * np.diff(times) + median) // (2 * max(median, 1)) - 1, 0)
    steps = np.concatenate([[1], missing + 1])
    behind = np.cumsum(np.where(steps > max_fill + 1, 1, steps))
    restarts = np.flatnonzero(steps > max_fill + 1)
    begun = np.concatenate([[0], behind[restarts] - 1])[np.searchsorted(restarts, np.arange(len(times)), side="right")]
    return bool((behind - begun >= WINDOW).sum() >= KEPT * max(len(times) - WINDOW + 1, 1))
