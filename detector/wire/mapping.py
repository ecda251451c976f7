"""The configured places of a reading's parts, compiled once to functions that look them up in a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from detector.config.fields import CHANNEL, Constant, FieldsConfig, Source, is_name, parts_of, places_of, shown
from detector.wire.documents import Rejected

ABSENT: Final[Any] = object()
"""Nothing stands there."""
Get = Callable[[Any, Any], Any]
"""What a reading (first) in a message (second) has at a place; `ABSENT` if nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a reading. `plural` is where a list of them stands; `name` is for people."""

    get: Get
    plural: Get
    name: str


class Mapping:
    """Where the parts of the readings in a message stand. `values` has a place for each channel, or one for all."""

    def __init__(self, fields: FieldsConfig, channels: tuple[str, ...]) -> None:
        inside = fields.reading is not None
        self._readings = [compile_path(str(one)) for one in places_of(fields.reading)] if fields.reading else []
        self.sensor = _place(fields.sensor_id, inside=inside)
        self.time = _place(fields.time.path, inside=inside)
        self.values = {
            channel: _place(source, inside=inside) for channel, source in _by_channel(fields.value, channels).items()
        }
        self.single = None if self.values else _place(_of_all(fields.value), inside=inside)

    def part(self, name: str) -> Get:
        """What finds a further part of a reading."""
        return _getter(name, inside=bool(self._readings))

    def readings(self, document: object) -> Iterator[object]:
        """Every reading of a message, which may be a list of messages, each with a list of readings."""
        for message in document if isinstance(document, list) else (document,):
            found = message
            if isinstance(message, dict):
                for get in self._readings:
                    inner = get(message, message)
                    if isinstance(inner, dict | list):
                        found = inner
                        break
            if isinstance(found, list):
                yield from found
            else:
                yield found


def _of_all(value: Source | dict[str, Source]) -> Source:
    assert not isinstance(value, dict)  # noqa: S101  (those are by channel)
    return value


def _by_channel(value: Source | dict[str, Source], channels: tuple[str, ...]) -> dict[str, Source]:
    """The source of each channel; none where one place has the values of all."""
    if isinstance(value, dict):
        return {channel: value[channel] for channel in channels}
    if not any(CHANNEL in str(place) for place in places_of(value)):
        return {}
    return {
        channel: tuple(str(place).replace(CHANNEL, _escaped(str(place), channel)) for place in places_of(value))
        for channel in channels
    }


def _escaped(place: str, channel: str) -> str:
    return channel.replace("~", "~0").replace("/", "~1") if place.startswith("/") else channel


def _place(source: Source, *, inside: bool) -> Place:
    places = places_of(source)
    gets = [_getter(place, inside=inside) for place in places]
    plurals = [
        _getter(f"{place}s", inside=inside)
        for place in places
        if isinstance(place, str) and not parts_of(place)
    ]  # fmt: skip
    return Place(_first(gets), _first(plurals), shown(source))


def _first(gets: list[Get]) -> Get:
    """The first candidate that is there; null is there, and counts where no other does."""
    if len(gets) == 1:
        return gets[0]

    def get(reading: Any, message: Any) -> Any:
        found = ABSENT
        for one in gets:
            value = one(reading, message)
            if value is not ABSENT and value is not None:
                return value
            if value is None:
                found = None
        return found

    return get


def _getter(place: str | Constant, *, inside: bool) -> Get:
    if isinstance(place, Constant):
        return lambda reading, message: place.constant
    if parts_of(place) and not place.startswith("/"):
        return _template(place, inside=inside)
    path = compile_path(place)
    # Where a reading is a part of the message, what is not found in it may stand beside it.
    return _first([path, lambda reading, message: path(message, message)]) if inside else path


def compile_path(path: str) -> Get:
    """What finds a path: `tags.host`, or a JSON pointer from the message itself, such as `/tags/my.host`.

    A key that is written like the path as a whole comes first. Raises Rejected where a path leads into a list.
    """
    if path.startswith("/"):
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
        return lambda reading, message: _follow(message, steps, path)
    if is_name(path):
        return lambda reading, message: reading.get(path, ABSENT) if type(reading) is dict else ABSENT
    steps = path.split(".")
    if len(steps) == 2:
        return partial(_follow_two, path, *steps)

    def get(reading: Any, message: Any) -> Any:
        if type(reading) is dict and path in reading:
            return reading[path]
        return _follow(reading, steps, path)

    return get


def _follow_two(path: str, outer: str, inner: str, reading: Any, message: Any) -> Any:
    """The commonest path, without a loop."""
    if type(reading) is dict and path in reading:
        return reading[path]
    try:
        return reading[outer][inner]
    except (KeyError, TypeError):
        return _follow(reading, [outer, inner], path)


def _follow(document: Any, steps: list[str], path: str) -> Any:
    found = document
    for step in steps:
        if type(found) is dict:
            found = found.get(step, ABSENT)
        elif type(found) is list:
            raise Rejected("malformed", f"`{path}` leads into a list")
        else:
            return ABSENT
    return found


class Template:
    """A text with parts in braces, such as `{site}/{machine}`; `names` are those of the parts."""

    def __init__(self, template: str) -> None:
        self.names = parts_of(template)
        self._first = template.partition("{")[0]
        self._texts = [piece.partition("}")[2] for piece in template.split("{")[1:]]

    def filled(self, values: Iterable[Any]) -> Any:
        """The text with these values, one a part; `ABSENT` where one of them is. Raises Rejected."""
        pieces = [self._first]
        for name, value, text in zip(self.names, values, self._texts, strict=True):
            if value is ABSENT or value is None or value == "":
                return ABSENT
            if type(value) not in (str, int):
                raise Rejected(
                    "bad_sensor_id", f"`{name}`, a part of the sensor id, is neither text nor a whole number"
                )
            pieces.append(str(value))
            pieces.append(text)
        return "".join(pieces)


def _template(template: str, *, inside: bool) -> Get:
    """An id built of parts; absent where one of them is."""
    built = Template(template)
    gets = [_getter(name, inside=inside) for name in built.names]
    return lambda reading, message: built.filled([get(reading, message) for get in gets])
