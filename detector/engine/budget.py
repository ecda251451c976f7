"""What false-alarm budget a sensor has, and how it is kept: episodes opened against episodes the budget allows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from detector.config.load import FalseAlarms
from detector.detection.threshold import BUDGET_MAX, BUDGET_MIN, NO_BUDGET

SLOT = 60 * 10**9
"""Event time is kept by the minute."""


class Budget(NamedTuple):
    """The rows of a sensor per allowed false alarm; `limited`: more or fewer were asked for than can be kept."""

    rows: float
    limited: bool


def budget_of(allowed: FalseAlarms | None, median_interval: int) -> Budget:
    """The budget of a sensor with this median interval (ns); None: any number of false alarms is allowed.

    One false alarm a week of a sensor with a reading a minute:

    >>> from detector.config.settings import FalseAlarms
    >>> budget_of(FalseAlarms(per_sensor=1, per="week"), 60 * 10**9)
    Budget(rows=10080.0, limited=False)
    """
    if allowed is None:
        return Budget(NO_BUDGET, limited=False)
    rows = allowed.readings if allowed.period is None else allowed.period / max(median_interval, 1)
    asked = float(rows or 0) / allowed.per_sensor
    kept = min(max(asked, BUDGET_MIN), BUDGET_MAX)
    return Budget(kept, limited=kept != asked)


@dataclass(slots=True)
class _Minute:
    begin: int
    opened: int
    allowed: float


class BudgetAccount:
    """Counts episodes opened and allowed over the last `span` ns of event time; None: over everything.

    A row of a sensor whose budget is one episode in B rows allows 1 / B of an episode.
    """

    def __init__(self, span: int | None = None) -> None:
        self._span = span
        self._minutes: deque[_Minute] = deque()
        self.opened = 0
        self.allowed = 0.0

    def add(self, clock: int, opened: int, allowed: float) -> None:
        """Take in what happened up to the partition clock `clock` (ns), which may not go back."""
        self.opened += opened
        self.allowed += allowed
        if self._span is None:
            return
        begin = clock - clock % SLOT
        if self._minutes and self._minutes[-1].begin >= begin:
            self._minutes[-1].opened += opened
            self._minutes[-1].allowed += allowed
        else:
            self._minutes.append(_Minute(begin, opened, allowed))
        while self._minutes and self._minutes[0].begin <= clock - self._span:
            gone = self._minutes.popleft()
            self.opened -= gone.opened
            self.allowed -= gone.allowed

    @property
    def ratio(self) -> float | None:
        """Observed / asked; None where nothing is allowed yet."""
        return self.opened / self.allowed if self.allowed > 0 else None
