"""Points in time: what a message may say, int64 nanoseconds since the epoch (UTC) inside, RFC 3339 outside.

A number is seconds, milliseconds, microseconds or nanoseconds since the epoch, told apart by its magnitude. Integers
and strings are exact; a float is taken to the microsecond, because a double cannot tell finer steps of today's epoch
seconds apart and its stray digits would make `….1` and `"….1Z"` two times.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, integers, only_floats

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
_DIGIT: Final = re.compile(r"\d", re.ASCII)
# Below this many strings setting up arrays costs more than it saves.
_BULK: Final = 24
# Where the ninth digit behind the point ends; a nanosecond has no more.
_NANOSECONDS_END: Final = 29


def parse_time(value: str | int | float) -> int:
    """Return the instant `value` names, in ns since the epoch. The range is not checked.

    A string is RFC 3339, with a space allowed for the `T` and UTC where no zone is given; digits beyond the
    nanosecond are cut. A number is an epoch time. Raises ValueError when it is neither.

    >>> parse_time("2026-03-01T13:00:00.25+01:00")
    1772366400250000000
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


def recorded_time(text: str) -> int:
    """The instant that a message of a detector names, ns since the epoch.

    Raises ValueError for what is no RFC 3339, and outside the years 2000 to 2100, where no reading lies: what is kept
    of a message has to fit into 64 bits.

    >>> recorded_time("2026-03-01T13:00:00.25+01:00")
    1772366400250000000
    """
    time = _parse_text(text)
    if not EARLIEST <= time < LATEST:
        raise ValueError("a time lies outside the years 2000 to 2100")
    return time


def _parse_text(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {TIME_FORM}")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    fraction = match[7]
    leap = second == 60
    try:
        since = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC) - _EPOCH
    except ValueError:
        raise ValueError(f"expected {TIME_FORM}") from None
    ns = (since.days * 86_400 + since.seconds) * SECOND
    if leap:
        # The second that is put in before midnight, UTC, counts as the first one after it.
        if (ns - _zone(match)) // SECOND % 86_400 != 86_399:
            raise ValueError(f"expected {TIME_FORM}")
        ns += SECOND
    if fraction:
        ns += int(fraction.ljust(9, "0"))
    return ns - _zone(match)


def rfc3339(ns: int) -> str:
    """Format an instant as RFC 3339 in UTC: no fraction for whole seconds, else 3, 6 or 9 digits.

    >>> rfc3339(1772366400250000000)
    '2026-03-01T12:00:00.250Z'
    """
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

    >>> times, became = instants(["2026-03-01T12:00:00Z", "noon"])
    >>> int(times[0]), (became == OK).tolist()
    (1772366400000000000, [True, False])
    """
    # An array takes integers, or integers and floats, or nothing: cheaper than asking every value for its type.
    try:
        return _from_integers(integers(raw))
    except TypeError:
        pass
    try:
        numbers = only_floats(raw)
        # Integers among floats have become floats, which above 2**53 may have moved them.
        if (np.abs(numbers) < 2**53).all() or set(map(type, raw)) == {float}:
            return _from_floats(numbers)
    except (TypeError, OverflowError):
        pass
    texts = [value for value in raw if isinstance(value, str)]
    if len(texts) == len(raw):
        return _from_texts(texts)
    times = np.zeros(len(raw), dtype=np.int64)
    codes = np.zeros(len(raw), dtype=np.int8)
    kind = np.array(["U" if isinstance(value, str) else "i" if isinstance(value, int) else "f" for value in raw])
    # What does not fit into an int64 is out of range, and stays so when cut.
    whole = integers([max(-(2**62), min(2**62, value)) for value in raw if isinstance(value, int)])
    fractions = only_floats([value for value in raw if isinstance(value, float)])
    times[kind == "U"], codes[kind == "U"] = _from_texts(texts)
    times[kind == "i"], codes[kind == "i"] = _from_integers(whole)
    times[kind == "f"], codes[kind == "f"] = _from_floats(fractions)
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
    by_length: dict[int, list[int]] = {}
    if len(texts) >= _BULK and len(set(map(len, texts))) > 1:
        for index, text in enumerate(texts):
            by_length.setdefault(len(text), []).append(index)
        for at in by_length.values():
            times[at], codes[at] = _from_texts([texts[index] for index in at])
        return times, codes
    alike = _from_alike(texts) if len(texts) >= _BULK else None
    if alike is not None:
        good = (alike >= EARLIEST) & (alike < LATEST)
        return np.where(good, alike, 0), np.where(good, np.int8(OK), np.int8(OUT_OF_RANGE))
    for index, text in enumerate(texts):
        try:
            time = _parse_text(text)
        except ValueError:
            codes[index] = UNREADABLE
            continue
        codes[index] = OK if EARLIEST <= time < LATEST else OUT_OF_RANGE
        times[index] = time if codes[index] == OK else 0
    return times, codes


def _from_alike(texts: list[str]) -> I64 | None:
    """Read equally long texts with numpy (ns); None where not all are written as the first is, zone included.

    numpy takes much that is no RFC 3339 (`now`, `NaT`, bare dates), and years beyond its range without a word. So each
    character is held against the first text's: a digit of this century's dates, or the same mark.
    """
    first = texts[0]
    match = _RFC3339.fullmatch(first)
    if match is None or first[10] == "t":
        return None
    width = match.start(8) if match[8] else len(first) - first.endswith(("Z", "z"))
    lowest, highest = (f"20{_DIGIT.sub(digit, first[2:width])}{first[width:]}".encode() for digit in "09")
    try:
        rows = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8).reshape(len(texts), len(first))
        if not ((rows >= np.frombuffer(lowest, np.uint8)) & (rows <= np.frombuffer(highest, np.uint8))).all():
            return None
        kept = min(width, _NANOSECONDS_END)
        dates = np.ascontiguousarray(rows[:, :kept]).view(f"S{kept}")[:, 0]
        times: I64 = dates.astype("datetime64[ns]").astype(np.int64)
    except ValueError:  # beyond ASCII, or no date
        return None
    return times - _zone(match)


def _zone(match: re.Match[str]) -> int:
    """How far ahead of UTC a text's zone is, ns."""
    sign, hours, minutes = match.group(8, 9, 10)
    if not sign:
        return 0
    offset = (int(hours) * 60 + int(minutes)) * 60 * SECOND
    return offset if sign == "+" else -offset
