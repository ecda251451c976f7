"""A crash, and a process with another model and other settings behind it: what was committed is run again as before."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import ReadingsConfig
from detector.detection.scorer import Model
from detector.engine.readings import ReadingsPipeline
from detector.engine.slices import Provenance
from detector.service.daemon import Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.rejects import RejectGuard
from detector.service.reload import Failed, Ready
from detector.service.web.status import ModelStatus, Setup
from detector.streams.base import Batch, Partition, Record
from tests.engines import engine_making
from tests.kafka.broker import Cluster
from tests.kafka.plant import Plant
from tests.kafka.test_faults import committed
from tests.kafka.worker import (
    CrashError,
    Worker,
    config_of,
    crash_after,
    model_of_some,
    pipeline_for,
    published,
    small_slices,
    values_of,
)
from tests.plant import healthy, model_of, per_readings, profile_of, readings_config, reconstructor


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka, 1)
    with small_slices():
        yield plant
    plant.close()


def new_model() -> Model:
    profile = profile_of(healthy(np.random.default_rng(9), 300), reconstructor(seed=5), open_after=(3, 5))
    model = model_of({f"pump-0-{i}": profile for i in range(2)}, seed=5)
    return dataclasses.replace(model, version="2", digest="sha256:2")


def new_config() -> ReadingsConfig:
    return readings_config(false_alarms=per_readings(900), open_after=(3, 5), close_after=15)


def successor(
    plant: Plant,
    streams: Any,
    stop: Callable[[], bool],
    formers: list[Provenance],
    make: Callable[[Partition], ReadingsPipeline] | None = None,
) -> Daemon:
    """A daemon with the new model and settings that notes what it had to run again as before."""

    def former(partition: Partition, provenance: Provenance) -> ReadingsPipeline:
        formers.append(provenance)
        config = ReadingsConfig.model_validate_json(provenance.settings)
        return pipeline_for(plant, model=model_of_some(), config=config)(partition)

    return Daemon(
        streams, engine_making(make or pipeline_for(plant, model=new_model(), config=new_config()), former),
        metrics=Metrics(CollectorRegistry()), health=Health(), guard=RejectGuard(0.5, 1000), stop=stop, until_end=True,
    )  # fmt: skip


def switched(plant: Plant, values: list[bytes], at: int) -> dict[str, list[bytes]]:
    """The alerts, by sensor, of a run that is stopped in good order at that offset, and goes on with what is new."""
    partition = Partition(plant.input, 0)
    old, new = pipeline_for(plant)(partition), pipeline_for(plant, model=new_model(), config=new_config())(partition)
    records = [Record(offset, b"k", value) for offset, value in enumerate(values)]
    sent = list(old.process(Batch(partition, records[:at], at)).alerts)
    new.restore(old.snapshot())
    sent += new.process(Batch(partition, records[at:], len(records))).alerts
    alerts: dict[str, list[bytes]] = {}
    for message in sent:
        alerts.setdefault((message.key or b"").decode(), []).append(message.value)
    return alerts


@pytest.mark.parametrize("interval", [2, 600], ids=["slices", "nothing but a journal"])
def test_what_is_new_counts_from_the_last_commit_on(plant: Plant, interval: int) -> None:
    rolling: dict[str, Any] = {"state": {"snapshot_interval": interval * 10**9}, "options": {"max_records": 200}}
    values = values_of(0)
    plant.append(0, values)
    with pytest.raises(CrashError):
        Worker(plant, plant.streams(**rolling), crash_after(14)).run()
    at = committed(plant)[0]
    assert 0 < at < len(values)
    formers: list[Provenance] = []
    with contextlib.suppress(CrashError):
        successor(plant, plant.streams(**rolling), crash_after(16), formers).run()
    assert formers == [pipeline_for(plant, config=config_of())(Partition(plant.input, 0)).provenance]
    successor(plant, plant.streams(**rolling), lambda: False, formers).run()
    assert published(plant) == switched(plant, values, at)


class Once:
    """Has something new ready from a turn on, and notes when it was taken."""

    def __init__(self, plant: Plant, turn: int) -> None:
        self._turns = turn
        make = pipeline_for(plant, model=new_model(), config=new_config())
        self._ready: Ready | None = Ready(engine_making(make, _no_former), (), "SIGHUP")
        self.taken_at: int | None = None
        self.turn = 0

    def take(self) -> Ready | Failed | None:
        self.turn += 1
        if self.turn < self._turns:
            return None
        ready, self._ready = self._ready, None
        return ready

    def taken(self, ready: Ready) -> None:
        self.taken_at = self.turn

    def refused(self, ready: Ready, why: str) -> None:
        raise AssertionError(why)


def _no_former(partition: Partition, provenance: Provenance) -> ReadingsPipeline:
    raise AssertionError(f"nothing of {partition} has to be run again")


def switch_and_die(plant: Plant, reloads: Once, later: int, **rolling: Any) -> None:
    """Run a daemon that dies this many turns after it has switched."""

    def stop() -> bool:
        if reloads.taken_at is not None and reloads.turn >= reloads.taken_at + later:
            raise CrashError
        return False

    setup = Setup(models={"readings": ModelStatus("readings", "1", "sha256:0")})
    old = Daemon(
        plant.streams(**rolling), engine_making(pipeline_for(plant), setup=setup),
        metrics=Metrics(CollectorRegistry()), health=Health(), guard=RejectGuard(0.5, 1000), stop=stop, until_end=True,
        reloads=reloads,
    )  # fmt: skip
    with pytest.raises(CrashError):
        old.run()


@pytest.mark.parametrize("later", [0, 3], ids=["right after", "some commits later"])
def test_a_kill_after_a_switch_comes_back_to_the_same_alerts(
    plant: Plant, later: int, caplog: pytest.LogCaptureFixture
) -> None:
    rolling: dict[str, Any] = {"state": {"snapshot_interval": 2 * 10**9}, "options": {"max_records": 200}}
    values = values_of(0)
    plant.append(0, values)
    reloads = Once(plant, 10)

    caplog.set_level("INFO")
    switch_and_die(plant, reloads, later, **rolling)
    at = switched_at(caplog)
    assert 0 < at <= committed(plant)[0] < len(values)
    successor(plant, plant.streams(**rolling), lambda: False, []).run()
    assert published(plant) == switched(plant, values, at)


def switched_at(caplog: pytest.LogCaptureFixture) -> int:
    (said,) = [getattr(one, "fields", {}) for one in caplog.records if one.getMessage() == "reloaded"]
    (at,) = said["positions"].values()
    return int(at)


def test_kills_while_sensors_learn_the_new_model(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    """One of three sensors it does not know keeps its profile until it was seen for long enough; others warm up."""
    rolling: dict[str, Any] = {"state": {"snapshot_interval": 2 * 10**9}, "options": {"max_records": 200}}
    values = values_of(0, rows=1000)
    plant.append(0, values)
    reloads = Once(plant, 4)
    seen: list[int] = []

    def watched(partition: Partition) -> ReadingsPipeline:
        pipeline = pipeline_for(plant, model=new_model(), config=new_config())(partition)

        def looking(batch: Batch, process: Any = pipeline.process) -> Any:
            seen.append(pipeline.relearning)
            return process(batch)

        pipeline.process = looking  # type: ignore[method-assign]
        return pipeline

    caplog.set_level("INFO")
    switch_and_die(plant, reloads, 3, **rolling)
    for turns in (12, 17, None):
        stops = (lambda: False) if turns is None else crash_after(turns)
        with contextlib.suppress(CrashError):
            successor(plant, plant.streams(**rolling), stops, [], watched).run()
    assert published(plant) == switched(plant, values, switched_at(caplog))
    assert seen[0] > 0
    assert seen[-1] == 0
