"""What the tests of the directory backend share."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detector.streams.base import Assigned, Batch, Message, Partition, Record
from detector.streams.checkpoint import CheckpointFile
from detector.streams.directory import DirectoryStreams

READINGS = Partition("sensor-readings", 0)
INPUT = READINGS.stream
OUTPUT = "anomaly-alerts"
OTHER = "detector-dead-letters"

Open = Callable[..., DirectoryStreams]
"""Opens streams with the options of `streams_in`."""


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds
        self.meanwhile()


def streams_in(directory: Path, source: Path | None = None, **options: Any) -> DirectoryStreams:
    """Not opened; every commit is durable unless `checkpoint_interval` says else."""
    clock = options.pop("clock", None) or Clock()
    options.setdefault("inputs", {INPUT: source or directory / f"{INPUT}.jsonl"})
    options.setdefault("outputs", {OUTPUT: directory / f"{OUTPUT}.jsonl"})
    options.setdefault("state_dir", directory / ".detector")
    options.setdefault("checkpoint_interval", 0.0)
    return DirectoryStreams(clock=clock, sleep=clock.sleep, **options)


def read_all(streams: DirectoryStreams) -> list[Batch]:
    """Batches until there is nothing more at the moment, without a commit."""
    batches: list[Batch] = []
    while True:
        events = streams.poll(0.0)
        batches += [event for event in events if isinstance(event, Batch)]
        if not any(isinstance(event, Batch | Assigned) for event in events):
            return batches


def records(batches: list[Batch]) -> list[Record]:
    return [record for batch in batches for record in batch.records]


def values(batches: list[Batch]) -> list[bytes | None]:
    return [record.value for record in records(batches)]


def commit_all(streams: DirectoryStreams, batches: list[Batch], state: bytes = b"") -> bool:
    positions = {batch.partition: batch.next_offset for batch in batches}
    return streams.commit(positions, lambda _: state, final=True)


def final_lines(path: Path, state_dir: Path, stream: str) -> list[bytes]:
    """The lines of an output up to where the checkpoint says that it is final."""
    checkpoint = CheckpointFile(state_dir).load()
    lengths: Mapping[str, int] = checkpoint.outputs if checkpoint else {}
    data = path.read_bytes() if path.exists() else b""
    return data[: lengths.get(stream, 0)].splitlines()


def alert(text: bytes) -> list[Message]:
    return [Message(OUTPUT, None, text)]


class Pipe(io.BytesIO):
    """Bytes in memory that remain readable after they were closed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1
