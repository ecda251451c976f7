"""Recorded data, for training and backtests: the same bytes, cut into the same records as by the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detector.streams.base import Batch, Partition
from detector.streams.inputfiles import source_for
from detector.streams.lines import Start
from detector.streams.places import recording_file
from detector.streams.sources import Source

_MAX_RECORDS = 5000


def read_recording(path: Path, stream: str) -> Iterator[Batch]:
    """All batches of a recording up to its present end, in order, with the offsets, rows and header of `run`.

    `path` is a CSV or JSON lines file (also ``.gz``), or a directory of streams, of which the file of `stream` is
    read. A file without data rows gives no batch. Raises `UserError`, before the first batch, if there is no such
    file or it may not be read; `OperationError` if reading fails.
    """
    file = recording_file(path, stream)
    source = source_for(Partition(stream, 0), file, until_end=True)
    source.open(Start(), None)
    return _batches(source)


def _batches(source: Source) -> Iterator[Batch]:
    try:
        while (batch := source.read(_MAX_RECORDS)) is not None:
            if batch.records:
                yield batch
    finally:
        source.close()
