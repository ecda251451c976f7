"""Values of command line options that more than one command takes."""

from __future__ import annotations

from detector.errors import UserError


def duration_option(option: str, text: str | None) -> int | None:
    """A duration such as `7d` in ns. Raises UserError."""
    from detector.config import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise UserError(
            f"{text!r} is no duration: {error}", where=option, todo="Write it like 10s, 5m, 12h or 7d"
        ) from error


def time_option(option: str, text: str | None) -> int | None:
    """A point in time (RFC 3339) in ns. Raises UserError."""
    from detector.timestamps import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no time: {error}", where=option) from error
