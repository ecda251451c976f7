"""How the rows of a CSV file are written: told, or recognised from the first of them, and kept for all of the file.

What was recognised travels behind the header, so that a checkpoint keeps it: the header's line, a line feed, and the
form as JSON. A header without one is of a file that was begun before forms were recognised.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Final

import msgspec

from detector.config.values import format_duration
from detector.errors import counted
from detector.wire.timeforms import TimeForm

MISSING: Final = frozenset({"", "null"})
"""What the cell of a missing value says in a file without a form."""
MISSING_WORDS: Final = MISSING | {
    "na",
    "n/a",
    "#n/a",
    "#na",
    "<na>",
    "nan",
    "-nan",
    "none",
    "nil",
    "1.#qnan",
    "-1.#ind",
}
"""What it may say, in small letters, in a file with one."""


class CsvForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the rows of one file are written. Columns are counted from 0."""

    width: int
    values: tuple[int, ...]
    """The columns of the channels, or of the sensors in `names`."""
    time: tuple[int, ...] = ()
    """None, one, or a date and a time of day."""
    sensor: tuple[int | str, ...] = ()
    """Columns and texts that the id is made of; none: the default."""
    names: tuple[str, ...] = ()
    """In a wide file the sensor of each value column."""
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    time_format: str | None = None
    zone: str | None = None
    words: bool = True
    """Whether `NA` and the like are missing values."""
    asked: str = ""
    """What was asked for beside the configuration; another run has to ask for the same."""
    interval: int = 0
    """ns between rows that have no time; 0: they have, or a release before did not keep it."""


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """What a command says of its CSV file. `wide`: every numeric column is a sensor, or a channel."""

    time_format: str | None = None
    zone: str | None = None
    wide: str | None = None
    encoding: str | None = None

    def __str__(self) -> str:
        options = {"time-format": self.time_format, "zone": self.zone, "wide": self.wide, "encoding": self.encoding}
        return " ".join(f"--{name} {value}" for name, value in options.items() if value is not None)


def asked_of_csv(options: CsvOptions, interval: int | None) -> str:
    """All that a command says of CSV files, as it was written; `interval` is the time, ns, between rows without one."""
    every = "" if interval is None else f"--interval {format_duration(interval)}"
    return f"{options} {every}".strip()


def with_form(header: bytes, form: CsvForm) -> bytes:
    """The header of a batch whose rows are written so."""
    return header + b"\n" + msgspec.json.encode(form)


def form_of(header: bytes) -> CsvForm | None:
    """The form behind a header, None if there is none. Raises ValueError where it cannot be read."""
    _, line_feed, form = header.partition(b"\n")
    return msgspec.json.decode(form, type=CsvForm) if line_feed else None


def told(header: bytes, form: CsvForm) -> str:
    """What a file is like, in words on one line."""
    names = next(csv.reader([header.decode(form.encoding, "replace").removeprefix("\ufeff")], delimiter=form.separator))
    names = [name.strip() for name in names]
    marks = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
    parts = [f"{marks[form.separator]} between columns"]
    if form.decimal == ",":
        parts.append("a comma in numbers")
    if form.time:
        columns = " and ".join(f"`{names[column]}`" for column in form.time)
        parts.append(f"time in {columns} ({TimeForm(form.time_format, form.zone)})")
    if form.names:
        more = f" and {len(form.names) - 3} more" if len(form.names) > 3 else ""
        parts.append(f"{counted(len(form.names), 'sensor')}: {', '.join(form.names[:3])}{more}")
    else:
        parts.append("value in " + ", ".join(f"`{names[column]}`" for column in form.values))
    if form.sensor:
        parts.append("sensor in " + ", ".join(f"`{names[one]}`" for one in form.sensor if isinstance(one, int)))
    return "; ".join(parts)
