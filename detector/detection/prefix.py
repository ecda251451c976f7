"""What of a prefix a sensor is calibrated on: not its sentinels, not its wild rows, not a regime that is over.

A value is *far* if it lies beyond `FAR` robust deviations of the prefix. The deviation is the widest of four quantiles
of the distance from the median, the 95 % one included, each in units of the normal distribution: a machine that is off
a third of the time has a wide one, and nothing of it is far. Of normal rows the limit is that of the median distance.

A *sentinel* is a value that stands for none (-9999, 2147483647): far, exactly the same at least three times, and the
lowest or highest of all. It counts as null. Other far values make their row *wild*. If a sensor was in one regime and
then in another (zeros, then life), all of the first being far from the second, the later one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from detector.arrays import F64, I64, Bools, in_all_channels
from detector.detection.signals import WINDOW, forward_filled

FAR: Final = 30.0
"""Robust deviations; this far out, because an outlier guard nearer to the data loses faults."""
SENTINELS: Final = 3
"""This many sentinels of a channel are known at most."""
REPEATED: Final = 3
"""A sentinel came at least so often."""
FEW: Final = 0.05
"""A larger share of equal far values is a mode of work, unless they are of another order of magnitude."""
OTHER_MAGNITUDE: Final = 10.0
CONVENTIONAL: Final = np.array([999.0, 9999.0, 32767.0, 32768.0, 65535.0, 99999.0, 999999.0, 2**31 - 1, 2**31, 1e30])
"""Sizes of values that stand for none by convention, and whatever is larger than the last of them."""
FEWEST_WINDOWS: Final = 0.5
"""If wild rows leave less than this share of the windows, they are the sensor's habit, and are calibrated on."""
HEARD: Final = 150
"""Each channel has to have come lately in at least this many rows. The shortest profile has as many."""

_SHARES: Final = np.array([0.5, 0.75, 0.9, 0.95])
_NORMAL: Final = np.array([0.6745, 1.1503, 1.6449, 1.9600])
_ROUNDING: Final = 1e-12


class NotYetError(ValueError):
    """The readings so far make no profile. `rows`: how many more may."""

    def __init__(self, message: str, rows: int) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Prefix:
    """Rows to calibrate on: `times` (L,) ns, `values` (L, C); those that are `wild` (L,) take part in nothing.

    `sentinels` (C, 3), NaN: none. `lacking` (L, C): values that stand for missing ones, each the channel's last one.
    """

    times: I64
    values: F64
    wild: Bools
    sentinels: F64
    lacking: Bools


def examine(times: I64, values: F64, *, least: int) -> Prefix:
    """Examine a prefix: times (L,), values (L, C), NaN: a row lacks the channel.

    Raises `NotYetError` where fewer than `least` rows are left, or a channel hardly came.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        times, values = _with_all_channels(times, values, least)
        begin = max(_later_regime(np.ascontiguousarray(column)) for column in forward_filled(values).T)
        if begin:
            if len(values) - begin < least:
                raise NotYetError(
                    f"its first {begin} readings are of another regime than the {len(values) - begin} after them",
                    least - (len(values) - begin),
                )
            times, values = times[begin:], values[begin:]
        sentinels = _sentinels(values)
        values = np.where(stands_for_none(values, sentinels), np.nan, values)
        missing = in_all_channels(np.isnan(values))
        if missing.any():
            times, values = times[~missing], values[~missing]
            if len(values) < least:
                raise NotYetError(f"{int(missing.sum())} of its readings stand for none", least - len(values))
        return _prefix_of(*_with_all_channels(times, values, least), sentinels)


def first_whole(values: F64) -> int:
    """The row of (L, C) by which each channel has come, NaN: it has not; L: one never comes.

    >>> first_whole(np.array([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0]]))
    1
    """
    there = ~np.isnan(values)
    if not len(there) or there[0].all():
        return 0
    return int(np.where(there.any(axis=0), there.argmax(axis=0), len(there)).max())


def taken_as_it_is(times: I64, values: F64) -> Prefix:
    """All of a prefix, whatever it has, from where on each channel has come. Raises `NotYetError` as `examine` does."""
    times, values = _with_all_channels(times, values, HEARD)
    return _prefix_of(times, values, np.full((values.shape[1], SENTINELS), np.nan))


def _prefix_of(times: I64, values: F64, sentinels: F64) -> Prefix:
    lacking = np.isnan(values)
    values = forward_filled(values)
    return Prefix(times, values, wild_rows(values), sentinels, lacking)


def _with_all_channels(times: I64, values: F64, least: int) -> tuple[I64, F64]:
    """The rows from where on each channel has come.

    Raises `NotYetError` where fewer than `least` are left, or in fewer than `HEARD` a channel has come lately: of one
    that was gone nobody knows how it moves. Lately: within a window.
    """
    begin = first_whole(values)
    times, values = times[begin:], values[begin:]
    if begin and len(values) < least:
        raise NotYetError("one of its channels came late, or not at all", least - len(values))
    there, row = ~np.isnan(values), np.arange(len(values))[:, None]
    lately = row - np.maximum.accumulate(np.where(there, row, -WINDOW), axis=0) < WINDOW
    if (fewest := int(lately.sum(axis=0).min())) < HEARD and not there.all():
        raise NotYetError("one of its channels hardly came", HEARD - fewest)
    return times, values


def sentinel_counts(values: F64, sentinels: F64) -> list[list[tuple[float, int]]]:
    """How often each sentinel (C, 3) came in the values (L, C), by channel."""
    return [
        [(value, int((column == value).sum())) for value in known[~np.isnan(known)].tolist()]
        for column, known in zip(values.T, sentinels, strict=True)
    ]


def also_known(sentinels: F64, before: F64) -> F64:
    """The sentinels (C, 3), after those of a profile `before`: rows that it was built of no longer have these.

    >>> also_known(np.array([[7.0, np.nan, np.nan]]), np.array([[-1.0, np.nan, np.nan]]))
    array([[-1.,  7., nan]])
    """
    both = np.full_like(sentinels, np.nan)
    for channel, (new, old) in enumerate(zip(sentinels, before, strict=True)):
        known = [value for value in dict.fromkeys([*old.tolist(), *new.tolist()]) if value == value][:SENTINELS]
        both[channel, : len(known)] = known
    return both


def stands_for_none(values: F64, sentinels: F64) -> Bools:
    """Which of the values (L, C) are a sentinel, of (C, 3) or (L, C, 3)."""
    found: Bools = (values[:, :, None] == sentinels).any(axis=2)
    return found


def wild_rows(values: F64) -> Bools:
    """Which rows of (L, C) are far from the others in some channel; none where that is a habit of the sensor.

    Of several channels some are likely to have the habit. Far values of a channel in three places, or more, are one.
    """
    wild = np.zeros(len(values), dtype=bool)
    if len(values) < WINDOW:
        return wild
    with np.errstate(over="ignore", invalid="ignore"):
        for column in values.T:
            far = _far(column, *_middle(column))
            if values.shape[1] == 1 or _places(far) < REPEATED:
                wild |= far
    return wild if not wild.any() or complete_windows(wild).mean() >= FEWEST_WINDOWS else np.zeros_like(wild)


def complete_windows(wild: Bools) -> Bools:
    """Which windows (L - 99,) of 100 rows have no wild one, by their last row."""
    before = np.concatenate([[0], np.cumsum(wild)])
    clean: Bools = before[WINDOW:] == before[:-WINDOW]
    return clean


def _middle(column: F64) -> tuple[float, float]:
    """The median, and the distance from it beyond which a value is far; 0: the column is constant but for a few."""
    middle = float(np.median(column))
    spread = float((np.quantile(np.abs(column - middle), _SHARES) / _NORMAL).max())
    return middle, FAR * spread if spread > _ROUNDING * abs(middle) else 0.0


def _far(column: F64, middle: float, limit: float) -> Bools:
    """Which values are far. From a constant, which has no deviation, only what nothing else would be."""
    distance = np.abs(column - middle)
    if limit:
        return np.asarray(distance > limit)
    size = np.abs(column)
    usual = np.isin(size, CONVENTIONAL) | (size >= CONVENTIONAL[-1])
    return np.asarray((distance > OTHER_MAGNITUDE * abs(middle)) & usual)


def _sentinels(values: F64) -> F64:
    """The sentinels of each channel (C, 3), NaN where there are fewer."""
    found = np.full((values.shape[1], SENTINELS), np.nan)
    for channel, column in enumerate(values.T):
        column = column[~np.isnan(column)]
        for place in range(SENTINELS):
            value = _sentinel(column, alone=len(found) == 1) if len(column) else None
            if value is None:
                break
            found[channel, place] = value
            column = column[column != value]
    return found


def _sentinel(column: F64, *, alone: bool) -> float | None:
    """The lowest or the highest value, if it is one; `alone`: there is no other channel."""
    for value in _extremes(column):
        equal = column == value
        rest = column[~equal]
        if int(equal.sum()) >= REPEATED and _is_far(value, rest) and (alone or not _ends_a_tail(value, column)):
            large = abs(value) >= OTHER_MAGNITUDE * float(np.quantile(np.abs(rest), 0.99))
            if equal.mean() <= FEW or (large and 2 * _runs(equal) > equal.sum()):
                return value
    return None


def _ends_a_tail(value: float, column: F64) -> bool:
    """Whether more values than there may be sentinels lie half as far from the median as this one, on its side.

    A processor that is idle but for rare full loads has such values: 100 % of it is no sentinel.
    """
    middle = float(np.median(column))
    beyond = column[(column - middle) / (value - middle) >= 0.5]
    return len(np.unique(beyond)) > SENTINELS


def _later_regime(column: F64) -> int:
    """The row with which a later regime begins; 0: there is but one."""
    rows = len(column)
    for value in _extremes(column):
        equal = column == value
        end = rows - int(equal[::-1].argmax())
        many = equal[0] or equal.mean() > FEW
        if end < rows and equal.sum() >= REPEATED and many and _runs(equal) == 1 and _is_far(value, column[~equal]):
            return end  # a constant once, and life
    tail = column[rows - max(rows // 4, min(WINDOW, rows)) :]
    far = np.flatnonzero(_far(column, *_middle(tail)))
    begin = int(far[-1]) + 1 if len(far) else 0
    return begin if begin > FEW * rows and len(far) >= (1 - FEW) * begin and rows - begin >= len(tail) // 2 else 0


def _extremes(column: F64) -> list[float]:
    low, high = float(column.min()), float(column.max())
    return [low, high] if low < high else []


def _is_far(value: float, rest: F64) -> bool:
    return bool(_far(np.array([value]), *_middle(rest))[0])


def _places(chosen: Bools) -> int:
    """How often some of the rows are chosen, with a window or more between."""
    return int((np.diff(np.flatnonzero(chosen), prepend=-WINDOW) >= WINDOW).sum())


def _runs(chosen: Bools) -> int:
    return int(chosen[0]) + int((chosen[1:] & ~chosen[:-1]).sum())
