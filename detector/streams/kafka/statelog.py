"""Records of the state topic: slices of a partition's state, or all of it in one, the journal, and the position.

A slice is compressed and cut into parts, each a record of its own; the parts of one writing follow one another in one
transaction. The position is the last record of each transaction. Compaction keeps the newest record of each key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
import zstandard

PART_BYTES: Final = 256_000
"""The most state in one record; with its envelope below 256 KB."""
WHOLE: Final = -1
"""In place of a slice's number: the state is stored as a whole."""
KEPT_FORMAT: Final = 1

_POSITION: Final = b"position"
_SLICE: Final = b"s:"
_JOURNAL: Final = b"j:"
_LEVEL: Final = 1  # of compression: fast; higher ones gain a few percent on floats


class _Part(msgspec.Struct, array_like=True):
    format: int
    position: int
    part: int
    parts: int
    data: bytes


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """The committed position of a partition as its state topic keeps it, with what it is a position in.

    `input`: the topic, `topic_id`: its id, "" where the broker gives none. `point`: the restore point as the metadata
    of the offset says it, but that it may begin to read some records earlier.
    """

    format: int
    input: str
    topic_id: str
    position: int
    point: str


def pack_kept(kept: Kept) -> tuple[bytes, bytes]:
    """Key and value of the record of a position."""
    return _POSITION, msgspec.msgpack.encode(kept)


def unpack_kept(key: bytes | None, value: bytes | None) -> Kept | None:
    """The position that a record says; None if it is another record, or of a release that writes it otherwise."""
    if key != _POSITION or value is None:
        return None
    try:
        kept = msgspec.msgpack.decode(value, type=Kept)
    except msgspec.MsgspecError:
        return None
    return kept if kept.format == KEPT_FORMAT else None


def slice_key(number: int, part: int, generation: int = 0) -> bytes:
    """The key of one part of a slice."""
    return _SLICE + (b"%d:%d:%d" % (number, part, generation) if generation else b"%d:%d" % (number, part))


def journal_key(entry: str) -> bytes:
    """The key of a journal entry."""
    return _JOURNAL + entry.encode("utf-8", "surrogatepass")


def pack_parts(number: int, position: int, data: bytes, generation: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each part of a slice as of `position`."""
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
    pieces = [packed[start : start + PART_BYTES] for start in range(0, len(packed), PART_BYTES)] or [b""]
    for part, piece in enumerate(pieces):
        yield slice_key(number, part, generation), msgspec.msgpack.encode(_Part(1, position, part, len(pieces), piece))


@dataclass(slots=True)
class StoredSlice:
    """A slice in the topic: the input position it is of, the offset of its first part, and its parts."""

    position: int
    offset: int
    parts: int
    pieces: list[bytes] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.pieces) == self.parts

    def data(self) -> bytes:
        """What was packed. Raises ValueError if it cannot be unpacked."""
        try:
            return zstandard.ZstdDecompressor().decompress(b"".join(self.pieces))
        except zstandard.ZstdError as error:
            raise ValueError(f"a stored slice cannot be read: {error}") from None


class StateReading:
    """What a partition of the state topic holds, taken in record by record, in order. `generation`: of its slices."""

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.slices: dict[int, StoredSlice] = {}
        self.journal: dict[str, bytes] = {}
        """The newest entries; b"" for one that is gone."""
        self.kept: Kept | None = None
        """The newest position."""
        self.size = 0

    def take(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """One record. Raises ValueError for one that is none of ours."""
        if key is None:
            return
        if key.startswith(_JOURNAL):
            self.journal[key[len(_JOURNAL) :].decode("utf-8", "surrogatepass")] = value or b""
        elif key.startswith(_SLICE):
            number, part, *generation = (int(text) for text in key[len(_SLICE) :].split(b":"))
            if (generation or [0]) == [self.generation]:
                self._take_part(offset, number, part, value)
        elif key == _POSITION:
            self.kept = unpack_kept(key, value)

    def _take_part(self, offset: int, number: int, part: int, value: bytes | None) -> None:
        if value is None:
            if part == 0:
                self.slices.pop(number, None)
            return
        found = msgspec.msgpack.decode(value, type=_Part)
        if part == 0:
            self.slices[number] = StoredSlice(found.position, offset, found.parts)
        stored = self.slices.get(number)
        # A later part without those before it is what compaction left of an older writing.
        if stored is None or len(stored.pieces) != part or found.position != stored.position:
            return
        stored.pieces.append(found.data)
        self.size += len(found.data)
