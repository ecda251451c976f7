"""The last record of a partition of the state topic, which says whose state it is and how far the input was processed.

Every transaction writes the position last. So where another record is the last one, it was written by a release that
keeps no positions, and an older position that may be there too does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from detector.errors import UserError
from detector.streams.kafka.statelog import Kept, unpack_kept

RPC_MS: Final = 5_000
WAIT_MS: Final = 100
_FIRST_WINDOW: Final = 4
"""Offsets that are looked at first: the position and the mark of its transaction are the last two."""
_PATIENCE: Final = 10.0


class Last(NamedTuple):
    """A record and the position it says; None: it is another record."""

    offset: int
    kept: Kept | None


def focus(reader: KafkaConsumer, tp: TopicPartition, position: int) -> None:
    """Read `tp` at `position`; in between the reader may have read another partition."""
    if reader.assignment() != {tp}:
        reader.assign([tp])
        reader.seek(tp, position)
    elif reader.position(tp) != position:
        reader.seek(tp, position)


def last_record(reader: KafkaConsumer, tp: TopicPartition) -> Generator[None, None, Last | None]:
    """The last record that was committed; None if there is none. Yields after each poll."""
    start: int = reader.beginning_offsets([tp], timeout_ms=RPC_MS)[tp]
    high: int = reader.end_offsets([tp], timeout_ms=RPC_MS)[tp]
    window = _FIRST_WINDOW
    while high > start:
        # Marks and what was aborted have offsets, too, and compaction leaves gaps.
        low = position = max(start, high - window)
        found = None
        while position < high:
            focus(reader, tp, position)
            for record in reader.poll(timeout_ms=WAIT_MS).get(tp, ()):
                if record.offset < high:
                    found = Last(record.offset, unpack_kept(record.key, record.value))
            position = reader.position(tp)
            yield
        if found is not None:
            return found
        high, window = low, 2 * window
    return None


def settled(
    reader: KafkaConsumer, tp: TopicPartition, written: Callable[[TopicPartition], int]
) -> Generator[None, None, None]:
    """Wait until no transaction on the partition is open. `written`: the end of what is there, committed or not."""
    while (end := reader.end_offsets([tp], timeout_ms=RPC_MS)[tp]) < written(tp):
        focus(reader, tp, end)
        reader.poll(timeout_ms=WAIT_MS)
        yield


def check_owner(tp: TopicPartition, state: str, kept: Kept) -> None:
    """Raise UserError if the position in the state of an input is one of another input."""
    if kept.input != tp.topic:
        raise UserError(
            f"the input is {tp.topic}, and the state in {state} is of {kept.input}",
            where="streams.kafka.group_id",
            todo=f"Name {kept.input} as the input (readings.input, frames.input), or use another group_id",
        )


def check_owners(
    reader: KafkaConsumer,
    state_topics: Mapping[str, str],
    counts: Mapping[str, int],
    tick: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Raise UserError if one of the state topics that there are holds the state of another input than its own.

    `counts`: partitions of the topics. One partition is enough, for all of a topic are of one input.
    """
    for name, state in state_topics.items():
        partitions = [TopicPartition(state, number) for number in range(counts.get(state, 0))]
        if not partitions:
            continue
        starts = reader.beginning_offsets(partitions, timeout_ms=RPC_MS)
        ends = reader.end_offsets(partitions, timeout_ms=RPC_MS)
        for tp in partitions:
            if ends[tp] > starts[tp]:
                kept = _kept_in(reader, tp, tick, clock)
                if kept is not None:
                    check_owner(TopicPartition(name, tp.partition), state, kept)
                    break


def _kept_in(
    reader: KafkaConsumer, tp: TopicPartition, tick: Callable[[], None], clock: Callable[[], float]
) -> Kept | None:
    deadline = clock() + _PATIENCE
    steps = last_record(reader, tp)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            last: Last | None = done.value
            return None if last is None else last.kept
        tick()
        if clock() > deadline:
            raise KafkaTimeoutError(f"the end of {tp.topic} partition {tp.partition} cannot be read")
