"""What the daemon is measured against, each in a process of its own; prints a JSON line.

`poll`, `decode`: the limits. `transactional`: exactly once, scoring nothing. `predict`, `onnx`: the loop most people
write.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from benchmarks.speed.topics import WINDOW

COMMIT_SECONDS = 0.1


class Reading(msgspec.Struct, gc=False):
    """Either form of a message."""

    sensor_id: str
    timestamp: int = 0
    value: float = 0.0
    timestamps: list[int] = []
    values: list[float] = []


class Meter:
    """Counts messages from `skip` on, until `limit` or the time is over."""

    def __init__(self, skip: int, limit: int, seconds: float) -> None:
        self.messages = 0
        self._skip, self._limit, self._seconds = skip, limit, seconds
        self._counted_from = 0
        self._start = self._end = time.perf_counter()
        self._spent_before = self._spent = time.process_time()

    def more(self, count: int) -> bool:
        """Whether to go on after `count` more messages."""
        self.messages += count
        now = time.perf_counter()
        if self.messages <= self._skip:
            self._start, self._counted_from, self._spent_before = now, self.messages, time.process_time()
            return True
        self._end, self._spent = now, time.process_time()
        return self.messages < self._limit and now - self._start < self._seconds

    def result(self) -> dict[str, float]:
        """Messages behind the skipped ones, and seconds and processor seconds (`cpu`) that they took."""
        return {
            "messages": self.messages - self._counted_from,
            "seconds": self._end - self._start,
            "cpu": self._spent - self._spent_before,
        }


def consumer_of(args: argparse.Namespace, group: str | None = None, **settings: Any) -> Any:
    """A consumer as fast as the client allows, at the beginning of the topic."""
    consumer = KafkaConsumer(
        bootstrap_servers=args.address,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=5000,
        max_partition_fetch_bytes=4 << 20,
        metrics_enabled=False,
        **settings,
    )
    if group is None:
        consumer.assign([TopicPartition(args.topic, number) for number in consumer.partitions_for_topic(args.topic)])
        consumer.seek_to_beginning()
    else:
        consumer.subscribe([args.topic])
    return consumer


def polled(consumer: Any) -> Iterator[list[Any]]:
    """Lists of records, for ever."""
    while True:
        yield [record for records in consumer.poll(500).values() for record in records]


def poll(args: argparse.Namespace, meter: Meter) -> None:
    """The limit: what the client hands out."""
    for records in polled(consumer_of(args)):
        if not meter.more(len(records)):
            return


def decode(args: argparse.Namespace, meter: Meter) -> None:
    """The limit with the bytes decoded, by the same decoder as in the product."""
    decoder = msgspec.json.Decoder(Reading)
    for records in polled(consumer_of(args)):
        for record in records:
            decoder.decode(record.value)
        if not meter.more(len(records)):
            return


def transactional(args: argparse.Namespace, meter: Meter) -> None:
    """Exactly once: one small record and the offsets in a transaction every 100 ms."""
    name = f"rival-{uuid.uuid4().hex[:8]}"
    consumer = consumer_of(args, name)
    producer = KafkaProducer(bootstrap_servers=args.address, transactional_id=name, retry_backoff_ms=20, acks="all")
    producer.init_transactions()
    committed, count = time.monotonic(), 0
    offsets: dict[TopicPartition, OffsetAndMetadata] = {}
    while True:
        for tp, records in consumer.poll(500).items():
            offsets[tp] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            count += len(records)
        if offsets and time.monotonic() - committed >= COMMIT_SECONDS:
            producer.begin_transaction()
            sent = producer.send(args.out, b"x")
            producer.flush(10)
            sent.get(1)
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
            producer.commit_transaction()
            offsets, committed = {}, time.monotonic()
        go_on, count = meter.more(count), 0
        if not go_on:
            return


def scoring_loop(score: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[argparse.Namespace, Meter], None]:
    """`json.loads` and one call of the model a reading."""

    def run(args: argparse.Namespace, meter: Meter) -> None:
        windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        for record in consumer_of(args):
            reading = json.loads(record.value)
            for value in reading.get("values") or [reading["value"]]:
                window = windows[reading["sensor_id"]]
                window.append(value)
                if len(window) == WINDOW:
                    rows = ((np.array(window, dtype=np.float32) - 50) / 3).reshape(1, WINDOW, 1)
                    error = float(np.mean((rows - score(rows)) ** 2))
                    if error > 1e9:
                        raise ValueError(error)
            if not meter.more(1):
                return

    return run


def onnx(args: argparse.Namespace, meter: Meter) -> None:
    """The loop most people write, with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(args.model / "model.onnx"), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scoring_loop(lambda rows: session.run(None, {name: rows})[0])(args, meter)


def predict(args: argparse.Namespace, meter: Meter) -> None:
    """The loop most people write."""
    from detector.models.training.tensorflow_setup import load_tensorflow

    _, keras = load_tensorflow()
    model = keras.models.load_model(args.model / "model.keras", compile=False)
    scoring_loop(lambda rows: model.predict(rows, verbose=0))(args, meter)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rival."""
    rivals = {"poll": poll, "decode": decode, "transactional": transactional, "onnx": onnx, "predict": predict}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.rivals")
    parser.add_argument("rival", choices=rivals)
    parser.add_argument("--address", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--out", default="rival-out")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--skip", type=int, required=True, help="messages before those that count")
    parser.add_argument("--limit", type=int, required=True, help="messages in all")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args(arguments)
    meter = Meter(args.skip, args.limit, args.seconds)
    rivals[args.rival](args, meter)
    sys.stdout.write(json.dumps(meter.result()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
