"""`detector notify` on a broker: what was delivered and committed is not told again, whoever goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import Cluster, dies_with_us
from tests.kafka.plant import Plant
from tests.kafka.test_faults import wait_until
from tests.notify.made import receiving, value


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka, 2)
    yield plant
    plant.close()


def started(plant: Plant, name: str, url: str, log: Path) -> subprocess.Popen[bytes]:
    settings = {
        "streams.backend": "kafka",
        "streams.kafka.bootstrap_servers": f"['{plant.cluster.address}']",
        "streams.kafka.group_id": plant.group,
        "streams.kafka.session_timeout": "6s",
        "streams.kafka.create_topics": "true",
        "notify.input": plant.input,
        "notify.http": '"127.0.0.1:0"',
        "notify.settle": "1s",
        "notify.targets": f"[{{name: ops, kind: webhook, url: '{url}'}}]",
        "output.dead_letters": plant.dead_letters,
        "log.format": "json",
    }
    options = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*dies_with_us(), sys.executable, "-m", "detector", "notify", *options],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"DETECTOR_INSTANCE": name},
        )  # fmt: skip


def test_another_process_goes_on_where_the_first_was_killed(plant: Plant, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with receiving() as receiver:
        processes = [started(plant, "one", receiver.url, log)]
        try:
            plant.append(0, [value("one"), b"{}"])
            plant.append(1, [value("two")])
            wait_until(lambda: len(receiver.heard) == 2, "both are told of")
            wait_until(lambda: len(plant.read(plant.dead_letters)) == 1, "what is no incident is a dead letter")
            processes[0].kill()
            receiver.behaviour = lambda _: 400
            plant.append(1, [value("two", "closed")])
            processes.append(started(plant, "two", receiver.url, log))
            wait_until(lambda: len(plant.read(plant.dead_letters)) == 2, "what is refused is a dead letter, too")
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert receiver.keys == ["one-0", "two-0", "two-2"] or receiver.keys == ["two-0", "one-0", "two-2"]
    dead = plant.read(plant.dead_letters)[-1]
    assert dead.value == value("two", "closed")
    assert dict(dead.headers)["detector.target"] == b"ops"
