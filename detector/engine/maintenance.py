"""When which sensors are worked on: what is unusual there is published as muted, and teaches the detector nothing.

Event time decides. A window has its beginning and not its end, and windows that overlap are one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate

import numpy as np

from detector.arrays import Bools
from detector.config.load import MaintenanceConfig
from detector.detection.table import SensorTable
from detector.detection.windows import Span


@dataclass(frozen=True, slots=True)
class _Span:
    pattern: re.Pattern[str]
    start: int
    end: int


class Maintenance:
    """The windows of all sensors; times are ns."""

    def __init__(self, windows: Sequence[MaintenanceConfig] = ()) -> None:
        self._spans = [_Span(re.compile(translate(one.match)), one.start, one.end) for one in windows]

    def rows(self, table: SensorTable, block: Span) -> Bools | None:
        """Which rows (T, n) of a block lie in a window of their sensor; None: none."""
        if not self._spans:
            return None
        times = block.times[block.sensor, block.newest]
        first, last = int(times.min()), int(times.max())
        inside = np.zeros(len(times), dtype=bool)
        for span in self._spans:
            if span.start <= last and first < span.end:
                names = (table.name(slot) for slot in block.slots.tolist())
                matching = np.fromiter((span.pattern.match(name) is not None for name in names), dtype=bool)
                inside |= matching[block.sensor] & (times >= span.start) & (times < span.end)
        return block.by_tick(inside) if inside.any() else None

    def of(self, sensor_id: str) -> Iterator[int]:
        """The windows of a sensor, by their place in the configuration."""
        return (i for i, span in enumerate(self._spans) if span.pattern.match(sensor_id))

    def until(self, sensor_id: str, time: int) -> int:
        """When the maintenance of a sensor that is going on at `time` is over; `time`, if there is none."""
        own = sorted((self._spans[i].start, self._spans[i].end) for i in self.of(sensor_id))
        for start, end in own:
            if start <= time < end:
                time = end
        return time

    def without_sensors(self, sensor_ids: Collection[str]) -> list[int]:
        """The windows, by their place in the configuration, that are of none of these sensors."""
        return [i for i, span in enumerate(self._spans) if not any(map(span.pattern.match, sensor_ids))]
