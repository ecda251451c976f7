"""Times as people write them: other orders than RFC 3339, epochs of one unit, patterns, local times of a zone.

What `detector.times` reads needs none of this. A form is compiled once, and reads one text after the other; it takes
what is written as it says and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from detector.times import EARLIEST, LATEST, MICROSECOND, SECOND
from detector.zones import zone_named

Read = Callable[[str | int | float], int]
"""A time to ns since the epoch. Raises ValueError where it is not written so; OverflowError outside 2000 to 2100."""

UNITS: Final = {"epoch_s": SECOND, "epoch_ms": 1_000_000, "epoch_us": 1_000, "epoch_ns": 1}
ORDERS: Final = {"iso": "year, month, day", "day-first": "day, month, year", "month-first": "month, day, year"}
"""What the names of forms mean, in words."""
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG: Final = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
                "november", "december")  # fmt: skip
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_QUARTER: Final = 900
"""Seconds: no zone has changed its offset but at a quarter of an hour since long before 2000."""
_EPOCH: Final = date(1970, 1, 1).toordinal()

_TIME: Final = r"""
    (?: (?: [Tt] | ,?\ + ) (\d{1,2}) (?: :?([0-5]\d) ) (?: :?([0-5]\d|60) (?: [.,](\d{1,9})\d* )? )?
        (?: \ *([AaPp])\.?[Mm]\.? )?
        (?: \ *([Zz]|UTC|GMT|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?) )?
    )?
"""
_WORD: Final = "|".join((*_LONG, *MONTHS, "sept"))
# A date that is a group of its own, then the groups of `_TIME`.
_DATES: Final = {
    "iso": r"( \d{4} (?: -\d{1,2}-\d{1,2} | /\d{1,2}/\d{1,2} | \.\d{1,2}\.\d{1,2} | \d{4} ) )",
    "day-first": rf"( \d{{1,2}} ([-/.\ ]) (?: \d{{1,2}} | (?i:{_WORD})\.? ) \2 \d{{4}} )",
    "month-first": rf"( (?: \d{{1,2}} | (?i:{_WORD})\.? ) ([-/.\ ]) \d{{1,2}} (?: ,?\  | \2 ) \d{{4}} )",
}
_GROUPS: Final = {
    "iso": (1, 2, 3, 4, 5, 6, 7),
    "day-first": (1, 3, 4, 5, 6, 7, 8),
    "month-first": (1, 3, 4, 5, 6, 7, 8),
}
PATTERNS: Final = {order: re.compile(text + _TIME, re.ASCII | re.VERBOSE) for order, text in _DATES.items()}
"""How dates of each order are written, with or without a time of day and a zone."""


@dataclass(frozen=True, slots=True)
class TimeForm:
    """How times are written. `format` None: RFC 3339 or an epoch number, told apart by magnitude.

    `zone` is that of times that name none; None: UTC.
    """

    format: str | None = None
    zone: str | None = None

    def reader(self) -> Read | None:
        """What reads such times; None for what `detector.times` reads by itself."""
        if self.format is None and self.zone in (None, "UTC"):
            return None
        return reader_of(self.format, self.zone)

    def __str__(self) -> str:
        shown = ORDERS.get(self.format or "", self.format or "RFC 3339 or epoch")
        return f"{shown}, {self.zone}" if self.zone else shown


def reader_of(form: str | None, zone: str | None) -> Read:
    """Compile a form; `form` is one of `detector.config.fields.TIME_FORMATS`, a pattern of strptime, or None.

    >>> reader_of("day-first", "Europe/Berlin")("22.11.2026 10:00") == reader_of("iso", None)("2026-11-22T09:00Z")
    True
    """
    if form in UNITS:
        return _epoch(UNITS[form])
    if form is None:
        return _as_usual(zone)
    return _dates(form, zone) if form in PATTERNS else _pattern(form, zone)


def _epoch(unit: int) -> Read:
    def read(raw: str | int | float) -> int:
        if isinstance(raw, str):
            if not _NUMBER.fullmatch(raw):
                raise ValueError("no number")
            raw = int(raw) if raw.lstrip("+-").isdigit() else float(raw)
        if isinstance(raw, int):
            return _in_range(raw * unit)
        if not math.isfinite(raw):
            raise ValueError("no finite number")
        whole = math.floor(raw)
        finer = max(1, min(unit, MICROSECOND))
        return _in_range(whole * unit + round((raw - whole) * (unit / finer)) * finer)

    return read


def _as_usual(zone: str | None) -> Read:
    """RFC 3339 with local times of a zone, or an epoch number of any unit."""
    from detector.times import parse_time

    dates = _dates("iso", zone)

    def read(raw: str | int | float) -> int:
        return dates(raw) if isinstance(raw, str) else _in_range(parse_time(raw))

    return read


def _pattern(form: str, zone: str | None) -> Read:
    def read(raw: str | int | float) -> int:
        moment = datetime.strptime(raw if isinstance(raw, str) else str(raw), form)
        aware = moment.tzinfo is not None
        if not aware:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        seconds = since.days * 86_400 + since.seconds
        if not aware:
            seconds -= offset_of(zone, seconds)
        return _in_range(seconds * SECOND + since.microseconds * MICROSECOND)

    return read


def _dates(order: str, zone: str | None) -> Read:
    matches, groups = PATTERNS[order].fullmatch, _GROUPS[order]

    def read(raw: str | int | float) -> int:
        found = matches(raw if isinstance(raw, str) else str(raw))
        if found is None:
            raise ValueError(f"not written as {ORDERS[order]}")
        day, hour, minute, second, fraction, half, suffix = found.group(*groups)
        seconds = _days(order, day)
        if hour is not None:
            seconds += _hour(int(hour), half) * 3600 + int(minute) * 60 + int(second or 0)
        seconds -= offset_of(zone, seconds) if suffix is None else _offset_in(suffix)
        return _in_range(seconds * SECOND + (int(fraction.ljust(9, "0")) if fraction else 0))

    return read


@lru_cache(maxsize=1024)
def _days(order: str, text: str) -> int:
    """Seconds from 1970 to a day. Raises ValueError where there is no such day."""
    parts = [part for part in re.split(r"[-/., ]+", text) if part]
    if len(parts) == 1:
        parts = [text[:4], text[4:6], text[6:]]
    year, month, day = {"iso": (0, 1, 2), "day-first": (2, 1, 0), "month-first": (2, 0, 1)}[order]
    name = parts[month]
    number = int(name) if name.isdigit() else MONTHS.index(name[:3].lower()) + 1
    return (date(int(parts[year]), number, int(parts[day])).toordinal() - _EPOCH) * 86_400


@lru_cache(maxsize=256)
def _offset_in(suffix: str) -> int:
    """Seconds ahead of UTC that a time says itself."""
    if suffix[0] not in "+-":
        return 0
    digits = suffix[1:].replace(":", "")
    offset = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
    return offset if suffix[0] == "+" else -offset


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        if hour > 23:
            raise ValueError("no such hour")
        return hour
    if not 1 <= hour <= 12:
        raise ValueError("no such hour of half a day")
    return hour % 12 + 12 * (half in "pP")


def offset_of(zone: str | None, local: int) -> int:
    """Seconds that a zone is ahead of UTC at a local time (seconds since 1970 as its clocks show them).

    Of an hour that comes twice, in autumn, the first one is meant; in spring, of one that never comes, the offset
    before it.
    """
    return 0 if zone is None else _offset(zone, local // _QUARTER)


@lru_cache(maxsize=4096)
def _offset(zone: str, quarter: int) -> int:
    moment = datetime(1970, 1, 1) + timedelta(seconds=quarter * _QUARTER)
    offset = zone_named(zone).utcoffset(moment)
    return 0 if offset is None else offset.days * 86_400 + offset.seconds


def _in_range(ns: int) -> int:
    if not EARLIEST <= ns < LATEST:
        raise OverflowError
    return ns
