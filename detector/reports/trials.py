"""What would be told of one sensor if its readings were others: trials that go on from copies of its state.

The sensor's recording runs once through a pipeline of its own, which is copied at many rows. A trial takes up such a
copy and is given other readings than those that follow. Sensors do not touch each other but for the clock of their
partition, so what a trial tells is what `run` would. Every reading is a record of its own, so that timers fire between
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from detector.arrays import F64, I64, Bools
from detector.detection.scorer import ScoreBlock, score_block
from detector.detection.watch import Reason
from detector.engine.readings import ReadingsPipeline
from detector.reports.sampled import Recorded
from detector.reports.scoreboard import EpisodeSpan, episodes_of
from detector.streams.base import Batch, Partition, Record
from detector.wire.alerts import Alert, decode_alert
from detector.wire.readings import Decoder, Readings

COPIES: Final = 40
"""Rows at which the state is copied, spread over the recording."""
CALM: Final = 100
"""Rows before a trial in which no episode of the recording may be."""
_AT_ONCE: Final = 8_192
_LOOK: Final = 50
"""Rows of a trial after which it is looked whether it is told by now."""
_NOBODY: Final = Partition("trial", 0)


class MakePipeline(Protocol):
    """Makes an empty pipeline; one that tells no silence is faster, and tells the same of what is read."""

    def __call__(self, decoder: Decoder, score: ScoreBlock, *, silence: bool) -> ReadingsPipeline:
        """The pipeline of a partition without state."""
        ...


@dataclass(frozen=True, slots=True)
class Copy:
    """The state before a row of the recording. `quiet`: no episode was open."""

    row: int
    state: bytes
    quiet: bool


@dataclass(frozen=True, slots=True)
class Followed:
    """One sensor's recording run to its end: copies of the state where it was watched, and its episodes in rows.

    `episodes`: first and last row, of one still open the last of all. `unwatched`: why it is not watched at the end;
    None: it is. `threshold`: as it stands at the end, in units of the score; None: nothing was scored.
    """

    recorded: Recorded
    copies: tuple[Copy, ...]
    episodes: tuple[tuple[int, int], ...]
    unwatched: Reason | None
    threshold: float | None

    def placements(self, rows: int, most: int) -> list[Copy]:
        """At most this many copies, spread out, after which `rows` rows follow without an episode."""
        fitting = [copy for copy in self.copies if copy.quiet and self._calm(copy.row, rows)]
        if len(fitting) <= most:
            return fitting
        return [fitting[i] for i in np.linspace(0, len(fitting) - 1, most).round().astype(int)]

    def before(self, row: int) -> Copy | None:
        """The last copy before a row."""
        return next((copy for copy in reversed(self.copies) if copy.row < row), None)

    def _calm(self, row: int, rows: int) -> bool:
        if row + rows > len(self.recorded):
            return False
        return all(last < row - CALM or first >= row + rows for first, last in self.episodes)


def follow(make: MakePipeline, recorded: Recorded, copies: int = COPIES, at: Sequence[int] | None = None) -> Followed:
    """Run a sensor's recording from its beginning to its end. `at`: the rows at which the state is copied, ascending;
    None: `copies` of them, spread out.
    """
    laid = _Laid()
    pipeline = make(laid, score_block, silence=False)
    pipeline.begin(0)
    rows = len(recorded)
    spread = {round(rows * number / (copies + 1)) for number in range(1, copies + 1)} - {0}
    cuts = sorted(spread) if at is None else list(at)
    taken: list[Copy] = []
    alerts: list[Alert] = []
    for begin, end in zip([0, *cuts], [*cuts, rows], strict=True):
        # With a high threshold it is scored all the same, and a trial shows what that means.
        if begin and all(reason == "threshold" for _, reason in pipeline.some_unwatched(1)):
            taken.append(Copy(begin, pipeline.snapshot(), pipeline.open_episodes == 0))
        alerts += laid.run(pipeline, recorded, begin, end)
    unwatched = pipeline.some_unwatched(1)
    view = pipeline.overview([recorded.sensor_id], 0).named
    return Followed(
        recorded,
        tuple(taken),
        tuple(_in_rows(span, recorded.times) for span in episodes_of(alerts)),
        unwatched[0][1] if unwatched else None,
        view[0].threshold if view and np.isfinite(view[0].threshold) else None,
    )


def run_on(
    make: MakePipeline, copy: Copy, changed: Recorded, stop: int, *, score: ScoreBlock = score_block
) -> list[Alert]:
    """Go on from a copy through the rows of `changed` up to `stop`, and return what is published.

    `changed` has the rows of the recording, from the copy's on with other values.
    """
    laid = _Laid()
    pipeline = make(laid, score, silence=False)
    pipeline.restore(copy.state, position=copy.row)
    return laid.run(pipeline, changed, copy.row, stop)


def opening(
    make: MakePipeline,
    copy: Copy,
    changed: Recorded,
    stop: int,
    *,
    unsent: Bools | None = None,
    other: str | None = None,
) -> Alert | None:
    """The same up to the first episode that calls a person: the message that opens it.

    Rows that are `unsent` (n,) do not come, and only then silence is told, against `other`: the id of a sensor that is
    heard whenever this one would be, which moves the clock.
    """
    laid = _Laid()
    pipeline = make(laid, score_block, silence=unsent is not None)
    pipeline.restore(copy.state, position=copy.row)
    for begin in range(copy.row, stop, _LOOK):
        for alert in laid.run(pipeline, changed, begin, min(begin + _LOOK, stop), unsent, other):
            if alert.event == "opened" and not alert.muted:
                return alert
    return None


def _in_rows(span: EpisodeSpan, times: I64) -> tuple[int, int]:
    first = span.started if span.judged_from is None else min(span.started, span.judged_from)
    last = int(times[-1]) if span.ended is None else max(span.ended, span.detected)
    begin, end = np.searchsorted(times, (first, last)).tolist()
    return begin, end


class _Laid:
    """A decoder for readings that are laid out already."""

    def __init__(self) -> None:
        self._next: Readings | None = None

    def decode(self, batch: Batch) -> Readings:
        """The readings of the batch at hand."""
        if self._next is None:
            raise AssertionError(f"nothing was laid out for {batch.partition}")
        return self._next

    def run(
        self,
        pipeline: ReadingsPipeline,
        recorded: Recorded,
        begin: int,
        end: int,
        unsent: Bools | None = None,
        other: str | None = None,
    ) -> list[Alert]:
        """Give the pipeline some rows, each a record of its own; what it publishes of the sensor."""
        alerts: list[Alert] = []
        for first in range(begin, end, _AT_ONCE):
            rows = np.arange(first, min(first + _AT_ONCE, end))
            self._next = _readings(recorded, rows, unsent, other)
            count, position = len(self._next), pipeline.position
            records = [Record(position + i, None, b"") for i in range(count)]
            output = pipeline.process(Batch(_NOBODY, records, position + count))
            alerts += [decode_alert(message.value) for message in output.alerts]
        return [alert for alert in alerts if alert.sensor_id == recorded.sensor_id]


def _readings(recorded: Recorded, rows: I64, unsent: Bools | None, other: str | None) -> Readings:
    """Rows as a batch of one reading a record; with `other` one of that sensor before each, which has no value."""
    names: Sequence[str] = [recorded.sensor_id] if other is None else [other, recorded.sensor_id]
    whose = np.tile(np.arange(len(names)), len(rows))
    rows = np.repeat(rows, len(names))
    if unsent is not None:
        kept = ~unsent[rows] | (whose < len(names) - 1)
        whose, rows = whose[kept], rows[kept]
    values = recorded.values[rows]
    if other is not None:
        values[whose == 0] = np.nan
    count = len(rows)
    return Readings(
        ids=[names[i] for i in whose.tolist()],
        counts=np.ones(count, dtype=np.int64),
        records=np.arange(count, dtype=np.int64),
        elements=np.zeros(count, dtype=np.int64),
        times=recorded.times[rows],
        values=values,
        rejects=[],
        channels=None if recorded.channels is None else recorded.channels[rows],
    )


def with_values(recorded: Recorded, values: F64) -> Recorded:
    """The same readings with other values (n, C)."""
    return Recorded(recorded.sensor_id, recorded.times, values, recorded.channels)
