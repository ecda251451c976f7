"""Many pipelines over the same readings that differ only in how scores are judged: what they share is computed once.

A row's score depends on its sensor's readings and profile, and on nothing that thresholds or episodes decide. So one
pipeline computes the scores of a batch, and others with other budgets go the same path with those scores. What an hour
of the day adds to them is each one's own: what lay in an episode teaches nothing of the hours. The window that an open
episode is looked at in, and what kind of fault it shows, are no matter of the budget either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from detector.arrays import F64, I64
from detector.config.rules import RuleBook
from detector.detection.block import Block
from detector.detection.kernel.cells import Scores
from detector.detection.opened import Episode
from detector.detection.profile import Carry, Profile, Reconstruct, build_profile
from detector.detection.scorer import Model, ScoreBlock, Scored, judge_rows, records_of, rules_of, score_rows
from detector.detection.table import SensorTable
from detector.engine.alertwriter import AlertWriter, Moment
from detector.engine.readings import MakeWriter
from detector.streams.base import Partition
from detector.wire.alerts import Event


class RecordedScores:
    """The scores of one batch by sensor, in order of its rows.

    `record` is the `score_block` of the pipeline that computes them; each of `reuse()` is that of another one, which
    has to be given the same batch after it. `forget` ends the batch.
    """

    def __init__(self) -> None:
        self._scores: dict[str, list[F64]] = {}
        self._reusing: list[_Reuse] = []

    def record(self, table: SensorTable, block: Block, model: Model, book: RuleBook) -> Scored:
        """Score, and keep the scores."""
        records, rules = records_of(table, block), rules_of(table, block, book)
        scores, errors, _ = score_rows(table, block, model, records, rules)
        kept, first_rows = np.stack(scores), block.first.tolist()
        for slot, first, end in zip(block.slots.tolist(), first_rows, first_rows[1:], strict=False):
            self._scores.setdefault(table.name(slot), []).append(kept[:, first:end])
        return judge_rows(table, block, scores, errors, records, rules)

    def reuse(self) -> ScoreBlock:
        """A new `score_block` that takes the scores from here."""
        reuse = _Reuse(self)
        self._reusing.append(reuse)
        return reuse

    def of(self, sensor_id: str) -> F64:
        """All `Scores` of a sensor in this batch (4, rows)."""
        parts = self._scores[sensor_id]
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts, axis=1)]
        return parts[0]

    def forget(self) -> None:
        """The batch is over: every pipeline has been given it."""
        self._scores.clear()
        for reuse in self._reusing:
            reuse.used.clear()


class SharedLooks:
    """The windows that open episodes were looked at in one batch, for all of the pipelines, and what they showed.

    `writer()` is each one's writer of alerts. Its messages show no rows, but for those of openings and closings if they
    are to be `pictured`. `forget` ends the batch.
    """

    def __init__(self, *, pictured: bool = False) -> None:
        self.pictured = pictured
        self.moments: dict[tuple[str, int, int, int], Moment] = {}

    def writer(self) -> MakeWriter:
        """What makes the writer of a pipeline."""
        return lambda *arguments: _BriefWriter(self, *arguments)

    def forget(self) -> None:
        """The batch is over: every pipeline has been given it."""
        self.moments.clear()


_OF_THE_PROFILE: Final = ("center", "scale", "ridge", "bias", "still_limit", "resolution", "noise_hush")
"""What a moment has from the cells of its sensor's profile."""


class _BriefWriter(AlertWriter):
    def __init__(
        self, shared: SharedLooks, stream: str, partition: Partition, model: Model, channels: tuple[str, ...]
    ) -> None:
        super().__init__(stream, partition, model, channels)
        self._shared = shared

    def after(self, table: SensorTable, block: Block, at: int, tick: int, score: float, offset: int) -> Moment:
        if tick < 0:
            return super().after(table, block, at, tick, score, offset)
        slot, row = int(block.slots[at]), int(block.first[at]) + tick
        key = table.name(slot), int(block.records[row]), int(block.elements[row]), int(block.times[row])
        moment = self._shared.moments.get(key)
        if moment is None:
            moment = super().after(table, block, at, tick, score, offset)
            # The table of one pipeline goes on before the others come to this row.
            copied = {name: getattr(moment, name).copy() for name in _OF_THE_PROFILE}
            moment = replace(moment, **copied)
            moment.window = self._window(moment)._replace(known={})
            self._shared.moments[key] = moment
        return replace(moment, score=score, offset=offset, budget=float(table["budget"][slot]))

    def _content(self, episode: Episode, moment: Moment, event: Event) -> dict[str, Any]:
        if self._shared.pictured and event != "updated":
            return super()._content(episode, moment, event)
        return {"window": None, **self._claims(episode, moment)}


class SharedProfiles:
    """The profiles that the warm-ups of one batch make, for all of the pipelines. `forget` ends the batch."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[Profile, Carry]] = {}

    def build(self, times: I64, values: F64, reconstruct: Reconstruct, **how: Any) -> tuple[Profile, Carry]:
        """`build_profile`, once for equal readings of a sensor."""
        _, sensor_id = how["hours"]
        key = sensor_id, how["least"], how["open_after"], times.tobytes(), values.tobytes()
        if key not in self._made:
            self._made[key] = build_profile(times, values, reconstruct, **how)
        return self._made[key]

    def forget(self) -> None:
        """The batch is over: every pipeline has been given it."""
        self._made.clear()


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
        scores = Scores(*np.concatenate(parts, axis=1))
        records, there = records_of(table, block), block.ticks > 0
        records["score"][there] = scores.alarm[block.first[1:][there] - 1]
        records["completions"] += block.ticks  # looks at open episodes are counted from the window's completion
        return judge_rows(table, block, scores, np.full_like(scores.u, np.nan), records, rules_of(table, block, book))
