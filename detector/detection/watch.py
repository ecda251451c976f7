"""Which sensors are watched, and why others are not: a reason in a cell of each, and what changed since last asked.

A sensor is *watched* when its next row would be scored and a fault of some size told. The reason is state, so that a
restart tells nothing twice. What changes it follows from the records alone.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.detection.table import SensorTable, Slots
from detector.detection.windows import WindowRows, window_of

Reason = Literal[
    "warming", "gaps", "interval", "profile", "threshold", "relearning", "capped", "failed", "channel_missing"
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""In the order of the numbers that are stored, from 1; 0: watched. Add at the end."""
NUMBER: Final = {reason: number for number, reason in enumerate(REASONS, 1)}
ABSURD: Final = math.log(20.0)
"""An ln threshold from which on nobody can say that faults are told."""
MISSING_ROWS: Final = 100
"""After this many readings without a value, one after the other, a sensor is no longer watched."""
MOST_RESTARTS: Final = 1000
"""Counted no further."""
MOST_CAPPED: Final = 10_000
"""This many sensors for which there was no place are remembered by name."""

_WORST_FIRST: Final[tuple[Reason, ...]] = (
    "failed", "channel_missing", "interval", "gaps", "profile", "relearning", "capped", "threshold", "warming",
)  # fmt: skip
_COLD: Final = [NUMBER[reason] for reason in ("warming", "profile", "relearning")]
_FILLING: Final = [NUMBER[reason] for reason in ("warming", "gaps", "interval")]
_FULL: Final = [0, NUMBER["threshold"]]


class WatchChange(NamedTuple):
    """A sensor is not watched any more, for another reason than before, or (None) watched again."""

    sensor_id: str
    reason: Reason | None
    before: Reason | None


class Watch:
    """The reasons of the sensors of one table. `complete`: the rows in a window that can be scored; cameras: 0."""

    def __init__(self, table: SensorTable, complete: int) -> None:
        self._table = table
        self._complete = complete
        self._changes: list[WatchChange] = []
        self._capped: dict[str, None] = {}

    def reason(self, slot: int) -> Reason | None:
        """Why the sensor in a slot is not watched; None: it is. That no value comes outweighs what its rows say."""
        return "channel_missing" if self._no_values(slot) else self._of_rows(slot)

    def mark(self, slot: int, reason: Reason | None) -> None:
        """From here on the sensor is not watched for this reason, or (None) watched."""
        before = self.reason(slot)
        self._table["unwatched"][slot] = NUMBER[reason] if reason else 0
        self._changed(slot, before)

    def look(self, slot: int) -> None:
        """Mark a sensor by how its state is. What its threshold is shows with its next scored row."""
        table = self._table
        reason: Reason | None = None
        if slot in table.failed:
            reason = "failed"
        elif not table["live"][slot]:
            reason = "relearning" if self._complete and table["relearnt"][slot] else "warming"
        elif table["filled"][slot] < self._complete:
            restarts = int(table["restarts"][slot])
            reason = "interval" if restarts < 0 else "gaps" if restarts else "warming"
        elif self._of_rows(slot) == "threshold":
            reason = "threshold"
        self.mark(slot, reason)

    def met(self, slot: int) -> None:
        """A sensor has come for the first time."""
        self._capped.pop(self._table.name(slot), None)
        self._table["unwatched"][slot] = NUMBER["warming"]

    def capped(self, sensor_id: str) -> None:
        """There is no place for this sensor."""
        if sensor_id not in self._capped and len(self._capped) < MOST_CAPPED:
            self._capped[sensor_id] = None
            self._changes.append(WatchChange(sensor_id, "capped", None))

    def scored(self, slots: Slots, first: I64, limits: F64) -> None:
        """Rows of these sensors were scored against ln thresholds (N,), those of each from `first` (n + 1,) on."""
        absurd = limits >= ABSURD
        concerned = (self._table["unwatched"][slots] != 0) | np.logical_or.reduceat(absurd, first[:-1])
        for at in np.flatnonzero(concerned).tolist():
            slot, rows = int(slots[at]), absurd[first[at] : first[at + 1]]
            for row in np.flatnonzero(np.diff(rows, prepend=not rows[0])).tolist():
                self.mark(slot, "threshold" if rows[row] else None)

    def restarted(self, slot: int, filled: int) -> None:
        """The window was emptied of `filled` rows before a row that comes too late."""
        restarts = min(abs(int(self._table["restarts"][slot])) + 1, MOST_RESTARTS)
        self._table["restarts"][slot] = -restarts if restarts > 1 and filled <= 1 else restarts
        self.look(slot)

    def heard(self, slots: Slots, missing: Bools, column: Literal["nulls", "stuck"]) -> None:
        """Readings came, in this order, of the sensors `slots` (N,), and those that are `missing` (N,) had no value.

        `column` counts them: those that came as null, and those that stand for it.
        """
        counts = self._table[column]
        if not missing.any() and not counts[slots].any():
            return
        for slot in np.unique(slots[missing | (counts[slots] > 0)]).tolist():
            mine = missing[slots == slot]
            since, before = _since_a_value(mine), self.reason(slot)
            count = len(mine) + int(counts[slot]) if since is None else since
            counts[slot] = min(count, MISSING_ROWS)
            self._changed(slot, before)

    def heard_of_channels(self, slots: Slots, lacking: Bools, rows: WindowRows) -> None:
        """The same of sensors with several channels, `lacking` (N, C), once the `rows` that came of it are taken in.

        Counted are the rows that all lack a channel, and readings without any value after them.
        """
        counts = self._table["nulls"]
        concerned = lacking.any(axis=1) | (counts[slots] > 0)
        if self._table.patches:
            concerned |= np.isin(slots, list(self._table.patches))
        come = np.repeat(rows.slots, rows.last - rows.first)[np.isnan(rows.values).any(axis=1)]
        for slot in np.union1d(slots[concerned], come).tolist():
            mine = lacking[slots == slot].all(axis=1)
            since, before = _since_a_value(mine), self.reason(slot)
            count = len(mine) + int(counts[slot]) if since is None else since + self._absent(slot)
            counts[slot] = min(count, MISSING_ROWS)
            self._changed(slot, before)

    def _absent(self, slot: int) -> int:
        """The newest rows of a sensor that all lack a channel. Rows that were filled in between are of them."""
        table = self._table
        if (warming := table.warming.get(slot)) is not None and warming.count:
            lacking = np.isnan(warming.values[-MISSING_ROWS:])
        elif (patched := table.patches.get(slot)) is not None:
            lacking = patched | window_of(table, slot)[2][:, None]
        else:
            return 0
        there = ~lacking[::-1]
        return int(np.where(there.any(axis=0), there.argmax(axis=0), len(there)).max())

    def lacks(self, slots: Slots, absent: I64) -> None:
        """Rows of machines came, with the number of rows (N,) for which a channel had been missing before each."""
        counts = self._table["nulls"]
        if not absent.any() and not counts[slots].any():
            return
        last = {slot: min(rows, MISSING_ROWS) for slot, rows in zip(slots.tolist(), absent.tolist(), strict=True)}
        for slot, rows in sorted(last.items()):
            before = self.reason(slot)
            counts[slot] = rows
            self._changed(slot, before)

    def settle(self) -> None:
        """Bring the reasons in line with state that was taken up; nobody is told of it."""
        table = self._table
        slots = table.occupied()
        found, live = table["unwatched"][slots], table["live"][slots]
        full = table["filled"][slots] >= self._complete
        warming = NUMBER["warming"]
        found = np.where(~live & ~np.isin(found, _COLD), warming, found)
        found = np.where(live & ~full & ~np.isin(found, _FILLING), warming, found)
        found = np.where(live & full & ~np.isin(found, _FULL), 0, found)
        table["unwatched"][slots] = found
        table["unwatched"][list(table.failed)] = NUMBER["failed"]

    def _no_values(self, slot: int) -> bool:
        table = self._table
        return self._complete > 0 and bool(max(table["nulls"][slot], table["stuck"][slot]) >= MISSING_ROWS)

    def _of_rows(self, slot: int) -> Reason | None:
        number = int(self._table["unwatched"][slot])
        return REASONS[number - 1] if number else None

    def _changed(self, slot: int, before: Reason | None) -> None:
        after = self.reason(slot)
        if after != before:
            self._changes.append(WatchChange(self._table.name(slot), after, before))

    def _numbers(self) -> NDArray[np.uint8]:
        """The numbers of the reasons of all slots."""
        numbers: NDArray[np.uint8] = self._table["unwatched"]
        if self._complete:
            missing = np.maximum(self._table["nulls"], self._table["stuck"]) >= MISSING_ROWS
            numbers = np.where(missing, np.uint8(NUMBER["channel_missing"]), numbers) if missing.any() else numbers
        return numbers

    def take(self) -> list[WatchChange]:
        """What changed since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def counts(self) -> dict[Reason, int]:
        """The sensors that are not watched, by reason; all reasons are there."""
        found = np.bincount(self._numbers(), minlength=len(REASONS) + 1).tolist()
        counts = dict(zip(REASONS, found[1:], strict=True))
        counts["capped"] = len(self._capped)
        return counts

    def some(self, most: int) -> list[tuple[str, Reason]]:
        """At most this many sensors for each reason; what is rare or a person's to mend comes first."""
        numbers, found = self._numbers(), list[tuple[str, Reason]]()
        for reason in _WORST_FIRST:
            if reason == "capped":
                names = list(self._capped)[:most]
            else:
                names = [self._table.name(slot) for slot in np.flatnonzero(numbers == NUMBER[reason])[:most].tolist()]
            found += [(name, reason) for name in names]
        return found


def _since_a_value(missing: Bools) -> int | None:
    """How many of readings (n,) came after the last one that is not `missing`; None: all of them are."""
    there = np.flatnonzero(~missing)
    return len(missing) - 1 - int(there[-1]) if len(there) else None
