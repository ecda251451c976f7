"""What was understood of some records, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from detector.errors import counted
from detector.reports.text import duration
from detector.reports.understood import Mending, Understood
from detector.times import rfc3339
from detector.wire.csv_form import form_of, told

if TYPE_CHECKING:
    from rich.table import Table

LINE_FEED: Final = b"\n"
_SHOWN: Final = 10
"""Sensors that are shown."""
_NAMED: Final = 5
"""Tags of no machine that are named."""


def table_of(seen: Understood, channels: Sequence[str], *, machines: bool = False) -> Table:
    """The sensors with the most readings, or `machines` with the most rows: times, interval, range of each channel."""
    from rich.table import Table

    table = Table()
    about = ("machine", "rows") if machines else ("sensor", "readings")
    for number, name in enumerate((*about, "missing", "from, to", "interval", *channels)):
        table.add_column(name, justify="right" if number else "left")
    table.columns[0].overflow = "fold"
    table.columns[3].no_wrap = True
    ranked = sorted(seen.sensors.items(), key=lambda item: (-item[1].readings, item[0]))
    for sensor, one in ranked[:_SHOWN]:
        ranges = ["-" if span is None else f"{span[0]:.6g} .. {span[1]:.6g}" for span in one.ranges]
        interval = "-" if one.interval is None else duration(one.interval)
        times = f"{rfc3339(min(one.times))}\n{rfc3339(max(one.times))}"
        table.add_row(sensor, str(one.readings), str(one.missing), times, interval, *ranges)
    return table


def lines_of(seen: Understood, mending: Mending | None, *, machines: bool = False) -> Iterator[str]:
    """What the table leaves: how much was read and as what, what was rejected and why, and what would mend it."""
    kind = "machine" if machines else "sensor"
    if len(seen.sensors) > _SHOWN:
        yield f"and {len(seen.sensors) - _SHOWN} more {kind}s"
    rejected = sum(seen.rejects.values())
    yield (
        f"{counted(seen.records, 'record')}: {counted(seen.readings, 'reading')} of "
        f"{counted(len(seen.sensors), kind)}, {counted(rejected, 'record')} rejected"
    )
    form = None if seen.header is None else form_of(seen.header)
    zone = "UTC"
    if seen.header is not None and form is not None:
        yield f"CSV: {told(seen.header.partition(LINE_FEED)[0], form)}"
        zone = form.zone or zone
    yield f"times that name no zone are {zone}"
    if seen.held:
        yield f"{counted(seen.held, 'row')} at the end without some of the tags, which may yet come"
    if seen.stray:
        more = len(seen.stray) - _NAMED
        named = ", ".join([tag for tag, _ in seen.stray.most_common(_NAMED)] + ([f"{more} more"] if more > 0 else []))
        yield f"{counted(seen.stray.total(), 'reading')} of tags of no machine, which are left out: {named}"
    if repeated := seen.repeated + sum(one.repeated for one in seen.sensors.values()):
        whose = "tag" if machines else "sensor"
        yield f"{counted(repeated, 'reading')} with the time of another of that {whose}: the first of each time counts"
    late = {sensor: one.late for sensor, one in seen.sensors.items() if one.late}
    if late:
        what = "row" if machines else "reading"
        whose = f"{counted(len(late), kind)}, such as {next(iter(late))}"
        yield (
            f"{counted(sum(late.values()), what)} of {whose}, after later ones: they are dropped as late, and a "
            "recording with too many is refused. Sort it by time, or set readings.window.allowed_lateness"
        )
    for reason, count in seen.rejects.most_common():
        yield f"rejected  {reason:<22} {count:>5}   {seen.examples[reason]}"
    if mending is not None:
        yield f"these lines of the configuration would mend {mending.mended} of {mending.of} of these:"
        yield from (f"    {line}" for line in mending.lines())
        if mending.doubtful:
            yield "none of their dates tells whether the day or the month comes first: month-first, if the month does"
    elif rejected and seen.header is None:
        yield "no settings were found that would mend these; docs/messages.md says what a reading is"
