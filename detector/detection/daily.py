"""What comes at the same hour every day: of a sensor whose prefix has no week, so that it cannot know its days.

A machine that was learnt at night begins to work in the morning, and that looks like a fault. It does so the next day,
too, and the adaptive scale needs longer to learn it than a budget has patience. So an episode that would open at an
hour at which two others were on other days is *hushed*: it goes on as an episode does, but nobody is told, it is no
peak and costs nothing. One that becomes more than twice as loud, or lasts more than twice as long as those before, is
told. Sensors with a profile of hours know their days (see context.py), and who has seen a week has seen what comes in
one: for those there is no such rule.

The functions of a `Sensor` are twins of those in recurrences.c; see sensor.py.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detector.detection.sensor import Sensor, larger, smaller
from detector.times import SECOND

HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR
EPISODES: Final = 4
"""Of so few it is kept when they were: what comes every hour is nothing of the day."""
APART: Final = DAY // 2
"""Openings this far apart are of two days."""
KEPT_FOR: Final = 15 * DAY
"""Two weeks, and a day that is off after them."""
NEVER: Final = int(np.iinfo(np.int64).min)
"""A timestamp before all others."""
_TWICE: Final = math.log(2.0)


def is_brief(span: int, *, hours: bool) -> bool:
    """Whether the rule is for a sensor whose prefix covers this span, ns; `hours`: it has a profile of hours.

    >>> is_brief(3 * DAY, hours=False), is_brief(3 * DAY, hours=True), is_brief(7 * DAY, hours=False)
    (True, False, False)
    """
    return span < 7 * DAY and not hours


def take_down(s: Sensor, at: int, v: float, time: int) -> None:
    """An episode opens now: it takes the place of the older one at `at`."""
    s.openings = [*s.openings[:at], *s.openings[at + 1 :], time]
    s.endings = [*s.endings[:at], *s.endings[at + 1 :], time]
    s.heights = [*s.heights[:at], *s.heights[at + 1 :], v]


def hush(s: Sensor, v: float, limit: float, time: int) -> bool:
    """Whether the episode that would open now is usual at this hour; then it is hushed."""
    at = usual_at(s, time) if s.brief else None
    if at is None or v > highest(s, at) + _TWICE:
        return False
    take_down(s, at, v, time)
    s.hushed, s.quiet, s.close_level = True, 0, smaller(limit, 0.0)
    return True


def go_on_hushed(s: Sensor, v: float, loud: bool, time: int) -> bool:
    """What is hushed over a row: it may end; returns whether it has to be told now."""
    if v >= s.close_level:
        s.quiet, s.endings[-1], s.heights[-1] = 0, time, larger(s.heights[-1], v)
    else:
        s.quiet += 1
    told = loud and (v > highest(s, EPISODES - 1) + _TWICE or time - s.openings[-1] > 2 * longest(s))
    s.hushed = not told and s.quiet < s.close_after
    return told


def usual_at(s: Sensor, time: int) -> int | None:
    """The older of two episodes that were at this hour of two other days; None: there are no two.

    One was there, if it opened within an hour of it, or lasted less than a day and had not ended.

    >>> s = Sensor()
    >>> s.openings = [NEVER, 6 * HOUR, DAY + 6 * HOUR, DAY + 20 * HOUR]
    >>> s.endings = [NEVER, 9 * HOUR, DAY + 8 * HOUR, DAY + 21 * HOUR]
    >>> [usual_at(s, 2 * DAY + hour * HOUR) for hour in (5, 8, 9, 20)]
    [1, 1, None, None]
    """
    older = None
    for i, opening in enumerate(s.openings):
        if opening == NEVER:
            continue
        age, lasted = time - opening, s.endings[i] - opening
        off = age % DAY
        there = off <= HOUR or off >= DAY - HOUR or (lasted < DAY and off <= lasted)
        if age < APART or age > KEPT_FOR or not there:
            continue
        if older is None:
            older = i
        elif opening - s.openings[older] >= APART:
            return older
    return None


def highest(s: Sensor, but: int) -> float:
    """The highest v of the episodes but one."""
    most = -math.inf
    for i, height in enumerate(s.heights):
        if i != but and s.openings[i] != NEVER:
            most = larger(height, most)
    return most


def longest(s: Sensor) -> int:
    """How long the longest episode before the newest one was, ns."""
    most = 0
    for opening, ending in zip(s.openings[:-1], s.endings[:-1], strict=True):
        if opening != NEVER:
            most = max(ending - opening, most)
    return most
