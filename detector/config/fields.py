"""Where the parts of a reading stand in a message: names, paths, candidates, constants, ids built of parts; presets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from detector.config.base import Section
from detector.config.values import Zone, expected, refused

RECORD: Final = "record"
"""In place of a path to a timestamp: the record's own time."""
CHANNEL: Final = "{channel}"
"""In a path to a value: the name of each channel in turn."""
TIME_FORMATS: Final = ("iso", "day-first", "month-first", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns")
"""What a time's format may be called; anything else is a pattern as of `datetime.strptime`."""
_LONGEST: Final = 256
_PART: Final = re.compile(r"\{([^{}]*)\}")
_FORM: Final = "a name, a path such as tags.host, or a list of them"


@dataclass(frozen=True, slots=True)
class Constant:
    """A text that is the same in every message."""

    constant: str


Source = str | Constant | tuple[str | Constant, ...]
"""One place, or several of which the first that is there counts."""


def places_of(source: Source) -> tuple[str | Constant, ...]:
    """The candidates of a source, in their order."""
    return source if isinstance(source, tuple) else (source,)


def shown(source: Source) -> str:
    """The candidates of a source, for a person."""
    return " or ".join(f"`{one.constant if isinstance(one, Constant) else one}`" for one in places_of(source))


def parts_of(template: str) -> list[str]:
    """The paths in the braces of a template such as `{site}/{machine}`; none in a plain path."""
    return _PART.findall(template)


def is_name(place: str | Constant) -> bool:
    """Whether a place is the name of a key of the message itself, and nothing more."""
    return isinstance(place, str) and not re.search(r"[.{}]", place) and not place.startswith("/")


def _place(value: object, *, constants: bool) -> str | Constant:
    if constants and isinstance(value, dict) and set(value) == {"constant"} and isinstance(value["constant"], str):
        if not 0 < len(value["constant"]) <= _LONGEST:
            raise expected(f"a constant of 1 to {_LONGEST} characters")
        return Constant(value["constant"])
    if isinstance(value, Constant) and constants:
        return value
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise expected(_FORM + (", or {constant: TEXT}" if constants else ""))
    if not value.startswith("/"):
        if re.search(r"[{}]", _PART.sub("", value)) or not all(parts_of(value)):
            raise refused(f"`{value}` has a brace without its other one, or nothing between", "Write {site}/{machine}")
        for path in parts_of(value) or [value]:
            if not all(path.split(".")):
                raise refused(f"`{path}` is no path: nothing stands between two dots", "Write it as tags.host")
    return value


def _source(value: object, *, constants: bool = False, templates: bool = False) -> Source:
    several = isinstance(value, list | tuple)
    if several and not value:
        raise expected(f"{_FORM}, of at least one")
    places = tuple(_place(one, constants=constants) for one in (value if several else [value]))  # type: ignore[attr-defined]
    for place in places:
        if isinstance(place, str) and not templates and not place.startswith("/"):
            odd = [part for part in parts_of(place) if part != "channel"]
            if odd:
                raise refused(f"`{place}` is built of parts, which only a sensor id may be", "Name one path")
    return places if several else places[0]


def _of_sensor(value: object) -> Source:
    return _source(value, constants=True, templates=True)


def check_template(text: str) -> None:
    """A key is built as a sensor id is. Raises ValueError."""
    if text.startswith("/") or not isinstance(_of_sensor(text), str):
        raise expected("a key such as {site}/{machine}")


def _of_time(value: object) -> Source | TimeField:
    if isinstance(value, TimeField):
        return value
    if isinstance(value, dict):
        return TimeField.model_validate_json(_json(value))
    return _no_channel(_source(value))


def _of_value(value: object) -> Source | dict[str, Source]:
    if isinstance(value, dict):
        if not value or not all(isinstance(name, str) and name for name in value):
            raise expected("paths by channel, such as {temperature: fields.temperature}")
        return {name: _no_channel(_source(one)) for name, one in value.items()}
    return _source(value)


def _no_channel(source: Source) -> Source:
    for place in places_of(source):
        if isinstance(place, str) and CHANNEL in place:
            raise refused(f"`{place}` has {CHANNEL}, which only a value has", "Name one path")
    return source


def _of_reading(value: object) -> Source | None:
    return None if value is None else _no_channel(_source(value))


def _json(value: object) -> str:
    import json

    return json.dumps(value)


def _written(source: Any) -> Any:
    if isinstance(source, tuple):
        return [_written(one) for one in source]
    if isinstance(source, dict):
        return {name: _written(one) for name, one in source.items()}
    if isinstance(source, TimeField):
        return source.model_dump(mode="json")
    return {"constant": source.constant} if isinstance(source, Constant) else source


_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": _LONGEST}
_CONSTANT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"constant": _TEXT},
    "required": ["constant"],
    "additionalProperties": False,
}


def _several(*forms: dict[str, Any]) -> list[dict[str, Any]]:
    return [*forms, {"type": "array", "minItems": 1, "items": {"anyOf": list(forms)} if len(forms) > 1 else forms[0]}]


def check_time_format(value: str) -> str:
    """A name of `TIME_FORMATS`, or a pattern that a time can be written and read by. Raises ValueError."""
    if value in TIME_FORMATS:
        return value
    moment = datetime(2026, 11, 22, 13, 14, 15, tzinfo=UTC)
    try:
        if "%" not in value:
            raise ValueError
        found = datetime.strptime(moment.strftime(value), value)
        if (found.month, found.day) != (11, 22) or found.year % 100 != 26:
            raise ValueError
    except ValueError:
        names = ", ".join(TIME_FORMATS)
        raise ValueError(f"`{value}` is no format of a time: {names}, or a pattern such as %d.%m.%Y %H:%M:%S") from None
    return value


def _format(value: str) -> str:
    try:
        return check_time_format(value)
    except ValueError:
        raise expected(f"one of {', '.join(TIME_FORMATS)}, or a pattern such as %d.%m.%Y %H:%M:%S") from None


TimeFormat = Annotated[str, AfterValidator(_format)]


class TimeField(Section):
    """Where the time stands, and how it is written."""

    path: Annotated[
        Source, PlainValidator(lambda value: _no_channel(_source(value))), PlainSerializer(_written),
        WithJsonSchema({"anyOf": _several(_TEXT)}),
    ] = "timestamp"  # fmt: skip
    format: TimeFormat | None = None
    """iso, day-first, month-first, epoch_s, epoch_ms, epoch_us, epoch_ns or a pattern of strptime; null: as usual."""
    zone: Zone | None = None
    """Of times that name none; null: UTC."""


_BY_CHANNEL: Final[dict[str, Any]] = {"type": "object", "additionalProperties": {"anyOf": _several(_TEXT)}}
_TIME_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "path": {"anyOf": _several(_TEXT)},
        "format": {"type": ["string", "null"]},
        "zone": {"type": ["string", "null"]},
    },
    "additionalProperties": False,
}
PRESETS: Final[dict[str, dict[str, Any]]] = {
    # `data_format = "json"` of Telegraf's outputs, with and without `json_transformations` and batches.
    "telegraf": {
        "reading": ["metrics"],
        "sensor_id": ["tags.sensor_id", "tags.sensor", "tags.machine", "tags.device", "tags.topic", "tags.id",
                      "tags.host"],
        "timestamp": "timestamp",
        "value": f"fields.{CHANNEL}",
    },
    # JSON converters of Kafka Connect, with and without the schema, and Debezium's envelope.
    "connect": {"reading": ["payload.after", "payload", "after"]},
}  # fmt: skip
"""What a preset says of the keys that are not given beside it."""


class FieldsConfig(Section):
    """What the parts of a reading are called in messages and in CSV headers, or where they stand.

    Lists and several channels are under the plural: the name with an `s`.
    """

    preset: Literal["telegraf", "connect"] | None = None
    """The messages of a tool; the keys below override it."""
    reading: Annotated[
        Source | None, PlainValidator(_of_reading), PlainSerializer(_written),
        WithJsonSchema({"anyOf": [*_several(_TEXT), {"type": "null"}]}),
    ] = None  # fmt: skip
    """Where a reading, or a list of them, stands in a message; paths begin there. null: it is the message."""
    sensor_id: Annotated[
        Source, PlainValidator(_of_sensor), PlainSerializer(_written),
        WithJsonSchema({"anyOf": _several(_TEXT, _CONSTANT)}),
    ] = "sensor_id"  # fmt: skip
    timestamp: Annotated[
        Source | TimeField, PlainValidator(_of_time), PlainSerializer(_written),
        WithJsonSchema({"anyOf": [*_several(_TEXT), _TIME_SCHEMA]}),
    ] = "timestamp"  # fmt: skip
    """`record`: the record's own time."""
    value: Annotated[
        Source | dict[str, Source], PlainValidator(_of_value), PlainSerializer(_written),
        WithJsonSchema({"anyOf": [*_several(_TEXT), _BY_CHANNEL]}),
    ] = "value"  # fmt: skip
    """With `{channel}` in it, or by channel: where the value of each channel stands."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("preset"), str):
            return PRESETS.get(given["preset"], {}) | given
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [one for one in (self.sensor_id, self.timestamp, self.value) if isinstance(one, str)]
        if len(names) == 3:
            names += [f"{self.timestamp}s", f"{self.value}s"]
        if len(set(names)) < len(names):
            raise refused(
                f"the names {', '.join(names)} (the last two are the plurals) are not all different",
                "Give each part its own name",
            )
        return self

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without what was not set: so fields were stored before they could be more than names.
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if value is not None}

    @property
    def time(self) -> TimeField:
        """The time's place and form, however it was given."""
        return self.timestamp if isinstance(self.timestamp, TimeField) else TimeField(path=self.timestamp)

    @property
    def by_record(self) -> bool:
        """Whether the time is that of the record."""
        return self.timestamp == RECORD

    @property
    def is_plain(self) -> bool:
        """Whether every part is the name of a key of the message itself, its time written as usual."""
        parts = (self.sensor_id, self.timestamp, self.value)
        return (
            self.reading is None and not self.by_record and all(isinstance(one, str) and is_name(one) for one in parts)
        )
