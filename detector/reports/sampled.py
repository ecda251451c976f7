"""The readings of some sensors of a recording, in memory: named ones, or a sample that does not depend on the order."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64
from detector.streams.base import Batch
from detector.wire.readings import Decoder

MOST_READINGS: Final = 20_000_000
"""Kept of all sensors together."""
MOST_OF_ONE: Final = 200_000
"""Kept of one sensor, the newest."""
LEAST_OF_ONE: Final = 10_000
"""Kept of one sensor, however many there are."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The readings of one sensor, n of them in the order of time.

    `times` (n,): ns. `values` (n, C), NaN where missing; of a machine whose channels come one by one (n, 1), and
    `channels` (n,) says which each is of.
    """

    sensor_id: str
    times: I64
    values: F64
    channels: I64 | None = None

    def __len__(self) -> int:
        return len(self.times)

    def of_channel(self, channel: int) -> tuple[NDArray[np.intp], int]:
        """Which readings are about a channel, and in which column of `values` it is."""
        if self.channels is None:
            return np.arange(len(self)), channel
        return np.flatnonzero(self.channels == channel), 0


@dataclass(slots=True)
class Sampled:
    """`sensors`: those that were chosen, by id, in the order of their names. `known`: the ids of all that are watched.

    `records`, `refused`: how many came, and of how many something was rejected; `first_refusal` says why. `excluded`:
    readings of sensors that the configuration leaves out. `cut`: whether older readings were left out for their number.
    """

    sensors: dict[str, Recorded] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    records: int = 0
    refused: int = 0
    first_refusal: str = ""
    excluded: int = 0
    cut: bool = False

    def another(self, sensor_id: str) -> str | None:
        """The id of another sensor of the recording; None: there is none."""
        return min((name for name in self.known if name != sensor_id), default=None)


def sample(
    batches: Iterable[Batch],
    decoder: Decoder,
    watches: Callable[[str], bool],
    *,
    most: int | None,
    wanted: Callable[[str], bool] = lambda _: True,
) -> Sampled:
    """Decode a recording and keep the readings of at most `most` sensors that are `wanted` (None: all of them).

    Which ones follows from their names alone, as if drawn by lot.
    """
    out = Sampled()
    parts: dict[str, _Parts] = {}
    lots: list[tuple[int, str]] = []  # the highest lot first
    for batch in batches:
        readings = decoder.decode(batch)
        out.records += len(batch.records)
        out.refused += len(readings.rejects)
        if readings.rejects and not out.first_refusal:
            out.first_refusal = readings.rejects[0].message
        end = 0
        for run, (sensor_id, count) in enumerate(zip(readings.ids, readings.counts.tolist(), strict=True)):
            begin, end = end, end + count
            channel = None if readings.channels is None else int(readings.channels[run])
            if channel == -1 or not watches(sensor_id):
                out.excluded += count
                continue
            if sensor_id not in out.known:
                out.known.add(sensor_id)
                if wanted(sensor_id):
                    parts[sensor_id] = _Parts()
                    heapq.heappush(lots, (-zlib.crc32(sensor_id.encode()), sensor_id))
                    if most is not None and len(parts) > most:
                        del parts[heapq.heappop(lots)[1]]
            if (mine := parts.get(sensor_id)) is not None:
                mine.add(readings.times[begin:end], readings.values[begin:end], channel)
        limit = max(LEAST_OF_ONE, min(MOST_OF_ONE, MOST_READINGS // max(len(parts), 1)))
        for mine in parts.values():
            out.cut |= mine.cut(limit)
    out.sensors = {sensor_id: parts[sensor_id].joined(sensor_id) for sensor_id in sorted(parts)}
    return out


class _Parts:
    """The readings of one sensor as they come."""

    def __init__(self) -> None:
        self._times: list[I64] = []
        self._values: list[F64] = []
        self._channels: list[I64] = []
        self._count = 0

    def add(self, times: I64, values: F64, channel: int | None) -> None:
        self._times.append(times)
        self._values.append(values)
        if channel is not None:
            self._channels.append(np.full(len(times), channel))
        self._count += len(times)

    def cut(self, limit: int) -> bool:
        """Forget the oldest where there are twice as many as `limit`; whether any were."""
        if self._count <= 2 * limit:
            return False
        self._times, self._values = [np.concatenate(self._times)[-limit:]], [np.concatenate(self._values)[-limit:]]
        self._channels = [np.concatenate(self._channels)[-limit:]] if self._channels else []
        self._count = limit
        return True

    def joined(self, sensor_id: str) -> Recorded:
        times = np.concatenate(self._times)
        order = np.argsort(times, kind="stable")
        channels = np.concatenate(self._channels)[order] if self._channels else None
        return Recorded(sensor_id, times[order], np.ascontiguousarray(np.concatenate(self._values)[order]), channels)
