"""What fires by the partition clock: evictions, an episode's longest duration, and its regular updates.

Timers fire in the order (deadline, sensor id) before the record that passes them is processed. Evictions and longest
durations change how later rows are judged, so they cut a batch; updates only publish, and are told where they fall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.announcer import Announcer
from detector.state import NEVER, SensorTable

EVICTION_INTERVALS = 200
"""A sensor is never forgotten before this many of its median intervals."""
FOREVER = int(np.iinfo(np.int64).max)


class Timers:
    """The timers of one partition's sensors. `idle`: ns, None: never; `longest`: all limits of episodes in use, ns."""

    def __init__(self, table: SensorTable, announcer: Announcer, idle: int | None, longest: Sequence[int]) -> None:
        self._table = table
        self._announcer = announcer
        self._idle = idle
        self._shortest = min([*longest, *([] if idle is None else [idle])], default=None)
        self._next_eviction = NEVER

    def forget(self) -> None:
        """Sensors came or changed: look at all deadlines again."""
        self._next_eviction = NEVER

    def shift(self, jump: int, offset: int) -> None:
        """While the whole partition was silent no timer ran. `offset`: the record that moved the clock by `jump`."""
        clock, known = self._table["clock"], self._table["known"]
        clock[(clock != NEVER) & (known <= offset)] += jump
        self.forget()
        for slot, episode in self._table.episodes.items():
            if known[slot] > offset:
                continue
            self._table.changed.add(self._table.name(slot))
            if episode.update_at is not None:
                episode.update_at += jump
            if episode.close_at is not None:
                episode.close_at += jump

    def fire(self, record: int, now: int) -> int:
        """Fire what this record passes; return up to which clock no timer can cut."""
        due: list[tuple[int, str, int]] = []
        if now > self._next_eviction:
            due = self._evictions(now)
        if due or now > self._earliest_end():
            self._fire_all(record, now, due)
        limit = min(self._earliest_end(), self._next_eviction)
        if self._shortest is not None and now != NEVER:
            limit = min(limit, now + self._shortest)
        return limit

    def update_the_silent(self, now: int) -> None:
        """Updates that became due by `now`, for sensors none of whose rows came after."""
        for slot in self._table.episodes:
            self._announcer.update_until(slot, now)

    def _earliest_end(self) -> int:
        ends = (episode.close_at for episode in self._table.episodes.values())
        return min((end for end in ends if end is not None), default=FOREVER)

    def _evictions(self, now: int) -> list[tuple[int, str, int]]:
        """(deadline, sensor id, slot) of the sensors to be forgotten now."""
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
        return [
            (at, self._table.name(slot), slot)
            for at, slot in zip(deadlines[due].tolist(), slots[due].tolist(), strict=True)
        ]

    def _fire_all(self, record: int, now: int, evictions: list[tuple[int, str, int]]) -> None:
        table, announcer = self._table, self._announcer
        timers = [(at, sensor_id, 2, slot) for at, sensor_id, slot in evictions]
        for slot, episode in table.episodes.items():
            if episode.update_at is not None and now > episode.update_at:
                timers.append((episode.update_at, table.name(slot), 0, slot))
            if episode.close_at is not None and now > episode.close_at:
                timers.append((episode.close_at, table.name(slot), 1, slot))
        for deadline, sensor_id, what, slot in sorted(timers):
            if slot in table.episodes:
                key = record, 0, deadline, sensor_id
                if what == 0:
                    announcer.update(slot, record)
                else:
                    announcer.end(slot, "max_duration" if what == 1 else "evicted", key)
            if what == 2:
                table.remove(slot)
