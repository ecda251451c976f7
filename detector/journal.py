"""The journal of open episodes: one small entry a sensor, written together with what it tells subscribers."""

from __future__ import annotations

import msgspec

from detector.state import Episode, StateError


class _Entry(msgspec.Struct):
    episode: Episode
    position: int


def pack_entry(episode: Episode, position: int) -> bytes:
    """An open episode as of `position`."""
    return msgspec.msgpack.encode(_Entry(episode, position))


def unpack_entry(data: bytes) -> tuple[Episode, int]:
    """What `pack_entry` packed. Raises StateError."""
    try:
        entry = msgspec.msgpack.decode(data, type=_Entry)
    except msgspec.MsgspecError as error:
        raise StateError(f"a journal entry cannot be read: {error}") from None
    return entry.episode, entry.position
