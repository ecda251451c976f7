"""Readings into windows: order, duplicates, late readings, gaps, and the last 100 rows of many sensors at once.

Two steps. `admit` decides, sensor by sensor, which readings become rows and when (vectorised for sensors whose
readings come in order, which is nearly always; reading by reading for the others). `Block` then lays the rows of many
sensors out as extended windows, so that every window that a row completes is one slice.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64, Bools
from detector.detection.columns import NEVER, bits_of, flags_of
from detector.detection.prefix import has_sentinel
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
    """What became of readings, by outcome. `set_back`: how often the clock of each sensor was, by slot."""

    accepted: int = 0
    missing: int = 0
    late: int = 0
    duplicate: int = 0
    set_back: Counter[int] = field(default_factory=Counter)

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

    The second reading comes late and is dropped:

    >>> table = SensorTable(channels=1, last_scores=10)
    >>> slots = np.array([table.add("pump")] * 3)
    >>> times, values = np.array([10, 5, 20]), np.array([[1.0], [2.0], [3.0]])
    >>> rows, tally = admit(table, Arrivals(slots, times, values, np.arange(3), np.zeros(3, np.intp)), lateness=0)
    >>> rows.times, rows.values.ravel(), tally.late
    (array([10, 20]), array([1., 3.]), 1)
    """
    if arrivals.patched is not None:
        return _admit_patched(table, arrivals, arrivals.patched, lateness)
    tally = Tally()
    missing = np.isnan(arrivals.values).any(axis=1)
    tally.missing = int(missing.sum())
    kept = np.flatnonzero(~missing)
    order = kept[np.argsort(arrivals.slots[kept], kind="stable")]
    slots, times = arrivals.slots[order], arrivals.times[order]
    new_group = np.ones(len(order), dtype=bool)
    new_group[1:] = slots[1:] != slots[:-1]
    first = np.flatnonzero(new_group)
    owners = slots[first]
    lengths = np.diff(np.append(first, len(order)))

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
    for group in np.flatnonzero(~regular).tolist():
        part = order[first[group] : first[group] + lengths[group]]
        _in_order(table, int(owners[group]), arrivals, part, lateness, loose, tally)

    keep = np.repeat(regular, lengths)
    straight = order[keep]
    straight_owners, straight_lengths = owners[regular], lengths[regular]
    ends = np.cumsum(straight_lengths)
    newest = arrivals.times[straight][ends - 1] if len(ends) else ends
    restarts = np.zeros(len(straight), dtype=bool)
    restarts[ends - straight_lengths] = table["restart"][straight_owners]
    table["restart"][straight_owners] = False
    table["released"][straight_owners] = newest
    table["newest"][straight_owners] = newest
    table["late_run"][straight_owners] = 0
    tally.accepted += len(straight)

    rows = WindowRows(
        slots=straight_owners, first=ends - straight_lengths, last=ends, times=arrivals.times[straight],
        values=arrivals.values[straight], records=arrivals.records[straight], elements=arrivals.elements[straight],
        restarts=restarts, imputed=np.zeros(len(straight), dtype=bool),
    )  # fmt: skip
    return (_append(rows, loose) if loose.slots else rows), tally


def _admit_patched(table: SensorTable, arrivals: Arrivals, patched: Bools, lateness: int) -> tuple[WindowRows, Tally]:
    """The same of readings with patches, which go beside the values as further columns, also while they are held."""
    wide = replace(arrivals, values=np.hstack([arrivals.values, patched]), patched=None)
    rows, tally = admit(table, wide, lateness)
    channels = patched.shape[1]
    rows.values, rows.patched = np.ascontiguousarray(rows.values[:, :channels]), rows.values[:, channels:] > 0
    return rows, tally


def sentinel_rows(table: SensorTable, rows: WindowRows) -> Bools | None:
    """Which rows have a value that stands for none, by their sensors' profiles; None: no row."""
    sentinels = table["sentinels"][rows.slots]
    if np.isnan(sentinels).all():
        return None
    found = has_sentinel(rows.values, np.repeat(sentinels, rows.last - rows.first, axis=0))
    return found if found.any() else None


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
                tally.late += 1
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
    has_past = table["filled"][rows.slots] > 0
    previous = np.empty_like(rows.times)
    previous[1:] = rows.times[:-1]
    previous[rows.first] = np.where(has_past, table["times"][rows.slots, -1], rows.times[rows.first])
    lengths = rows.last - rows.first
    gap = rows.times - previous
    gap[rows.restarts] = 0
    median = np.repeat(np.where(table["regular"][rows.slots], table["median"][rows.slots], 0), lengths)
    usable = median > 0
    missing = np.zeros(len(gap), dtype=np.int64)
    np.floor_divide(2 * gap + median, 2 * median, out=missing, where=usable)
    missing = np.maximum(missing - 1, 0)
    rules = np.repeat(table["rules"][rows.slots], lengths)
    rows.restarts |= (missing > max_fill[rules]) | (gap > max_gap[rules])
    missing[rows.restarts] = 0
    if not missing.any():
        return rows

    copies = missing + 1
    source = np.repeat(np.arange(len(gap)), copies)
    step = np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies) + 1
    share = (step / copies[source])[:, None]
    old = np.empty_like(rows.values)
    old[1:] = rows.values[:-1]
    old[rows.first] = table["values"][rows.slots, -1]
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


class Span(Protocol):
    """Rows of n sensors, one sensor after the other, in order of time; see `Block`.

    `slots`, `ticks` (n,): whose they are, how many of each; `first` (n + 1,): where each one's begin. They lie flat:
    `sensor`, `newest` (N,): whose, where in `times` (n, ...); `records`, `elements` (N,): what brought them. `inside`
    (N,): which of them lie in a maintenance window, None: none.
    """

    @property
    def slots(self) -> Slots: ...
    @property
    def ticks(self) -> I64: ...
    @property
    def first(self) -> I64: ...
    @property
    def sensor(self) -> Slots: ...
    @property
    def newest(self) -> Slots: ...
    @property
    def times(self) -> I64: ...
    @property
    def records(self) -> I64: ...
    @property
    def elements(self) -> I64: ...
    @property
    def inside(self) -> Bools | None: ...


def starts_of(ticks: I64) -> I64:
    """Where the rows of each of n sensors begin, which has `ticks` (n,) of them, and where all end: (n + 1,).

    >>> starts_of(np.array([3, 2])).tolist()
    [0, 3, 5]
    """
    return np.concatenate([[0], np.cumsum(ticks)])


class Block:
    """A span of rows of n sensors laid out for scoring.

    `values` (n, 100 + L, C), `times`, `imputed` (n, 100 + L): the last 100 rows before the span, then the span. Real
    rows lie flat in sensor-major order: `sensor`, `newest` (N,): whose, where in `values`. `patched`: shaped as
    `values`, which of them stand for missing ones; None: none does.
    """

    def __init__(self, table: SensorTable, rows: WindowRows, groups: Slots, begin: Slots, end: Slots) -> None:
        lengths = end - begin
        real = ~rows.imputed
        if rows.imputed.any():
            before = np.concatenate([[0], np.cumsum(real)])
            ticks = before[end] - before[begin]
        else:
            ticks = lengths
        self.slots = rows.slots[groups]
        self.lengths, self.ticks = lengths, ticks
        self.first = starts_of(ticks)
        n, longest = len(groups), int(lengths.max())
        source = np.repeat(begin - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        inside = np.arange(longest) < lengths[:, None]

        def extend(old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
            out = np.zeros((n, WINDOW + longest, *old.shape[2:]), dtype=old.dtype)
            out[:, :WINDOW] = old
            out[:, WINDOW:][inside] = new[source]
            return out

        self.values: F64 = extend(table["values"][self.slots], rows.values)
        self.times: I64 = extend(table["times"][self.slots], rows.times)
        self.imputed: Bools = extend(flags_of(table["imputed"][self.slots]), rows.imputed)
        self.patched: Bools | None = None
        patches = [table.patches.get(slot) for slot in self.slots.tolist()] if table.patches else []
        if rows.patched is not None or any(one is not None for one in patches):
            none = np.zeros((WINDOW, self.values.shape[2]), dtype=bool)
            before = np.stack([none if one is None else one for one in patches or [None] * n])
            new = np.zeros(rows.values.shape, dtype=bool) if rows.patched is None else rows.patched
            self.patched = extend(before, new)
        flat = source[real[source]]
        self.sensor = np.repeat(np.arange(n), ticks)
        self.newest = WINDOW + flat - np.repeat(begin, ticks)
        self.records = rows.records[flat]
        self.last_record = rows.records[begin + lengths - 1]
        self.elements = rows.elements[flat]
        self.inside: Bools | None = None

    def windows(self, z: F64, channel: int, part: slice) -> F64:
        """The windows (k, 100) of one channel that these real rows complete, C-contiguous; z is shaped as `values`."""
        view = sliding_window_view(z[:, :, channel], WINDOW, axis=1)
        return view[self.sensor[part], self.newest[part] - (WINDOW - 1)]

    def model_windows(self, per_channel: list[F64]) -> F32:
        """Those windows as the model takes them: float32 (k, 100, C), C-contiguous."""
        if len(per_channel) == 1:
            return per_channel[0].astype(np.float32)[:, :, None]
        return np.stack(per_channel, axis=2).astype(np.float32)

    def window_at(self, sensor: int, tick: int) -> tuple[I64, F64, Bools]:
        """Times (100,), values (100, C) and imputed (100,) as they stood after the sensor's real row `tick`.

        -1: before the span.
        """
        end = WINDOW
        if tick >= 0:
            end = int(self.newest[self.first[sensor] + tick]) + 1
        part = slice(end - WINDOW, end)
        return self.times[sensor, part], self.values[sensor, part], self.imputed[sensor, part]

    def patched_at(self, sensor: int, tick: int) -> Bools | None:
        """What of the values of that window is patched (100, C); None: nothing."""
        end = WINDOW if tick < 0 else int(self.newest[self.first[sensor] + tick]) + 1
        return None if self.patched is None else self.patched[sensor, end - WINDOW : end]

    def patched_windows(self, part: slice) -> Bools | None:
        """What of the windows that these real rows complete is patched (k, 100, C); None: nothing."""
        if self.patched is None:
            return None
        view = sliding_window_view(self.patched, WINDOW, axis=1)
        return view[self.sensor[part], self.newest[part] - (WINDOW - 1)].transpose(0, 2, 1)

    @property
    def marked(self) -> F64:
        """The values (N, C) of the real rows, NaN where they are patched."""
        values: F64 = self.values[self.sensor, self.newest]
        if self.patched is not None:
            values[self.patched[self.sensor, self.newest]] = np.nan
        return values

    def store(self, table: SensorTable, offsets: I64) -> None:
        """Write the windows back. `offsets`: stream offset of each record of the batch."""
        length = int(self.lengths[0])
        if (self.lengths == length).all():
            newest: Any = slice(None), slice(length, length + WINDOW)
        else:
            newest = np.arange(len(self.slots))[:, None], self.lengths[:, None] + np.arange(WINDOW)
        table["values"][self.slots] = self.values[newest]
        table["times"][self.slots] = self.times[newest]
        table["imputed"][self.slots] = bits_of(self.imputed[newest])
        if self.patched is not None:
            for slot, patched in zip(self.slots.tolist(), self.patched[newest], strict=True):
                table.patch(slot, patched)
        table["filled"][self.slots] = np.minimum(table["filled"][self.slots] + self.lengths, WINDOW)
        table["offset"][self.slots] = offsets[self.last_record]
