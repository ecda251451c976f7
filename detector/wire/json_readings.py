"""Records into readings: JSON in all its forms, and CSV rows. The hot path of the input.

JSON is tried three ways. A batch in which every record is one plain reading costs one typed decode a record and a
handful of array operations. Otherwise each record is decoded into a typed form that covers all valid messages. Only
what fits neither is looked at piece by piece, to find the reason and to save the good readings of a partly bad message.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from detector.arrays import floats
from detector.config.fields import FieldsConfig
from detector.errors import UserError, counted
from detector.streams.base import Batch, LongLine, Record
from detector.times import instants
from detector.wire.csv_form import CsvOptions, asked_of_csv
from detector.wire.csv_readings import CsvRows
from detector.wire.documents import (
    UNDECODABLE,
    Documents,
    Rejected,
    checked_sensor,
    checked_time,
    checked_value,
    parse_document,
    read_json,
)
from detector.wire.mapped_readings import MappedJson
from detector.wire.readings import (
    LINE_TOO_LONG,
    MAX_SENSOR_ID,
    Decoder,
    Draft,
    Readings,
    is_sensor_id,
    kind_of,
    out_of_range,
    show,
    too_far_ahead,
)
from detector.wire.verdicts import is_verdict, read_verdict

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_SENSOR_ID)] | None
# No value fits, so a message that has the key does not decode.
_Absent = Annotated[str, Meta(min_length=1, max_length=0)] | UnsetType
_Scalars = dict[str, float | list[float | None] | None]


class ReadingDecoder:
    """Decodes the batches of a stream of readings. Keeps nothing from one batch to the next.

    `channels` are the value columns, `default_sensor` names the sensor of CSV rows without a sensor column, `interval`
    (ns) is the time between CSV rows without a timestamp column, `max_future` (ns) how far a reading may lie beyond
    its record's own timestamp. `place` names the file in errors about a CSV header (default: the stream). `coerce`:
    numbers in strings are numbers. `csv`: what was said of CSV files. `documents`: how values are read that need not be
    JSON.

    >>> from detector.streams.base import Partition
    >>> decoder = ReadingDecoder(FieldsConfig(), ("value",))
    >>> text = b'{"sensor_id": "pump", "timestamps": [1790000000, 1790000060], "values": [20.5, 20.6]}'
    >>> batch = Batch(Partition("sensor-readings", 0), [Record(0, None, text), Record(1, None, b"?")], 2)
    >>> readings = decoder.decode(batch)
    >>> readings.ids, readings.values.ravel(), [one.reason for one in readings.rejects]
    (['pump'], array([20.5, 20.6]), ['malformed'])
    """

    def __init__(
        self,
        fields: FieldsConfig,
        channels: tuple[str, ...],
        default_sensor: str | None = None,
        interval: int | None = None,
        max_future: int | None = None,
        place: str | None = None,
        *,
        coerce: bool = False,
        csv: CsvOptions | None = None,
        documents: Documents | None = None,
    ) -> None:
        self._channels = channels
        self._max_future = max_future
        self._place = place
        self._asked_of_csv = asked_of_csv(csv or CsvOptions(), interval)
        self._csv = CsvRows(fields, channels, default_sensor, interval, place, csv or CsvOptions())
        self.json: Decoder
        """What decodes JSON."""
        if fields.is_plain and not coerce and documents is None:
            self.json = PlainJson(fields, channels, max_future)
        else:
            read = documents or read_json
            self.json = MappedJson(fields, channels, coerce=coerce, max_future=max_future, read=read)

    def decode(self, batch: Batch) -> Readings:
        """Decode every record of the batch.

        Raises UserError where a CSV file lacks a column, and where there is none that options of CSV files are about.
        """
        if batch.records and isinstance(batch.records[0], LongLine):
            return self._refuse(batch)
        if batch.header is not None:
            return self._csv.decode(batch).finish(batch.records, self._max_future)
        if self._asked_of_csv and batch.records:
            raise UserError(
                f"{self._asked_of_csv} says how a CSV file is written, and this is none",
                where=self._place or batch.partition.stream,
                todo="Leave it out; readings.fields says how other records are written",
            )
        return self.json.decode(batch)

    def _refuse(self, batch: Batch) -> Readings:
        """What is left of a line that is too long, the only record of its batch, holds no readings: it is cut."""
        draft = Draft(len(self._channels))
        row = "" if batch.header is None else f"row {batch.row + 2}: "
        draft.reject(0, None, "line_too_long", f"{row}{LINE_TOO_LONG}")
        return draft.finish(batch.records, self._max_future)


class PlainJson:
    """Decodes JSON whose parts are keys of the message itself, in all the forms of `docs/messages.md`."""

    def __init__(self, fields: FieldsConfig, channels: tuple[str, ...], max_future: int | None) -> None:
        self._channels = channels
        self._names = frozenset(channels)
        self._max_future = max_future
        self._id_key, self._time_key, self._value_key = str(fields.sensor_id), str(fields.timestamp), str(fields.value)
        self._times_key, self._values_key = f"{self._time_key}s", f"{self._value_key}s"
        names = {
            "sensor_id": self._id_key,
            "timestamp": self._time_key,
            "value": self._value_key,
            "timestamps": self._times_key,
            "values": self._values_key,
        }
        plain = msgspec.defstruct(
            "Plain",
            [
                ("sensor_id", _Id, None),
                ("timestamp", int | float | str),
                ("value", float | None),
                ("timestamps", _Absent, UNSET),
                ("values", _Absent, UNSET),
            ],
            rename=names,
            kw_only=True,
            gc=False,
        )
        message = msgspec.defstruct(
            "Message",
            [
                ("sensor_id", _Id, None),
                ("timestamp", int | float | str | UnsetType, UNSET),
                ("value", float | None | UnsetType, UNSET),
                ("timestamps", list[int | float | str] | UnsetType, UNSET),
                ("values", list[float | None] | _Scalars | UnsetType, UNSET),
            ],
            rename=names,
            kw_only=True,
            gc=False,
        )
        self._decode_plain = msgspec.json.Decoder(plain).decode
        self._decode_message = msgspec.json.Decoder(message | list[message]).decode  # type: ignore[valid-type]

    def decode(self, batch: Batch) -> Readings:
        """Decode every record of a batch of JSON."""
        if len(self._channels) == 1:
            readings = self._decode_plainly(batch)
            if readings is not None:
                return readings
        draft = Draft(len(self._channels))
        for number, record in enumerate(batch.records):
            try:
                message = self._decode_message(record.value or b"")
                taken = self._take(draft, number, record, message)
            except UNDECODABLE:
                taken = False
            if not taken:
                self._examine(draft, number, record)
        return draft.finish(batch.records, self._max_future)

    def _decode_plainly(self, batch: Batch) -> Readings | None:
        """Decode a batch in which every record is one good reading of one channel; None if it is not such a batch."""
        decode = self._decode_plain
        try:
            messages: list[Any] = [decode(record.value or b"") for record in batch.records]
        except UNDECODABLE:
            return None
        ids = [message.sensor_id for message in messages]
        try:
            joined = "".join(ids)
        except TypeError:  # an id is missing
            try:
                ids = [
                    record.key.decode() if sensor is None and record.key else sensor
                    for sensor, record in zip(ids, batch.records, strict=True)
                ]
                joined = "".join(ids)
            except (TypeError, UnicodeDecodeError):
                return None
            if max(map(len, ids)) > MAX_SENSOR_ID:
                return None
        if not joined.isprintable() and not all(map(is_sensor_id, ids)):
            return None
        times, codes = instants([message.timestamp for message in messages])
        count = len(messages)
        records = np.arange(count)
        if codes.any():
            return None
        ones = np.ones(count, dtype=np.int64)
        late = too_far_ahead(batch.records, records, ones, times, self._max_future)
        if late is not None and late.any():
            return None
        values = floats([message.value for message in messages]).reshape(count, 1)
        if out_of_range(values).any():
            return None
        return Readings(ids, ones, records, np.zeros(count, dtype=np.int64), times, values, [])

    def _take(self, draft: Draft, number: int, record: Record, message: Any) -> bool:
        """Add a typed message to the draft, or else leave the draft alone and return False."""
        if type(message) is list:
            return self._take_list(draft, number, record, message)
        sensor = message.sensor_id
        if sensor is None:
            if not record.key:
                return False
            sensor = record.key.decode()
        if not is_sensor_id(sensor):
            return False
        times, values = message.timestamps, message.values
        if times is UNSET:
            row = self._row(message)
            if row is None:
                return False
            draft.add(number, 0, sensor, message.timestamp, row)
            return True
        if message.timestamp is not UNSET or message.value is not UNSET or values is UNSET or not times:
            return False
        if type(values) is list:
            columns = [values]
        elif values.keys() == self._names:
            columns = [values[name] for name in self._channels]
        else:
            return False
        count = len(times)
        if len(columns) != len(draft.columns):
            return False
        for column in columns:
            if type(column) is not list or len(column) != count:
                return False
        draft.add_run(number, 0, sensor, count)
        draft.times.extend(times)
        for target, column in zip(draft.columns, columns, strict=True):
            target.extend(column)
        return True

    def _take_list(self, draft: Draft, number: int, record: Record, messages: list[Any]) -> bool:
        key = record.key.decode() if record.key else None
        rows = []
        for message in messages:
            sensor = message.sensor_id or key
            row = self._row(message)
            if row is None or sensor is None or not is_sensor_id(sensor):
                return False
            rows.append((sensor, message.timestamp, row))
        for element, (sensor, time, row) in enumerate(rows):
            draft.add(number, element, sensor, time, row)
        return bool(rows)

    def _row(self, message: Any) -> list[float | None] | None:
        """The values of a single reading by channel, None if it is not one."""
        if message.timestamps is not UNSET or message.timestamp is UNSET:
            return None
        value, values = message.value, message.values
        if values is UNSET:
            return [value] if value is not UNSET and len(self._channels) == 1 else None
        if value is not UNSET or type(values) is list or values.keys() != self._names:
            return None
        row = [values[name] for name in self._channels]
        return None if any(type(value) is list for value in row) else row

    def _examine(self, draft: Draft, number: int, record: Record) -> None:
        """Take a message apart without haste: add its good readings, and say what is wrong with the others."""
        try:
            document = parse_document(record.value)
            if isinstance(document, list):
                if not document:
                    raise Rejected("empty", "the list holds no readings")
                for element, item in enumerate(document):
                    try:
                        sensor, time, row = self._examine_single(item, record)
                    except Rejected as problem:
                        draft.reject(number, element, problem.reason, problem.message)
                    else:
                        draft.add(number, element, sensor, time, row)
            elif isinstance(document, dict) and (self._times_key in document):
                self._examine_lists(draft, number, record, document)
            elif is_verdict(document) and not self._has_values(document):
                draft.verdicts[number] = read_verdict(document, record)
            else:
                draft.add(number, 0, *self._examine_single(document, record))
        except Rejected as problem:
            draft.reject(number, None, problem.reason, problem.message)

    def _has_values(self, document: dict[str, Any]) -> bool:
        return self._time_key in document and not document.keys().isdisjoint((self._value_key, self._values_key))

    def _examine_single(self, item: object, record: Record) -> tuple[str, str | int | float, list[float | None]]:
        if not isinstance(item, dict):
            raise Rejected("malformed", f"expected an object, got {kind_of(item)}")
        if self._times_key in item:
            raise Rejected("malformed", f"`{self._times_key}` stands inside a list of readings")
        sensor = self._sensor(item, record)
        if self._time_key not in item:
            raise Rejected("malformed", f"`{self._time_key}` is missing")
        if self._value_key in item and self._values_key in item:
            raise Rejected("malformed", f"both `{self._value_key}` and `{self._values_key}` are given")
        if self._value_key in item:
            if len(self._channels) > 1:
                raise Rejected("channel_mismatch", f"one value; expected {self._expected()}")
            row = [item[self._value_key]]
        elif self._values_key in item:
            values = item[self._values_key]
            if not isinstance(values, dict):
                raise Rejected("malformed", f"`{self._values_key}` of one timestamp is no object of channels")
            self._check_channels(values)
            row = [values[name] for name in self._channels]
        else:
            raise Rejected("malformed", f"`{self._value_key}` is missing")
        time = item[self._time_key]
        return sensor, checked_time(time), [checked_value(value) for value in row]

    def _examine_lists(self, draft: Draft, number: int, record: Record, document: dict[str, Any]) -> None:
        for key in (self._time_key, self._value_key):
            if key in document:
                raise Rejected("malformed", f"both `{key}` and `{self._times_key}` are given")
        sensor = self._sensor(document, record)
        times, values = document[self._times_key], document.get(self._values_key)
        if not isinstance(times, list) or not isinstance(values, list | dict):
            raise Rejected("malformed", f"`{self._times_key}` and `{self._values_key}` are no lists")
        if isinstance(values, list):
            if len(self._channels) > 1:
                raise Rejected("channel_mismatch", f"one list of values; expected {self._expected()}")
            columns = [values]
        else:
            self._check_channels(values)
            columns = [values[name] for name in self._channels]
            if not all(isinstance(column, list) for column in columns):
                raise Rejected("malformed", "the values of a channel are no list")
        for column in columns:
            if len(column) != len(times):
                lengths = f"{counted(len(times), 'timestamp')}, {counted(len(column), 'value')}"
                raise Rejected("length_mismatch", lengths)
        if not times:
            raise Rejected("empty", "the lists are empty")
        for element, (time, *row) in enumerate(zip(times, *columns, strict=True)):
            try:
                draft.add(number, element, sensor, checked_time(time), [checked_value(value) for value in row])
            except Rejected as problem:
                draft.reject(number, element, problem.reason, problem.message)

    def _sensor(self, item: dict[str, Any], record: Record) -> str:
        sensor = item.get(self._id_key)
        if sensor is None:
            if not record.key:
                raise Rejected("missing_sensor_id", f"no `{self._id_key}`, and the record has no key")
            sensor = record.key.decode(errors="surrogateescape")
        return checked_sensor(sensor)

    def _check_channels(self, values: dict[str, Any]) -> None:
        if values.keys() != self._names:
            found = ", ".join(show(name) for name in list(values)[:10]) or "none"
            raise Rejected("channel_mismatch", f"channels {found}; expected {self._expected()}")

    def _expected(self) -> str:
        return ", ".join(f"`{name}`" for name in self._channels)
