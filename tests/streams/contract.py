"""What every backend has to do: one suite, run on each through a small harness."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import pytest

from detector.streams.base import Assigned, Batch, Deferred, Event, Message, Partition, Streams, nothing_deferred

INPUT = "sensor-readings"
OUTPUT = "anomaly-alerts"
OTHER_OUTPUT = "detector-dead-letters"


class Harness(ABC):
    """One backend with its streams, which outlive connections."""

    partitions: ClassVar[int] = 1
    poll_timeout: ClassVar[float] = 0.0
    polls: ClassVar[int] = 1000
    """How often to poll at most before what should come is missed."""
    can_put_off: ClassVar[bool] = True
    """Whether a commit may be less than durable."""

    @abstractmethod
    def append(self, number: int, values: Sequence[bytes]) -> None:
        """Add records to a partition of `INPUT`. Values are JSON objects without line breaks."""

    @abstractmethod
    def connect(self, *, max_records: int = 5000, durable: bool = True) -> Streams:
        """A new, opened connection. Without `durable` only final commits are."""

    @abstractmethod
    def crash(self, streams: Streams) -> None:
        """End a connection as a killed process would."""

    @abstractmethod
    def published(self, stream: str) -> list[bytes]:
        """The values of an output stream that are final."""


class Consumer:
    """Chains hashes over each partition: each output, and the state, depend on everything before them."""

    def __init__(self, streams: Streams, harness: Harness) -> None:
        self.streams = streams
        self.harness = harness
        self.events: list[Event] = []
        self.positions: dict[Partition, int] = {}
        self.chains: dict[Partition, bytes] = {}
        self.seen: dict[Partition, list[tuple[int, bytes]]] = {}

    def poll(self) -> bool:
        """One turn without a commit; whether anything came."""
        events = self.streams.poll(self.harness.poll_timeout)
        for event in events:
            self.events.append(event)
            if isinstance(event, Assigned):
                self.chains[event.partition] = bytes(event.state or b"")
                self.positions[event.partition] = event.position
                self.seen[event.partition] = []
            elif isinstance(event, Batch):
                self._take(event)
        return bool(events)

    def turn(self, *, final: bool = False) -> bool:
        came = self.poll()
        self.commit(final=final)
        return came

    def commit(self, *, final: bool = False, deferred: Deferred = nothing_deferred) -> bool:
        return self.streams.commit(self.positions, self.chains.__getitem__, final=final, deferred=deferred)

    def run_to_end(self) -> None:
        for _ in range(self.harness.polls):
            self.turn()
            if self.streams.at_end():
                return
        pytest.fail("the end was not reached")

    def values(self, number: int = 0) -> list[bytes]:
        return [value for _, value in self.seen.get(Partition(INPUT, number), [])]

    def offsets(self, number: int = 0) -> list[int]:
        return [offset for offset, _ in self.seen.get(Partition(INPUT, number), [])]

    def assigned(self) -> dict[Partition, Assigned]:
        return {event.partition: event for event in self.events if isinstance(event, Assigned)}

    def _take(self, batch: Batch) -> None:
        messages = []
        for record in batch.records:
            assert record.value is not None
            chain = hashlib.sha256(self.chains[batch.partition] + record.value).hexdigest().encode()
            self.chains[batch.partition] = chain
            self.seen[batch.partition].append((record.offset, record.value))
            key = str(batch.partition.number).encode()
            messages.append(Message(OUTPUT, key, b'{"chain": "%s"}' % chain))
        self.streams.write(messages)
        self.positions[batch.partition] = batch.next_offset


def chained(values: Sequence[bytes]) -> list[bytes]:
    """What a `Consumer` publishes for the records of one partition."""
    chain, output = b"", []
    for value in values:
        chain = hashlib.sha256(chain + value).hexdigest().encode()
        output.append(b'{"chain": "%s"}' % chain)
    return output


def numbered(first: int, count: int) -> list[bytes]:
    return [b'{"n": %d}' % number for number in range(first, first + count)]


class StreamsContract:
    """Subclass with a fixture `harness`."""

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        raise NotImplementedError

    @pytest.fixture
    def connections(self) -> Iterator[list[Streams]]:
        opened: list[Streams] = []
        yield opened
        for streams in opened:
            streams.close()

    @pytest.fixture
    def connect(self, harness: Harness, connections: list[Streams]) -> Connect:
        return Connect(harness, connections)

    def test_a_partition_is_assigned_before_its_first_batch(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 3))
        consumer = connect()
        consumer.run_to_end()
        first = consumer.events[0]
        assert isinstance(first, Assigned)
        assert first.partition == Partition(INPUT, 0)
        assert first.state is None
        assert sum(isinstance(event, Assigned) for event in consumer.events) == harness.partitions

    def test_records_come_in_order_and_all(self, harness: Harness, connect: Connect) -> None:
        values = numbered(0, 100)
        harness.append(0, values)
        consumer = connect(max_records=7)
        consumer.run_to_end()
        assert consumer.values() == values
        assert consumer.offsets() == sorted(set(consumer.offsets()))
        assert harness.published(OUTPUT) == chained(values)

    def test_a_poll_holds_at_most_the_limit(self, harness: Harness, connect: Connect) -> None:
        for number in range(harness.partitions):
            harness.append(number, numbered(0, 20))
        consumer = connect(max_records=7)
        for _ in range(harness.polls):
            before = sum(map(len, consumer.seen.values()))
            consumer.turn()
            assert sum(map(len, consumer.seen.values())) - before <= 7
            if consumer.streams.at_end():
                break
        assert sum(map(len, consumer.seen.values())) == 20 * harness.partitions

    def test_positions_lie_beyond_the_records_of_a_batch(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 20))
        consumer = connect(max_records=7)
        consumer.run_to_end()
        batches = [event for event in consumer.events if isinstance(event, Batch)]
        assert [batch.row for batch in batches] == sorted(batch.row for batch in batches)
        for batch in batches:
            assert batch.records[-1].offset < batch.next_offset
        for batch, after in pairwise(batches):
            assert batch.next_offset <= after.records[0].offset

    def test_what_is_appended_while_open_comes_too(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 3))
        consumer = connect()
        consumer.run_to_end()
        harness.append(0, numbered(3, 3))
        for _ in range(harness.polls):
            consumer.turn()
            if len(consumer.values()) == 6:
                break
        assert consumer.values() == numbered(0, 6)

    def test_nothing_there_is_the_end(self, connect: Connect) -> None:
        consumer = connect()
        consumer.run_to_end()
        assert not consumer.values()
        assert not consumer.poll()

    def test_the_end_is_that_at_the_start(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect(max_records=4)
        assert not consumer.streams.at_end()
        while len(consumer.values()) < 8:
            consumer.turn()
        assert not consumer.streams.at_end()
        harness.append(0, numbered(10, 100))
        while len(consumer.values()) < 10:
            consumer.turn()
        assert consumer.streams.at_end()

    def test_lag_falls_to_nothing(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect(max_records=4)
        consumer.turn()
        while not consumer.values():
            consumer.turn()
        partition = Partition(INPUT, 0)
        assert consumer.streams.lag()[partition] > 0
        consumer.run_to_end()
        assert consumer.streams.lag()[partition] == 0

    def test_work_goes_on_behind_the_last_commit(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 20))
        whole = connect()
        whole.run_to_end()
        harness.crash(whole.streams)
        harness.append(0, numbered(20, 10))
        consumer = connect(max_records=3)
        consumer.run_to_end()
        assert consumer.values() == numbered(20, 10)
        assert consumer.offsets()[0] > whole.offsets()[-1]
        assert consumer.assigned()[Partition(INPUT, 0)].position == whole.positions[Partition(INPUT, 0)]
        assert harness.published(OUTPUT) == chained(numbered(0, 30))

    def test_offsets_do_not_depend_on_where_reading_began(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 20))
        first = connect(max_records=3)
        while len(first.values()) < 9:
            first.turn()
        read = list(zip(first.offsets(), first.values(), strict=True))
        harness.crash(first.streams)
        second = connect()
        second.run_to_end()
        read += zip(second.offsets(), second.values(), strict=True)
        assert [value for _, value in read] == numbered(0, 20)
        harness.crash(second.streams)
        offsets = [offset for offset, _ in read]
        assert offsets == sorted(set(offsets))

    def test_a_commit_may_name_a_record_within_a_batch(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect()
        while len(consumer.values()) < 10:
            consumer.poll()
        consumer.positions[Partition(INPUT, 0)] = consumer.offsets()[4]
        consumer.commit(final=True)
        harness.crash(consumer.streams)
        again = connect()
        again.run_to_end()
        assert again.values() == numbered(4, 6)
        assert again.offsets() == consumer.offsets()[4:]
        assert next(event.row for event in again.events if isinstance(event, Batch)) in {0, 4}

    def test_a_position_does_not_go_back(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect()
        consumer.run_to_end()
        consumer.positions[Partition(INPUT, 0)] = consumer.offsets()[4]
        with pytest.raises(ValueError, match="position"):
            consumer.commit()

    @pytest.mark.parametrize("state", [b"", b"\x00\xff" * 5, bytes(range(256)) * 4096])
    def test_state_comes_back_as_it_was(self, harness: Harness, connect: Connect, state: bytes) -> None:
        harness.append(0, numbered(0, 3))
        consumer = connect()
        consumer.run_to_end()
        consumer.streams.commit(consumer.positions, lambda _: state, final=True)
        harness.crash(consumer.streams)
        again = connect()
        again.run_to_end()
        assert again.assigned()[Partition(INPUT, 0)].state == state

    def test_a_partition_without_progress_keeps_its_state(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 3))
        consumer = connect()
        consumer.run_to_end()
        chain = consumer.chains[Partition(INPUT, 0)]
        harness.crash(consumer.streams)
        idle = connect()
        idle.poll()
        idle.streams.write([Message(OTHER_OUTPUT, None, b"{}")])
        idle.streams.commit({}, idle.chains.__getitem__, final=True)
        harness.crash(idle.streams)
        again = connect()
        again.run_to_end()
        assert again.assigned()[Partition(INPUT, 0)].state == chain
        assert not again.values()
        assert harness.published(OTHER_OUTPUT) == [b"{}"]

    def test_what_was_not_committed_is_undone(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect(max_records=4)
        while len(consumer.values()) < 4:
            consumer.turn()
        consumer.poll()
        harness.crash(consumer.streams)
        again = connect(max_records=4)
        assert harness.published(OUTPUT) == chained(numbered(0, 4))
        again.run_to_end()
        assert again.values() == numbered(4, 6)
        assert harness.published(OUTPUT) == chained(numbered(0, 10))

    def test_closing_commits_nothing(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect(max_records=4)
        while len(consumer.values()) < 4:
            consumer.poll()
        consumer.streams.close()
        again = connect()
        assert harness.published(OUTPUT) == []
        again.run_to_end()
        assert again.values() == numbered(0, 10)

    def test_a_closed_connection_can_be_opened_again(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect(max_records=4)
        while len(consumer.values()) < 4:
            consumer.turn()
        consumer.poll()
        consumer.streams.close()
        consumer.streams.close()
        consumer.streams.open()
        consumer.run_to_end()
        assert consumer.values() == numbered(4, 6)
        assert harness.published(OUTPUT) == chained(numbered(0, 10))

    @pytest.mark.parametrize("turns", [1, 2, 5])
    def test_crashes_leave_no_trace_in_the_output(self, harness: Harness, connect: Connect, turns: int) -> None:
        values = numbered(0, 40)
        harness.append(0, values)
        for _ in range(harness.polls):
            consumer = connect(max_records=3)
            for _ in range(turns + 1):  # the first may bring no more than the assignment
                consumer.turn()
            if consumer.streams.at_end():
                break
            consumer.poll()
            harness.crash(consumer.streams)
        assert harness.published(OUTPUT) == chained(values)

    def test_a_commit_that_was_put_off_is_undone_too(self, harness: Harness, connect: Connect) -> None:
        if not harness.can_put_off:
            pytest.skip("every commit is durable")
        harness.append(0, numbered(0, 10))
        consumer = connect(max_records=4, durable=False)
        consumer.poll()
        assert not consumer.commit()
        while len(consumer.values()) < 8:
            assert not consumer.turn() or consumer.values()
        harness.crash(consumer.streams)
        again = connect(max_records=4)
        assert harness.published(OUTPUT) == []
        again.run_to_end()
        assert again.values() == numbered(0, 10)
        assert harness.published(OUTPUT) == chained(numbered(0, 10))

    def test_a_final_commit_is_durable(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect(durable=False)
        consumer.run_to_end()
        assert consumer.commit(final=True)
        assert consumer.commit(final=True)
        harness.crash(consumer.streams)
        assert harness.published(OUTPUT) == chained(numbered(0, 10))
        again = connect()
        again.run_to_end()
        assert not again.values()

    def test_the_snapshot_is_asked_for_what_was_dealt_with(self, harness: Harness, connect: Connect) -> None:
        harness.append(0, numbered(0, 10))
        consumer = connect()
        consumer.run_to_end()
        asked: list[Partition] = []

        def snapshot(partition: Partition) -> bytes:
            asked.append(partition)
            return b"state"

        consumer.streams.commit({Partition(INPUT, 0): consumer.positions[Partition(INPUT, 0)]}, snapshot, final=True)
        assert Partition(INPUT, 0) in asked
        assert len(asked) == len(set(asked))

    def test_several_outputs_keep_their_own_order(self, harness: Harness, connect: Connect) -> None:
        consumer = connect()
        consumer.poll()
        consumer.streams.write([Message(OUTPUT, b"a", b"1"), Message(OTHER_OUTPUT, None, b"x")])
        consumer.streams.write([Message(OUTPUT, b"b", b"2"), Message(OUTPUT, b"a", b"3")])
        consumer.commit(final=True)
        assert harness.published(OUTPUT) == [b"1", b"2", b"3"]
        assert harness.published(OTHER_OUTPUT) == [b"x"]

    @pytest.mark.parametrize("durable", [True, False])
    def test_late_messages_belong_to_the_commit_that_asks_for_them(
        self, harness: Harness, connect: Connect, durable: bool
    ) -> None:
        harness.append(0, numbered(0, 30))
        done = 0
        for goal in (4, 12, 30):
            consumer = connect(max_records=4, durable=durable)
            late = _Late(consumer)
            while done + len(consumer.values()) < goal:
                consumer.poll()
                consumer.commit(deferred=late)
            consumer.commit(final=True, deferred=late)
            done += len(consumer.values())
            consumer.poll()
            consumer.streams.write([Message(OTHER_OUTPUT, None, b'{"never": "final"}')])
            harness.crash(consumer.streams)
        connect()
        assert harness.published(OTHER_OUTPUT) == numbered(0, 30)

    def test_partitions_are_independent(self, harness: Harness, connect: Connect) -> None:
        if harness.partitions < 2:
            pytest.skip("one partition only")
        harness.append(0, numbered(0, 30))
        harness.append(1, numbered(100, 10))
        consumer = connect(max_records=4)
        while not consumer.values(0) or not consumer.values(1):
            consumer.turn()
        harness.crash(consumer.streams)
        again = connect(max_records=4)
        again.run_to_end()
        assert consumer.values(0) + again.values(0) == numbered(0, 30)
        assert consumer.values(1) + again.values(1) == numbered(100, 10)
        assert sorted(harness.published(OUTPUT)) == sorted(chained(numbered(0, 30)) + chained(numbered(100, 10)))
        states: Mapping[Partition, Assigned] = again.assigned()
        assert states[Partition(INPUT, 0)].state == consumer.chains[Partition(INPUT, 0)]
        assert states[Partition(INPUT, 1)].state == consumer.chains[Partition(INPUT, 1)]


class _Late:
    """Gives the values that came since it was last asked."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._given = 0

    def __call__(self) -> list[Message]:
        values = self._consumer.values()[self._given :]
        self._given += len(values)
        return [Message(OTHER_OUTPUT, b"k", value) for value in values]


class Connect:
    """Connects consumers and sees to it that the connections are closed."""

    def __init__(self, harness: Harness, opened: list[Streams]) -> None:
        self._harness = harness
        self._opened = opened

    def __call__(self, *, max_records: int = 5000, durable: bool = True) -> Consumer:
        streams = self._harness.connect(max_records=max_records, durable=durable)
        self._opened.append(streams)
        return Consumer(streams, self._harness)
