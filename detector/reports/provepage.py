"""The page of `detector prove`: one HTML file that needs nothing else, with examples of faults that would be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from detector import __version__
from detector.errors import counted
from detector.reports.page import About, environment
from detector.reports.plots import SHOWN_CHANNELS, Picture, draw
from detector.reports.provetext import Proof, after, headline, in_order, named, remarks, size, times
from detector.reports.proving import Example, Kind, Proved, Told
from detector.reports.scoreboard import Label
from detector.times import rfc3339

ROWS: Final = 500
"""Lines of the table; of the others the number is told."""
_CALLED: Final[dict[Kind, str]] = {"step": "A step", "drift": "A drift", "stuck": "A value that sticks"}


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    blind: str | None
    step: tuple[str, str, str]
    drift: tuple[str, str, str]
    stuck: str
    dropout: str


@dataclass(frozen=True, slots=True)
class _Shown:
    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class _Card:
    name: str
    shown: list[_Shown]


def page(proof: Proof, about: About) -> str:
    """The page as HTML. Everything that came from a stream or a file is escaped."""
    lines = in_order(proof)
    drawn = [card for line in proof.lines if (card := _card(line, proof, about)).shown]
    return (
        environment()
        .get_template("prove.html")
        .render(
            proof=proof,
            about=about,
            version=__version__,
            headline=headline(proof),
            lines=[_line(line, proof) for line in lines[:ROWS]],
            more=max(0, len(lines) - ROWS),
            remarks=[line for line in remarks(proof) if not line.startswith("As good as")],
            cards=drawn,
            more_channels=max(0, len(about.channels) - SHOWN_CHANNELS),
        )
    )


def _line(line: Proved, proof: Proof) -> _Line:
    silent = size(line, "dropout")
    return _Line(
        named(line, proof), line.blind, _three(line, "step"), _three(line, "drift"), size(line, "stuck"), silent
    )


def _three(line: Proved, kind: Kind) -> tuple[str, str, str]:
    return size(line, kind), times(line, kind), after(line, kind)


def _card(line: Proved, proof: Proof, about: About) -> _Card:
    """The examples of one line of the table."""
    shown = []
    for kind, called in _CALLED.items():
        found = line.found.get(kind)
        if isinstance(found, Told) and found.example is not None:
            told = "" if found.spreads is None else f" of {size(line, kind)}{' an hour' * (kind == 'drift')}"
            title = f"{called}{told}: told after {counted(found.example.rows, 'reading')}"
            shown.append(_Shown(title, _drawn(line, found.example, about)))
    return _Card(named(line, proof), shown)


def _drawn(line: Proved, example: Example, about: About) -> str:
    begin, end = (rfc3339(time) for time in example.fault)
    label = Label(line.sensor_id, begin, end)
    return draw(Picture(example.curve, about.channels, example.episodes, [label], int(example.curve.times[-1])))
