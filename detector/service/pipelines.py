"""What makes the pipelines of partitions, by stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from detector.config.load import Config
from detector.engine.partition import PartitionPipeline
from detector.engine.slices import Provenance
from detector.service.web.status import Setup
from detector.streams.base import Partition

MakePipeline = Callable[[Partition], PartitionPipeline]
MakeReplay = Callable[[Partition, Provenance], PartitionPipeline]


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns records into results: a configuration, the models in use, and how pipelines are made of them.

    `make_replay` makes the pipeline that runs records again which were processed with another model or other settings;
    without it the configured ones count at once.
    """

    config: Config
    setup: Setup
    make_pipeline: MakePipeline
    make_replay: MakeReplay | None


def by_stream(makers: Mapping[str, MakePipeline]) -> MakePipeline:
    """Makes the pipelines of several streams."""
    return lambda partition: makers[partition.stream](partition)


def replays_by_stream(makers: Mapping[str, MakeReplay]) -> MakeReplay:
    """Makes the pipelines of several streams that run records again."""
    return lambda partition, provenance: makers[partition.stream](partition, provenance)
