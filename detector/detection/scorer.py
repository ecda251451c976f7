"""One block of rows through the stages: windows, signals, scores, thresholds, episodes. No I/O, no clock.

What a row's window says by itself is calculated here, for many rows at once; what follows from it, sensor by sensor and
row after row, is the kernel's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from detector.arrays import F64
from detector.config.rules import RuleBook
from detector.detection import signals
from detector.detection.episodes import Closing, Learning, Opening
from detector.detection.kernel.cells import CLOSED, LEARNT, OPENED, Cells, Rules, rules_for
from detector.detection.kernel.choice import choose
from detector.detection.profile import Profile, Reconstruct
from detector.detection.table import SensorTable
from detector.detection.threshold import Lesson
from detector.detection.windows import Block, Span

CHUNK: Final = 512
"""Windows scored together: 400 KB of them, which a processor's cache holds."""


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

    `u`: scores; `eligible`: what of them counts towards n of m; `v`, `limits`: ln of the n-th largest of those, and of
    the threshold; `errors`: of the reconstruction, held between strides. All (N,).
    `earlier_peak` (n,): as it stood before the block. `expected` (N, C), if it was asked for: what
    the autoencoder makes of the newest value of each row's window, in the unit of the values, NaN where a stride left
    the row out. `records`: the state after the block, for `SensorTable.put_records`. `learnings`: peaks that were taken
    in by sensors with closed episodes to remember.
    """

    u: F64
    eligible: F64
    v: F64
    limits: F64
    errors: F64
    transitions: list[Opening | Closing]
    earlier_peak: F64
    records: Cells
    expected: F64 | None = None
    learnings: Sequence[Learning] = ()


class ScoreBlock(Protocol):
    """Scores the real rows of a block: `score_block`, or what stands in for it or listens to it."""

    def __call__(self, table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        """Score every real row of a block whose windows are complete. Writes nothing: see `Scored.records`."""
        ...


def score_block(table: SensorTable, block: Block, model: Model, book: RuleBook, *, explain: bool = False) -> Scored:
    """Score every real row of a block whose windows are complete. Writes nothing: see `Scored.records`.

    `explain` asks for `Scored.expected`.
    """
    records, rules = table.records(block.slots), rules_of(table, block, book)
    scale, center = records["scale"], records["center"]
    z = signals.standardise(block.values, center[:, None], scale[:, None])
    newest = np.full((len(block.sensor), z.shape[2]), np.nan) if explain else None
    raw, errors = _window_errors(table, block, model, z, records["completions"], newest)
    values = block.values[block.sensor, block.newest]
    u, eligible = choose().kernel.score(records, rules, block.first, raw, errors, values, block.inside)
    expected = None if newest is None else newest * scale[block.sensor] + center[block.sensor]
    return judge_block(table, block, u, errors, records, rules, eligible=eligible, expected=expected)


def judge_block(
    table: SensorTable,
    block: Span,
    u: F64,
    errors: F64,
    records: Cells,
    rules: Rules,
    *,
    eligible: F64,
    expected: F64 | None = None,
) -> Scored:
    """What follows from the scores u (N,) of a block: thresholds, openings, closings. Changes `records` alone.

    `eligible` (N,): what of the scores counts.
    """
    times = block.times[block.sensor, block.newest]
    v, limits, events = choose().kernel.judge(records, rules, block.first, eligible, times, block.inside)
    learnt = events["kind"] == LEARNT
    transitions = [_transition(block, *event) for event in events[~learnt].tolist()]
    earlier_peak = table["peak"][block.slots]
    # A peak matters beyond the reservoir only where there may be others to take back.
    remembering = np.isin(block.slots, list(table.last_episodes))
    remembering[events["at"][events["kind"] == CLOSED]] = True
    learnings = [_learning(block, *event) for event in events[learnt & remembering[events["at"]]].tolist()]
    return Scored(u, eligible, v, limits, errors, transitions, earlier_peak, records, expected, learnings)


def _transition(
    block: Span, at: int, row: int, kind: int, ended: int, level: float, *lesson: float
) -> Opening | Closing:
    tick = row - int(block.first[at])
    return Opening(at, tick, level, ended) if kind == OPENED else Closing(at, tick, ended, level, Lesson(*lesson))


def _learning(block: Span, at: int, row: int, kind: int, ended: int, level: float, *lesson: float) -> Learning:
    return Learning(at, row - int(block.first[at]), Lesson(*lesson))


def rules_of(table: SensorTable, block: Block, book: RuleBook) -> Rules:
    """What is asked of a block's sensors (n,)."""
    rules = rules_for(len(book.close_after), book.open_after, book.close_after)
    rules["deviates"], rules["direction"] = book.need_deviation, book.direction
    rules["absolute"], rules["relative"] = book.absolute, book.relative
    chosen: Rules = rules[table["rules"][block.slots]]
    return chosen


def fill_block(table: SensorTable, block: Block) -> None:
    """Let rows that complete no window yet move the level average, which needs none."""
    records = table.records(block.slots)
    z = signals.standardise(block.values, records["center"][:, None], records["scale"][:, None])
    newest = z[block.sensor, block.newest]
    choose().kernel.fill(records, block.first, np.ascontiguousarray((newest * newest).T))
    table.put_records(block.slots, records)


def _window_errors(
    table: SensorTable, block: Block, model: Model, z: F64, completions: Any, newest: F64 | None
) -> tuple[F64, F64]:
    """What each row's window says by itself: (2 C, N) prediction errors and squared values, (N,) reconstruction errors.

    Windows are built and used a few hundred at a time, while they are in the processor's cache. With a stride the
    autoencoder sees every so-manyeth window of a sensor, and the others' errors are NaN; `completions` (n,): windows
    before. `newest` (N, C) is filled with what the autoencoder makes of each window's last row.
    """
    channels, rows = z.shape[2], len(block.sensor)
    forecast = np.zeros((channels, len(block.slots), signals.WINDOW))
    forecast[:, :, :-1] = table["ridge"][block.slots].transpose(1, 0, 2)
    biases = table["bias"][block.slots]
    flat = np.empty((2 * channels, rows))
    rebuilt = np.full(rows, np.nan)
    due = (completions[block.sensor] + np.arange(rows) - block.first[block.sensor]) % model.stride == 0
    for begin in range(0, rows, CHUNK):
        part = slice(begin, begin + CHUNK)
        sensor = block.sensor[part]
        windows = [block.windows(z, channel, part) for channel in range(channels)]
        for channel, one in enumerate(windows):
            bias = biases[sensor, channel]
            flat[channel, part] = signals.prediction_errors(one, forecast[channel][sensor], bias)
            np.multiply(one[:, -1], one[:, -1], out=flat[channels + channel, part])
        inputs = block.model_windows(windows)
        if model.stride == 1:
            outputs = model.reconstruct(inputs)
            rebuilt[part] = signals.reconstruction_errors(inputs, outputs)
            if newest is not None:
                newest[part] = outputs[:, -1]
        elif due[part].any():
            chosen = np.ascontiguousarray(inputs[due[part]])
            outputs = model.reconstruct(chosen)
            rebuilt[part][due[part]] = signals.reconstruction_errors(chosen, outputs)
            if newest is not None:
                newest[part][due[part]] = outputs[:, -1]
    return flat, rebuilt
