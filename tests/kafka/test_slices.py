"""State in slices over many transactions: whatever is committed last, a restore finds one consistent state.

No broker: a log in memory takes what transactions commit, forgets what compaction may forget, and crashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from kafka import TopicPartition
from kafka.coordinator.heartbeat import Heartbeat
from kafka.structs import OffsetAndMetadata

from detector.config.settings import StateConfig
from detector.config.streams import KafkaConfig
from detector.streams.base import Message, Partition, unpack_state
from detector.streams.kafka import committing, statelog
from detector.streams.kafka.held import Held
from detector.streams.kafka.restoring import Restored, Restorer
from detector.streams.kafka.slices import RestorePoint, SliceBook
from detector.streams.kafka.statelog import StateReading, unpack_kept
from detector.streams.kafka.streams import KafkaStreams
from detector.streams.kafka.transactions import Outgoing

INPUT, STATE = "in", "in-state"
SLICE_BYTES = 1000
ROOM = 3 * SLICE_BYTES
PART = 1100
"""Most in one record, so that some slices have two parts."""


class CrashError(Exception):
    """The process is gone."""


class Slice(msgspec.Struct):
    """What a slice holds here: who made it, of which position, and what makes it as large as one."""

    basis: int
    number: int
    position: int
    filling: bytes


class Log:
    """Two partitions of a state topic and the committed offsets. `fails` is asked before each transaction:

    None, or whether one that fails is committed all the same.
    """

    ready = True

    def __init__(self, rng: np.random.Generator) -> None:
        self.records: dict[int, list[tuple[int, bytes, bytes | None]]] = {0: [], 1: []}
        self.offsets: dict[int, OffsetAndMetadata] = {}
        self.published = {0: 0, 1: 0}
        """Up to which position each partition's alerts are there."""
        self.largest = 0
        self.commits = 0
        self.fails: Callable[[], bool | None] = lambda: None
        self._ends = {0: 0, 1: 0}
        self._rng = rng

    def run(
        self,
        records: Sequence[Outgoing],
        group: object,
        offsets_for: Callable[[Sequence[int]], Mapping[TopicPartition, OffsetAndMetadata]],
    ) -> None:
        failure = self.fails()
        written = []
        for record in records:
            if record.partition is None:  # an alert
                written.append(0)
                continue
            written.append(self._ends[record.partition])
            self._ends[record.partition] += 1
        self.largest = max(self.largest, sum(len(record.value or b"") for record in records))
        offsets = offsets_for(written)
        assert offsets, "without offsets the broker does not look at the membership"
        if failure is not False:
            for record, offset in zip(records, written, strict=True):
                assert record.key is not None
                if record.partition is None:
                    self.published[int(record.key)] = int(record.value or b"")
                    continue
                self.records[record.partition].append((offset, record.key, record.value))
            self.offsets |= {tp.partition: offset for tp, offset in offsets.items()}
            self.commits += 1
        if failure is not None:
            raise CrashError
        for number in self.records:
            self._ends[number] += 1  # the marker of the commit

    def read(self, number: int, point: RestorePoint, rng: np.random.Generator | None = None) -> StateReading:
        """From the restore point on, after compaction of a part of the log."""
        records = self.records[number]
        compacted = int((rng or self._rng).integers(0, len(records) + 1))
        newest = {key: offset for offset, key, _ in records[:compacted]}
        reading = StateReading(point.generation)
        for i, (offset, key, value) in enumerate(records):
            if offset >= point.state_from and (i >= compacted or newest[key] == offset):
                reading.take(offset, key, value)
        return reading


class Process:
    """One process from a restore on. The state is as many slices as there are, of `basis` and the position."""

    def __init__(self, log: Log, basis: int, counts: dict[int, int]) -> None:
        self.log = log
        self.basis = basis
        self.counts = counts
        self.now = 0.0
        self.streams = KafkaStreams(
            KafkaConfig(commit_interval=1), StateConfig(snapshot_interval=10**9),
            state_topics={INPUT: STATE}, outputs=["out"], clock=lambda: self.now,
        )  # fmt: skip
        link: Any = mock.Mock()
        link.transactions, link.absent = log, frozenset()
        self.streams._link = link  # noqa: SLF001  what talks to a broker
        self.held: dict[int, Held] = {}
        self._renewed: set[int] = set()
        for number in counts:
            tp = TopicPartition(INPUT, number)
            one = self.held[number] = Held(tp, 0.0)
            restored, found = restore(log, number)
            one.adopt(restored)
            if restored.point is not None and restored.point.slices is not None:
                counts[number] = restored.point.slices
            one.announced = True
            one.handed = max(one.handed, one.position)
            self.streams._held[tp] = one  # noqa: SLF001
            if found is not None and found != basis:
                self._renewed.add(number)

    def step(self, rng: np.random.Generator, *, final: bool = False) -> None:
        """Process something in one or both partitions, and commit."""
        self.now += float(rng.uniform(0, 0.3))
        positions = {}
        for number, one in self.held.items():
            one.handed = one.position + int(rng.integers(0, 3))
            positions[one.partition] = one.handed
            self.counts[number] = max(1, self.counts[number] + int(rng.integers(-1, 3)))
        self.streams.write([Message("out", b"%d" % number, b"%d" % one.handed) for number, one in self.held.items()])
        self.streams.commit(positions, self, final=final)

    def __call__(self, partition: Partition) -> bytes:
        raise AssertionError("slices are asked for")

    def pieces(self, partition: Partition) -> Iterator[bytes | memoryview]:
        raise AssertionError("slices are asked for")

    def slices(self, partition: Partition) -> int:
        return self.counts[partition.number]

    def pack_slice(self, partition: Partition, number: int) -> bytes:
        position = self.held[partition.number].position
        filling = np.random.default_rng(number).bytes(SLICE_BYTES if number % 5 else PART + 10)
        return msgspec.msgpack.encode(Slice(self.basis, number, position, filling))

    def renewed(self, partition: Partition) -> bool:
        renewed = partition.number in self._renewed
        self._renewed.discard(partition.number)
        return renewed

    def journal(self, partition: Partition) -> Sequence[tuple[str, bytes | None]]:
        return []


def restore(log: Log, number: int) -> tuple[Restored, int | None]:
    """What a process would find now, checked: slices of one basis, none missing, none beyond the committed offset."""
    tp = TopicPartition(INPUT, number)
    committed = log.offsets.get(number)
    if committed is None:
        return Restored(0, 0, None, SliceBook(0, origin=0), None), None
    assert committed.offset == log.published[number], "offsets and alerts are committed together"
    point = RestorePoint.decode(committed.metadata)
    assert point is not None
    assert len(committed.metadata) < 200
    nobody: Any = None
    restorer = Restorer(
        KafkaConfig(), StateConfig(on_missing_state="fail"), {INPUT: STATE}, nobody, nobody, {}, written=nobody
    )
    restored = restorer._assemble(tp, committed.offset, 0, point, log.read(number, point))  # noqa: SLF001
    restored.committed = committed.offset
    assert restored.state is not None
    compare_with_kept(log, tp, restorer, restored)
    assert restored.live_from == committed.offset
    slices = [msgspec.msgpack.decode(data, type=Slice) for data in unpack_state(restored.state)[0]]
    for one in slices:
        assert restored.position <= one.position <= committed.offset
    bases = {one.basis for one in slices}
    assert len(bases) <= 1
    numbers = {one.number for one in slices}
    assert len(numbers) == len(slices)
    assert numbers | set(restored.book.unwritten) >= set(range(point.slices or 0)) or point.fresh
    return restored, bases.pop() if bases else None


def compare_with_kept(log: Log, tp: TopicPartition, restorer: Restorer, restored: Restored) -> None:
    """The last record in the state topic is the position, and leads to the same as the committed offset."""
    _, key, value = log.records[tp.partition][-1]
    kept = unpack_kept(key, value)
    assert kept is not None
    assert (kept.input, kept.position) == (INPUT, restored.live_from)
    point = RestorePoint.decode(kept.point)
    assert point is not None
    reading = log.read(tp.partition, point, np.random.default_rng(log.commits))
    again = restorer._assemble(tp, kept.position, 0, point, reading)  # noqa: SLF001
    assert (again.position, again.skips) == (restored.position, restored.skips)
    assert (again.book.written, again.book.unwritten) == (restored.book.written, restored.book.unwritten)
    assert (again.book.origin, again.book.generation) == (restored.book.origin, restored.book.generation)
    slices = [sorted(map(bytes, unpack_state(one.state or b"")[0])) for one in (again, restored)]
    assert slices[0] == slices[1]


@pytest.mark.parametrize("seed", range(24))
def test_wherever_it_dies_the_state_is_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "MAX_STATE_BYTES", ROOM)
    monkeypatch.setattr(statelog, "PART_BYTES", PART)
    rng = np.random.default_rng(seed)
    log = Log(rng)
    counts = {0: int(rng.integers(1, 12)), 1: int(rng.integers(1, 12))}
    basis = deaths = 0
    for _ in range(25):
        process = Process(log, basis, counts)
        left = int(rng.integers(1, 12))

        def fails() -> bool | None:
            nonlocal left
            left -= 1
            return None if left else bool(rng.integers(2))

        log.fails = fails
        try:
            with mock.patch.object(process.streams, "_recover", side_effect=lambda error: (_ for _ in ()).throw(error)):
                for _ in range(int(rng.integers(1, 30))):
                    process.step(rng)
                    for number in counts:
                        restore(log, number)
                process.step(rng, final=True)
            for number, one in process.held.items():
                restored, found = restore(log, number)
                assert restored.position == restored.live_from == one.position, "a planned restart replays nothing"
                assert found == basis
        except CrashError:
            deaths += 1
        for number in counts:
            restore(log, number)
        log.fails = lambda: None
        basis += int(rng.integers(2))
    assert deaths > 3
    assert log.largest < 2 * (ROOM + 2 * PART), "transactions stay small"


def test_a_renewal_in_many_transactions_is_work_that_gets_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "MAX_STATE_BYTES", ROOM)
    rng = np.random.default_rng(0)
    log = Log(rng)
    counts = {0: 20}
    Process(log, 0, counts).step(rng, final=True)
    process, commits = Process(log, 1, counts), log.commits
    one = process.held[0]
    one.handed = one.position + 1
    process.now = 1.0
    assert process.streams.commit({one.partition: one.handed}, process)
    link: Any = process.streams._link  # noqa: SLF001
    polled = link.consumer._coordinator.heartbeat.poll.call_count  # noqa: SLF001
    assert polled == log.commits - commits - 1 > 3


def test_a_renewal_costs_one_transaction_where_it_fits() -> None:
    rng = np.random.default_rng(0)
    log = Log(rng)
    counts = {0: 20, 1: 20}
    Process(log, 0, counts).step(rng, final=True)
    commits = log.commits
    Process(log, 1, counts).step(rng)
    assert log.commits == commits + 1
    assert restore(log, 0)[1] == restore(log, 1)[1] == 1


def test_what_was_committed_to_give_partitions_back_is_told_once() -> None:
    """Where nothing comes any more, whoever waits for what was done to be durable would wait for ever."""
    log = Log(np.random.default_rng(0))
    process = Process(log, 0, {0: 1, 1: 1})
    streams, one = process.streams, process.held[0]
    one.handed = 5
    assert not streams.commit({one.partition: 5}, process), "it is not due yet"
    streams._commit_before_revoke()  # noqa: SLF001  what the listener calls within a poll
    assert log.offsets[0].offset == 5
    assert streams.commit({one.partition: 5}, process)
    assert not streams.commit({one.partition: 5}, process)


def test_work_that_gets_on_is_no_reason_to_leave_the_group() -> None:
    """Thousands of sensors may complete their warm-up in one batch."""
    process = Process(Log(np.random.default_rng(0)), 0, {0: 1})
    link: Any = process.streams._link  # noqa: SLF001
    heartbeat = link.consumer._coordinator.heartbeat = Heartbeat(max_poll_interval_ms=60_000)  # noqa: SLF001
    heartbeat.last_poll = -1e6
    assert heartbeat.poll_timeout_expired()
    process.streams.at_work()
    assert not heartbeat.poll_timeout_expired()
    link.consumer = None
    process.streams.at_work()
