"""Restores from slices of different ages: what is published is what an uninterrupted run publishes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from detector.engine.scorestream import ScoreStream
from tests.kafka.broker import Cluster
from tests.kafka.plant import Plant
from tests.kafka.worker import (
    CrashError,
    Worker,
    config_of,
    crash_after,
    model_of_some,
    published,
    reference,
    scores_of,
    scores_reference,
    small_slices,
    values_of,
)

ROLLING: dict[str, Any] = {"state": {"snapshot_interval": 2 * 10**9}, "options": {"max_records": 200}}


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka)
    with small_slices():
        yield plant
    plant.close()


@pytest.mark.parametrize("turns", [7, 13])
def test_crashes_change_nothing(plant: Plant, turns: int) -> None:
    inputs = {number: values_of(number) for number in range(2)}
    for number, values in inputs.items():
        plant.append(number, values)
    crashes, replayed, mismatches = 0, 0, 0.0
    while True:
        worker = Worker(plant, plant.streams(**ROLLING), crash_after(turns + 3 * (crashes)))
        try:
            worker.run()
        except CrashError:
            crashes += 1
            replayed += worker.sample("detector_restore_seconds_count") > 0
            mismatches += worker.sample("detector_replay_mismatch_total")
            continue
        break
    assert crashes > 2
    assert replayed
    assert mismatches == 0
    assert published(plant) == reference(plant, inputs)


@pytest.mark.parametrize(("commit_interval", "channels"), [(1, 2), (10**8, 1)])
def test_every_row_of_the_scores_is_there_once(plant: Plant, commit_interval: int, channels: int) -> None:
    inputs = {number: values_of(number, rows=330, channels=channels) for number in range(2)}
    for number, values in inputs.items():
        plant.append(number, values)
    topic = plant.cluster.create_topic(plant.cluster.unique("scores"))
    config, model = config_of(channels), model_of_some(channels)
    crashes = 0
    while True:
        stop = crash_after(6 + 4 * crashes)
        streams = plant.streams(commit_interval=commit_interval, **ROLLING)
        worker = Worker(plant, streams, stop, scores=ScoreStream(topic, config.channels), config=config, model=model)
        try:
            worker.run()
        except CrashError:
            crashes += 1
            continue
        break
    assert crashes > 1
    assert scores_of(plant.read(topic)) == scores_reference(plant, inputs, config=config, model=model)
    assert published(plant) == reference(plant, inputs, config=config, model=model)


def test_a_planned_restart_replays_nothing(plant: Plant) -> None:
    values = values_of(0)
    plant.append(0, values[:1500])
    Worker(plant, plant.streams(**ROLLING)).run()
    plant.append(0, values[1500:])
    again = plant.streams(**ROLLING)
    with contextlib.closing(again):
        again.open()
        assigned: list[Any] = []
        while len(assigned) < 2:
            assigned += again.poll(1.0)
    first = next(event for event in assigned if event.partition.number == 0)
    assert first.position == 1500
    assert first.live_from is None
    Worker(plant, plant.streams(**ROLLING)).run()
    assert published(plant) == reference(plant, {0: values})
