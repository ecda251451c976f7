"""`detector run` on Kafka is told to stop before it has come to work: it does, with 0, and loses nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import Cluster, free_ports
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_command import backtest, options_for, published, started
from tests.kafka.test_faults import committed, wait_until
from tests.tiny import json_lines, tiny_bundle

ROWS = 8000
"""Of each sensor; running them again takes longer than being told to stop."""


@pytest.fixture
def plant(kafka: Cluster, tmp_path: Path) -> Iterator[Plant]:
    tiny_bundle(tmp_path / "models")
    plant = Plant(kafka, 1)
    yield plant
    plant.close()


def test_while_it_waits_for_the_broker(plant: Plant, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    log = tmp_path / "log"
    away = ["--set", f"streams.kafka.bootstrap_servers=['127.0.0.1:{nobody}']"]
    process = started([*options_for(plant, tmp_path), *away], log)
    wait_until(lambda: "waiting for the broker" in log.read_text(), "it waits")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, log.read_text()


def test_while_it_restores(plant: Plant, tmp_path: Path) -> None:
    options = options_for(plant, tmp_path)
    lines = json_lines(ROWS).splitlines()
    plant.append(0, lines[:-100])
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    process = started(options, first)
    wait_until(lambda: committed(plant).get(0) == len(lines) - 100, "the first part is done")
    process.kill()
    process.wait()
    process = started(options, second)
    wait_until(lambda: '"restoring"' in second.read_text(), "records are run again")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0, second.read_text()
    plant.append(0, lines[-100:])
    third = tmp_path / "third.log"
    assert started(options, third, "--until-end").wait(2 * PATIENCE) == 0, third.read_text()
    assert published(plant) == backtest(options, tmp_path / "backtest") != []
