"""Machines whose tags come one by one, on a broker: a daemon that is killed publishes what a backtest finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import plant as readings
from tests.engine.test_machines import readings_of
from tests.kafka.broker import Cluster
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_command import backtest, options_for, published, started
from tests.kafka.test_faults import committed, wait_until
from tests.plant import NAMES
from tests.tiny import tiny_bundle

ROWS = 700


@pytest.fixture
def plant(kafka: Cluster, tmp_path: Path) -> Iterator[Plant]:
    tiny_bundle(tmp_path / "models", channels=NAMES[:2], sensors=("m0",))
    plant = Plant(kafka, 1)
    yield plant
    plant.close()


def test_a_daemon_that_is_killed_joins_the_same_rows(plant: Plant, tmp_path: Path) -> None:
    values = readings.healthy(np.random.default_rng(4), ROWS, 2)
    values[400:520, 1] += 9
    gone = np.random.default_rng(5).random(values.shape) < 0.05
    lines: list[bytes | None] = [json.dumps(one).encode() for (one,) in readings_of(values, gone=gone)]
    machine = {"id": "m0", "channels": {name: f"m0/{name}" for name in NAMES[:2]}}
    settings = {"readings.channels": NAMES[:2], "readings.machines": [machine], "readings.window.max_future": "3650d"}
    options = options_for(plant, tmp_path)
    options += [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    log = tmp_path / "log"
    # Each time it dies within the fault, and between the tags of a row.
    done = 0
    for end in (850, 903, 955):
        plant.append(0, lines[done:end])
        process = started(options, log)
        try:
            wait_until(lambda end=end: committed(plant).get(0) == end, "the part is done")  # type: ignore[misc]
        finally:
            process.kill()
            process.wait()
        done = end
    plant.append(0, lines[done:])
    assert started(options, log, "--until-end").wait(2 * PATIENCE) == 0, log.read_text()
    assert '"restoring"' in log.read_text(), "records had to be run again"
    found = published(plant)
    assert found == backtest(options, tmp_path / "backtest") != []
    assert {json.loads(alert)["sensor_id"] for alert in found} == {"m0"}
    assert "replay_mismatch" not in log.read_text()
