"""One sensor id on two partitions: to this program two sensors, to the person who reads the alerts mostly a mistake."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from detector.engine.partition import PartitionPipeline
from detector.service.logs import event
from detector.streams.base import Partition

_log = logging.getLogger(__name__)


class DuplicateSensors:
    """Tells the log once, when a sensor is met on a partition that is known on another one of this process."""

    def __init__(self) -> None:
        self._told = False

    def met(
        self, pipelines: Mapping[Partition, PartitionPipeline], partition: Partition, sensor_ids: Iterable[str]
    ) -> None:
        """These sensors have come up on one of the partitions: with records, or with its state."""
        if self._told or pipelines[partition].kind != "readings":
            return
        others = [one for place, one in pipelines.items() if place.stream == partition.stream and place != partition]
        if not others:
            return
        for sensor_id in sensor_ids:
            twin = next((other for other in others if other.knows(sensor_id)), None)
            if twin is not None:
                self._told = True
                event(
                    _log, logging.WARNING, "sensor_on_two_partitions", stream=partition.stream, sensor_id=sensor_id,
                    partitions=sorted((twin.partition.number, partition.number)),
                    text="they are two sensors, each with its own window; use the sensor id as the record key",
                )  # fmt: skip
                return
