"""The first rows of a CSV file: cut into columns, and how the numbers and times in these are written."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from typing import Final

from detector.config.fields import Source, is_name, places_of
from detector.errors import UserError
from detector.times import OK, SECOND, instants, rfc3339
from detector.wire.csv_form import MISSING_WORDS
from detector.wire.readings import is_sensor_id, show
from detector.wire.timeforms import reader_of

SEPARATORS: Final = ",;\t|"
_VALUES: Final = ("value", "values", "val", "reading", "measurement", "_value", "wert", "messwert")
_POINT: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_COMMA: Final = re.compile(r"[-+]?(?:\d+,\d*|,\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_ABBREVIATED: Final = re.compile(r"\d\s*[A-Za-z]{3,5}$", re.ASCII)
_GROUPED: Final = re.compile(
    r"[-+]?(?:\d{1,3}(?:\.\d{3})+,\d*|\d{1,3}(?:,\d{3})+\.\d*|\d{1,3}(?:,\d{3}){2,}|\d{1,3}(?:\.\d{3}){2,}"
    r"|\d{1,3}(?:[ '\u00a0\u202f\u2019]\d{3})+(?:[.,]\d*)?)"
)
_PACKED: Final = {8: "iso", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Digits alone that are a date and not an epoch, by their number."""


def normal(name: str) -> str:
    """A column's name without what people write in different ways: case, spaces, units in brackets.

    >>> normal(" Sensor ID"), normal("Time [UTC]"), normal("# dateTime")
    ('sensor_id', 'time', 'datetime')
    """
    bare = re.sub(r"[\[(].*?[\])]", "", name.strip().lstrip("#")).strip().lower()
    return re.sub(r"[\s\-./]+", "_", bare)


class Sample:
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
        if self.names and self.names[0].startswith("#"):
            first = ", ".join(self.names)[:200]
            todo = "Remove the lines before the one with the names of the columns"
            return UserError(f"the first line is a comment: {first}", where=f"{self.place}:1", todo=todo)
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
        for name, column in zip(names, columns, strict=True):
            if not name:
                what = f"column {column + 1} has numbers and no name"
                raise UserError(what, where=f"{self.place}:1", todo="Give it a name")
            if names.count(name) > 1:
                raise UserError(f"two columns are called `{name}`", where=f"{self.place}:1", todo="Rename one of them")
            if not is_sensor_id(name):
                raise UserError(f"a column is called {show(name)}", where=f"{self.place}:1", todo="Rename it")
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
        if not read[best]:
            _refuse_abbreviated_zones(cells, where)
            return None
        return best

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


def _refuse_abbreviated_zones(cells: list[str], where: str) -> None:
    """Raise UserError where every time ends in letters that may be one zone or another, as `CST` may."""
    if all(_ABBREVIATED.search(cell) for cell in cells):
        raise UserError(
            f"the times end in the abbreviation of a zone, as {show(cells[0])} does, which may mean several",
            where=where,
            todo="Export them with an offset such as +01:00, or without a zone and say --zone Europe/Berlin",
        )


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


def header_text(header: bytes, encoding: str, place: str) -> str:
    """The header as text. Raises UserError where it is none."""
    try:
        text = header.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise _not_text(f"{place}:1") from None
    if any(char < " " for char in text.replace("\t", " ")):
        todo = "Save the file as CSV in UTF-8"
        raise UserError("the first line is no CSV header", where=f"{place}:1", todo=todo)
    return text


def texts_of(rows: Sequence[bytes], encoding: str, place: str) -> list[str]:
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


def separated(head: str, texts: list[str], place: str) -> tuple[str, list[str], list[list[str]]]:
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
