"""A partition's state in slices: packing them, and putting slices of different ages together again.

A slice holds the sensors of a range of slots, as of its *position*: records before it are contained. When slices of
different positions are read back, the records from the oldest one's position on are run again; a sensor takes part from
its own slice's position on (the column `known`), and what is run again leads to no output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detector.clock import PartitionClock
from detector.state import SensorTable, StateError

SLICE_SENSORS = 64
"""Sensors in a slice: 190 KB of them, once they have warmed up."""


class _Slice(msgspec.Struct):
    model: str
    position: int
    clock: int
    ahead: int
    begin: int
    ids: list[str | None]  # of the slots from `begin` on
    sensors: bytes


@dataclass(frozen=True, slots=True)
class Restored:
    """What slices said beside their sensors: the oldest one's position and clock, the models they were made with."""

    position: int
    clock: PartitionClock
    models: frozenset[str]


def slice_count(table: SensorTable) -> int:
    """Slices of the table now; at least one, so that the clock is kept."""
    return max(1, -(-len(table.ids) // SLICE_SENSORS))


def pack_slice(table: SensorTable, number: int, *, model: str, position: int, clock: PartitionClock) -> bytes:
    """One slice as of `position`."""
    begin = number * SLICE_SENSORS
    ids = table.ids[begin : begin + SLICE_SENSORS]
    slots = np.array([begin + i for i, sensor_id in enumerate(ids) if sensor_id is not None], dtype=np.intp)
    return msgspec.msgpack.encode(_Slice(model, position, clock.now, clock.ahead, begin, ids, table.pack(slots)))


def unpack_slices(table: SensorTable, slices: Sequence[bytes]) -> Restored:
    """Fill an empty table. Of a sensor in two slices (forgotten and met again) the newer one counts.

    Every sensor comes back to its slot: a slice that is stored from now on replaces the one of its number, and has to
    be of the same sensors. Raises StateError if the slices are none, or of another configuration.
    """
    try:
        found = [msgspec.msgpack.decode(data, type=_Slice) for data in slices]
    except msgspec.MsgspecError as error:
        raise StateError(f"the stored state cannot be read: {error}") from None
    if not found:
        raise StateError("the stored state is empty")
    found.sort(key=lambda one: one.position)
    _lay_out(table, found)
    for one in found:
        slots = table.unpack(one.sensors)
        table["known"][slots] = one.position
    oldest = found[0]
    models = frozenset(one.model for one in found)
    return Restored(oldest.position, PartitionClock(oldest.clock, oldest.ahead), models)


def _lay_out(table: SensorTable, slices: Sequence[_Slice]) -> None:
    """Give every sensor of the slices, ascending in age, the slot it had."""
    places: dict[str, int] = {}
    for one in slices:
        if one.begin % SLICE_SENSORS or len(one.ids) > SLICE_SENSORS:
            raise StateError("the stored state was written by a version that stores other slices")
        places |= {sensor_id: one.begin + i for i, sensor_id in enumerate(one.ids) if sensor_id is not None}
    sensors = {slot: sensor_id for sensor_id, slot in places.items()}
    free = []
    for slot in range(max(sensors, default=-1) + 1):
        # No sensor has an id with a NUL in front and a number behind: it holds a place that stays free.
        taken = table.add(sensors.get(slot, f"\0{slot}"))
        if slot not in sensors:
            free.append(taken)
    for slot in reversed(free):
        table.remove(slot)
