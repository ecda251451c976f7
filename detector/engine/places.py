"""Places for sensors: how many a partition knows, and who makes way for a new one.

Memory has a bound whatever comes. Where every place is taken, the sensor that was heard least recently of those without
a profile makes way; where all have one, a new sensor is refused. Rows that warm-ups hold together have a bound of their
own. What happens follows from the records alone, in the order of their offsets.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Final

from detector.detection.table import SensorTable

WARM_UP_BYTES: Final = 160_000_000
"""What warm-ups of a partition hold together: 10 000 of 1 000 rows with one channel."""
MOST_WARM_UPS: Final = 4
"""After this many times `warmup` readings a profile is made of whatever came."""
REFUSED: Final = -1
"""In place of a slot."""


class Places:
    """The places of one partition's sensors. `most`: sensors, 0: any number.

    `forgotten` is called when a sensor made way.
    """

    def __init__(self, table: SensorTable, most: int, forgotten: Callable[[], None]) -> None:
        self._table, self._most, self._forgotten = table, most, forgotten
        self._most_rows = WARM_UP_BYTES // (8 + 8 * table.channels)
        self._queue: list[tuple[int, str, int]] | None = None  # heard, sensor, slot; some of it may be out of date

    def enough(self, ids: Sequence[str]) -> bool:
        """Whether there is a place for each of the sensors that is new."""
        if not self._most:
            return True
        free = self._most - len(self._table)
        if len(ids) <= free:
            return True
        return free > 0 and len(set(ids) - self._table.slots.keys()) <= free

    def find(self, sensor_id: str, offset: int, first: int, meet: Callable[[str], int]) -> int | None:
        """The slot of a sensor that is heard at `offset`, or `REFUSED`. `meet` gives a new sensor a slot.

        None: who has to make way was heard at `first` or later, and that has to be dealt with before.
        """
        table = self._table
        slot = table.slots.get(sensor_id)
        if slot is None:
            if len(table) >= self._most:
                victim = self._least_recent(offset)
                if victim is None:
                    return REFUSED
                if table["heard"][victim] >= first:
                    return None
                self._make_way(victim)
            slot = meet(sensor_id)
        if table["heard"][slot] < offset:  # more may be known already, where records are run again
            table["heard"][slot] = offset
            if slot in table.warming:
                self._push(slot)
        return slot

    def may_overflow(self, rows: int, warmup: int) -> bool:
        """Whether warm-ups may hold too many rows when there are this many more."""
        if (len(self._table.warming) + rows) * MOST_WARM_UPS * warmup <= self._most_rows:
            return False
        return self._rows() + rows > self._most_rows

    def make_room(self, offset: int) -> None:
        """Let sensors make way until warm-ups hold no more rows than they may; not those heard at `offset`."""
        excess = self._rows() - self._most_rows
        while excess > 0 and (victim := self._least_recent(offset)) is not None:
            excess -= self._table.warming[victim].count
            self._make_way(victim)

    def _rows(self) -> int:
        return sum(one.count for one in self._table.warming.values())

    def _least_recent(self, offset: int) -> int | None:
        """The sensor without a profile that was heard least recently, before `offset`; None if there is none."""
        table = self._table
        if self._queue is None:
            heard = table["heard"]
            self._queue = [(int(heard[slot]), table.name(slot), slot) for slot in table.warming]
            heapq.heapify(self._queue)
        while self._queue:
            heard_at, name, slot = self._queue[0]
            if table.ids[slot] != name or slot not in table.warming:
                heapq.heappop(self._queue)
            elif heard_at != (now := int(table["heard"][slot])):
                heapq.heapreplace(self._queue, (now, name, slot))
            else:
                return slot if heard_at < offset else None
        return None

    def _push(self, slot: int) -> None:
        if self._queue is not None:
            heapq.heappush(self._queue, (int(self._table["heard"][slot]), self._table.name(slot), slot))

    def look_again(self) -> None:
        """Sensors were met elsewhere: look at all of them again."""
        self._queue = None

    def _make_way(self, slot: int) -> None:
        self._table.remove(slot)
        self._forgotten()
