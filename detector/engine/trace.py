"""Watching the pipeline score: every scored row with its value, what was expected, its score and its threshold.

`traced` stands in for `score_block` in a pipeline and tells a listener of each block; results stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from detector.arrays import F64, I64
from detector.config.rules import RuleBook
from detector.detection.scorer import Model, ScoreBlock, Scored, score_block
from detector.detection.table import SensorTable
from detector.detection.windows import Block

explained: Final[ScoreBlock] = partial(score_block, explain=True)
"""A `score_block` that also says what was expected."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The real rows of one block, N in all, sensor by sensor and in order of time within each.

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


def traced(listener: Callable[[ScoredRows], None]) -> ScoreBlock:
    """A `score_block` that tells the listener of every block it has scored."""

    def score(table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        scored = explained(table, block, model, book)
        listener(scored_rows_of(table, block, scored))
        return scored

    return score


def scored_rows_of(table: SensorTable, block: Block, scored: Scored) -> ScoredRows:
    """The rows of a block that was scored with `explain`, before it is stored."""
    real = block.sensor, block.newest
    cells = block.tick, block.sensor
    values = block.values[real]
    return ScoredRows(
        ids=[table.name(slot) for slot in block.slots.tolist()],
        counts=np.asarray(block.ticks, dtype=np.int64),
        records=block.records,
        times=block.times[real],
        values=values,
        expected=np.full_like(values, np.nan) if scored.expected is None else scored.expected,
        scores=scored.u[cells],
        judged=np.exp(scored.v[cells]),
        thresholds=np.exp(scored.limits[cells]),
    )
