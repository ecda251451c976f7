"""What is done before a partition's first batch: find out what was committed, and read the state that goes with it.

A restore runs in steps between polls, so that partitions that are live go on meanwhile. Committed offset and state are
two topics: they are read until neither moves under the other. Every call is bounded; an error that passes by itself
starts the restore anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from detector.config.settings import KafkaConfig, StateConfig
from detector.errors import OperationError, UserError
from detector.streams.base import pack_state
from detector.streams.kafka.slices import RestorePoint, SliceBook, Stored
from detector.streams.kafka.statelog import WHOLE, StateReading

_RPC_MS: Final = 5_000
_WAIT_MS: Final = 100
_MS: Final = 1_000_000  # ns

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Restored:
    """How a partition begins: its first batch at `position`, output from `live_from` on (equal: at once)."""

    position: int
    live_from: int
    state: bytes | None
    book: SliceBook
    point: RestorePoint | None
    """What the last commit said; None where there was none."""
    skips: tuple[tuple[int, int], ...] = ()
    committed: int | None = None
    """The last committed offset; None if there is none."""
    end: int = 0
    """The end of the input when the restore began."""


Steps = Generator[None, None, Restored]


class Restorer:
    """Restores partitions of the input. `group` is the member of the group, `reader` reads the state topic.

    `skip_to` gives offsets that the next restore passes on to.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        state: StateConfig,
        state_topics: Mapping[str, str],
        group: KafkaConsumer,
        reader: KafkaConsumer,
        skip_to: dict[TopicPartition, int],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka = kafka
        self._state = state
        self._state_topics = state_topics
        self._group = group
        self._reader = reader
        self._skip_to = skip_to
        self._wall_clock = wall_clock

    def restore(self, tp: TopicPartition) -> Steps:
        """Yields whenever something has to be waited for, and after some work; returns what was found.

        Raises UserError where a policy says so, and errors of the client.
        """
        while True:
            committed = yield from self._committed(tp)
            start, end = self._range(tp)
            if committed is None:
                committed_before = yield from self._holds_state(self._state_of(tp))
                if committed_before and (yield from self._committed(tp)) is not None:
                    continue
                found = self._forgotten(tp, start, end) if committed_before else self._first(tp, start, end)
                found.end = end
                return found
            _log.info("restoring %s partition %d, committed at %d", tp.topic, tp.partition, committed.offset)
            if start <= committed.offset <= end:
                point = RestorePoint.decode(committed.metadata)
                reading = None if point is None else (yield from self._read(self._state_of(tp), point))
                if (yield from self._committed(tp)) != committed:
                    continue
                found = self._assemble(tp, committed.offset, start, point, reading)
            else:
                found = self._out_of_range(tp, committed, start, end)
            found.committed, found.end = committed.offset, end
            return self._skipped(tp, found)

    def _committed(self, tp: TopicPartition) -> Generator[None, None, OffsetAndMetadata | None]:
        while True:
            try:
                found: OffsetAndMetadata | None = self._group.committed(tp, metadata=True, timeout_ms=_WAIT_MS)
                return found
            except KafkaTimeoutError:
                # A transaction of another member is still open, or the coordinator is away.
                yield

    def _range(self, tp: TopicPartition) -> tuple[int, int]:
        start: int = self._reader.beginning_offsets([tp], timeout_ms=_RPC_MS)[tp]
        end: int = self._reader.end_offsets([tp], timeout_ms=_RPC_MS)[tp]
        return start, end

    def _state_of(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(self._state_topics[tp.topic], tp.partition)

    def _read(self, tp: TopicPartition, point: RestorePoint) -> Generator[None, None, StateReading | None]:
        """The state topic from the restore point to the end that was there; None if what it names is gone."""
        try:
            self._focus(tp, point.state_from)
            while (end := self._end(tp)) <= point.state_last:
                # Either the commit is not through yet on this partition, or the records are gone.
                self._reader.poll(timeout_ms=_WAIT_MS)
                high = self._reader.highwater(tp)
                if high is not None and high <= point.state_last:
                    return None
                yield
                self._focus(tp, point.state_from)
            reading = StateReading(point.generation)
            position = told = point.state_from
            while position < end:
                for records in self._reader.poll(timeout_ms=_WAIT_MS).values():
                    for record in records:
                        if record.offset < end:
                            reading.take(record.offset, record.key, record.value)
                position = self._reader.position(tp)
                if position - told > (end - point.state_from) / 4:
                    told = position
                    share = 100 * (position - point.state_from) / (end - point.state_from)
                    _log.info("read %d %% of the state in %s partition %d", share, tp.topic, tp.partition)
                yield
                self._focus(tp, position)
            return reading
        except OffsetOutOfRangeError:
            return None

    def _focus(self, tp: TopicPartition, position: int) -> None:
        """Read `tp` at `position`; in between the reader may have read another partition."""
        if self._reader.assignment() != {tp}:
            self._reader.assign([tp])
            self._reader.seek(tp, position)
        elif self._reader.position(tp) != position:
            self._reader.seek(tp, position)

    def _end(self, tp: TopicPartition) -> int:
        end: int = self._reader.end_offsets([tp], timeout_ms=_RPC_MS)[tp]
        return end

    def _holds_state(self, tp: TopicPartition) -> Generator[None, None, bool]:
        """Whether a partition of the state has any record that was committed."""
        position: int = self._reader.beginning_offsets([tp], timeout_ms=_RPC_MS)[tp]
        end = self._end(tp)
        while position < end:
            self._focus(tp, position)
            if any(self._reader.poll(timeout_ms=_WAIT_MS).values()):
                return True
            position = self._reader.position(tp)
            yield
        return False

    def _forgotten(self, tp: TopicPartition, start: int, end: int) -> Restored:
        """The broker knows of no commit, but what is only written in a commit is there.

        Where a person has said where to go on, it is there, and neither earlier nor later.
        """
        name = f"{tp.topic} partition {tp.partition}"
        policy = self._kafka.on_offset_out_of_range
        target = self._target(tp, end)
        if target is None and policy == "fail":
            raise OperationError(
                f"the broker knows no committed offset of {name}, which has state in {self._state_topics[tp.topic]}",
                where="streams.kafka.on_offset_out_of_range: fail",
                todo="Start the group's coordinator (a broker) again if it came up lately; if the offset has expired, "
                f"name where to go on, --skip-to {tp.topic}:{tp.partition}:OFFSET, or set earliest or latest",
            )
        position = max(start, target) if target is not None else start if policy == "earliest" else end
        _log.warning("the broker knows no committed offset of %s: starting with nothing at %d", name, position)
        return self._with_nothing(tp, position)

    def _first(self, tp: TopicPartition, start: int, end: int) -> Restored:
        """The group never committed an offset of this partition."""
        position = end if self._kafka.start_from == "latest" else start
        position = max(position, self._target(tp, end) or 0)
        return self._with_nothing(tp, position)

    def _with_nothing(self, tp: TopicPartition, position: int) -> Restored:
        return Restored(position, position, None, self._new_book(tp, position), None)

    def _new_book(self, tp: TopicPartition, origin: int) -> SliceBook:
        return SliceBook(origin, journal_from=self._end(self._state_of(tp)), origin=origin)

    def _assemble(
        self, tp: TopicPartition, committed: int, start: int, point: RestorePoint | None, reading: StateReading | None
    ) -> Restored:
        if point is None:
            return self._missing(tp, committed, start, "its offset was set by something else than this program")
        if reading is None:
            return self._missing(tp, committed, start, f"its state is not in {self._state_topics[tp.topic]}", point)
        if point.slices is None:
            return self._whole(tp, committed, start, point, reading)
        if point.replay_from < start:
            why = f"the replay begins at {point.replay_from}, and the topic at {start}"
            return self._missing(tp, committed, start, why, point)
        journal = dict(reading.journal)
        if point.fresh:
            book = SliceBook(
                committed, point.state_last,
                journal_from=point.state_from, origin=point.replay_from, generation=point.generation,
            )  # fmt: skip
            return Restored(point.replay_from, committed, pack_state([], journal), book, point, point.skips)
        found = {number: one for number, one in reading.slices.items() if 0 <= number < point.slices and one.complete}
        oldest = min((one.position for one in found.values()), default=None)
        if oldest != point.replay_from:
            return self._missing(
                tp, committed, start, f"slices of it are missing in {self._state_topics[tp.topic]}", point
            )
        book = SliceBook(
            committed,
            point.state_last,
            written={number: Stored(one.position, one.offset, one.parts) for number, one in found.items()},
            unwritten={number: point.replay_from for number in range(point.slices) if number not in found},
            generation=point.generation,
        )
        state = pack_state([one.data() for one in found.values()], journal)
        _log.info(
            "read %d slices, %d bytes, of %s partition %d; %d offsets to run again",
            len(found), reading.size, tp.topic, tp.partition, committed - point.replay_from,
        )  # fmt: skip
        return Restored(point.replay_from, committed, state, book, point, point.skips)

    def _whole(
        self, tp: TopicPartition, committed: int, start: int, point: RestorePoint, reading: StateReading
    ) -> Restored:
        stored = reading.slices.get(WHOLE)
        if stored is None or not stored.complete:
            return self._missing(
                tp, committed, start, f"parts of its state are missing in {self._state_topics[tp.topic]}", point
            )
        book = SliceBook(committed, point.state_last, journal_from=point.state_from, origin=committed)
        return Restored(committed, committed, stored.data(), book, point)

    def _missing(
        self, tp: TopicPartition, committed: int, start: int, why: str, point: RestorePoint | None = None
    ) -> Restored:
        """What `state.on_missing_state` says."""
        policy = self._state.on_missing_state
        name = f"{tp.topic} partition {tp.partition}"
        if policy == "fail":
            raise UserError(
                f"the state of {name} cannot be restored: {why}",
                where="state.on_missing_state: fail",
                todo="Set it to `rebuild` (from the records kept) or `cold` (start with nothing)",
            )
        origin = committed if policy == "cold" else self._rebuild_from(tp, committed, start)
        _log.warning("the state of %s cannot be restored, %s: %s from offset %d", name, why, policy, origin)
        book = self._new_book(tp, origin)
        return Restored(origin, committed, None, book, point, () if point is None else point.skips)

    def _rebuild_from(self, tp: TopicPartition, committed: int, start: int) -> int:
        """The first retained offset that is not older than the limit, counted back from the committed position."""
        newest = self._time_before(tp, committed)
        oldest = max(0, newest - self._state.rebuild_max_age // _MS)
        found = self._reader.offsets_for_times({tp: oldest}, timeout_ms=_RPC_MS)[tp]
        offset = committed if found is None else int(found.offset)
        return min(max(offset, start), committed)

    def _time_before(self, tp: TopicPartition, committed: int) -> int:
        """The broker's time, ms, of a record close to `committed`; now, if there is none."""
        self._reader.assign([tp])
        self._reader.seek(tp, max(0, committed - 1))
        try:
            records: dict[Any, list[Any]] = self._reader.poll(timeout_ms=1000, max_records=1)
        except OffsetOutOfRangeError:
            records = {}
        for found in records.values():
            return int(found[0].timestamp)
        return int(self._wall_clock() * 1000)

    def _out_of_range(self, tp: TopicPartition, committed: OffsetAndMetadata, start: int, end: int) -> Restored:
        """The committed offset is not in the topic: records are lost, or the topic is another one."""
        policy = self._kafka.on_offset_out_of_range
        name = f"{tp.topic} partition {tp.partition}"
        if policy == "fail":
            raise UserError(
                f"the committed offset {committed.offset} of {name} is not in the topic, which has {start} to {end}",
                where="streams.kafka.on_offset_out_of_range: fail",
                todo="Set it to earliest or latest to go on without what is gone",
            )
        position = start if policy == "earliest" else end
        _log.warning("offset %d of %s is out of range: starting with nothing at %d", committed.offset, name, position)
        return self._with_nothing(tp, position)

    def _skipped(self, tp: TopicPartition, found: Restored) -> Restored:
        """What a person asked to pass over comes on top."""
        target = self._target(tp, found.end)
        if target is None or target <= found.live_from:
            return found
        _log.warning("%s partition %d: passing over %d to %d", tp.topic, tp.partition, found.live_from, target)
        found.skips = (*found.skips, (found.live_from, target))
        if found.position == found.live_from:
            found.position = target
        found.live_from = target
        return found

    def _target(self, tp: TopicPartition, end: int) -> int | None:
        """Where a person asked to go on, if so. Raises UserError if that is beyond the end of the input."""
        target = self._skip_to.get(tp)
        if target is not None and target > end:
            raise UserError(
                f"offset {target} is beyond the end of {tp.topic} partition {tp.partition}, which is {end}",
                where="--skip-to",
                todo="Name an offset within the topic",
            )
        return target
