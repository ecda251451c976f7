"""The frames of several cameras side by side, ready to be scored: what `windows.Block` is for readings."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F32, F64, I64, Bools
from detector.detection.faultmemory import FAULT_MEMORY
from detector.detection.scorer import Scored, judge_block, scores_of
from detector.detection.table import SensorTable, Slots

_FROZEN: Final = ("worst", "worst_zz")
_MOVING: Final = ("mean", "variance", "count", *FAULT_MEMORY)


class FrameBlock:
    """A span of frames of n cameras, those with the most frames first; see `windows.Span`.

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
        order = np.argsort(begin - end, kind="stable")
        self.slots = slots[order]
        begin, ticks = begin[order], (end - begin)[order]
        self.ticks = ticks
        n, kept = len(order), table["times"].shape[1]
        self.sensor = np.repeat(np.arange(n), ticks)
        self.tick = np.arange(len(self.sensor)) - np.repeat(np.cumsum(ticks) - ticks, ticks)
        self._source = np.repeat(begin, ticks) + self.tick
        self.newest = kept + self.tick
        self.inside: Bools | None = None
        self.height = int(ticks[0])
        self.active: list[int] = np.searchsorted(-ticks, -np.arange(self.height), side="left").tolist()
        self.times: I64 = np.zeros((n, kept + self.height), dtype=np.int64)
        self.times[:, :kept] = table["times"][self.slots]
        self.times[self.sensor, self.newest] = times[self._source]
        self.records = records[self._source]
        self.elements = np.zeros(len(self.records), dtype=np.int64)
        self.signal = signal[self._source]
        self._filled = table["filled"][self.slots].astype(np.int64)
        self._before = table["frame"]
        self._frames = frames
        self._begin = begin
        self._kept = kept

    def by_tick(self, flat: NDArray[Any]) -> NDArray[Any]:
        """A flat array of frames as (T, n); where a camera has no t-th frame the cell is 0."""
        out = np.zeros((self.height, len(self.slots)), dtype=flat.dtype)
        out[self.tick, self.sensor] = flat
        return out

    def frame_at(self, at: int, tick: int) -> tuple[I64, F32]:
        """The times of the last frames, at most m, and the newest frame, after the camera's `tick`-th; -1: before."""
        end = self._kept + tick + 1
        filled = min(int(self._filled[at]) + tick + 1, self._kept)
        times = self.times[at, end - filled : end]
        frame = self._before[self.slots[at]] if tick < 0 else self._frames[self._begin[at] + tick]
        return times, frame

    def store(self, table: SensorTable, offsets: I64) -> None:
        """Write the last times and the newest frames back. `offsets`: stream offset of each record of the batch."""
        rows = np.arange(len(self.slots))
        last = self._begin + self.ticks - 1
        table["times"][self.slots] = self.times[rows[:, None], self.ticks[:, None] + np.arange(self._kept)]
        table["filled"][self.slots] = np.minimum(self._filled + self.ticks, self._kept)
        table["frame"][self.slots] = self._frames[last]
        table["offset"][self.slots] = offsets[self.records[np.cumsum(self.ticks) - 1]]


def score_frame_block(table: SensorTable, block: FrameBlock, open_after: tuple[int, int], close_after: int) -> Scored:
    """Score every frame of a block by its signal. Writes nothing: see `Scored.cells`."""
    frozen = table.take(block.slots, _FROZEN)
    moving = table.take(block.slots, _MOVING)
    signal = block.by_tick(block.signal)
    u = scores_of(block, signal[:, None], frozen, moving)
    n = len(block.slots)
    scored = judge_block(table, block, u, signal, np.tile(open_after, (n, 1)), np.full(n, close_after), eligible=u)
    scored.cells.update(moving)
    return scored
