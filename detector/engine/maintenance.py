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
from detector.detection.block import Span
from detector.detection.table import SensorTable


@dataclass(frozen=True, slots=True)
class _Window:
    pattern: re.Pattern[str]
    start: int
    end: int


class Maintenance:
    """The windows of all sensors; times are ns.

    >>> night = MaintenanceConfig.model_validate(
    ...     {"match": "pump-*", "from": "2026-01-01T22:00:00Z", "to": "2026-01-02T02:00:00Z"})
    >>> windows = Maintenance([night])
    >>> list(windows.of("pump-1")), list(windows.of("fan-1"))
    ([0], [])
    """

    def __init__(self, windows: Sequence[MaintenanceConfig] = ()) -> None:
        self._windows = [_Window(re.compile(translate(one.match)), one.start, one.end) for one in windows]

    def rows(self, table: SensorTable, block: Span) -> Bools | None:
        """Which rows (N,) of a block lie in a window of their sensor; None: none."""
        times = block.times
        if not self._windows or not len(times):
            return None
        first, last = int(times.min()), int(times.max())
        inside = np.zeros(len(times), dtype=bool)
        for window in self._windows:
            if window.start <= last and first < window.end:
                names = (table.name(slot) for slot in block.slots.tolist())
                matching = np.fromiter((window.pattern.match(name) is not None for name in names), dtype=bool)
                inside |= matching[block.owner] & (times >= window.start) & (times < window.end)
        return inside if inside.any() else None

    def of(self, sensor_id: str) -> Iterator[int]:
        """The windows of a sensor, by their place in the configuration."""
        return (i for i, window in enumerate(self._windows) if window.pattern.match(sensor_id))

    def until(self, sensor_id: str, time: int) -> int:
        """When the maintenance of a sensor that is going on at `time` is over; `time`, if there is none."""
        own = sorted((self._windows[i].start, self._windows[i].end) for i in self.of(sensor_id))
        for start, end in own:
            if start <= time < end:
                time = end
        return time

    def without_sensors(self, sensor_ids: Collection[str]) -> list[int]:
        """The windows, by their place in the configuration, that are of none of these sensors."""
        return [i for i, window in enumerate(self._windows) if not any(map(window.pattern.match, sensor_ids))]
