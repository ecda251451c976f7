"""One sensor id on two partitions is told once, and changes nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from detector.engine.readings import ReadingsPipeline
from detector.service.twins import DuplicateSensors
from detector.streams.base import Batch, Partition, Record
from tests.plant import SECOND, START, model_of, pipeline_of, readings_config

ONE, TWO, ELSEWHERE = Partition("plant", 0), Partition("plant", 1), Partition("other", 0)


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


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.msg == "sensor_on_two_partitions"]


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
    assert not told(caplog)
    meet(pipelines, twins, ONE, "pump-9", "pump-2", "pump-1")
    meet(pipelines, twins, TWO, "pump-9")
    (fields,) = told(caplog)
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
    assert not told(caplog)
    DuplicateSensors().met(pipelines, TWO, pipelines[TWO].sensor_ids)
    assert [fields["sensor_id"] for fields in told(caplog)] == ["pump-1"]
    assert SECOND  # the unit of START
