"""Tells the log which sensors cease to be watched and which are watched again, and at the end which are not.

A sensor that goes back and forth is told of once an hour of event time and reason; what holds after that hour is told
then. Sensors that warm up, which every new one does, are counted and listed, and not logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from detector.detection.watch import REASONS, Reason, WatchChange
from detector.engine.partition import PartitionPipeline
from detector.service.logs import event
from detector.streams.base import Partition

_log = logging.getLogger(__name__)

AGAIN: Final = 3600 * 10**9
"""Event time, ns, before the same is told of a sensor again."""
LISTED: Final = 20
"""This many sensors are named at the end of a run."""


class WatchLog:
    """What was told of one partition's sensors. Clocks are partition clocks, ns."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, Reason], int] = {}
        self._waiting: dict[str, Reason] = {}  # told of too recently, and not watched since
        self._next_look = 0

    def changed(self, changes: Iterable[WatchChange], clock: int) -> None:
        """Tell of changes, in their order, and of what waited long enough."""
        for sensor_id, reason, before in changes:
            if reason is None or reason == "warming":
                waited = self._waiting.pop(sensor_id, None)
                if reason is None and before not in (None, "warming") and waited is None:
                    event(_log, logging.INFO, "sensor_watched", sensor_id=sensor_id)
            else:
                self._unwatched(sensor_id, reason, clock)
        if clock >= self._next_look:
            for sensor_id, reason in list(self._waiting.items()):
                self._unwatched(sensor_id, reason, clock)
            self._told = {what: at for what, at in self._told.items() if clock - at < AGAIN}
            self._next_look = min(self._told.values(), default=clock) + AGAIN

    def _unwatched(self, sensor_id: str, reason: Reason, clock: int) -> None:
        if clock - self._told.get((sensor_id, reason), -AGAIN) < AGAIN:
            self._waiting[sensor_id] = reason
            return
        self._waiting.pop(sensor_id, None)
        self._told[sensor_id, reason] = clock
        event(_log, logging.WARNING, "sensor_unwatched", sensor_id=sensor_id, reason=reason)


def tell_unwatched(pipelines: Mapping[Partition, PartitionPipeline]) -> None:
    """At the end of the input: a line for each reason for which sensors are not watched."""
    named = [one for pipeline in pipelines.values() for one in pipeline.some_unwatched(LISTED)]
    for reason in REASONS:
        count = sum(pipeline.unwatched[reason] for pipeline in pipelines.values())
        if count:
            ids = [sensor_id for sensor_id, why in named if why == reason][:LISTED]
            event(_log, logging.WARNING, "unwatched_at_end", reason=reason, sensors=count, sensor_ids=ids)
