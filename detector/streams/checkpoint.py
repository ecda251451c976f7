"""The checkpoint of the directory backend: one file, replaced as a whole, checked when it is read.

Layout: a line with the format's name and version, the length of the table (4 bytes, little endian), the table
(MessagePack), the states one after the other, and the SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from detector.errors import UserError
from detector.streams.base import Partition
from detector.streams.files import failing_as, open_anew, refuse_link, size_of_regular, sync_directory, write_all
from detector.streams.lines import Start

_NAME: Final = b"detector checkpoint "
_VERSION: Final = b"1"
_LENGTH: Final = struct.Struct("<I")
_PIECE: Final = 1 << 20
LARGE: Final = 64 << 20
"""Bytes of a state from which on there is no second copy of it in memory."""


Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class PartitionCheckpoint:
    """How far one input was dealt with. `place` and `fingerprint` say which file that was."""

    place: str
    start: Start = field(default_factory=Start)
    fingerprint: bytes | None = None
    state: bytes | memoryview | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Positions and states of the inputs, and the bytes of each output (by stream) that are final.

    `endings` are digests of the last of those bytes, which tell the file they were written to from another.
    """

    partitions: Mapping[Partition, PartitionCheckpoint] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    endings: Mapping[str, bytes] = field(default_factory=dict)


NO_STATES: Final[Mapping[Partition, Iterable[Piece]]] = {}


class _Row(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    stream: str
    number: int
    place: str
    position: int
    row: int
    header: bytes | None
    fingerprint: bytes | None
    state_length: int | None
    within_line: bool = False


class _Table(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    partitions: list[_Row]
    outputs: dict[str, int]
    endings: dict[str, bytes] = {}


def _of_nine_bytes(number: int) -> Any:
    return msgspec.Raw(b"\xcf" + number.to_bytes(8, "big"))


class _DamagedError(Exception):
    pass


class CheckpointFile:
    """The checkpoint in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / "checkpoint"
        self._size = 0

    @property
    def large(self) -> bool:
        """Whether the last one that was read or written took so long that nobody should wait for the next one."""
        return self._size >= LARGE

    def load(self) -> Checkpoint | None:
        """Read it; None if there is none. Raises `UserError` if it is damaged or of another version."""
        refuse_link(self.path)
        if size_of_regular(self.path) is None:
            return None
        with failing_as("read the checkpoint", self.path), open(self.path, "rb") as file:
            try:
                self._size = os.fstat(file.fileno()).st_size
                return self._read(file, self._size)
            except (_DamagedError, ValueError, struct.error) as error:
                raise UserError(
                    "the checkpoint is damaged", where=str(self.path), todo="Start over with --fresh"
                ) from error

    def lengths(self) -> dict[str, int]:
        """The final bytes of each output; empty if there is no checkpoint. For processes that read these outputs.

        States are not read, so nothing is said of their digest. Raises `UserError` if it is damaged.
        """
        return self._table().outputs

    def places(self) -> dict[str, str]:
        """The place of each input, by stream; likewise."""
        return {row.stream: row.place for row in self._table().partitions}

    def _table(self) -> _Table:
        with failing_as("read the checkpoint", self.path):
            try:
                with open(self.path, "rb") as file:
                    if file.readline(64) != _NAME + _VERSION + b"\n":
                        raise _DamagedError
                    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                    return msgspec.msgpack.decode(file.read(length), type=_Table)
            except FileNotFoundError:
                return _Table([], {})
            except (_DamagedError, ValueError, struct.error) as error:
                raise UserError(
                    "the checkpoint is damaged", where=str(self.path), todo="Look after the process that writes it"
                ) from error

    def save(self, checkpoint: Checkpoint, states: Mapping[Partition, Iterable[Piece]] = NO_STATES) -> None:
        """Replace it, durably: after a crash at any moment there is the old one or the new one.

        `states`: of some partitions in pieces, in place of those in the checkpoint, each asked for when it is written.
        Raises `OperationError` (disk full, for one), and leaves the old one then.
        """
        temporary = self.path.with_name("checkpoint.tmp")
        with failing_as("write the checkpoint", self.path):
            try:
                fd = open_anew(temporary)
                try:
                    self._size = _write(fd, checkpoint, states)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                os.replace(temporary, self.path)
            except OSError:
                temporary.unlink(missing_ok=True)  # it may be what fills the disk
                raise
            sync_directory(self._directory)

    def _read(self, file: IO[bytes], size: int) -> Checkpoint:
        digest = hashlib.sha256()

        def piece(length: int) -> bytes:
            if not 0 <= length <= size - file.tell():
                raise _DamagedError
            data = file.read(length)
            if len(data) != length:
                raise _DamagedError
            digest.update(data)
            return data

        if piece(len(_NAME)) != _NAME:
            raise _DamagedError
        version = file.readline(16)
        digest.update(version)
        if version != _VERSION + b"\n":
            raise UserError(
                f"the checkpoint has format {version.decode('ascii', 'replace').strip()}, this detector knows format "
                f"{_VERSION.decode()}",
                where=str(self.path),
                todo="Run the version that wrote it, or start over with --fresh",
            )
        (length,) = _LENGTH.unpack(piece(_LENGTH.size))
        table = msgspec.msgpack.decode(piece(length), type=_Table)
        begin, lengths = file.tell(), [row.state_length for row in table.partitions]
        _digest_of(file, sum(length or 0 for length in lengths), digest)
        if file.read() != digest.digest():
            raise _DamagedError
        states = list(_states(file, begin, lengths))
        partitions = {
            Partition(row.stream, row.number): PartitionCheckpoint(
                row.place, Start(row.position, row.row, row.header, row.within_line), row.fingerprint, state
            )
            for row, state in zip(table.partitions, states, strict=True)
        }
        return Checkpoint(partitions, table.outputs, table.endings)


def _digest_of(file: IO[bytes], length: int, digest: hashlib._Hash) -> None:
    """Take the next bytes of a file into a digest. Raises _DamagedError where there are fewer."""
    room = memoryview(bytearray(_PIECE))
    while length:
        count = file.readinto(room[: min(length, _PIECE)])  # type: ignore[attr-defined]
        if not count:
            raise _DamagedError
        digest.update(room[:count])
        length -= count


def _states(file: IO[bytes], begin: int, lengths: Sequence[int | None]) -> Iterator[bytes | memoryview | None]:
    """The states that lie one after the other in a file. Of a large one no byte is in memory before it is looked at."""
    for length in lengths:
        if length is None:
            yield None
            continue
        if length >= LARGE:
            whole = mmap.mmap(file.fileno(), begin + length, access=mmap.ACCESS_READ)
            yield memoryview(whole)[begin:]
        else:
            file.seek(begin)
            yield file.read(length)
        begin += length


def _write(fd: int, checkpoint: Checkpoint, states: Mapping[Partition, Iterable[Piece]]) -> int:
    """Write a checkpoint into an empty file; its size. The lengths of the states are put in once these are written."""
    rows = [
        _Row(
            partition.stream,
            partition.number,
            entry.place,
            entry.start.position,
            entry.start.row,
            entry.start.header,
            entry.fingerprint,
            0 if partition in states or entry.state is not None else None,
            entry.start.within_line,
        )
        for partition, entry in checkpoint.partitions.items()
    ]
    outputs, endings = dict(checkpoint.outputs), dict(checkpoint.endings)
    head = _head(_Table(rows, outputs, endings))
    write_all(fd, head)
    for row, (partition, entry) in zip(rows, checkpoint.partitions.items(), strict=True):
        for piece in states.get(partition, () if entry.state is None else (entry.state,)):
            write_all(fd, piece)
            row.state_length = (row.state_length or 0) + len(piece)
    os.pwrite(fd, _head(_Table(rows, outputs, endings)), 0)
    digest = hashlib.sha256()
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        _digest_of(file, len(head) + sum(row.state_length or 0 for row in rows), digest)
    os.lseek(fd, 0, os.SEEK_END)
    write_all(fd, digest.digest())
    return os.lseek(fd, 0, os.SEEK_CUR)


def _head(table: _Table) -> bytes:
    """What stands before the states. A length takes nine bytes, whatever it is, so that it can be written later."""
    fixed = [
        row if row.state_length is None else msgspec.structs.replace(row, state_length=_of_nine_bytes(row.state_length))
        for row in table.partitions
    ]
    data = msgspec.msgpack.encode(msgspec.structs.replace(table, partitions=fixed))
    return _NAME + _VERSION + b"\n" + _LENGTH.pack(len(data)) + data
