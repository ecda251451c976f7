"""A value that is usual at another hour: the rule of evidence beside the score, from the hours that a prefix has.

What a machine does at which hour, of the day or of the week, is its *profile*: by hour the usual value (the median of
the prefix's rows) and their robust spread. It is known where the prefix covers two days, or two weeks, and the profile
of its older rows explains at least half of the variance of its newest third; other sensors have none. *Off* is how far
a row lies from its hour's usual value, in units of half of what lies between the usual values of the busy and the idle
hours, or of two spreads of its hour, where that is more: from 1 on a row is like those of other hours. By side a sum
goes along (a CUSUM) that rises by what is beyond 1 and falls `FALL` times as fast below; its *limit* is a time that the
prefix makes plausible. A sum beyond its limit is worth the square of how many limits it comes to. Below it the rule
says nothing. Pure arithmetic of one channel; contexts.py has the state of many.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.detection.hours import Local
from detector.times import SECOND

HOURS: Final = 24
WEEK: Final = 7 * HOURS
HOUR: Final = 3600 * SECOND
FALL: Final = 5.0
MOST_OFF: Final = 2.0
"""A row counts for no more than this much off."""
MOST: Final = 20.0
"""What the rule says at most; see `stillness.MOST`."""
PERIODS: Final = 2
EXPLAINED: Final = 0.5
WEEKLY: Final = 0.75
"""Weeks are told apart where that leaves no more than this share of what days leave unexplained."""
LIMIT: Final = 1.5
"""Hours. A clock that was set by one, and a shift that begins an hour late, is no fault."""
FEWEST: Final = 3.0
"""Rows of the least limit."""
ROOM: Final = 2.0
MANY_DAYS: Final = 7
"""In a prefix of this many days or more, one day may be out of the ordinary."""
SPREADS: Final = 2.0
SLOW: Final = (0.1, 0.25)
"""How much an hour's usual value learns from one day, and from one week, of it."""
LASTS: Final = (3, 2)
"""An hour that is off to the same side on this many successive days, or weeks, makes that the usual."""
_LOW, _HIGH = 0.05, 0.95
_SPREAD: Final = 0.9
_NORMAL: Final = 1.6449
_MEAN: Final = 1.2533
"""Standard deviations in a mean absolute one, of the normal distribution."""
FARTHEST: Final = 5.0
"""Values count no farther from the usual place than this many deviations."""
_TINY: Final = 1e-6

Contexts = NDArray[Any]
"""Profiles of hours (k,) of the dtype `CONTEXT`."""
PARTS: Final = (
    ("channel", "i2"), ("weekly", "?"), ("days", "u1"), ("half", "f4"), ("limit", "f4"), ("fewest", "f4"),
    ("center", "f2", (WEEK,)), ("spread", "f2", (WEEK,)),
)  # fmt: skip
CONTEXT: Final = np.dtype(list(PARTS))
"""Of a channel: `half` of what lies between busy and idle hours, `limit` in rows, and by hour of the day, or if it is
`weekly` of the week, the usual standardised value, NaN: none, and its spread. `days`: bits of the weekdays that it is
known of, Monday is 1. An hour with fewer rows than `fewest` teaches nothing. Half precision is enough for what is
compared with `half`, and two bytes an hour."""
NONE: Final[Contexts] = np.empty(0, dtype=CONTEXT)


def contexts_of(times: I64, z: F64, there: Bools, local: Local, interval: int) -> Contexts:
    """The profiles of hours of the channels that have one, of a prefix: times (L,) ns, standardised values (C, L).

    Rows count that are `there` (C, L) and go by a weekday. `interval`: the median one, ns.
    """
    if not len(times) or not 0 < interval <= HOUR or times[-1] - times[0] + interval < PERIODS * HOURS * HOUR:
        return NONE
    found = []
    for channel, (column, counts) in enumerate(zip(z, there & (local.weekday >= 0), strict=True)):
        rows = Local(*(part[counts] for part in local))
        one = _of_channel(times[counts], np.clip(column[counts], -FARTHEST, FARTHEST), rows, interval)
        if one is not None:
            one["channel"] = channel
            found.append(one)
    return np.concatenate(found) if found else NONE


def _of_channel(times: I64, z: F64, local: Local, interval: int) -> Contexts | None:
    if len(times) < 2:
        return None
    span = int(times[-1] - times[0])
    by_day = bins_of(local, weekly=False)
    daily = _unexplained(times, z, by_day, max(HOURS * HOUR, span // 3))
    weekly, by_week = 1.0, False
    if span + interval >= PERIODS * WEEK * HOUR:
        week = max(WEEK * HOUR, span // 3)  # both are held to a week that is whole: a third may lack the day off
        weekly = _unexplained(times, z, bins_of(local, weekly=True), week)
        by_week = weekly <= WEEKLY * _unexplained(times, z, by_day, week)
    if min(weekly, daily) > EXPLAINED:
        return None
    bins = bins_of(local, weekly=by_week)
    center, spread = usual_of(z, bins)
    known = center[~np.isnan(center)]
    half = float(np.quantile(known, _HIGH) - np.quantile(known, _LOW)) / 2
    if half <= _TINY:
        return None
    older = times <= times[-1] - max((WEEK if by_week else HOURS) * HOUR, span // 3)
    before = usual_of(z[older], bins[older])
    worst = max(
        _worst(off(z, center[bins], spread[bins], half), local.day),
        _worst(off(z[~older], before[0][bins[~older]], before[1][bins[~older]], half), local.day[~older]),
    )
    one = np.zeros(1, dtype=CONTEXT)
    one["weekly"], one["half"], one["center"], one["spread"] = by_week, half, center, np.minimum(spread, 6e4)
    one["limit"] = max(FEWEST, LIMIT * HOUR / interval, ROOM * worst)
    one["fewest"] = HOUR / interval / 4
    one["days"] = np.bitwise_or.reduce(1 << np.unique(local.weekday))
    return one


def bins_of(local: Local, *, weekly: bool) -> I64:
    """The hours of the day, or of the week, of rows that go by a weekday."""
    return local.hour + HOURS * local.weekday if weekly else local.hour


def usual_of(z: F64, bins: I64) -> tuple[F64, F64]:
    """By hour (168,) the median of rows (n,) and their spread, NaN where there is none.

    >>> center, spread = usual_of(np.array([1.0, 3.0, 2.0, 8.0]), np.array([0, 0, 0, 5]))
    >>> center[[0, 1, 5]]
    array([ 2., nan,  8.])
    """
    center, spread = np.full(WEEK, np.nan), np.full(WEEK, np.nan)
    order = np.argsort(bins, kind="stable")
    begin = np.flatnonzero(np.diff(bins[order], prepend=-1))
    for rows in np.split(order, begin[1:]) if len(order) else ():
        at, own = bins[rows[0]], np.sort(z[rows])
        center[at] = middle = (own[(len(own) - 1) // 2] + own[len(own) // 2]) / 2
        spread[at] = np.sort(np.abs(own - middle))[int(_SPREAD * (len(own) - 1))] / _NORMAL
    return center, spread


def off(z: F64, center: F64, spread: F64, half: Any) -> F64:
    """How far rows lie from what is usual at their hours, each (n,); 0: nothing is known of that."""
    out = (z - center) / np.maximum(half, SPREADS * spread)
    limited: F64 = np.minimum(np.maximum(out, -MOST_OFF), MOST_OFF)
    return np.where(np.isnan(limited), 0.0, limited)


def added(total: float, beyond: float, most: float) -> float:
    """A sum after a row that is so far off, to the sum's own side.

    >>> added(3.0, 1.5, 9.0), added(3.0, 0.5, 9.0), added(3.0, -1.0, 9.0)
    (3.5, 0.5, 0.0)
    """
    step = beyond - 1.0
    total += step if step >= 0.0 else FALL * step
    return 0.0 if total <= 0.0 else most if total >= most else total


def _worst(path: F64, days: I64) -> float:
    """The largest sum of rows (n,). Where there are many days, without the worst one and those next to it."""
    above = below = 0.0
    sums = []
    for one in path.tolist():
        above, below = added(above, one, np.inf), added(below, -one, np.inf)
        sums.append(max(above, below))
    by_row = np.array(sums)
    if days[-1] - days[0] >= MANY_DAYS:
        by_row = by_row[np.abs(days - days[by_row.argmax()]) > 1]
    return float(by_row.max(initial=0.0))


def _unexplained(times: I64, z: F64, bins: I64, held: int) -> float:
    """The share of the variance of the newest rows, `held` ns of them, that the hours of the older ones leave."""
    newest = times > times[-1] - held
    if newest.all():
        return 1.0
    center, _ = usual_of(z[~newest], bins[~newest])
    expected = center[bins[newest]]
    known = ~np.isnan(expected)
    if 2 * known.sum() < len(known) or known.sum() < 2:
        return 1.0
    rows = z[newest][known]
    variance = float(rows.var())
    return float(np.square(rows - expected[known]).mean()) / variance if variance > _TINY else 1.0


class Learnt(NamedTuple):
    """What an hour has become: its usual value and spread, and on how many days it was off, negative: below."""

    center: float
    spread: float
    streak: int


def learnt(one: Any, at: int, streak: int, mean: float, apart: float, *, teaches: bool) -> Learnt:
    """What an hour `at` of a profile becomes by a day's rows of it, their `mean` and mean distance from the usual.

    It `teaches` what is usual unless a row of it lay in an episode.
    """
    weekly = int(one["weekly"])
    center, spread, half = float(one["center"][at]), float(one["spread"][at]), float(one["half"])
    if center != center:
        return Learnt(mean, 2 * half, 0) if teaches else Learnt(center, spread, 0)
    away = mean - center
    if abs(away) >= max(half, SPREADS * spread):
        side = 1 if away > 0 else -1
        streak = streak + side if streak * side >= 0 else side
        return Learnt(mean, spread, 0) if abs(streak) >= LASTS[weekly] else Learnt(center, spread, streak)
    if not teaches:
        return Learnt(center, spread, 0)
    rate = SLOW[weekly]
    return Learnt(center + rate * away, spread + rate * (_MEAN * apart - spread), 0)
