"""CSV files as people have them: the same readings of one sensor, written in forty-one ways."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.tiny import ROWS, SECOND, START, values

VALUES: Final = [round(float(value), 2) for value in values(0, ROWS)]
DAY: Final = 86_400
BERLIN: Final = 7_200
"""Seconds that Berlin is ahead of UTC at `START`."""

Write = Callable[[int, float], Sequence[str]]
"""The cells of a row, by the seconds of its time and its value."""


@dataclass(frozen=True)
class File:
    """One way to write the readings. `step` is the time between rows; `gaps` are rows that have no value."""

    name: str
    header: Sequence[str]
    row: Write
    separator: str = ","
    encoding: str = "utf-8"
    line_end: str = "\n"
    before: str = ""
    options: Sequence[str] = ()
    step: int = 1
    gaps: tuple[int, str] | None = None
    sensor: str = "pump"
    rounded: int = 1
    suffix: str = ".csv"
    quoting: int = csv.QUOTE_MINIMAL

    @property
    def file(self) -> str:
        """What the file is called."""
        return f"pump{self.suffix}"

    def content(self, rows: int = ROWS) -> bytes:
        """Its bytes."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.separator, lineterminator=self.line_end, quoting=self.quoting)  # type: ignore[arg-type]
        writer.writerow(self.header)
        for number in range(rows):
            cells = list(self.row(START + number * self.step, VALUES[number]))
            if self.gaps is not None and number % self.gaps[0] == 5:
                cells[-1] = self.gaps[1]
            writer.writerow(cells)
        return (self.before + text.getvalue()).encode(self.encoding)

    def readings(self, rows: int = ROWS) -> list[tuple[str, int, float | None]]:
        """What it says: sensor, ns, value."""
        found = []
        for number in range(rows):
            seconds = START + number * self.step
            missing = self.gaps is not None and number % self.gaps[0] == 5
            found.append(
                (self.sensor, (seconds - seconds % self.rounded) * SECOND, None if missing else VALUES[number])
            )
        return found


def at(pattern: str, zone: int = 0) -> Callable[[int], str]:
    """What writes a time, in a zone that many seconds ahead of UTC."""
    return lambda seconds: (datetime.fromtimestamp(seconds, UTC) + timedelta(seconds=zone)).strftime(pattern)


def pair(pattern: str, zone: int = 0) -> Write:
    """A time and a value."""
    write = at(pattern, zone)
    return lambda seconds, value: (write(seconds), f"{value}")


def german(pattern: str, zone: int = 0) -> Write:
    """The same with a comma in numbers."""
    write = at(pattern, zone)
    return lambda seconds, value: (write(seconds), f"{value}".replace(".", ","))


ISO: Final = "%Y-%m-%d %H:%M:%S"
PLAIN: Final = ("timestamp", "value")
BERLIN_TIME: Final = ("--zone", "Europe/Berlin")

FILES: Final = [
    File("as documented", PLAIN, pair(ISO)),
    File("epoch seconds", PLAIN, lambda seconds, value: (str(seconds), str(value))),
    File("epoch milliseconds", PLAIN, lambda seconds, value: (f"{seconds}000", str(value))),
    File("epoch with a fraction", ("ts", "value"), lambda seconds, value: (f"{seconds}.0", str(value))),
    File("semicolons", PLAIN, pair(ISO), ";"),
    File("tabs", PLAIN, pair(ISO), "\t", suffix=".tsv"),
    File("bars", PLAIN, pair(ISO), "|", suffix=".txt"),
    File("semicolons, decimal comma", PLAIN, german(ISO), ";"),
    File("tabs, decimal comma", PLAIN, german(ISO), "\t"),
    File("commas, decimal comma in quotes", PLAIN, german(ISO)),
    File("a spreadsheet's first line", PLAIN, german(ISO), ";", before="sep=;\r\n", line_end="\r\n"),
    File("day first, dots", PLAIN, pair("%d.%m.%Y %H:%M:%S")),
    File("day first, slashes", PLAIN, pair("%d/%m/%Y %H:%M:%S")),
    File("month first", PLAIN, pair("%m/%d/%Y %I:%M:%S %p")),
    File("day first, as asked", PLAIN, pair("%d-%m-%Y %H:%M:%S"), options=("--time-format", "day-first")),
    File("a month's name", PLAIN, pair("%d-%b-%Y %H:%M:%S")),
    File("a pattern", PLAIN, pair("%y%j-%H%M%S"), options=("--time-format", "%y%j-%H%M%S")),
    File("date only", ("Date", "value"), pair("%Y-%m-%d"), step=DAY, rounded=DAY),
    File("date only, day first", ("Datum", "Wert"), german("%d.%m.%Y"), ";", step=DAY, rounded=DAY),
    File("no seconds", PLAIN, pair("%Y-%m-%d %H:%M"), step=60, rounded=60),
    File("slashes, year first", PLAIN, pair("%Y/%m/%d %H:%M:%S")),
    File("compact", PLAIN, pair("%Y%m%dT%H%M%SZ")),
    File("digits alone", PLAIN, pair("%Y%m%d%H%M%S")),
    File("+0000", PLAIN, pair("%Y-%m-%dT%H:%M:%S+0000")),
    File("+0200", PLAIN, pair("%Y-%m-%dT%H:%M:%S+0200", BERLIN)),
    File("UTC", PLAIN, pair("%Y-%m-%d %H:%M:%S UTC")),
    File("a fraction with a comma", PLAIN, german("%Y-%m-%d %H:%M:%S,000"), ";"),
    File("local time", PLAIN, pair(ISO, BERLIN), options=BERLIN_TIME),
    File("local time, day first", ("Zeit", "Wert"), german("%d.%m.%Y %H:%M:%S", BERLIN), ";", options=BERLIN_TIME),
    File("Latin-1", ("Zeit", "Größe", "Wert"), lambda s, v: (at(ISO)(s), "°C", f"{v}"), ";", "latin-1",
         options=("--encoding", "latin-1")),
    File("UTF-16", PLAIN, pair(ISO), "\t", "utf-16"),
    File("UTF-8 with a mark", PLAIN, pair(ISO), ";", "utf-8-sig"),
    File("capitals", ("TIMESTAMP", "Value"), pair(ISO)),
    File("time", ("time", "value"), pair(ISO)),
    File("dateTime, one other column", ("DateTime", "temperature [°C]"), pair(ISO)),
    File("date and time", ("Date", "Time", "Value"), lambda s, v: (*at(ISO)(s).split(), str(v))),
    File("NA", PLAIN, pair(ISO), gaps=(50, "NA")),
    File("NaN", PLAIN, pair(ISO), ";", gaps=(50, "NaN")),
    File("empty cells, all quoted", PLAIN, pair(ISO), gaps=(50, ""), quoting=csv.QUOTE_ALL),
    File("a column of tags", ("TagName", "Timestamp", "Value"), lambda s, v: ("TI 4711", at(ISO)(s), str(v)),
         sensor="TI 4711"),
    File("other columns", ("id", "Time (UTC)", "unit", "value", "quality"),
         lambda s, v: (str(s % 1000), at(ISO)(s), "bar", str(v), "good")),
]  # fmt: skip
