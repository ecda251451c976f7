"""The frames of several cameras side by side, ready to be scored: what `block.Block` is for readings."""

from __future__ import annotations

import numpy as np

from detector.arrays import F32, F64, I64, Bools
from detector.detection.block import starts_of
from detector.detection.kernel.cells import rules_for
from detector.detection.kernel.choice import choose
from detector.detection.scorer import Scored, judge_block
from detector.detection.table import SensorTable, Slots


class FrameBlock:
    """A span of frames of n cameras; see `block.Span`.

    `slots` (n,); `begin`, `end` (n,): where each camera's frames lie in what follows. `times` (F,) ns, `frames`
    (F, h, w), `signal` (F,), `records` (F,): the frames of a batch, grouped by camera.
    """

    def __init__(
        self,
        table: SensorTable,
        slots: Slots,
        begin: Slots,
        end: Slots,
        times: I64,
        frames: F32,
        signal: F64,
        records: I64,
    ) -> None:
        self.slots = slots
        self.ticks = ticks = end - begin
        self.first = starts_of(ticks)
        n, kept = len(slots), table["times"].shape[1]
        self.owner = np.repeat(np.arange(n), ticks)
        tick = np.arange(len(self.owner)) - np.repeat(self.first[:-1], ticks)
        self._source = np.repeat(begin, ticks) + tick
        self.inside: Bools | None = None
        self.times = times[self._source]
        self._times: I64 = np.zeros((n, kept + int(ticks.max())), dtype=np.int64)
        self._times[:, :kept] = table["times"][self.slots]
        self._times[self.owner, kept + tick] = self.times
        self.records = records[self._source]
        self.elements = np.zeros(len(self.records), dtype=np.int64)
        self.signal = signal[self._source]
        # Of the frames before it, all but the oldest have a score.
        self._scores: F64 = np.full(self._times.shape, np.nan)
        self._scores[:, 1:kept] = table["recent"][self.slots]
        self._place = self.owner, kept + tick
        self._filled = table["filled"][self.slots].astype(np.int64)
        self._before = table["frame"]
        self._frames = frames
        self._begin = begin
        self._kept = kept

    def scored(self, scores: F64) -> None:
        """Take note of what the frames (N,) score by themselves."""
        self._scores[self._place] = scores

    def frame_at(self, at: int, tick: int) -> tuple[I64, F64, F32]:
        """The last frames, at most m, after the camera's `tick`-th, -1: before: times, own scores; and the newest.

        A score is NaN where it is not known any more.
        """
        end = self._kept + tick + 1
        filled = min(int(self._filled[at]) + tick + 1, self._kept)
        last = slice(end - filled, end)
        frame = self._before[self.slots[at]] if tick < 0 else self._frames[self._begin[at] + tick]
        return self._times[at, last], self._scores[at, last], frame

    def record_before(self, at: int) -> int:
        """-1: every frame of it is scored."""
        return -1

    def store(self, table: SensorTable, offsets: I64) -> None:
        """Write the last times and the newest frames back. `offsets`: stream offset of each record of the batch."""
        rows = np.arange(len(self.slots))
        last = self._begin + self.ticks - 1
        table["times"][self.slots] = self._times[rows[:, None], self.ticks[:, None] + np.arange(self._kept)]
        table["filled"][self.slots] = np.minimum(self._filled + self.ticks, self._kept)
        table["frame"][self.slots] = self._frames[last]
        table["offset"][self.slots] = offsets[self.records[np.cumsum(self.ticks) - 1]]


def score_frame_block(table: SensorTable, block: FrameBlock, open_after: tuple[int, int], close_after: int) -> Scored:
    """Score every frame of a block by its signal. Writes nothing: see `Scored.records`."""
    records = table.records(block.slots)
    rules = rules_for(len(block.slots), open_after, close_after)
    nothing = np.empty((0, len(block.signal)))
    kernel = choose().kernel
    scores = kernel.score(records, rules, block.first, nothing, block.signal, nothing.T, block.inside)
    return judge_block(table, block, scores, block.signal, records, rules)
