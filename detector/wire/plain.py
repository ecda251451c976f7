"""Plain readings: the columns of a batch of which every record is one JSON object of a sensor, a time and a value.

scan.c takes the commonest way of writing them and leaves everything else alone, so that what it says is what a typed
decoder says, in a third of the time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, I64
from detector.streams.base import Record

PORTION: Final = 1000
"""Records scanned together: their text stays in the processor's cache."""
_NONE, _FLOATS, _TEXTS = -1, 1, 2
"""What all times are, as in scan.c; integers: 0."""


class Plain(NamedTuple):
    """One reading a record (n,): sensors, times as they came, values, NaN: null."""

    ids: list[str]
    times: Sequence[str | int | float] | I64 | F64
    values: F64


class _Key(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("length", ctypes.c_int64))


class _Columns(ctypes.Structure):
    _fields_ = (
        ("times", ctypes.c_void_p), ("kind", ctypes.c_int64), ("values", ctypes.c_void_p),
        ("ids", ctypes.c_void_p), ("texts", ctypes.c_void_p),
    )  # fmt: skip


class PlainScanner:
    """Scans with a library that was built from scan.c. `keys`: of the sensor, the time and the value."""

    def __init__(self, library: ctypes.CDLL, keys: tuple[str, str, str]) -> None:
        self._scan = library.scan_plain
        self._scan.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        self._scan.restype = ctypes.c_int64
        names = [f'{key}"'.encode() for key in keys]
        self._keys = (_Key * 3)(*(_Key(name, len(name)) for name in names))

    def __call__(self, records: Sequence[Record]) -> Plain | None:
        """The columns of records (n,), at least one; None if one of them is not plain."""
        count = len(records)
        times, values = np.empty(count, dtype=np.int64), np.empty(count)
        ids, texts = list[str](), list[str]()
        columns = _Columns(times.ctypes.data, _NONE, values.ctypes.data)
        for begin in range(0, count, PORTION):
            lines = [record.value or b"" for record in records[begin : begin + PORTION]]
            text = b"\n".join(lines)
            room = np.empty((2, len(text)), dtype=np.uint8)  # what is copied is shorter than what it is copied from
            columns.ids, columns.texts = starts = [part.ctypes.data for part in room]
            if not self._scan(text, len(text), len(lines), ctypes.addressof(self._keys), ctypes.addressof(columns)):
                return None
            ids += _lines(starts[0], columns.ids)
            if columns.kind == _TEXTS:
                texts += _lines(starts[1], columns.texts)
        if columns.kind == _TEXTS:
            return Plain(ids, texts, values)
        return Plain(ids, times.view(np.float64) if columns.kind == _FLOATS else times, values)


def _lines(begin: int, end: int) -> list[str]:
    """The lines of ASCII that lie there, each with its end."""
    return ctypes.string_at(begin, end - begin - 1).decode("ascii").split("\n")
