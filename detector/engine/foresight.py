"""Who will be heard in the rest of a batch: how far it can be taken in without looking for silences.

A sensor that is heard in time again and again becomes silent nowhere in between. So a batch need not be cut at every
time at which somebody could have fallen silent, but only where somebody may have: with few sensors that is the
difference between pieces of twenty rows and whole batches.
"""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import I64, U8, Bools
from detector.config.rules import ENDLESS
from detector.detection.table import SensorTable, Slots
from detector.engine.patience import Patience, messages_of
from detector.wire.readings import Readings

MOST_RUNS: Final = 8192
"""Runs of readings that are looked at together."""
LARGE: Final = 2000
"""A cut pays where the piece before it has at least this many readings."""


class Upcoming(NamedTuple):
    """The readings of a batch, with the partition clock after each record (R,), up to the record `end`.

    `warmup`: readings of a sensor that make its profile, and its length, at the earliest.
    """

    readings: Readings
    clocks: I64
    end: int
    warmup: int

    def pays(self, record: int, limit: int, sensors: int) -> bool:
        """Whether looking ahead from this record on is cheaper than a cut behind this limit."""
        if self.clocks[self.end - 1] <= limit:
            return False
        cut = record + int(np.searchsorted(self.clocks[record : self.end], limit, side="right"))
        first, near, last = np.searchsorted(self.readings.records, (record, cut, self.end)).tolist()
        small = near - first < LARGE and int(self.readings.counts[first:near].sum()) < LARGE
        return small and last - near > near - first and 2 * (last - first) >= sensors

    def quiet_until(self, record: int, table: SensorTable, patience: Patience, deadlines: I64, waiting: Slots) -> int:
        """A clock up to which nobody becomes silent, if this record and those behind it are heard.

        `deadlines` (n,): when that is of the sensors `waiting` (n,) unless they are heard.
        """
        first, last = np.searchsorted(self.readings.records, (record, self.end)).tolist()
        if not table.silences and self._of_one(table, self.readings.ids[first:last]):
            return int(self.clocks[self.end - 1])  # whoever is alone is not missed
        runs = slice(first, min(last, first + MOST_RUNS))
        ids, counts, owners = self.readings.ids[runs], self.readings.counts[runs], self.readings.records[runs]
        slots = _slots_of(table, ids)
        begins = self.readings.counts[:first].sum() + np.cumsum(counts) - counts
        slots, packets, records, counts = messages_of(slots, owners, *self._covered(begins, counts), counts)
        clocks = self.clocks[records]
        again = slots[1:] == slots[:-1]
        firsts = np.append(True, ~again)
        due = np.full(max(len(table.ids), int(slots[-1]) + 1), ENDLESS)
        due[waiting] = deadlines
        at = due[slots[firsts]]
        due[slots[firsts]] = np.where(at < clocks[firsts], at, ENDLESS)
        lengths = self._lengths(table, patience, slots, packets, _so_far(firsts, counts))
        silent = np.where(lengths == ENDLESS, ENDLESS, clocks + np.where(lengths == ENDLESS, 0, lengths))
        in_time = np.append(again & (silent[:-1] >= clocks[1:]), False)
        return min(int(silent[~in_time].min(initial=ENDLESS)), int(due.min()))

    def _lengths(self, table: SensorTable, patience: Patience, slots: Slots, packets: U8, so_far: I64) -> I64:
        """For how long sensors may be silent after these messages (n,) at least, which bring the so-manyeth reading."""
        left = np.zeros(max(len(table.ids), int(slots[-1]) + 1), dtype=np.int64)
        left[: len(table.ids)] = self.warmup  # a sensor that learns its interval again takes that long
        for slot, warming in table.warming.items():
            left[slot] = max(self.warmup, int(table["wanted"][slot])) - warming.count
        for slot, held in table.held.items():
            left[slot] -= len(held)
        for slot, aligning in table.aligning.items():
            left[slot] -= len(aligning.rows)
        left[list(table.relearning)] = 0
        known = slots < len(table.ids)
        lengths = np.full(len(slots), patience.shortest)
        lengths[known] = patience.at_least(slots[known], packets[known])
        new = ~known
        new[known] = patience.is_own(slots[known])
        return np.where(new & (so_far >= left[slots]), patience.shortest, lengths)

    def _covered(self, begins: I64, counts: I64) -> tuple[I64, I64]:
        """The earliest and the latest time of each run of readings."""
        times = self.readings.times
        if (counts == 1).all():
            return times[begins], times[begins]
        edges = np.append(np.column_stack([begins, begins + counts]).ravel(), len(times))
        whole = np.append(times, times[-1])
        return np.minimum.reduceat(whole, edges)[:-1:2], np.maximum.reduceat(whole, edges)[:-1:2]

    def _of_one(self, table: SensorTable, ids: list[str]) -> bool:
        """Whether there is only one sensor, by what is known and by what comes."""
        return len(table) <= 1 and len({*table.slots, *ids}) == 1


def _slots_of(table: SensorTable, ids: list[str]) -> Slots:
    """The slots of sensors; those that are not known yet have other numbers, behind all slots."""
    names = set(ids)
    unknown = itertools.count(len(table.ids))
    slots = {name: table.slots[name] if name in table.slots else next(unknown) for name in names}
    return np.fromiter(map(slots.__getitem__, ids), dtype=np.intp, count=len(ids))


def _so_far(firsts: Bools, counts: I64) -> I64:
    """The sum of the counts (n,) up to each place, since the last of the `firsts`."""
    total = np.cumsum(counts)
    before = (total - counts)[firsts]
    found: I64 = total - np.repeat(before, np.diff(np.append(np.flatnonzero(firsts), len(counts))))
    return found
