"""Finding the record that nobody foresaw, so that it costs itself and neither the process nor its neighbours.

A pipeline is deterministic: from the same state the same records lead to the same failure. So after a failure
everything goes back to the last commit. When the records come again, each batch is tried with a copy of the state at
hand. A batch that fails is run on further copies, in shorter and shorter beginnings, until the record is found that
makes the difference. It has to fail alone twice, and the batch has to pass without it. Copies publish nothing.

Standard input cannot be read again. There a state and the records since are kept in memory.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from detector.engine.output import Output
from detector.engine.partition import PartitionPipeline
from detector.errors import is_foreseen
from detector.service.logs import event
from detector.service.owned import Owned
from detector.streams.base import Batch, Partition, Streams

MOST_HUNTS: Final = 3
"""Within `SPAN_SECONDS`; with more of them something else than single records is wrong."""
SPAN_SECONDS: Final = 60.0
MOST_CULPRITS: Final = 8
"""Of one batch."""
READY_SECONDS: Final = 0.001
"""Between two looks at what is decoded on other threads."""
KEPT_RECORDS: Final = 20_000
KEPT_BYTES: Final = 32 << 20
"""What is kept in memory of records that cannot be read again, before a new state is kept."""

_log = logging.getLogger(__name__)

Copy = Callable[[], PartitionPipeline]
"""Makes a pipeline with the state before a batch."""


class StartOver(Exception):  # noqa: N818  (an outcome, not an error)
    """Everything since the last commit was undone and will come again."""


@dataclass(slots=True)
class Kept:
    """A state, and the batches since."""

    state: bytes
    batches: list[Batch] = field(default_factory=list)
    records: int = 0
    bytes: int = 0


class Hunter:
    """Lets pipelines deal with batches, and finds the records that they fail at.

    `make` makes the pipeline of a partition, without state. Clocks are monotonic seconds.
    """

    def __init__(
        self, streams: Streams, make: Callable[[Partition], PartitionPipeline], monotonic: Callable[[], float]
    ) -> None:
        self._streams, self._make, self._monotonic = streams, make, monotonic
        self._begun: deque[float] = deque()
        self._suspects: dict[Partition, int] = {}  # a record before this position fails
        self._counted: dict[Partition, int] = {}  # up to where output was counted before it was undone
        self._kept: dict[Partition, Kept] = {}

    def process(self, owned: Owned, batch: Batch) -> list[Output]:
        """What a batch leads to, all of it where one is suspected. Raises StartOver where everything was undone."""
        partition = batch.partition
        owned.handed = batch.next_offset
        if owned.pipeline.restoring:
            return [owned.pipeline.process(batch)]
        if not self._streams.repeatable:
            return self._in_memory(owned, batch)
        if batch.records and batch.records[0].offset < self._suspects.get(partition, -1):
            return self._suspiciously(owned, batch, owned.pipeline.snapshot())
        self._suspects.pop(partition, None)
        try:
            return [owned.pipeline.process(batch)]
        except Exception as error:
            self._start_over(owned, error)
            raise StartOver from error

    def advance(self, owned: Owned) -> Output:
        """What has become ready of what is pending. Raises StartOver."""
        try:
            return owned.pipeline.advance()
        except Exception as error:
            if not self._streams.repeatable:
                raise
            self._start_over(owned, error)
            raise StartOver from error

    def parts(self, batch: Batch) -> list[Batch]:
        """The batch, cut where output begins that was not counted yet."""
        counted = self._counted.get(batch.partition, -1)
        at = next((i for i, record in enumerate(batch.records) if record.offset >= counted), len(batch.records))
        return [head(batch, at), tail(batch, at)] if 0 < at < len(batch.records) else [batch]

    def counts(self, pipeline: PartitionPipeline) -> bool:
        """Whether what the pipeline has returned was not counted before it was undone."""
        counted = self._counted.get(pipeline.partition)
        if counted is None:
            return True
        if pipeline.position <= counted:
            return False
        del self._counted[pipeline.partition]
        return True

    def gone(self, pipeline: PartitionPipeline) -> None:
        """The partition is no longer ours; what was not committed may come again."""
        self._kept.pop(pipeline.partition, None)
        if not pipeline.restoring:
            counted = self._counted.get(pipeline.partition, -1)
            self._counted[pipeline.partition] = max(pipeline.position, counted)

    def forget(self) -> None:
        """Pipelines were replaced: what was kept of them is of no use."""
        self._kept.clear()

    def _allow(self, error: Exception) -> None:
        """Raise the error again if no record is to blame, or too many were."""
        now = self._monotonic()
        while self._begun and self._begun[0] <= now - SPAN_SECONDS:
            self._begun.popleft()
        if is_foreseen(error) or len(self._begun) >= MOST_HUNTS:
            raise error
        self._begun.append(now)

    def _start_over(self, owned: Owned, error: Exception) -> None:
        self._allow(error)
        partition = owned.pipeline.partition
        _tell(partition, error)
        self._suspects[partition] = max(owned.handed, self._suspects.get(partition, -1))
        self._streams.roll_back()

    def _suspiciously(self, owned: Owned, batch: Batch, state: bytes) -> list[Output]:
        """Try a batch with the state before it at hand."""
        try:
            return complete(owned.pipeline, batch)
        except Exception as error:
            if is_foreseen(error):
                raise
            return self._without_culprits(owned, batch, lambda: self._copy(batch.partition, state), error)

    def _in_memory(self, owned: Owned, batch: Batch) -> list[Output]:
        partition = batch.partition
        kept = self._kept.get(partition)
        if kept is None or kept.records >= KEPT_RECORDS or kept.bytes >= KEPT_BYTES:
            kept = self._kept[partition] = Kept(owned.pipeline.snapshot())
        try:
            outputs = complete(owned.pipeline, batch)
        except Exception as error:
            self._allow(error)
            _tell(partition, error)
            before = self._copy(partition, kept.state)
            for earlier in kept.batches:
                complete(before, earlier)
            state = before.snapshot()
            outputs = self._without_culprits(owned, batch, lambda: self._copy(partition, state), error)
            self._kept[partition] = Kept(owned.pipeline.snapshot())
            return outputs
        kept.batches.append(batch)
        kept.records += len(batch.records)
        kept.bytes += sum(len(record.value or b"") for record in batch.records)
        return outputs

    def _without_culprits(self, owned: Owned, batch: Batch, copy: Copy, error: Exception) -> list[Output]:
        """Deal with a batch that failed, without the records that make it fail. Raises the error if there are none."""
        found = culprits(copy, batch)
        if not found:
            raise error
        partition = batch.partition
        event(
            _log, logging.ERROR, "records_left_out",
            stream=partition.stream, partition=partition.number, offsets=found,
        )  # fmt: skip
        owned.pipeline = copy()
        owned.pipeline.leave_out(found)
        return complete(owned.pipeline, batch)

    def _copy(self, partition: Partition, state: bytes) -> PartitionPipeline:
        pipeline = self._make(partition)
        pipeline.restore(state)
        return pipeline


def culprits(copy: Copy, batch: Batch) -> list[int]:
    """The offsets of the records that make the batch fail; empty where none can be blamed.

    `copy` makes pipelines with the state before the batch.
    """
    found: list[int] = []
    while len(found) < MOST_CULPRITS:
        if not _fails(copy, batch, found):
            return found
        passing, failing = 0, len(batch.records)
        while failing - passing > 1:
            middle = (passing + failing) // 2
            if _fails(copy, head(batch, middle), found):
                failing = middle
            else:
                passing = middle
        if not (_fails_alone(copy, batch, passing, found) and _fails_alone(copy, batch, passing, found)):
            return []
        found.append(batch.records[passing].offset)
    return []


def head(batch: Batch, count: int) -> Batch:
    """The first `count` records of a batch."""
    end = batch.records[count].offset if count < len(batch.records) else batch.next_offset
    return replace(batch, records=batch.records[:count], next_offset=end)


def tail(batch: Batch, count: int) -> Batch:
    """A batch without its first `count` records."""
    return replace(batch, records=batch.records[count:], row=batch.row + count)


def complete(pipeline: PartitionPipeline, batch: Batch) -> list[Output]:
    """Process a batch to its end, what is pending included."""
    outputs = [pipeline.process(batch)]
    while pipeline.pending:
        time.sleep(READY_SECONDS)
        outputs.append(pipeline.advance())
    return outputs


def _fails(copy: Copy, batch: Batch, without: list[int]) -> bool:
    pipeline = copy()
    pipeline.leave_out(without)
    return _raises(pipeline, batch)


def _fails_alone(copy: Copy, batch: Batch, index: int, without: list[int]) -> bool:
    """Whether the record at `index` fails by itself, after those before it."""
    pipeline = copy()
    pipeline.leave_out(without)
    if index and _raises(pipeline, head(batch, index)):
        return False
    return _raises(pipeline, head(tail(batch, index), 1))


def _raises(pipeline: PartitionPipeline, batch: Batch) -> bool:
    try:
        complete(pipeline, batch)
    except Exception as error:
        if is_foreseen(error):
            raise
        return True
    return False


def _tell(partition: Partition, error: Exception) -> None:
    _log.error(
        "processing_failed",
        exc_info=error,
        extra={"fields": {"stream": partition.stream, "partition": partition.number}},
    )
