"""What false-alarm budget a sensor has, and how it is kept: episodes opened against episodes the budget allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detector.config.load import FalseAlarms
from detector.detection.closed import EXCUSING
from detector.detection.table import SensorTable
from detector.detection.threshold import BUDGET_MAX, BUDGET_MIN, NO_BUDGET
from detector.engine.clock import DAY
from detector.wire.readings import Word


class Budget(NamedTuple):
    """The rows of a sensor per allowed false alarm; `limited`: more or fewer were asked for than can be kept."""

    rows: float
    limited: bool


def budget_of(allowed: FalseAlarms | None, median_interval: int) -> Budget:
    """The budget of a sensor with this median interval (ns); None: any number of false alarms is allowed.

    One false alarm a week of a sensor with a reading a minute:

    >>> from detector.config.alerts import FalseAlarms
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
class BudgetAccount:
    """Episodes that a person was called for, and how many the budget allows."""

    opened: int = 0
    allowed: float = 0.0

    def add(self, opened: int, allowed: float) -> None:
        """Count more of both."""
        self.opened += opened
        self.allowed += allowed

    @property
    def ratio(self) -> float | None:
        """Observed / asked; None where nothing is allowed yet."""
        return self.opened / self.allowed if self.allowed > 0 else None


def note_call(called: dict[int, tuple[int, ...]], slot: int, clock: int) -> None:
    """A person is called for the sensor in a slot at a partition clock, ns; what is older than a day is forgotten."""
    called[slot] = (*(time for time in called.get(slot, ()) if time > clock - DAY), clock)


def note_verdict(
    called: dict[int, tuple[int, ...]], slot: int, at: int | None, before: Word | None, now: Word, clock: int
) -> None:
    """What a person was called for at the clock `at` (None: nobody was) is no false alarm any more, or one again."""
    if at is None or (before in EXCUSING) == (now in EXCUSING):
        return
    times = list(called.pop(slot, ()))
    if now not in EXCUSING and at > clock - DAY:
        times.append(at)
    elif now in EXCUSING and at in times:
        times.remove(at)
    if times:
        called[slot] = tuple(sorted(times))


def last_day(table: SensorTable, clock: int) -> BudgetAccount:
    """The account of the day of event time that ends at the partition clock, ns, which all of it follows from.

    A sensor that was heard in it may call once in this many readings, which come at its usual interval.
    """
    since = clock - DAY
    slots = table.occupied()
    slots = slots[table["live"][slots] & (table["clock"][slots] > since)]
    interval = np.maximum(table["median"][slots], 1)
    allowed = float((DAY / interval / table["budget"][slots]).sum())
    return BudgetAccount(sum(time > since for times in table.called.values() for time in times), allowed)
