"""The journal of open episodes: one small entry a sensor, written together with what it tells subscribers."""

from __future__ import annotations

import msgspec

from detector.detection.table import Episode, Silence, StateError


class _Entry(msgspec.Struct):
    episode: Episode | None
    position: int
    silence: Silence | None = None


def pack_entry(episode: Episode | None, silence: Silence | None, position: int) -> bytes:
    """The open episodes of a sensor as of `position`."""
    return msgspec.msgpack.encode(_Entry(episode, position, silence))


def unpack_entry(data: bytes) -> tuple[Episode | None, Silence | None, int]:
    """What `pack_entry` packed. Raises StateError."""
    try:
        entry = msgspec.msgpack.decode(data, type=_Entry)
    except msgspec.MsgspecError as error:
        raise StateError(f"a journal entry cannot be read: {error}") from None
    return entry.episode, entry.silence, entry.position
