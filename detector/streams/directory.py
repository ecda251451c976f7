"""Streams that are files: read like logs, written like logs, with a checkpoint that makes each line final once.

At a durable commit the outputs are fsynced first; then the checkpoint names how long they are, how far the inputs were
dealt with and the state that goes with it, and replaces the last one as a whole. At `open` the outputs are cut back
to that length: whatever a crash left beyond it is written again, and a reader that tails an output may see lines of
that kind before they are final.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

from detector.errors import UserError
from detector.streams.aside import Aside
from detector.streams.base import (
    Assigned,
    Batch,
    Deferred,
    Event,
    Message,
    Partition,
    Revoked,
    RollingSnapshot,
    Snapshot,
    nothing_deferred,
)
from detector.streams.checkpoint import Checkpoint, CheckpointFile, PartitionCheckpoint, Piece
from detector.streams.files import DirectoryLock, failing_as, make_directory
from detector.streams.finalfiles import FinalFile
from detector.streams.inputfiles import source_for
from detector.streams.lines import MAX_LINE, Recognise, Start
from detector.streams.sinks import FileSink, LogSink, Sink, StandardOutput
from detector.streams.sources import CHUNK, Source, StandardInput

InputPlace = Path | Literal["-"]
OutputPlace = Path | Literal["-", "log"]
Encoder = Callable[[Message], bytes]

_STEP = 0.02
"""Seconds between two looks at files that have nothing new: the most a tailed line waits to be seen."""

_DUTY = 10
"""A durable commit follows the last one after at least this many times what that one took (large states)."""

_log = logging.getLogger(__name__)


class DirectoryStreams:
    """The `Streams` of files, standard input and standard output. Every input is one partition, number 0.

    `inputs` and `outputs` give each stream its place: a file, ``-``, or for outputs ``log``. `state_dir` holds
    checkpoint and lock; None where there can be no checkpoint (standard input cannot be read again, standard output
    not be cut back): then `commit` only passes on and returns False, and an output file has to be new.
    `until_end` reads only what is there at `open` and hands out a last line without a line end. `fresh` forgets the
    checkpoint and empties the outputs. `encoders` turn a message into a line without line end, its value by default;
    `recognisers` give the CSV file of a stream what its batches have for a header. `finals` names inputs that are
    outputs of another process of ours, with where its checkpoint may lie: they are read up to what is final. A batch
    holds up to `max_records`, a poll reads up to `max_bytes` (plus one line) of each input. Of a line above `max_line`
    bytes only its beginning is handed out.
    """

    def __init__(
        self,
        inputs: Mapping[str, InputPlace],
        outputs: Mapping[str, OutputPlace],
        state_dir: Path | None,
        checkpoint_interval: float,
        clock: Callable[[], float] = time.monotonic,
        max_records: int = 5000,
        max_bytes: int = CHUNK,
        max_line: int = MAX_LINE,
        until_end: bool = False,
        fresh: bool = False,
        *,
        encoders: Mapping[str, Encoder] | None = None,
        finals: Mapping[str, Sequence[Path]] | None = None,
        recognisers: Mapping[str, Recognise] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
    ) -> None:
        if state_dir is not None and "-" in inputs.values():
            raise ValueError("standard input cannot be read again: no checkpoint with it")
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self.state_dir = state_dir
        self.until_end = until_end
        self._interval = checkpoint_interval
        self._clock = clock
        self._sleep = sleep
        self._max_records = max_records
        self._sizes = {"chunk": max_bytes, "max_line": max_line}
        self._fresh = fresh
        self._encoders = dict(encoders or {})
        self._finals = dict(finals or {})
        self._recognisers = dict(recognisers or {})
        self._stdin = stdin
        self._stdout = stdout
        self._close = contextlib.ExitStack()
        self._store: CheckpointFile | None = None
        self._inputs: list[_Input] = []
        self._sinks: dict[str, Sink] = {}
        self._unused = Checkpoint()  # what the checkpoint holds for streams that are not configured now
        self._news: list[Event] = []
        self._turn = 0
        self._changed = False
        self._began = self._due = 0.0
        self._aside = Aside()

    def open(self) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._refuse_loops()
            checkpoint = self._restore()
            self._open_inputs(checkpoint)
            self._open_outputs(checkpoint)
            undo.pop_all()
        self._news = [Assigned(entry.partition, entry.start.position, entry.state) for entry in self._inputs]
        self._changed = False
        self._due = self._clock() + self._interval
        self._fresh = False

    def poll(self, timeout: float) -> Sequence[Event]:
        events, self._news = self._news, []
        deadline = self._clock() + timeout
        while True:
            events.extend(self._read())
            if events or (self.until_end and self.at_end()):
                return events
            remaining = deadline - self._clock()
            if remaining <= 0:
                return events
            self._wait(remaining)

    def write(self, messages: Sequence[Message]) -> None:
        for message in messages:
            encode = self._encoders.get(message.stream)
            self._sinks[message.stream].add(message.value if encode is None else encode(message))

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        entries = {entry.partition: entry for entry in self._inputs}
        for partition, position in positions.items():
            self._changed |= entries[partition].settle(position)
        self.write(deferred())
        moved = [sink.reopen() for sink in self._sinks.values()]
        for sink in self._sinks.values():
            self._changed |= sink.flush()
        if self._store is None:
            if final:
                self._sync()
            return False
        began = self._clock()
        # Where an output goes on in another place the checkpoint has to know it before anything else happens.
        forced = final or any(moved)
        if not forced and (not self.settled or not self._changed or began < self._due):
            return False
        self._sync()
        self._began = began
        self._save(self._store, snapshot, aside=not forced)
        self._rest()
        self._changed = False
        return True

    def _rest(self) -> None:
        ended = self._clock()
        self._due = max(self._began + self._interval, ended + _DUTY * (ended - self._began))

    @property
    def settled(self) -> bool:
        if self._aside.idle:
            return True
        done = self._aside.done()
        if done:
            self._rest()
        return done

    @property
    def repeatable(self) -> bool:
        return self.state_dir is not None

    def roll_back(self) -> None:
        partitions = [entry.partition for entry in self._inputs]
        self.close()
        self.open()
        self._news = [*map(Revoked, partitions), *self._news]

    def at_end(self) -> bool:
        return not self._news and all(entry.source.at_end() for entry in self._inputs)

    def lag(self) -> Mapping[Partition, int]:
        return {entry.partition: entry.source.lag() for entry in self._inputs}

    def close(self) -> None:
        self._aside.stop()
        try:
            self._close.close()
        except OSError:
            _log.exception("a file could not be closed")
        self._store = None
        self._inputs = []
        self._sinks = {}

    def _refuse_loops(self) -> None:
        """An output that is an input would be read again, and with `fresh` be emptied; two in one would be mixed."""
        taken = [place for place in self.inputs.values() if isinstance(place, Path)]
        for path in self.outputs.values():
            if not isinstance(path, Path):
                continue
            if any(_same_file(path, other) for other in taken):
                raise UserError(
                    "this file is an output and another stream, too", where=str(path), todo="Name another output"
                )
            taken.append(path)

    def _restore(self) -> Checkpoint:
        """Lock, and take the last checkpoint; without one begin one, before anything is written."""
        files = {stream: FileSink(path) for stream, path in self.outputs.items() if isinstance(path, Path)}
        begun = Checkpoint(outputs=dict.fromkeys(files, 0))
        for sink in files.values():
            sink.check(0)  # whether it can be a file at all, before a directory is made beside it
        if self.state_dir is None:
            for sink in files.values():
                sink.check(0 if self._fresh else None)
            return begun
        make_directory(self.state_dir)
        lock = DirectoryLock(self.state_dir)
        lock.acquire()
        self._close.callback(lock.release)
        self._store = CheckpointFile(self.state_dir)
        checkpoint = (None if self._fresh else self._store.load()) or Checkpoint()
        for stream, sink in files.items():
            sink.check(0 if self._fresh else checkpoint.outputs.get(stream), checkpoint.endings.get(stream))
        if self._fresh or not files.keys() <= checkpoint.outputs.keys():
            # Outputs are named in a checkpoint before anything is written to them, and (with `fresh`) before they
            # are emptied: a crash leaves none that no checkpoint knows.
            checkpoint = replace(checkpoint, outputs=dict(begun.outputs) | dict(checkpoint.outputs))
            self._store.save(checkpoint)
        return checkpoint

    def _open_inputs(self, checkpoint: Checkpoint) -> None:
        partitions = dict(checkpoint.partitions)
        for stream, place in self.inputs.items():
            partition = Partition(stream, 0)
            source = self._source(partition, place)
            known = partitions.pop(partition, None) or PartitionCheckpoint(source.place)
            if known.start.position and known.place != source.place:
                raise UserError(
                    f"the checkpoint is that of the input {known.place}",
                    where=str(place),
                    todo="Name another output, or start over with --fresh",
                )
            self._close.callback(source.close)
            source.open(known.start, known.fingerprint)
            self._inputs.append(_Input(source, known.start, known.state))
        unused = checkpoint.outputs.keys() - self.outputs.keys()
        self._unused = Checkpoint(
            partitions,
            {stream: checkpoint.outputs[stream] for stream in unused},
            {stream: ending for stream, ending in checkpoint.endings.items() if stream in unused},
        )

    def _open_outputs(self, checkpoint: Checkpoint) -> None:
        for stream, place in self.outputs.items():
            sink = self._sink(stream, place)
            self._close.callback(sink.close)
            sink.open(checkpoint.outputs.get(stream, 0))
            self._sinks[stream] = sink

    def _source(self, partition: Partition, place: InputPlace) -> Source:
        recognise = self._recognisers.get(partition.stream)
        if isinstance(place, Path):
            writers = self._finals.get(partition.stream)
            if writers is not None and place.suffix.lower() != ".gz":
                return FinalFile(partition, place, writers=writers, until_end=self.until_end, **self._sizes)
            return source_for(partition, place, until_end=self.until_end, recognise=recognise, **self._sizes)
        return StandardInput(partition, self._stdin or _standard_input(), recognise=recognise, **self._sizes)

    def _sink(self, stream: str, place: OutputPlace) -> Sink:
        if isinstance(place, Path):
            return FileSink(place)
        if place == "log":
            return LogSink(stream)
        if self._stdout is None:
            # Unbuffered: a broken pipe shows here and not when the interpreter exits.
            with failing_as("write", Path("standard output")):
                self._stdout = open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115
        return StandardOutput(self._stdout)

    def _read(self) -> list[Event]:
        events: list[Event] = []
        left = self._max_records
        first = self._turn
        self._turn = (first + 1) % max(1, len(self._inputs))  # a busy input shall not starve the others
        for entry in self._inputs[first:] + self._inputs[:first]:
            batch = entry.source.read(left) if left > 0 else None
            if batch is not None:
                left -= len(batch.records)
                entry.unsettled.append((batch, entry.source.reached))
                events.append(batch)
        return events

    def _wait(self, remaining: float) -> None:
        for entry in self._inputs:
            if isinstance(entry.source, StandardInput):
                entry.source.wait(remaining if len(self._inputs) == 1 else min(_STEP, remaining))
                return
        self._sleep(min(_STEP, remaining))

    def _sync(self) -> None:
        for sink in self._sinks.values():
            sink.sync()

    def _save(self, store: CheckpointFile, snapshot: Snapshot, *, aside: bool) -> None:
        """Write a checkpoint, a large one `aside` from what this process goes on with."""
        checkpoint = self._checkpoint()
        states: dict[Partition, Iterable[Piece]] = {
            one.partition: snapshot.pieces(one.partition)
            if isinstance(snapshot, RollingSnapshot)
            else (snapshot(one.partition),)
            for one in self._inputs
            if one.touched
        }
        self._aside.stop()  # what it writes would be older
        if aside and store.large and self._set_aside(lambda: store.save(checkpoint, states)):
            return
        store.save(checkpoint, states)

    def _set_aside(self, work: Callable[[], None]) -> bool:
        """Let a copy of this process do it; whether there is one. Without memory or a process for it there is none."""
        try:
            self._aside.begin(work)
        except OSError as error:
            _log.warning("a large checkpoint is written while nothing else is done: no copy of the process: %s", error)
            return False
        return True

    def _checkpoint(self) -> Checkpoint:
        partitions = dict(self._unused.partitions)
        for entry in self._inputs:
            partitions[entry.partition] = PartitionCheckpoint(
                entry.source.place,
                entry.start,
                entry.source.fingerprint(entry.start.position),
                entry.state,
            )
        outputs, endings = dict(self._unused.outputs), dict(self._unused.endings)
        for stream, sink in self._sinks.items():
            if sink.length is not None:
                outputs[stream] = sink.length
            if sink.ending is not None:
                endings[stream] = sink.ending
        return Checkpoint(partitions, outputs, endings)


class _Input:
    """One input and how far it was dealt with."""

    def __init__(self, source: Source, start: Start, state: bytes | memoryview | None) -> None:
        self.source = source
        self.partition = source.partition
        self.start = start
        self.state = state  # the last checkpoint's, kept until the consumer has one of its own to give
        self.touched = False
        self.unsettled: deque[tuple[Batch, Start]] = deque()  # with where reading goes on behind it

    def settle(self, position: int) -> bool:
        """Everything before `position` was dealt with; whether that moves the position on.

        `position` is the `next_offset` of a batch or the offset of one of its records, and never goes back.
        """
        before = self.start
        while self.unsettled and self.unsettled[0][0].next_offset <= position:
            _, self.start = self.unsettled.popleft()
        if position > self.start.position and self.unsettled:
            batch, _ = self.unsettled[0]
            index = bisect_left(batch.records, position, key=lambda record: record.offset)
            if index < len(batch.records) and batch.records[index].offset == position:
                self.start = Start(position, batch.row + index, batch.header)
        if position != self.start.position:
            raise ValueError(f"{position} is no position of {self.partition}, committed up to {before.position}")
        self.touched = True
        self.state = None
        return self.start != before


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except OSError:
        return False  # one of them does not exist, or shows its trouble when it is opened


def _standard_input() -> BinaryIO:
    # `sys.stdin` is None where the shell closed it (`<&-`).
    if sys.stdin is None:
        raise UserError("standard input is closed", where="standard input", todo="Pipe something in, or name a file")
    return sys.stdin.buffer
