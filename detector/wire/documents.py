"""JSON values looked at one by one: what they are for a reading, or why they are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from detector.wire.readings import MAX_SENSOR_ID, MAX_VALUE, Reason, is_sensor_id, kind_of, show

UNDECODABLE: Final = (ValueError, TypeError, RecursionError)
"""What typed decoders raise: malformed JSON and wrong types, text that is not UTF-8, absent values, deep nesting."""

_decode = msgspec.json.Decoder().decode

T = TypeVar("T")

Documents = Callable[[bytes | None], object]
"""Makes a document of a record's value. Raises Rejected."""


class Rejected(Exception):  # noqa: N818  (an outcome, not an error)
    """A message, or an element of it, is not a reading."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def read_json(value: bytes | None) -> object:
    """The JSON document that a record holds. Raises Rejected."""
    try:
        return _decode(value or b"")
    except UNDECODABLE:
        return parse_document(value)  # takes NaN, to be rejected one by one, and says what is wrong


def decoder_of(what: type[T]) -> Callable[[bytes], T]:
    """Reads a message as a type of msgspec. What it returns raises ValueError for every message that is not one.

    >>> decoder_of(dict[str, int])(b'{"a": 1}')
    {'a': 1}
    """
    decode = msgspec.json.Decoder(what).decode

    def decoded(message: bytes) -> T:
        try:
            return decode(message)
        except RecursionError:  # lists in lists: the one error of a decoder that is no ValueError
            raise ValueError("the JSON is nested too deeply") from None

    return decoded


def parse_document(value: bytes | None) -> object:
    """Read JSON leniently (NaN and the like are numbers here, to be rejected one by one). Raises Rejected."""
    if value is None or not value.strip():
        raise Rejected("empty", "the record has no value")
    try:
        document: object = json.loads(value.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Rejected("malformed", "not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise Rejected("malformed", f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Rejected("malformed", "the JSON is nested too deeply") from None
    except ValueError:  # an integer of thousands of digits
        raise Rejected("malformed", "a number is too long") from None
    return document


def checked_time(time: object) -> str | int | float:
    """A timestamp as `detector.times` takes one; whether it is one is seen there. Raises Rejected."""
    if isinstance(time, str | int | float) and not isinstance(time, bool):
        return time
    raise Rejected("bad_timestamp", f"timestamp is {kind_of(time)}, neither RFC 3339 nor an epoch number")


def checked_value(value: object) -> float | None:
    """A finite number, or None for a missing one. Raises Rejected."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            raise Rejected("value_out_of_range", f"value {show(value)} is beyond {MAX_VALUE:g}") from None
        if number - number == 0:
            return number
    if isinstance(value, str):
        how = "; `readings.coerce: true` takes numbers in strings" if number_in(value) is not None else ""
        raise Rejected("bad_value", f"value {show(value)} is text, not a number{how}")
    raise Rejected("bad_value", f"value {show(value)} is neither a finite number nor null")


def number_in(text: str) -> int | float | None:
    """The number a text is, in the form that JSON has for it but for spaces around it; None if it is none.

    >>> number_in(" 71.30 "), number_in("1e3"), number_in("0x1f"), number_in("NaN")
    (71.3, 1000.0, None, None)
    """
    text = text.strip(" \t").removeprefix("+")
    if not text[-1:].isdigit() or len(text) > 40:
        return None
    try:
        number = json.loads(text)
    except ValueError:
        return None
    return number if type(number) in (int, float) else None


def checked_sensor(sensor: object) -> str:
    """The id of a sensor. Raises Rejected."""
    if not isinstance(sensor, str):
        raise Rejected("bad_sensor_id", f"the sensor id is {kind_of(sensor)}, not text")
    if not is_sensor_id(sensor):
        raise Rejected("bad_sensor_id", f"{show(sensor)} is no sensor id: 1 to {MAX_SENSOR_ID} printable characters")
    return sensor
