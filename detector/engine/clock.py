"""The partition clock: the event time by which timers fire, taken from the records alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from detector.arrays import I64
from detector.detection.columns import NEVER

DAY = 86_400 * 10**9
RUN_LIMIT = 20
"""This many readings in a row beyond a day ahead, or behind, are believed."""

Place: TypeAlias = tuple[int, int]
"""A reading by the offset of its record, and its number among those of the record that count."""
Jumps: TypeAlias = dict[Place, int]
"""By how much the clock jumped with a reading, ns."""


class Heard:
    """Who was heard on a partition, as the clock has to know it.

    `name` gives the sensor of a reading of the batch, by its index. `after` gives the ids of the sensors whose last
    reading before the batch came when the clock was beyond a time. `since` gives those whose last reading before the
    batch has an offset from the one given on. `within`: how long ago counts as heard, ns; nobody is forgotten so soon.
    """

    def __init__(
        self,
        name: Callable[[int], str],
        after: Callable[[int], set[str]] = lambda _: set(),
        since: Callable[[int], set[str]] = lambda _: set(),
        within: int = DAY,
    ) -> None:
        self.name, self.after, self.since, self.within = name, after, since, within


def _is_looked_at(count: int) -> bool:
    """Whether everybody is asked after this many readings in a row: it is dear, so seldom in a long run."""
    return count == RUN_LIMIT or count & (count - 1) == 0


class _Passage:
    """Readings (N,) of a batch on their way through the clock, one after the other."""

    def __init__(self, owners: I64, offsets: I64, heard: Heard, after: I64) -> None:
        """`owners` (N,): their records, `offsets` (R,): of these; `after` (N + 1,): the clock, set behind each."""
        self.heard, self.after = heard, after
        self.drifts = np.zeros(len(owners) + 1, dtype=np.int64)
        """By how much the clock has jumped before each reading."""
        self._records = offsets[owners].tolist()
        self._firsts = np.searchsorted(owners, owners, side="left").tolist()  # the first reading of each one's record
        self._ends = np.searchsorted(owners, owners, side="right")  # behind the last one

    def place(self, i: int) -> Place:
        """That of a reading."""
        return self._records[i], i - self._firsts[i]

    def heard_of_late(self, i: int) -> set[str]:
        """Who was heard shortly before a reading, by the clock then."""
        now, drift = int(self.after[i]), int(self.drifts[i])
        # Heard is who is in a record when all of it has passed, as the table has it. A jump moves that along.
        passed = np.minimum(self._ends[:i], i)
        at = self.after[passed] + drift - self.drifts[passed]
        late = np.flatnonzero(at > now - self.heard.within).tolist()
        return self.heard.after(now - drift - self.heard.within) | {self.heard.name(j) for j in late}

    def heard_in_run(self, i: int, count: int, since: int) -> set[str]:
        """Who was heard in the last `count` readings, this one the newest, or in the same record as the first of them.

        `since`: the offset of that; of records before this batch no more is known.
        """
        run = {self.heard.name(j) for j in range(self._firsts[max(i + 1 - count, 0)], i + 1)}
        return run | self.heard.since(since) if count > i + 1 else run


def _within_a_day(times: I64, before: I64) -> bool:
    """Whether no reading lies more than a day from the clock before it."""
    earliest, latest, now = times.min(), times.max(), before[0]
    if latest <= now + DAY and earliest >= max(now, latest) - DAY:  # which it nearly always is
        return True
    return not ((times > before + DAY) | (times < before - DAY)).any()


class PartitionClock:
    """The largest timestamp accepted so far, ns.

    A timestamp more than a day ahead is first taken for a broken sensor clock. Only the 20th reading in a row beyond
    that day moves the clock, and they have to come from two sensors where more than one was heard within a day, or go
    through a day by themselves. Such a jump is a time in which the whole partition was silent: it counts for no timer.

    The clock goes back only where every sensor that is heard lies more than a day behind it: at least 20 readings in a
    row, from all sensors that were heard within the last day of the clock. Timers do not notice this either.

    Who was heard can be known only while all sensors stand at the same record. Where some of the state is newer than
    the records that are run again, the jumps are not decided again: `tell` gives those of the first time.

    >>> clock, second = PartitionClock(), 10**9
    >>> times, records = np.array([5, 3, 9]) * second, np.array([0, 1, 2])
    >>> after, jumps = clock.advance(times, records, offsets=records, heard=Heard(lambda reading: "pump"))
    >>> after // second, jumps
    (array([5, 5, 9]), [])
    """

    def __init__(self, now: int = NEVER, ahead: int = 0) -> None:
        self.now = now
        self.ahead = ahead
        """Readings in a row beyond a day ahead."""
        self.ahead_from = NEVER
        """The earliest of their times, ns."""
        self.ahead_of: str | None = None
        """The sensor that all of them are from; None: there is none, or there are several."""
        self.behind = 0
        """Readings in a row beyond a day behind."""
        self.behind_since = -1
        """The offset of the first of them."""
        self.behind_newest = NEVER
        """The latest of their times, ns."""
        self.jumps: Jumps = {}
        """Those that may be needed to run records again."""
        self._told_until = 0

    def tell(self, jumps: Jumps, until: int) -> None:
        """Of records before the offset `until` these were the jumps, and there were no others."""
        self.jumps, self._told_until = dict(jumps), until

    def advance(self, times: I64, owners: I64, offsets: I64, heard: Heard) -> tuple[I64, list[tuple[int, int]]]:
        """Take in the readings' times (N,) of the records `owners` (N,) ascending, in order of arrival.

        `offsets` (R,): of the records. Returns the clock after each record, and the jumps as (record, by how much): a
        record with a jump begins a stretch through which the clock only rises.
        """
        after = np.empty(len(times) + 1, dtype=np.int64)
        after[0] = self.now
        after[1:] = times
        np.maximum.accumulate(after, out=after)
        jumps: list[tuple[int, int]] = []
        before = after[:-1]
        met = 1 if self.now == NEVER else 0  # the first reading of all sets the clock
        if len(times) > met and (self.ahead or not _within_a_day(times[met:], before[met:])):
            jumps = self._one_by_one(times, owners, offsets, heard, after)
        elif len(times):
            self._forget_behind()
        self.now = int(after[-1])
        return after[np.cumsum(np.bincount(owners, minlength=len(offsets)))], jumps

    def _one_by_one(self, times: I64, owners: I64, offsets: I64, heard: Heard, after: I64) -> list[tuple[int, int]]:
        jumps: list[tuple[int, int]] = []
        now, batch = self.now, _Passage(owners, offsets, heard, after)
        for i, (time, record) in enumerate(zip(times.tolist(), owners.tolist(), strict=True)):
            jump = 0
            if now == NEVER:
                now = time
            elif time > now + DAY:
                self._forget_behind()
                if self._believed(batch, i, time):
                    jump = time - now
            elif time < now - DAY:
                self._forget_ahead()
                if self._all_behind(batch, i, time):
                    jump = self.behind_newest - now
            else:
                now = max(now, time)
                self._forget_ahead()
                self._forget_behind()
            if jump:
                jumps.append((record, jump))
                self.jumps[batch.place(i)] = jump
                now += jump
                self._forget_ahead()
                self._forget_behind()
            after[i + 1] = now
            batch.drifts[i + 1] = batch.drifts[i] + jump
        return jumps

    def _believed(self, batch: _Passage, i: int, time: int) -> bool:
        """Take in a reading beyond a day ahead; whether the clock follows."""
        name, place = batch.heard.name(i), batch.place(i)
        if not self.ahead:
            self.ahead_from, self.ahead_of = time, name
        self.ahead += 1
        self.ahead_from = min(self.ahead_from, time)
        if self.ahead_of != name:
            self.ahead_of = None
        if place[0] < self._told_until:
            return place in self.jumps
        if self.ahead < RUN_LIMIT:
            return False
        if self.ahead_of is None or time - self.ahead_from >= DAY:
            return True
        return _is_looked_at(self.ahead) and batch.heard_of_late(i) <= {name}

    def _all_behind(self, batch: _Passage, i: int, time: int) -> bool:
        """Take in a reading beyond a day behind; whether the clock follows."""
        place = batch.place(i)
        if not self.behind:
            self.behind_since, self.behind_newest = place[0], time
        self.behind += 1
        self.behind_newest = max(self.behind_newest, time)
        if place[0] < self._told_until:
            return place in self.jumps
        if self.behind < RUN_LIMIT or not _is_looked_at(self.behind):
            return False
        return batch.heard_of_late(i) <= batch.heard_in_run(i, self.behind, self.behind_since)

    @property
    def run(self) -> tuple[int, str | None, int, int, int]:
        """What is kept of readings in a row beyond a day, beside `ahead`; `with_run` takes it."""
        return self.ahead_from, self.ahead_of, self.behind, self.behind_since, self.behind_newest

    def with_run(self, run: tuple[int, str | None, int, int, int] | None) -> PartitionClock:
        """The clock with what `run` gave; None: of a release that kept none."""
        if run is not None:
            self.ahead_from, self.ahead_of, self.behind, self.behind_since, self.behind_newest = run
        return self

    def _forget_ahead(self) -> None:
        self.ahead, self.ahead_of = 0, None

    def _forget_behind(self) -> None:
        self.behind, self.behind_since = 0, -1
