"""How long each sensor of a partition may be silent while others are heard: a configured time, or one of its own.

With `auto` a sensor with a regular interval has a length of its own: twenty of its intervals, rounded up to a rung of
a ladder of 1 min, 2 min, 4 min ..., so that few lengths are in use. Two things make it longer, both kept in state:

- *Packets.* A message that covers an hour says that its sensor is silent for an hour as a rule: until its next
  message the length is at least twice what the last one covers.
- *Habits.* A silence that ended by itself doubles the length, and where the last doubling still holds, the new length
  exceeds the silence. So an upload every hour, a reading a message, is understood after two alarms. What was doubled
  is forgotten when the sensor went `HABIT` without a silence of more than half of its length: what happened once,
  a long failure, does not make it deaf.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from detector.arrays import I64, U8, Bools, stable_order
from detector.config.rules import AUTO, ENDLESS
from detector.detection.table import SensorTable, Slots
from detector.detection.windows import Arrivals
from detector.engine.clock import DAY

INTERVALS: Final = 20
"""How many of its median intervals a sensor may be silent for."""
LADDER: Final[I64] = 60 * 10**9 << np.arange(26)
"""The lengths in use, ns: from a minute to 64 years."""
HABIT: Final = 14 * DAY


class Patience:
    """How long the sensors of a table may be silent. `after`: by number of a sensor's rules, ns, `AUTO` or `ENDLESS`.

    A sensor whose rules leave it out, or that has no length of its own yet, may be silent for ever: `ENDLESS`.
    """

    def __init__(self, table: SensorTable, after: I64) -> None:
        self._table = table
        self._after = after
        self.auto = bool((after == AUTO).any())
        fixed = {int(length) for length in after} - {AUTO, ENDLESS}
        own = LADDER.tolist() if self.auto else []
        self.shortest = min((*fixed, *own), default=ENDLESS)
        """No sensor has a shorter length, ns."""
        self.pauses: I64 = np.array(
            sorted({*fixed, *pause_of(LADDER).tolist()} if self.auto else fixed), dtype=np.int64
        )
        """The pauses of all lengths there may be; see `allowed`."""

    def allowed(self, slots: Slots) -> tuple[I64, I64]:
        """The length of each sensor (n,), and its pause: a step of the clock beyond that is a silence of everybody.

        A configured length is its own pause. An own one is longer than its pause by more than two intervals: after a
        stop of all, whoever comes back within its interval is not missed.
        """
        after = self._configured(slots)
        own = np.flatnonzero(after == AUTO)
        pause = after.copy()
        if len(own):
            after[own] = self._own(slots[own])
            watched = own[after[own] != ENDLESS]
            pause[own] = ENDLESS
            pause[watched] = pause_of(after[watched])
        return after, pause

    def at_least(self, slots: Slots, packets: U8) -> I64:
        """Lengths (n,) below which those of sensors do not fall that were last heard with such `packets` (n,)."""
        after = self._configured(slots)
        own = np.flatnonzero(after == AUTO)
        after[own] = self._on_ladder(slots[own], self._rungs(slots[own]), packets[own])
        return after

    def is_own(self, slots: Slots) -> Bools:
        """Whether a sensor's length is one of its own, which comes with its profile."""
        found: Bools = self._configured(slots) == AUTO
        return found

    # -- what is learnt --------------------------------------------------------------------------------------------

    def heard(self, arrivals: Arrivals, clocks: I64) -> None:
        """Readings have come, at the partition clocks (R,) of their records. The table does not know of them yet."""
        if not self.auto or not len(arrivals.slots):
            return
        if self._table["patience"][arrivals.slots].any():
            self._note_need(arrivals, clocks)
        self._note_packets(arrivals)

    def ended(self, slot: int, since: int, now: int) -> None:
        """A silence has ended by itself that began at `since`."""
        table, one = self._table, np.array([slot])
        if not self.auto or self._configured(one)[0] != AUTO or not table["live"][slot]:
            return
        doubled, rung = self._doublings(slot, int(table["clock"][slot])), int(self._rungs(one)[0])
        habit = int(np.searchsorted(LADDER, now - since, side="right")) - rung if doubled else 0
        table["patience"][slot] = min(max(doubled + 1, habit), len(LADDER))
        table["needed"][slot] = now

    def forget(self, slot: int) -> None:
        """The sensor learns its interval again."""
        self._table["patience"][slot] = 0

    def shift(self, jump: int, offset: int) -> None:
        """See `Timers.shift`."""
        if self.auto:
            moved = (self._table["patience"] > 0) & (self._table["known"] <= offset)
            self._table["needed"][moved] += jump

    def _note_need(self, arrivals: Arrivals, clocks: I64) -> None:
        """Silences of patient sensors for which they need their patience."""
        table = self._table
        at = np.flatnonzero(table["patience"][arrivals.slots])
        at = at[stable_order(arrivals.slots[at])]
        slots, now = arrivals.slots[at], clocks[arrivals.records[at]]
        before = np.empty_like(now)
        before[1:] = now[:-1]
        first = np.append(True, slots[1:] != slots[:-1])
        before[first] = table["clock"][slots[first]]
        # At the least that could be half of a length; which it is rests on what came before.
        for i in np.flatnonzero(now - before > LADDER[self._rungs(slots)] // 2).tolist():
            slot, doubled = int(slots[i]), self._doublings(int(slots[i]), int(before[i]))
            rung = min(int(self._rungs(slots[i : i + 1])[0]) + doubled, len(LADDER) - 1)
            if doubled and now[i] - before[i] > LADDER[rung] // 2:
                table["needed"][slot] = now[i]

    def _note_packets(self, arrivals: Arrivals) -> None:
        packets = self._table["packet"]
        if (arrivals.records[1:] != arrivals.records[:-1]).all():  # a reading a message
            if packets[arrivals.slots].any():
                packets[arrivals.slots] = 0
            return
        first = np.flatnonzero(np.append(True, (_steps(arrivals.slots) | _steps(arrivals.records))))
        covered = np.minimum.reduceat(arrivals.times, first), np.maximum.reduceat(arrivals.times, first)
        slots, rungs, *_ = messages_of(arrivals.slots[first], arrivals.records[first], *covered, np.ones_like(first))
        packets[slots] = rungs  # of several messages of a sensor the last one counts

    # -- lengths ---------------------------------------------------------------------------------------------------

    def _configured(self, slots: Slots) -> I64:
        rules = self._table["rules"][slots]
        found: I64 = np.where(rules >= 0, self._after[rules], ENDLESS)
        return found

    def _own(self, slots: Slots) -> I64:
        table = self._table
        holds = table["clock"][slots] - table["needed"][slots] <= HABIT
        doubled = np.where(holds, table["patience"][slots], 0)
        return self._on_ladder(slots, self._rungs(slots) + doubled, table["packet"][slots])

    def _on_ladder(self, slots: Slots, rungs: I64, packets: U8) -> I64:
        table = self._table
        regular = table["live"][slots] & table["regular"][slots] & (table["median"][slots] > 0)
        lengths = LADDER[np.minimum(np.maximum(rungs, packets), len(LADDER) - 1)]
        return np.where(regular, lengths, ENDLESS)

    def _rungs(self, slots: Slots) -> I64:
        """The rung of each sensor by its interval alone."""
        found = np.searchsorted(LADDER // INTERVALS, self._table["median"][slots], side="left")
        return np.minimum(found, len(LADDER) - 1)

    def _doublings(self, slot: int, heard: int) -> int:
        """How often its length was doubled, as far as that still holds at its last hearing."""
        holds = heard - int(self._table["needed"][slot]) <= HABIT
        return int(self._table["patience"][slot]) if holds else 0


def pause_of(lengths: I64) -> I64:
    """The pauses of lengths on the ladder."""
    return lengths - lengths // 8


def messages_of(slots: Slots, records: I64, earliest: I64, latest: I64, counts: I64) -> tuple[Slots, U8, I64, I64]:
    """What each message says of each of its sensors, in the order of sensors, then records.

    From runs (n,) of readings of one sensor in one record, in the order of records: the times that each covers, and how
    many readings it has. Returns sensors; rungs, of twice what the message covers of that sensor, 0: nothing; records;
    and counts.
    """
    order = stable_order(slots)
    slots, records, earliest, latest, counts = (one[order] for one in (slots, records, earliest, latest, counts))
    begins = np.flatnonzero(np.append(True, _steps(slots) | _steps(records)))
    if len(begins) < len(slots):
        earliest, latest = np.minimum.reduceat(earliest, begins), np.maximum.reduceat(latest, begins)
        slots, records, counts = slots[begins], records[begins], np.add.reduceat(counts, begins)
    covered = latest - earliest
    rungs = np.zeros(len(slots), dtype=np.uint8)
    if covered.any():
        rungs[:] = np.minimum(np.searchsorted(LADDER // 2, covered, side="left"), len(LADDER) - 1)
    return slots, rungs, records, counts


def _steps(numbers: I64 | Slots) -> Bools:
    """Where an array changes from one place to the next."""
    found: Bools = numbers[1:] != numbers[:-1]
    return found
