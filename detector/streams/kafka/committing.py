"""What a commit writes about the state of partitions, and what it says about restoring them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from detector.streams.base import Message, Partition, RollingSnapshot, Snapshot
from detector.streams.kafka.held import Held
from detector.streams.kafka.slices import RestorePoint, Stored
from detector.streams.kafka.statelog import WHOLE, journal_key, pack_parts, slice_key
from detector.streams.kafka.transactions import Outgoing

_NO_EPOCH = -1


class Composition:
    """The records of one transaction, and the offsets that go with them once they are written.

    `interval`: of snapshots, `pause`: between commits, both in seconds. Slices and journal are taken at once.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        held: Sequence[Held],
        state_topics: Mapping[str, str],
        snapshot: Snapshot,
        *,
        now: float,
        interval: float,
        pause: float,
        final: bool,
    ) -> None:
        self.records: list[Outgoing] = []
        self._finish: list[Callable[[Sequence[int]], tuple[Held, RestorePoint | None]]] = []
        for one in held:
            topic = state_topics[one.partition.stream]
            if not isinstance(snapshot, RollingSnapshot):
                self._whole(one, topic, snapshot)
                continue
            rounds = math.inf if final else (now - one.planned) / interval
            self._slices(one, topic, snapshot, rounds, pause / interval)
            one.planned = now
        self.records += [
            Outgoing(message.stream, None, message.key, message.value, list(message.headers)) for message in messages
        ]

    def offsets(self, written: Sequence[int]) -> dict[TopicPartition, OffsetAndMetadata]:
        """The offsets to commit, told those of the records."""
        offsets = {}
        for finish in self._finish:
            one, point = finish(written)
            one.point = point
            offsets[one.tp] = committing(one, one.position)
        return offsets

    def _slices(self, one: Held, topic: str, snapshot: RollingSnapshot, rounds: float, share: float) -> None:
        book, position, partition = one.found.book, one.position, one.partition
        first = len(self.records)
        count = max(1, snapshot.slices(partition))
        book.all_due |= snapshot.renewed(partition)
        places: dict[int, tuple[int, int]] = {}
        for number in book.plan(count, rounds, share):
            begin = len(self.records)
            parts = self._parts(one, topic, number, snapshot.pack_slice(partition, number))
            places[number] = begin, parts
            old = book.written.get(number)
            self._gone(one, topic, number, range(parts, parts if old is None else old.parts))
        for number, parts in book.surplus(count):
            self._gone(one, topic, number, range(parts))
        for entry, data in snapshot.journal(partition):
            self.records.append(Outgoing(topic, one.tp.partition, journal_key(entry), data, []))
        last = len(self.records)

        def finish(written: Sequence[int]) -> tuple[Held, RestorePoint]:
            new = {number: Stored(position, written[at], parts) for number, (at, parts) in places.items()}
            book.commit(position, count, new, max(written[first:last], default=-1))
            return one, book.restore_point(count, one.found.skips)

        self._finish.append(finish)

    def _whole(self, one: Held, topic: str, snapshot: Callable[[Partition], bytes]) -> None:
        first = len(self.records)
        parts = self._parts(one, topic, WHOLE, snapshot(one.partition))
        self._gone(one, topic, WHOLE, range(parts, one.whole_parts))
        last = len(self.records)
        position = one.position

        def finish(written: Sequence[int]) -> tuple[Held, RestorePoint]:
            one.whole_parts = parts
            return one, RestorePoint(written[first], max(written[first:last]), position, None)

        self._finish.append(finish)

    def _parts(self, one: Held, topic: str, number: int, data: bytes) -> int:
        records = [
            Outgoing(topic, one.tp.partition, key, value, []) for key, value in pack_parts(number, one.position, data)
        ]
        self.records += records
        return len(records)

    def _gone(self, one: Held, topic: str, number: int, parts: range) -> None:
        self.records += [Outgoing(topic, one.tp.partition, slice_key(number, part), None, []) for part in parts]


def committing(one: Held, position: int) -> OffsetAndMetadata:
    """The offset of a partition with what a restore needs to know."""
    return OffsetAndMetadata(position, "" if one.point is None else one.point.encode(), _NO_EPOCH)
