"""One block of rows through the stages: windows, signals, scores, thresholds, episodes. No I/O, no clock.

What a row's window says by itself is calculated here, for many rows at once; what follows from it, sensor by sensor and
row after row, is the kernel's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.config.rules import RuleBook
from detector.detection import signals
from detector.detection.block import Block, Span, rings_of, starts_of
from detector.detection.context import HOURS
from detector.detection.contexts import Judged
from detector.detection.episodes import Closing, Learning, OffHours, Opening
from detector.detection.kernel.cells import CLOSED, LEARNT, OPENED, Cells, Rules, Scores, rules_for
from detector.detection.kernel.choice import choose
from detector.detection.profile import Profile, Reconstruct
from detector.detection.table import SensorTable
from detector.detection.threshold import Lesson

CHUNK: Final = 640
"""Windows scored together: 500 KB of one channel and of what the model makes of it, which a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class Model:
    """An autoencoder ready to score, and the profiles that were made with it."""

    name: str
    version: str
    digest: str
    scaler: str
    stride: int
    reconstruct: Reconstruct
    profiles: Mapping[str, Profile]


@dataclass(frozen=True, slots=True)
class Scored:
    """What the N rows of a block came to.

    `u`: scores; `alarm`: those of alerts, which rules of evidence raise; `eligible`: what of these counts towards n of
    m; `v`, `limits`: ln of the n-th largest of those, and of the threshold; `errors`: of the reconstruction, held
    between strides. All (N,).
    `earlier_peak` (n,): as it stood before the block. `expected` (N, C), if it was asked for: what
    the autoencoder makes of the newest value of each row's window, in the unit of the values, NaN where a stride left
    the row out. `records`: the state after the block, for `SensorTable.put_records`. `learnings`: peaks that were taken
    in by sensors with closed episodes to remember. `hours`: what was said of the hours of rows, None: nothing is known.
    """

    u: F64
    alarm: F64
    eligible: F64
    v: F64
    limits: F64
    errors: F64
    transitions: list[Opening | Closing]
    earlier_peak: F64
    records: Cells
    expected: F64 | None = None
    learnings: Sequence[Learning] = ()
    hours: Judged | None = None


class ScoreBlock(Protocol):
    """Scores the rows of a block: `score_block`, or what stands in for it or listens to it."""

    def __call__(self, table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        """Score every row of a block that completes a window. Writes nothing: see `Scored.records`."""
        ...


def score_block(table: SensorTable, block: Block, model: Model, book: RuleBook, *, explain: bool = False) -> Scored:
    """Score every row of a block that completes a window. Writes nothing: see `Scored.records`.

    `explain` asks for `Scored.expected`.
    """
    records, rules = records_of(table, block), rules_of(table, block, book)
    scores, errors, expected = score_rows(table, block, model, records, rules, explain=explain)
    return judge_rows(table, block, scores, errors, records, rules, expected=expected)


def score_rows(
    table: SensorTable, block: Block, model: Model, records: Cells, rules: Rules, *, explain: bool = False
) -> tuple[Scores, F64, F64 | None]:
    """What the N rows of a block are worth by themselves, whatever was judged before, and `Scored.errors` and
    `Scored.expected`. Changes `records` alone.
    """
    raw, errors, newest = _window_errors(table, block, model, records, explain=explain)
    scores = choose().kernel.score(records, rules, block.first, raw, errors, block.marked, block.inside)
    return scores, errors, newest * records["scale"][block.owner] + records["center"][block.owner] if explain else None


def judge_rows(
    table: SensorTable,
    block: Block,
    scores: Scores,
    errors: F64,
    records: Cells,
    rules: Rules,
    *,
    expected: F64 | None = None,
) -> Scored:
    """What follows from the scores of a block's rows, with what was learnt of the hours. Changes `records` alone."""
    hours = _hours(table, block, records)
    if hours is None:
        return judge_block(table, block, scores, errors, records, rules, expected=expected)
    scores = _raised(scores, hours.told, block, records, rules)
    scored = judge_block(table, block, scores, errors, records, rules, expected=expected, told=hours.told)
    return replace(scored, hours=hours)


def _hours(table: SensorTable, block: Block, records: Cells) -> Judged | None:
    """What is to be said of the hours of a block's rows; None: of no row."""
    if not table.contexts:
        return None
    scaling = records["center"], records["scale"]
    return table.contexts.judge(block.slots, block.first, block.times, block.marked, scaling, block.inside, table.name)


def _raised(scores: Scores, told: NDArray[Any], block: Block, records: Cells, rules: Rules) -> Scores:
    """The scores with those of rows that have a value of other hours. Deviations are from what is usual at the hour."""
    worth, owner, channel = told["score"], block.owner, told["channel"]
    usual = told["usual"] * records["scale"][owner, channel] + records["center"][owner, channel]
    off, asked = block.values[np.arange(len(worth)), channel] - usual, rules[owner]
    far = (np.abs(off) >= asked["absolute"]) & (np.abs(off) >= asked["relative"] * np.abs(usual))
    counts = (asked["deviates"] == 0) | (far & (asked["direction"] * off >= 0.0))
    alarm = np.maximum(scores.alarm, worth)
    there = block.ticks > 0
    records["score"][there] = alarm[block.first[1:][there] - 1]
    return scores._replace(alarm=alarm, eligible=np.maximum(scores.eligible, np.where(counts, worth, 0.0)))


def judge_block(
    table: SensorTable,
    block: Span,
    scores: Scores,
    errors: F64,
    records: Cells,
    rules: Rules,
    *,
    expected: F64 | None = None,
    told: NDArray[Any] | None = None,
) -> Scored:
    """What follows from the scores of a block: thresholds, openings, closings. Changes `records` alone.

    `told` (N,): what the rule of hours says of the rows, of the dtype `contexts.TOLD`; None: nothing.
    """
    u, calm, alarm, eligible = scores
    v, limits, events = choose().kernel.judge(records, rules, block.first, eligible, block.times, block.inside)
    learnt = events["kind"] == LEARNT
    ruled = alarm > u
    calmed = ruled & (calm >= alarm)
    if told is not None:
        told = np.where(ruled & (told["score"] >= alarm), told, np.zeros(1, dtype=told.dtype))
    transitions = [_transition(block, ruled, calmed, told, *event) for event in events[~learnt].tolist()]
    earlier_peak = table["peak"][block.slots]
    # A peak matters beyond the reservoir only where there may be others to take back.
    remembering = np.zeros(len(block.slots), dtype=bool)
    if table.last_episodes:
        remembering = np.isin(block.slots, list(table.last_episodes))
    remembering[events["at"][events["kind"] == CLOSED]] = True
    learnings = [_learning(block, *event) for event in events[learnt & remembering[events["at"]]].tolist()]
    return Scored(u, alarm, eligible, v, limits, errors, transitions, earlier_peak, records, expected, learnings)


def _transition(
    block: Span, ruled: Bools, calmed: Bools, told: NDArray[Any] | None, at: int, row: int, kind: int, ended: int,
    level: float, *lesson: Any,
) -> Opening | Closing:  # fmt: skip
    tick = row - int(block.first[at])
    if kind == OPENED:
        hours = None if told is None or not told["score"][row] else _off_hours(told[row])
        return Opening(at, tick, level, ended, bool(ruled[row]), bool(calmed[row]) and hours is None, hours)
    return Closing(at, tick, ended, level, _lesson(lesson))


def _off_hours(told: np.void) -> OffHours:
    weekday, hour = divmod(int(told["hour"]), HOURS)
    since, usual, channel = int(told["since"]), float(told["usual"]), int(told["channel"])
    return OffHours(since, usual, channel, hour, weekday if told["weekly"] else None)


def _lesson(parts: Sequence[Any]) -> Lesson:
    *numbers, left_out = parts
    return Lesson._make((*numbers, tuple(map(float, left_out))))


def _learning(block: Span, at: int, row: int, kind: int, ended: int, level: float, *lesson: Any) -> Learning:
    return Learning(at, row - int(block.first[at]), _lesson(lesson))


def rules_of(table: SensorTable, block: Block, book: RuleBook) -> Rules:
    """What is asked of a block's sensors (n,)."""
    rules = rules_for(len(book.close_after), book.open_after, book.close_after)
    rules["deviates"], rules["direction"] = book.need_deviation, book.direction
    rules["absolute"], rules["relative"] = book.absolute, book.relative
    chosen: Rules = rules.take(table["rules"][block.slots])
    return chosen


def records_of(table: SensorTable, block: Block) -> Cells:
    """The records of a block's sensors, when the rows that complete no window have moved the level average."""
    records = table.records(block.slots)
    if len(block.filling):
        center, scale = (records[name][block.filling_owner] for name in ("center", "scale"))
        z = signals.standardise(block.rows.values[block.filling], center, scale)
        if block.patches is not None:
            z[block.patches.of_rows[block.filling]] = np.nan
        first = starts_of(np.bincount(block.filling_owner, minlength=len(block.slots)))
        choose().kernel.fill(records, first, np.ascontiguousarray((z * z).T))
    return records


def _window_errors(
    table: SensorTable, block: Block, model: Model, records: Cells, *, explain: bool
) -> tuple[F64, F64, F64]:
    """What each row's window says by itself: (2 C, N) prediction errors and squared values, (N,) reconstruction errors.

    And, if asked to `explain`, (N, C) what the autoencoder makes of its newest row. Windows are built and used a few
    hundred at a time, while they are in the processor's cache. With a stride the autoencoder sees every so-manyeth
    window of a sensor, and the others' errors are NaN. Of a channel that a row lacks the first two are NaN, and
    prediction errors where `signals.unforeseen`.
    """
    rows, channels = block.values.shape
    kernel = choose().kernel
    raw, errors = np.empty((2 * channels, rows)), np.full(rows, np.nan)
    gather = kernel.windows(records, rings_of(table), block.rows, raw)
    newest = np.full((rows if explain else 0, channels), np.nan)
    room = np.empty((min(CHUNK, rows), signals.WINDOW, channels), dtype=np.float32)
    for begin in range(0, rows, CHUNK):
        part = slice(begin, min(begin + CHUNK, rows))
        inputs = room[: part.stop - begin]
        gather(part, inputs)
        patched = None if block.patches is None else block.patches.windows(part)
        if patched is not None:
            raw[:channels, part][signals.unforeseen(patched).T] = np.nan
            raw[channels:, part][patched[:, -1].T] = np.nan
        chosen: slice | I64 = slice(None)  # of the part
        if model.stride > 1:
            ticks = np.arange(begin, part.stop) - block.first[block.owner[part]]
            chosen = np.flatnonzero((records["completions"][block.owner[part]] + ticks) % model.stride == 0)
            inputs = np.ascontiguousarray(inputs[chosen])
        if not len(inputs):
            continue
        holes = None if patched is None else patched[chosen]
        outputs = signals.rebuild(inputs, holes, model.reconstruct)
        if holes is not None:
            outputs = np.where(holes, inputs, outputs)  # no error there
        errors[part][chosen] = kernel.rebuilt(inputs, outputs)
        if explain:
            newest[part][chosen] = outputs[:, -1]
    return raw, errors, newest
