"""What one uninterrupted run makes of the topic, and what the faulty one left in its outputs."""

from __future__ import annotations

from typing import NamedTuple

from kafka import TopicPartition

from detector.config.load import Config
from detector.engine.partition import PartitionPipeline
from detector.service.pipelines import (
    frame_pipeline_factory,
    load_frame_model,
    load_model,
    make_decoder,
    pipeline_factory,
)
from detector.streams.base import Partition
from detector.streams.kafka_reader import TopicReader


class Result(NamedTuple):
    """`alerts`: in the order of the topic. `dead`: (topic, partition, offset) of records in the dead letters.

    `verdicts`: what acknowledges them.
    `relearnt`: sensors that learnt their interval again, where that is known.
    """

    alerts: list[bytes]
    dead: list[tuple[str, int, int]]
    verdicts: list[bytes]
    relearnt: set[str]


def uninterrupted(config: Config) -> Result:
    """Run both inputs from their beginning to their end, partition by partition."""
    readings = pipeline_factory(config, load_model(config), make_decoder(config, sensor=None, interval=None, live=True))
    frames = frame_pipeline_factory(config, load_frame_model(config))
    result = Result([], [], [], set())
    for topic, make in ((config.readings.input, readings), (config.frames.input, frames)):
        pipelines: dict[Partition, PartitionPipeline] = {}
        with TopicReader(config.streams.kafka, topic) as reader:
            for batch in reader.read():
                pipeline = pipelines.setdefault(batch.partition, make(batch.partition))
                outputs = [pipeline.process(batch)]
                while pipeline.pending:
                    outputs.append(pipeline.advance())
                for output in outputs:
                    result.alerts.extend(message.value for message in output.alerts)
                    result.dead.extend(_origin(message.headers) for message in output.dead_letters)
                    result.verdicts.extend(message.value for message in output.verdicts)
                    result.relearnt.update(one.sensor_id for one in output.watch_changes if one.reason == "relearning")
    return result


def published(config: Config) -> Result:
    """What a subscriber that reads committed records sees in the outputs."""
    result = Result([], [], [], set())
    kafka = config.streams.kafka
    with TopicReader(kafka, config.output.alerts) as reader:
        result.alerts.extend(record.value or b"" for batch in reader.read() for record in batch.records)
    with TopicReader(kafka, config.output.dead_letters) as reader:
        result.dead.extend(_origin(record.headers) for batch in reader.read() for record in batch.records)
    if config.output.verdicts is not None:
        with TopicReader(kafka, config.output.verdicts) as reader:
            result.verdicts.extend(record.value or b"" for batch in reader.read() for record in batch.records)
    return result


def told_of(config: Config) -> list[bytes]:
    """What a subscriber that reads committed records sees of incidents."""
    with TopicReader(config.streams.kafka, config.incidents.output) as reader:
        return [record.value or b"" for batch in reader.read() for record in batch.records]


def ends_of(config: Config, topic: str) -> dict[TopicPartition, int]:
    """The offset behind the last record of each partition that has some.

    A partition may end with the mark of a transaction, which nobody commits to have read.
    """
    ends: dict[TopicPartition, int] = {}
    with TopicReader(config.streams.kafka, topic) as reader:
        for batch in reader.read():
            for record in batch.records:
                ends[TopicPartition(topic, batch.partition.number)] = record.offset + 1
    return ends


def _origin(headers: object) -> tuple[str, int, int]:
    found = dict(headers)  # type: ignore[call-overload]  # pairs, of our own or of the client
    return found["detector.topic"].decode(), int(found["detector.partition"]), int(found["detector.offset"])
