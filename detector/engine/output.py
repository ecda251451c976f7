"""What a batch came to, and, where that is asked for, every scored row of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, I64
from detector.config.rules import RuleBook
from detector.detection.block import Block
from detector.detection.scorer import Model, ScoreBlock, Scored, score_block
from detector.detection.table import SensorTable
from detector.detection.watch import WatchChange
from detector.detection.windows import Tally
from detector.engine.announcer import Announcement
from detector.streams.base import Message
from detector.wire.alerts import Kind
from detector.wire.readings import Word

explained: Final[ScoreBlock] = partial(score_block, explain=True)
"""A `score_block` that also says what was expected."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The scored rows of one block, N in all, sensor by sensor and in order of time within each.

    `counts` (n,): rows of each of the `ids`. `records` (N,): index of each row's record in its batch. `times` (N,): ns.
    `values`, `expected` (N, C): in the unit of the values; `expected` is what the autoencoder makes of the window's
    newest value, NaN where a stride left the row out. `scores`, `judged`, `thresholds` (N,): 1 = as bad as the worst of
    training; `judged` is the n-th largest of the last m scores, the one that is compared with the threshold.
    """

    ids: list[str]
    counts: I64
    records: I64
    times: I64
    values: F64
    expected: F64
    scores: F64
    judged: F64
    thresholds: F64


class Sentinel(NamedTuple):
    """A value of a sensor's channel that came so often in its prefix, and is taken as missing."""

    sensor_id: str
    channel: str
    value: float
    times: int


class SensorFailure(NamedTuple):
    """A sensor that was set aside: at which stage, by the record at which offset, and the traceback."""

    sensor_id: str
    stage: str
    offset: int
    traceback: str


@dataclass(slots=True)
class Output:
    """What a batch came to: messages to publish in order, and what the metrics count.

    `errors`, `scores`: reconstruction errors and scores of the rows scored. `rejected`: by reason. `events`: alerts
    that are not muted, by (event, severity); `muted`: the others. `opened`, `allowed`: episodes that a person was
    called for, and those that the budget allows for the rows scored. `watched`: the time that these rows stand for by
    the intervals of their sensors, ns. `records`: how many came in, `refused`: which of them were rejected in whole or
    in part. `new_sensors`: sensors not known before. `resized`: accepted frames of another size than the model's.
    `rows`: what was scored, in full, where that was asked for. `failed`: elements of sensors that are set aside;
    `failures`: those that were set aside now. `internal`: what was unforeseen of records. `late_of`: how many of a
    sensor came too late; `set_back`: how often its clock was. `sentinels`: values taken as missing from now on.
    `watch_changes`: sensors that ceased to be watched, or are again. `verdicts`: what acknowledges those that took
    effect; `judged`: how many, by word.
    """

    kind: Kind = "readings"
    alerts: list[Message] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    excluded: int = 0
    resized: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    errors: list[F64] = field(default_factory=list)
    scores: list[F64] = field(default_factory=list)
    rows: list[ScoredRows] = field(default_factory=list)
    events: dict[tuple[str, str], int] = field(default_factory=dict)
    muted: int = 0
    opened: int = 0
    allowed: float = 0.0
    watched: int = 0
    budgets_limited: int = 0
    records: int = 0
    first_time: int | None = None
    refused: list[int] = field(default_factory=list)
    new_sensors: list[str] = field(default_factory=list)
    failed: int = 0
    failures: list[SensorFailure] = field(default_factory=list)
    internal: list[str] = field(default_factory=list)
    late_of: Counter[str] = field(default_factory=Counter)
    set_back: Counter[str] = field(default_factory=Counter)
    sentinels: list[Sentinel] = field(default_factory=list)
    watch_changes: list[WatchChange] = field(default_factory=list)
    verdicts: list[Message] = field(default_factory=list)
    judged: Counter[Word] = field(default_factory=Counter)

    def publish(self, announcements: Iterable[Announcement]) -> None:
        """Add alerts, in their order."""
        for one in announcements:
            self.alerts.append(one.message)
            self.opened += one.notifies
            if one.muted:
                self.muted += 1
            else:
                self.events[one.event, one.severity] = self.events.get((one.event, one.severity), 0) + 1

    def outcomes(self) -> dict[str, int]:
        """How many readings, or frames, ended how."""
        tally = self.tally
        if self.kind == "frames":
            return {
                "accepted": tally.accepted - self.resized,
                "resized": self.resized,
                "late": tally.late,
                "duplicate": tally.duplicate,
                "failed": self.failed,
                "rejected": sum(self.rejected.values()),
            }
        return {
            "accepted": tally.accepted,
            "missing": tally.missing,
            "late": tally.late,
            "duplicate": tally.duplicate,
            "excluded": self.excluded,
            "failed": self.failed,
            "rejected": sum(self.rejected.values()),
        }


def traced(listener: Callable[[ScoredRows], None]) -> ScoreBlock:
    """A `score_block` that tells the listener of every block it has scored."""

    def score(table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        scored = explained(table, block, model, book)
        listener(scored_rows_of(table, block, scored))
        return scored

    return score


def scored_rows_of(table: SensorTable, block: Block, scored: Scored) -> ScoredRows:
    """The rows of a block that was scored with `explain`, before it is stored."""
    return ScoredRows(
        ids=[table.name(slot) for slot in block.slots[block.ticks > 0].tolist()],
        counts=np.asarray(block.ticks[block.ticks > 0], dtype=np.int64),
        records=block.records,
        times=block.times,
        values=block.values,
        expected=np.full_like(block.values, np.nan) if scored.expected is None else scored.expected,
        scores=scored.alarm,
        judged=np.exp(scored.v),
        thresholds=np.exp(scored.limits),
    )
