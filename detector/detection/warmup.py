"""Readings that are collected until a profile can be made of them."""

from __future__ import annotations

import numpy as np

from detector.arrays import F64, I64

_FEW = 8
"""Rows that a warm-up keeps in as little memory as there is."""


class WarmUp:
    """Readings of which a profile will be made: `times` (n,) and `values` (n, C).

    Thousands of ids may come that say one thing each. So the first rows are packed into one piece of bytes: a row of
    one channel takes some 110 bytes, and would take 400 in arrays.
    """

    __slots__ = ("_channels", "_rows")

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._rows: bytes | _Rows = b""

    @property
    def count(self) -> int:
        """The number of rows."""
        rows = self._rows
        return len(rows) // (8 + 8 * self._channels) if isinstance(rows, bytes) else rows.count

    @property
    def times(self) -> I64:
        return self._unpacked().times[: self.count]

    @property
    def values(self) -> F64:
        return self._unpacked().values[: self.count]

    def extend(self, times: I64, values: F64) -> None:
        """Append rows (n,), (n, C)."""
        if isinstance(self._rows, bytes) and self.count + len(times) <= _FEW:
            words = np.empty((len(times), 1 + self._channels), dtype=np.int64)
            words[:, 0] = times
            words.view(np.float64)[:, 1:] = values
            self._rows += words.tobytes()
        else:
            self._rows = rows = self._unpacked()
            rows.extend(times, values)

    def append(self, time: int, values: F64) -> None:
        """Append one row, its values (C,)."""
        self.extend(np.array([time]), values[None])

    def drop_last(self, rows: int) -> None:
        """Forget the newest rows, all if there are fewer."""
        self._rows = kept = self._unpacked()
        kept.count = max(kept.count - rows, 0)

    def keep_last(self, rows: int) -> None:
        """Forget all but the newest rows."""
        kept = slice(max(self.count - rows, 0), None)
        self._rows = _Rows(self.times[kept].copy(), self.values[kept].copy())

    def _unpacked(self) -> _Rows:
        if not isinstance(self._rows, bytes):
            return self._rows
        words = np.frombuffer(self._rows, dtype=np.int64).reshape(-1, 1 + self._channels)
        return _Rows(words[:, 0].copy(), words[:, 1:].copy().view(np.float64))


class _Rows:
    """Arrays that grow: the first `count` rows of them are there."""

    def __init__(self, times: I64, values: F64) -> None:
        self.times, self.values, self.count = times, values, len(times)

    def extend(self, times: I64, values: F64) -> None:
        end = self.count + len(times)
        if end > len(self.times):
            size = max(end, 64, 2 * len(self.times))
            grown = np.empty(size, dtype=np.int64), np.empty((size, self.values.shape[1]))
            grown[0][: self.count], grown[1][: self.count] = self.times[: self.count], self.values[: self.count]
            self.times, self.values = grown
        self.times[self.count : end], self.values[self.count : end] = times, values
        self.count = end
