"""CSV rows into readings: one record a row, the columns found by the header."""

from __future__ import annotations

import csv
import functools
import logging
import math
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from detector.config.fields import FieldsConfig, Source, places_of, shown
from detector.config.values import format_duration
from detector.errors import UserError, counted
from detector.streams.base import Batch
from detector.times import EARLIEST, OUT_OF_RANGE
from detector.wire.csv_form import MISSING, MISSING_WORDS, CsvForm, CsvOptions, form_of
from detector.wire.readings import MAX_SENSOR_ID, Draft, Reason, explain_time, is_sensor_id, show
from detector.wire.timeforms import Read, TimeForm

_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[-+]?\d{1,30}", re.ASCII)
_INTEGERS: Final = msgspec.json.Decoder(list[int])
_FLOATS: Final = msgspec.json.Decoder(list[float])
_BLANKS: Final = " \t"
_AS_BEGUN: Final = "Give the options it was begun with, or start over with --fresh"
_NOTHING: Final = math.inf
"""In place of a value that was rejected."""

_log = logging.getLogger(__name__)


class CsvRows:
    """Decodes CSV batches; see `ReadingDecoder`. `options` are those the form of a file has to have been made with."""

    def __init__(
        self,
        fields: FieldsConfig,
        channels: tuple[str, ...],
        default_sensor: str | None,
        interval: int | None,
        place: str | None,
        options: CsvOptions,
    ) -> None:
        self._fields = fields
        self._channels = channels
        self._default_sensor = default_sensor
        self._interval = interval
        self._place = place
        self._options = options
        self._header: bytes | None = None
        self._form = CsvForm(0, ())
        self._read_time: Read | None = None
        self._missing = MISSING
        self._told = False

    def decode(self, batch: Batch) -> Draft:
        """Read all rows, timestamps as they came. Blank rows hold nothing and are passed over."""
        if batch.header is not None and batch.header != self._header:
            self._take(batch.header, self._place or batch.partition.stream)
            self._header = batch.header
        draft = Draft(len(self._channels))
        if not self._decode_plainly(draft, batch):
            draft = Draft(len(self._channels))
            for number, record in enumerate(batch.records):
                self._examine(draft, number, record.value or b"", batch.row + number)
        return draft

    def _take(self, header: bytes, place: str) -> None:
        """Rows are written as the header's form says from here on. Raises UserError."""
        form = form_of(header) or self._find(header, place)
        if form.asked != str(self._options):
            raise UserError(
                f"the file was begun with {form.asked or 'no options'}, not with {str(self._options) or 'none'}",
                where=place,
                todo=_AS_BEGUN,
            )
        if not form.time and (self._interval is None or form.interval not in (0, self._interval)):
            begun = f"--interval {format_duration(form.interval)}" if form.interval else "an --interval"
            given = "none" if self._interval is None else f"--interval {format_duration(self._interval)}"
            raise UserError(f"the file was begun with {begun}, not with {given}", where=place, todo=_AS_BEGUN)
        self._form = form
        self._read_time = TimeForm(form.time_format, form.zone).reader()
        self._missing = MISSING_WORDS if form.words else MISSING
        self._told = False

    def _find(self, header: bytes, place: str) -> CsvForm:
        """The form of a file whose form was never recognised: as `detector schema reading` has it.

        Raises UserError naming what is missing and what is there.
        """
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
        return CsvForm(
            len(names),
            tuple(values),
            () if time is None else (time,),
            () if sensor is None else (sensor,),
            words=False,
        )

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
        form = self._form
        count = len(batch.records)
        try:
            cells = _split([record.value or b"" for record in batch.records], form)
            columns = [self._read_values(cells[place]) for place in form.values]
            times = self._read_times(cells, batch.row, count)
        except (ValueError, OverflowError):
            return False
        ids = self._ids(cells) if form.sensor else [self._default_sensor or ""] * count
        if form.names:
            width = len(form.names)
            ids = [name for sensor in ids for name in self._names(sensor)]
            times = [time for time in times for _ in range(width)]
            columns = [[value for row in zip(*columns, strict=True) for value in row]]
        else:
            width = 1
        if form.sensor and (
            not all(ids) or not "".join(ids).isprintable() or max(map(len, ids), default=0) > MAX_SENSOR_ID
        ):
            return False
        for target, column in zip(draft.columns, columns, strict=True):
            target.extend(column)
        draft.times = times
        draft.ids = ids
        draft.counts = [1] * len(ids)
        draft.records = [number for number in range(count) for _ in range(width)] if width > 1 else list(range(count))
        draft.firsts = list(range(width)) * count
        return True

    def _ids(self, columns: list[list[str]]) -> list[str]:
        """The sensor of each row; empty where a part of it is."""
        pieces = self._form.sensor
        if len(pieces) == 1 and isinstance(pieces[0], int):
            return [cell.strip() for cell in columns[pieces[0]]]
        return [self._id(row) for row in zip(*columns, strict=True)]

    def _id(self, cells: Sequence[str]) -> str:
        parts = [piece if isinstance(piece, str) else cells[piece].strip(_BLANKS) for piece in self._form.sensor]
        return "".join(parts) if all(parts) else ""

    def _names(self, sensor: str) -> Sequence[str]:
        """The sensors of a row of a wide file."""
        names = self._form.names
        return [f"{sensor}/{name}" if sensor else "" for name in names] if self._form.sensor else names

    def _read_times(self, cells_of: list[list[str]], first: int, count: int) -> list[str | int | float]:
        """The times of the rows, by the cells of each column. Raises ValueError or OverflowError if one is not as it
        should be.
        """
        columns, read = self._form.time, self._read_time
        if not columns:
            return [self._by_row(first + number) for number in range(count)]
        if len(columns) == 1:
            cells = [cell.strip() for cell in cells_of[columns[0]]]
        else:
            parts = [[cell.strip() for cell in cells_of[column]] for column in columns]
            cells = list(map(" ".join, zip(*parts, strict=True)))
        if self._form.decimal == ",":
            cells = [self._with_a_point(cell) for cell in cells]
        return _read_times(cells) if read is None else [read(self._cell(cell)) for cell in cells]

    def _cell(self, cell: str) -> str | int | float:
        """A time as its reader takes it: what has a format, also one of digits, is a text."""
        return _read_time(cell) if self._form.time_format is None else cell

    def _with_a_point(self, cell: str) -> str:
        """A number as it is written elsewhere; what is no number stays."""
        pointed = cell.replace(",", ".", 1)
        return pointed if "." not in cell and _NUMBER.fullmatch(pointed) else cell

    def _by_row(self, row: int) -> int:
        """The time of a row without a timestamp, in ns: from the year 2000, so that it reads as nanoseconds."""
        return EARLIEST + row * (self._interval or 0)

    def _examine(self, draft: Draft, number: int, value: bytes, row: int) -> None:
        """Read one row by itself: add it to the draft, or say what is wrong with it."""
        form = self._form
        where = f"row {row + 2}"  # as an editor counts: from 1, with the header

        def reject(reason: Reason, message: str, element: int | None = None) -> None:
            draft.reject(number, element, reason, f"{where}: {message}")

        try:
            text = value.decode(form.encoding).rstrip("\r\n")
            cells = next(csv.reader([text], delimiter=form.separator, strict=True), [])
        except UnicodeDecodeError:
            return reject("malformed", "not UTF-8 text")
        except csv.Error as error:
            return reject("malformed", f"not CSV: {error}")
        if not cells or (len(cells) == 1 and not cells[0].strip(_BLANKS)):
            return None
        if len(cells) != form.width:
            return reject("malformed", f"{counted(len(cells), 'cell')}, but the header has {form.width}")
        sensor = self._id(cells) if form.sensor else self._default_sensor or ""
        if not sensor and (form.sensor or not form.names):
            return reject("missing_sensor_id", f"the cell of {shown(self._fields.sensor_id)} is empty")
        sensors = self._names(sensor) if form.names else (sensor,)
        for one in sensors:
            if not is_sensor_id(one):
                return reject(
                    "bad_sensor_id", f"{show(one)} is no sensor id: 1 to {MAX_SENSOR_ID} printable characters"
                )
        time: str | int | float
        if not form.time:
            time = self._by_row(row)
        else:
            cell = " ".join([cells[column].strip(_BLANKS) for column in form.time])
            if form.decimal == ",":
                cell = self._with_a_point(cell)
            time = _read_time(cell)
            if self._read_time is not None:
                try:
                    time = self._read_time(self._cell(cell))
                except OverflowError:
                    reason, message = explain_time(cell, OUT_OF_RANGE)
                    return reject(reason, message)
                except ValueError:
                    self._tell(row, cell)
                    told = TimeForm(form.time_format, form.zone)
                    return reject("bad_timestamp", f"timestamp {show(cell)} is not written as {told}")
        values: list[float | None] = []
        for element, place in enumerate(form.values):
            cell = cells[place].strip(_BLANKS)
            if (cell.lower() if form.words else cell) in self._missing:
                values.append(None)
                continue
            pointed = self._pointed(cell)
            if _NUMBER.fullmatch(pointed) and (found := float(pointed)) - found == 0:
                values.append(found)
            elif form.names:
                reject("bad_value", f"{show(cell)} of {show(form.names[element])} is not a finite number", element)
                values.append(_NOTHING)
            else:
                return reject("bad_value", f"{show(cell)} is not a finite number")
        if form.names:
            for element, (one, number_found) in enumerate(zip(sensors, values, strict=True)):
                if number_found is not _NOTHING:
                    draft.add(number, element, one, time, [number_found])
        else:
            draft.add(number, 0, sensor, time, values)
        return None

    def _tell(self, row: int, cell: str) -> None:
        """Say once that a file is written otherwise from here on."""
        if not self._told:
            self._told = True
            _log.warning(
                "row %d of %s is not written as the rows at the beginning: its time is %s",
                row + 2, self._place or "the input", show(cell),
            )  # fmt: skip

    def _pointed(self, cell: str) -> str:
        """A number with a point; empty where it has another mark than the file's."""
        if self._form.decimal == ".":
            return cell
        return "" if "." in cell else cell.replace(",", ".", 1)

    def _read_values(self, cells: list[str]) -> list[float | None]:
        """Read a column of ASCII cells. Raises ValueError if one is neither a finite number nor missing."""
        if self._form.decimal == ",":
            if "." in "".join(cells):
                raise ValueError("a number has another decimal mark")
            cells = [cell.replace(",", ".", 1) for cell in cells]
        if found := _plain_floats(cells):
            return list[float | None](found)
        if "_" in "".join(cells):
            raise ValueError("Python's numbers may have underscores, ours may not")
        values: list[float | None]
        try:
            numbers = list(map(float, cells))
            values = list[float | None](numbers)
        except ValueError:
            numbers, values = self._with_gaps(cells)
        if not all(map(math.isfinite, numbers)):
            numbers, values = self._with_gaps(cells)
            if not all(map(math.isfinite, numbers)):
                raise ValueError("a number is not finite")
        return values

    def _with_gaps(self, cells: list[str]) -> tuple[list[float], list[float | None]]:
        """The numbers of a column, and the column with None for what is missing. Raises ValueError."""
        missing, words = self._missing, self._form.words
        values: list[float | None] = []
        for cell in map(str.strip, cells):
            gap = (cell.lower() if words else cell) in missing
            values.append(None if gap else float(cell))
        return [value for value in values if value is not None], values


def _split(rows: list[bytes], form: CsvForm) -> list[list[str]]:
    """The cells of rows by column. Raises ValueError where a row has quotes, characters beyond ASCII, controls that
    Python takes for white space or for nothing, or another width.

    >>> _split([b"1;a", b"2;b"], CsvForm(2, (1,), separator=";"))
    [['1', '2'], ['a', 'b']]
    """
    text, width, separator = b"\n".join(rows), form.width, form.separator
    row = separator.encode() * (width - 1) + b"\n"
    if not rows or text.translate(None, _ordinary(separator)) != (row * len(rows))[:-1]:
        raise ValueError("a row has to be looked at by itself")
    if len(text) > csv.field_size_limit() and max(map(len, rows)) > csv.field_size_limit():
        raise ValueError("a row may have a cell that is too long")
    cells = text.decode("ascii").replace("\n", separator).split(separator)
    if width == 1 and "" in cells:
        raise ValueError("a row is blank")
    return [cells[column::width] for column in range(width)]


@functools.cache
def _ordinary(separator: str) -> bytes:
    """What cells of a plain row are made of."""
    return bytes(code for code in (ord("\t"), *range(ord(" "), 128)) if chr(code) not in ('"', separator))


def _plain_floats(cells: list[str]) -> list[float] | None:
    """Numbers written as JSON has them, in a fifth of the time; None where one is not.

    >>> _plain_floats(["1.5", " 2e3"]), _plain_floats(["+1"]), _plain_floats(["-0"])
    ([1.5, 2000.0], None, None)
    """
    joined = ",".join(cells)
    try:
        numbers = _FLOATS.decode(f"[{joined}]")
    except msgspec.DecodeError:
        return None
    if "-0" in joined and 0.0 in numbers:  # which JSON takes for 0, and Python for -0.0
        return None
    return numbers if len(numbers) == len(cells) else None  # a cell may have a comma


def _read_times(cells: list[str]) -> list[str | int | float]:
    """Read a column of ASCII cells that all hold dates or all hold numbers. Raises ValueError if they do not."""
    try:
        integers = _INTEGERS.decode(f"[{','.join(cells)}]")
        if len(integers) == len(cells):
            return list[str | int | float](integers)
    except msgspec.DecodeError:
        pass
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
