"""The kinds of value a setting can have: how each is written in the file, checked, and written back."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from detector.times import parse_time, rfc3339
from detector.zones import is_zone

UNITS: Final = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_READINGS: Final = re.compile(r"([0-9]{1,12}) readings?")
PERIODS: Final = {
    "hour": UNITS["h"],
    "day": UNITS["d"],
    "week": 7 * UNITS["d"],
    "month": 30 * UNITS["d"],
    "year": 365 * UNITS["d"],
}
_MAX_DURATION: Final = 36_500 * UNITS["d"]
DURATION_FORM: Final = "a duration such as 250ms, 10s, 5m, 12h or 7d"
PERIOD_FORM: Final = "hour, day, week, month, year, a duration such as 12h, or a number such as `10000 readings`"


def parse_duration(text: str) -> int:
    """Return the nanoseconds of `250ms`, `10s`, `5m`, `12h` or `7d`. Raises ValueError.

    >>> parse_duration("90s")
    90000000000
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not {DURATION_FORM}")
    ns = int(match[1]) * UNITS[match[2]]
    if ns > _MAX_DURATION:
        raise ValueError(f"`{text}` is longer than 100 years")
    return ns


def format_duration(ns: int) -> str:
    """Write a duration in the largest unit that holds it exactly (never finer than 1 ms).

    >>> format_duration(5_400_000_000_000)
    '90m'
    """
    for unit in ("d", "h", "m", "s"):
        if ns and ns % UNITS[unit] == 0:
            return f"{ns // UNITS[unit]}{unit}"
    return f"{ns // UNITS['ms']}ms" if ns else "0s"


def expected(what: str, todo: str = "") -> PydanticCustomError:
    """An error of a value that has the wrong form. The reader of the file adds what was written instead."""
    return PydanticCustomError("expected", "{what}", {"what": what, "todo": todo})


def refused(what: str, todo: str = "") -> PydanticCustomError:
    """An error of values that are well-formed but do not go together, told in full."""
    return PydanticCustomError("refused", "{what}", {"what": what, "todo": todo})


def _duration(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError:
            raise expected(DURATION_FORM) from None
    # A bare number in a file has no unit; in Python code an int is nanoseconds.
    if info.mode == "json" or not isinstance(value, int) or isinstance(value, bool):
        raise expected(DURATION_FORM, "Add the unit")
    return value


def _auto_or_duration(value: object, info: ValidationInfo) -> object:
    if value == "auto":
        return value
    try:
        duration = _duration(value, info)
    except PydanticCustomError as error:
        raise expected(f"auto, or {DURATION_FORM}", (error.context or {}).get("todo", "")) from None
    if duration == 0:
        raise expected("auto, or a duration above 0")
    return duration


def _time(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        try:
            return parse_time(value)
        except ValueError:
            raise expected('a time such as "2026-12-24T00:00:00Z"') from None
    if info.mode == "json":
        raise expected('a time such as "2026-12-24T00:00:00Z"')
    return value


def parse_period(text: str) -> tuple[int | None, int | None]:
    """Return the ns of a budget's period, or else its readings: one of the two is None. Raises ValueError.

    >>> parse_period("12h"), parse_period("300 readings")
    ((43200000000000, None), (None, 300))
    """
    if text in PERIODS:
        return PERIODS[text], None
    match = _READINGS.fullmatch(text)
    return (None, int(match[1])) if match else (parse_duration(text), None)


def _period(value: object) -> object:
    try:
        amounts = parse_period(value) if isinstance(value, str) else ()
    except ValueError:
        amounts = ()
    if not any(amounts):
        is_number = isinstance(value, int) and not isinstance(value, bool)
        raise expected(PERIOD_FORM, f"Write `{value} readings` if readings are meant" if is_number else "")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value) or not value.strip("."):
        raise expected("a name of letters, digits, `.`, `_` and `-`")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise expected("the name of an environment variable", "Put the secret into the variable, not into this file")
    return value


def _pattern(value: str) -> str:
    """As `fnmatch` reads it, but what could only be a slip is refused there and taken literally by it."""
    at = 0
    while (at := value.find("[", at)) >= 0:
        begin = at + 1 + value.startswith("!", at + 1)
        end = value.find("]", begin + 1)
        if end < 0:
            raise refused(f"`{value}` is no pattern: a [ is never closed", "Close it, or write [[] for the character")
        for low, high in re.findall(r"(.)-(.)", value[begin:end], re.DOTALL):
            if low > high:
                raise refused(f"`{value}` is no pattern: nothing lies from {low} to {high}", f"Write {high}-{low}")
        at = end + 1
    return value


def _zone(value: str) -> str:
    if not is_zone(value):
        raise expected("the name of a time zone such as Europe/Berlin or UTC")
    return value


def _day(value: str) -> str:
    if re.fullmatch(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}", value, re.ASCII):
        with suppress(ValueError):
            return date.fromisoformat(value).isoformat()
    raise expected("a day such as 2026-12-24")


def _listen(value: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", value)
    if match is None or int(match[1]) > 65_535:
        raise expected("an address and a port such as 127.0.0.1:9108")
    return value


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        raise expected("an address such as https://login.example.org/token, without user and password")
    return value


def _written(check: Callable[[str], str]) -> BeforeValidator:
    """The check of a text of which a number, say, has the wrong form: in quotes it would have it just as well."""
    return BeforeValidator(lambda value: check(value if isinstance(value, str) else ""))


_serialize = PlainSerializer(format_duration, return_type=str)
DURATION_PATTERN: Final = "^[0-9]{1,9}(ms|s|m|h|d)$"
_schema = WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})

Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0), _serialize, _schema]
"""Nanoseconds; written `250ms`, `10s`, `5m`, `12h`, `7d`."""
PositiveDuration = Annotated[int, BeforeValidator(_duration), Field(gt=0), _serialize, _schema]
PatientDuration = Annotated[
    int | Literal["auto"],
    BeforeValidator(_auto_or_duration),
    PlainSerializer(lambda value: value if value == "auto" else format_duration(value), return_type=str),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "string", "pattern": DURATION_PATTERN}]}),
]
"""The same, or `auto`."""
Time = Annotated[
    int,
    BeforeValidator(_time),
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Zone = Annotated[str, _written(_zone)]
Day = Annotated[
    str,
    _written(_day),
    WithJsonSchema({"type": "string", "format": "date"}),
]
"""A day of the calendar, as 2026-12-24."""
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: Final[tuple[Weekday, ...]] = get_args(Weekday)
Period = Annotated[str, BeforeValidator(_period)]
Name = Annotated[str, AfterValidator(_name)]
Listen = Annotated[str, _written(_listen)]
Endpoint = Annotated[str, _written(_endpoint)]
"""An address of HTTP or HTTPS."""
Text = Annotated[str, Field(min_length=1, max_length=256)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
"""A shell pattern: `*`, `?`, `[a-c]`, `[!a-c]`; case counts."""
Variable = Annotated[str, _written(_variable)]
Count = Annotated[int, Field(ge=1)]
