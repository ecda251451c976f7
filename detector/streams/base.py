"""The one interface behind which every transport sits.

A backend hands out *events* in the order in which they happened and takes *messages* and *commits*. Nothing it hands
out is forgotten until a commit names a position beyond it, and nothing written is final before the commit that
follows it: after a crash a backend offers everything since the last durable commit again, and what had been written
since then is undone (transaction aborted, output cut back), so that a deterministic consumer publishes the same bytes
exactly once.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np


class Partition(NamedTuple):
    """One ordered log of one input stream."""

    stream: str
    number: int


class Record(NamedTuple):
    """One record as it came. `timestamp` is the broker's, in ms since the epoch, or None where there is no broker.

    Backends may hand out any object with these five attributes (kafka-python's `ConsumerRecord` has them).
    """

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


class LongLine(Record):
    """The beginning of a line that is longer than a backend takes. It stands in a batch of its own."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Assigned:
    """The partition is ours from here on, and its next batch begins at `position`.

    `state` is what the last durable commit stored for it, or None. Where that state is older than what was committed,
    `live_from` is the committed position: the records from `position` up to it are there to bring the state up to date
    and lead to no output; no batch reaches across it. `seconds` is how long reading the state took.
    """

    partition: Partition
    position: int
    state: bytes | memoryview | None = None
    live_from: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition.

    `next_offset` is the position to commit once every record of the batch is dealt with. A batch may have no records:
    then what lies before `next_offset` holds none, such as blank lines, or there is more to look at before the next one
    comes. `header` is the first line of a CSV file, None for JSON records. `row` counts the data rows of the file
    before the first record.
    """

    partition: Partition
    records: Sequence[Record]
    next_offset: int
    header: bytes | None = None
    row: int = 0


@dataclass(frozen=True, slots=True)
class Revoked:
    """The partition is no longer ours: drop its state, commit nothing for it."""

    partition: Partition


Event = Assigned | Batch | Revoked


class Message(NamedTuple):
    """One record to publish on an output stream. `null`: a topic gets null in place of the (empty) value.

    `timestamp`: what a topic keeps as its time, ms since the epoch; None: when it is written.
    """

    stream: str
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    null: bool = False
    timestamp: int | None = None


Snapshot = Callable[[Partition], bytes]
"""Gives a partition's whole state as of its position."""

Deferred = Callable[[], Sequence[Message]]
"""Messages of the records up to the positions of a commit that are made when the commit is; gives them once."""


def nothing_deferred() -> Sequence[Message]:
    """No `Deferred` messages."""
    return ()


@runtime_checkable
class RollingSnapshot(Protocol):
    """A `Snapshot` that can also be stored piece by piece, for backends where each commit has to be small.

    A slice is always of the same sensors while they are known, so that a newer slice replaces an older one of its
    number. What a backend has collected it hands back as `pack_state(slices, journal)`.
    """

    def __call__(self, partition: Partition) -> bytes:
        """The whole state: `pack_state` of all slices. It needs no journal: what of it was not taken is dropped."""
        ...

    def pieces(self, partition: Partition) -> Iterator[bytes | memoryview]:
        """The same in pieces, each made when it is asked for: a large state is not there a second time."""
        ...

    def slices(self, partition: Partition) -> int:
        """How many slices the state has now."""
        ...

    def pack_slice(self, partition: Partition, number: int) -> bytes:
        """One slice as of the partition's position."""
        ...

    def renewed(self, partition: Partition) -> bool:
        """Whether slices stored so far must not be mixed with new ones: the next commit stores every one.

        Says so once; belongs to the next commit.
        """
        ...

    def journal(self, partition: Partition) -> Sequence[tuple[str, bytes | None]]:
        """Entries that changed since the last call, by key; None: gone. Belongs to the next commit."""
        ...


class _State(msgspec.Struct):
    slices: list[memoryview]  # of what was unpacked: a large state is not copied
    journal: dict[str, bytes]


def pack_state(slices: Sequence[bytes | memoryview], journal: Mapping[str, bytes]) -> bytes:
    """Slices, possibly of different positions, and journal entries as one value."""
    return joined(state_pieces(slices, len(slices), journal))


def state_pieces(
    slices: Iterable[bytes | memoryview], count: int, journal: Mapping[str, bytes]
) -> Iterator[bytes | memoryview]:
    """The same of `count` slices, piece by piece: they are taken one after the other, and none of them is kept."""
    encode = msgspec.msgpack.encode
    yield b"\x82" + encode("slices") + _array_head(count)
    for one in slices:
        yield _bytes_head(len(one))
        yield one
    yield encode("journal") + encode(dict(journal))


def joined(pieces: Iterable[bytes | memoryview]) -> bytes:
    """A state in one piece, of which there is one copy at a time."""
    out = io.BytesIO()
    for piece in pieces:
        out.write(piece)
    return out.getvalue()


def _array_head(count: int) -> bytes:
    """What MessagePack puts in front of an array."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


def _bytes_head(length: int) -> bytes:
    """The same in front of bytes."""
    for mark, size in (b"\xc4", 1), (b"\xc5", 2):
        if length < 1 << 8 * size:
            return mark + length.to_bytes(size, "big")
    return b"\xc6" + length.to_bytes(4, "big")


def unpack_state(data: bytes | memoryview) -> tuple[list[memoryview], dict[str, bytes]]:
    """The slices, which are views of the data, and the journal of a packed state. Raises ValueError if it is none.

    >>> slices, journal = unpack_state(pack_state([b"one", b"two"], {"a": b"entry"}))
    >>> bytes(slices[1]), journal
    (b'two', {'a': b'entry'})
    """
    state = msgspec.msgpack.decode(data, type=_State)
    return state.slices, state.journal


def let_go(part: bytes | memoryview) -> None:
    """Part of a state was taken up: where it lies in a file, its pages need not be in memory any longer."""
    if isinstance(part, memoryview) and isinstance(whole := part.obj, mmap.mmap):
        begin = np.frombuffer(part, np.uint8).ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
        first, last = -(-begin // mmap.PAGESIZE), (begin + len(part)) // mmap.PAGESIZE
        if last > first:
            whole.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


class Streams(Protocol):
    """A transport. Methods are called from one thread; only `poll` and `commit` may wait."""

    def open(self) -> None:
        """Connect, lock, restore the last checkpoint. Raises `UserError` or `OperationError`."""

    def poll(self, timeout: float) -> Sequence[Event]:
        """Return what happened, waiting up to `timeout` seconds for something to happen.

        Batches of all partitions together hold at most the backend's limit of records. An `Assigned` precedes the
        first batch of its partition. The backend keeps what it handed out until a commit goes beyond it, so commit
        before polling on. Raises `OperationError`.
        """

    def write(self, messages: Sequence[Message]) -> None:
        """Append to the output streams, in order. Part of the next commit."""

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        """Make everything written since the last commit final, together with `positions`.

        A position is the `next_offset` of a batch or the offset of one of its records; it never goes back
        (`ValueError`). A partition that is not named stays where it was. A backend that is not due yet may only pass
        what was written on to readers; it returns whether this was a durable commit. `snapshot` gives a partition's
        state as of the last position named for it; the backend calls it for the partitions whose state it stores now.
        `final` forces a durable commit of everything, where there is one (not with standard input or output).
        `deferred` is asked when something is made durable or passed on, and what it gives is part of that, behind what
        was written; a backend that commits by itself later, up to these positions, asks it then, and tells
        of that commit when it is called with nothing left to do. Raises
        `OperationError`; the consumer stops then, and the next `open` starts from the last durable commit.
        """

    @property
    def settled(self) -> bool:
        """Whether what `commit` has called durable is so by now: a large state may take its time.

        If it comes to nothing, because the process ends before or the disk is full, then the next `open` starts from
        the durable commit before. Raises `OperationError` for the latter.
        """

    @property
    def repeatable(self) -> bool:
        """Whether what was handed out since the last durable commit can be handed out again; known from the start."""

    def roll_back(self) -> None:
        """Undo what was written since the last durable commit, and hand out what was read since then again.

        The next poll revokes each partition and assigns it again. Only where it is `repeatable`.
        """

    def at_end(self) -> bool:
        """Whether everything that was there when `open` was called has been handed out."""

    def lag(self) -> Mapping[Partition, int]:
        """Records (or bytes, where records are not counted) that are there and not handed out yet."""

    def close(self) -> None:
        """Release everything. What was not committed is undone at the next `open`, also of the same object.

        Never raises.
        """
