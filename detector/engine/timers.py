"""What fires by the partition clock: evictions, silence, an episode's longest duration, and its regular updates.

Timers fire in the order (deadline, sensor id) before the record that passes them is processed. Evictions and longest
durations change how later rows are judged, and silence ends with a reading, so they cut a batch; updates of anomalies
only publish, and are told where they fall.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from copy import copy

import numpy as np

from detector.detection.columns import NEVER
from detector.detection.opened import Episode, Silence
from detector.detection.table import SensorTable
from detector.engine.announcer import Announcer, postpone
from detector.engine.clock import DAY
from detector.engine.foresight import Upcoming
from detector.engine.silence import FOREVER, Silences
from detector.wire.alerts import CloseReason

EVICTION_INTERVALS = 200
"""A sensor is never forgotten before this many of its median intervals."""
Failed = Callable[[int, int, Exception], None]
UPDATE, LONGEST, SILENCE, EVICTION = range(4)
"""What a timer is for, in the order of equal deadlines of a sensor."""


class Timers:
    """The timers of one partition's sensors. `idle`: ns, None: never; `longest`: all limits of episodes in use, ns."""

    def __init__(
        self,
        table: SensorTable,
        announcer: Announcer,
        idle: int | None,
        longest: Sequence[int],
        silences: Silences | None = None,
    ) -> None:
        self._table = table
        self._announcer = announcer
        self._idle = idle
        self.silences = Silences(table, announcer) if silences is None else silences
        lengths = (*longest, idle)
        self._shortest = min((length for length in lengths if length is not None), default=None)
        self._next_eviction = NEVER

    @property
    def remembered(self) -> int:
        """A time within which nobody who was heard is forgotten, at most a day, ns."""
        return DAY if self._idle is None else min(DAY, self._idle)

    def look_again(self) -> None:
        """Sensors came or changed: look at all deadlines again."""
        self._next_eviction = NEVER
        self.silences.look_again()

    def shift(self, jump: int, offset: int) -> None:
        """While the whole partition was silent no timer ran. `offset`: the record that moved the clock by `jump`."""
        clock, known = self._table["clock"], self._table["known"]
        clock[(clock != NEVER) & (known <= offset)] += jump
        self.look_again()
        for slot, episode in self._table.episodes.items():
            if known[slot] > offset:
                continue
            self._table.changed.add(self._table.name(slot))
            postpone(episode, jump)
        self.silences.shift(jump, offset)

    def fire(self, record: int, before: int, now: int, failed: Failed, upcoming: Upcoming | None = None) -> int:
        """Fire what this record passes; return up to which clock no timer can cut.

        The record has moved the partition clock from `before` to `now`; `upcoming`: who is heard by and after it.
        `failed` is called for a slot whose timer cannot be fired, with the record and the error, and sets the sensor
        aside.
        """
        self.silences.passed(np.array([before, now]))
        passed = (EVICTION, self._evictions(now)), (SILENCE, self.silences.due(now))
        due = [(at, self._table.name(slot), what, slot) for what, found in passed for at, slot in found]
        if due or now > self._earliest_end():
            self._fire_all(record, now, due, failed)
        limit = min(self._earliest_end(), self._next_eviction, self.silences.limit(now, record, upcoming))
        if self._shortest is not None and now != NEVER:
            limit = min(limit, now + self._shortest)
        return limit

    def publish_due_updates(self, now: int, failed: Failed) -> None:
        """Updates that became due by `now`, for sensors none of whose rows came after. `failed`: see `fire`."""
        for slot in list(self._table.episodes):
            self.publish_due_updates_of(slot, now, failed)

    def publish_due_updates_of(self, slot: int, now: int, failed: Failed) -> None:
        """The same for one sensor; nothing where it has no episode."""
        episodes = self._table.episodes
        while slot in episodes and (due := episodes[slot].update_at) is not None and now > due:
            before = copy(episodes[slot])
            try:
                self._announcer.update(slot, self._announcer.passing(due))
            except Exception as error:
                episodes[slot] = before
                failed(slot, self._announcer.passing(due), error)

    def _earliest_end(self) -> int:
        ends = (episode.close_at for episode in self._table.episodes.values())
        return min((end for end in ends if end is not None), default=FOREVER)

    def _evictions(self, now: int) -> list[tuple[int, int]]:
        """(deadline, slot) of the sensors to be forgotten now."""
        if now <= self._next_eviction:
            return []
        slots = self._table.occupied()
        slots = slots[self._table["clock"][slots] != NEVER]
        self._next_eviction = FOREVER
        if self._idle is None or not len(slots):
            return []
        longest_gap = np.maximum(self._idle, EVICTION_INTERVALS * self._table["median"][slots])
        deadlines = self._table["clock"][slots] + longest_gap
        due = deadlines < now
        if not due.all():
            self._next_eviction = int(deadlines[~due].min())
        return list(zip(deadlines[due].tolist(), slots[due].tolist(), strict=True))

    def _fire_all(self, record: int, now: int, due: list[tuple[int, str, int, int]], failed: Failed) -> None:
        table = self._table
        timers = due
        for slot, episode in table.episodes.items():
            if episode.update_at is not None and now > episode.update_at:
                timers.append((episode.update_at, table.name(slot), UPDATE, slot))
            if episode.close_at is not None and now > episode.close_at:
                timers.append((episode.close_at, table.name(slot), LONGEST, slot))
        heapq.heapify(timers)
        while timers:
            deadline, sensor_id, what, slot = heapq.heappop(timers)
            if table.ids[slot] != sensor_id:
                continue  # forgotten by an earlier one
            before = copy(table.episodes.get(slot)), copy(table.silences.get(slot))
            try:
                following = self._fire_one(deadline, sensor_id, what, slot, record)
            except Exception as error:
                _put_back(table, slot, *before)
                failed(slot, record, error)
                continue
            if following < now:
                heapq.heappush(timers, (following, sensor_id, SILENCE, slot))

    def _fire_one(self, deadline: int, sensor_id: str, what: int, slot: int, record: int) -> int:
        """Fire a timer; returns the deadline of the silence's next step, if it is one."""
        table, announcer, silences = self._table, self._announcer, self.silences
        if what == SILENCE:
            return silences.fire(deadline, slot, record)
        if slot in table.episodes:
            if what == UPDATE:
                announcer.update(slot, record)
            else:
                reason: CloseReason = "max_duration" if what == LONGEST else "evicted"
                announcer.end(slot, reason, (record, 0, deadline, sensor_id))
        if what == EVICTION:
            silences.evict(deadline, slot, record)
            table.remove(slot)
        return FOREVER


def _put_back(table: SensorTable, slot: int, episode: Episode | None, silence: Silence | None) -> None:
    """The open episodes of a sensor as they were."""
    if episode is not None:
        table.episodes[slot] = episode
    if silence is None:
        table.silences.pop(slot, None)
    else:
        table.silences[slot] = silence
