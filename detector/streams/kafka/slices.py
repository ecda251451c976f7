"""Which slices of a partition's state are stored where, and which is written next.

Every slice is written once per snapshot interval, the oldest first, a few with each commit. A restore takes the newest
of each and runs the input again from the oldest one's position on. A sensor that is in no slice yet was met after
the oldest one: a slice that has come into being and was not written counts as being of the last commit before it. Only
at the very beginning there is no oldest slice: until each has been written once, a restore begins with nothing at the
*origin*, where this partition's state began.

Slices of two models must not be mixed. When the model changes, all are written again as another *generation*, beside
the one in force, which a restore goes on to read until the commit that puts the new one in its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

_LEAST: Final = 8
"""Slices a commit may write whatever the interval says: small states are stored in time even if commits are rare."""
GENERATIONS: Final = 2
"""As many as there can be at a time: the one in force and the one that is being written."""


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
    `generation`: the slices of which count.
    """

    state_from: int
    state_last: int
    replay_from: int
    slices: int | None
    fresh: bool = False
    skips: tuple[tuple[int, int], ...] = ()
    generation: int = 0

    def encode(self) -> str:
        """As offset metadata: ASCII, some 100 bytes."""
        found: dict[str, Any] = {"v": 1, "s": self.state_from, "e": self.state_last, "r": self.replay_from}
        if self.slices is not None:
            found["n"] = self.slices
        if self.fresh:
            found["f"] = 1
        if self.skips:
            found["k"] = self.skips
        if self.generation:
            found["g"] = self.generation
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
            return cls(
                int(found["s"]), int(found["e"]), int(found["r"]), slices, bool(found.get("f")), skips,
                int(found.get("g", 0)),
            )  # fmt: skip
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
    generation: int = 0
    """Of the slices in force."""
    renewal: dict[int, Stored] | None = None
    """Of the next generation, what was written so far; None while there is none."""
    _credit: float = 0.0

    @property
    def writing(self) -> int:
        """The generation that slices are written as now."""
        return self.generation if self.renewal is None else (self.generation + 1) % GENERATIONS

    def renew(self) -> None:
        """From now on only a new generation may be written; what of one is already written does not count."""
        self.renewal = {}

    def plan(self, count: int, rounds: float, share: float) -> list[int]:
        """The slices to write now, of `count` that there are, the most urgent first.

        `rounds`: of the snapshot interval, what has passed since the last commit; `share`: what passes of it between
        two commits when they are as frequent as they can be.
        """
        self.meet(count)
        self._credit = min(self._credit + count * rounds, float(count))
        due = min(int(self._credit), max(_LEAST, math.ceil(2 * count * share)))
        self._credit -= due
        return self._by_age(count)[:due]

    def left_out(self, slices: int) -> None:
        """This many of those planned were too much for one transaction: they are due with the next."""
        self._credit += slices

    def lagging(self, count: int, position: int) -> list[int]:
        """The slices that are not of `position`, the oldest first; while there is a renewal, those it lacks."""
        self.meet(count)
        if self.renewal is not None:
            return [number for number in range(count) if number not in self.renewal]
        return [number for number in self._by_age(count) if number in self.unwritten or self._behind(number, position)]

    def meet(self, count: int) -> None:
        """There are `count` slices now."""
        for number in range(count):
            if number not in self.written and number not in self.unwritten:
                self.unwritten[number] = self.position

    def _by_age(self, count: int) -> list[int]:
        ages = [(position, 0, number) for number, position in self.unwritten.items()]
        ages += [(stored.position, 1, number) for number, stored in self.written.items() if number < count]
        return [number for _, _, number in sorted(ages)]

    def _behind(self, number: int, position: int) -> bool:
        return self.written[number].position < position

    def parts_before(self, number: int) -> int:
        """How many parts the slice has that is stored under this number and will be replaced."""
        old = self.written.get(number) if self.renewal is None else None
        return 0 if old is None else old.parts

    def surplus(self, count: int) -> list[tuple[int, int]]:
        """Numbers and parts of slices that are stored and not needed when the next commit is through."""
        return [
            (number, stored.parts)
            for number, stored in self.written.items()
            if number >= count or self.renewal is not None
        ]

    def behind(self, position: int) -> bool:
        """Whether a restore at `position` would have to run something again."""
        if self.origin is not None:
            return position > self.origin
        since = [*self.unwritten.values(), *(stored.position for stored in self.written.values())]
        return min(since, default=position) < position

    def prepared(self, new: dict[int, Stored]) -> None:
        """Slices of the next generation were written ahead of the commit that puts it in force."""
        if self.renewal is not None:
            self.renewal.update(new)

    def commit(self, position: int, count: int, new: dict[int, Stored], state_last: int) -> None:
        """A commit at `position` wrote the slices `new`, if there was a renewal the last ones of it."""
        self.position = position
        self.state_last = max(self.state_last, state_last)
        if self.renewal is not None:
            self.generation = self.writing
            self.written, self.renewal = self.renewal, None
            self.unwritten.clear()
        self.written.update(new)
        for number in new:
            self.unwritten.pop(number, None)
        for number in [number for number in self.written if number >= count]:
            del self.written[number]
        for number in [number for number in self.unwritten if number >= count]:
            del self.unwritten[number]
        if not self.unwritten:
            self.origin = None

    def coming(
        self, position: int, count: int, new: Callable[[int], dict[int, Stored]], skips: tuple[tuple[int, int], ...]
    ) -> RestorePoint:
        """What a commit will have to say that is not written yet, as far as that can be told.

        It begins to read at the first offset that is free at the latest: nothing of ours lies between that and the
        commit. `new`: the slices it writes, told such an offset for all of them.
        """
        free = max(self.state_last + 1, self.journal_from)
        after = replace(
            self,
            written=dict(self.written),
            unwritten=dict(self.unwritten),
            renewal=None if self.renewal is None else dict(self.renewal),
        )
        after.commit(position, count, new(free), self.state_last)
        return after.restore_point(count, skips)

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
        return RestorePoint(state_from, self.state_last, replay_from, count, fresh, needed, self.generation)
