"""What `detector prove` found, as a table for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from detector.engine.wording import number
from detector.errors import counted
from detector.reports.proving import KINDS, Kind, Proved, Told, Untold
from detector.reports.text import duration

SHOWN: Final = 100
"""Lines of the table; of the others the number is told."""
UNTOLD: Final[dict[Untold, str]] = {
    "too small": "not told",
    "no meaning": "normal",
    "off": "off",
    "alone": "alone",
}
_NOTES: Final[dict[Untold, str]] = {
    "no meaning": "normal: a value that stays where it is changes nothing here.",
    "off": "off: readings.silence_after is null, so that nobody is told of silence.",
    "alone": "alone: silence is told where others are heard, and the recording has one sensor.",
}
HOUR: Final = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Proof:
    """All that was tried. `known`: sensors that are watched; `sampled`: whether those tried are a sample of them.

    `within`: rows a trial may take. `cut`: older readings were left out for their number.
    """

    lines: Sequence[Proved]
    known: int
    sampled: bool
    within: int
    cut: bool = False

    @property
    def sensors(self) -> int:
        """Sensors that were tried."""
        return len({line.sensor_id for line in self.lines})

    @property
    def blind(self) -> list[Proved]:
        """What is as good as unwatched."""
        return [line for line in self.lines if line.blind is not None]

    @property
    def several(self) -> bool:
        """Whether a sensor has several channels."""
        return len(self.lines) > self.sensors


def named(line: Proved, proof: Proof) -> str:
    """The sensor, and the channel where there are several."""
    return f"{line.sensor_id} {line.channel}" if proof.several else line.sensor_id


def size(line: Proved, kind: Kind) -> str:
    """The smallest fault: its size, or how long it lasts; or why it is not told."""
    found = line.found.get(kind)
    if found is None:
        return "-"
    if not isinstance(found, Told):
        return UNTOLD[found]
    if found.spreads is None:
        return duration(found.time)
    if kind == "drift":
        return number(per_hour(line, found))
    return number(found.spreads * line.spread)


def times(line: Proved, kind: Kind) -> str:
    """A step or a drift in units of the sensor's usual spread; of a drift, in 1 000 readings."""
    found = line.found.get(kind)
    return f"{found.spreads:g}" if isinstance(found, Told) and found.spreads is not None else ""


def after(line: Proved, kind: Kind) -> str:
    """After how long a step or a drift is told."""
    found = line.found.get(kind)
    return duration(found.time) if isinstance(found, Told) else ""


def per_hour(line: Proved, found: Told) -> float:
    """A drift in the unit of the values."""
    if found.spreads is None or not line.interval:
        return 0.0
    return found.spreads * line.spread / 1000 * HOUR / line.interval


def table_of(proof: Proof) -> Table:
    """A line a sensor, or a channel where there are several; those that are as good as unwatched come last."""
    title = f"The smallest fault that would be told ({headline(proof)})"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("sensor", overflow="fold")
    for column in ("step", "x usual", "told in", "drift/h", "told in", "stuck", "silent"):
        table.add_column(column, justify="right", no_wrap=True)
    ordered = in_order(proof)
    for line in ordered[:SHOWN]:
        cells = (size(line, "step"), times(line, "step"), after(line, "step"), size(line, "drift"))
        style = "bold red" if line.blind is not None else None
        ends = (after(line, "drift"), size(line, "stuck"), size(line, "dropout"))
        table.add_row(named(line, proof), *cells, *ends, style=style)
    if len(ordered) > SHOWN:
        table.add_row(f"and {len(ordered) - SHOWN} more", *("" for _ in range(7)))
    return table


def headline(proof: Proof) -> str:
    """How many sensors these are of how many."""
    if proof.sampled:
        return f"a sample: {proof.sensors} of {counted(proof.known, 'sensor')}"
    return counted(proof.sensors, "sensor") + ("" if proof.sensors == proof.known else f" of {proof.known:,}")


def in_order(proof: Proof) -> list[Proved]:
    """By name, those that are as good as unwatched last."""
    return sorted(proof.lines, key=lambda line: line.blind is not None)


def remarks(proof: Proof) -> list[str]:
    """What a reader of the table has to know."""
    told = [f"As good as unwatched: {named(line, proof)}: {line.blind}." for line in proof.blind]
    if len(told) > SHOWN:
        told = [*told[:SHOWN], f"and {len(told) - SHOWN} more."]
    told.append(
        f"Told means: in 4 of 5 quiet places of the recording, within {proof.within:,} readings. "
        "x usual: in units of the sensor's usual spread."
    )
    told += [line for why, line in _NOTES.items() if any(why in one.found.values() for one in proof.lines)]
    if short := [line for line in proof.lines if line.places and (line.within < proof.within or line.places < 5)]:
        least = min(short, key=lambda line: (line.places, line.within))
        told.append(
            f"{counted(len(short), 'line')} had less room between episodes; the least: "
            f"{counted(least.places, 'place')} of {least.within:,} readings ({named(least, proof)})."
        )
    if proof.cut:
        told.append("Of sensors with very many readings the newest ones were used.")
    if proof.sampled:
        told.append("--sensors takes a number or names such as 'pump-*'; --all tries every sensor.")
    return told


def summary(proof: Proof) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "sensors": proof.sensors,
        "known": proof.known,
        "sample": proof.sampled,
        "within": proof.within,
        "unwatched": len(proof.blind),
        "results": [_line(line) for line in proof.lines],
    }


def _line(line: Proved) -> dict[str, Any]:
    return {
        "sensor_id": line.sensor_id,
        "channel": line.channel,
        "readings": line.readings,
        "interval_seconds": line.interval / 1e9,
        "spread": float(f"{line.spread:.6g}"),
        "threshold": None if line.threshold is None else float(f"{line.threshold:.6g}"),
        "places": line.places,
        "within": line.within,
        **{kind: _found(line, kind) for kind in KINDS},
        "unwatched": line.blind,
    }


def _found(line: Proved, kind: Kind) -> dict[str, Any] | None:
    found = line.found.get(kind)
    if found is None:
        return None
    if not isinstance(found, Told):
        return {"told": False, "why": found}
    out: dict[str, Any] = {"told": True, "readings": found.rows, "seconds": found.time / 1e9}
    if found.spreads is not None:
        out["spreads"] = found.spreads
        amount = per_hour(line, found) if kind == "drift" else found.spreads * line.spread
        out["an_hour" if kind == "drift" else "size"] = float(f"{amount:.6g}")
    return out
