"""The key that a record of readings is to have, from what its message says."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from typing import Any, Final

from detector.config.fields import FieldsConfig
from detector.streams.base import Record
from detector.wire.documents import Documents, Rejected, checked_sensor, read_json
from detector.wire.mapping import ABSENT, Mapping, Template
from detector.wire.readings import kind_of, show

SENSOR: Final = "sensor_id"
"""This part of a key is the sensor's id, as `readings.fields` finds it, else the key that the record has."""
MACHINE: Final = "machine"
"""This one is the machine that the sensor is a tag of, where there are machines."""

_Part = Callable[[Any, Any, Record], Any]


class Rekeying:
    """Gives records keys built of parts, such as `{machine}`: places in the message, but for `{sensor_id}`.

    `coerce`: whole numbers are taken as sensor ids. `machines`: by tag, the machine it belongs to; where there are any,
    `{machine}` is that, or the tag itself where it is in none. `documents`: how values are read.

    >>> rekeying = Rekeying(FieldsConfig(), "{site}/{sensor_id}")
    >>> rekeying.key(Record(0, None, b'{"sensor_id": "pump", "site": "north", "timestamp": 0, "value": 1}'))
    b'north/pump'
    """

    def __init__(
        self,
        fields: FieldsConfig,
        key: str,
        *,
        coerce: bool = False,
        machines: MappingOf[str, str] | None = None,
        documents: Documents = read_json,
    ) -> None:
        self._read = documents
        self._machines = machines or {}
        self._map = Mapping(fields, ("value",))
        self._template = Template(key)
        self._key = key
        self._coerce = coerce
        self._parts = [self._part(name) for name in self._template.names]

    def key(self, record: Record) -> bytes:
        """The key. Raises Rejected where the message lacks a part, or holds readings of several keys."""
        document = self._read(record.value)
        found: dict[str, None] = {}
        for reading in self._map.readings(document):
            if type(reading) is not dict:
                raise Rejected("malformed", f"expected an object, got {kind_of(reading)}")
            found[self._of(reading, document if type(document) is dict else reading, record)] = None
        if len(found) > 1:
            names = ", ".join(show(name) for name in list(found)[:3])
            raise Rejected("malformed", f"readings of several keys in one message: {names}")
        for name in found:
            return name.encode()
        raise Rejected("empty", "the list holds no readings")

    def _of(self, reading: dict[str, Any], message: Any, record: Record) -> str:
        key = self._template.filled([part(reading, message, record) for part in self._parts])
        if key is ABSENT:
            there = ", ".join(show(name) for name in list(reading)[:6]) or "nothing"
            raise Rejected("missing_sensor_id", f"not all parts of `{self._key}` are there; there is {there}")
        return checked_sensor(key)

    def _part(self, name: str) -> _Part:
        if name == SENSOR:
            return self._sensor
        if name == MACHINE and self._machines:
            return self._machine
        get = self._map.part(name)
        return lambda reading, message, record: get(reading, message)

    def _machine(self, reading: Any, message: Any, record: Record) -> Any:
        sensor = self._sensor(reading, message, record)
        return self._machines.get(sensor, sensor)

    def _sensor(self, reading: Any, message: Any, record: Record) -> Any:
        sensor = self._map.sensor.get(reading, message)
        if sensor is ABSENT or sensor is None:
            return record.key.decode(errors="surrogateescape") if record.key else ABSENT
        return str(sensor) if self._coerce and type(sensor) is int else checked_sensor(sensor)
