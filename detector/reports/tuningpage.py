"""The page of `tune`: what each budget would have cost, and pictures of the episodes that it adds to a stricter one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from detector import __version__
from detector.config.values import PERIODS
from detector.reports.alertpicture import ShownAlert, draw_readings
from detector.reports.scoreboard import EpisodeSpan
from detector.reports.text import duration
from detector.reports.tuning import Addition, Choice, Cost, additions, judged, spoken
from detector.times import rfc3339

PICTURES: Final = 3
"""Of each budget."""


@dataclass(frozen=True, slots=True)
class _Part:
    """An addition with its worst episodes, each with a PNG in base64 where its messages show rows."""

    more: Addition
    shown: list[tuple[EpisodeSpan, str]]

    @property
    def hidden(self) -> int:
        return len(self.more.episodes) - len(self.shown)


def page(costs: Sequence[Cost], choice: Choice | None, data: str) -> str:
    """The page as HTML, of costs with alerts, most alarms first. Everything that came from a stream is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("detector.reports", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    more = additions(costs)
    parts = [_part(cost, one) for cost, one in zip(costs, more, strict=False) if one.episodes]
    return environment.get_template("tune.html").render(
        data=data, costs=costs, rows=list(zip(costs, [*more, None], strict=True)), choice=choice, parts=parts,
        first=costs[0].result, week=PERIODS["week"], version=__version__,
        spoken=spoken, judged=judged, duration=duration, time=_time,
    )  # fmt: skip


def _part(cost: Cost, more: Addition) -> _Part:
    shown = more.episodes[:PICTURES]
    messages: dict[str, list[ShownAlert]] = {one.alert_id: [] for one in shown}
    for alert in msgspec.json.Decoder(ShownAlert).decode_lines(b"\n".join(cost.result.alerts)):
        if alert.alert_id in messages:
            messages[alert.alert_id].append(alert)
    return _Part(more, [(one, _picture(messages[one.alert_id])) for one in shown])


def _picture(messages: Sequence[ShownAlert]) -> str:
    rows = [one for one in messages if one.window is not None]
    return base64.b64encode(draw_readings(messages, rows[-1], whole=True)).decode() if rows else ""


def _time(ns: int | None) -> str:
    """A time to the second, for people."""
    return "-" if ns is None else rfc3339(ns - ns % 10**9).replace("T", " ").replace("Z", "")
