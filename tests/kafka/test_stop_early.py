"""`detector run` on Kafka is told to stop when it cannot commit: it does, with 0, and loses nothing."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from kafka import errors

from detector.errors import OperationError
from detector.streams.base import Batch, Message
from detector.streams.kafka.transactions import Transactions
from tests.kafka.broker import Cluster, free_ports
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_command import backtest, options_for, published, started
from tests.kafka.test_faults import committed, until_assigned, wait_until
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


@pytest.mark.parametrize("until_end", [False, True])
def test_while_the_group_goes_on_without_it(plant: Plant, until_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where all members are stopped at once: each that leaves changes the group, and the others do what it held.

    Who was to read all there is has not done so.
    """

    def left_behind(*_: object) -> None:
        raise errors.CommitFailedError("metadata mismatch: IllegalGenerationError")

    plant.append(0, [b"{}"])
    with contextlib.closing(plant.streams(options={"until_end": until_end})) as streams:
        streams.open()
        events = until_assigned(streams, 1)
        while not any(isinstance(event, Batch) for event in events):
            events += streams.poll(1.0)
        (batch,) = [event for event in events if isinstance(event, Batch)]
        monkeypatch.setattr(Transactions, "run", left_behind)
        streams.write([Message(plant.alerts, b"k", b"{}")])
        refused = pytest.raises(OperationError, match="the last commit failed") if until_end else nullcontext()
        with refused:
            assert not streams.commit({batch.partition: 1}, lambda _: b"state", final=True)
    assert plant.read(plant.alerts) == []
