"""The partition clock: the event time by which timers fire, taken from the records alone."""

from __future__ import annotations

import numpy as np

from detector.arrays import I64
from detector.detection.columns import NEVER

DAY = 86_400 * 10**9
AHEAD_LIMIT = 20
"""So many readings in a row beyond a day ahead are believed."""


class PartitionClock:
    """The largest timestamp accepted so far, ns.

    A timestamp more than a day ahead is first taken for a broken sensor clock; only the 20th reading in a row beyond
    that day moves the clock. Such a jump is a time in which the whole partition was silent: it counts for no timer.
    """

    def __init__(self, now: int = NEVER, ahead: int = 0) -> None:
        self.now = now
        self.ahead = ahead

    def advance(self, times: I64, records: I64, count: int) -> tuple[I64, list[tuple[int, int]]]:
        """Take in the readings' times (n,) of records (n,) ascending, in order of arrival.

        Returns the clock after each of the `count` records, and the jumps as (record, by how much).
        """
        after = np.empty(len(times) + 1, dtype=np.int64)
        after[0] = self.now
        after[1:] = times
        np.maximum.accumulate(after, out=after)
        jumps: list[tuple[int, int]] = []
        if len(times) and (self.now == NEVER or (times > after[:-1] + DAY).any()):
            jumps = self._one_by_one(times, records, after)
        elif len(times):
            self.ahead = 0
        self.now = int(after[-1])
        return after[np.searchsorted(records, np.arange(count), side="right")], jumps

    def _one_by_one(self, times: I64, records: I64, after: I64) -> list[tuple[int, int]]:
        jumps = []
        now, ahead = self.now, self.ahead
        for i, (time, record) in enumerate(zip(times.tolist(), records.tolist(), strict=True)):
            if now == NEVER:
                now = time
            elif time > now + DAY:
                ahead += 1
                if ahead >= AHEAD_LIMIT:
                    jumps.append((record, time - now))
                    now, ahead = time, 0
            else:
                now, ahead = max(now, time), 0
            after[i + 1] = now
        self.ahead = ahead
        return jumps
