"""Streams that live in this process: for tests and backtests, with the same guarantees as the others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detector.streams.base import (
    Assigned,
    Batch,
    Deferred,
    Event,
    Message,
    Partition,
    Record,
    Revoked,
    Snapshot,
    nothing_deferred,
)


@dataclass(slots=True)
class _Log:
    """One partition: its records, how far they were handed out, and what the last durable commit says."""

    records: list[Record] = field(default_factory=list)
    index: int = 0  # of the next record to hand out
    end: int = 0  # number of records at `open`
    committed: int = 0  # a position
    position: int = 0  # like `committed`, the last commit's, durable or not
    state: bytes | None = None
    assigned: bool = True


class MemoryStreams:
    """The `Streams` of in-process logs; what is appended while it is open is handed out, too.

    `inputs` gives each stream its partitions, and each partition its records: `Record`s with rising offsets of their
    own, or values (`bytes`), which are given the offset after the last. `headers` are CSV headers by stream. Only
    every `durable_every`-th commit is durable (and `final` ones), which plays a backend that is not due each time.

    >>> streams = MemoryStreams({"readings": [[b"one", b"two"]]})
    >>> streams.open()
    >>> assigned, batch = [*streams.poll(0), *streams.poll(0)]
    >>> [record.value for record in batch.records], batch.next_offset
    ([b'one', b'two'], 2)
    >>> streams.write([Message("alerts", b"pump", b"alert")])
    >>> streams.commit({batch.partition: 2}, lambda partition: b"state")
    True
    >>> [message.value for message in streams.read("alerts")]
    [b'alert']
    """

    def __init__(
        self,
        inputs: Mapping[str, Sequence[Sequence[Record | bytes]]],
        max_records: int = 5000,
        *,
        headers: Mapping[str, bytes] | None = None,
        durable_every: int = 1,
    ) -> None:
        self.max_records = max_records
        self._headers = dict(headers or {})
        self.durable_every = durable_every
        self._logs: dict[Partition, _Log] = {}
        self._events: list[Event] = []
        self._written: list[Message] = []
        self._committed: list[Message] = []
        self._commits = 0
        self._turn = 0
        for stream, partitions in inputs.items():
            for number, records in enumerate(partitions):
                self._logs[Partition(stream, number)] = _Log()
                self.append(Partition(stream, number), records)

    def append(self, partition: Partition, records: Sequence[Record | bytes]) -> None:
        """Add to an input, as a producer would. Raises `ValueError` unless offsets rise."""
        log = self._logs[partition]
        for item in records:
            following = log.records[-1].offset + 1 if log.records else 0
            record = item if isinstance(item, Record) else Record(following, None, item)
            if record.offset < following:
                raise ValueError(f"offset {record.offset} does not follow {following - 1}")
            log.records.append(record)

    def read(self, stream: str) -> list[Message]:
        """What an output stream holds, as a reader sees it that reads only what is committed durably."""
        return [message for message in self._committed if message.stream == stream]

    def reopen(self) -> None:
        """Play a crash and a new start: everything since the last durable commit is undone."""
        self.close()
        self.open()

    def revoke(self, partition: Partition) -> None:
        """Play a rebalance that takes the partition away."""
        self._logs[partition].assigned = False
        self._events.append(Revoked(partition))

    def assign(self, partition: Partition) -> None:
        """Play a rebalance that gives the partition (back), at its last durable commit."""
        log = self._logs[partition]
        log.assigned = True
        log.position = log.committed
        log.index = _index(log, log.committed)
        self._events.append(Assigned(partition, log.committed, log.state))

    def open(self) -> None:
        self._events = []
        for partition, log in self._logs.items():
            log.end = len(log.records)
            self.assign(partition)

    def poll(self, timeout: float) -> Sequence[Event]:
        """As documented for `Streams`, but never waits: nothing can happen meanwhile."""
        events, self._events = self._events, []
        ready = [entry for entry in self._logs.items() if entry[1].assigned and entry[1].index < len(entry[1].records)]
        left = self.max_records
        if ready:
            self._turn = (self._turn + 1) % len(ready)
            ready = ready[self._turn :] + ready[: self._turn]
        for place, (partition, log) in enumerate(ready):
            share = max(1, left // (len(ready) - place))
            records = log.records[log.index : log.index + min(share, left)]
            if records:
                events.append(
                    Batch(
                        partition,
                        records,
                        records[-1].offset + 1,
                        self._headers.get(partition.stream),
                        log.index,
                    )
                )
                log.index += len(records)
                left -= len(records)
        return events

    def write(self, messages: Sequence[Message]) -> None:
        self._written.extend(messages)

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        for partition, position in positions.items():
            log = self._logs[partition]
            if not log.assigned:
                raise ValueError(f"{partition} is not assigned")
            if not log.position <= position <= self._handed_out(log):
                raise ValueError(f"{position} is no position of {partition}, committed up to {log.position}")
            log.position = position
        self._commits += 1
        if not final and self._commits % self.durable_every:
            return False
        for partition, log in self._logs.items():
            if log.assigned and (partition in positions or log.position != log.committed):
                log.state = snapshot(partition)
                log.committed = log.position
        self._committed += [*self._written, *deferred()]
        self._written = []
        return True

    @property
    def settled(self) -> bool:
        return True

    @property
    def repeatable(self) -> bool:
        return True

    def roll_back(self) -> None:
        self._written = []
        for partition in [partition for partition, log in self._logs.items() if log.assigned]:
            self.revoke(partition)
            self.assign(partition)

    def at_end(self) -> bool:
        return not self._events and all(log.index >= log.end for log in self._logs.values() if log.assigned)

    def lag(self) -> Mapping[Partition, int]:
        return {partition: len(log.records) - log.index for partition, log in self._logs.items() if log.assigned}

    def close(self) -> None:
        self._written = []
        self._events = []

    @staticmethod
    def _handed_out(log: _Log) -> int:
        return max(log.position, log.records[log.index - 1].offset + 1 if log.index else 0)


def _index(log: _Log, position: int) -> int:
    return bisect_left(log.records, position, key=lambda record: record.offset)
