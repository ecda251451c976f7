"""A sensor's last closed episodes: what each has taught the threshold, so that a person's verdict can take it back.

An episode that ends puts its peak into the reservoir and costs credit (threshold.py). That of a true fault, or of
something that was expected, should not have. Beside the reservoir of a sensor that had an episode stand the highest
peaks that found no place in it, as many as there are episodes to take back: so the reservoir without a peak is what it
would be if that peak had never come. A peak is known by its value, which sinks with the others. One that is too high
for the tail is kept aside until it is a habit of the sensor; from there it is taken back likewise.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

from detector.detection.threshold import CREDIT_MAX, CREDIT_MIN, LN_2, RESERVOIR, Lesson
from detector.wire.readings import Word

EXCUSING: Final = frozenset({"real", "expected"})
"""What is no false alarm: it does not count as a peak, nor against the budget."""
REMEMBERED: Final = 4
"""Closed episodes that a sensor keeps."""


class ClosedEpisode(msgspec.Struct, frozen=True):
    """What is kept of an episode, by its alert.

    `peak`: as the reservoir has it, or would; `aside`: as it is kept aside, or would be; NaN where it is not.
    `charged`: the credit that it costs; `counted`: whether all that counts now. `called`: the partition clock at which
    a person was called for it, ns.
    """

    alert_id: str
    peak: float = math.nan
    aside: float = math.nan
    charged: float = 0.0
    counted: bool = True
    called: int | None = None
    verdict: Word | None = None


class LastEpisodes(msgspec.Struct, frozen=True):
    """The last closed episodes of a sensor, newest last, and the peaks beside its reservoir, highest first."""

    episodes: tuple[ClosedEpisode, ...] = ()
    spares: tuple[float, ...] = ()

    def learnt(self, lesson: Lesson) -> LastEpisodes:
        """After the reservoir took in peaks."""
        sunk = [msgspec.structs.replace(one, peak=one.peak - lesson.shift) for one in self.episodes]
        spares = [spare - lesson.shift for spare in self.spares]
        taken = tuple(_taken_in(one, lesson) for one in sunk)
        return LastEpisodes(taken, _highest([*spares, *lesson.left_out], REMEMBERED))

    def closed(self, episode: ClosedEpisode, lesson: Lesson) -> LastEpisodes:
        """After an episode ended, which taught this."""
        before = self.learnt(lesson)
        others = [one for one in before.episodes if one.alert_id != episode.alert_id]
        kept = msgspec.structs.replace(episode, peak=lesson.entered, aside=lesson.aside, charged=lesson.charged)
        return LastEpisodes((*others, _taken_in(kept, lesson))[-REMEMBERED:], before.spares)

    def find(self, alert_id: str) -> int | None:
        """Which of the episodes has this alert."""
        return next((at for at, one in enumerate(self.episodes) if one.alert_id == alert_id), None)

    def judged(self, at: int, verdict: Word, reservoir: Reservoir) -> tuple[LastEpisodes, Reservoir]:
        """After a verdict on one of them: what is kept, and the reservoir.

        >>> from detector.detection.threshold import NOTHING
        >>> lesson = NOTHING._replace(entered=2.0, charged=1.0, left_out=(0.5,))
        >>> pump = LastEpisodes().closed(ClosedEpisode("a"), lesson)
        >>> told, reservoir = pump.judged(0, "real", Reservoir([2.0] + [1.0] * 7, seen=20, credit=0.0, aside=[]))
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
        lost = {"charged": 0.0, "peak": math.nan, "aside": math.nan} if peaks else {"charged": 0.0}
        kept = tuple(msgspec.structs.replace(one, **lost) for one in self.episodes)
        return LastEpisodes(kept, () if peaks else self.spares)


class Reservoir(NamedTuple):
    """Cells of a threshold: the reservoir's peaks (8), highest first, -inf: none; the peaks seen; the credit.

    `aside`: the peaks kept aside, -inf: none.
    """

    peaks: list[float]
    seen: int
    credit: float
    aside: list[float]


def _taken_in(one: ClosedEpisode, lesson: Lesson) -> ClosedEpisode:
    """An episode whose peak was aside, where it is a habit by now."""
    if not one.counted or not lesson.habit <= one.aside <= lesson.most:
        return one
    return msgspec.structs.replace(one, peak=min(one.aside, lesson.habit + LN_2), aside=math.nan)


def _withdrawn(
    one: ClosedEpisode, reservoir: Reservoir, spares: tuple[float, ...]
) -> tuple[Reservoir, tuple[float, ...]]:
    """Without the peak and the charge of an episode."""
    credit = min(reservoir.credit + one.charged, CREDIT_MAX)
    if math.isnan(one.peak):
        aside = list(reservoir.aside)
        if one.aside in aside:
            aside[aside.index(one.aside)] = -math.inf
        return reservoir._replace(credit=credit, aside=aside), spares
    known = [*reservoir.peaks, *spares]
    if one.peak in known:
        known.remove(one.peak)
    peaks, spares = _parted(known)
    return Reservoir(peaks, max(reservoir.seen - 1, 0), credit, reservoir.aside), spares


def _counted(
    one: ClosedEpisode, reservoir: Reservoir, spares: tuple[float, ...]
) -> tuple[Reservoir, tuple[float, ...]]:
    """With them again."""
    credit = max(reservoir.credit - one.charged, CREDIT_MIN)
    if math.isnan(one.peak):
        aside = list(reservoir.aside)
        if not math.isnan(one.aside) and -math.inf in aside:
            aside[aside.index(-math.inf)] = one.aside
        return reservoir._replace(credit=credit, aside=aside), spares
    peaks, spares = _parted([*reservoir.peaks, *spares, one.peak])
    return Reservoir(peaks, reservoir.seen + 1, credit, reservoir.aside), spares


def _parted(known: list[float]) -> tuple[list[float], tuple[float, ...]]:
    """All peaks known of: the reservoir, and what stands beside it."""
    ordered = _highest(known, RESERVOIR + REMEMBERED)
    peaks = list(ordered[:RESERVOIR])
    return peaks + [-math.inf] * (RESERVOIR - len(peaks)), ordered[RESERVOIR:]


def _highest(peaks: list[float], count: int) -> tuple[float, ...]:
    return tuple(sorted((peak for peak in peaks if peak > -math.inf), reverse=True)[:count])
