"""Sensors that are not heard while others of their partition are: `silent` episodes, in event time.

A sensor is missed from the partition clock at its last reading on, whatever became of that reading. Once the clock is
`silence_after` beyond, an episode opens; it ends with the sensor's next reading. Its score is how long it has been
silent in units of `silence_after`, so that its threshold is 1.

Silence is relative to the other sensors. If the clock moves by more than `silence_after` at once, nobody of that
partition was heard for so long: then all are missed only from there on.
"""

from __future__ import annotations

import math

import numpy as np

from detector.arrays import I64
from detector.config.rules import ENDLESS
from detector.detection.columns import NEVER
from detector.detection.table import SensorTable, Silence, Slots
from detector.detection.windows import Arrivals
from detector.engine.announcer import Announcer, Key, deadline_after, postpone
from detector.engine.maintenance import Maintenance
from detector.wire.alerts import CloseReason, Event, alert_id
from detector.wire.readings import Word

FOREVER = ENDLESS
NOBODY: I64 = np.empty(0, dtype=np.int64)


class Silences:
    """The silent episodes of one partition. `after`: by number of a sensor's rules, ns; `ENDLESS`: it may be silent."""

    def __init__(
        self, table: SensorTable, announcer: Announcer, after: I64 = NOBODY, maintenance: Maintenance | None = None
    ) -> None:
        self._table = table
        self._announcer = announcer
        self._after = after
        self._maintenance = maintenance or Maintenance()
        self._lengths = sorted({int(length) for length in after} - {ENDLESS})
        self.next = NEVER
        """Up to this clock nothing is due."""

    @property
    def shortest(self) -> int | None:
        """The shortest silence that is one, ns; None: none is."""
        return self._lengths[0] if self._lengths else None

    def look_again(self) -> None:
        """Sensors came or changed: look at all deadlines again."""
        self.next = NEVER

    def passed(self, before: int, now: int) -> None:
        """The partition clock has moved. Nobody was heard in between."""
        if before == NEVER or not self._lengths or now - before <= self._lengths[0]:
            return
        for length in self._lengths:
            if now - before > length:
                self._table.resumed[length] = now
        self.look_again()

    def shift(self, jump: int, offset: int) -> None:
        """See `Timers.shift`."""
        self.look_again()
        if jump < 0:
            self._table.resumed = {length: at + jump for length, at in self._table.resumed.items()}
        for slot, silence in self._table.silences.items():
            if self._table["known"][slot] > offset:
                continue
            self._table.changed.add(self._table.name(slot))
            silence.since += jump
            postpone(silence, jump)

    def due(self, now: int) -> list[tuple[int, int]]:
        """(deadline, slot) of what the clock has passed: silences to open, and the next step of those that are open."""
        if now <= self.next:
            return []
        opened = [(self._next_step(slot, silence), slot) for slot, silence in self._table.silences.items()]
        due = [step for step in opened if step[0] < now]
        self.next = min((at for at, _ in opened if at >= now), default=FOREVER)
        deadlines, slots = self._openings()
        passed = deadlines < now
        self.next = min(self.next, int(deadlines[~passed].min(initial=FOREVER)))
        return due + list(zip(deadlines[passed].tolist(), slots[passed].tolist(), strict=True))

    def fire(self, deadline: int, slot: int, record: int) -> int:
        """Do what is due; returns the deadline of the episode's next step."""
        silence = self._table.silences.get(slot)
        if silence is None:
            silence = self._open(deadline, slot, record)
        elif deadline == silence.close_at and deadline < min(self._steps(slot, silence), default=FOREVER):
            self._table["unheard"][slot] = True
            self.end(slot, "max_duration", deadline, record, self._timer(deadline, slot, record))
            return FOREVER
        else:
            self._update(deadline, slot, silence, record)
        following = self._next_step(slot, silence)
        self.next = min(self.next, following)
        return following

    def heard(self, arrivals: Arrivals) -> None:
        """Readings have come, whatever becomes of them."""
        if not len(arrivals.slots):
            return
        unheard, silences = self._table["unheard"], self._table.silences
        if self._lengths and (silences or unheard[arrivals.slots].any()):
            unheard[arrivals.slots] = False
            # They are looked at again, from the first of these readings on.
            begin = int(self._announcer.clocks[arrivals.records[0]])
            self.next = min(self.next, begin + self._lengths[0])
        if not silences:
            return
        at = np.flatnonzero(np.isin(arrivals.slots, list(silences)))
        slots, first = np.unique(arrivals.slots[at], return_index=True)
        for slot, i in zip(slots.tolist(), at[first].tolist(), strict=True):
            record = int(arrivals.records[i])
            key = record, 1, int(arrivals.elements[i]), ""
            self.end(slot, "recovered", int(self._announcer.clocks[record]), record, key)

    def end(self, slot: int, reason: CloseReason, now: int, record: int, key: Key) -> None:
        """Close the silent episode of a sensor, if it has one."""
        silence = self._table.silences.pop(slot, None)
        if silence is not None:
            self._publish(slot, silence, "closed", now, record, key, reason)
            self._announcer.remember(slot, silence)

    def judge(self, slot: int, verdict: Word, record: int) -> None:
        """A person has said something of the open silent episode of a sensor: say so, and mute what is expected."""
        silence, now = self._table.silences[slot], int(self._announcer.clocks[record])
        silence.verdict = verdict
        silence.muted = verdict == "expected" or now < self._muted_until(slot, silence)
        self._publish(slot, silence, "updated", now, record, (record, 1, 0, ""))
        self.look_again()

    def evict(self, deadline: int, slot: int, record: int) -> None:
        """The sensor is about to be forgotten."""
        self.end(slot, "evicted", deadline, record, self._timer(deadline, slot, record))

    # -- deadlines -----------------------------------------------------------------------------------------------

    def _openings(self) -> tuple[I64, Slots]:
        """When each of the sensors that are not known to be silent will be, unless it is heard."""
        if not self._lengths:
            return NOBODY, NOBODY
        table = self._table
        slots = table.occupied()
        slots = slots[~np.isin(slots, list(table.silences))]
        rules = table["rules"][slots]
        after = np.where(rules >= 0, self._after[rules], ENDLESS)
        watched = (after != ENDLESS) & (table["clock"][slots] != NEVER) & ~table["unheard"][slots]
        slots, after = slots[watched], after[watched]
        resumed = np.array([self._resumed(length) for length in self._lengths])
        since = np.maximum(table["clock"][slots], resumed[np.searchsorted(self._lengths, after)])
        return since + after, slots

    def _resumed(self, length: int) -> int:
        """The partition clock after all were silent for longer than that the last time."""
        return max((clock for other, clock in self._table.resumed.items() if other >= length), default=NEVER)

    def _steps(self, slot: int, silence: Silence) -> list[int]:
        """The deadlines of updates: the regular one, where it becomes critical, where the maintenance is over."""
        found = [] if silence.update_at is None else [silence.update_at]
        if silence.severity == "warning":
            found.append(self._critical_from(slot, silence))
        if silence.muted and silence.verdict != "expected":
            found.append(self._muted_until(slot, silence))
        return found

    def _next_step(self, slot: int, silence: Silence) -> int:
        ends = [] if silence.close_at is None else [silence.close_at]
        return min(self._steps(slot, silence) + ends, default=FOREVER)

    def _critical_from(self, slot: int, silence: Silence) -> int:
        return silence.since + math.ceil(self._announcer.alerts_of(slot).critical_ratio * silence.after)

    def _muted_until(self, slot: int, silence: Silence) -> int:
        return self._maintenance.until(self._table.name(slot), silence.detected_at)

    # -- messages ------------------------------------------------------------------------------------------------

    def _open(self, deadline: int, slot: int, record: int) -> Silence:
        table, alerts = self._table, self._announcer.alerts_of(slot)
        sensor_id, after = table.name(slot), int(self._after[table["rules"][slot]])
        now = int(self._announcer.clocks[record])
        silence = Silence(
            alert_id=alert_id("readings", "silent", sensor_id, deadline),
            sequence=0,
            started_at=deadline - after,
            detected_at=deadline,
            since=deadline - after,
            after=after,
            severity="warning",
            opened_offset=int(self._announcer.offsets[record]),
            update_at=deadline_after(now, alerts.update_every),
            close_at=deadline_after(now, alerts.max_duration),
            muted=self._maintenance.until(sensor_id, deadline) > deadline,
        )
        table.silences[slot] = silence
        self._publish(slot, silence, "opened", deadline, record, self._timer(deadline, slot, record))
        return silence

    def _update(self, deadline: int, slot: int, silence: Silence, record: int) -> None:
        now = int(self._announcer.clocks[record])
        silence.update_at = deadline_after(now, self._announcer.alerts_of(slot).update_every)
        silence.muted = silence.verdict == "expected" or (silence.muted and deadline < self._muted_until(slot, silence))
        self._publish(slot, silence, "updated", deadline, record, self._timer(deadline, slot, record))

    def _timer(self, deadline: int, slot: int, record: int) -> Key:
        return record, 0, deadline, self._table.name(slot)

    def _publish(
        self,
        slot: int,
        silence: Silence,
        event: Event,
        now: int,
        record: int,
        key: Key,
        reason: CloseReason | None = None,
    ) -> None:
        if now >= self._critical_from(slot, silence):
            silence.severity = "critical"
        if event != "opened":
            silence.sequence += 1
        announcer, sensor_id = self._announcer, self._table.name(slot)
        offset = int(announcer.offsets[record])
        message = announcer.writer.silent(sensor_id, silence, event, now, offset, reason)
        announcer.publish(key, sensor_id, message, event, silence)
