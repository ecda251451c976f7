"""What a commit writes about the state of partitions, and what it says about restoring them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from detector.streams.base import Message, Partition, RollingSnapshot, Snapshot
from detector.streams.kafka.held import Held
from detector.streams.kafka.slices import RestorePoint, Stored
from detector.streams.kafka.statelog import (
    KEPT_FORMAT,
    WHOLE,
    Kept,
    journal_key,
    pack_kept,
    pack_parts,
    slice_key,
)
from detector.streams.kafka.transactions import Outgoing

MAX_STATE_BYTES: Final = 8 << 20
"""The most state in one transaction (and one slice more): it has to be through long before its time is over."""
_NO_EPOCH: Final = -1


class Composition:
    """The records of one transaction, and the offsets that go with them once they are written.

    `interval`: of snapshots, `pause`: between commits, both in seconds. Slices and journal are taken at once. With
    `lagging` every slice is written that a restore would have to run something again for; `left` says how many of them
    there was no room for. A renewal that has begun is completed: what does not fit has to be written ahead
    (`next_of_renewal`).
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
        lagging: bool,
    ) -> None:
        self.records: list[Outgoing] = []
        self.left = 0
        self._room = _room(held)
        self._finish: list[Callable[[Sequence[int]], tuple[Held, RestorePoint | None]]] = []
        for one in held:
            topic = state_topics[one.partition.stream]
            if not isinstance(snapshot, RollingSnapshot):
                self._whole(one, topic, snapshot)
                continue
            book, count = one.found.book, max(1, snapshot.slices(one.partition))
            if book.renewal is not None:
                self._slices(one, topic, snapshot, count, book.lagging(count, one.position), math.inf)
            elif lagging:
                self.left += self._slices(one, topic, snapshot, count, book.lagging(count, one.position))
            else:
                planned = book.plan(count, (now - one.planned) / interval, pause / interval)
                book.left_out(self._slices(one, topic, snapshot, count, planned))
            one.planned = now
        self.records += [
            Outgoing(
                message.stream, None, message.key, None if message.null else message.value, list(message.headers),
                message.timestamp,
            )
            for message in messages
        ]  # fmt: skip

    def offsets(self, written: Sequence[int]) -> dict[TopicPartition, OffsetAndMetadata]:
        """The offsets to commit, told those of the records."""
        offsets = {}
        for finish in self._finish:
            one, point = finish(written)
            one.point = point
            offsets[one.tp] = committing(one, one.position)
        return offsets

    def _slices(
        self,
        one: Held,
        topic: str,
        snapshot: RollingSnapshot,
        count: int,
        planned: Sequence[int],
        room: float | None = None,
    ) -> int:
        """Add slices and journal of a partition; returns how many of those planned there was no room for."""
        book, position, partition = one.found.book, one.position, one.partition
        first = len(self.records)
        pieces = Pieces(one, topic, snapshot, planned, self._room if room is None else room)
        self.records += pieces.records
        for number, parts in book.surplus(count):
            self.records += _gone(one, topic, number, range(parts), book.generation)
        for entry, data in snapshot.journal(partition):
            self.records.append(Outgoing(topic, one.tp.partition, journal_key(entry), data, []))
        coming = book.coming(position, count, pieces.stored_from, one.found.skips)
        self.records.append(_kept(one, topic, position, coming))
        last = len(self.records)

        def finish(written: Sequence[int]) -> tuple[Held, RestorePoint]:
            book.commit(position, count, pieces.stored(written[first:last]), max(written[first:last], default=-1))
            return one, book.restore_point(count, one.found.skips)

        self._finish.append(finish)
        return pieces.left

    def _whole(self, one: Held, topic: str, snapshot: Callable[[Partition], bytes]) -> None:
        first = len(self.records)
        parts = self._parts(one, topic, WHOLE, snapshot(one.partition))
        self.records += _gone(one, topic, WHOLE, range(parts, one.whole_parts), 0)
        position, book = one.position, one.found.book
        free = book.journal_from if one.point is None else one.point.state_last + 1
        self.records.append(_kept(one, topic, position, RestorePoint(free, free - 1, position, None)))
        last = len(self.records)

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


class Pieces:
    """The records of slices of one partition as of its position, `planned` ones in order, as many as there is room for.

    At least one in any case. `left`: how many there was no room for.
    """

    def __init__(self, one: Held, topic: str, snapshot: RollingSnapshot, planned: Sequence[int], room: float) -> None:
        book, generation = one.found.book, one.found.book.writing
        self.records: list[Outgoing] = []
        self.size = 0
        self.left = 0
        self._position = one.position
        self._places: dict[int, tuple[int, int]] = {}
        for number in planned:
            if self.size >= room and self._places:
                self.left = len(planned) - len(self._places)
                break
            begin = len(self.records)
            data = snapshot.pack_slice(one.partition, number)
            self.records += [
                Outgoing(topic, one.tp.partition, key, value, [])
                for key, value in pack_parts(number, one.position, data, generation)
            ]
            parts = len(self.records) - begin
            self.size += sum(len(record.value or b"") for record in self.records[begin:])
            self._places[number] = begin, parts
            self.records += _gone(one, topic, number, range(parts, book.parts_before(number)), generation)

    def stored(self, written: Sequence[int]) -> dict[int, Stored]:
        """Where the slices are, told the offsets of the records."""
        return {number: Stored(self._position, written[at], parts) for number, (at, parts) in self._places.items()}

    def stored_from(self, offset: int) -> dict[int, Stored]:
        """Where they will be, as far as they are not before `offset`."""
        return self.stored([offset] * len(self.records))


def next_of_renewal(
    one: Held, held: Sequence[Held], state_topics: Mapping[str, str], snapshot: RollingSnapshot
) -> Pieces | None:
    """Slices of the next generation that have to be written ahead of a commit of `held`; None if the rest goes with it.

    They are of the position that commit will be at, and no restore looks at them before it is through.
    """
    book = one.found.book
    if book.renewal is None:
        return None
    lacking = book.lagging(max(1, snapshot.slices(one.partition)), one.position)
    topic = state_topics[one.partition.stream]
    pieces = Pieces(one, topic, snapshot, lacking, _room(held))
    if not pieces.left:
        return None
    if one.committed is not None and one.point is not None:
        # Whatever is written last in the state topic, it is the position.
        pieces.records.append(_kept(one, topic, one.committed, one.point))
    return pieces


def _room(held: Sequence[Held]) -> float:
    """Bytes of state of each partition in a transaction."""
    return MAX_STATE_BYTES / max(1, len(held))


def _kept(one: Held, topic: str, position: int, point: RestorePoint) -> Outgoing:
    kept = Kept(KEPT_FORMAT, one.tp.topic, one.found.topic_id, position, point.encode())
    return Outgoing(topic, one.tp.partition, *pack_kept(kept), [])


def _gone(one: Held, topic: str, number: int, parts: range, generation: int) -> list[Outgoing]:
    return [Outgoing(topic, one.tp.partition, slice_key(number, part, generation), None, []) for part in parts]


def committing(one: Held, position: int) -> OffsetAndMetadata:
    """The offset of a partition with what a restore needs to know."""
    return OffsetAndMetadata(position, "" if one.point is None else one.point.encode(), _NO_EPOCH)
