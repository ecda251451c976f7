"""Many pipelines over the same readings that differ only in how scores are judged: the scores are computed once.

A row's score depends on its sensor's readings and profile, and on nothing that thresholds or episodes decide. So one
pipeline computes the scores of a batch, and others with other budgets go the same path with those scores.
"""

from __future__ import annotations

import numpy as np

from detector.arrays import F64
from detector.config.rules import RuleBook
from detector.detection.block import Block
from detector.detection.scorer import Model, ScoreBlock, Scored, judge_block, records_of, rules_of, score_block
from detector.detection.table import SensorTable


class RecordedScores:
    """The scores of one batch by sensor, in order of its rows.

    `record` is the `score_block` of the pipeline that computes them; each of `reuse()` is that of another one, which
    has to be given the same batch after it. `forget` ends the batch.
    """

    def __init__(self) -> None:
        self._scores: dict[str, list[F64]] = {}
        self._joined: dict[str, F64] = {}
        self._reusing: list[_Reuse] = []

    def record(self, table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        """Score, and keep the scores."""
        scored = score_block(table, block, model, book)
        told, first_rows = np.stack([scored.u, scored.alarm, scored.eligible]), block.first.tolist()
        for slot, first, end in zip(block.slots.tolist(), first_rows, first_rows[1:], strict=False):
            self._scores.setdefault(table.name(slot), []).append(told[:, first:end])
        return scored

    def reuse(self) -> ScoreBlock:
        """A new `score_block` that takes the scores from here."""
        reuse = _Reuse(self)
        self._reusing.append(reuse)
        return reuse

    def of(self, sensor_id: str) -> F64:
        """All scores of a sensor in this batch, those of alerts, and what of these counts (3, rows)."""
        if sensor_id not in self._joined:
            self._joined[sensor_id] = np.concatenate(self._scores[sensor_id], axis=1)
        return self._joined[sensor_id]

    def forget(self) -> None:
        """The batch is over: every pipeline has been given it."""
        self._scores.clear()
        self._joined.clear()
        for reuse in self._reusing:
            reuse.used.clear()


class _Reuse:
    def __init__(self, recorded: RecordedScores) -> None:
        self._recorded = recorded
        self.used: dict[str, int] = {}

    def __call__(self, table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        parts = []
        for slot, count in zip(block.slots.tolist(), block.ticks.tolist(), strict=True):
            sensor_id = table.name(slot)
            first = self.used.get(sensor_id, 0)
            parts.append(self._recorded.of(sensor_id)[:, first : first + count])
            self.used[sensor_id] = first + count
        u, alarm, eligible = np.concatenate(parts, axis=1)
        records, there = records_of(table, block), block.ticks > 0
        records["score"][there] = alarm[block.first[1:][there] - 1]
        records["completions"] += block.ticks  # looks at open episodes are counted from the window's completion
        unknown, rules = np.full_like(u, np.nan), rules_of(table, block, book)
        return judge_block(table, block, (u, alarm, eligible), unknown, records, rules)
