"""What is known of the incidents that are open, and how it is stored.

All partitions of the alerts share one state, and a commit stores state by partition. So the whole is stored with one of
the partitions that a commit moves, and the others get a mark; each carries the number of the state it belongs to. The
newest number among all partitions has to be that of a whole: otherwise something of it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct, field

from detector.streams.base import Partition
from detector.wire.alerts import Kind, Severity
from detector.wire.incidents import IncidentEnd, What

FORMAT: Final = 1


class Member(Struct):
    """An episode that is a member. Times are ns; `error`: how far off the onset may be."""

    alert_id: str
    sequence: int
    sensor_id: str
    kind: Kind
    severity: Severity
    started_at: int
    ended_at: int | None
    peak_score: float
    channel: str | None
    what: What | None
    muted: bool
    expected: bool
    closed: bool
    error: int


class Counted(Struct, array_like=True):
    """A member beyond those that are shown."""

    sequence: int
    expected: bool
    closed: bool


class Open(Struct):
    """An incident that is open. `anchor`: the onset its members are held against; times are ns.

    `closed` and `expected`: how many of all members are so.
    """

    incident_id: str
    group: str
    anchor: int
    detected_at: int
    severity: Severity
    sequence: int
    told_at: int
    next_size: int
    changed: bool
    members: list[Member]
    counted: dict[str, Counted] = field(default_factory=dict)
    closed: int = 0
    expected: int = 0

    @property
    def size(self) -> int:
        return len(self.members) + len(self.counted)

    @property
    def ended(self) -> IncidentEnd | None:
        """Why it is over; None while it is not."""
        if self.expected == self.size:
            return "expected"
        return "recovered" if self.closed == self.size else None


class State(Struct):
    """All that is kept. `clocks`: the newest time of each group with an open incident.

    `past`: episodes of incidents that are closed, the oldest first, with whether they were closed themselves. `told`:
    offsets of each partition up to which alerts count no more, because the state was made again from incidents.
    """

    format: int = FORMAT
    version: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    open: list[Open] = field(default_factory=list)
    clocks: dict[str, int] = field(default_factory=dict)
    past: dict[str, bool] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)


class _Stored(Struct):
    version: int
    whole: State | None = None


class Keeper:
    """Packs a state for the partitions of a commit. Whatever changes it is followed by `changed`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._holder: Partition | None = None

    def changed(self, partition: Partition, position: int) -> None:
        """The state is now that after the records of `partition` before `position`."""
        self.state.version += 1
        self.state.positions[named(partition)] = position
        self._holder = None

    def pack(self, partition: Partition) -> bytes:
        """What to store with the partition: the first that is asked for has the whole."""
        if self._holder is None:
            self._holder = partition
        whole = self.state if self._holder == partition else None
        return msgspec.msgpack.encode(_Stored(self.state.version, whole))


def newest(states: Mapping[Partition, bytes | memoryview | None]) -> State | None:
    """The state that was stored last; None if there is none, or not all of it.

    Raises ValueError for one that this version does not know.

    >>> keeper, (one, two) = Keeper(State()), (Partition("alerts", 0), Partition("alerts", 1))
    >>> keeper.changed(one, 5)
    >>> first = keeper.pack(one)
    >>> keeper.changed(two, 7)
    >>> newest({one: first, two: keeper.pack(two)}).positions
    {'alerts:0': 5, 'alerts:1': 7}
    >>> newest({one: first, two: None}).positions
    {'alerts:0': 5}
    >>> second = keeper.pack(one)  # only a mark: the whole was with the other
    >>> newest({one: second, two: None}) is None
    True
    """
    stored = {of: msgspec.msgpack.decode(data, type=_Stored) for of, data in states.items() if data is not None}
    version = max((one.version for one in stored.values()), default=0)
    found = next((one.whole for one in stored.values() if one.version == version and one.whole is not None), None)
    if found is None:
        return None
    if found.format != FORMAT:
        raise ValueError(f"the state has format {found.format}, and {FORMAT} is known")
    lost = [of for of in states if named(of) in found.positions and of not in stored]
    return None if lost else found


def named(partition: Partition) -> str:
    """The partition as the state calls it."""
    return f"{partition.stream}:{partition.number}"
