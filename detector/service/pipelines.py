"""What makes the pipelines of partitions, by stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detector.engine.partition import PartitionPipeline
from detector.engine.slices import Provenance
from detector.streams.base import Partition

MakePipeline = Callable[[Partition], PartitionPipeline]
MakeReplay = Callable[[Partition, Provenance], PartitionPipeline]


def by_stream(makers: Mapping[str, MakePipeline]) -> MakePipeline:
    """Makes the pipelines of several streams."""
    return lambda partition: makers[partition.stream](partition)


def replays_by_stream(makers: Mapping[str, MakeReplay]) -> MakeReplay:
    """Makes the pipelines of several streams that run records again."""
    return lambda partition, provenance: makers[partition.stream](partition, provenance)
