"""Readings into rows of windows: order, duplicates, late readings, gaps; and a sensor's window as it stands.

`admit` decides, sensor by sensor, which readings become rows and when: vectorised for sensors whose readings come in
order, which is nearly always; reading by reading for the others.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Final

import numpy as np

from detector.arrays import F64, I64, Bools, in_all_channels, in_any_channel, stable_order
from detector.detection.columns import NEVER, flags_of
from detector.detection.kernel.cells import Paces, Spans
from detector.detection.kernel.choice import choose
from detector.detection.prefix import stands_for_none
from detector.detection.signals import WINDOW
from detector.detection.table import HeldBack, SensorTable, Slots

BACKWARDS: Final = 3
"""A finite recording in which the clock of a sensor is set back so often is not in the order of time."""
LATE_LIMIT = 20
"""This many late readings in a row mean that the sensor's clock was set back: its window restarts at the new time."""


@dataclass(slots=True)
class Arrivals:
    """Decoded readings in order of arrival: slot, time (ns), values (C), NaN: missing; record and element index.

    `patched` (n, C): values that stand for missing ones, None: none does; see `alignment`.
    """

    slots: Slots
    times: I64
    values: F64
    records: I64
    elements: I64
    patched: Bools | None = None

    def only(self, kept: Bools) -> Arrivals:
        """Some of the readings."""
        return Arrivals(
            self.slots[kept], self.times[kept], self.values[kept], self.records[kept], self.elements[kept],
            None if self.patched is None else self.patched[kept],
        )  # fmt: skip


@dataclass(slots=True)
class WindowRows:
    """Rows that go into windows, grouped by sensor: group g is rows first[g] .. last[g] - 1 of `slots[g]`.

    `records`, `elements`: the reading that released the row. `restarts`: the window is emptied before this row.
    `imputed`: filled in; always followed by a real row. `patched` (n, C): as of `Arrivals`.
    """

    slots: Slots
    first: Slots
    last: Slots
    times: I64
    values: F64
    records: I64
    elements: I64
    restarts: Bools
    imputed: Bools
    patched: Bools | None = None

    @property
    def marked(self) -> F64:
        """The values, NaN where they are patched."""
        return self.values if self.patched is None else np.where(self.patched, np.nan, self.values)

    def only(self, kept: Bools) -> WindowRows:
        """Some of the rows, of the sensors that any is left of."""
        lengths = np.add.reduceat(kept, self.first) if len(self.first) else np.zeros(0, dtype=np.int64)
        left = lengths > 0
        ends = np.cumsum(lengths[left])
        return WindowRows(
            slots=self.slots[left], first=ends - lengths[left], last=ends, times=self.times[kept],
            values=self.values[kept], records=self.records[kept], elements=self.elements[kept],
            restarts=self.restarts[kept], imputed=self.imputed[kept],
            patched=None if self.patched is None else self.patched[kept],
        )  # fmt: skip


@dataclass(slots=True)
class Tally:
    """What became of readings, by outcome; by slot `late_of` and `set_back`: how often the clock of each sensor was."""

    accepted: int = 0
    missing: int = 0
    late_of: Counter[int] = field(default_factory=Counter)
    duplicate: int = 0
    set_back: Counter[int] = field(default_factory=Counter)

    @property
    def late(self) -> int:
        """How many readings came too late."""
        return self.late_of.total()

    @property
    def resets(self) -> int:
        """How often clocks were set back."""
        return self.set_back.total()

    def add(self, other: Tally) -> None:
        """Count what another one counted."""
        for outcome in fields(self):
            setattr(self, outcome.name, getattr(self, outcome.name) + getattr(other, outcome.name))


@dataclass(slots=True)
class _Loose:
    """Rows collected one by one."""

    slots: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    rows: list[tuple[int, tuple[float, ...], int, int, bool]] = field(default_factory=list)


def admit(table: SensorTable, arrivals: Arrivals, lateness: int) -> tuple[WindowRows, Tally]:
    """Which readings become rows now. Updates the order columns and what is held back.

    A reading without any value is missing. One that lacks some channels becomes a row that has NaN there; see
    `patches.stand_in`. With patches, what is NaN could not be patched, and the reading is missing.

    The second reading comes late and is dropped:

    >>> table = SensorTable(channels=1, last_scores=10)
    >>> slots = np.array([table.add("pump")] * 3)
    >>> times, values = np.array([10, 5, 20]), np.array([[1.0], [2.0], [3.0]])
    >>> rows, tally = admit(table, Arrivals(slots, times, values, np.arange(3), np.zeros(3, np.intp)), lateness=0)
    >>> rows.times, rows.values.ravel(), tally.late
    (array([10, 20]), array([1., 3.]), 1)
    """
    lacking = np.isnan(arrivals.values)
    if arrivals.patched is None:
        return _admit(table, arrivals, in_all_channels(lacking), lateness)
    # Patches go beside the values as further columns, also while readings are held.
    wide = replace(arrivals, values=np.hstack([arrivals.values, arrivals.patched]), patched=None)
    rows, tally = _admit(table, wide, in_any_channel(lacking), lateness)
    channels = lacking.shape[1]
    rows.values, rows.patched = np.ascontiguousarray(rows.values[:, :channels]), rows.values[:, channels:] > 0
    return rows, tally


def _admit(table: SensorTable, arrivals: Arrivals, missing: Bools, lateness: int) -> tuple[WindowRows, Tally]:
    """The same, of readings of which it is known which are missing (n,)."""
    tally = Tally(missing=int(missing.sum()))
    if tally.missing:
        kept = np.flatnonzero(~missing)
        order = kept[stable_order(arrivals.slots[kept])]
    else:
        order = stable_order(arrivals.slots)
    slots, times = arrivals.slots[order], arrivals.times[order]
    new_group = np.ones(len(order), dtype=bool)
    new_group[1:] = slots[1:] != slots[:-1]
    first = np.flatnonzero(new_group)
    last = np.append(first[1:], len(order)) if len(first) else first
    owners = slots[first]

    before = np.empty_like(times)
    before[1:] = times[:-1]
    before[first] = table["released"][owners]
    if lateness:
        regular = np.zeros(len(first), dtype=bool)
    elif len(first):
        regular = ~np.logical_or.reduceat(times <= before, first)
    else:
        regular = np.ones(0, dtype=bool)

    loose = _Loose()
    if not regular.all():
        for group in np.flatnonzero(~regular).tolist():
            part = order[first[group] : last[group]]
            _in_order(table, int(owners[group]), arrivals, part, lateness, loose, tally)
        keep, lengths = np.repeat(regular, last - first), (last - first)[regular]
        order, times, owners, last = order[keep], times[keep], owners[regular], np.cumsum(lengths)
        first = last - lengths
    newest = times[last - 1]
    restarts = np.zeros(len(order), dtype=bool)
    restarts[first] = table["restart"][owners]
    table["restart"][owners] = False
    table["released"][owners] = newest
    table["newest"][owners] = newest
    table["late_run"][owners] = 0
    tally.accepted += len(order)

    rows = WindowRows(
        slots=owners, first=first, last=last, times=times,
        values=arrivals.values.take(order, axis=0), records=arrivals.records[order], elements=arrivals.elements[order],
        restarts=restarts, imputed=np.zeros(len(order), dtype=bool),
    )  # fmt: skip
    return (_append(rows, loose) if loose.slots else rows), tally


def sentinels_of(table: SensorTable, rows: WindowRows) -> Bools | None:
    """Which values (n, C) stand for none, by their sensors' profiles; None: no value does."""
    sentinels = table["sentinels"][rows.slots]
    if np.isnan(sentinels).all():
        return None
    found = stands_for_none(rows.values, np.repeat(sentinels, rows.last - rows.first, axis=0))
    return found if found.any() else None


def missing_rows(rows: WindowRows, nothing: Bools) -> Bools:
    """Which rows (n,) are missing, if these values (n, C) stand for none.

    As with null: with patches a row of which one has come, else a row that has no other value.
    """
    if rows.patched is not None:
        return in_any_channel(nothing & ~rows.patched)
    return in_all_channels(nothing | np.isnan(rows.values))


def without(table: SensorTable, rows: WindowRows, dropped: Bools) -> WindowRows:
    """The rows without some. Where one of these restarts its window, the sensor's next row does, whenever it comes."""
    for row in np.flatnonzero(dropped & rows.restarts).tolist():
        group = int(np.searchsorted(rows.last, row, side="right"))
        following = row + 1 + np.flatnonzero(~dropped[row + 1 : rows.last[group]])
        if len(following):
            rows.restarts[following[0]] = True
        else:
            table["restart"][rows.slots[group]] = True
    return rows.only(~dropped)


def _in_order(
    table: SensorTable, slot: int, arrivals: Arrivals, part: Slots, lateness: int, out: _Loose, tally: Tally
) -> None:
    """One sensor, reading by reading: drop what is late or repeated, hold back, release in time order."""
    released, newest = int(table["released"][slot]), int(table["newest"][slot])
    late_run, restart = int(table["late_run"][slot]), bool(table["restart"][slot])
    held = _as_wide(table.held.pop(slot, []), arrivals.values.shape[1])
    count = len(out.rows)
    readings = zip(
        arrivals.times[part].tolist(),
        arrivals.values[part].tolist(),
        arrivals.records[part].tolist(),
        arrivals.elements[part].tolist(),
        strict=True,
    )
    for time, value, record, element in readings:
        if time <= released:
            if time == released:
                tally.duplicate += 1
                continue
            late_run += 1
            if late_run < LATE_LIMIT:
                tally.late_of[slot] += 1
                continue
            for old_time, old_value in held:
                out.rows.append((old_time, old_value, record, element, restart))
                restart = False
            held, released, newest, restart = [], NEVER, NEVER, True
            tally.set_back[slot] += 1
        place = bisect.bisect_left(held, time, key=_time_of)
        if place < len(held) and held[place][0] == time:
            tally.duplicate += 1
            continue
        late_run = 0
        tally.accepted += 1
        held.insert(place, (time, tuple(value)))
        newest = max(newest, time)
        due = bisect.bisect_right(held, newest - lateness, key=_time_of)
        for old_time, old_value in held[:due]:
            out.rows.append((old_time, old_value, record, element, restart))
            released, restart = old_time, False
        del held[:due]
    if held:
        table.held[slot] = held
    table.set(slot, {"released": released, "newest": newest, "late_run": late_run, "restart": restart})
    if len(out.rows) > count:
        out.slots.append(slot)
        out.lengths.append(len(out.rows) - count)


def _as_wide(held: HeldBack, width: int) -> HeldBack:
    """Readings that were held with other settings: without patches, or with some that are of no interest any more."""
    if not held or len(held[0][1]) == width:
        return held
    return [(time, (values + (0.0,) * width)[:width]) for time, values in held]


def _time_of(held: tuple[int, tuple[float, ...]]) -> int:
    return held[0]


def _append(rows: WindowRows, loose: _Loose) -> WindowRows:
    times, values, records, elements, restarts = zip(*loose.rows, strict=True)
    base = len(rows.times)
    ends = base + np.cumsum(loose.lengths)
    return WindowRows(
        slots=np.concatenate([rows.slots, np.array(loose.slots, dtype=np.intp)]),
        first=np.concatenate([rows.first, ends - loose.lengths]),
        last=np.concatenate([rows.last, ends]),
        times=np.concatenate([rows.times, np.array(times, dtype=np.int64)]),
        values=np.concatenate([rows.values, np.array(values, dtype=np.float64)]),
        records=np.concatenate([rows.records, np.array(records, dtype=np.int64)]),
        elements=np.concatenate([rows.elements, np.array(elements, dtype=np.int64)]),
        restarts=np.concatenate([rows.restarts, np.array(restarts, dtype=bool)]),
        imputed=np.zeros(base + len(times), dtype=bool),
    )


def bridge_gaps(table: SensorTable, rows: WindowRows, max_gap: I64, max_fill: I64) -> WindowRows:
    """Mark restarts after long gaps and fill short ones with linearly interpolated rows.

    A gap of k = floor(gap / median + 0.5) median intervals gets k - 1 rows, at most `max_fill`; a longer one restarts
    the window. Sensors whose intervals vary are never filled; a gap beyond `max_gap` ns restarts any sensor. Both are
    by the number of a sensor's rules.
    """
    if not len(rows.times):
        return rows
    missing = choose().kernel.missing(paces_of(table), spans_of(rows), rows.restarts, max_gap, max_fill)
    if not missing.any():
        return rows

    previous = np.empty_like(rows.times)
    previous[1:] = rows.times[:-1]
    previous[rows.first] = newest_times(table, rows.slots)
    gap = rows.times - previous
    copies = missing + 1
    source = np.repeat(np.arange(len(gap)), copies)
    step = np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies) + 1
    share = (step / copies[source])[:, None]
    old = np.empty_like(rows.values)
    old[1:] = rows.values[:-1]
    old[rows.first] = table["values"][rows.slots, newest_places(table, rows.slots)]
    imputed = step < copies[source]
    between = old[source] + (rows.values[source] - old[source]) * share
    ends = np.cumsum(copies)
    return WindowRows(
        slots=rows.slots,
        first=(ends - copies)[rows.first],
        last=ends[rows.last - 1],
        times=np.where(imputed, previous[source] + gap[source] * step // copies[source], rows.times[source]),
        values=np.where(imputed[:, None], between, rows.values[source]),
        records=rows.records[source],
        elements=rows.elements[source],
        restarts=rows.restarts[source] & (step == 1),
        imputed=imputed,
        patched=None if rows.patched is None else rows.patched[source] & ~imputed[:, None],
    )


def paces_of(table: SensorTable) -> Paces:
    """Its columns that tell when a row is due."""
    return Paces(*(table[name] for name in Paces._fields))


def spans_of(rows: WindowRows) -> Spans:
    """Whose rows lie where, and when they were."""
    return Spans(rows.slots, rows.first, rows.last, rows.times)


def newest_places(table: SensorTable, slots: Slots) -> I64:
    """Where in their windows, which are rings, the newest rows of these sensors lie."""
    return (table["head"][slots].astype(np.int64) - 1) % WINDOW


def newest_times(table: SensorTable, slots: Slots) -> I64:
    """The times of their newest rows, ns."""
    times: I64 = table["times"][slots, newest_places(table, slots)]
    return times


def window_of(table: SensorTable, slot: int) -> tuple[I64, F64, Bools]:
    """Copies of a sensor's window, newest row last: times (100,) ns, values (100, C), imputed (100,)."""
    order = (int(table["head"][slot]) + np.arange(WINDOW)) % WINDOW
    return table["times"][slot, order], table["values"][slot, order], flags_of(table["imputed"][slot])[order]
