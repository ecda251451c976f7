"""`detector run` on Kafka as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.cli.main import main
from tests.kafka.broker import Cluster, dies_with_us
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_faults import committed, wait_until
from tests.tiny import json_lines, tiny_bundle

LINES = json_lines().splitlines()


@pytest.fixture
def plant(kafka: Cluster, tmp_path: Path) -> Iterator[Plant]:
    tiny_bundle(tmp_path / "models")
    plant = Plant(kafka, 1)
    yield plant
    plant.close()


@pytest.fixture
def options(plant: Plant, tmp_path: Path) -> list[str]:
    return options_for(plant, tmp_path)


def options_for(plant: Plant, place: Path) -> list[str]:
    """What makes a process a member of the plant's group, with the models of `place`."""
    settings = {
        "streams.backend": "kafka",
        "streams.kafka.bootstrap_servers": f"['{plant.cluster.address}']",
        "streams.kafka.group_id": plant.group,
        "streams.kafka.static_membership": "true",  # whoever comes back need not wait for its own session to end
        "readings.input": plant.input,
        "readings.model": str(place / "models"),
        "output.alerts": plant.alerts,
        "output.dead_letters": plant.dead_letters,
        "output.verdicts": plant.verdicts,
        "http.listen": "127.0.0.1:0",
        "log.format": "json",
    }
    return [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]


def started(options: list[str], log: Path, *more: str) -> subprocess.Popen[bytes]:
    """The daemon, whose log goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [*dies_with_us(), sys.executable, "-m", "detector.cli.main", "run", *options, *more],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"DETECTOR_INSTANCE": "one"},
        )  # fmt: skip


def backtest(options: list[str], directory: Path) -> list[bytes]:
    """The alerts that a backtest of the topic finds."""
    assert main(["backtest", "--data", "kafka", "--out", str(directory), *options]) == 0
    return (directory / "alerts.jsonl").read_bytes().splitlines()


def published(plant: Plant) -> list[bytes]:
    return [record.value for record in plant.read(plant.alerts)]


def test_to_the_end_of_a_topic(plant: Plant, options: list[str], tmp_path: Path) -> None:
    plant.append(0, LINES)
    log = tmp_path / "log"
    assert started(options, log, "--until-end").wait(2 * PATIENCE) == 0, log.read_text()
    assert published(plant) == backtest(options, tmp_path / "backtest") != []


def test_killed_and_started_again(plant: Plant, options: list[str], tmp_path: Path) -> None:
    # The first part ends within the fault: an episode is open when the process dies.
    middle = 700
    plant.append(0, LINES[:middle])
    log = tmp_path / "log"
    process = started(options, log)
    try:
        wait_until(lambda: committed(plant).get(0) == middle, "the first part is done")
        for line in LINES[middle : middle + 100]:
            plant.append(0, [line])
    finally:
        process.kill()
        process.wait()
    plant.append(0, LINES[middle + 100 :])
    assert started(options, log, "--until-end").wait(2 * PATIENCE) == 0, log.read_text()
    assert '"restoring"' in log.read_text(), "records had to be run again"
    assert published(plant) == backtest(options, tmp_path / "backtest") != []
