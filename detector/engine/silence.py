"""Sensors that are not heard while others of their partition are: `silent` episodes, in event time.

A sensor is missed from the partition clock at its last reading on, whatever became of that reading. Once the clock is
further on than it may be silent (patience.py), an episode opens; it ends with the sensor's next reading. Its score is
how long it has been silent in units of that length, so that its threshold is 1.

Silence is relative to the other sensors. If the clock moves by more than a pause at once, nobody of that partition was
heard for so long: then all of that pause, or a shorter one, are missed only from there on.
"""

from __future__ import annotations

import math

import numpy as np

from detector.arrays import I64
from detector.config.rules import ENDLESS
from detector.detection.columns import NEVER
from detector.detection.opened import Silence
from detector.detection.table import SensorTable, Slots
from detector.detection.windows import Arrivals
from detector.engine.announcer import Announcer, Key, deadline_after, postpone
from detector.engine.foresight import Upcoming
from detector.engine.maintenance import Maintenance
from detector.engine.patience import Patience
from detector.wire.alerts import CloseReason, Event, alert_id
from detector.wire.readings import Word

FOREVER = ENDLESS
NOBODY: I64 = np.empty(0, dtype=np.int64)


class Silences:
    """The silent episodes of one partition. `patience`: how long its sensors may be silent."""

    def __init__(
        self,
        table: SensorTable,
        announcer: Announcer,
        patience: Patience | None = None,
        maintenance: Maintenance | None = None,
    ) -> None:
        self._table = table
        self._announcer = announcer
        self._patience = patience or Patience(table, NOBODY)
        self._maintenance = maintenance or Maintenance()
        self._pauses = self._patience.pauses
        self.next = NEVER
        """Up to this clock nothing is due."""

    @property
    def _possible(self) -> bool:
        """Whether anybody can be missed."""
        return len(self._pauses) > 0

    def look_again(self) -> None:
        """Sensors came or changed: look at all deadlines again."""
        self.next = NEVER

    def passed(self, clocks: I64) -> None:
        """The partition clock has moved through these. Nobody was heard between two of them, nor at `NEVER`."""
        clocks = clocks[np.searchsorted(clocks, NEVER, side="right") :]
        if not self._possible or not len(clocks) or clocks[-1] - clocks[0] <= self._pauses[0]:
            return
        steps = np.diff(clocks)
        for pause in self._pauses.tolist():
            beyond = np.flatnonzero(steps > pause)
            if not len(beyond):
                break
            self._table.resumed[pause] = int(clocks[beyond[-1] + 1])

    def limit(self, now: int, record: int, upcoming: Upcoming | None) -> int:
        """A clock up to which nothing becomes due, whoever is heard at this record and beyond."""
        if not self._possible:
            return FOREVER
        plain = min(self.next, now + self._patience.shortest)
        if upcoming is not None and upcoming.pays(record, plain, len(self._table)):
            deadlines, slots = self._deadlines()
            self.next = max(plain, upcoming.quiet_until(record, self._table, self._patience, deadlines, slots))
            return self.next
        return plain

    def shift(self, jump: int, offset: int) -> None:
        """See `Timers.shift`."""
        self.look_again()
        self._patience.shift(jump, offset)
        if jump < 0:
            self._table.resumed = {pause: at + jump for pause, at in self._table.resumed.items()}
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
        deadlines, slots = self._deadlines()
        passed = deadlines < now
        self.next = int(deadlines[~passed].min(initial=FOREVER))
        return list(zip(deadlines[passed].tolist(), slots[passed].tolist(), strict=True))

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
        """Readings have come, whatever becomes of them. The table does not know of them yet."""
        if not len(arrivals.slots):
            return
        unheard, silences = self._table["unheard"], self._table.silences
        if self._possible and (silences or unheard[arrivals.slots].any()):
            unheard[arrivals.slots] = False
            # They are looked at again, from the first of these readings on.
            begin = int(self._announcer.clocks[arrivals.records[0]])
            self.next = min(self.next, begin + self._patience.shortest)
        if silences:
            self._recover(arrivals)
        self._patience.heard(arrivals, self._announcer.clocks)

    def _recover(self, arrivals: Arrivals) -> None:
        silences = self._table.silences
        at = np.flatnonzero(np.isin(arrivals.slots, list(silences)))
        slots, first = np.unique(arrivals.slots[at], return_index=True)
        for slot, i in zip(slots.tolist(), at[first].tolist(), strict=True):
            record, silence = int(arrivals.records[i]), silences[slot]
            now, key = int(self._announcer.clocks[record]), (record, 1, int(arrivals.elements[i]), "")
            self.end(slot, "recovered", now, record, key)
            if silence.verdict == "expected" or not (silence.muted or silence.verdict == "real"):
                self._patience.ended(slot, silence.since, now)

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

    def _deadlines(self) -> tuple[I64, Slots]:
        """When what comes next of each sensor is due unless it is heard: its silence, or a step of an open one."""
        silences = self._table.silences
        steps = np.array([self._next_step(slot, one) for slot, one in silences.items()], dtype=np.int64)
        at, slots = self._openings()
        return np.append(steps, at), np.append(np.array([*silences], dtype=np.intp), slots)

    def _openings(self) -> tuple[I64, Slots]:
        """When each of the sensors that are not known to be silent will be, unless it is heard."""
        if not self._possible:
            return NOBODY, NOBODY
        table = self._table
        slots = table.occupied()
        slots = slots[~np.isin(slots, list(table.silences))]
        slots = slots[(table["clock"][slots] != NEVER) & ~table["unheard"][slots]]
        after, pause = self._patience.allowed(slots)
        watched = after != ENDLESS
        slots, after, pause = slots[watched], after[watched], pause[watched]
        resumed = np.array([self._resumed(one) for one in self._pauses.tolist()])
        since = np.maximum(table["clock"][slots], resumed[np.searchsorted(self._pauses, pause)])
        return since + after, slots

    def _resumed(self, pause: int) -> int:
        """The partition clock after all were silent for longer than that the last time."""
        return max((clock for other, clock in self._table.resumed.items() if other >= pause), default=NEVER)

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
        sensor_id, after = table.name(slot), int(self._patience.allowed(np.array([slot]))[0][0])
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
