"""CSV rows into readings: one record a row, the columns found by the header."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from typing import Final

from detector.config.fields import FieldsConfig, Source, places_of, shown
from detector.errors import UserError
from detector.streams.base import Batch
from detector.times import EARLIEST
from detector.wire.readings import MAX_SENSOR_ID, Draft, Reason, is_sensor_id, show

_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[-+]?\d{1,30}", re.ASCII)
_MISSING: Final = frozenset({"", "null"})
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""What Python takes for white space or for nothing, and what no cell has."""
_BLANKS: Final = " \t"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a header has what we need; None for a column that is not there."""

    width: int
    sensor: int | None
    time: int | None
    values: tuple[int, ...]


class CsvRows:
    """Decodes CSV batches; see `ReadingDecoder`."""

    def __init__(
        self,
        fields: FieldsConfig,
        channels: tuple[str, ...],
        default_sensor: str | None,
        interval: int | None,
        place: str | None,
    ) -> None:
        self._fields = fields
        self._channels = channels
        self._default_sensor = default_sensor
        self._interval = interval
        self._place = place
        self._header: bytes | None = None
        self._columns = _Columns(0, None, None, ())

    def decode(self, batch: Batch) -> Draft:
        """Read all rows, timestamps as they came. Blank rows hold nothing and are passed over."""
        if batch.header is not None and batch.header != self._header:
            self._columns = self._find(batch.header, self._place or batch.partition.stream)
            self._header = batch.header
        draft = Draft(len(self._channels))
        if not self._decode_plainly(draft, batch):
            draft = Draft(len(self._channels))
            for number, record in enumerate(batch.records):
                self._examine(draft, number, record.value or b"", batch.row + number)
        return draft

    def _find(self, header: bytes, place: str) -> _Columns:
        """Map the header. Raises UserError naming what is missing and what is there."""
        try:
            text = header.decode("utf-8-sig")
            if any(char < " " for char in text.replace("\t", " ")):
                raise csv.Error("no text")  # a spreadsheet's own format, say
            names = [name.strip() for name in next(csv.reader([text], strict=True), [])]
        except (UnicodeDecodeError, csv.Error):
            raise UserError(
                "the first line is no CSV header", where=f"{place}:1", todo="Save the file as CSV in UTF-8"
            ) from None
        if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
            raise UserError(
                f"the columns are separated by {'tabs' if other == chr(9) else f'`{other}`'}, not by commas",
                where=f"{place}:1",
                todo="Save the file with commas",
            )
        found = f"the columns are {', '.join(names) or 'none'}"[:300]

        def column_of(name: str) -> int | None:
            if names.count(name) > 1:
                raise UserError(f"two columns are called `{name}`", where=f"{place}:1", todo="Rename one of them")
            return names.index(name) if name in names else None

        def first_of(source: Source) -> int | None:
            columns = [column_of(one) for one in places_of(source) if isinstance(one, str)]
            return next((column for column in columns if column is not None), None)

        fields = self._fields
        values = []
        for channel, source in self._sources(names).items():
            column = first_of(source)
            if column is None:
                key = "readings.channels" if source == channel else "readings.fields.value"
                raise UserError(f"no column {shown(source)}; {found}", where=f"{place}:1", todo=f"Name yours in {key}")
            values.append(column)
        time, sensor = first_of(fields.time.path), first_of(fields.sensor_id)
        if time is None and self._interval is None:
            raise UserError(
                f"no column {shown(fields.time.path)}; {found}",
                where=f"{place}:1",
                todo="Name yours in readings.fields.timestamp, or give the time between rows with --interval",
            )
        if sensor is None and self._default_sensor is None:
            raise UserError(
                f"no column {shown(fields.sensor_id)}; {found}",
                where=f"{place}:1",
                todo="Name yours in readings.fields.sensor_id, or give the sensor with --sensor",
            )
        return _Columns(len(names), sensor, time, tuple(values))

    def _sources(self, names: list[str]) -> dict[str, Source]:
        """What the column of each channel is called."""
        value, channels = self._fields.value, self._channels
        if isinstance(value, dict):
            return value
        if len(channels) == 1 and (any(one in names for one in places_of(value)) or channels[0] not in names):
            return {channels[0]: value}
        return {channel: channel for channel in channels}

    def _decode_plainly(self, draft: Draft, batch: Batch) -> bool:
        """Read a batch without surprises into the draft; False (the draft is spoilt then) if it has some.

        Surprises are quotes, characters beyond ASCII, rows of another width, and cells that are not what they should
        be.
        """
        columns = self._columns
        count = len(batch.records)
        try:
            text = b"\n".join([record.value or b"" for record in batch.records]).decode("ascii")
            if '"' in text or _CONTROLS.search(text):
                return False
            rows = list(csv.reader(text.split("\n")))
            if len(rows) != count or set(map(len, rows)) != {columns.width}:
                return False
            for target, place in zip(draft.columns, columns.values, strict=True):
                target.extend(_read_values([row[place] for row in rows]))
            if columns.time is None:
                draft.times = [self._by_row(batch.row + number) for number in range(count)]
            else:
                draft.times = _read_times([row[columns.time] for row in rows])
        except (ValueError, csv.Error):
            return False
        if columns.sensor is None:
            draft.ids = [self._default_sensor or ""] * count
        else:
            draft.ids = [row[columns.sensor].strip() for row in rows]
            if not "".join(draft.ids).isprintable() or not all(draft.ids) or max(map(len, draft.ids)) > MAX_SENSOR_ID:
                return False
        draft.counts = [1] * count
        draft.records = list(range(count))
        draft.firsts = [0] * count
        return True

    def _by_row(self, row: int) -> int:
        """The time of a row without a timestamp, in ns: from the year 2000, so that it reads as nanoseconds."""
        return EARLIEST + row * (self._interval or 0)

    def _examine(self, draft: Draft, number: int, value: bytes, row: int) -> None:
        """Read one row by itself: add it to the draft, or say what is wrong with it."""
        where = f"row {row + 2}"  # as an editor counts: from 1, with the header

        def reject(reason: Reason, message: str) -> None:
            draft.reject(number, None, reason, f"{where}: {message}")

        try:
            cells = next(csv.reader([value.decode("utf-8").rstrip("\r\n")], strict=True), [])
        except UnicodeDecodeError:
            return reject("malformed", "not UTF-8 text")
        except csv.Error as error:
            return reject("malformed", f"not CSV: {error}")
        if not cells or (len(cells) == 1 and not cells[0].strip(_BLANKS)):
            return None
        columns = self._columns
        if len(cells) != columns.width:
            return reject("malformed", f"{len(cells)} cells, but the header has {columns.width}")
        sensor = self._default_sensor or "" if columns.sensor is None else cells[columns.sensor].strip(_BLANKS)
        if not sensor:
            return reject("missing_sensor_id", f"the cell of {shown(self._fields.sensor_id)} is empty")
        if not is_sensor_id(sensor):
            return reject("bad_sensor_id", f"{show(sensor)} is no sensor id: 1 to {MAX_SENSOR_ID} printable characters")
        values: list[float | None] = []
        for place in columns.values:
            cell = cells[place].strip(_BLANKS)
            if cell in _MISSING:
                values.append(None)
            elif _NUMBER.fullmatch(cell) and (found := float(cell)) - found == 0:
                values.append(found)
            else:
                return reject("bad_value", f"{show(cell)} is not a finite number")
        if columns.time is None:
            time: str | int | float = self._by_row(row)
        else:
            time = _read_time(cells[columns.time].strip(_BLANKS))
        draft.add(number, 0, sensor, time, values)
        return None


def _read_values(cells: list[str]) -> list[float | None]:
    """Read a column of ASCII cells. Raises ValueError if one is neither a finite number nor missing."""
    if "_" in "".join(cells):
        raise ValueError("Python's numbers may have underscores, ours may not")
    try:
        numbers = list(map(float, cells))
    except ValueError:
        numbers = [float(cell) for cell in cells if cell.strip() not in _MISSING]
        values = [None if cell.strip() in _MISSING else float(cell) for cell in cells]
    else:
        values = list[float | None](numbers)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is not finite")
    return values


def _read_times(cells: list[str]) -> list[str | int | float]:
    """Read a column of ASCII cells that all hold dates or all hold numbers. Raises ValueError if they do not."""
    cells = [cell.strip() for cell in cells]
    fifth = {cell[4:5] for cell in cells}
    if fifth == {"-"}:
        return list[str | int | float](cells)
    if "-" in fifth:
        raise ValueError("dates among numbers")
    if "_" in "".join(cells):
        raise ValueError("Python's numbers may have underscores, ours may not")
    try:
        return list(map(int, cells))
    except ValueError:
        numbers = list(map(float, cells))
    if not max(map(abs, numbers)) < 2**53:
        raise ValueError("a large number may be an integer, which a float would move")
    return list[str | int | float](numbers)


def _read_time(cell: str) -> str | int | float:
    if cell[4:5] == "-":
        return cell
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else cell
