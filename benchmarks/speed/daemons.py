"""The daemon on the benchmark's topics: how fast its group's committed offsets move."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from benchmarks.speed.machine import spent
from benchmarks.speed.topics import PARTITIONS, Filled
from tests.kafka.broker import Cluster, dies_with_us

START_SECONDS = 60.0
LEAST_SECONDS = 3.0
"""Progress is seen by commits, every 100 ms, and looked at every 200 ms: over less time a rate means nothing."""
_LOOK_SECONDS = 0.2


class TooShortError(Exception):
    """The topic was read to its end before there was a rate to speak of."""


class Speed(NamedTuple):
    """Readings a second, and microseconds of processor time a reading, those of all processes together."""

    rate: float
    cpu: float


class Group:
    """`count` daemons of one new group on a topic; everything is started when the block is entered."""

    def __init__(self, kafka: Cluster, model: Path, topic: str, directory: Path, **settings: str) -> None:
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self.alerts = kafka.create_topic(f"{self.name}-alerts", 2)
        self._kafka = kafka
        self._topic = topic
        self._directory = directory
        dead = kafka.create_topic(f"{self.name}-dead", 1)
        self._settings = {
            "streams.backend": "kafka",
            "streams.kafka.bootstrap_servers": f'["{kafka.address}"]',
            "streams.kafka.group_id": self.name,
            "streams.kafka.create_topics": "true",
            "readings.input": topic,
            "readings.model": str(model.resolve()),
            "output.alerts": self.alerts,
            "output.dead_letters": dead,
            "http.listen": "127.0.0.1:0",
            **{key.replace("__", "."): value for key, value in settings.items()},
        }

    @contextmanager
    def running(self, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Start the processes; they are stopped at the end."""
        options = [part for key, value in self._settings.items() for part in ("--set", f"{key}={value}")]
        config = self._directory / "empty.yaml"
        config.touch()
        processes = []
        try:
            for number in range(count):
                with (self._directory / f"{self.name}-{number}.log").open("wb") as log:
                    process = subprocess.Popen(
                        [
                            *dies_with_us(), sys.executable, "-m", "detector.cli.main", "run", "-c", str(config),
                            *options,
                        ],
                        stdout=log, stderr=log,
                        env={**os.environ, "DETECTOR_INSTANCE": f"{self.name}-{number}", "OMP_NUM_THREADS": "1"},
                    )  # fmt: skip
                processes.append(process)
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def speed(self, filled: Filled, count: int = 1, seconds: float = 12.0) -> Speed:
        """How fast they are from the first commit with all windows full to the end or until the time is over.

        Raises RuntimeError if that takes too long to begin, or a process ends, TooShortError if it was over at once.
        """
        with self.running(count) as processes, self._kafka.admin() as admin:
            partitions = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
            began: tuple[float, int, float] | None = None
            deadline = time.monotonic() + START_SECONDS
            while True:
                done = self._committed(admin, partitions)
                now = time.perf_counter()
                if began is None and done >= filled.filling:
                    began = now, done, sum(spent(process.pid) for process in processes)
                if began is not None and (done >= filled.messages or now - began[0] > seconds):
                    if now - began[0] < LEAST_SECONDS:
                        raise TooShortError(f"{now - began[0]:.1f} s")
                    readings = (done - began[1]) * filled.readings_per_message
                    worked = sum(spent(process.pid) for process in processes) - began[2]
                    return Speed(readings / (now - began[0]), 1e6 * worked / readings)
                if began is None and time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} did not get through the filling in {START_SECONDS:g} s")
                if any(process.poll() is not None for process in processes):
                    raise RuntimeError(f"a daemon ended: {self._last_words()}")
                time.sleep(_LOOK_SECONDS)

    def _committed(self, admin: KafkaAdminClient, partitions: Sequence[TopicPartition]) -> int:
        try:
            offsets = admin.list_group_offsets({self.name: list(partitions)})[self.name]
        except KafkaError:  # the first group of a broker has no coordinator for a moment
            return 0
        return sum(max(0, int(offset.offset)) for offset in offsets.values())

    def _last_words(self) -> str:
        lines = [
            log.read_text(errors="replace").splitlines()[-1:] for log in self._directory.glob(f"{self.name}-*.log")
        ]
        return "; ".join(line for last in lines for line in last)
