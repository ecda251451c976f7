"""Readings of one channel each into rows of a machine that has several.

A row begins with the first of its readings to come, whose time is the row's. A reading joins the row that waits for its
channel and is nearest in time, at most `within` away; of equally near ones the first that began. Where there is none it
begins a row. A row is *released* by the record that completes it, together with older ones, which nothing can complete
in order any more, or by the first record of the machine that is later than its time by more than `within`.

What is lacking in a released row is *patched*: it has the channel's last value, if that is asked for and the value is
not older than `max_age`. A patched value lies in the window and does not count: its channel has no signal at that row,
and neither the reconstruction error nor a level nor a profile knows of it. Where nothing can stand for a channel the
row is missing, as one is that came with null.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import I64
from detector.config.load import AlignConfig, ReadingsConfig
from detector.detection.columns import NEVER
from detector.detection.table import Aligning, PendingRow, SensorTable
from detector.detection.windows import LATE_LIMIT, Arrivals

MOST_PENDING: Final = 256
"""Rows of one machine that wait; beyond them the one that began first is released: clocks may be set far apart."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """How rows are made: times in ns. `fill`: whether a channel's last value stands for a missing one."""

    within: int
    fill: bool
    max_age: int


def alignment_of(readings: ReadingsConfig) -> Alignment:
    """How the machines of a configuration are joined."""
    how = readings.align or AlignConfig()
    return Alignment(how.within, how.fill is not None, how.max_age)


class Aligned(NamedTuple):
    """The rows that were released, as arrivals; `absent` (n,): of each, the most rows that a channel is missed for.

    `duplicate`: readings that came again.
    """

    rows: Arrivals
    absent: I64
    duplicate: int


class _Released(NamedTuple):
    slot: int
    time: int
    values: list[float]
    patched: list[bool]
    record: int
    element: int
    absent: int


def align(table: SensorTable, arrivals: Arrivals, channels: I64, how: Alignment) -> Aligned:
    """Take in readings (n,) in order of arrival, of one channel each, and release rows. Updates `table.aligning`.

    `arrivals.values` (n, 1); `channels` (n,): which of the machine's it is.

    >>> table = SensorTable(channels=2, last_scores=10)
    >>> slots, times = np.array([table.add("press")] * 3), np.array([10, 11, 20])
    >>> readings = Arrivals(slots, times, np.array([[1.0], [2.0], [3.0]]), np.arange(3), np.zeros(3, np.intp))
    >>> aligned = align(table, readings, np.array([0, 1, 0]), Alignment(within=5, fill=True, max_age=60))
    >>> aligned.rows.times, aligned.rows.values
    (array([10]), array([[1., 2.]]))
    >>> table.aligning[slots[0]].rows[0].time
    20
    """
    out: list[_Released] = []
    duplicate = 0
    readings = zip(
        arrivals.slots.tolist(),
        arrivals.times.tolist(),
        arrivals.values[:, 0].tolist(),
        arrivals.records.tolist(),
        arrivals.elements.tolist(),
        channels.tolist(),
        strict=True,
    )
    for slot, time, value, record, element, channel in readings:
        state = table.aligning.get(slot)
        if state is None:
            state = table.aligning[slot] = _nothing(table.channels)
        waiting = [row for row in state.rows if row.time + how.within >= time]
        due = [row for row in state.rows if row.time + how.within < time] if len(waiting) < len(state.rows) else []
        place = _place(state, waiting, channel, time, value, how.within)
        if place is None:
            duplicate += 1
        elif NEVER not in place.times:
            due += [row for row in waiting if row.time <= place.time]
            waiting = [row for row in waiting if row.time > place.time]
        elif len(waiting) > MOST_PENDING:
            due.append(waiting.pop(0))
        state.rows = waiting
        out += [_release(state, row, how, slot, record, element) for row in sorted(due, key=_time_of)]
    return _as_arrivals(out, table.channels, duplicate)


def _nothing(channels: int) -> Aligning:
    return Aligning([], NEVER, 0, [NEVER] * channels, [math.nan] * channels, [0] * channels)


def _time_of(row: PendingRow) -> int:
    return row.time


def _place(
    state: Aligning, waiting: list[PendingRow], channel: int, time: int, value: float, within: int
) -> PendingRow | None:
    """Put a reading into the row it belongs to, or into one that it begins, and return that; None: it came before."""
    if state.times[channel] == time or any(row.times[channel] == time for row in waiting):
        return None
    nearest: PendingRow | None = None
    for row in waiting:
        if row.times[channel] != NEVER or abs(time - row.time) > within:
            continue
        if nearest is None or abs(time - row.time) < abs(time - nearest.time):
            nearest = row
    if nearest is None:
        width = len(state.times)
        nearest = PendingRow(time, [NEVER] * width, [math.nan] * width)
        waiting.append(nearest)
    nearest.times[channel], nearest.values[channel] = time, value
    return nearest


def _release(state: Aligning, row: PendingRow, how: Alignment, slot: int, record: int, element: int) -> _Released:
    values, patched = list(row.values), [False] * len(row.values)
    ordered = row.time > state.newest
    state.late_run = 0 if ordered else state.late_run + 1
    if state.late_run >= LATE_LIMIT:  # the machine's clock was set back
        state.times, state.late_run, ordered = [NEVER] * len(values), 0, True
        state.newest = row.time
    state.newest = max(state.newest, row.time)
    for channel, time in enumerate(row.times):
        if time == NEVER:
            last, age = state.values[channel], row.time - state.times[channel]
            if how.fill and state.times[channel] != NEVER and 0 <= age <= how.max_age:
                values[channel], patched[channel] = last, True
        elif values[channel] == values[channel] and time > state.times[channel]:
            state.times[channel], state.values[channel] = time, values[channel]
        if ordered:
            lacking = time == NEVER or values[channel] != values[channel]
            state.absent[channel] = state.absent[channel] + 1 if lacking else 0
    return _Released(slot, row.time, values, patched, record, element, max(state.absent))


def _as_arrivals(rows: list[_Released], channels: int, duplicate: int) -> Aligned:
    slots, times, values, patched, records, elements, absent = zip(*rows, strict=True) if rows else ((),) * 7
    released = Arrivals(
        slots=np.array(slots, dtype=np.intp),
        times=np.array(times, dtype=np.int64),
        values=np.array(values, dtype=np.float64).reshape(-1, channels),
        records=np.array(records, dtype=np.int64),
        elements=np.array(elements, dtype=np.int64),
        patched=np.array(patched, dtype=bool).reshape(-1, channels),
    )
    return Aligned(released, np.array(absent, dtype=np.int64), duplicate)
