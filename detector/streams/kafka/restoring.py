"""What is done before a partition's first batch: find out what was committed, and read the state that goes with it.

A restore runs in steps between polls, so that partitions that are live go on meanwhile. Committed offset and state are
two topics: they are read until neither moves under the other. Every call is bounded; an error that passes by itself
starts the restore again.

A broker can forget an offset. The state keeps the position, too, and is believed where the broker knows none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from detector.config.settings import StateConfig
from detector.config.streams import KafkaConfig
from detector.errors import OperationError, UserError
from detector.streams.base import pack_state
from detector.streams.kafka.slices import RestorePoint, SliceBook, Stored
from detector.streams.kafka.statelog import WHOLE, Kept, StateReading
from detector.streams.kafka.tail import RPC_MS, WAIT_MS, Last, check_owner, focus, last_record, settled

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
    """The last committed offset; None if there is none, or none that counts."""
    forgotten: bool = False
    """Whether the broker does not know that offset, so that it has to be given to it."""
    end: int = 0
    """The end of the input when the restore began."""
    topic_id: str = ""
    """Of the input; "" where the broker gives none."""


Steps = Generator[None, None, Restored]


def _said(committed: OffsetAndMetadata | None, last: Last | None) -> tuple[RestorePoint | None, int]:
    """The restore point and the position that the broker says, or else the state."""
    if committed is not None:
        return RestorePoint.decode(committed.metadata), committed.offset
    if last is None or last.kept is None:
        raise ValueError("neither knows a position")
    point = RestorePoint.decode(last.kept.point)
    return None if point is None else replace(point, state_last=last.offset), last.kept.position


class Restorer:
    """Restores partitions of the input. `group` is the member of the group, `reader` reads the state topic.

    `skip_to` gives offsets that the next restore passes on to; `topic_id` the id of a topic, "" if it is not known.
    `written` gives the end of a partition with what no transaction has committed yet. `on_forgotten` is called when the
    broker knows no offset of a partition and its state does.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        state: StateConfig,
        state_topics: Mapping[str, str],
        group: KafkaConsumer,
        reader: KafkaConsumer,
        skip_to: dict[TopicPartition, int],
        *,
        written: Callable[[TopicPartition], int],
        topic_id: Callable[[str], str] = lambda _: "",
        on_forgotten: Callable[[], None] = lambda: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka = kafka
        self._state = state
        self._state_topics = state_topics
        self._group = group
        self._reader = reader
        self._skip_to = skip_to
        self._written = written
        self._topic_id = topic_id
        self._on_forgotten = on_forgotten
        self._wall_clock = wall_clock

    def restore(self, tp: TopicPartition) -> Steps:
        """Yields whenever something has to be waited for, and after some work; returns what was found.

        Raises UserError where a policy says so, and errors of the client.
        """
        state = self._state_of(tp)
        while True:
            committed = yield from self._committed(tp)
            start, end = self._range(tp)
            last: Last | None = None
            if committed is None:
                last = yield from self._last(state)
                if (yield from self._committed(tp)) is not None:
                    continue
                if last is None or last.kept is None:
                    found = self._first(tp, start, end) if last is None else self._forgotten(tp, start, end)
                    return self._done(found, tp, end)
            point, position = _said(committed, last)
            _log.info("restoring %s partition %d, committed at %d", tp.topic, tp.partition, position)
            reading = None if point is None else (yield from self._read(state, point))
            if (yield from self._committed(tp)) != committed or (last and (yield from self._last(state)) != last):
                continue
            kept = last.kept if last is not None else None if reading is None else reading.kept
            if kept is not None:
                check_owner(tp, state.topic, kept)
            if kept is not None and self._is_another(tp, kept):
                found = self._made_anew(tp, start, end)
            elif start <= position <= end:
                found = self._assemble(tp, position, start, point, reading)
                found.committed = position
            else:
                found = self._out_of_range(tp, position, start, end)
            if last is not None:
                found.forgotten = True
                self._tell_forgotten(tp, found)
            return self._skipped(tp, self._done(found, tp, end))

    def _done(self, found: Restored, tp: TopicPartition, end: int) -> Restored:
        found.end = end
        found.topic_id = self._topic_id(tp.topic)
        return found

    def _last(self, tp: TopicPartition) -> Generator[None, None, Last | None]:
        """The last record of a partition of the state, when none is left whose transaction is not through."""
        yield from settled(self._reader, tp, self._written)
        return (yield from last_record(self._reader, tp))

    def _tell_forgotten(self, tp: TopicPartition, found: Restored) -> None:
        _log.warning(
            "offset_forgotten",
            extra={"fields": {"stream": tp.topic, "partition": tp.partition, "position": found.live_from}},
        )
        self._on_forgotten()

    def _committed(self, tp: TopicPartition) -> Generator[None, None, OffsetAndMetadata | None]:
        while True:
            try:
                found: OffsetAndMetadata | None = self._group.committed(tp, metadata=True, timeout_ms=WAIT_MS)
                return found
            except KafkaTimeoutError:
                # A transaction of another member is still open, or the coordinator is away.
                yield

    def _range(self, tp: TopicPartition) -> tuple[int, int]:
        start: int = self._reader.beginning_offsets([tp], timeout_ms=RPC_MS)[tp]
        end: int = self._reader.end_offsets([tp], timeout_ms=RPC_MS)[tp]
        return start, end

    def _state_of(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(self._state_topics[tp.topic], tp.partition)

    def _read(self, tp: TopicPartition, point: RestorePoint) -> Generator[None, None, StateReading | None]:
        """The state topic from the restore point to the end that was there; None if what it names is gone."""
        try:
            focus(self._reader, tp, point.state_from)
            while (end := self._end(tp)) <= point.state_last:
                # Either the commit is not through yet on this partition, or the records are gone.
                self._reader.poll(timeout_ms=WAIT_MS)
                high = self._reader.highwater(tp)
                if high is not None and high <= point.state_last:
                    return None
                yield
                focus(self._reader, tp, point.state_from)
            reading = StateReading(point.generation)
            position = told = point.state_from
            while position < end:
                for records in self._reader.poll(timeout_ms=WAIT_MS).values():
                    for record in records:
                        if record.offset < end:
                            reading.take(record.offset, record.key, record.value)
                position = self._reader.position(tp)
                if position - told > (end - point.state_from) / 4:
                    told = position
                    share = 100 * (position - point.state_from) / (end - point.state_from)
                    _log.info("read %d %% of the state in %s partition %d", share, tp.topic, tp.partition)
                yield
                focus(self._reader, tp, position)
            return reading
        except OffsetOutOfRangeError:
            return None

    def _end(self, tp: TopicPartition) -> int:
        end: int = self._reader.end_offsets([tp], timeout_ms=RPC_MS)[tp]
        return end

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
        found = self._reader.offsets_for_times({tp: oldest}, timeout_ms=RPC_MS)[tp]
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

    def _out_of_range(self, tp: TopicPartition, committed: int, start: int, end: int) -> Restored:
        """The committed offset is not in the topic: records are lost."""
        name = f"{tp.topic} partition {tp.partition}"
        return self._as_policy_says(
            tp, start, end,
            f"the committed offset {committed} of {name} is not in the topic, which has {start} to {end}",
            f"offset {committed} of {name} is out of range",
        )  # fmt: skip

    def _is_another(self, tp: TopicPartition, kept: Kept) -> bool:
        topic_id = self._topic_id(tp.topic)
        return bool(topic_id and kept.topic_id) and topic_id != kept.topic_id

    def _made_anew(self, tp: TopicPartition, start: int, end: int) -> Restored:
        """The offsets that the state knows are those of a topic that had the same name."""
        why = f"{tp.topic} was recreated, and the state of partition {tp.partition} is of the topic before it"
        return self._as_policy_says(tp, start, end, why, why)

    def _as_policy_says(self, tp: TopicPartition, start: int, end: int, why: str, log: str) -> Restored:
        """Start with nothing where `on_offset_out_of_range` says. Raises UserError if it says `fail`."""
        policy = self._kafka.on_offset_out_of_range
        if policy == "fail":
            raise UserError(
                why,
                where="streams.kafka.on_offset_out_of_range: fail",
                todo="Set it to earliest or latest to go on without what is gone",
            )
        position = start if policy == "earliest" else end
        _log.warning("%s: starting with nothing at %d", log, position)
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
