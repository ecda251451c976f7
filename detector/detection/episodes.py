"""From scores and thresholds to episodes: one opening and one closing a fault, row by row, sensors side by side.

An episode opens on a row whose v (ln of the n-th largest of the last m scores) reaches the ln threshold, and closes
after `close_after` consecutive rows below its closing level, which is the threshold at opening but at most 0 (score 1).
After it was ended from outside (`hold`) none opens before one quiet row.

An episode that a person has judged to be none of chance is `excused`: it is no peak and costs nothing (see closed.py).
An episode that opens on a row inside a maintenance window is muted, up to the first row outside of one that reaches the
closing level. One that ends while it is muted counts neither as a peak nor against the budget.

The functions of a `Sensor` are twins of those in recurrences.c; see sensor.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from detector.arrays import I64, Bools
from detector.detection.kernel.cells import CLOSED, OPENED, Cells
from detector.detection.sensor import Sensor, larger, load, smaller, store
from detector.detection.threshold import NOTHING, Lesson, advance, begin, forget_pending, quiet_row, spend, threshold


class OffHours(NamedTuple):
    """A channel has a value of other hours since an instant, ns: what is `usual` at this `hour` of the day, in scaled
    units; and the weekday, where that matters.
    """

    since: int
    usual: float
    channel: int
    hour: int
    weekday: int | None


@dataclass(frozen=True, slots=True)
class Opening:
    """Sensor `at` opened an episode on its row `tick`. `ended`: when its last episode ended, ns.

    `ruled`: a rule of evidence said more of that row than the score did. `calm`: it was that of noise that dies down.
    `hours`: what was said of its hours, where that was the most.
    """

    at: int
    tick: int
    ln_threshold: float
    ended: int
    ruled: bool = False
    calm: bool = False
    hours: OffHours | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """Sensor `at` closed its episode on its row `tick`. `ended`: time of the last row above the closing level, ns."""

    at: int
    tick: int
    ended: int
    peak: float
    lesson: Lesson = NOTHING


@dataclass(frozen=True, slots=True)
class Learning:
    """Sensor `at` took in a peak of quiet rows on its row `tick`."""

    at: int
    tick: int
    lesson: Lesson


def judge_row(s: Sensor, v: float, time: int, inside: bool) -> tuple[int, float]:
    """Follow the episode over a row: `OPENED`, `CLOSED` or 0, and the ln threshold.

    `inside`: the row lies in a maintenance window.
    """
    advance(s)
    limit = threshold(s)
    loud = v >= limit
    s.hold = s.hold and loud
    opens = loud and not s.open and not s.hold
    # What is as bad as the worst of training is no peak of normal operation in a maintenance window.
    if busy := s.open or loud or (inside and v >= 0.0):
        forget_pending(s)
    what = 0
    if s.open:
        what = go_on(s, v, time, inside)
    elif opens:
        what = open_episode(s, v, limit, time, inside)
    if not busy:
        quiet_row(s, v)
    return what, limit


def open_episode(s: Sensor, v: float, limit: float, time: int, inside: bool) -> int:
    """Begin an episode on this row."""
    s.open, s.excused, s.muted, s.quiet, s.peak = True, False, inside, 0, v
    s.close_level, s.loud_time = smaller(limit, 0.0), time
    return OPENED


def go_on(s: Sensor, v: float, time: int, inside: bool) -> int:
    """An open episode over a row: it may close."""
    if v >= s.close_level:
        s.quiet, s.loud_time = 0, time
        s.muted = s.muted and inside
    else:
        s.quiet += 1
    s.peak = larger(s.peak, v)
    return end_episode(s) if s.quiet >= s.close_after else 0


def end_episode(s: Sensor) -> int:
    """Close the open episode. One that is muted is no peak and costs nothing."""
    s.lesson = NOTHING
    if not s.muted:
        spend(s, s.peak)
    s.open = s.muted = s.excused = False
    s.ended = s.loud_time
    return CLOSED


def in_episodes(first: I64, transitions: Sequence[Opening | Closing], open_before: Bools) -> Bools:
    """Which rows of n sensors (N,) lie in an episode; those of each begin at `first` (n + 1,).

    `transitions`: of each sensor in the order of its rows; `open_before` (n,): whose episode was open before.

    >>> in_episodes(np.array([0, 3, 5]), [Opening(0, 1, 0.0, 0)], np.array([False, True])).tolist()
    [False, True, True, True, True]
    """
    inside = np.repeat(open_before, np.diff(first))
    for one in transitions:
        begin, end = int(first[one.at]) + one.tick, int(first[one.at + 1])
        if isinstance(one, Opening):
            inside[begin:end] = True
        else:
            inside[begin + 1 : end] = False
    return inside


def closing_level(ln_threshold: float) -> float:
    """The ln score from which on a row belongs to an episode with this ln threshold."""
    return min(ln_threshold, 0.0)


def end_from_outside(cells: Cells, *, hold: bool) -> list[Closing]:
    """Close the open episodes of all these sensors now, whatever their rows say (gap, longest duration)."""
    closings = []
    sensors = load(cells)
    for at, s in enumerate(sensors):
        if s.open:
            begin(s)
            end_episode(s)
            s.hold = hold
            closings.append(Closing(at, -1, s.ended, s.peak, s.lesson))
    store(sensors, cells)
    return closings
