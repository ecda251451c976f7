"""Values of command line options that more than one command takes."""

from __future__ import annotations

from detector.errors import UserError


def duration_option(option: str, text: str | None) -> int | None:
    """A duration such as `7d` in ns, at least 1. Raises UserError."""
    from detector.config.values import parse_duration

    if text is None:
        return None
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise UserError(str(error), where=option) from None
    if not duration:
        raise UserError(f"`{text}` is no time", where=option, todo="Give a duration longer than that")
    return duration


def time_option(option: str, text: str | None) -> int | None:
    """A point in time (RFC 3339) in ns. Raises UserError."""
    from detector.times import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise UserError(f"`{text}` is no time: {error}", where=option) from None


def sensor_option(text: str | None) -> str | None:
    """The id given with `--sensor`. Raises UserError."""
    from detector.wire.readings import MAX_SENSOR_ID, is_sensor_id

    if text is not None and not is_sensor_id(text):
        raise UserError(
            "this is no sensor id", where="--sensor", todo=f"Give 1 to {MAX_SENSOR_ID} printable characters"
        )
    return text


def place_option(option: str, text: str | None) -> str | None:
    """A path given with an option; an empty one is a variable that was not set. Raises UserError."""
    if text == "":
        raise UserError("this is empty", where=option, todo="Name a file or a directory")
    return text
