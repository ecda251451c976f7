"""What a CSV file is like: separator, decimal mark, columns and times, by its header and the first rows."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from detector.config.fields import Constant, FieldsConfig, Source, is_name, parts_of, places_of, shown
from detector.errors import UserError
from detector.times import OK, SECOND, instants, rfc3339
from detector.wire.csv_form import MISSING_WORDS, CsvForm, CsvOptions, told, with_form
from detector.wire.readings import is_sensor_id, show
from detector.wire.timeforms import reader_of

SEPARATORS: Final = ",;\t|"
_TIMES: Final = (
    "timestamp", "time", "ts", "datetime", "date_time", "timestamp_utc", "time_utc", "utc_time", "time_stamp",
    "utc", "_time", "date", "zeit", "zeitstempel", "datum",
)  # fmt: skip
"""Common names of a column of times, the likelier first."""
_VALUES: Final = ("value", "values", "val", "reading", "measurement", "_value", "wert", "messwert")
_SENSORS: Final = ("sensor_id", "sensorid", "sensor", "sensor_name", "tag", "tag_name", "tagname")
_DAYS: Final = ("date", "datum", "day")
_HOURS: Final = ("time", "uhrzeit", "zeit", "time_of_day")
_POINT: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_COMMA: Final = re.compile(r"[-+]?(?:\d+,\d*|,\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_GROUPED: Final = re.compile(
    r"[-+]?(?:\d{1,3}(?:\.\d{3})+,\d*|\d{1,3}(?:,\d{3})+\.\d*|\d{1,3}(?:,\d{3}){2,}|\d{1,3}(?:\.\d{3}){2,}"
    r"|\d{1,3}(?:[ '\u00a0\u202f\u2019]\d{3})+(?:[.,]\d*)?)"
)
_PACKED: Final = {8: "iso", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Digits alone that are a date and not an epoch, by their number."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Recognises the form of a file, for what the configuration calls its columns.

    `named` says that the sensor was named by the user; `interval` is the time between rows that have none.
    """

    fields: FieldsConfig
    channels: tuple[str, ...]
    options: CsvOptions
    has_sensor: bool
    interval: int | None
    named: bool = False

    def form(self, header: bytes, rows: Sequence[bytes], place: str) -> CsvForm:
        """The form of a file, by its header and some rows. Raises UserError where they do not go together."""
        encoding = self.options.encoding or "utf-8"
        head = _header_text(header, encoding, place)
        texts = _texts(rows, encoding, place)
        separator, names, cells = _separated(head, texts, place)
        sample = _Sample(tuple(names), cells, place)
        time, sensor = self._time(sample), self._sensor(sample)
        taken = {*time, *(piece for piece in sensor if isinstance(piece, int))}
        values, columns = self._values(sample, taken)
        if not time and self.interval is None:
            raise sample.lacks(
                shown(self.fields.time.path),
                "Name yours in readings.fields.timestamp, or give the time between rows with --interval",
            )
        if not sensor and not self.has_sensor and not values:
            raise sample.lacks(
                shown(self.fields.sensor_id),
                "Name yours in readings.fields.sensor_id, or give the sensor with --sensor",
            )
        decimal = sample.decimal(columns)
        zone = self.options.zone or self.fields.time.zone
        return CsvForm(
            width=len(names),
            values=columns,
            time=time,
            sensor=sensor,
            names=values,
            separator=separator,
            decimal=decimal,
            encoding=encoding,
            time_format=self.options.time_format or self.fields.time.format or sample.time_format(time, decimal, zone),
            zone=zone,
            asked=str(self.options),
        )

    def header(self, header: bytes, rows: Sequence[bytes], place: str) -> bytes:
        """The header with the form of the file behind it. Raises UserError.

        A line of the log tells the form, unless the file is as `docs/messages.md` begins.
        """
        form = self.form(header, rows, place)
        names = [name.strip() for name in header.decode(form.encoding).removeprefix("\ufeff").split(",")]
        if form != CsvForm(form.width, form.values, form.time, form.sensor) or not self._are_configured(form, names):
            _log.info("%s: %s", place, told(header, form))
        return with_form(header, form)

    def _are_configured(self, form: CsvForm, names: Sequence[str]) -> bool:
        """Whether the columns that are read have the names of the configuration."""
        values = self.fields.value if isinstance(self.fields.value, dict) else {"": self.fields.value}
        sources = (self.fields.sensor_id, self.fields.time.path, *values.values(), self.channels)
        known = {place for source in sources for place in places_of(source)}
        columns = (*form.time, *form.values, *(one for one in form.sensor if isinstance(one, int)))
        return all(names[column] in known for column in columns if column < len(names))

    def numeric(self, header: bytes, rows: Sequence[bytes], place: str) -> tuple[str, ...]:
        """The names of the numeric columns but those of time and sensor. Raises UserError."""
        encoding = self.options.encoding or "utf-8"
        head, texts = _header_text(header, encoding, place), _texts(rows, encoding, place)
        _, names, cells = _separated(head, texts, place)
        sample = _Sample(tuple(names), cells, place)
        return sample.wide({*self._time(sample), *(one for one in self._sensor(sample) if isinstance(one, int))})[0]

    def _time(self, sample: _Sample) -> tuple[int, ...]:
        if self.fields.by_record:
            return ()
        found = sample.first_of(self.fields.time.path)
        if found is not None or self.interval is not None:
            return () if found is None else (found,)
        day, hour = sample.common(_DAYS), sample.common(_HOURS)
        if day is not None and hour is not None and not sample.has_dates(hour):
            return day, hour
        found = sample.common(_TIMES)
        return () if found is None else (found,)

    def _sensor(self, sample: _Sample) -> tuple[int | str, ...]:
        for one in places_of(self.fields.sensor_id):
            if isinstance(one, Constant):
                return (one.constant,)
            if parts_of(one):
                pieces = sample.template(one)
                if pieces:
                    return pieces
            elif (column := sample.column(one)) is not None:
                return (column,)
        found = None if self.named or self.options.wide else sample.common(_SENSORS)
        return () if found is None else (found,)

    def _values(self, sample: _Sample, taken: set[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The sensors of a wide file, and the columns of the values."""
        if self.options.wide == "sensors":
            return sample.wide(taken)
        channels, value = self.channels, self.fields.value
        sources: dict[str, Source] = {channel: channel for channel in channels}
        if isinstance(value, dict):
            sources = dict(value)
        elif len(channels) == 1 and self.options.wide is None:
            sources = {channels[0]: (*places_of(value), channels[0])}
        columns = []
        for channel, source in sources.items():
            column = sample.first_of(source)
            if column is None and len(channels) == 1 and self.options.wide is None:
                column = sample.only_value(taken)
            if column is None:
                simple = len(channels) == 1 and not isinstance(value, dict)
                told = shown(value) if simple and not isinstance(value, dict) else shown(source)
                several = "; several are numeric: --wide sensors takes each as a sensor"
                more = several if len(sample.numeric(taken)) > 1 and len(channels) == 1 else ""
                key = "readings.fields.value" if simple or source != channel else "readings.channels"
                raise sample.lacks(told, f"Name yours in {key}{more}")
            columns.append(column)
        return (), tuple(columns)


def normal(name: str) -> str:
    """A column's name without what people write in different ways: case, spaces, units in brackets.

    >>> normal(" Sensor ID"), normal("Time [UTC]"), normal("# dateTime")
    ('sensor_id', 'time', 'datetime')
    """
    bare = re.sub(r"[\[(].*?[\])]", "", name.strip().lstrip("#")).strip().lower()
    return re.sub(r"[\s\-./]+", "_", bare)


class _Sample:
    """The columns of a file by name, and what the first rows have in them."""

    def __init__(self, names: tuple[str, ...], rows: list[list[str]], place: str) -> None:
        self.names = names
        self.place = place
        self._rows = rows
        self._normal = [normal(name) for name in names]

    def cells(self, column: int) -> list[str]:
        """What the rows have in a column, without what is missing."""
        found = [row[column].strip() for row in self._rows if len(row) == len(self.names)]
        return [cell for cell in found if cell.lower() not in MISSING_WORDS]

    def lacks(self, column: str, todo: str) -> UserError:
        """What is said of a column that is not there."""
        if any(_POINT.fullmatch(name) or _COMMA.fullmatch(name) for name in self.names):
            first = ", ".join(self.names)[:200]
            todo = "Add a line with the names of the columns, such as timestamp,value"
            return UserError(f"the first line has no names but data: {first}", where=f"{self.place}:1", todo=todo)
        there = f"the columns are {', '.join(self.names) or 'none'}"[:300]
        return UserError(f"no column {column}; {there}", where=f"{self.place}:1", todo=todo)

    def column(self, name: str) -> int | None:
        """The column of a name as it is written, else however it is. Raises UserError where there are two."""
        found = [i for i, one in enumerate(self.names) if one == name]
        if not found and is_name(name):
            found = [i for i, one in enumerate(self._normal) if one == normal(name)]
        if len(found) > 1:
            raise UserError(f"two columns are called `{name}`", where=f"{self.place}:1", todo="Rename one of them")
        return found[0] if found else None

    def first_of(self, source: Source) -> int | None:
        """The column of the first candidate that has one."""
        columns = (self.column(one) for one in places_of(source) if isinstance(one, str))
        return next((column for column in columns if column is not None), None)

    def common(self, names: Sequence[str]) -> int | None:
        """The column that has one of these common names, the first of them that is there."""
        for name in names:
            found = [i for i, one in enumerate(self._normal) if one == name]
            if len(found) == 1:
                return found[0]
        return None

    def template(self, template: str) -> tuple[int | str, ...]:
        """The columns and texts of an id that is built of parts; none unless there are all of them."""
        pieces: list[int | str] = []
        for i, piece in enumerate(re.split(r"\{([^{}]*)\}", template)):
            column = self.column(piece) if i % 2 else None
            if i % 2 and column is None:
                return ()
            if piece:
                pieces.append(piece if column is None else column)
        return tuple(pieces)

    def has_dates(self, column: int) -> bool:
        """Whether a column of times has their dates, too."""
        cells = self.cells(column)
        return bool(cells) and not all(re.fullmatch(r"\d{1,2}:\d\d.*", cell) for cell in cells)

    def numeric(self, taken: set[int]) -> list[int]:
        """The columns of numbers among the others."""
        return [i for i in range(len(self.names)) if i not in taken and self._is_numeric(self.cells(i))]

    @staticmethod
    def _is_numeric(cells: list[str]) -> bool:
        return bool(cells) and all(any(one.fullmatch(cell) for one in (_POINT, _COMMA, _GROUPED)) for cell in cells)

    def only_value(self, taken: set[int]) -> int | None:
        """The column of the values by a common name, or as the only one that has numbers."""
        found = self.common(_VALUES)
        if found is not None and found not in taken:
            return found
        numeric = self.numeric(taken)
        return numeric[0] if len(numeric) == 1 else None

    def wide(self, taken: set[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Every numeric column that is not `taken`: names, columns. Raises UserError where they name no sensors."""
        columns = self.numeric(taken)
        names = tuple(self.names[column] for column in columns)
        if not columns:
            raise self.lacks("has numbers", "Give a file with a numeric column for each sensor")
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"two columns are called `{name}`", where=f"{self.place}:1", todo="Rename one of them")
            if not is_sensor_id(name):
                raise UserError(f"a column is called {show(name)}", where=f"{self.place}:1", todo="Give it a name")
        return names, tuple(columns)

    def decimal(self, columns: Sequence[int]) -> str:
        """The decimal mark of the numbers. Raises UserError where they have marks between thousands."""
        points = commas = 0
        for column in columns:
            for cell in self.cells(column):
                if _POINT.fullmatch(cell):
                    points += "." in cell
                elif _COMMA.fullmatch(cell):
                    commas += 1
                elif _GROUPED.fullmatch(cell):
                    raise UserError(
                        f"the numbers have marks between thousands, such as {show(cell)}",
                        where=f"{self.place}: {self.names[column]}",
                        todo="Export them without",
                    )
        return "," if commas > points else "."

    def time_format(self, columns: Sequence[int], decimal: str, zone: str | None) -> str | None:
        """How the times are written, None for what is read without a format. Raises UserError if that is ambiguous."""
        if not columns:
            return None
        cells = [" ".join(parts) for parts in zip(*map(self._times, columns), strict=True)]
        cells = [cell for cell in cells if cell.lower() not in MISSING_WORDS]
        if not cells:
            return None
        where = f"{self.place}: {self.names[columns[0]]}"
        if decimal == ",":
            cells = [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in cells]
        if all(_POINT.fullmatch(cell) for cell in cells):
            return _of_numbers(cells, where)
        forms: list[tuple[str | None, Callable[[str], bool]]] = [
            (None, _as_usual if zone is None else lambda cell: False),
            ("iso", _reads("iso")),
            ("day-first", _reads("day-first")),
            ("month-first", _reads("month-first")),
        ]
        read = {form: [cell for cell in cells if can(cell)] for form, can in forms}
        best = max(read, key=lambda form: len(read[form]))  # the first of those that read as many
        if best in ("day-first", "month-first"):
            _refuse_ambiguous(read["day-first"], read["month-first"], where)
        return best if read[best] else None

    def _times(self, column: int) -> list[str]:
        return [row[column].strip() for row in self._rows if len(row) == len(self.names)]


def _refuse_ambiguous(by_day: list[str], by_month: list[str], where: str) -> None:
    """Raise UserError unless one order alone reads the times."""
    days, months = set(by_day) - set(by_month), set(by_month) - set(by_day)
    todo = "Say which with --time-format day-first or --time-format month-first"
    if days and months:
        raise UserError(
            f"some times have the day first ({show(min(days))}), and some the month ({show(min(months))})",
            where=where,
            todo="Export them as year-month-day",
        )
    if not days and not months:
        both = sorted(by_day)
        read = {one: (reader_of("day-first", None)(one), reader_of("month-first", None)(one)) for one in both}
        example = next((one for one in both if read[one][0] != read[one][1]), both[0])
        first, second = (rfc3339(ns - ns % SECOND)[:10] for ns in read[example])
        raise UserError(f"{show(example)} may be {first} (day first) or {second} (month first)", where=where, todo=todo)


def _of_numbers(cells: list[str], where: str) -> str | None:
    """The format of times that are all numbers; None for epochs told apart by their magnitude."""
    lengths = set(map(len, cells))
    if len(lengths) == 1 and (form := _PACKED.get(lengths.pop())) and all(map(str.isdigit, cells)):
        reads = _reads(form)
        if not _as_usual(cells[0]) and all(map(reads, cells)):
            return form
    if all(30_000 < float(cell) < 80_000 for cell in cells):
        raise UserError(
            f"the times are numbers such as {show(cells[0])}: days since 1900, as spreadsheets count",
            where=where,
            todo="Export them as text, such as 2026-11-22 10:00:00",
        )
    return None


def _as_usual(cell: str) -> bool:
    if _POINT.fullmatch(cell):
        return bool((instants([float(cell)])[1] == OK).all())
    return bool((instants([cell])[1] == OK).all())


def _reads(form: str) -> Callable[[str], bool]:
    read = reader_of(form, None)

    def can(cell: str) -> bool:
        try:
            read(cell)
        except (ValueError, OverflowError):
            return False
        return True

    return can


def _header_text(header: bytes, encoding: str, place: str) -> str:
    """The header as text. Raises UserError where it is none."""
    try:
        text = header.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise _not_text(f"{place}:1") from None
    if any(char < " " for char in text.replace("\t", " ")):
        todo = "Save the file as CSV in UTF-8"
        raise UserError("the first line is no CSV header", where=f"{place}:1", todo=todo)
    return text


def _texts(rows: Sequence[bytes], encoding: str, place: str) -> list[str]:
    """The rows that are text. Raises UserError if none is."""
    texts = []
    for row in rows:
        try:
            texts.append(row.decode(encoding).rstrip("\r\n"))
        except UnicodeDecodeError:
            continue
    if rows and not texts:
        raise _not_text(f"{place}:2")
    return texts


def _not_text(where: str) -> UserError:
    return UserError("this is not UTF-8 text", where=where, todo="If it is Latin-1, say so with --encoding latin-1")


def _separated(head: str, texts: list[str], place: str) -> tuple[str, list[str], list[list[str]]]:
    """The separator, the names of the columns and the cells of the rows. Raises UserError."""
    found = []
    for separator in SEPARATORS:
        try:
            names = [name.strip() for name in next(csv.reader([head], delimiter=separator, strict=True), [])]
            rows = list(csv.reader(texts, delimiter=separator))
        except csv.Error:
            continue
        fit = sum(len(row) == len(names) for row in rows)
        found.append((len(names) > 1, fit, len(names), separator, names, rows))
    if not found:
        todo = "Save the file as CSV in UTF-8"
        raise UserError("the first line is no CSV header", where=f"{place}:1", todo=todo)
    best = max(found, key=lambda one: one[:3])
    _, fit, width, separator, names, rows = best
    if separator == "," and texts and fit * 2 < len(texts) and _decimal_commas(width, texts):
        raise UserError(
            f"a comma stands between the columns and within the numbers, as in {show(texts[0])}",
            where=f"{place}:2",
            todo="Export the file with semicolons, or with a point in numbers",
        )
    return separator, names, rows


def _decimal_commas(width: int, texts: list[str]) -> bool:
    """Whether most rows have more cells than the header, and all but one or two of these are digits."""
    wider = [row for row in csv.reader(texts) if len(row) > width]
    return 2 * len(wider) > len(texts) and all(any(cell.strip().isdigit() for cell in row) for row in wider)
