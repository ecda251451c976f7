"""The daemon's loop around small pipelines in this process, on the topics of a `Plant`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from prometheus_client import CollectorRegistry

from detector.config.load import FieldsConfig, ReadingsConfig
from detector.detection.scorer import Model
from detector.engine import slices as snapshots
from detector.engine.readings import ReadingsPipeline
from detector.engine.scorestream import ScoreStream
from detector.service.daemon import Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.rejects import RejectGuard
from detector.streams.base import Batch, Partition, Record, Streams
from detector.wire.json_readings import ReadingDecoder
from tests.engines import engine_making
from tests.kafka.plant import Plant
from tests.plant import (
    healthy,
    message,
    model_of,
    per_readings,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
)

SENSORS = 7
ROWS = 420


class CrashError(Exception):
    """The process is gone."""


def config_of(channels: int = 1) -> ReadingsConfig:
    return readings_config(channels=channels, false_alarms=per_readings(5000), open_after=(3, 5), close_after=40)


def model_of_some(channels: int = 1) -> Model:
    """Knows the first three sensors of each partition from training."""
    reconstruct = reconstructor(channels)
    profile = profile_of(healthy(np.random.default_rng(0), 300, channels), reconstruct, open_after=(3, 5))
    return model_of({f"pump-{number}-{i}": profile for number in range(8) for i in range(3)}, channels=channels)


def values_of(number: int, *, sensors: int = SENSORS, rows: int = ROWS, channels: int = 1) -> list[bytes]:
    """Readings of one partition: the sensors in turn, each with faults at places of its own."""
    rng = np.random.default_rng(number)
    series = []
    for i in range(sensors):
        values = healthy(rng, rows, channels)
        for begin in range(30 + 17 * i, rows, 130):
            values[begin : begin + 25, -1] += 14
        series.append(readings_of(f"pump-{number}-{i}", values))
    return [message([reading]) for row in zip(*series, strict=True) for reading in row]


def reference(plant: Plant, inputs: Mapping[int, Sequence[bytes | None]], **pipeline: Any) -> dict[str, list[bytes]]:
    """The alerts of an uninterrupted run, by sensor. None in place of a value: that offset was passed over."""
    alerts: dict[str, list[bytes]] = {}
    for number, values in inputs.items():
        one = pipeline_for(plant, **pipeline)(Partition(plant.input, number))
        records = [Record(offset, b"k", value) for offset, value in enumerate(values) if value is not None]
        for sent in one.process(Batch(one.partition, records, len(values))).alerts:
            alerts.setdefault((sent.key or b"").decode(), []).append(sent.value)
    return alerts


def published(plant: Plant) -> dict[str, list[bytes]]:
    """The alerts that are final, by sensor, in order."""
    alerts: dict[str, list[bytes]] = {}
    for record in plant.read(plant.alerts):
        assert json.loads(record.value)["sensor_id"] == record.key.decode()
        alerts.setdefault(record.key.decode(), []).append(record.value)
    return alerts


Series = dict[bytes, list[tuple[Any, ...]]]
"""Scored rows by sensor: time, score, threshold, values, expected values."""


def scores_of(messages: Sequence[Any]) -> Series:
    """What records or messages of a stream of scores say, one after the other."""
    series: Series = {}
    for told in messages:
        said = json.loads(told.value)
        columns = [said["timestamps"], said["scores"], said["thresholds"]]
        for part in (said["values"], said["expected"]):
            columns += part.values() if isinstance(part, dict) else [part]
        series.setdefault(told.key, []).extend(zip(*columns, strict=True))
    return series


def scores_reference(
    plant: Plant, inputs: Mapping[int, Sequence[bytes]], *, config: ReadingsConfig | None = None, **pipeline: Any
) -> Series:
    """The scores of an uninterrupted run."""
    stream = ScoreStream("scores", (config or config_of()).channels)
    for number, values in inputs.items():
        one = pipeline_for(plant, keep_rows=True, config=config, **pipeline)(Partition(plant.input, number))
        records = [Record(offset, b"k", value) for offset, value in enumerate(values)]
        stream.add(one.partition, one.process(Batch(one.partition, records, len(values))).rows)
    return scores_of(stream.take())


def pipeline_for(
    plant: Plant, *, model: Model | None = None, config: ReadingsConfig | None = None, keep_rows: bool = False
) -> Callable[[Partition], ReadingsPipeline]:
    def make(partition: Partition) -> ReadingsPipeline:
        settings = config or config_of()
        decoder = ReadingDecoder(FieldsConfig(), settings.channels)
        return ReadingsPipeline(
            partition,
            settings,
            model or model_of_some(),
            decoder,
            dead_letters=plant.dead_letters,
            alerts=plant.alerts,
            keep_rows=keep_rows,
        )

    return make


class Worker:
    """One daemon. `stop` is asked before each turn and may raise to play a crash."""

    def __init__(
        self,
        plant: Plant,
        streams: Streams,
        stop: Callable[[], bool] = lambda: False,
        *,
        until_end: bool = True,
        scores: ScoreStream | None = None,
        **pipeline: Any,
    ) -> None:
        self.registry = CollectorRegistry()
        self.health = Health()
        self.daemon = Daemon(
            streams,
            engine_making(pipeline_for(plant, keep_rows=scores is not None, **pipeline)),
            metrics=Metrics(self.registry),
            health=self.health,
            guard=RejectGuard(0.5, 1000),
            stop=stop,
            until_end=until_end,
            scores=scores,
        )

    def run(self) -> None:
        self.daemon.run()

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def crash_after(turns: int) -> Callable[[], bool]:
    """A `stop` that raises before the turn after that many."""
    left = turns

    def stop() -> bool:
        nonlocal left
        if left == 0:
            raise CrashError
        left -= 1
        return False

    return stop


@contextmanager
def small_slices(sensors: int = 2) -> Iterator[None]:
    """State in slices of few sensors, so that few sensors make many slices."""
    with mock.patch.object(snapshots, "SLICE_SENSORS", sensors):
        yield
