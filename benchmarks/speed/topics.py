"""What the topics of the benchmark hold: 1 000 sensors, full windows first, then what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from kafka import KafkaProducer

from benchmarks.speed.models import DEVIATION, MEAN

SENSORS = 1000
PARTITIONS = 2
WINDOW = 100
START = 1_790_000_000


class Filled(NamedTuple):
    """A topic: its messages and readings, those that only fill windows included."""

    name: str
    messages: int
    filling: int
    """Messages that come before every window is full."""
    readings_per_message: int

    @property
    def measured(self) -> int:
        """Readings behind the filling."""
        return (self.messages - self.filling) * self.readings_per_message


def name_of(sensor: int) -> str:
    """A sensor's id."""
    return f"sensor-{sensor}"


def single(sensor: int, tick: int, value: float) -> bytes:
    """A message with one reading."""
    return b'{"sensor_id":"sensor-%d","timestamp":%d,"value":%.3f}' % (sensor, START + tick, value)


def batched(sensor: int, tick: int, values: list[float]) -> bytes:
    """A message with the readings of one sensor from `tick` on."""
    stamps = b",".join(b"%d" % (START + tick + i) for i in range(len(values)))
    return b'{"sensor_id":"sensor-%d","timestamps":[%s],"values":[%s]}' % (
        sensor,
        stamps,
        b",".join(b"%.3f" % value for value in values),
    )


def fill_single(address: str, topic: str, ticks: int) -> Filled:
    """One reading a message: `ticks` readings of every sensor behind those that fill its window."""
    rng = np.random.default_rng(0)

    def messages() -> Iterator[tuple[int, bytes]]:
        for tick in range(WINDOW + ticks):
            for sensor, value in enumerate(rng.normal(MEAN, DEVIATION, SENSORS).tolist()):
                yield sensor, single(sensor, tick, value)

    return Filled(topic, _send(address, topic, messages()), WINDOW * SENSORS, 1)


def fill_batched(address: str, topic: str, rounds: int) -> Filled:
    """100 readings a message: `rounds` messages of every sensor behind the one that fills its window."""
    rng = np.random.default_rng(0)

    def messages() -> Iterator[tuple[int, bytes]]:
        for number in range(1 + rounds):
            for sensor, values in enumerate(rng.normal(MEAN, DEVIATION, (SENSORS, WINDOW)).tolist()):
                yield sensor, batched(sensor, number * WINDOW, values)

    return Filled(topic, _send(address, topic, messages()), SENSORS, WINDOW)


def _send(address: str, topic: str, messages: Iterator[tuple[int, bytes]]) -> int:
    producer = KafkaProducer(bootstrap_servers=address, linger_ms=50, batch_size=256 << 10, max_block_ms=60_000)
    count = 0
    try:
        for sensor, value in messages:
            producer.send(topic, value, key=name_of(sensor).encode(), partition=sensor % PARTITIONS)
            count += 1
        producer.flush(120)
    finally:
        producer.close(10)
    return count
