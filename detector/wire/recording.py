"""Recorded data, for training and backtests: the same records as the daemon cuts, or a part of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from detector.streams.base import Batch, Partition
from detector.streams.inputfiles import source_for
from detector.streams.lines import Recognise, Start
from detector.streams.places import recording_file
from detector.streams.sources import Source
from detector.wire.readings import Decoder, Readings

_MAX_RECORDS = 5000


def read_recording(path: Path, stream: str, recognise: Recognise | None = None) -> Iterator[Batch]:
    """All batches of a recording up to its present end, in order, with the offsets, rows and header of `run`.

    `path` is a CSV or JSON lines file (also ``.gz``), or a directory of streams, of which the file of `stream` is
    read. `recognise` makes what batches of a CSV file have for a header. A file without data rows gives no batch.
    Raises `UserError`, before the first batch, if there is no such file or it may not be read; `OperationError` if
    reading fails.
    """
    file = recording_file(path, stream)
    source = source_for(Partition(stream, 0), file, until_end=True, recognise=recognise)
    source.open(Start(), None)
    return _batches(source)


def _batches(source: Source) -> Iterator[Batch]:
    try:
        while (batch := source.read(_MAX_RECORDS)) is not None:
            if batch.records:
                yield batch
    finally:
        source.close()


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
