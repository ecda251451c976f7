"""JSON messages of other tools into readings: their parts are looked up where the configuration says they stand."""

from __future__ import annotations

from typing import Any, Final

from detector.config.fields import FieldsConfig
from detector.errors import counted
from detector.streams.base import Batch, Record
from detector.times import MILLISECOND, OUT_OF_RANGE, UNREADABLE
from detector.wire.documents import (
    Documents,
    Rejected,
    checked_sensor,
    checked_time,
    checked_value,
    number_in,
    read_json,
)
from detector.wire.mapping import ABSENT, Mapping, Place
from detector.wire.readings import Draft, Readings, explain_time, kind_of, plausible, show
from detector.wire.timeforms import TimeForm
from detector.wire.verdicts import is_verdict, read_verdict

_Cell = str | int | float
_MOST_NAMES: Final = 6


class MappedJson:
    """Decodes messages by a mapping. `coerce`: numbers in strings are numbers, and sensor ids may be numbers.

    `read` makes a document of a record's value.
    """

    def __init__(
        self,
        fields: FieldsConfig,
        channels: tuple[str, ...],
        *,
        coerce: bool,
        max_future: int | None,
        read: Documents = read_json,
    ) -> None:
        self._map = Mapping(fields, channels)
        self._channels = channels
        self._names = frozenset(channels)
        self._coerce = coerce
        self._max_future = max_future
        self._by_record = fields.by_record
        self._form = TimeForm(fields.time.format, fields.time.zone)
        self._read_time = self._form.reader()
        self._read = read

    def decode(self, batch: Batch) -> Readings:
        """Decode every record of a batch of JSON."""
        draft = Draft(len(self._channels))
        for number, record in enumerate(batch.records):
            try:
                self._take(draft, number, record)
            except Rejected as problem:
                draft.reject(number, None, problem.reason, problem.message)
        return draft.finish(batch.records, self._max_future)

    def _take(self, draft: Draft, number: int, record: Record) -> None:
        document = self._read(record.value)
        try:
            self._take_readings(draft, number, record, document)
        except Rejected:
            if not is_verdict(document):
                raise
            draft.verdicts[number] = read_verdict(document, record)

    def _take_readings(self, draft: Draft, number: int, record: Record, document: object) -> None:
        readings = list(self._map.readings(document))
        if not readings:
            raise Rejected("empty", "the list holds no readings")
        if len(readings) == 1 and type(document) is dict:
            self._reading(draft, number, record, 0, readings[0], document, alone=True)
            return
        dated: set[str] = set()
        for element, reading in enumerate(readings):
            message = document if type(document) is dict else reading
            try:
                sensor = self._reading(draft, number, record, element, reading, message, alone=False, dated=dated)
            except Rejected as problem:
                draft.reject(number, element, problem.reason, problem.message)
            else:
                dated.add(sensor)

    def _reading(
        self,
        draft: Draft,
        number: int,
        record: Record,
        element: int,
        reading: Any,
        message: Any,
        *,
        alone: bool,
        dated: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> str:
        """Add one reading, or where it is `alone` in its message also lists of them. Raises Rejected."""
        if type(reading) is not dict:
            raise Rejected("malformed", f"expected an object, got {kind_of(reading)}")
        sensor = self._sensor(reading, message, record)
        times = ABSENT if self._by_record else self._map.time.plural(reading, message)
        time = ABSENT if self._by_record else self._map.time.get(reading, message)
        if times is not ABSENT and time is not ABSENT:
            raise Rejected("malformed", f"both {self._map.time.name} and its plural are given")
        if time is ABSENT and not self._by_record:
            time = times
        if type(time) is list:
            if not alone:
                raise Rejected("malformed", f"the list {self._map.time.name} stands inside a list of readings")
            self._series(draft, number, sensor, time, self._columns(reading, message, lists=True))
            return sensor
        if self._by_record:
            if sensor in dated:
                raise Rejected("bad_timestamp", f"another reading of {show(sensor)} has the time of this record")
            instant: _Cell = self._of_record(record)
        elif time is ABSENT:
            raise Rejected("malformed", f"{self._map.time.name} is missing{_found(reading)}")
        else:
            instant = self._time(time)
        row = self._columns(reading, message, lists=False)
        draft.add(number, element, sensor, instant, [self._value(value) for value in row])
        return sensor

    def _series(self, draft: Draft, number: int, sensor: str, times: list[Any], columns: list[Any]) -> None:
        for column in columns:
            if type(column) is not list:
                raise Rejected("malformed", "there are lists of timestamps and no lists of values")
            if len(column) != len(times):
                lengths = f"{counted(len(times), 'timestamp')}, {counted(len(column), 'value')}"
                raise Rejected("length_mismatch", lengths)
        if not times:
            raise Rejected("empty", "the lists are empty")
        for element, (time, *row) in enumerate(zip(times, *columns, strict=True)):
            try:
                draft.add(number, element, sensor, self._time(time), [self._value(value) for value in row])
            except Rejected as problem:
                draft.reject(number, element, problem.reason, problem.message)

    def _sensor(self, reading: dict[str, Any], message: Any, record: Record) -> str:
        sensor = self._map.sensor.get(reading, message)
        if sensor is ABSENT or sensor is None:
            if not record.key:
                raise Rejected(
                    "missing_sensor_id", f"no {self._map.sensor.name}, and the record has no key{_found(reading)}"
                )
            sensor = record.key.decode(errors="surrogateescape")
        elif self._coerce and type(sensor) is int:
            sensor = str(sensor)
        return checked_sensor(sensor)

    def _columns(self, reading: dict[str, Any], message: Any, *, lists: bool) -> list[Any]:
        """What stands for each channel, unchecked."""
        single = self._map.single
        if single is None:
            return [self._channel(channel, place, reading, message) for channel, place in self._map.values.items()]
        value, plural = single.get(reading, message), single.plural(reading, message)
        if value is not ABSENT and plural is not ABSENT:
            raise Rejected("malformed", f"both {single.name} and its plural are given")
        found = plural if value is ABSENT else value
        if found is ABSENT:
            raise Rejected("malformed", f"{single.name} is missing{_found(reading)}")
        if type(found) is dict:
            # Of the object of this name every channel is one; what a path leads to may have other things beside them.
            if not self._names <= found.keys() or (value is ABSENT and found.keys() != self._names):
                names = ", ".join(show(name) for name in list(found)[:10]) or "none"
                raise Rejected("channel_mismatch", f"channels {names}; expected {self._expected()}")
            return [found[name] for name in self._channels]
        if len(self._channels) > 1:
            raise Rejected(
                "channel_mismatch", f"one {'list of values' if lists else 'value'}; expected {self._expected()}"
            )
        if value is ABSENT and not lists:
            raise Rejected("malformed", f"the plural of {single.name} of one timestamp is no object of channels")
        return [found]

    def _channel(self, channel: str, place: Place, reading: dict[str, Any], message: Any) -> Any:
        found = place.get(reading, message)
        if found is ABSENT:
            raise Rejected("channel_mismatch", f"{place.name} is missing{_found(reading)}; expected {self._expected()}")
        return found

    def _expected(self) -> str:
        return ", ".join(f"`{name}`" for name in self._channels)

    def _value(self, value: Any) -> float | None:
        if type(value) is float and value - value == 0:
            return value
        if self._coerce and type(value) is str and (number := number_in(value)) is not None:
            value = number
        return checked_value(value)

    def _time(self, time: Any) -> _Cell:
        cell = checked_time(time)
        if self._read_time is None:
            if self._coerce and type(cell) is str and (number := number_in(cell)) is not None:
                return number
            return cell
        if self._coerce and type(cell) is str and self._form.format is None:
            number = number_in(cell)
            cell = cell if number is None else number
        try:
            return self._read_time(cell)
        except OverflowError:
            raise Rejected(*explain_time(cell, OUT_OF_RANGE)) from None
        except ValueError:
            if self._form.format is None:
                raise Rejected(*explain_time(cell, UNREADABLE)) from None
            raise Rejected("bad_timestamp", f"timestamp {show(cell)} is not written as {self._form}") from None

    @staticmethod
    def _of_record(record: Record) -> int:
        stamp = plausible(record.timestamp)
        if stamp is None:
            raise Rejected("bad_timestamp", "the record has no time of its own, which is to be that of the reading")
        return stamp * MILLISECOND


def _found(reading: dict[str, Any]) -> str:
    """What there is instead, for whoever corrects the configuration."""
    names = ", ".join(show(name) for name in list(reading)[:_MOST_NAMES]) or "nothing"
    return f"; there is {names}" + (", …" if len(reading) > _MOST_NAMES else "")
