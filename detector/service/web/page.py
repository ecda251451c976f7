"""`/` and `/status.json`: the status as people and programs read it. Everything that came from a stream is escaped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import jinja2
import msgspec

from detector.arrays import F64
from detector.engine.overview import SensorView
from detector.service.health import Health
from detector.service.logs import Problem, RecentProblems
from detector.service.web.answers import Response, Route, kept
from detector.service.web.status import Board, Sensor, Status
from detector.times import rfc3339
from detector.wire.incidents import AlertNews, read_alert

WIDTH, HEIGHT = 320, 84
"""Of a sensor's chart, in its own units; the page scales it."""
TREND_WIDTH, TREND_HEIGHT = 320, 40
UNWATCHED: Final = 20
"""This many sensors that are not watched are on the page; `/status.json` has more of them."""
STALE_SECONDS: Final = 10.0
"""A status older than this is said to be old."""
OLD_SECONDS: Final = 3600.0
"""Readings that are older when they are dealt with are those of a recording, or of a backlog."""
NANOSECONDS: Final = 1e9
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))
DASH: Final = "\N{EN DASH}"


class Line(NamedTuple):
    """One channel of a chart: points as SVG has them."""

    channel: str
    value: str
    expected: str
    lowest: str
    highest: str


class Chart(NamedTuple):
    """A sensor's window, and the times of its ends. `since`, `until`: where in it the fault lies; None: nowhere."""

    lines: tuple[Line, ...]
    since: float | None
    until: float
    begin: str
    end: str


def page_routes(
    board: Board, health: Health, problems: RecentProblems, clock: Callable[[], float] = time.time
) -> dict[str, Route]:
    """Return the routes of the status. They read what the main loop has put on the board, and nothing else of it."""

    def page() -> Response:
        html = render(board.status, health, problems.entries, clock())
        return Response(200, "text/html; charset=utf-8", html.encode("utf-8", "backslashreplace"))

    def status() -> Response:
        body = as_json(board.status, health, problems.entries)
        return Response(200, "application/json; charset=utf-8", body)

    kept_page, kept_status = kept(page), kept(status)
    return {"/": lambda accept: kept_page(), "/status.json": lambda accept: kept_status()}


def render(status: Status | None, health: Health, problems: Sequence[Problem], now: float) -> str:
    """The page. `now`: wall-clock seconds."""
    return template("status.html").render(
        status=status,
        reasons=health.reasons,
        live=health.live,
        age=None if status is None else max(0.0, now - status.at),
        stale=STALE_SECONDS,
        episodes=[] if status is None else [_episode(one, status) for one in status.episodes],
        sensors=[] if status is None else [_row(one) for one in status.worst],
        unwatched=[] if status is None else status.unwatched[:UNWATCHED],
        trends={} if status is None else {kind: trend(rates) for kind, rates in status.rates.items()},
        closed=[] if status is None else list(_closed(status.closed)),
        old_seconds=OLD_SECONDS,
        problems=list(reversed(problems)),
        width=WIDTH,
        height=HEIGHT,
        trend_width=TREND_WIDTH,
        trend_height=TREND_HEIGHT,
    )


def as_json(status: Status | None, health: Health, problems: Sequence[Problem]) -> bytes:
    """The status as JSON; numbers that are not known are null."""
    body: dict[str, Any] = {"ready": health.ready, "live": health.live, "reasons": health.reasons}
    if status is not None:
        body |= {
            "at": rfc3339(round(status.at * NANOSECONDS)),
            "started": rfc3339(round(status.started * NANOSECONDS)),
            "version": status.setup.version,
            "backend": status.setup.backend,
            "configuration": {"version": status.setup.configuration, "last_reload_successful": status.setup.reloaded},
            "models": dict(status.setup.models),
            "inputs": dict(status.inputs),
            "per_second": {kind: rates[-1] for kind, rates in status.rates.items()},
            "alerts": status.alerts,
            "budget_ratio": dict(status.budget_ratios),
            "latency_seconds": {
                "event": status.event_latency,
                "broker": status.commit_latency,
                "commit": status.commit_seconds,
            },
            "lag": status.lag,
            "sensors": {"known": status.sensors, "warming": status.warming, "relearning": status.relearning},
            "unwatched": {
                "by_reason": dict(status.unwatched_by_reason),
                "sensors": [
                    {
                        "kind": one.kind,
                        "sensor_id": one.sensor_id,
                        "partition": one.partition.number,
                        "reason": one.reason,
                    }
                    for one in status.unwatched
                ],
            },
            "open_episodes": status.open_episodes,
            "partitions": status.partitions,
            "episodes": [_announcements(one) for one in status.episodes],
            "worst": [_announcements(one) for one in status.worst],
        }
    body["problems"] = list(problems)
    # A sensor id may hold half a surrogate pair, which UTF-8 cannot.
    return msgspec.json.format(msgspec.json.encode(_encodable(msgspec.to_builtins(body))), indent=2) + b"\n"


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def _announcements(one: Sensor) -> dict[str, Any]:
    view, episode = one.view, one.view.episode
    told: dict[str, Any] = {
        "kind": one.kind,
        "sensor_id": view.sensor_id,
        "partition": one.partition.number,
        "score": view.score,
        "threshold": view.threshold,
        "time": _time(int(view.times[-1])) if len(view.times) else None,
        "values": view.values[-1].tolist() if len(view.values) else None,
        "expected": None if view.expected is None else view.expected[-1].tolist(),
    }
    if episode is not None:
        told["episode"] = {
            "alert_id": episode.alert_id,
            "reason": episode.reason,
            "severity": episode.severity,
            "started_at": rfc3339(episode.started_at),
            "detected_at": rfc3339(episode.detected_at),
            "threshold": episode.threshold,
            "peak_score": episode.peak,
            "muted": episode.muted,
            "what": None if episode.what is None else {"kind": episode.what.kind, "text": episode.what.text},
        }
    return told


def _episode(one: Sensor, status: Status) -> Mapping[str, Any]:
    return {"one": one, "view": one.view, "episode": one.view.episode, "chart": chart(one.view, status.setup.channels)}


def _closed(messages: Sequence[bytes]) -> Iterator[AlertNews]:
    """What the alerts say of episodes that are over."""
    for message in messages:
        with suppress(ValueError):
            news = read_alert(message)
            if news.event == "closed":
                yield news


def _row(one: Sensor) -> Mapping[str, Any]:
    view = one.view
    ratio = view.score / view.threshold if view.threshold > 0 else math.nan
    return {
        "kind": one.kind,
        "sensor_id": view.sensor_id,
        "score": view.score,
        "threshold": view.threshold,
        "percent": min(100.0, 50.0 * ratio) if math.isfinite(ratio) else 0.0,
        "above": ratio >= 1,
        "open": view.episode is not None,
        "values": [number(value) for value in view.values[-1]] if len(view.values) else [],
        "expected": [] if view.expected is None else [number(value) for value in view.expected[-1]],
        "time": _time(int(view.times[-1])) if len(view.times) else DASH,
    }


def chart(view: SensorView, channels: Sequence[str]) -> Chart | None:
    """The window of a sensor: values as they came and what the model expects in their place. None: nothing to draw."""
    if len(view.times) < 2:
        return None
    lines = []
    for at, channel in enumerate(channels[: view.values.shape[1]]):
        values = view.values[:, at]
        expected = None if view.expected is None else view.expected[:, at]
        both = values if expected is None else [*values.tolist(), *expected.tolist()]
        finite = [value for value in both if math.isfinite(value)]
        if not finite:
            continue
        low, high = min(finite), max(finite)
        lines.append(
            Line(
                channel=channel,
                value=points(values, low, high),
                expected="" if expected is None else points(expected, low, high),
                lowest=number(low),
                highest=number(high),
            )
        )
    since, until = None, float(WIDTH)
    episode, last = view.episode, len(view.times) - 1
    if episode is not None and episode.reason == "anomaly":
        since = WIDTH * min(int((view.times < episode.started_at).sum()), last) / last
        if episode.until is not None:
            until = max(WIDTH * max(int((view.times <= episode.until).sum()) - 1, 0) / last, since)
    return Chart(tuple(lines), since, until, _time(int(view.times[0])), _time(int(view.times[-1]))) if lines else None


def points(values: F64 | Sequence[float], low: float, high: float, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """`x,y` pairs for a polyline over the whole width, `low` at the bottom; what is not finite is left out."""
    margin, last = 4.0, max(len(values) - 1, 1)
    span = (high - low) or 1.0
    pairs = (
        (width * at / last, margin + (height - 2 * margin) * (1 - (float(value) - low) / span))
        for at, value in enumerate(values)
        if math.isfinite(value)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def trend(rates: Sequence[float]) -> str:
    """A throughput over time as points; empty as long as there is nothing to compare."""
    if len(rates) < 2:
        return ""
    return points(rates, 0.0, max(*rates, 1e-9), width=TREND_WIDTH, height=TREND_HEIGHT)


def number(value: float | int | None) -> str:
    """Four digits, as a person writes them; whole numbers of Python in full."""
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or not math.isfinite(value):
        return DASH
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    if value == 0 or 1e-3 <= abs(value) < 1000:
        text = f"{value:.4g}"
        return "0" if text == "-0" else text
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """A time span in the unit a person would choose."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 1.5 * size), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def _time(ns: int) -> str:
    """Event time to the second, as on a clock."""
    text = rfc3339(ns)
    return f"{text[:10]} {text[11:19]}"


@cache
def template(name: str) -> jinja2.Template:
    """A page's template, with the filters that all of them use."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("detector.service.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "ratio": lambda value: f"{value:.0f}" if value >= 10 else f"{value:.2g}",
        "duration": duration,
        "time": _time,
        "path": lambda text: quote(text, safe="", errors="surrogateescape"),
        "clock": lambda seconds: _time(round(seconds * NANOSECONDS)),
    }
    return environment.get_template(name)
