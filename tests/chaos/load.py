"""The plant under fire: sensors with faults, late, repeated, missing and broken readings, skewed over partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from detector.arrays import F64, I64

SENSORS = 200
PARTITIONS = 6
BATCHED_EVERY = 4
"""Every fourth sensor sends five readings a message."""
_BATCH = 5
_HEALTHY_TICKS = 400
_HASTY_EVERY, _HASTY_FROM = 10, 450
"""Every tenth sensor sends twice as often from a tick on, when it has warmed up, and learns its interval again."""
# A partition has to have more sensors than fit in one slice of its state.
_SHARES = (0.45, 0.75, 0.85, 0.92, 0.97, 1.0)


class Item(NamedTuple):
    """One record to send, with how many readings it has."""

    partition: int
    key: bytes
    value: bytes
    readings: int
    headers: Sequence[tuple[str, bytes]] = ()


def partition_of(sensor: int, sensors: int = SENSORS) -> int:
    """The partition a sensor lives on."""
    return next(number for number, share in enumerate(_SHARES) if sensor < share * sensors)


def name_of(sensor: int) -> str:
    """A sensor's id."""
    return f"unit-{sensor:03d}"


def values_without_faults(sensor: int, rows: int, seed: int) -> tuple[str, F64]:
    """A sensor's id and (rows, 1) of healthy values like those of the load."""
    noise = np.random.default_rng([seed, 1, sensor]).normal(size=rows)
    return name_of(sensor), (_wave(np.full(rows, sensor), np.arange(rows)) + noise)[:, None]


def items(seed: int, started: int, sensors: int = SENSORS) -> Iterator[Item]:
    """All records, without end: one reading a sensor for every second of event time from `started` (epoch s) on."""
    rng = np.random.default_rng([seed, 2])
    numbers = np.arange(sensors)
    period = rng.integers(500, 1500, sensors)
    length = rng.integers(20, 90, sensors)
    phase = rng.integers(0, 1500, sensors)
    held: dict[int, list[tuple[int, float]]] = {}
    tick = 0
    while True:
        where = (tick + phase) % period
        faulty = (where < length) & (tick > _HEALTHY_TICKS)
        values = _wave(numbers, np.full(sensors, tick)) + rng.normal(size=sensors)
        kind = (numbers + (tick + phase) // period) % 4
        values[faulty & (kind == 0)] += 12.0
        values[faulty & (kind == 1)] = 50.0
        values[faulty & (kind == 2)] += rng.normal(0, 8, int((faulty & (kind == 2)).sum()))
        silent = faulty & (kind == 3)
        odd = rng.random(sensors)
        for sensor in numbers[~silent].tolist():
            stamp = started + tick
            value = float(values[sensor])
            if sensor % BATCHED_EVERY == 0:
                rows = held.setdefault(sensor, [])
                rows.append((stamp, value))
                if len(rows) == _BATCH:
                    yield _batch(sensor, sensors, held.pop(sensor))
            else:
                yield from _single(sensor, sensors, stamp, value, odd[sensor])
                if sensor % _HASTY_EVERY == _HASTY_EVERY - 1 and tick >= _HASTY_FROM:
                    yield _reading(sensor, sensors, stamp + 0.5, f"{value + odd[sensor]:.4f}")
        tick += 1


def _wave(numbers: I64, ticks: I64) -> F64:
    result: F64 = 50 + numbers % 7 + 5 * np.sin(2 * np.pi * ticks / (40 + numbers % 60))
    return result


def _single(sensor: int, sensors: int, stamp: int, value: float, odd: float) -> Iterator[Item]:
    return oddly(partial(_reading, sensor, sensors), stamp, f"{value:.4f}", odd)


def oddly(make: Callable[[float, str], Item], stamp: float, value: str, odd: float) -> Iterator[Item]:
    """What `make` makes of a time and a value; seldom, by `odd` (0 to 1), it is cut off, null, repeated or late."""
    item = make(stamp, value)
    if odd < 0.0005:
        yield item._replace(value=item.value[:-3], readings=0)  # cut off
    elif odd < 0.003:
        yield make(stamp, "null")
    elif odd < 0.005:
        yield item
        yield item
    elif odd < 0.007:
        yield make(stamp - 60, value)
    else:
        yield item


def _reading(sensor: int, sensors: int, stamp: float, value: str) -> Item:
    name = name_of(sensor)
    body = f'{{"sensor_id":"{name}","timestamp":{stamp},"value":{value}}}'
    return Item(partition_of(sensor, sensors), name.encode(), body.encode(), 1)


def _batch(sensor: int, sensors: int, rows: list[tuple[int, float]]) -> Item:
    name = name_of(sensor)
    stamps = ",".join(str(stamp) for stamp, _ in rows)
    values = ",".join(f"{value:.4f}" for _, value in rows)
    body = f'{{"sensor_id":"{name}","timestamps":[{stamps}],"values":[{values}]}}'
    return Item(partition_of(sensor, sensors), name.encode(), body.encode(), len(rows))


class Load:
    """A thread that sends `items` at `rate` readings or frames a second, through broker outages, until it is stopped.

    What gets lost or doubled on the way to the topic does not matter: the topic is what the daemons are measured by.
    """

    def __init__(self, address: str, topic: str, rate: float, items: Iterator[Item]) -> None:
        self.readings = 0
        self._address = address
        self._topic = topic
        self._rate = rate
        self._items = items
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; returns when everything is sent or given up."""
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        producer: Any = None
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            try:
                if producer is None:
                    producer = KafkaProducer(bootstrap_servers=self._address, linger_ms=20, max_block_ms=5000)
                    began, sent = time.monotonic(), 0
                for item in self._items:
                    producer.send(self._topic, item.value, item.key, list(item.headers), item.partition)
                    sent += item.readings
                    self.readings += item.readings
                    ahead = sent / self._rate - (time.monotonic() - began)
                    if self._stop.is_set() or (ahead > 0.02 and self._stop.wait(ahead)):
                        break
                    if ahead < -1.0:  # the machine is busy: what was missed is not caught up with
                        began, sent = time.monotonic(), 0
            except KafkaError:
                close(producer)
                producer = None
                self._stop.wait(0.5)
        close(producer)


def close(producer: Any) -> None:
    """Close a producer, or a consumer, if there is one."""
    if producer is not None:
        try:
            producer.close(10)
        except KafkaError:
            producer = None  # what it could not send is not in the topic
