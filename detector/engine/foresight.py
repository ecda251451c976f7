"""Who will be heard in the rest of a batch: how far it can be taken in without looking for silences.

A sensor that is heard in time again and again becomes silent nowhere in between. So a batch need not be cut at every
time at which somebody could have fallen silent, but only where somebody may have: with few sensors that is the
difference between pieces of twenty rows and whole batches.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from detector.arrays import I64
from detector.config.rules import ENDLESS
from detector.detection.table import SensorTable, Slots
from detector.engine.patience import Patience, packets_of
from detector.wire.readings import Readings

MOST_RUNS: Final = 4096
"""Runs of readings that are looked at together."""
LARGE: Final = 2000
"""Pieces of so many readings are worth a cut."""


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
        runs = slice(first, min(last, first + min(MOST_RUNS, self.warmup * max(len(table), 1))))
        ids, counts, owners = self.readings.ids[runs], self.readings.counts[runs], self.readings.records[runs]
        begin = int(self.readings.counts[:first].sum())
        times = self.readings.times[begin : begin + int(counts.sum())]
        slots, quiet = _slots_of(table, ids), ENDLESS
        if (slots < 0).any():  # the first reading of a sensor
            known = slots >= 0
            quiet = int(self.clocks[owners[~known][0]]) + patience.shortest
            times = times[np.repeat(known, counts)]
            slots, counts, owners = slots[known], counts[known], owners[known]
        due = np.full(len(table.ids), ENDLESS)
        due[waiting] = deadlines
        if len(slots):
            quiet = min(quiet, self._surprise(table, patience, slots, counts, self.clocks[owners]))
            slots, records, packets = packets_of(np.repeat(slots, counts), np.repeat(owners, counts), times)
            clocks = self.clocks[records]
            begins = np.flatnonzero(np.append(True, slots[1:] != slots[:-1]))
            at = due[slots[begins]]
            due[slots[begins]] = np.where(at < clocks[begins], at, ENDLESS)
            lengths = patience.at_least(slots, packets)
            silent = np.where(lengths == ENDLESS, ENDLESS, clocks + np.where(lengths == ENDLESS, 0, lengths))
            heard_again = np.append(slots[1:] == slots[:-1], False)
            in_time = heard_again & (silent >= np.append(clocks[1:], 0))
            quiet = min(quiet, int(silent[~in_time].min(initial=ENDLESS)))
        return min(quiet, int(due.min(initial=ENDLESS)))

    def _of_one(self, table: SensorTable, ids: list[str]) -> bool:
        """Whether there is only one sensor, by what is known and by what comes."""
        return len(table) <= 1 and len({*table.slots, *ids}) == 1

    def _surprise(self, table: SensorTable, patience: Patience, slots: Slots, counts: I64, clocks: I64) -> int:
        """A clock up to which nobody becomes silent by a length that it comes to in these runs (n,)."""
        distinct, own = np.unique(slots, return_inverse=True)
        settled = ~patience.is_own(distinct)
        left = np.array(
            [
                ENDLESS if sure else self._left(table, slot)
                for slot, sure in zip(distinct.tolist(), settled, strict=True)
            ]
        )
        order = np.argsort(own, kind="stable")
        so_far = np.cumsum(counts[order])
        starts = np.flatnonzero(np.append(True, own[order][1:] != own[order][:-1]))
        before = np.repeat(so_far[starts] - counts[order][starts], np.diff(np.append(starts, len(own))))
        late = order[so_far - before >= left[own[order]]]
        return int(clocks[late.min()]) + patience.shortest if len(late) else ENDLESS

    def _left(self, table: SensorTable, slot: int) -> int:
        """So many readings of a sensor bring it no new profile."""
        if slot in table.relearning:
            return 0
        held = len(table.held.get(slot, ()))
        if slot in table.aligning:
            held += len(table.aligning[slot].rows)
        warming = table.warming.get(slot)
        if warming is None:
            return self.warmup - held
        return max(self.warmup, int(table["wanted"][slot])) - warming.count - held


def _slots_of(table: SensorTable, ids: list[str]) -> Slots:
    """The slots of sensors; -1: it is not known yet."""
    slots = {sensor_id: table.slots.get(sensor_id, -1) for sensor_id in set(ids)}
    return np.fromiter(map(slots.__getitem__, ids), dtype=np.intp, count=len(ids))
