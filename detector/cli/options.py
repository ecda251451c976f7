"""Types of command line options: each takes the text that was given and returns its value.

What a text cannot be is an `ArgumentTypeError`, which says what was written and what is wanted; the parser adds the
name of the option and makes it one line and exit status 2. Modules are imported when an option is given.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

    from detector.config.load import FalseAlarms
    from detector.streams.base import Partition
    from detector.wire.csv_form import CsvOptions

_RATE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)/s", re.ASCII)
_OFFSET: Final = re.compile(r"([^:]+):(\d{1,19}):(\d{1,19})", re.ASCII)


def duration(text: str) -> int:
    """`7d`, `250ms`: ns, at least 1."""
    from detector.config.values import parse_duration

    try:
        nanoseconds = parse_duration(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if not nanoseconds:
        raise ArgumentTypeError(f"`{text}` is no time; give a duration longer than that")
    return nanoseconds


def instant(text: str) -> int:
    """A point in time (RFC 3339): ns since the epoch."""
    from detector.times import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise ArgumentTypeError(f"`{text}`: {error}") from None


def sensor_id(text: str) -> str:
    """An id as a sensor or a camera may have it."""
    from detector.wire.readings import MAX_SENSOR_ID, is_sensor_id

    if not is_sensor_id(text):
        raise ArgumentTypeError(f"this is no sensor id; a sensor id has 1 to {MAX_SENSOR_ID} printable characters")
    return text


def place(text: str) -> str:
    """A path; an empty one is a variable that was not set."""
    if not text:
        raise ArgumentTypeError("this is empty; name a file or a directory")
    return text


def key_template(text: str) -> str:
    """`{site}/{machine}`: a key built of parts of a message."""
    from detector.config.fields import check_template, parts_of

    try:
        check_template(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if not parts_of(text):
        raise ArgumentTypeError(f"`{text}` is the same for all records; build a key of parts, such as {{machine}}")
    return text


def topic(text: str) -> str:
    """The name of a topic."""
    if not re.fullmatch(r"[\w.-]{1,249}", text, re.ASCII):
        raise ArgumentTypeError(f"`{text}` is no topic: 1 to 249 letters, digits, dots, dashes and underscores")
    return text


def companions(text: str) -> tuple[str, ...]:
    """`incidents,notify`: daemons to run beside the detector."""
    from detector.service.companions import NAMES

    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in NAMES]:
        raise ArgumentTypeError(f"`{unknown[0]}` is none of {', '.join(NAMES)}")
    return names


def time_format(text: str) -> str:
    """A name of a form of times, or a pattern of strptime."""
    from detector.config.fields import check_time_format

    try:
        return check_time_format(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def zone(text: str) -> str:
    """The name of a time zone."""
    from detector.zones import is_zone

    if not is_zone(text):
        raise ArgumentTypeError(f"`{text}` is no time zone; give a name such as Europe/Berlin")
    return text


def encoding(text: str) -> str:
    """An encoding whose texts are lines of bytes."""
    import codecs

    try:
        found = codecs.lookup(text)
        if "\n".encode(text) == b"\n":
            return found.name
    except (LookupError, UnicodeError):
        pass
    raise ArgumentTypeError(f"`{text}` is no encoding of lines; give utf-8, latin-1, cp1252 or the like")


def add_companions(parser: argparse.ArgumentParser, what: str) -> None:
    """Let daemons beside `run` be named; `what` is the help."""
    parser.add_argument("--with", dest="companions", type=companions, metavar="incidents,notify", default=(), help=what)


def add_sensor_option(parser: argparse.ArgumentParser) -> None:
    """Add whose readings those are that name no sensor."""
    parser.add_argument(
        "--sensor", type=sensor_id, metavar="ID", help="the sensor of readings that name none (default: file name)"
    )


def add_csv_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said of a CSV file beside what is recognised of it."""
    parser.add_argument(
        "--interval", type=duration, metavar="D", help="time between rows of a CSV file without timestamps, e.g. 1s"
    )
    parser.add_argument(
        "--time-format",
        type=time_format,
        metavar="FORMAT",
        help="how a CSV file writes times: day-first, month-first, epoch_ms, or a pattern such as %%d.%%m.%%y",
    )
    parser.add_argument(
        "--zone", type=zone, metavar="ZONE", help="the zone of its times that name none, e.g. Europe/Berlin"
    )
    parser.add_argument("--wide", choices=("sensors", "channels"), help="each of its numeric columns is one")
    parser.add_argument("--encoding", type=encoding, metavar="NAME", help="of a CSV file, e.g. latin-1")


def csv_options(args: argparse.Namespace) -> CsvOptions:
    """What was said of it."""
    from detector.wire.csv_form import CsvOptions

    return CsvOptions(args.time_format, args.zone, args.wide, args.encoding)


def count(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def count_or_none(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def seed(text: str) -> int:
    """A seed that every generator of random numbers takes."""
    return _whole(text, 0, 2**32 - 1)


def rate(text: str) -> float:
    """`100/s`: a number a second, above 0."""
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise ArgumentTypeError(f"`{text}` is not a rate such as 100/s")
    return float(match[1])


def alarm_rate(text: str) -> FalseAlarms:
    """`3/week`, `2/12h`: this many alarms in a length of time."""
    from detector.reports.tuning import budget

    try:
        return budget(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{error}; write it as 3/week, 1/day or 2/12h") from None


def topic_offset(text: str) -> tuple[Partition, int]:
    """TOPIC:PARTITION:OFFSET."""
    from detector.streams.base import Partition

    match = _OFFSET.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"`{text}` is no place in a topic; write TOPIC:PARTITION:OFFSET")
    return Partition(match[1], int(match[2])), int(match[3])


def _whole(text: str, least: int, most: int | None = None) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        last = "on" if most is None else f"to {most}"
        raise ArgumentTypeError(f"`{text}` is not a whole number from {least} {last}")
    return number
