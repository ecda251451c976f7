"""A part of a recording: readings outside a time range are as if they had never been sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from detector.streams.base import Batch
from detector.wire.readings import Readings


class Decoder(Protocol):
    """Turns a batch of records into readings."""

    def decode(self, batch: Batch) -> Readings:
        """Decode every record of the batch."""
        ...


class TimeRange:
    """A decoder that keeps readings with start <= time < end (ns; None: open)."""

    def __init__(self, decoder: Decoder, start: int | None, end: int | None) -> None:
        self._decoder, self._start, self._end = decoder, start, end

    def decode(self, batch: Batch) -> Readings:
        """Decode, then leave out what lies outside."""
        readings = self._decoder.decode(batch)
        keep = np.ones(len(readings.times), dtype=bool)
        if self._start is not None:
            keep &= readings.times >= self._start
        if self._end is not None:
            keep &= readings.times < self._end
        return readings if keep.all() else readings.only(keep)


def newest_time(batches: Iterable[Batch], decoder: Decoder, end: int | None) -> int | None:
    """The newest timestamp (ns) before `end`; None if there is none."""
    newest: int | None = None
    ranged = TimeRange(decoder, None, end)
    for batch in batches:
        times = ranged.decode(batch).times
        if len(times):
            newest = max(int(times.max()), newest if newest is not None else int(times.max()))
    return newest
