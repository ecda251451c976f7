"""Rows of many sensors that are dealt with together: which of them complete a window, and how a window looked when.

Windows are rings in the table. A block changes none of them before it is stored: what it comes to may still be undone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from detector.arrays import F64, I64, Bools
from detector.detection.kernel.cells import Rings, Rows
from detector.detection.kernel.choice import choose
from detector.detection.patches import patches_of
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable, Slots
from detector.detection.windows import WindowRows, window_of


class Span(Protocol):
    """N scored rows of n sensors, one sensor after the other, in order of time; see `Block`.

    `slots`, `ticks` (n,): whose they are, how many of each; `first` (n + 1,): where each one's begin. `owner` (N,):
    whose, by place among the n; `times` (N,) ns; `records`, `elements` (N,): what brought them. `inside` (N,): which of
    them lie in a maintenance window, None: none.
    """

    @property
    def slots(self) -> Slots: ...
    @property
    def ticks(self) -> I64: ...
    @property
    def first(self) -> I64: ...
    @property
    def owner(self) -> I64: ...
    @property
    def times(self) -> I64: ...
    @property
    def records(self) -> I64: ...
    @property
    def elements(self) -> I64: ...
    @property
    def inside(self) -> Bools | None: ...

    def record_before(self, at: int) -> int:
        """The record of the row before a sensor's first scored one, -1: that is not of this block."""
        ...


def starts_of(ticks: I64) -> I64:
    """Where the rows of each of n sensors begin, which has `ticks` (n,) of them, and where all end: (n + 1,).

    >>> starts_of(np.array([3, 2])).tolist()
    [0, 3, 5]
    """
    return np.concatenate([[0], np.cumsum(ticks)])


def rings_of(table: SensorTable) -> Rings:
    """Its columns that windows are kept in and forecast from."""
    return Rings(*(table[name] for name in Rings._fields))


class Block:
    """Rows begin .. end - 1 of some groups of `WindowRows`; those that complete a window are the scored ones.

    `rows`: all of them, as the kernel takes them. `values` (N, C): of the scored ones. `filling` (F,): rows that
    complete none and were not filled in, which are `filling_owner`'s. `patches`: which values stand for missing ones,
    None: none does.
    """

    def __init__(self, table: SensorTable, rows: WindowRows, groups: Slots, begin: I64, end: I64) -> None:
        self.slots = slots = rows.slots[groups]
        lengths = end - begin
        owner = np.repeat(np.arange(len(slots)), lengths)
        source = np.repeat(begin - (np.cumsum(lengths) - lengths), lengths) + np.arange(len(owner))
        short = WINDOW - 1 - table["filled"][slots].astype(np.int64)
        some_fill, some_imputed = bool((short > 0).any()), bool(rows.imputed.any())
        self.filling = self.filling_owner = owner[:0]
        self.ticks = lengths
        if some_fill or some_imputed:
            complete = source - begin[owner] >= short[owner]
            real = ~rows.imputed[source]
            scored, filling = complete & real, ~complete & real
            self.filling, self.filling_owner = source[filling], owner[filling]
            source, owner = source[scored], owner[scored]
            self.ticks = np.bincount(owner, minlength=len(slots))
        self.rows = Rows(slots, begin, end, rows.values, rows.times, rows.imputed, owner, source)
        self.first = starts_of(self.ticks)
        self.owner = owner
        whole = len(source) > 0 and int(source[-1]) - int(source[0]) == len(source) - 1  # nothing between them
        flat = slice(int(source[0]), int(source[-1]) + 1) if whole else source
        self.times = rows.times[flat]
        self.values: F64 = rows.values[flat]
        self.records, self.elements = rows.records[flat], rows.elements[flat]
        self.inside: Bools | None = None
        self._all_records = rows.records
        self.patches = patches_of(table, self.rows, rows.patched)

    def window_at(self, table: SensorTable, at: int, tick: int) -> tuple[I64, F64, Bools]:
        """Times (100,), values (100, C) and imputed (100,) as they stood after the sensor's scored row `tick`.

        -1: before the first of them. Only until the block is stored.
        """
        begin, rows = int(self.rows.begin[at]), self.rows
        end = self._behind(at, tick)
        new = slice(max(begin, end - WINDOW), end)
        times, values, imputed = window_of(table, int(self.slots[at]))
        old = slice(end - new.start, None)
        return (
            np.concatenate([times[old], rows.times[new]]),
            np.concatenate([values[old], rows.values[new]]),
            np.concatenate([imputed[old], rows.imputed[new]]),
        )

    def patched_at(self, at: int, tick: int) -> Bools | None:
        """Which values of that window stand for missing ones (100, C); None: none does."""
        return None if self.patches is None else self.patches.window_before(at, self._behind(at, tick))

    @property
    def marked(self) -> F64:
        """The values (N, C) of the scored rows, NaN where they stand for missing ones."""
        return self.values if self.patches is None else np.where(self.patches.newest, np.nan, self.values)

    def marked_rows(self, some: Slots) -> F64:
        """The same of some of all rows, by number."""
        values: F64 = self.rows.values[some]
        return values if self.patches is None else np.where(self.patches.of_rows[some], np.nan, values)

    def record_before(self, at: int) -> int:
        """The record of the row before a sensor's first scored one, -1: that is not of this block."""
        before = self._before(at)
        return int(self._all_records[before - 1]) if before > self.rows.begin[at] else -1

    def _behind(self, at: int, tick: int) -> int:
        """Behind the sensor's scored row `tick`; -1: behind the row before the first of them."""
        return self._before(at) if tick < 0 else int(self.rows.source[self.first[at] + tick]) + 1

    def _before(self, at: int) -> int:
        """Behind the row before a sensor's first scored one."""
        if not self.ticks[at]:
            return int(self.rows.end[at])
        first = int(self.rows.source[self.first[at]])
        real = np.flatnonzero(~self.rows.imputed[self.rows.begin[at] : first])
        return int(self.rows.begin[at]) + (int(real[-1]) + 1 if len(real) else 0)

    def store(self, table: SensorTable, offsets: I64) -> None:
        """Let the rows into their windows. `offsets`: stream offset of each record of the batch."""
        choose().kernel.push(rings_of(table), self.rows)
        if self.patches is not None:
            self.patches.store(table)
        filled = table["filled"][self.slots] + (self.rows.end - self.rows.begin)
        table["filled"][self.slots] = np.minimum(filled, WINDOW)
        table["offset"][self.slots] = offsets[self._all_records[self.rows.end - 1]]
