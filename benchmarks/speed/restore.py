"""State on a real broker: how long a restore takes, what a stop writes, and whether commits feel the slices.

`python -m benchmarks.speed.restore`: one partition, 100 000 sensors.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from benchmarks.speed.gates import Gate, gate_table, kept
from benchmarks.speed.machine import Machine
from benchmarks.speed.models import DEVIATION, MEAN, ensure_models, model_for_everyone
from benchmarks.speed.topics import WINDOW, batched, single
from detector.config.load import Config
from detector.config.settings import StateConfig
from detector.config.streams import KafkaConfig
from detector.service.assemble import kafka_topics
from detector.service.daemon import Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.pipelines import Engine, make_decoder, pipeline_factory
from detector.service.rejects import RejectGuard
from detector.service.web.status import Setup
from detector.streams.base import Assigned, Deferred, Event, Message, Partition, Snapshot, nothing_deferred
from detector.streams.kafka.streams import KafkaStreams
from tests.kafka.broker import Broker, UnavailableError

RESTORE_SECONDS = 10.0
RATE = 2000
"""Readings a second while commits are timed, and of those that a restore runs again."""
BLOCK_SECONDS = 4.0
"""Slices are due in every other block of this many seconds: both halves have the same share of a busy machine."""
_NEVER = 10**18


class Watched:
    """Streams whose commits are timed."""

    def __init__(self, streams: KafkaStreams) -> None:
        self.streams = streams
        self.commits: list[tuple[float, float]] = []
        """When a durable one began, and how long it took; seconds."""
        self.final = 0.0
        self.assigned: Assigned | None = None
        self.assigned_at = 0.0

    def open(self) -> None:
        self.streams.open()

    def poll(self, timeout: float) -> Sequence[Event]:
        events = self.streams.poll(timeout)
        for event in events:
            if isinstance(event, Assigned):
                self.assigned, self.assigned_at = event, time.perf_counter()
        return events

    def write(self, messages: Sequence[Message]) -> None:
        self.streams.write(messages)

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        began = time.perf_counter()
        durable = self.streams.commit(positions, snapshot, final=final, deferred=deferred)
        if final:
            self.final = time.perf_counter() - began
        elif durable:
            self.commits.append((began, time.perf_counter() - began))
        return durable

    def at_end(self) -> bool:
        return self.streams.at_end()

    @property
    def settled(self) -> bool:
        return self.streams.settled

    @property
    def repeatable(self) -> bool:
        return self.streams.repeatable

    def roll_back(self) -> None:
        self.streams.roll_back()

    def lag(self) -> Mapping[Partition, int]:
        return self.streams.lag()

    def close(self) -> None:
        self.streams.close()


class CrashError(Exception):
    """The process is gone; nothing more is committed."""


class Plant:
    """One input of one partition, and daemons in this process that read it."""

    def __init__(self, broker: Broker, model: Path, sensors: int) -> None:
        self.sensors = sensors
        self._broker = broker
        self._model = model_for_everyone(model)
        self._tick = 0
        self.config = Config.model_validate(
            {"streams": {"kafka": {"bootstrap_servers": (broker.address,), "group_id": "bench", "instance": "one"}}}
        )
        state_topics, outputs = kafka_topics(self.config)
        for source, state in state_topics.items():
            broker.create_topic(source)
            broker.create_topic(state, 1, {"cleanup.policy": "compact"})
        for output in outputs:
            broker.create_topic(output)
        self._producer = KafkaProducer(bootstrap_servers=broker.address, linger_ms=20, batch_size=256 << 10)

    def fill(self) -> None:
        """A full window of every sensor."""
        rng = np.random.default_rng(0)
        for sensor in range(self.sensors):
            values = rng.normal(MEAN, DEVIATION, WINDOW).tolist()
            self._producer.send(self.config.readings.input, batched(sensor, 0, values))
        self._producer.flush(120)
        self._tick = WINDOW

    def send(self, seconds: float, done: threading.Event | None = None) -> None:
        """So many seconds' worth of single readings, sensor by sensor; paced if there is a `done` that ends it."""
        rng = np.random.default_rng(1)
        begin = time.perf_counter()
        for number in range(int(seconds * RATE)):
            if done is not None:
                ahead = number / RATE - (time.perf_counter() - begin)
                if done.wait(max(0.0, ahead)) if ahead > 0.002 else done.is_set():
                    break
            sensor, tick = number % self.sensors, self._tick + number // self.sensors
            value = float(rng.normal(MEAN, DEVIATION))
            self._producer.send(self.config.readings.input, single(sensor, tick, value))
        self._producer.flush(60)
        self._tick += int(seconds * RATE) // self.sensors + 1

    def streams(self, *, until_end: bool, interval: int = 60 * 10**9) -> Watched:
        """Streams as the daemon's."""
        state_topics, outputs = kafka_topics(self.config)
        kafka: KafkaConfig = self.config.streams.kafka
        state = StateConfig(snapshot_interval=interval)
        return Watched(KafkaStreams(kafka, state, state_topics=state_topics, outputs=outputs, until_end=until_end))

    def daemon(self, streams: Watched, stop: Callable[[], bool], *, until_end: bool) -> Daemon:
        """A daemon that reads them."""
        config = self.config
        decoder = make_decoder(config, sensor=None, interval=None, live=False)
        return Daemon(
            streams,
            Engine(config, Setup(), pipeline_factory(config, self._model, decoder), None),
            metrics=Metrics(CollectorRegistry()),
            health=Health(),
            guard=RejectGuard(1.0, 1000),
            stop=stop,
            until_end=until_end,
        )

    def close(self) -> None:
        self._producer.close(10)


class Restore:
    """A start that ends, as a crash would, when the state is what it was at the last commit. Times in seconds."""

    def __init__(self, plant: Plant) -> None:
        self._watched = plant.streams(until_end=False)
        self.total = 0.0
        self._began, cpu = time.perf_counter(), time.process_time()
        self._daemon = plant.daemon(self._watched, self._stop, until_end=False)
        with contextlib.suppress(CrashError):
            self._daemon.run()
        self.cpu = time.process_time() - cpu
        assigned = self._watched.assigned
        if assigned is None:
            raise RuntimeError("nothing was assigned")
        self.joining = self._watched.assigned_at - self._began - assigned.seconds
        self.reading = assigned.seconds
        self.state = len(assigned.state or b"")
        self.records = 0 if assigned.live_from is None else assigned.live_from - assigned.position
        self.rest = self.total - self.joining - self.reading

    def _stop(self) -> bool:
        # Asked before each turn: once there is a partition and it is not restoring, it is live.
        if self._watched.assigned is not None and not self._daemon.restoring:
            self.total = time.perf_counter() - self._began
            raise CrashError
        return False


def commits_with_and_without(plant: Plant, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds that commits took: where slices were due, and where none was."""
    watched = plant.streams(until_end=False)
    often = watched.streams._state  # noqa: SLF001  the only way to have both in one process
    never = often.model_copy(update={"snapshot_interval": _NEVER})
    done = threading.Event()
    sender = threading.Thread(target=plant.send, args=(seconds + 60, done))
    began: list[float] = []

    def stop() -> bool:
        now = time.perf_counter()
        if watched.assigned is not None and not daemon.restoring and not began:
            began.append(now)
            sender.start()
        if not began:
            return False
        odd = int((now - began[0]) / BLOCK_SECONDS) % 2
        watched.streams._state = never if odd else often  # noqa: SLF001
        if now - began[0] > seconds:
            raise CrashError  # what is not stored has to be run again
        return False

    daemon = plant.daemon(watched, stop, until_end=False)
    with contextlib.suppress(CrashError):
        daemon.run()
    done.set()
    sender.join()
    halves: tuple[list[float], list[float]] = ([], [])
    for at, took in watched.commits:
        if began and at > began[0]:
            halves[int((at - began[0]) / BLOCK_SECONDS) % 2].append(took)
    return halves


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a budget was missed."""
    args = _parser().parse_args(arguments)
    logging.getLogger("kafka").setLevel(logging.ERROR)
    console = Console(soft_wrap=True, highlight=False)
    began, machine = time.monotonic(), Machine()
    ensure_models(args.models, ("dense",))
    with tempfile.TemporaryDirectory(prefix="detector-bench-") as name:
        try:
            with Broker(Path(name) / "broker", lasting=True) as broker:
                gates = measure(Plant(broker, args.models / "dense", args.sensors), args, console)
        except UnavailableError as error:
            console.print(f"No Kafka broker: {error}.")
            return 1
    console.print(gate_table(gates, machine))
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if kept(gates, machine) else 1


def measure(plant: Plant, args: argparse.Namespace, console: Console) -> list[Gate]:
    """Fill, stop, restore, work, crash, restore."""
    plant.fill()
    first = plant.streams(until_end=True)
    plant.daemon(first, lambda: False, until_end=True).run()
    console.print(f"the last commit of {plant.sensors:,} sensors: {first.final:.1f} s")
    table = Table(title=f"{plant.sensors:,} sensors in one partition", title_justify="left", title_style="bold")
    for column in (
        "restore after",
        "s",
        "joining",
        "reading state",
        "unpacking, running again",
        "of all CPU",
        "MB",
        "records again",
    ):
        table.add_column(column, justify="left" if column == "restore after" else "right")
    planned = [Restore(plant) for _ in range(args.rounds)]
    halves = commits_with_and_without(plant, args.seconds)
    after_crash = [Restore(plant) for _ in range(args.rounds)]
    for what, found in (("a planned stop", planned), ("a crash", after_crash)):
        for one in found:
            table.add_row(
                what, f"{one.total:.1f}", f"{one.joining:.1f}", f"{one.reading:.1f}", f"{one.rest:.1f}",
                f"{one.cpu:.1f}",
                f"{one.state / 1e6:.0f}", f"{one.records:,}",
            )  # fmt: skip
    console.print(table)
    table = Table(title=f"commits at {RATE:,} readings/s", title_justify="left", title_style="bold")
    for column in ("slices", "commits", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "slices" else "right")
    quantiles = []
    for what, took in zip(("due", "none"), halves, strict=True):
        p50, p99 = (float(np.quantile(took, q)) * 1e3 if took else float("nan") for q in (0.5, 0.99))
        quantiles.append(p50)
        table.add_row(what, f"{len(took)}", f"{p50:.1f}", f"{p99:.1f}")
    console.print(table)
    console.print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")
    plant.close()
    best = min(one.total - one.joining for one in planned)
    return [Gate("restore after a planned stop, s without joining", best, RESTORE_SECONDS, at_most=True)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.restore", description=__doc__)
    parser.add_argument("--sensors", type=int, default=100_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="restores of each kind")
    parser.add_argument("--seconds", type=float, default=40.0, help="for which commits are timed")
    parser.add_argument(
        "--models", type=Path, default=Path("var/benchmarks/models"), metavar="DIR", help="trained once, then kept"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
