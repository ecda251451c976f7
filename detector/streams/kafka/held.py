"""A partition of the input that this process holds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import TopicPartition

from detector.streams.base import Batch, Partition
from detector.streams.kafka.restoring import Restored
from detector.streams.kafka.slices import RestorePoint


class Held:
    """From its assignment until it is taken away; what was restored is there from `adopt` on.

    `next` is the offset of the next record expected from the broker, `handed` the position after the last batch,
    `position` the last one the consumer of batches named for a commit, `committed` and `point` what the last commit
    said; `whole_parts` the parts of its state where that is stored whole; `planned` when slices were last chosen;
    `announced`: whether the assignment was handed out; `forgotten`: whether the broker has to be told the committed
    position again; `since`: the time of the assignment.
    """

    def __init__(self, tp: TopicPartition, since: float) -> None:
        self.tp = tp
        self.since = since
        self.partition = Partition(tp.topic, tp.partition)
        self.restored: Restored | None = None
        self.next = 0
        self.handed = 0
        self.position = 0
        self.committed: int | None = None
        self.point: RestorePoint | None = None
        self.whole_parts = 0
        self.planned = 0.0
        self.announced = False
        self.forgotten = False

    def adopt(self, restored: Restored) -> None:
        """It was restored: records from `restored.position` on may come."""
        self.restored = restored
        self.next = self.handed = restored.position
        self.position = restored.live_from
        self.committed = restored.committed
        self.forgotten = restored.forgotten
        self.point = restored.point

    @property
    def found(self) -> Restored:
        if self.restored is None:
            raise ValueError(f"{self.partition} is not assigned")
        return self.restored

    @property
    def moved(self) -> bool:
        """Whether the broker has to be told its position."""
        return self.forgotten or self.position != self.committed

    @property
    def replaying(self) -> bool:
        """Whether batches still lie before the committed position."""
        return self.restored is not None and self.handed < self.restored.live_from

    def jump(self, position: int) -> int | None:
        """Where to go on instead of at `position`, if that is to be passed over."""
        for first, last in self.found.skips:
            if first <= position < last:
                return last
        return None

    def batches(self, records: Sequence[Any], position: int) -> Iterator[Batch]:
        """The records as batches, of which none reaches across the committed position.

        `position`: the offset up to which the broker's log was read.
        """
        live_from = self.found.live_from
        for first, _ in self.found.skips:
            if self.next < first:
                records = records[: bisect_left(records, first, key=_offset)]
        middle = bisect_left(records, live_from, key=_offset) if self.handed < live_from else 0
        replayed, live = records[:middle], records[middle:]
        self.next = max(self.next, position, records[-1].offset + 1 if records else 0)
        if replayed:
            self.handed = live_from if live or self.next >= live_from else replayed[-1].offset + 1
            yield Batch(self.partition, replayed, self.handed)
        elif self.handed < live_from <= self.next:
            # What is left before the committed position are offsets without records.
            self.handed = live_from
            yield Batch(self.partition, (), live_from)
        if live:
            self.handed = live[-1].offset + 1
            yield Batch(self.partition, live, self.handed)


def _offset(record: Any) -> int:
    offset: int = record.offset
    return offset
