"""The golden cases on Kafka: topics with the offsets they had, and what a group had committed.

A state names offsets of the state topic, and the marks at the ends of transactions have offsets, too. So topics are
written as they were: where one offset was taken by a mark, the records before it are a transaction; a longer gap
becomes a transaction that is aborted.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import RetriableError
from kafka.structs import OffsetAndMetadata

from tests.golden.cases import Case, Json, pack, settings, unpacked
from tests.kafka.broker import Cluster

PATIENCE: Final = 60.0
KINDS: Final = ("stopped", "killed", "early")
"""Of states: stopped in good order, killed, and killed before a slice of the state was written."""
WHOLE_ALERTS: Final = "kafka-alerts.jsonl"
WHOLE_LETTERS: Final = "kafka-dead-letters.jsonl"
"""What an uninterrupted run on Kafka publishes: other offsets than of a file, and a clock for each partition."""
_FOREVER: Final = {"retention.ms": "-1"}
_NO_EPOCH: Final = -1


class Entry(NamedTuple):
    """A record that was read."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Log(NamedTuple):
    """A partition: its records that were committed, and where it ends."""

    entries: list[Entry]
    end: int


class GoldenTopics:
    """The topics of one group that processes a case. The input is the same for all groups."""

    def __init__(self, cluster: Cluster, case: Case, kind: str) -> None:
        self.cluster = cluster
        self.case = case
        self.group = f"golden-{case.name}-{kind}"
        self.input = input_of(case)
        self.state = f"{self.group}-{case.path}-state"
        self.alerts = f"{self.group}-alerts"
        self.letters = f"{self.group}-letters"

    @property
    def options(self) -> list[str]:
        """What makes `detector run` a member of the group."""
        return settings({
            "streams.backend": "kafka",
            "streams.kafka.bootstrap_servers": f"['{self.cluster.address}']",
            "streams.kafka.group_id": self.group,
            "streams.kafka.instance": "one",
            f"{self.case.path}.input": self.input,
            "output.alerts": self.alerts,
            "output.dead_letters": self.letters,
            "state.snapshot_interval": "4s",
            "state.on_missing_state": "fail",
        })  # fmt: skip

    @contextmanager
    def made(self) -> Iterator[GoldenTopics]:
        """With the topics, which are empty and go in the end."""
        names = [self.state, self.alerts, self.letters]
        drop(self.cluster, names, self.group)
        self.cluster.create_topic(self.state, self.case.partitions, {"cleanup.policy": "compact"})
        for name in names[1:]:
            self.cluster.create_topic(name)
        try:
            yield self
        finally:
            drop(self.cluster, names, self.group)

    def partitions(self) -> list[tuple[str, int]]:
        """Of the topics that the group writes."""
        return [(self.state, number) for number in range(self.case.partitions)] + [(self.alerts, 0), (self.letters, 0)]

    def committed(self) -> dict[int, tuple[int, str]]:
        """Offset and metadata that the group committed, by partition."""
        try:
            with self.cluster.admin() as admin:
                found = admin.list_group_offsets({self.group: None})[self.group]
        except RetriableError:
            return {}
        return {tp.partition: (one.offset, one.metadata or "") for tp, one in found.items() if one.offset >= 0}

    def freeze(self) -> bytes:
        """Everything of the group, once all transactions have ended."""
        wait_until(lambda: all(map(self._settled, self.partitions())), "a transaction stays open")
        logs = [[topic.removeprefix(self.group), number, *read(self.cluster, topic, number)] for topic, number in
                self.partitions()]  # fmt: skip
        frozen = {"committed": self.committed(), "logs": logs}
        return json.dumps(frozen, default=lambda raw: base64.b64encode(raw).decode(), separators=(",", ":")).encode()

    def thaw(self, frozen: Json) -> None:
        """Make the topics, which are empty, and the group's offsets what they were. Raises RuntimeError."""
        for suffix, number, entries, end in frozen["logs"]:
            log = Log([_entry(*entry) for entry in entries], end)
            write(self.cluster, f"{self.group}{suffix}", number, log)
            if read(self.cluster, f"{self.group}{suffix}", number) != log:
                raise RuntimeError(f"{self.group}{suffix} partition {number} is not what it was")
        offsets = {
            TopicPartition(self.input, int(number)): OffsetAndMetadata(offset, metadata, _NO_EPOCH)
            for number, (offset, metadata) in frozen["committed"].items()
        }
        with self.cluster.admin() as admin:
            admin.alter_group_offsets(self.group, offsets)
        if self.committed() != {int(number): tuple(one) for number, one in frozen["committed"].items()}:
            raise RuntimeError(f"the offsets of {self.group} are not what they were")

    def published(self) -> tuple[list[Json], list[Json]]:
        """Alerts, those of a sensor in order, and dead letters, those of a partition in order."""
        alerts = [json.loads(entry.value or b"") for entry in read(self.cluster, self.alerts, 0).entries]
        letters = [_letter(entry) for entry in read(self.cluster, self.letters, 0).entries]
        alerts.sort(key=lambda alert: alert["sensor_id"])
        letters.sort(key=lambda letter: (letter["partition"], letter["offset"]))
        return alerts, letters

    def _settled(self, partition: tuple[str, int]) -> bool:
        tp = TopicPartition(*partition)
        return _end(self.cluster, tp, "read_committed") == _end(self.cluster, tp, "read_uncommitted")


def frozen_of(case: Case, kind: str) -> Json:
    """What was committed to this repository of a group."""
    frozen: Json = json.loads(unpacked(case.data / f"kafka-{kind}.json.gz"))
    return frozen


def keep(case: Case, kind: str, frozen: bytes) -> None:
    """Put it there."""
    pack(case.data / f"kafka-{kind}.json.gz", frozen)


# -- the input ---------------------------------------------------------------------------------------------------------


def input_of(case: Case) -> str:
    """The topic of a case's input."""
    return f"golden-{case.name}"


def create_input(cluster: Cluster, case: Case) -> None:
    """Make the topic of the input, empty. What is older than the broker's limits stays."""
    drop(cluster, [input_of(case)])
    cluster.create_topic(input_of(case), case.partitions, _FOREVER)


class Feed:
    """Writes the records of a case's input in their order. `sent`: how many it has written."""

    def __init__(self, cluster: Cluster, case: Case) -> None:
        self._topic = input_of(case)
        self._lines = unpacked(case.data / f"{case.input}.gz").splitlines(keepends=True)
        self._records = json.loads(unpacked(case.data / "records.json.gz"))
        self._ends = list(itertools.accumulate(map(len, self._lines)))
        self._producer = KafkaProducer(bootstrap_servers=cluster.address, linger_ms=20)
        self.sent = 0

    def records_until(self, place: float) -> int:
        """How many records are to come up to that byte of the file."""
        return sum(end <= place for end in self._ends) - self.sent

    def until(self, place: float, pause: float = 0.0) -> None:
        """Write up to that byte, with a pause, s, after each record."""
        pending = []
        for number in range(self.sent, self.sent + self.records_until(place)):
            at, partition, key = self._records[number]
            value, key = self._lines[number].rstrip(b"\n"), None if key is None else key.encode()
            pending.append(self._producer.send(self._topic, value, key, None, partition, at))
            if pause:
                self._producer.flush(PATIENCE)
                time.sleep(pause)
        self._producer.flush(PATIENCE)
        for future in pending:
            future.get(PATIENCE)
        self.sent += len(pending)

    def close(self) -> None:
        """Let go of the connection."""
        self._producer.close(5)


# -- partitions as they were -------------------------------------------------------------------------------------


def read(cluster: Cluster, topic: str, partition: int) -> Log:
    """A partition from its beginning to its end."""
    with _consumer(cluster, "read_committed") as consumer:
        tp = TopicPartition(topic, partition)
        consumer.assign([tp])
        consumer.seek_to_beginning(tp)
        end = _end(cluster, tp, "read_uncommitted")
        entries: list[Entry] = []
        while consumer.position(tp) < end:
            for found in consumer.poll(timeout_ms=200).values():
                entries += [Entry(one.offset, one.key, one.value, list(one.headers)) for one in found]
        return Log(entries, end)


def write(cluster: Cluster, topic: str, partition: int, log: Log) -> None:
    """Write the records at their offsets into an empty partition. Raises RuntimeError where that is not possible."""
    plain = KafkaProducer(bootstrap_servers=cluster.address)
    marking = KafkaProducer(bootstrap_servers=cluster.address, transactional_id=f"{topic}-{partition}-thaw")
    looker = KafkaConsumer(bootstrap_servers=cluster.address)
    tp = TopicPartition(topic, partition)
    try:
        marking.init_transactions()
        runs = _runs(log.entries)
        first = runs[0][0].offset if runs else log.end
        _fill(marking, topic, partition, first)
        _until_end(looker, tp, first)
        for number, run in enumerate(runs):
            after = run[-1].offset + 1
            gap = (runs[number + 1][0].offset if number + 1 < len(runs) else log.end) - after
            if gap == 1:
                marking.begin_transaction()
                _send(marking, topic, partition, run)
                marking.commit_transaction()
            else:
                _send(plain, topic, partition, run)
                _fill(marking, topic, partition, gap)
            _until_end(looker, tp, after + gap)
    finally:
        plain.close(5)
        marking.close(5)
        looker.close()


def _until_end(looker: KafkaConsumer, tp: TopicPartition, end: int) -> None:
    """A transaction may be over for its producer before its mark has an offset."""
    last_look = time.monotonic() + PATIENCE
    while (found := looker.end_offsets([tp])[tp]) < end:
        if time.monotonic() > last_look:
            raise RuntimeError(f"{tp.topic} partition {tp.partition} ends at {found} in place of {end}")
        time.sleep(0.02)


def _runs(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Cut where an offset is missing."""
    runs: list[list[Entry]] = []
    for entry in entries:
        if runs and runs[-1][-1].offset + 1 == entry.offset:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def _fill(producer: KafkaProducer, topic: str, partition: int, offsets: int) -> None:
    """Take offsets with records that were aborted, and the mark that says so."""
    if not offsets:
        return
    if offsets == 1:
        raise RuntimeError(f"{topic} partition {partition} begins with a mark")
    producer.begin_transaction()
    for _ in range(offsets - 1):
        producer.send(topic, b"aborted", b"aborted", None, partition)
    producer.flush(PATIENCE)
    producer.abort_transaction()


def _send(producer: KafkaProducer, topic: str, partition: int, entries: Sequence[Entry]) -> None:
    sent = [producer.send(topic, entry.value, entry.key, entry.headers, partition) for entry in entries]
    producer.flush(PATIENCE)
    for entry, future in zip(entries, sent, strict=True):
        if future.get(PATIENCE).offset != entry.offset:
            raise RuntimeError(f"{topic} partition {partition}: {future.get().offset} in place of {entry.offset}")


# -- small things ------------------------------------------------------------------------------------------------------


def drop(cluster: Cluster, topics: Sequence[str], group: str | None = None) -> None:
    """Delete what there is of topics and group; returns when it is gone."""
    with cluster.admin() as admin:
        there = set(admin.list_topics()) & set(topics)
        if there:
            admin.delete_topics(sorted(there))
            wait_until(lambda: not set(admin.list_topics()) & there, "a topic is still there")
        if group is not None:
            wait_until(lambda: _group_is_gone(admin, group), f"the group {group} is still there")


def _group_is_gone(admin: KafkaAdminClient, group: str) -> bool:
    """Delete it; False while it has a member, which may be dead, or while nobody coordinates it."""
    try:
        return bool(admin.delete_groups([group])[group] in ("OK", "GroupIdNotFoundError"))
    except RetriableError:
        return False


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raises AssertionError with `what` after a while."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.1)


@contextmanager
def _consumer(cluster: Cluster, isolation: str) -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(
        bootstrap_servers=cluster.address, isolation_level=isolation, enable_auto_commit=False, max_poll_records=10_000
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _end(cluster: Cluster, tp: TopicPartition, isolation: str) -> int:
    with _consumer(cluster, isolation) as consumer:
        end: int = consumer.end_offsets([tp])[tp]
        return end


def _entry(offset: int, key: str | None, value: str | None, headers: Sequence[tuple[str, str]]) -> Entry:
    raw = [None if text is None else base64.b64decode(text) for text in (key, value)]
    return Entry(offset, raw[0], raw[1], [(name, base64.b64decode(text)) for name, text in headers])


def json_lines(values: Sequence[Json]) -> bytes:
    """One JSON value a line."""
    return b"".join(json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in values)


def _letter(entry: Entry) -> Json:
    """A dead letter in the form that it has in a file."""
    headers = {name.removeprefix("detector."): text.decode() for name, text in entry.headers}
    return {
        "stream": headers["topic"],
        "partition": int(headers["partition"]),
        "offset": int(headers["offset"]),
        "reason": headers["reason"],
        "elements": headers.get("elements"),
        "truncated": headers["truncated"],
        "key": None if entry.key is None else entry.key.decode(),
        "value_base64": base64.b64encode(entry.value or b"").decode(),
    }
