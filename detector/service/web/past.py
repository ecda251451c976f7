"""The pages of `detector incidents`: what was unusual in the last days, of a sensor, of an episode. They only read."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

from detector.incidents.history import History, PastEpisode
from detector.service.health import Health
from detector.service.web.answers import Response, Route, json_response, kept
from detector.service.web.page import HEIGHT, WIDTH, number, points, template
from detector.times import SECOND
from detector.wire.incidents import Incident

LISTED: Final = 200
"""Incidents, and episodes, on a page."""
MEMBERS: Final = 20
"""Episodes of an incident that are shown with it."""
LARGE: Final = (900, 220)
"""Of the evidence on an episode's own page, in its own units."""
GAP: Final = 5
"""Usual steps of time between two rows, from which on others are missing between them."""
_MS: Final = 1_000_000


def past_routes(history: History, health: Health) -> dict[str, Route]:
    """`/`: the list; below `/sensors/` the episodes of one, below `/alerts/` one with its evidence; the script."""
    index = kept(partial(_index, history, health))
    script = files("detector.service.web").joinpath("templates/past.js").read_bytes()
    return {
        "/": lambda accept: index(),
        "/sensors/": partial(_sensor, history, health),
        "/alerts/": partial(_alert, history, health),
        "/past.js": lambda accept: Response(200, "text/javascript; charset=utf-8", script),
    }


def _index(history: History, health: Health) -> Response:
    incidents, episodes = history.incidents(), history.episodes()
    return _page(
        health,
        "incidents",
        incidents=[_incident(one) for one in incidents[:LISTED]],
        more_incidents=max(0, len(incidents) - LISTED),
        open=sum(one.event != "closed" for one in incidents),
        episodes=[_row(one) for one in episodes[:LISTED]],
        more_episodes=max(0, len(episodes) - LISTED),
    )


def _sensor(history: History, health: Health, sensor_id: str) -> Response:
    found = history.episodes(sensor_id)
    if not found:
        return json_response(404, {"error": "no episode of this sensor in the last days"})
    return _page(
        health,
        sensor_id,
        episodes=[_row(one) for one in found[:LISTED]],
        more_episodes=max(0, len(found) - LISTED),
    )


def _alert(history: History, health: Health, alert_id: str) -> Response:
    found = history.episode(alert_id)
    if found is None:
        return json_response(404, {"error": "no episode of this id in the last days"})
    return _page(health, found.news.sensor_id, alert=_row(found), evidence=_evidence(found), large=LARGE)


def _page(health: Health, title: str, **values: Any) -> Response:
    nothing = {"incidents": None, "episodes": None, "alert": None, "open": 0, "more_incidents": 0, "more_episodes": 0}
    html = template("past.html").render(
        **{**nothing, **values}, title=title, live=health.live, reasons=health.reasons, width=WIDTH, height=HEIGHT
    )
    return Response(200, "text/html; charset=utf-8", html.encode("utf-8", "backslashreplace"))


def _incident(one: Incident) -> Mapping[str, Any]:
    return {"told": one, "members": one.members[:MEMBERS], "more": one.size - min(len(one.members), MEMBERS)}


def _row(one: PastEpisode) -> Mapping[str, Any]:
    news = one.news
    ended = news.ended_at if news.ended_at is not None else news.seen_at
    return {
        "one": one,
        "news": news,
        "seconds": max(0.0, (ended - news.started_at) / SECOND),
        "open": news.event != "closed",
        "what": None if news.what is None else (news.what.text or news.what.kind),
        "spark": _spark(one),
    }


def _spark(one: PastEpisode) -> str:
    """The first channel's values as points; empty where there is nothing to draw."""
    values = [] if not one.tracks else _numbers(one.tracks[0].values)
    finite = [value for value in values if math.isfinite(value)]
    return points(values, min(finite), max(finite)) if len(finite) > 1 else ""


def _evidence(one: PastEpisode) -> list[Mapping[str, Any]]:
    """What came and what was expected, a chart a channel; `since` and `until`: where in it the episode lies."""
    charts: list[Mapping[str, Any]] = []
    width, height = LARGE
    for track in one.tracks:
        values, expected = _numbers(track.values), _numbers(track.expected)
        finite = [value for value in (*values, *expected) if math.isfinite(value)]
        if len(values) < 2 or not finite:
            continue
        low, high = min(finite), max(finite)
        place = partial(_place, one.times, width)
        charts.append(
            {
                "channel": track.name,
                "value": points(values, low, high, width=width, height=height),
                "expected": points(expected, low, high, width=width, height=height),
                "lowest": number(low),
                "highest": number(high),
                "since": place(one.news.started_at),
                "until": width if one.news.ended_at is None else place(one.news.ended_at),
                "gaps": [width * (row - 0.5) / (len(values) - 1) for row in _gaps(one.times)],
                "detected": place(one.news.detected_at),
                "begin": one.times[0] * _MS,
                "end": one.times[-1] * _MS,
            }
        )
    return charts


def _place(times: Sequence[int], width: int, ns: int) -> float:
    """Where a time lies among the rows, which are drawn at equal distances."""
    row = sum(time * _MS < ns for time in times)
    return width * min(row, len(times) - 1) / (len(times) - 1)


def _gaps(times: Sequence[int]) -> list[int]:
    """Rows before which others are left out: what lies between two messages is in neither of them."""
    steps = [after - before for before, after in pairwise(times)]
    usual = statistics.median(steps)
    return [row for row, step in enumerate(steps, start=1) if step > GAP * usual]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
