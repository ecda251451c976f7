"""What the main loop tells: how far a restore is, and that a sensor is met on two partitions."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from detector.engine.readings import ReadingsPipeline
from detector.service.metrics import Metrics
from detector.service.observer import LATE_SECONDS, RESTORE_SECONDS, DuplicateSensors, LateInputs, RestoreProgress
from detector.streams.base import Batch, Partition, Record
from tests.plant import START, model_of, pipeline_of, readings_config

FIRST, SECOND = Partition("sensor-readings", 1), Partition("sensor-readings", 2)
ONE, TWO, ELSEWHERE = Partition("plant", 0), Partition("plant", 1), Partition("other", 0)


def told(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.msg == name]


# -- how far a restore is ------------------------------------------------------------------------------------------


class Restores:
    def __init__(self) -> None:
        self.now = 50.0
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def begin(self, partition: Partition, position: int, live_from: int) -> RestoreProgress:
        return RestoreProgress(partition, position, live_from, self.metrics, lambda: self.now)

    def share(self, partition: Partition) -> float | None:
        labels = {"stream": partition.stream, "partition": str(partition.number)}
        return self.registry.get_sample_value("detector_restore_progress_ratio", labels)


@pytest.fixture
def restores() -> Restores:
    return Restores()


def test_the_gauge_is_the_share_that_was_run_again(restores: Restores) -> None:
    progress = restores.begin(FIRST, 100, 300)
    restores.begin(SECOND, 0, 10)
    shares = [restores.share(FIRST)]
    for position in (150, 300):
        progress.reached(position)
        shares.append(restores.share(FIRST))
    assert shares == [0.0, 0.25, 1.0]
    assert restores.share(SECOND) == 0.0


def test_the_log_tells_it_now_and_then(restores: Restores, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = restores.begin(FIRST, 0, 1000)
    for position in range(0, 1000, 10):
        restores.now += RESTORE_SECONDS / 40
        progress.reached(position)
    assert [fields["percent"] for fields in told(caplog, "restore_progress")] == [39, 79]
    assert told(caplog, "restore_progress")[0] == {
        "stream": "sensor-readings", "partition": 1, "position": 390, "live_from": 1000, "percent": 39,
    }  # fmt: skip


# -- what comes late -----------------------------------------------------------------------------------------------


def test_late_readings_are_told_at_once_and_then_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 50.0
    late = LateInputs(lambda: now)
    late.met("readings", Counter())
    late.met("readings", Counter({"pump": 2}))
    for second in range(int(LATE_SECONDS)):
        now = 50.5 + second
        late.met("readings", Counter({"pump": 1, "valve": 2}))
    assert [fields["count"] for fields in told(caplog, "readings_late")] == [2]
    now = 50.0 + LATE_SECONDS
    late.tell()
    assert told(caplog, "readings_late")[1:] == [{"count": 180, "sensors": 2, "sensor_ids": ["valve", "pump"]}]
    late.tell(now=True)
    assert len(told(caplog, "readings_late")) == 2
    late.met("readings", Counter({f"pump-{number}": 1 + number for number in range(9)}))
    late.met("frames", Counter({"door": 1}))
    late.tell(now=True)
    assert told(caplog, "readings_late")[2:] == [
        {"count": 45, "sensors": 9, "sensor_ids": [f"pump-{number}" for number in (8, 7, 6, 5, 4)]}
    ]
    assert told(caplog, "frames_late") == [{"count": 1, "sensors": 1, "sensor_ids": ["door"]}]


# -- one sensor on two partitions ----------------------------------------------------------------------------------


@pytest.fixture
def pipelines() -> dict[Partition, ReadingsPipeline]:
    return {place: pipeline_of(readings_config(), model_of({})) for place in (ONE, TWO, ELSEWHERE)}


def meet(
    pipelines: dict[Partition, ReadingsPipeline], twins: DuplicateSensors, place: Partition, *sensors: str
) -> list[str]:
    """Readings of these sensors come on the partition."""
    pipeline = pipelines[place]
    pipeline.partition = place
    records = [
        Record(pipeline.position + i, None, b'{"sensor_id":"%s","timestamp":%d,"value":1}' % (name.encode(), START))
        for i, name in enumerate(sensors)
    ]
    output = pipeline.process(Batch(place, records, pipeline.position + len(records)))
    twins.met(pipelines, place, output.new_sensors)
    return output.new_sensors


def test_only_new_sensors_are_met(pipelines: dict[Partition, ReadingsPipeline]) -> None:
    twins = DuplicateSensors()
    assert meet(pipelines, twins, ONE, "pump-1", "pump-2", "pump-1") == ["pump-1", "pump-2"]
    assert meet(pipelines, twins, ONE, "pump-2", "pump-3") == ["pump-3"]


def test_a_twin_is_told_once(pipelines: dict[Partition, ReadingsPipeline], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    twins = DuplicateSensors()
    meet(pipelines, twins, TWO, "pump-1", "pump-2")
    meet(pipelines, twins, ELSEWHERE, "pump-1", "pump-7")
    meet(pipelines, twins, ONE, "pump-7", "pump-8")
    assert not told(caplog, "sensor_on_two_partitions")
    meet(pipelines, twins, ONE, "pump-9", "pump-2", "pump-1")
    meet(pipelines, twins, TWO, "pump-9")
    (fields,) = told(caplog, "sensor_on_two_partitions")
    assert {key: fields[key] for key in ("stream", "sensor_id", "partitions")} == {
        "stream": "plant", "sensor_id": "pump-2", "partitions": [0, 1],
    }  # fmt: skip
    assert "record key" in fields["text"]


def test_a_twin_in_restored_state_is_told(
    pipelines: dict[Partition, ReadingsPipeline], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for place in (ONE, TWO):
        meet({place: pipelines[place]}, DuplicateSensors(), place, "pump-1")
    assert not told(caplog, "sensor_on_two_partitions")
    DuplicateSensors().met(pipelines, TWO, pipelines[TWO].sensor_ids)
    assert [fields["sensor_id"] for fields in told(caplog, "sensor_on_two_partitions")] == ["pump-1"]
