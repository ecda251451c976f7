"""`detector rekey` on a broker: two processes that are killed, and every record once under its new key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.kafka.broker import Cluster, dies_with_us
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_faults import wait_until

PARTITIONS = 3
ROUNDS = 5
EACH = 400
STAMP = int(time.time() * 1000) - 60_000
"""Older than the broker's own time, and young enough to be kept."""


def started(plant: Plant, target: str, name: str, log: Path, *more: str) -> subprocess.Popen[bytes]:
    settings = {
        "streams.backend": "kafka",
        "streams.kafka.bootstrap_servers": f"['{plant.cluster.address}']",
        "streams.kafka.group_id": plant.group,
        "streams.kafka.session_timeout": "6s",
        "streams.kafka.create_topics": "true",
        "output.dead_letters": plant.dead_letters,
        "http.listen": '"127.0.0.1:0"',
        "log.format": "json",
    }
    options = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
    words = ["rekey", "--key", "{machine}", "--from", plant.input, "--to", target, *more]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*dies_with_us(), sys.executable, "-m", "detector", *words, *options],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"DETECTOR_INSTANCE": name},
        )  # fmt: skip


def written(plant: Plant, numbers: range) -> None:
    for part in range(PARTITIONS):
        values: list[bytes | None] = [
            b"?" if number % 50 == 0 else json.dumps({"machine": f"m{number % 7}", "n": [part, number]}).encode()
            for number in numbers
        ]
        plant.append(part, values, timestamp_ms=STAMP, headers=[("trace", b"x")])


def copied(plant: Plant, target: str, enough: float) -> bool:
    """Whether the copy has more records than that, also those of transactions that are not through."""
    partitions = [TopicPartition(target, part) for part in range(PARTITIONS)]
    consumer = KafkaConsumer(bootstrap_servers=plant.cluster.address)
    try:
        return bool(sum(consumer.end_offsets(partitions).values()) > enough)
    finally:
        consumer.close()


def follows_again(log: Path, before: int) -> bool:
    return log.read_text().count("following") > before


@pytest.mark.slow
def test_every_record_is_copied_once_over_kills(kafka: Cluster, tmp_path: Path) -> None:
    plant = Plant(kafka, PARTITIONS)
    target = kafka.create_topic(kafka.unique("keyed"), PARTITIONS)
    logs = {name: tmp_path / name for name in ("one", "two")}
    processes = {name: started(plant, target, name, log) for name, log in logs.items()}
    random = np.random.default_rng(11)
    try:
        for number in range(ROUNDS):
            written(plant, range(number * EACH, (number + 1) * EACH))
            victim = str(random.choice(list(processes)))
            # Killed in the middle of the work, also of a transaction.
            enough = (number + random.uniform(0.1, 0.9)) * PARTITIONS * EACH
            wait_until(partial(copied, plant, target, enough), "the copy goes on")
            processes[victim].kill()
            processes[victim].wait()
            before = logs[victim].read_text().count("following")
            processes[victim] = started(plant, target, victim, logs[victim])
            wait_until(partial(follows_again, logs[victim], before), "it is back, and listens to signals")
        for process in processes.values():
            process.terminate()
        assert {process.wait(60) for process in processes.values()} == {0}
        assert started(plant, target, "last", tmp_path / "last", "--until-end").wait(2 * PATIENCE) == 0
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    copies: dict[int, list[Any]] = {part: plant.read(target, part) for part in range(PARTITIONS)}
    dead = plant.read(plant.dead_letters)
    plant.close()
    seen = Counter(tuple(json.loads(record.value)["n"]) for found in copies.values() for record in found)
    good = {(part, n) for part in range(PARTITIONS) for n in range(ROUNDS * EACH) if n % 50}
    assert seen.keys() == good
    assert set(seen.values()) == {1}
    assert len(dead) == PARTITIONS * ROUNDS * EACH // 50
    homes: dict[bytes, set[int]] = {}
    for part, found in copies.items():
        order: dict[tuple[bytes, int], int] = {}
        for record in found:
            message = json.loads(record.value)
            assert (record.key, record.timestamp) == (message["machine"].encode(), STAMP)
            assert list(record.headers) == [("trace", b"x")]
            homes.setdefault(record.key, set()).add(part)
            source, n = message["n"]
            assert n > order.get((record.key, source), -1), "what lay in one partition keeps its order"
            order[record.key, source] = n
    assert all(len(parts) == 1 for parts in homes.values()), "a machine lies in one partition"


def test_a_copy_ends_at_the_end_and_goes_on_there(kafka: Cluster, tmp_path: Path) -> None:
    plant = Plant(kafka, PARTITIONS)
    target = kafka.create_topic(kafka.unique("keyed"), 2)
    for end in (10, 20):
        written(plant, range(end - 9, end))
        process = started(plant, target, "one", tmp_path / "log", "--until-end")
        assert process.wait(2 * PATIENCE) == 0, (tmp_path / "log").read_text()
        copies = [*plant.read(target), *plant.read(target, 1)]
        assert len(copies) == PARTITIONS * 9 * (end // 10), (tmp_path / "log").read_text()
    plant.close()
