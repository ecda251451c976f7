"""Which slices of a partition's state are stored where, and which is written next.

Every slice is written once per snapshot interval, the oldest first, a few with each commit. A restore takes the newest
of each and runs the input again from the oldest one's position on. A sensor that is in no slice yet was met after
the oldest one: a slice that has come into being and was not written counts as being of the last commit before it. Only
at the very beginning there is no oldest slice: until each has been written once, a restore begins with nothing at the
*origin*, where this partition's state began.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

_LEAST: Final = 8
"""Slices a commit may write whatever the interval says: small states are stored in time even if commits are rare."""


class Stored(NamedTuple):
    """Where a slice is: the input position it is of, the offset of its first part in the state topic, its parts."""

    position: int
    offset: int
    parts: int


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What a commit says about restoring, in the metadata of its offset.

    `state_from` and `state_last`: the offsets in the state topic from which to read and that must have been read.
    `replay_from`: where the input is run again from. `slices`: how many there are; None: the state is stored whole.
    `fresh`: begin with nothing, for not every slice was written yet. `skips`: offsets [from, to) that are passed over.
    """

    state_from: int
    state_last: int
    replay_from: int
    slices: int | None
    fresh: bool = False
    skips: tuple[tuple[int, int], ...] = ()

    def encode(self) -> str:
        """As offset metadata: ASCII, some 100 bytes."""
        found: dict[str, Any] = {"v": 1, "s": self.state_from, "e": self.state_last, "r": self.replay_from}
        if self.slices is not None:
            found["n"] = self.slices
        if self.fresh:
            found["f"] = 1
        if self.skips:
            found["k"] = self.skips
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | None) -> RestorePoint | None:
        """What `encode` gave; None if the text is of someone else (or of nobody: offsets set by hand)."""
        try:
            found = json.loads(text or "")
            if found["v"] != 1:
                return None
            skips = tuple((int(first), int(last)) for first, last in found.get("k", ()))
            slices = None if "n" not in found else int(found["n"])
            return cls(int(found["s"]), int(found["e"]), int(found["r"]), slices, bool(found.get("f")), skips)
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(slots=True)
class SliceBook:
    """The slices of one partition. Positions are input offsets, offsets those of the state topic."""

    position: int
    """Of the last commit."""
    state_last: int = -1
    """Offset of the newest record of ours."""
    journal_from: int = 0
    """While fresh: from where the journal has to be read."""
    origin: int | None = None
    """Where the state began with nothing, while not every slice was written yet."""
    written: dict[int, Stored] = field(default_factory=dict)
    unwritten: dict[int, int] = field(default_factory=dict)
    all_due: bool = False
    """Write everything with the next commit."""
    _credit: float = 0.0

    def plan(self, count: int, rounds: float, share: float) -> list[int]:
        """The slices to write now, of `count` that there are.

        `rounds`: of the snapshot interval, what has passed since the last commit (inf: all that lag behind);
        `share`: what passes of it between two commits when they are as frequent as they can be.
        """
        for number in range(count):
            if number not in self.written and number not in self.unwritten:
                self.unwritten[number] = self.position
        if self.all_due or math.isinf(rounds):
            return list(range(count))
        self._credit = min(self._credit + count * rounds, float(count))
        due = min(int(self._credit), max(_LEAST, math.ceil(2 * count * share)))
        self._credit -= due
        ages = [(position, 0, number) for number, position in self.unwritten.items()]
        ages += [(stored.position, 1, number) for number, stored in self.written.items() if number < count]
        return [number for _, _, number in sorted(ages)[:due]]

    def surplus(self, count: int) -> list[tuple[int, int]]:
        """Numbers and parts of slices that are stored and there is no sensor for any more."""
        return [(number, stored.parts) for number, stored in self.written.items() if number >= count]

    def behind(self, position: int) -> bool:
        """Whether a restore at `position` would have to run something again."""
        if self.origin is not None:
            return position > self.origin
        since = [*self.unwritten.values(), *(stored.position for stored in self.written.values())]
        return min(since, default=position) < position

    def commit(self, position: int, count: int, new: dict[int, Stored], state_last: int) -> None:
        """A commit at `position` wrote the slices `new`."""
        self.position = position
        self.state_last = max(self.state_last, state_last)
        self.written.update(new)
        for number in new:
            self.unwritten.pop(number, None)
        for number in [number for number in self.written if number >= count]:
            del self.written[number]
        for number in [number for number in self.unwritten if number >= count]:
            del self.unwritten[number]
        self.all_due = False
        if not self.unwritten:
            self.origin = None

    def restore_point(self, count: int, skips: tuple[tuple[int, int], ...]) -> RestorePoint:
        """What the commit has to say."""
        if self.origin is not None or not self.written:
            origin = self.position if self.origin is None else self.origin
            return self._point(self.journal_from, origin, count, True, skips)
        oldest = min(stored.position for stored in self.written.values())
        first = min(stored.offset for stored in self.written.values())
        return self._point(first, oldest, count, False, skips)

    def _point(
        self, state_from: int, replay_from: int, count: int, fresh: bool, skips: tuple[tuple[int, int], ...]
    ) -> RestorePoint:
        needed = tuple(skip for skip in skips if skip[1] > replay_from)
        return RestorePoint(state_from, self.state_last, replay_from, count, fresh, needed)
