"""What one uninterrupted run makes of the topic, and what the faulty one left in its outputs."""

from __future__ import annotations

from typing import NamedTuple

from detector.config import Config
from detector.pipeline import Pipeline
from detector.service.assemble import load_model, make_decoder, pipeline_factory
from detector.streams.base import Partition
from detector.streams.kafka_reader import TopicReader


class Result(NamedTuple):
    """`alerts`: in the order of the topic. `dead`: (partition, offset) of records in the dead letters."""

    alerts: list[bytes]
    dead: list[tuple[int, int]]


def uninterrupted(config: Config) -> Result:
    """Run the input from its beginning to its end, partition by partition."""
    make = pipeline_factory(config, load_model(config), make_decoder(config, sensor=None, interval=None, live=True))
    pipelines: dict[Partition, Pipeline] = {}
    result = Result([], [])
    with TopicReader(config.streams.kafka, config.readings.input) as reader:
        for batch in reader.read():
            if batch.partition not in pipelines:
                pipelines[batch.partition] = make(batch.partition)
            output = pipelines[batch.partition].process(batch)
            result.alerts.extend(message.value for message in output.alerts)
            result.dead.extend(_origin(message.headers) for message in output.dead_letters)
    return result


def published(config: Config) -> Result:
    """What a subscriber that reads committed records sees in the outputs."""
    result = Result([], [])
    kafka = config.streams.kafka
    with TopicReader(kafka, config.output.alerts) as reader:
        result.alerts.extend(record.value or b"" for batch in reader.read() for record in batch.records)
    with TopicReader(kafka, config.output.dead_letters) as reader:
        result.dead.extend(_origin(record.headers) for batch in reader.read() for record in batch.records)
    return result


def _origin(headers: object) -> tuple[int, int]:
    found = dict(headers)  # type: ignore[call-overload]  # pairs, of our own or of the client
    return int(found["detector.partition"]), int(found["detector.offset"])
