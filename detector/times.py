"""Points in time: what a message may say, int64 nanoseconds since the epoch (UTC) inside, RFC 3339 outside.

A number is seconds, milliseconds, microseconds or nanoseconds since the epoch, told apart by its magnitude. Integers
and strings are exact; a float is taken to the microsecond, because a double cannot tell finer steps of today's epoch
seconds apart and its stray digits would make `….1` and `"….1Z"` two times.
"""

from __future__ import annotations

import math
import re
from array import array
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, U8, Bools

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000

# A reading of another century is a broken clock or a wrong unit. First and first-not-allowed instant, ns.
EARLIEST: Final = 946_684_800 * SECOND
LATEST: Final = 4_102_444_800 * SECOND

# What became of each of several timestamps: see `instants`.
OK: Final = 0
UNREADABLE: Final = 1
OUT_OF_RANGE: Final = 2

TIME_FORM: Final = "RFC 3339 such as 2026-11-22T10:00:00Z, or an epoch number"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))?",
    re.ASCII,
)
# Magnitudes at which the next unit begins, and the units in ns.
_LIMITS: Final = (10**11, 10**14, 10**17)
_UNITS: Final = (SECOND, MILLISECOND, MICROSECOND, 1)

_LIMIT_ARRAY: Final = np.array(_LIMITS)
_UNIT_ARRAY: Final = np.array(_UNITS)
_MONTH_DAYS: Final = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
# Below this many strings the set-up of the vectorised parser costs more than it saves.
_BULK: Final = 24
# Where RFC 3339 has its digits, in pairs, and its marks.
_TENS: Final = np.array([0, 2, 5, 8, 11, 14, 17])
_ONES: Final = _TENS + 1
_DIGITS: Final = np.concatenate([_TENS, _ONES])
_MARKS: Final = np.array([4, 7, 13, 16])
_MARK_BYTES: Final = np.frombuffer(b"--::", dtype=np.uint8)[:, np.newaxis]


def parse_time(value: str | int | float) -> int:
    """Return the instant `value` names, in ns since the epoch. The range is not checked.

    A string is RFC 3339, with a space allowed for the `T` and UTC where no zone is given; digits beyond the
    nanosecond are cut. A number is an epoch time. Raises ValueError when it is neither.
    """
    if isinstance(value, str):
        return _parse_text(value)
    unit = next((unit for limit, unit in zip(_LIMITS, _UNITS, strict=False) if abs(value) < limit), 1)
    if isinstance(value, int) and not isinstance(value, bool):
        return value * unit
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"expected {TIME_FORM}")
    whole = math.floor(value)
    return whole * unit + round((value - whole) * (unit // MICROSECOND)) * MICROSECOND


def _parse_text(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {TIME_FORM}")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    fraction, sign, zone_hours, zone_minutes = match.group(7, 8, 9, 10)
    try:
        since = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH
    except ValueError:
        raise ValueError(f"expected {TIME_FORM}") from None
    ns = (since.days * 86_400 + since.seconds) * SECOND
    if fraction:
        ns += int(fraction.ljust(9, "0"))
    if sign:
        offset = (int(zone_hours) * 60 + int(zone_minutes)) * 60 * SECOND
        ns -= offset if sign == "+" else -offset
    return ns


def rfc3339(ns: int) -> str:
    """Format an instant as RFC 3339 in UTC: no fraction for whole seconds, else 3, 6 or 9 digits."""
    seconds, fraction = divmod(int(ns), SECOND)
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    if not fraction:
        return f"{text}Z"
    if fraction % MILLISECOND == 0:
        return f"{text}.{fraction // MILLISECOND:03d}Z"
    if fraction % MICROSECOND == 0:
        return f"{text}.{fraction // MICROSECOND:06d}Z"
    return f"{text}.{fraction:09d}Z"


def instants(raw: list[str | int | float]) -> tuple[I64, NDArray[np.int8]]:
    """`parse_time` of many, with the range checked: (times in ns, what became of each).

    Where the second is not `OK` it is `UNREADABLE` or `OUT_OF_RANGE` (outside the years 2000 to 2100), and the time
    is meaningless. Booleans must not be among `raw`.
    """
    # An array takes integers, or integers and floats, or nothing: cheaper than asking every value for its type.
    try:
        return _from_integers(np.frombuffer(array("q", cast(list[int], raw)), dtype=np.int64))
    except (TypeError, OverflowError):
        pass
    try:
        floats = np.frombuffer(array("d", cast(list[float], raw)), dtype=np.float64)
        # Integers among floats have become floats, which above 2**53 may have moved them.
        if (np.abs(floats) < 2**53).all() or set(map(type, raw)) == {float}:
            return _from_floats(floats)
    except (TypeError, OverflowError):
        pass
    texts = [value for value in raw if isinstance(value, str)]
    if len(texts) == len(raw):
        return _from_texts(texts)
    times = np.zeros(len(raw), dtype=np.int64)
    codes = np.zeros(len(raw), dtype=np.int8)
    kind = np.array(["U" if isinstance(value, str) else "i" if isinstance(value, int) else "f" for value in raw])
    # What does not fit into an int64 is out of range, and stays so when cut.
    integers = [max(-(2**62), min(2**62, value)) for value in raw if isinstance(value, int)]
    floats = np.array([value for value in raw if isinstance(value, float)], dtype=np.float64)
    times[kind == "U"], codes[kind == "U"] = _from_texts(texts)
    times[kind == "i"], codes[kind == "i"] = _from_integers(np.array(integers, dtype=np.int64))
    times[kind == "f"], codes[kind == "f"] = _from_floats(floats)
    return times, codes


def _from_integers(numbers: I64) -> tuple[I64, NDArray[np.int8]]:
    unit = _common_unit(numbers)
    if unit is not None:
        return numbers * unit, np.zeros(len(numbers), dtype=np.int8)
    units = _UNIT_ARRAY[np.searchsorted(_LIMIT_ARRAY, np.abs(numbers), side="right")]
    good = (numbers >= EARLIEST // units) & (numbers < LATEST // units)
    return np.where(good, numbers, 0) * units, np.where(good, np.int8(OK), np.int8(OUT_OF_RANGE))


def _from_floats(numbers: F64) -> tuple[I64, NDArray[np.int8]]:
    unit = _common_unit(numbers)
    if unit is not None:
        return _scale(numbers, unit), np.zeros(len(numbers), dtype=np.int8)
    units = _UNIT_ARRAY[np.searchsorted(_LIMIT_ARRAY, np.abs(numbers), side="right")]
    # One unit of slack: what is rounded into or out of the range is judged below.
    near = (numbers > EARLIEST // units - 1) & (numbers < LATEST // units + 1)
    times = _scale(np.where(near, numbers, 0.0), units)
    good = near & (times >= EARLIEST) & (times < LATEST)
    codes = np.where(good, np.int8(OK), np.int8(OUT_OF_RANGE))
    codes[~np.isfinite(numbers)] = UNREADABLE
    return times, codes


def _scale(numbers: F64, units: I64 | int) -> I64:
    whole = np.floor(numbers)
    micros = np.rint((numbers - whole) * (units // MICROSECOND)).astype(np.int64)
    return whole.astype(np.int64) * units + micros * MICROSECOND


def _common_unit(numbers: I64 | F64) -> int | None:
    """The unit (ns) in which all numbers lie well within the range: the rule, and cheaper than one by one."""
    if len(numbers):
        first, last = numbers.min(), numbers.max()
        for unit in _UNITS:
            if EARLIEST // unit <= first and last < LATEST // unit - 1:
                return unit
    return None


def _from_texts(texts: list[str]) -> tuple[I64, NDArray[np.int8]]:
    times = np.zeros(len(texts), dtype=np.int64)
    codes = np.zeros(len(texts), dtype=np.int8)
    done = np.zeros(len(texts), dtype=bool)
    if len(texts) >= _BULK:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        for length in range(19, 36):
            at = np.flatnonzero(lengths == length)
            if len(at) >= _BULK:
                chosen = texts if len(at) == len(texts) else [texts[index] for index in at]
                times[at], codes[at], done[at] = _from_equally_long(chosen, length)
    codes[~done] = UNREADABLE
    for index in np.flatnonzero(~done):
        try:
            time = _parse_text(texts[index])
        except ValueError:
            continue
        codes[index] = OK if EARLIEST <= time < LATEST else OUT_OF_RANGE
        times[index] = time if codes[index] == OK else 0
    return times, codes


def _from_equally_long(texts: list[str], length: int) -> tuple[I64, NDArray[np.int8], Bools]:
    """Read as many of the texts as are good; the third says which those are. The others are left to the parser."""
    times = np.zeros(len(texts), dtype=np.int64)
    codes = np.zeros(len(texts), dtype=np.int8)
    done = np.zeros(len(texts), dtype=bool)
    try:
        joined = "".join(texts).encode("ascii")
    except UnicodeEncodeError:
        return times, codes, done
    rows = np.frombuffer(joined, dtype=np.uint8).reshape(len(texts), length)
    zone = np.where((rows[:, -1] | 0x20) == ord("z"), 1, np.where(rows[:, -3] == ord(":"), 6, 0))
    # A text without a zone ends in `:SS` as well.
    zone[(zone == 6) & (length < 25)] = 0
    for characters in (0, 1, 6):
        at = np.flatnonzero(zone == characters)
        width = length - characters
        if not len(at) or width < 19 or width == 20:
            continue
        seconds, fraction, good = _read_layout(rows[at, :width].T)
        if characters == 6:
            offset, readable = _read_zone(rows[at, width:].T)
            seconds -= offset
            good &= readable
        good &= (seconds >= EARLIEST // SECOND) & (seconds < LATEST // SECOND)
        times[at] = np.where(good, seconds, 0) * SECOND + np.where(good, fraction, 0)
        done[at] = good
    return times, codes, done


def _read_zone(columns: U8) -> tuple[I64, Bools]:
    """Read `+HH:MM`, one text a column: seconds ahead of UTC, which are valid."""
    digits = columns - np.uint8(ord("0"))
    hours = digits[1].astype(np.int64) * 10 + digits[2]
    minutes = digits[4].astype(np.int64) * 10 + digits[5]
    good = (digits[[1, 2, 4, 5]] <= 9).all(axis=0) & (hours < 24) & (minutes < 60) & (columns[3] == ord(":"))
    good &= (columns[0] == ord("+")) | (columns[0] == ord("-"))
    return np.where(columns[0] == ord("-"), -1, 1) * (hours * 3_600 + minutes * 60), good


def _read_layout(
    columns: U8,
) -> tuple[I64, I64, Bools]:
    """Read `YYYY-MM-DDTHH:MM:SS[.fraction]`, one text a column: seconds, ns beyond them, which are valid."""
    columns = np.ascontiguousarray(columns)
    digits = columns - np.uint8(ord("0"))
    good = (digits[_DIGITS] <= 9).all(axis=0) & (columns[_MARKS] == _MARK_BYTES).all(axis=0)
    good &= (columns[10] | 0x20 == ord("t")) | (columns[10] == ord(" "))
    fraction = np.zeros(columns.shape[1], dtype=np.int64)
    if len(columns) > 19:
        good &= (columns[19] == ord(".")) & (digits[20:] <= 9).all(axis=0)
        for index, digit in enumerate(digits[20:29]):
            fraction += digit.astype(np.int64) * 10 ** (8 - index)
    # Two digits fit into a byte.
    pairs = digits[_TENS] * np.uint8(10) + digits[_ONES]
    month, day, hour, minute, second = pairs[2:]
    good &= (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    century, year_of_century, month, day, hour, minute, second = pairs.astype(np.int64)
    year = century * 100 + year_of_century
    leap = (year % 4 == 0) & ((year_of_century != 0) | (year % 400 == 0))
    good &= day <= _MONTH_DAYS[np.clip(month, 1, 12) - 1] + (leap & (month == 2))
    # Days since the epoch in years that begin in March, so that the leap day comes last.
    early = month <= 2
    year -= early
    day_of_year = (153 * (month - 3 + 12 * early) + 2) // 5 + day - 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
    return days * 86_400 + hour * 3_600 + minute * 60 + second, fraction, good
