"""Frames are decoded on other threads, several at a time, and handed on in the order of their records."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, NamedTuple

from detector.errors import is_foreseen
from detector.streams.base import Batch, Record
from detector.wire.frames import Frame, FrameDecoder, NoFrame
from detector.wire.readings import INTERNAL, Verdict

PORTION_RECORDS: Final = 64
PORTION_BYTES: Final = 65_536
"""Small frames go to a thread together: handing one over costs as much as decoding it."""
PENDING_RECORDS: Final = 2048
PENDING_BYTES: Final = 64 * 1024 * 1024
"""More than this is not held in memory: whoever adds to it waits."""
_WAIT_SECONDS: Final = 0.25


class Unforeseen(NamedTuple):
    """The decoder failed at a record, twice; the traceback."""

    traceback: str


Decoded = tuple[Frame | Verdict | NoFrame | Unforeseen, ...]


@dataclass(slots=True)
class Portion:
    """Records that are decoded together, and the position behind them."""

    records: Sequence[Record]
    position: int
    bytes: int
    decoded: Future[Decoded]


def decoding_threads() -> ThreadPoolExecutor:
    """As many threads as there are processors for this process, but four at most."""
    return ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), thread_name_prefix="decode")


class FrameQueue:
    """What was taken in and not handed on. `pulse` is called while something is waited for."""

    def __init__(self, decoder: FrameDecoder, threads: ThreadPoolExecutor, pulse: Callable[[], None]) -> None:
        self._decoder = decoder
        self._threads = threads
        self._pulse = pulse
        self._portions: deque[Portion] = deque()
        self._records = self._bytes = 0

    def __len__(self) -> int:
        """Portions that wait."""
        return len(self._portions)

    def add(self, batch: Batch, left_out: Set[int] = frozenset()) -> None:
        """Begin to decode a batch; of records at the offsets `left_out` nothing is looked at."""
        begin, size, records = 0, 0, batch.records
        if not records:
            # Offsets without records, such as a replay may end with: the position has to pass them in its turn.
            self._submit((), batch.next_offset, 0, frozenset())
        for index, record in enumerate(records):
            size += len(record.value or b"")
            if size >= PORTION_BYTES or index + 1 - begin >= PORTION_RECORDS or index + 1 == len(records):
                end = batch.next_offset if index + 1 == len(records) else records[index + 1].offset
                portion = records[begin : index + 1]
                skipped = frozenset(record.offset for record in portion) & left_out if left_out else frozenset()
                self._submit(portion, end, size, skipped)
                begin, size = index + 1, 0

    def take(self, *, all_of_it: bool = False) -> list[Portion]:
        """The portions that are decoded, up to the first that is not.

        Waits for as many as memory should not hold, or for all.
        """
        taken = []
        while self._portions:
            first = self._portions[0]
            if not first.decoded.done():
                if not all_of_it and self._records <= PENDING_RECORDS and self._bytes <= PENDING_BYTES:
                    break
                while wait([first.decoded], _WAIT_SECONDS).not_done:
                    self._pulse()
            self._portions.popleft()
            self._records -= len(first.records)
            self._bytes -= first.bytes
            taken.append(first)
        return taken

    def _submit(self, records: Sequence[Record], position: int, size: int, left_out: frozenset[int]) -> None:
        future = self._threads.submit(_decode, self._decoder, records, left_out)
        self._portions.append(Portion(records, position, size, future))
        self._records += len(records)
        self._bytes += size


def _decode(decoder: FrameDecoder, records: Sequence[Record], left_out: frozenset[int]) -> Decoded:
    return tuple(
        NoFrame("internal", INTERNAL) if record.offset in left_out else _frame(decoder, record) for record in records
    )


def _frame(decoder: FrameDecoder, record: Record) -> Frame | Verdict | NoFrame | Unforeseen:
    try:
        return decoder.decode(record)
    except Exception as error:
        if is_foreseen(error):
            raise
    try:
        return decoder.decode(record)
    except Exception as error:
        if is_foreseen(error):
            raise
        return Unforeseen("".join(traceback.format_exception(error)))
