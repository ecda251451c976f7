"""What was understood of some records, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from detector.reports.text import counted, duration
from detector.reports.understood import Mending, Understood
from detector.times import rfc3339
from detector.wire.csv_form import form_of, told

if TYPE_CHECKING:
    from rich.table import Table

LINE_FEED: Final = b"\n"
_SHOWN: Final = 10
"""Sensors that are shown."""


def table_of(seen: Understood, channels: Sequence[str]) -> Table:
    """The sensors with the most readings: times, interval, and the range of each channel."""
    from rich.table import Table

    table = Table()
    for name in ("sensor", "readings", "missing", "from, to", "interval", *channels):
        table.add_column(name, justify="left" if name == "sensor" else "right")
    table.columns[0].overflow = "fold"
    table.columns[3].no_wrap = True
    ranked = sorted(seen.sensors.items(), key=lambda item: (-item[1].readings, item[0]))
    for sensor, one in ranked[:_SHOWN]:
        ranges = ["-" if span is None else f"{span[0]:.6g} .. {span[1]:.6g}" for span in one.ranges]
        interval = "-" if one.interval is None else duration(one.interval)
        times = f"{rfc3339(min(one.times))}\n{rfc3339(max(one.times))}"
        table.add_row(sensor, str(one.readings), str(one.missing), times, interval, *ranges)
    return table


def lines_of(seen: Understood, mending: Mending | None) -> Iterator[str]:
    """What the table leaves: how much was read and as what, what was rejected and why, and what would mend it."""
    if len(seen.sensors) > _SHOWN:
        yield f"and {len(seen.sensors) - _SHOWN} more sensors"
    rejected = sum(seen.rejects.values())
    yield (
        f"{counted(seen.records, 'record')}: {counted(seen.readings, 'reading')} of "
        f"{counted(len(seen.sensors), 'sensor')}, {counted(rejected, 'record')} rejected"
    )
    form = None if seen.header is None else form_of(seen.header)
    zone = "UTC"
    if seen.header is not None and form is not None:
        yield f"CSV: {told(seen.header.partition(LINE_FEED)[0], form)}"
        zone = form.zone or zone
    yield f"times that name no zone are {zone}"
    if repeated := sum(one.repeated for one in seen.sensors.values()):
        yield f"{counted(repeated, 'reading')} with the time of another of that sensor: the first of each time counts"
    for reason, count in seen.rejects.most_common():
        yield f"rejected  {reason:<22} {count:>5}   {seen.examples[reason]}"
    if mending is not None:
        yield f"these lines of the configuration would mend {mending.mended} of {mending.of} of these:"
        yield from (f"    {line}" for line in mending.lines())
    elif rejected and seen.header is None:
        yield "no settings were found that would mend these; docs/messages.md says what a reading is"
