from __future__ import annotations

from collections.abc import Sequence

import pytest

from detector.streams.base import Assigned, Batch, Message, Partition, Record, Revoked, Streams
from detector.streams.memory import MemoryStreams
from tests.streams.contract import INPUT, OUTPUT, Consumer, Harness, StreamsContract, numbered


class MemoryHarness(Harness):
    partitions = 2

    def __init__(self) -> None:
        self._logs: list[list[Record | bytes]] = [[], []]
        self._streams: MemoryStreams | None = None
        self._durable = True

    def append(self, number: int, values: Sequence[bytes]) -> None:
        if self._streams is None:
            self._logs[number].extend(values)
        else:
            self._streams.append(Partition(INPUT, number), values)

    def connect(self, *, max_records: int = 5000, durable: bool = True) -> Streams:
        if self._streams is None:
            self._streams = MemoryStreams({INPUT: self._logs}, max_records, durable_every=1 if durable else 10**9)
        self._streams.max_records = max_records
        self._streams.durable_every = 1 if durable else 10**9
        self._streams.open()
        return self._streams

    def crash(self, streams: Streams) -> None:
        streams.close()

    def published(self, stream: str) -> list[bytes]:
        assert self._streams is not None
        return [message.value for message in self._streams.read(stream)]


class TestMemoryStreams(StreamsContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


P0 = Partition("s", 0)


def test_records_keep_offsets_of_their_own() -> None:
    streams = MemoryStreams({"s": [[Record(10, b"k", b"a"), Record(25, b"k", b"b"), b"c"]]})
    streams.open()
    _, batch = streams.poll(0.0)
    assert isinstance(batch, Batch)
    assert [record.offset for record in batch.records] == [10, 25, 26]
    assert batch.next_offset == 27
    streams.commit({P0: 25}, lambda _: b"")
    streams.reopen()
    _, batch = streams.poll(0.0)
    assert isinstance(batch, Batch)
    assert [record.offset for record in batch.records] == [25, 26]
    assert batch.row == 1


def test_offsets_must_rise() -> None:
    with pytest.raises(ValueError, match="offset 3 does not follow 3"):
        MemoryStreams({"s": [[Record(3, None, b"a"), Record(3, None, b"b")]]})


def test_a_header_goes_with_its_stream() -> None:
    streams = MemoryStreams({"s": [[b"1,2"]]}, headers={"s": b"timestamp,value"})
    streams.open()
    assert [event.header for event in streams.poll(0.0) if isinstance(event, Batch)] == [b"timestamp,value"]


def test_a_partition_can_be_taken_away_and_given_back() -> None:
    streams = MemoryStreams({"s": [numbered(0, 4), numbered(4, 4)]}, max_records=4)
    streams.open()
    other = Partition("s", 1)
    consumer_positions = {event.partition: event.next_offset for event in streams.poll(0.0) if isinstance(event, Batch)}
    streams.commit(consumer_positions, lambda _: b"state")
    streams.revoke(other)
    events = streams.poll(0.0)
    assert events[0] == Revoked(other)
    assert {event.partition for event in events[1:]} == {P0}
    assert other not in streams.lag()
    with pytest.raises(ValueError, match="not assigned"):
        streams.commit({other: 4}, lambda _: b"")
    streams.assign(other)
    assert not streams.at_end()
    events = streams.poll(0.0)
    assert events[0] == Assigned(other, 2, b"state")
    assert [record.offset for record in events[1].records] == [2, 3]  # type: ignore[union-attr]
    assert streams.at_end()


def test_only_what_was_committed_can_be_read() -> None:
    streams = MemoryStreams({"s": [[]]})
    streams.open()
    streams.write([Message(OUTPUT, None, b"1")])
    assert streams.read(OUTPUT) == []
    streams.commit({}, lambda _: b"")
    assert streams.read(OUTPUT) == [Message(OUTPUT, None, b"1")]
    assert streams.read("else") == []


def test_a_position_beyond_what_was_handed_out_is_refused() -> None:
    harness = MemoryHarness()
    harness.append(0, numbered(0, 4))
    consumer = Consumer(harness.connect(max_records=2), harness)
    consumer.poll()
    with pytest.raises(ValueError, match="no position"):
        consumer.streams.commit({Partition(INPUT, 0): 4}, lambda _: b"")
