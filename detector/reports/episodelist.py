"""The episodes that a stream of alerts tells of, a line or two each: when, whose, what, how bad, over or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detector.reports.text import duration, moment
from detector.times import parse_time, recorded_time
from detector.wire.documents import decoder_of
from detector.wire.incidents import MAX_NUMBER

UNBOUNDED = 10_000
"""Columns of what is no terminal: a line is one there, however long."""
SHORT = 8
"""Characters of an id that are shown, and that `inspect --alert` takes; more where two would be alike."""


class ListedWhat(msgspec.Struct):
    """What seems to be wrong."""

    kind: str
    text: str


class ListedAlert(msgspec.Struct, kw_only=True):
    """The part of an alert message that is listed; what other versions add to one is ignored."""

    alert_id: str
    sequence: Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
    event: str
    reason: str = "anomaly"
    muted: bool = False
    sensor_id: str
    severity: str
    started_at: str
    detected_at: str
    ended_at: str | None = None
    close_reason: str | None = None
    peak_score: float
    what: ListedWhat | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which episodes: of a sensor, None: of all; that are open; detected at most so long, ns, before the newest."""

    sensor: str | None = None
    open: bool = False
    since: int | None = None


_decode: Final = decoder_of(ListedAlert)


def listed_alert(message: bytes) -> ListedAlert:
    """Read a message of a stream of alerts. Raises ValueError where it is none."""
    alert = _decode(message)
    for time in (alert.started_at, alert.detected_at, alert.ended_at):
        if time is not None:
            recorded_time(time)
    return alert


def episodes_of(alerts: Iterable[ListedAlert], wanted: Wanted) -> list[ListedAlert]:
    """The newest message of each episode that is wanted, in order of detection."""
    newest: dict[str, ListedAlert] = {}
    for alert in alerts:
        known = newest.get(alert.alert_id)
        if known is None or alert.sequence > known.sequence:
            newest[alert.alert_id] = alert
    found = sorted(newest.values(), key=lambda one: (parse_time(one.detected_at), one.sensor_id, one.alert_id))
    if wanted.since is not None and found:
        begin = parse_time(found[-1].detected_at) - wanted.since
        found = [one for one in found if parse_time(one.detected_at) >= begin]
    if wanted.sensor is not None:
        found = [one for one in found if one.sensor_id == wanted.sensor]
    return [one for one in found if one.event != "closed"] if wanted.open else found


def listing(episodes: Sequence[ListedAlert], console: Console) -> RenderableType:
    """A line an episode where the console has the room for all of them, else two, of which the second says what."""
    table = _table(episodes)
    needed = Measurement.get(console, console.options.update(width=UNBOUNDED), table).maximum
    return table if needed <= console.width else Group(*_pairs(episodes))


def _pairs(episodes: Sequence[ListedAlert]) -> Iterator[RenderableType]:
    """The sensor stands last, where a long id pushes nothing aside."""
    length = _telling([one.alert_id for one in episodes])
    rows = [("id", "began (UTC)", "severity", "lasted", "verdict", "sensor")] + [
        (one.alert_id[:length], _began(one), _severity(one), _lasted(one) or "open", one.verdict or "", one.sensor_id)
        for one in episodes
    ]
    judged = any(one.verdict for one in episodes)
    kept = [column for column in range(len(rows[0])) if judged or rows[0][column] != "verdict"]
    widths = [max(len(row[column]) for row in rows) for column in kept[:-1]]
    for number, row in enumerate(rows):
        cells = [row[column].ljust(width) for column, width in zip(kept, widths, strict=False)]
        yield Text("  ".join([*cells, row[-1]]), style="" if number else "bold", overflow="fold")
        if number:
            yield Padding(Text(_what(episodes[number - 1])), (0, 0, 0, 4))


def _table(episodes: Sequence[ListedAlert]) -> Table:
    """A line an episode."""
    length = _telling([one.alert_id for one in episodes])
    table = Table(title_justify="left", box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for column in ("began (UTC)", "sensor"):
        table.add_column(column, no_wrap=True)
    for column in ("what", "severity", "state", "verdict"):
        table.add_column(column)
    for one in episodes:
        table.add_row(
            one.alert_id[:length], _began(one), one.sensor_id, _what(one), _severity(one), _state(one),
            one.verdict or "",
        )  # fmt: skip
    return table


def as_json(episodes: Sequence[ListedAlert]) -> bytes:
    """The same as JSON lines."""
    return b"".join(msgspec.json.encode(_plain(one)) + b"\n" for one in episodes)


def _plain(one: ListedAlert) -> dict[str, Any]:
    return {**msgspec.to_builtins(one), "open": one.event != "closed"}


def _what(one: ListedAlert) -> str:
    if one.what is not None:
        return one.what.text
    return "no readings" if one.reason == "silent" else f"score {one.peak_score:.3g}"


def _began(one: ListedAlert) -> str:
    return moment(parse_time(one.started_at)).replace("T", " ").removesuffix("Z")


def _severity(one: ListedAlert) -> str:
    return f"{one.severity}{', muted' * one.muted}"


def _state(one: ListedAlert) -> str:
    lasted = _lasted(one)
    return "open" if lasted is None else f"over after {lasted}"


def _lasted(one: ListedAlert) -> str | None:
    """None: it is open."""
    if one.event != "closed" or one.ended_at is None:
        return None
    return duration(max(parse_time(one.ended_at) - parse_time(one.started_at), 0))


def _telling(ids: Sequence[str]) -> int:
    """How many characters tell all ids apart, at least `SHORT`."""
    length = SHORT
    while len({one[:length] for one in ids}) < len(set(ids)):
        length += 1
    return length
