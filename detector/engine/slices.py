"""A partition's state in slices: packing them, and putting slices of different ages together again; journal entries.

A slice holds the sensors of a range of slots, as of its *position*: records before it are contained. When slices of
different positions are read back, the records from the oldest one's position on are run again; a sensor takes part from
its own slice's position on (the column `known`), and what is run again leads to no output. It is run with the model and
the settings it was run with before: every slice names its *provenance*.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from detector import zones
from detector.config.load import CalendarConfig, FramesConfig, MaintenanceConfig, ReadingsConfig
from detector.detection.opened import Episode, Silence
from detector.detection.table import SensorTable, StateError
from detector.engine.clock import Jumps, PartitionClock
from detector.streams.base import let_go, unpack_state

T = TypeVar("T")

SLICE_SENSORS = 64
"""Sensors in a slice: 190 KB of them, once they have warmed up. A table of larger ones has a limit of its own."""
TOGETHER = 64
"""Slices that are stored as one where the whole state is stored at once: fewer and larger pieces take less time."""

PROVENANCE_ENTRY = "\0basis"
"""The journal's entry that names the provenance while there are no slices; no sensor has an id with a NUL in front."""


LEFT_OUT_ENTRY = "\0internal"
"""The journal's entry of the records that could not be dealt with; see `pack_left_out`."""

JUMPS_ENTRY = "\0jumps"
"""The journal's entry of how the clock jumped; see `pack_jumps`."""

LOG_ENTRIES = "\0log "
"""The keys of the entries of what else a replay has to repeat: this, and the offset before which each ends."""

OLDEST_ENTRY = "\0oldest"
"""In a copy for another pipeline of this process: the position of the oldest slice that is stored, in digits."""


MEANT_BEFORE: Final[dict[str, dict[tuple[str, str], Any]]] = {
    "readings": {("sensors", "max"): 0, ("", "silence_after"): None, ("", "timezone"): None}
}
"""What releases did that had no such setting, by kind of path, then by section, or none, and key."""


class Provenance(NamedTuple):
    """What results rest on beside the records: a model, by its digest, and settings, as `settings_of` gives them."""

    model: str
    settings: bytes


class _Head(msgspec.Struct):
    model: str
    settings: bytes


class _Slice(msgspec.Struct):
    model: str
    settings: bytes
    position: int
    clock: int
    ahead: int
    begin: int
    ids: list[str | None]  # of the slots from `begin` on
    sensors: memoryview
    resumed: dict[int, int] = {}
    run: tuple[int, str | None, int, int, int] | None = None  # of the clock
    tells: bool = False  # whether the journal tells what a replay has to repeat


@dataclass(frozen=True, slots=True)
class Restored:
    """What slices said beside their sensors: the oldest one's position and clock, the provenance of all.

    `tells`: the journal has all that a replay from that position has to repeat.
    """

    position: int
    clock: PartitionClock
    provenance: Provenance
    tells: bool


class ReadingsProvenance(ReadingsConfig):
    """What `settings_of` keeps. `zone_data`: the release of the zone data that hours were read by; None: by UTC."""

    maintenance: tuple[MaintenanceConfig, ...] = ()
    calendar: tuple[CalendarConfig, ...] = ()
    zone_data: str | None = None


class FramesProvenance(FramesConfig):
    """What `frame_settings_of` keeps."""

    maintenance: tuple[MaintenanceConfig, ...] = ()


# Where the input and the model lie is another matter.
_ELSEWHERE = frozenset(("enabled", "input", "model", "maintenance", "calendar", "zone_data"))


def settings_of(
    config: ReadingsConfig,
    maintenance: Sequence[MaintenanceConfig] = (),
    calendar: Sequence[CalendarConfig] = (),
) -> bytes:
    """The settings that results depend on, as JSON from which `ReadingsProvenance` can be made again."""
    # An override rests on which of its keys were set.
    settings = config.model_dump(mode="json", exclude={*_ELSEWHERE, "overrides"})
    if not config.machines:  # so it was stored before there could be any
        del settings["machines"], settings["align"]
    settings["overrides"] = [one.model_dump(mode="json", exclude_unset=True) for one in config.overrides]
    if calendar:
        settings["calendar"] = [one.model_dump(mode="json", by_alias=True) for one in calendar]
    if {config.timezone, config.fields.time.zone} - {None, "UTC"}:
        settings["zone_data"] = zones.DATA
    return msgspec.json.encode(settings | _times_of(maintenance))


def as_meant(settings: bytes, kind: str = "readings") -> bytes:
    """Stored settings; where a key is one that an older release did not have, they say what that release did."""
    stored = msgspec.json.decode(settings)
    for (section, key), meant in MEANT_BEFORE.get(kind, {}).items():
        if isinstance(part := stored.get(section) if section else stored, dict):
            part.setdefault(key, meant)
    return msgspec.json.encode(stored)


def frame_settings_of(config: FramesConfig, maintenance: Sequence[MaintenanceConfig] = ()) -> bytes:
    """The settings that results on frames depend on, as JSON from which `FramesProvenance` can be made again."""
    return msgspec.json.encode(config.model_dump(mode="json", exclude=set(_ELSEWHERE)) | _times_of(maintenance))


def _times_of(maintenance: Sequence[MaintenanceConfig]) -> dict[str, Any]:
    """Nothing where there is none: so it was stored before there could be any."""
    windows = [one.model_dump(mode="json", by_alias=True) for one in maintenance]
    return {"maintenance": windows} if windows else {}


def provenance_of(data: bytes | memoryview) -> Provenance | None:
    """The provenance of a packed state; None if it does not say. Raises StateError if it is none."""
    try:
        slices, journal = unpack_state(data)
        heads: list[bytes | memoryview] = [*slices] or [journal[key] for key in (PROVENANCE_ENTRY,) if key in journal]
        found = [msgspec.msgpack.decode(head, type=_Head) for head in heads]
    except ValueError as error:
        raise StateError(f"the stored state cannot be read: {error}") from None
    return _common([Provenance(head.model, head.settings) for head in found]) if found else None


def pack_provenance(provenance: Provenance) -> bytes:
    """The value of the journal's entry `PROVENANCE_ENTRY`."""
    return msgspec.msgpack.encode(_Head(*provenance))


def pack_left_out(offsets: Collection[int]) -> bytes:
    """The value of the journal's entry `LEFT_OUT_ENTRY`: the offsets of records that count for nothing in a replay."""
    return msgspec.msgpack.encode(sorted(offsets))


def unpack_left_out(data: bytes) -> set[int]:
    """What `pack_left_out` packed. Raises StateError."""
    return set(decoded(data, list[int]))


def pack_jumps(jumps: Jumps) -> bytes:
    """The value of the journal's entry `JUMPS_ENTRY`: the jumps of the clock that a replay has to repeat."""
    return msgspec.msgpack.encode([(*place, jump) for place, jump in sorted(jumps.items())])


def unpack_jumps(data: bytes) -> Jumps:
    """What `pack_jumps` packed. Raises StateError."""
    return {(offset, reading): jump for offset, reading, jump in decoded(data, list[tuple[int, int, int]])}


def decoded(data: bytes | memoryview, form: type[T]) -> T:
    """A part of the stored state, which has this form. Raises StateError."""
    try:
        return msgspec.msgpack.decode(data, type=form)
    except msgspec.MsgspecError as error:
        raise StateError(f"the stored state cannot be read: {error}") from None


def _common(provenances: Sequence[Provenance]) -> Provenance:
    if len(set(provenances)) > 1:
        raise StateError("parts of the stored state were made with different models or settings")
    return provenances[0]


def _per_slice(table: SensorTable, together: int = 1) -> int:
    return together * min(SLICE_SENSORS, table.slice_limit)


def slice_count(table: SensorTable, together: int = 1) -> int:
    """Slices of the table now, or pieces that hold `together` each; at least one, so that the clock is kept."""
    return max(1, -(-len(table.ids) // _per_slice(table, together)))


def pack_slice(
    table: SensorTable,
    number: int,
    *,
    provenance: Provenance,
    position: int,
    clock: PartitionClock,
    together: int = 1,
) -> bytes:
    """One slice as of `position`, or a piece that holds `together` slices; `number` counts either."""
    begin = number * _per_slice(table, together)
    ids = table.ids[begin : begin + _per_slice(table, together)]
    slots = np.array([begin + i for i, sensor_id in enumerate(ids) if sensor_id is not None], dtype=np.intp)
    sensors = memoryview(table.pack(slots))
    return msgspec.msgpack.encode(
        _Slice(*provenance, position, clock.now, clock.ahead, begin, ids, sensors, table.resumed, clock.run, tells=True)
    )


def unpack_slices(table: SensorTable, slices: Sequence[bytes | memoryview]) -> Restored:
    """Fill an empty table. Of a sensor in two slices (forgotten and met again) the newer one counts.

    Every sensor comes back to its slot: a slice that is stored from now on replaces the one of its number, and has to
    be of the same sensors. Raises StateError if the slices are none, or of another configuration.
    """
    found = [decoded(data, _Slice) for data in slices]
    if not found:
        raise StateError("the stored state is empty")
    provenance = _common([Provenance(one.model, one.settings) for one in found])
    found.sort(key=lambda one: one.position)
    _lay_out(table, found)
    for one in found:
        slots = table.unpack(one.sensors)
        table["known"][slots] = one.position
        let_go(one.sensors)
    oldest = found[0]
    table.resumed = oldest.resumed
    clock = PartitionClock(oldest.clock, oldest.ahead).with_run(oldest.run)
    return Restored(oldest.position, clock, provenance, all(one.tells for one in found))


def _lay_out(table: SensorTable, slices: Sequence[_Slice]) -> None:
    """Give every sensor of the slices, ascending in age, the slot it had."""
    places: dict[str | None, int] = {}
    for one in slices:
        if one.begin % _per_slice(table) or len(one.ids) > _per_slice(table, TOGETHER):
            raise StateError("the stored state was written by a version that stores other slices")
        places.update(zip(one.ids, itertools.count(one.begin), strict=False))
    sensors = {slot: sensor_id for sensor_id, slot in places.items() if sensor_id is not None}
    slots = range(max(sensors, default=-1) + 1)
    free = [slot for slot in reversed(slots) if slot not in sensors] if len(sensors) < len(slots) else []
    # No sensor has an id with a NUL in front and a number behind: it holds a place that stays free.
    sensors |= {slot: f"\0{slot}" for slot in free}
    table.extend([*map(sensors.__getitem__, slots)])
    for slot in free:
        table.remove(slot)


class _Entry(msgspec.Struct):
    """One sensor in the journal of open episodes, written together with what it tells subscribers."""

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
