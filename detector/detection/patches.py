"""Values that stand for missing ones: they lie in windows and do not count (see alignment.py).

Of readings that have all channels of a machine, some may lack a few. What stands there is the channel's last value, for
however long: a channel that is gone costs the others nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from detector.arrays import I64, Bools
from detector.detection.kernel.cells import Rows
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable
from detector.detection.windows import WindowRows, newest_places


def stand_in(table: SensorTable, rows: WindowRows) -> WindowRows:
    """The rows, where they lack a channel with its last value, marked as `WindowRows.patched`.

    The channel's center stands before the first row of a sensor. What is patched already stays so.
    """
    if table.channels == 1:
        return rows
    lacking = np.isnan(rows.values)
    if not lacking.any():
        return rows
    begun = table["filled"][rows.slots] > 0
    newest = table["values"][rows.slots, newest_places(table, rows.slots)]
    before = np.where(begun[:, None], newest, table["center"][rows.slots])
    lengths = rows.last - rows.first
    source = np.maximum.accumulate(np.where(lacking, -1, np.arange(len(lacking))[:, None]), axis=0)
    own = source >= np.repeat(rows.first, lengths)[:, None]
    last = np.take_along_axis(rows.values, np.maximum(source, 0), axis=0)
    patched = lacking if rows.patched is None else rows.patched | lacking
    return replace(rows, values=np.where(own, last, np.repeat(before, lengths, axis=0)), patched=patched)


def patches_of(table: SensorTable, rows: Rows, patched: Bools | None) -> Patches | None:
    """Those of a block of `rows`; `patched`: of all rows that these are some of, None: none is. None: none at all."""
    if patched is None and not (table.patches and any(slot in table.patches for slot in rows.slots.tolist())):
        return None
    return Patches(table, rows, np.zeros(rows.values.shape, dtype=bool) if patched is None else patched)


class Patches:
    """`of_rows`: shaped as the values of the rows.

    Inside, the flags of a sensor's rows lie behind those of its window before them, one sensor behind the other.
    """

    def __init__(self, table: SensorTable, rows: Rows, of_rows: Bools) -> None:
        self.of_rows = of_rows
        self._rows = rows
        none = np.zeros((WINDOW, of_rows.shape[1]), dtype=bool)
        pieces: list[Bools] = []
        for slot, begin, end in zip(rows.slots.tolist(), rows.begin.tolist(), rows.end.tolist(), strict=True):
            pieces += [table.patches.get(slot, none), of_rows[begin:end]]
        self._flags = np.concatenate(pieces)
        lengths = rows.end - rows.begin + WINDOW
        self._first: I64 = np.cumsum(lengths) - lengths

    @property
    def newest(self) -> Bools:
        """Of the scored rows (N, C)."""
        newest: Bools = self.of_rows[self._rows.source]
        return newest

    def windows(self, part: slice) -> Bools:
        """Of the windows (k, 100, C) that some of the scored rows complete."""
        owner, source = self._rows.owner[part], self._rows.source[part]
        begin = self._first[owner] + source - self._rows.begin[owner] + 1
        windows: Bools = sliding_window_view(self._flags, WINDOW, axis=0)[begin].transpose(0, 2, 1)
        return windows

    def window_before(self, at: int, end: int) -> Bools:
        """Of a sensor's window (100, C) as it stood before the row `end`."""
        begin = int(self._first[at]) + end - int(self._rows.begin[at])
        flags: Bools = self._flags[begin : begin + WINDOW]
        return flags

    def store(self, table: SensorTable) -> None:
        """Keep those of the windows after all rows."""
        for at, slot in enumerate(self._rows.slots.tolist()):
            table.patch(slot, self.window_before(at, int(self._rows.end[at])))
