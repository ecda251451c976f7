"""What is understood of some records: sensors, times, values, rejects, and which settings would mend the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import numpy as np
from pydantic import ValidationError

from detector.arrays import F64, I64, in_any_channel
from detector.config import yamltext
from detector.config.fields import TimeField, parts_of, places_of
from detector.config.load import FieldsConfig, ReadingsConfig
from detector.detection.alignment import align, alignment_of
from detector.detection.table import SensorTable
from detector.detection.windows import Arrivals
from detector.errors import in_brief, is_foreseen
from detector.streams.base import Batch, Record
from detector.times import OK, instants
from detector.wire.documents import Rejected, number_in
from detector.wire.json_readings import ReadingDecoder
from detector.wire.mapping import ABSENT, Mapping, Place
from detector.wire.readings import Decoder, Readings, Reject
from detector.wire.timeforms import TimeForm

RECORDS: Final = 1000
"""Records that are looked at."""
_LEAVES: Final = 200
"""Values of a message that are looked at."""
_EXAMPLES: Final = 50
"""Rejected records by which settings are guessed."""
_SENSORS: Final = (
    "sensor_id", "sensorid", "sensor", "tag_name", "tagname", "tag", "device_id", "deviceid", "device", "machine",
    "asset", "topic", "point", "id", "name", "host",
)  # fmt: skip
_TIMES: Final = (
    "timestamp", "time", "ts", "datetime", "date", "t", "@timestamp", "_time", "event_time", "eventtime", "at", "ts_ms",
    "created_at", "source_timestamp", "sourcetimestamp",
)  # fmt: skip
_VALUES: Final = ("value", "val", "v", "reading", "measurement", "_value")
_COUNTERS: Final = ("seq", "seq_no", "sequence", "offset", "index", "version", "qos")
_FORMATS: Final = (None, "iso", "day-first", "month-first")


@dataclass(slots=True)
class SensorSeen:
    """The readings of one sensor, or the rows of one machine.

    Times in ns, values by channel: (lowest, highest), None without any.
    """

    readings: int = 0
    times: list[int] = field(default_factory=list)
    ranges: list[tuple[float, float] | None] = field(default_factory=list)
    missing: int = 0
    late: int = 0
    """Readings that came after later ones, by more than may be."""
    newest: int | None = None

    @property
    def interval(self) -> int | None:
        """The median time between two readings, ns."""
        steps = np.diff(np.unique(np.array(self.times, dtype=np.int64)))
        return int(np.median(steps)) if len(steps) else None

    @property
    def repeated(self) -> int:
        """Readings with the time of another one."""
        return len(self.times) - len(set(self.times))


@dataclass(slots=True)
class Understood:
    """What some records hold. `rejects` counts records by reason, `examples` has the first message of each.

    Of machines whose channels come as tags, `sensors` has those and their rows. `stray`: readings by tag of no machine;
    `repeated`: readings of a tag that came again; `held`: rows that wait for their other tags at the end.
    """

    records: int = 0
    readings: int = 0
    sensors: dict[str, SensorSeen] = field(default_factory=dict)
    rejects: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    header: bytes | None = None
    rejected: list[Record] = field(default_factory=list)
    """The first of the records that hold no reading at all."""
    stray: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Mending:
    """Settings below `readings`, and how many of the rejected records they would make readings of.

    `doubtful`: as many would be if the month came first in their dates, and not the day.
    """

    settings: MappingOf[str, Any]
    mended: int
    of: int
    doubtful: bool = False

    def lines(self) -> Iterator[str]:
        """As they are written into the configuration."""
        yield "readings:"
        for key, value in self.settings.items():
            yield f"  {key}: {_yaml(value)}"


def look_at(batches: Iterable[Batch], decoder: Decoder, config: ReadingsConfig, limit: int = RECORDS) -> Understood:
    """Decode up to `limit` records. Raises UserError as the decoder does."""
    seen = Understood()
    rows = _Rows(config) if config.machines else None
    for whole in batches:
        batch = replace(whole, records=whole.records[: limit - seen.records])
        seen.header = seen.header or batch.header
        seen.records += len(batch.records)
        for part, readings in _decoded_parts(batch, decoder):
            _add(seen, part, readings, config, rows)
        if seen.records >= limit:
            break
    seen.held = 0 if rows is None else rows.held
    return seen


class _Rows:
    """Readings of tags as rows of their machines, by the rules of `run`."""

    def __init__(self, config: ReadingsConfig) -> None:
        self._how = alignment_of(config)
        self._table = SensorTable(len(config.channels), last_scores=1)

    @property
    def held(self) -> int:
        """Rows that wait for others of their tags."""
        return sum(len(state.rows) for state in self._table.aligning.values())

    def take(self, readings: Readings, channels: I64, seen: Understood) -> Iterator[tuple[str, I64, F64, int]]:
        """By machine its rows: times, values, and how many are missing. `channels` (r,) are those of the runs."""
        for tag, count in zip(readings.ids, np.where(channels < 0, readings.counts, 0).tolist(), strict=True):
            if count:
                seen.stray[tag] += count
        slots = [
            -1 if channel < 0 else self._slot(machine) for machine, channel in zip(readings.ids, channels, strict=True)
        ]
        runs = np.repeat(np.arange(len(slots)), readings.counts)
        kept = np.flatnonzero(channels[runs] >= 0)
        runs = runs[kept]
        seen.readings += len(kept)
        arrivals = Arrivals(
            np.array(slots, dtype=np.intp)[runs],
            readings.times[kept],
            readings.values[kept],
            readings.records[runs],
            readings.elements[kept],
        )
        aligned = align(self._table, arrivals, channels[runs], self._how)
        rows = aligned.rows
        seen.repeated += aligned.duplicate
        values = rows.values if rows.patched is None else np.where(rows.patched, np.nan, rows.values)
        missing = in_any_channel(np.isnan(rows.values))
        for slot in np.unique(rows.slots).tolist():
            mine = rows.slots == slot
            yield self._table.name(slot), rows.times[mine], values[mine], int(missing[mine].sum())

    def _slot(self, machine: str) -> int:
        slot = self._table.slots.get(machine)
        return self._table.add(machine) if slot is None else slot


def _decoded_parts(batch: Batch, decoder: Decoder) -> Iterator[tuple[Batch, Readings]]:
    """The readings of a batch, in parts where the decoder fails at a record, which is rejected then, as `run` does."""
    try:
        readings = decoder.decode(batch)
    except Exception as error:
        if is_foreseen(error):
            raise
        count = len(batch.records)
        if count > 1:
            for first, end in ((0, count // 2), (count // 2, count)):
                yield from _decoded_parts(
                    replace(batch, records=batch.records[first:end], row=batch.row + first), decoder
                )
            return
        readings = decoder.decode(replace(batch, records=[]))
        said = f"the program cannot deal with this record: {type(error).__name__}: {in_brief(error)}"
        readings.rejects.append(Reject(0, "internal", said, None))
    yield batch, readings


def _add(seen: Understood, batch: Batch, readings: Readings, config: ReadingsConfig, rows: _Rows | None) -> None:
    if rows is None or readings.channels is None:
        seen.readings += len(readings)
        found = _by_sensor(readings)
    else:
        found = rows.take(readings, readings.channels, seen)
    for sensor, times, values, missing in found:
        one = seen.sensors.setdefault(sensor, SensorSeen(ranges=[None] * len(config.channels)))
        newest = np.maximum.accumulate(times if one.newest is None else np.append(one.newest, times))
        one.late += int((times + config.window.allowed_lateness < newest[-len(times) :]).sum())
        one.newest = int(newest[-1])
        one.readings += len(times)
        one.times += times.tolist()
        one.missing += missing
        for channel, column in enumerate(values.T):
            known = column[~np.isnan(column)]
            if len(known):
                low, high = one.ranges[channel] or (np.inf, -np.inf)
                one.ranges[channel] = (min(low, float(known.min())), max(high, float(known.max())))
    for reject in readings.rejects:
        seen.rejects[reject.reason] += 1
        seen.examples.setdefault(reject.reason, reject.message)
        if reject.elements is None and len(seen.rejected) < _EXAMPLES:
            seen.rejected.append(batch.records[reject.record])


def _by_sensor(readings: Readings) -> Iterator[tuple[str, I64, F64, int]]:
    """The runs of readings: the sensor, times, values, and how many readings are missing."""
    begin = 0
    for sensor, count in zip(readings.ids, readings.counts.tolist(), strict=True):
        values = readings.values[begin : begin + count]
        yield sensor, readings.times[begin : begin + count], values, int(np.isnan(values).any(axis=1).sum())
        begin += count


def mending(seen: Understood, config: ReadingsConfig, *, has_times: bool) -> Mending | None:
    """Settings with which most of the rejected records would be readings; None where none are found.

    `has_times`: records have a time of their own.
    """
    if seen.header is not None or not seen.rejected:
        return None
    best: Mending | None = None
    for settings in _guesses(seen.rejected, config, has_times=has_times):
        try:
            fields = FieldsConfig.model_validate(settings.get("fields", {}))
        except ValidationError:  # a key longer than a place may be, a name that two parts would have
            continue
        decoder = ReadingDecoder(fields, config.decoded, coerce=bool(settings.get("coerce", config.coerce)))
        batch = Batch(_NOWHERE, seen.rejected, 0)
        mended = sum(len(set(readings.records.tolist())) for _, readings in _decoded_parts(batch, decoder))
        if mended and (best is None or mended > best.mended):
            best = Mending(settings, mended, len(seen.rejected))
        elif best is not None and mended == best.mended and settings == _month_first(best.settings):
            best = replace(best, doubtful=True)
    return best


def _month_first(settings: MappingOf[str, Any]) -> dict[str, Any] | None:
    """The settings with the other order of dates; None where they do not say that the day comes first."""
    fields = settings.get("fields", {})
    time = fields.get("timestamp")
    if not isinstance(time, dict) or time.get("format") != "day-first":
        return None
    return {**settings, "fields": {**fields, "timestamp": {**time, "format": "month-first"}}}


_NOWHERE: Final[Any] = ("", 0)


def _guesses(records: list[Record], config: ReadingsConfig, *, has_times: bool) -> Iterator[dict[str, Any]]:
    """Settings to try, the simpler first."""
    asked = config.fields.model_dump(mode="json", exclude_unset=True)
    kept = {"fields": asked} if asked else {}
    yield {**kept, "coerce": True}
    for record in records[:5]:
        document = _decoded(record)
        if not isinstance(document, dict):
            continue
        preset = None
        reading: Any = document
        if "metrics" in document or {"fields", "tags"} <= document.keys():
            preset = "telegraf"
        elif "after" in document or isinstance(document.get("payload"), dict):
            preset = "connect"
            payload = document["payload"] if isinstance(document.get("payload"), dict) else document
            reading = payload["after"] if isinstance(payload.get("after"), dict) else payload
        if preset == "telegraf":
            metrics = document.get("metrics")
            reading = metrics[0] if isinstance(metrics, list) and metrics else document
            if not isinstance(reading, dict):
                continue
            inner = reading.get("fields")
            numbers = [name for name, value in inner.items() if _is_number(value)] if isinstance(inner, dict) else []
            yield {"fields": {"preset": preset}}
            for name in numbers[:3]:
                yield {"fields": {"preset": preset, "value": _path(("fields", name))}}
            continue
        found = _parts(reading, record, config, has_times=has_times and preset is None)
        for coerce in (False, True):
            extra = {"coerce": True} if coerce else {}
            given: dict[str, Any] = asked if preset is None else {"preset": preset}
            if preset is not None:
                yield {"fields": given, **extra}
            if preset is not None or found:
                settings = {"fields": {**given, **found}, **extra}
                yield settings
                if (other := _month_first(settings)) is not None:
                    yield other


def _parts(reading: Any, record: Record, config: ReadingsConfig, *, has_times: bool) -> dict[str, Any]:
    """Where the parts of a reading may stand, of those that are not where the configuration says."""
    leaves = dict(list(_leaves(reading, ()))[:_LEAVES])
    asked, there = config.fields, Mapping(config.fields, config.decoded)
    found: dict[str, Any] = {}
    if not record.key and not _is_sensor(_standing(there.sensor, reading)):
        sensor = _named(leaves, _SENSORS, _is_sensor)
        if sensor is not None:
            found["sensor_id"] = _path(sensor)
    if not asked.by_record and not _reads(asked.time, _standing(there.time, reading)):
        time = _named(leaves, _TIMES, lambda value: _format_of(value) is not False)
        if time is not None:
            form = _format_of(leaves[time])
            found["timestamp"] = {"path": _path(time), "format": form} if form else _path(time)
        elif has_times:
            found["timestamp"] = "record"
    standing = _standing(there.single, reading)
    if len(config.decoded) == 1 and (standing is ABSENT or isinstance(standing, dict | list)):
        # What names a sensor, says a time or counts is no value, though it may well be the only number.
        named = {part for place in places_of(asked.sensor_id) if isinstance(place, str) for part in _paths_in(place)}
        free = {
            path: value
            for path, value in leaves.items()
            if path[-1].lower() not in (*_SENSORS, *_TIMES, *_COUNTERS) and _path(path) not in named
        }
        value = _named(free, _VALUES, _is_number)
        if value is None:
            numbers = [path for path, one in free.items() if _is_number(one)]
            value = numbers[0] if len(numbers) == 1 else None
        if value is not None:
            found["value"] = _path(value)
    return found


def _standing(place: Place | None, reading: Any) -> Any:
    """What stands where the configuration says, `ABSENT` if nothing does."""
    try:
        return ABSENT if place is None else place.get(reading, reading)
    except Rejected:
        return ABSENT


def _paths_in(place: str) -> list[str]:
    return parts_of(place) or [place]


def _is_sensor(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _reads(time: TimeField, value: Any) -> bool:
    """Whether a time is one as it is said to be written."""
    if time.format is None and time.zone is None:
        return _format_of(value) is None
    try:
        read = TimeForm(time.format, time.zone).reader()
        return read is None or bool(read(value))
    except (ValueError, OverflowError, TypeError):
        return False


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and len(path) < 6:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif path:
        yield path, value


def _named(leaves: MappingOf[tuple[str, ...], Any], names: tuple[str, ...], fits: Any) -> tuple[str, ...] | None:
    for name in names:
        for path, value in leaves.items():
            if path[-1].lower() == name and fits(value):
                return path
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return number_in(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_of(value: Any) -> str | bool | None:
    """The format of a time, None as usual, False if it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    number = number_in(value) if isinstance(value, str) else None
    cell = value if number is None else number
    if (instants([cell])[1] == OK).all():
        return None
    for form in _FORMATS[1:]:
        read = TimeForm(form).reader()
        try:
            if read is not None:
                read(value)
                return form
        except (ValueError, OverflowError):
            continue
    return False


def _decoded(record: Record) -> Any:
    try:
        document = msgspec.json.decode(record.value or b"")
    except (ValueError, RecursionError):
        return None
    return document[0] if isinstance(document, list) and document else document


def _path(path: tuple[str, ...]) -> str:
    if all(step and not set(step) & set("./{}~") for step in path):
        return ".".join(path)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        simple = re.fullmatch(r"[A-Za-z_][\w.-]*", value, re.ASCII) and yamltext.parse(value).value == value
        return value if simple else _quoted(value)
    return "true" if value is True else str(value)


def _quoted(text: str) -> str:
    """A text in double quotes, as YAML has it."""
    quoted = msgspec.json.encode(text).decode()
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
