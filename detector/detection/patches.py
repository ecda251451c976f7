"""Which values of the windows of a block stand for missing ones (see alignment.py)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from detector.arrays import I64, Bools
from detector.detection.kernel.cells import Rows
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable


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
