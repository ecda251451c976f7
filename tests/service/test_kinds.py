"""Two kinds of partition in one daemon: what one of them still works on does not hold the other up."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from detector.engine.output import Output
from detector.engine.partition import PartitionPipeline
from detector.engine.readings import ReadingsPipeline
from detector.errors import OperationError
from detector.service.daemon import Clocks, Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.rejects import RejectGuard
from detector.streams.base import Batch, Message, Partition, Record
from detector.streams.memory import MemoryStreams
from detector.wire.alerts import Kind
from tests.engines import engine_making
from tests.plant import (
    PARTITION,
    healthy,
    model_of,
    per_readings,
    pipeline_of,
    play,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
)

FRAMES = Partition("image-frames", 0)
NOW = 1_000.0


class Slow(ReadingsPipeline):
    """Hands on one record a turn, beginning `delay` turns after it came; a record is published as it is."""

    kind: ClassVar[Kind] = "frames"

    def __init__(self, delay: int) -> None:
        super().__init__(
            FRAMES, readings_config(), model_of(), decoder=None, dead_letters="dead-letters", alerts="alerts"  # type: ignore[arg-type]
        )  # fmt: skip
        self._delay = delay
        self._waiting: list[tuple[Record, int]] = []
        self.most = 0

    def process(self, batch: Batch) -> Output:
        ends = [record.offset for record in batch.records[1:]] + [batch.next_offset]
        self._waiting += zip(batch.records, ends, strict=True)
        self.pending = True
        self.most = max(self.most, len(self._waiting))
        return Output("frames")

    def advance(self) -> Output:
        self._delay -= 1
        if self._delay >= 0:
            return Output("frames")
        record, self.position = self._waiting.pop(0)
        self.pending = bool(self._waiting)
        output = Output("frames", records=1)
        if record.value == b"bad":
            output.rejected, output.refused = {"malformed": 1}, [0]
        else:
            output.tally.accepted = 1
            output.alerts.append(Message("alerts", None, record.value or b""))
        return output


class Process:
    """A daemon over readings and slow frames."""

    def __init__(
        self, streams: MemoryStreams, frames: Slow, readings: ReadingsPipeline, stop: Callable[[], bool]
    ) -> None:
        self.streams = streams
        self.registry = CollectorRegistry()
        pipelines: dict[str, PartitionPipeline] = {PARTITION.stream: readings, FRAMES.stream: frames}
        self.daemon = Daemon(
            streams, engine_making(lambda partition: pipelines[partition.stream]), metrics=Metrics(self.registry),
            health=Health(), guard=RejectGuard(0.5, 1000), stop=stop, until_end=True, clocks=Clocks(wall=lambda: NOW),
        )  # fmt: skip

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture(scope="module")
def readings() -> list[Record]:
    values = healthy(np.random.default_rng(1), 700)
    values[250:330] += 12
    return records_of([[reading] for reading in readings_of("pump-0", values)])


@pytest.fixture
def pipeline() -> ReadingsPipeline:
    profile = profile_of(healthy(np.random.default_rng(0), 300), reconstructor())
    return pipeline_of(readings_config(false_alarms=per_readings(5000)), model_of({"pump-0": profile}))


def frames(count: int, value: bytes = b"frame-%d") -> list[Record]:
    return [Record(10 * i, None, value % i if b"%" in value else value) for i in range(count)]


def streams_of(readings: list[Record], images: list[Record], max_records: int = 100) -> MemoryStreams:
    return MemoryStreams({PARTITION.stream: [readings], FRAMES.stream: [images]}, max_records)


def of_kind(messages: list[Message], frame: bool) -> list[Message]:
    return [message for message in messages if message.value.startswith(b"frame-") == frame]


def test_readings_do_not_wait_for_frames_and_the_end_waits_for_both(
    readings: list[Record], pipeline: ReadingsPipeline
) -> None:
    turns = 0
    told: dict[int, int] = {}

    def stop() -> bool:
        nonlocal turns
        turns += 1
        told[turns] = len(of_kind(streams.read("alerts"), frame=False))
        return False

    streams = streams_of(readings, frames(5))
    process = Process(streams, Slow(delay=40), pipeline, stop)
    process.daemon.run()
    published = streams.read("alerts")
    assert [message.value for message in of_kind(published, frame=True)] == [b"frame-%d" % i for i in range(5)]
    fresh = pipeline_of(readings_config(false_alarms=per_readings(5000)), pipeline._model)  # noqa: SLF001
    assert of_kind(published, frame=False) == play(fresh, readings)
    assert told[40] == len(of_kind(published, frame=False)), "all of them before the first frame is ready"
    assert process.sample("detector_frames_total", outcome="accepted") == 5
    assert process.sample("detector_readings_total", outcome="accepted") == len(readings)


def test_what_is_pending_at_a_stop_is_offered_again(pipeline: ReadingsPipeline) -> None:
    streams = streams_of([], frames(6))
    left = iter(range(4))
    Process(streams, Slow(delay=1), pipeline, lambda: next(left, None) is None).daemon.run()
    first = streams.read("alerts")
    assert 0 < len(first) < 6
    Process(streams, Slow(delay=0), pipeline, lambda: False).daemon.run()
    assert [message.value for message in streams.read("alerts")] == [b"frame-%d" % i for i in range(6)]


def test_a_commit_is_no_later_for_records_that_it_does_not_cover(pipeline: ReadingsPipeline) -> None:
    """Three frames come at once and are handed on one a turn. Each turn has a durable commit."""
    stamped = [record._replace(timestamp=int(NOW - 5) * 1000) for record in frames(3)]
    streams = streams_of([], stamped)
    told: list[tuple[int, float | None]] = []

    def stop() -> bool:
        told.append((len(streams.read("alerts")), process.sample("detector_commit_latency_seconds_count")))
        return False

    process = Process(streams, Slow(delay=1), pipeline, stop)
    process.daemon.run()
    assert told == [(0, 0), (0, 0), (1, 0), (2, 0)], "before each turn: frames published, commits timed"
    assert process.sample("detector_commit_latency_seconds_count") == 1
    assert process.sample("detector_commit_latency_seconds_sum") == 5


def test_the_guard_judges_each_kind_by_itself(readings: list[Record], pipeline: ReadingsPipeline) -> None:
    streams = streams_of(readings, frames(120, b"bad"))
    with pytest.raises(OperationError, match="100 of the last 100 records") as stopped:
        Process(streams, Slow(delay=0), pipeline, lambda: False).daemon.run()
    assert "readings.fields" not in str(stopped.value)
