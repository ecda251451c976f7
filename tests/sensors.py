"""Sensors as the kernel has them, for tests of its rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from detector.detection.columns import cells_of, columns
from detector.detection.kernel.cells import Cells, rules_for
from detector.detection.sensor import Sensor, load


def cells_for(sensors: int, channels: int = 1, last_scores: int = 10, **cells: Any) -> Cells:
    """The records of sensors that are as empty as a new one, but for these `cells`, of all of them or (n, ...)."""
    declared = columns(channels, last_scores)
    records = np.zeros(sensors, dtype=cells_of(declared))
    for column in declared:
        if column.name in (records.dtype.names or ()):
            records[column.name] = column.empty
    for name, value in cells.items():
        records[name] = value
    return records


def sensor_of(
    channels: int = 1, *, open_after: tuple[int, int] = (10, 10), close_after: int = 100, **cells: Any
) -> Sensor:
    """One of them in plain numbers."""
    (sensor,) = load(cells_for(1, channels, open_after[1], **cells))
    sensor.take_rule(rules_for(1, open_after, close_after)[0])
    return sensor
