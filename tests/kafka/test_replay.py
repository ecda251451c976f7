"""Restores from slices of different ages: what is published is what an uninterrupted run publishes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kafka.broker import Cluster
from tests.kafka.plant import Plant
from tests.kafka.worker import CrashError, Worker, crash_after, published, reference, small_slices, values_of

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
