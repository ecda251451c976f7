"""Places for sensors: how many a partition knows, and who makes way for a new one.

Memory has a bound whatever comes. Where every place is taken, the sensor that was heard least recently of those without
a profile makes way; where all have one, a new sensor is refused. Rows that warm-ups hold together have a bound of their
own. What happens follows from the records alone, in the order of their offsets.

Who makes way depends on when all others were heard, so it cannot be found out again where some of the state is newer
than the records that are run again. What happened is told then, from a log.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detector.arrays import I64
from detector.detection.table import SensorTable
from detector.engine.slices import decoded

WARM_UP_BYTES: Final = 160_000_000
"""What warm-ups of a partition hold together: 10 000 of 1 000 rows with one channel."""
MOST_WARM_UPS: Final = 4
"""After this many times `warmup` readings a profile is made of whatever came."""
REFUSED: Final = -1
"""In place of a slot."""
MOST_EVENTS: Final = 100_000
"""Of a log that nobody takes, no more are kept."""


class Event(NamedTuple):
    """With the record at an offset a sensor found a place, for which another made way, or it found none.

    `sensor` "": one made way although nobody came. `made_way` "": nobody did; None: the sensor was refused, as it was
    from there to the end of the log, or to its next event.
    """

    offset: int
    sensor: str
    made_way: str | None


Log = list[Event]
"""In order."""


def pack_log(log: Log) -> bytes:
    """A log as it is stored."""
    return msgspec.msgpack.encode(log)


def unpack_log(data: bytes) -> Log:
    """What `pack_log` packed. Raises StateError."""
    return decoded(data, Log)


class Places:
    """The places of one partition's sensors. `most`: sensors, 0: any number.

    `forgotten` is called when a sensor made way.
    """

    def __init__(self, table: SensorTable, most: int, forgotten: Callable[[], None]) -> None:
        self._table, self._most, self._forgotten = table, most, forgotten
        self._most_rows = WARM_UP_BYTES // (8 + 8 * table.channels)
        self._queue: list[tuple[int, str, int]] | None = None  # heard, sensor, slot; some of it may be out of date
        self.log: Log = []
        self._refused: set[str] = set()  # whose last event in the log is that
        self._told_until = 0
        self._told: dict[str, tuple[list[int], list[tuple[str | None, int]]]] = {}  # offsets, and who, until when
        self._told_rows: dict[int, list[str]] = {}

    def take_log(self) -> Log:
        """What happened since the last call."""
        log, self.log = self.log, []
        self._refused.clear()
        return log

    def tell(self, logs: Mapping[int, Log], until: int) -> None:
        """What happened with the records before the offset `until`. `logs`: by the offset before which each ends."""
        self._told_until = until
        for end, log in sorted(logs.items()):
            for offset, sensor_id, made_way in log:
                if sensor_id:
                    offsets, events = self._told.setdefault(sensor_id, ([], []))
                    offsets.append(offset)
                    events.append((made_way, end))
                elif made_way is not None:
                    self._told_rows.setdefault(offset, []).append(made_way)

    def _note(self, offset: int, sensor_id: str, made_way: str | None) -> None:
        if len(self.log) < MOST_EVENTS:
            self.log.append(Event(offset, sensor_id, made_way))

    def enough(self, ids: Sequence[str], offset: int) -> bool:
        """Whether there is a place for each of the sensors that is new, from the record at `offset` on."""
        if offset < self._told_until:
            return not self._told
        if not self._most:
            return True
        if self._refused and not self._refused.isdisjoint(ids):
            return False
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
        told = offset < self._told_until
        victim = None
        if told:
            victim = self._told_victim(sensor_id, offset)
        elif slot is None:
            victim = self._victim(sensor_id, offset)
        if victim == REFUSED:
            return REFUSED
        if victim is not None:
            if table["heard"][victim] >= first:
                return None
            if not told:
                self._note(offset, sensor_id, table.name(victim))
            self._make_way(victim)
        if slot is None:
            if victim is None and sensor_id in self._refused:
                self._note(offset, sensor_id, "")
            self._refused.discard(sensor_id)
            slot = meet(sensor_id)
        if table["heard"][slot] < offset:  # more may be known already, where records are run again
            table["heard"][slot] = offset
            if slot in table.warming:
                self._push(slot)
        return slot

    def _victim(self, sensor_id: str, offset: int) -> int | None:
        """Who has to make way for a new sensor, None: nobody; or `REFUSED`."""
        if not self._most or len(self._table) < self._most:
            return None
        victim = self._least_recent(offset)
        if victim is not None:
            return victim
        if sensor_id not in self._refused:
            self._refused.add(sensor_id)
            self._note(offset, sensor_id, None)
        return REFUSED

    def _told_victim(self, sensor_id: str, offset: int) -> int | None:
        """The same of any sensor, as it was. Who made way may be gone, or be there again in newer state."""
        offsets, events = self._told.get(sensor_id, ([], []))
        at = bisect_right(offsets, offset) - 1
        if at < 0:
            return None
        made_way, end = events[at]
        if made_way is None:
            return REFUSED if offset < end and sensor_id not in self._table.slots else None
        return self._as_of(made_way, offset) if offsets[at] == offset else None

    def _as_of(self, sensor_id: str, offset: int) -> int | None:
        """The slot of a sensor whose state is not newer than the record at `offset`."""
        slot = self._table.slots.get(sensor_id)
        return None if slot is None or self._table["known"][slot] > offset else slot

    def together(self, offsets: I64, rows: int, warmup: int) -> tuple[int, bool]:
        """How many of the records at these offsets can be taken in together, and whether to make room behind them.

        `rows`: that they have. A warm-up is of `warmup` rows at first.
        """
        if offsets[0] < self._told_until:
            at = np.flatnonzero(np.isin(offsets, list(self._told_rows)))
            return (int(at[0]) + 1, True) if len(at) else (len(offsets), False)
        if (len(self._table.warming) + rows) * MOST_WARM_UPS * warmup <= self._most_rows:
            return len(offsets), False
        return (1, True) if self._rows() + rows > self._most_rows else (len(offsets), False)

    def make_room(self, offset: int) -> None:
        """Let sensors make way until warm-ups hold no more rows than they may; not those heard at `offset`."""
        if offset < self._told_until:
            for slot in [self._as_of(name, offset) for name in self._told_rows.get(offset, ())]:
                if slot is not None:
                    self._make_way(slot)
            return
        excess = self._rows() - self._most_rows
        while excess > 0 and (victim := self._least_recent(offset)) is not None:
            excess -= self._table.warming[victim].count
            self._note(offset, "", self._table.name(victim))
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
