"""What a target has still to be told, and when the next attempt is due. No clock, no I/O: `now` is given, in seconds.

Of an incident only the newest message counts: what it says of an older one it says, too. An incident may grow for
`settle` seconds before it is first told of. After a failure the whole target is left alone for a while, longer each
time; a message that could not be delivered for `give_up_after` is given up, and so is one that the target refuses.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from detector.wire.incidents import Incident, decode_incident

FORMAT: Final = 1
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


class Entry(Struct):
    """An incident: the outbox keeps its newest message, and which were sent. Times are wall-clock seconds."""

    value: bytes
    sequence: int
    closed: bool
    due: float
    told: int = -1
    failing_since: float | None = None
    attempts: int = 0

    @property
    def pending(self) -> bool:
        return self.sequence > self.told

    @property
    def incident(self) -> Incident:
        return decode_incident(self.value)


class _Stored(Struct):
    format: int
    entries: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds."""

    settle: float
    give_up_after: float


class Outbox:
    """What one target has to be told. `passes` says whether it wants to know of an incident it has not been told of.

    `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        patience: Patience,
        passes: Callable[[Incident], bool] = lambda _: True,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._patience = patience
        self._passes = passes
        self._jitter = jitter
        self.entries: dict[str, Entry] = {}
        self._failures = 0
        self.not_before = 0.0

    def restore(self, data: bytes | memoryview | None) -> None:
        """Go on from what `pack` gave. Raises ValueError for what this version does not know."""
        if data is None:
            self.entries = {}
            return
        stored = msgspec.msgpack.decode(data, type=_Stored)
        if stored.format != FORMAT:
            raise ValueError(f"the state has format {stored.format}, and {FORMAT} is known")
        self.entries = stored.entries

    def pack(self) -> bytes:
        """All that is kept."""
        return msgspec.msgpack.encode(_Stored(FORMAT, self.entries))

    def put(self, value: bytes, now: float) -> None:
        """A message about an incident was read. Raises ValueError where it is none."""
        incident = decode_incident(value)
        closed = incident.event == "closed"
        known = self.entries.get(incident.incident_id)
        if known is None:
            if self._passes(incident):
                due = now + self._patience.settle
                self.entries[incident.incident_id] = Entry(value, incident.sequence, closed, due)
        elif incident.sequence > known.sequence:
            known.value, known.sequence, known.closed = value, incident.sequence, closed

    def due(self, now: float, *, hurry: bool = False) -> tuple[str, Entry] | None:
        """The next to be told of; None if nothing is due. `hurry`: nothing more will come to wait for."""
        if now < self.not_before:
            return None
        ready = [
            (key, entry)
            for key, entry in self.entries.items()
            if entry.pending and (hurry or entry.told >= 0 or entry.due <= now)
        ]
        return min(ready, key=lambda one: (one[1].attempts, one[1].due), default=None)

    @property
    def pending(self) -> int:
        """How many incidents are to be told of, due or not."""
        return sum(entry.pending for entry in self.entries.values())

    def undelivered(self, now: float) -> float:
        """For how long the oldest of them could not be delivered, s."""
        since = [one.failing_since for one in self.entries.values() if one.pending and one.failing_since is not None]
        return max(0.0, now - min(since, default=now))

    def open(self) -> list[Entry]:
        """Incidents that are open and were told of."""
        return [entry for entry in self.entries.values() if entry.told >= 0 and not entry.closed]

    def delivered(self, key: str, sequence: int) -> None:
        """The target knows the message."""
        self.target_answers()
        self._settle(key, sequence)

    def target_answers(self) -> None:
        """There is no reason to leave it alone."""
        self._failures = 0
        self.not_before = 0.0

    def failed(self, key: str, now: float, *, after: float | None = None) -> bool:
        """It was not delivered; whether it is given up. `after`: s that the target asks to wait."""
        entry = self.entries[key]
        entry.attempts += 1
        entry.failing_since = now if entry.failing_since is None else entry.failing_since
        self.pause(now, after=after)
        if now - entry.failing_since < self._patience.give_up_after:
            return False
        self._settle(key, entry.sequence)
        return True

    def pause(self, now: float, *, after: float | None = None) -> None:
        """Leave the target alone for a while: twice as long each time, and not in step with others."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self.not_before = now + max(pause * (0.5 + self._jitter() / 2), min(after or 0.0, LONGEST_PAUSE))

    def refused(self, key: str, sequence: int) -> None:
        """The target does not want it, and will not want it later."""
        self.target_answers()
        self._settle(key, sequence)

    def _settle(self, key: str, sequence: int) -> None:
        entry = self.entries[key]
        entry.told = max(entry.told, sequence)
        entry.attempts, entry.failing_since = 0, None
        if entry.closed and not entry.pending:
            del self.entries[key]
