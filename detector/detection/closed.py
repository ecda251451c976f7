"""A sensor's last closed episodes: what each has taught the threshold, so that a person's verdict can take it back.

An episode that ends puts its peak into the reservoir and costs credit (threshold.py). That of a true fault, or of
something that was expected, should not have. Beside the reservoir of a sensor that had an episode stand the highest
peaks that found no place in it, as many as there are episodes to take back: so the reservoir without a peak is what it
would be if that peak had never come. A peak is known by its value, which sinks with the others.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

from detector.detection.threshold import CREDIT_MAX, CREDIT_MIN, RESERVOIR, Lesson
from detector.wire.readings import Word

EXCUSING: Final = frozenset({"real", "expected"})
"""What is no false alarm: it does not count as a peak, nor against the budget."""
REMEMBERED: Final = 4
"""Closed episodes that a sensor keeps."""


class ClosedEpisode(msgspec.Struct, frozen=True):
    """What is kept of an episode, by its alert.

    `peak`: as the reservoir has it, or would, NaN if it has none of it; `charged`: the credit that it costs; `counted`:
    whether both count now. `called`: the partition clock at which a person was called for it, ns.
    """

    alert_id: str
    peak: float = math.nan
    charged: float = 0.0
    counted: bool = True
    called: int | None = None
    verdict: Word | None = None


class LastEpisodes(msgspec.Struct, frozen=True):
    """The last closed episodes of a sensor, newest last, and the peaks beside its reservoir, highest first."""

    episodes: tuple[ClosedEpisode, ...] = ()
    spares: tuple[float, ...] = ()

    def learnt(self, lesson: Lesson) -> LastEpisodes:
        """After the reservoir took in a peak."""
        if math.isnan(lesson.left_out):
            return self
        sunk = [msgspec.structs.replace(one, peak=one.peak - lesson.shift) for one in self.episodes]
        spares = [spare - lesson.shift for spare in self.spares]
        return LastEpisodes(tuple(sunk), _highest([*spares, lesson.left_out], REMEMBERED))

    def closed(self, episode: ClosedEpisode, lesson: Lesson) -> LastEpisodes:
        """After an episode ended, which taught this."""
        before = self.learnt(lesson)
        others = [one for one in before.episodes if one.alert_id != episode.alert_id]
        kept = msgspec.structs.replace(episode, peak=lesson.entered, charged=lesson.charged)
        return LastEpisodes((*others, kept)[-REMEMBERED:], before.spares)

    def find(self, alert_id: str) -> int | None:
        """Which of the episodes has this alert."""
        return next((at for at, one in enumerate(self.episodes) if one.alert_id == alert_id), None)

    def judged(self, at: int, verdict: Word, reservoir: Reservoir) -> tuple[LastEpisodes, Reservoir]:
        """After a verdict on one of them: what is kept, and the reservoir.

        >>> pump = LastEpisodes().closed(ClosedEpisode("a"), Lesson(2.0, 1.0, left_out=0.5, shift=0.0))
        >>> told, reservoir = pump.judged(0, "real", Reservoir([2.0] + [1.0] * 7, seen=20, credit=0.0))
        >>> reservoir.peaks, reservoir.seen, reservoir.credit
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5], 19, 1.0)
        >>> told.judged(0, "false", reservoir)[1].peaks
        [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        """
        one = self.episodes[at]
        counts = verdict not in EXCUSING
        spares = self.spares
        if counts != one.counted:
            reservoir, spares = _counted(one, reservoir, spares) if counts else _withdrawn(one, reservoir, spares)
        one = msgspec.structs.replace(one, counted=counts, verdict=verdict)
        return LastEpisodes((*self.episodes[:at], one, *self.episodes[at + 1 :]), spares), reservoir

    def without_lessons(self, *, peaks: bool) -> LastEpisodes:
        """The credit has begun again, and if `peaks` also the reservoir: nothing in them is of these episodes."""
        lost = {"charged": 0.0, "peak": math.nan} if peaks else {"charged": 0.0}
        kept = tuple(msgspec.structs.replace(one, **lost) for one in self.episodes)
        return LastEpisodes(kept, () if peaks else self.spares)


class Reservoir(NamedTuple):
    """Cells of a threshold: the reservoir's peaks (8), highest first, -inf: none; the peaks seen; the credit."""

    peaks: list[float]
    seen: int
    credit: float


def _withdrawn(
    one: ClosedEpisode, reservoir: Reservoir, spares: tuple[float, ...]
) -> tuple[Reservoir, tuple[float, ...]]:
    """Without the peak and the charge of an episode."""
    credit = min(reservoir.credit + one.charged, CREDIT_MAX)
    if math.isnan(one.peak):
        return reservoir._replace(credit=credit), spares
    known = [*reservoir.peaks, *spares]
    if one.peak in known:
        known.remove(one.peak)
    peaks, spares = _parted(known)
    return Reservoir(peaks, max(reservoir.seen - 1, 0), credit), spares


def _counted(
    one: ClosedEpisode, reservoir: Reservoir, spares: tuple[float, ...]
) -> tuple[Reservoir, tuple[float, ...]]:
    """With them again."""
    credit = max(reservoir.credit - one.charged, CREDIT_MIN)
    if math.isnan(one.peak):
        return reservoir._replace(credit=credit), spares
    peaks, spares = _parted([*reservoir.peaks, *spares, one.peak])
    return Reservoir(peaks, reservoir.seen + 1, credit), spares


def _parted(known: list[float]) -> tuple[list[float], tuple[float, ...]]:
    """All peaks known of: the reservoir, and what stands beside it."""
    ordered = _highest(known, RESERVOIR + REMEMBERED)
    peaks = list(ordered[:RESERVOIR])
    return peaks + [-math.inf] * (RESERVOIR - len(peaks)), ordered[RESERVOIR:]


def _highest(peaks: list[float], count: int) -> tuple[float, ...]:
    return tuple(sorted((peak for peak in peaks if peak > -math.inf), reverse=True)[:count])
