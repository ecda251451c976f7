"""From the moment a reading is produced to the moment its alert is visible to a subscriber that reads committed."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.speed.daemons import Group
from benchmarks.speed.models import DEVIATION, MEAN
from benchmarks.speed.topics import PARTITIONS, SENSORS, WINDOW, batched, name_of, single

RATE = 5000
SECONDS = 24.0
_READY_SECONDS = 60.0
_FAULT = 30.0


class _Origin(msgspec.Struct):
    partition: int
    opened_offset: int
    last_offset: int


class _Alert(msgspec.Struct):
    event: str
    source: _Origin


def latencies(group: Group, address: str, topic: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds, one for each `opened` alert, at 5 000 readings a second; every sensor has a fault of its own time."""
    sent: dict[tuple[int, int], float] = {}
    seen: list[tuple[float, _Alert]] = []
    done = threading.Event()
    with group.running():
        watcher = threading.Thread(target=_watch, args=(address, group.alerts, seen, done), daemon=True)
        watcher.start()
        producer = KafkaProducer(bootstrap_servers=address, linger_ms=0)
        try:
            rng = np.random.default_rng(1)
            for sensor, values in enumerate(rng.normal(MEAN, DEVIATION, (SENSORS, WINDOW)).tolist()):
                _send(producer, topic, sensor, batched(sensor, 0, values), {})
            producer.flush(30)
            time.sleep(8)  # the daemon starts and fills its windows
            _produce(producer, topic, rng, sent)
            producer.flush(10)
        finally:
            producer.close(10)
        time.sleep(1.5)
        done.set()
        watcher.join(10)
    found = []
    for at, alert in seen:
        produced = sent.get((alert.source.partition, alert.source.opened_offset))
        if alert.event == "opened" and produced is not None:
            found.append(at - produced)
    return np.array(found)


def _produce(producer: Any, topic: str, rng: np.random.Generator, sent: dict[tuple[int, int], float]) -> None:
    ticks = int(RATE * SECONDS / SENSORS)
    begin = time.perf_counter()
    number = 0
    for tick in range(ticks):
        values = rng.normal(MEAN, DEVIATION, SENSORS)
        values[(np.arange(SENSORS) % (ticks - 30) + 10) <= tick] += _FAULT
        for sensor, value in enumerate(values.tolist()):
            ahead = number / RATE - (time.perf_counter() - begin)
            if ahead > 0.002:
                time.sleep(ahead)
            _send(producer, topic, sensor, single(sensor, WINDOW + tick, value), sent)
            number += 1


def _send(producer: Any, topic: str, sensor: int, value: bytes, sent: dict[tuple[int, int], float]) -> None:
    at = time.time()

    def note(metadata: Any) -> None:
        sent[metadata.partition, metadata.offset] = at

    future = producer.send(topic, value, key=name_of(sensor).encode(), partition=sensor % PARTITIONS)
    future.add_callback(note)


def _watch(address: str, topic: str, seen: list[tuple[float, _Alert]], done: threading.Event) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=address, group_id=None, isolation_level="read_committed", fetch_max_wait_ms=20
    )
    consumer.assign([TopicPartition(topic, number) for number in range(2)])
    consumer.seek_to_beginning()
    decoder = msgspec.json.Decoder(_Alert)
    while not done.is_set():
        for records in consumer.poll(50).values():
            now = time.time()
            seen.extend((now, decoder.decode(record.value)) for record in records)
    consumer.close()
