"""What comes every day, row by row, written without regard to speed: which episodes are hushed (see reference.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

HOUR = 3600 * 10**9
DAY = 24 * HOUR


@dataclass(slots=True)
class Past:
    """An episode, told or hushed: when it opened and was last loud, ns; its highest v; whether it was muted."""

    opened: int
    loud: int
    height: float
    muted: bool = False


@dataclass(slots=True)
class Days:
    """The last four episodes, newest last, and for how many rows the newest has been quiet, if it is hushed."""

    brief: bool = False
    last: list[Past] = field(default_factory=list)
    quiet: int | None = None
    close_level: float = 0.0

    def opens(self, v: float, time: int) -> None:
        """An episode opens that is told."""
        self.last = [*self.last, Past(time, time, v)][-4:]

    def closes(self, loud: int, height: float, *, muted: bool) -> None:
        """It ends."""
        self.last[-1] = Past(self.last[-1].opened, loud, height, muted)

    def hushes(self, v: float, ln_threshold: float, time: int) -> bool:
        """Whether an episode that would open is not told."""
        like = [past for past in self.last if self._is_like(past, time)]
        if not self.brief or not any(past.opened - like[0].opened >= DAY // 2 for past in like):
            return False
        others = [past for past in self.last if past is not like[0]]
        if v > self._loudest(others) + math.log(2):
            return False
        self.last, self.quiet, self.close_level = [*others, Past(time, time, v)], 0, min(ln_threshold, 0.0)
        return True

    def goes_on(self, v: float, time: int, close_after: int, *, loud: bool) -> bool:
        """A row of a hushed one; returns whether it has to be told."""
        assert self.quiet is not None
        *others, newest = self.last
        if v >= self.close_level:
            self.quiet, newest.loud, newest.height = 0, time, max(newest.height, v)
        else:
            self.quiet += 1
        longest = max((past.loud - past.opened for past in others if not past.muted), default=0)
        told = loud and (v > self._loudest(others) + math.log(2) or time - newest.opened > 2 * longest)
        if told or self.quiet >= close_after:
            self.quiet = None
        return told

    @staticmethod
    def _is_like(past: Past, time: int) -> bool:
        age, lasted = time - past.opened, past.loud - past.opened
        hour = age % DAY
        there = min(hour, DAY - hour) <= HOUR or (lasted < DAY and hour <= lasted)
        return not past.muted and DAY // 2 <= age <= 15 * DAY and there

    @staticmethod
    def _loudest(pasts: list[Past]) -> float:
        return max((past.height for past in pasts if not past.muted), default=-math.inf)
