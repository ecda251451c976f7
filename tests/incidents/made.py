"""Alerts made by hand, as the detector publishes them."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from detector.incidents.book import Book, Rules
from detector.incidents.groups import Groups
from detector.incidents.state import State
from detector.times import SECOND, rfc3339
from detector.wire.alerts import Alert, AlertModel, AlertSource, AlertWindow, encode_alert
from detector.wire.incidents import AlertNews, Incident, IncidentSource, read_alert

START = 1_795_341_600 * SECOND
MINUTE = 60 * SECOND
SOURCE = IncidentSource(stream="anomaly-alerts", partition=0, offset=0)


def alert_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def alert(sensor: str, at: float, event: str = "opened", *, sequence: int | None = None, **fields: Any) -> Alert:
    """An alert of the episode of a sensor that began `at` s after the start; `seen` s: what the message is of."""
    seen = fields.pop("seen", at + 10)
    rows = [int((START + (seen - 99 + row) * SECOND) // 1_000_000) for row in range(100)]
    numbers: list[float | None] = [1.0] * 100
    found: dict[str, Any] = {
        "alert_id": alert_id(fields.pop("episode", sensor)),
        "sequence": {"opened": 0, "updated": 1, "closed": 2}[event] if sequence is None else sequence,
        "event": event,
        "kind": "readings",
        "reason": "anomaly",
        "sensor_id": sensor,
        "severity": "warning",
        "started_at": rfc3339(START + round(at * SECOND)),
        "detected_at": rfc3339(START + round((at + 10) * SECOND)),
        "ended_at": rfc3339(START + round(seen * SECOND)) if event == "closed" else None,
        "close_reason": "recovered" if event == "closed" else None,
        "score": 4.0,
        "peak_score": 4.0,
        "threshold": 1.0,
        "channels": {"value": 1.0},
        "window": AlertWindow(timestamps=rows, values=numbers, expected=numbers, errors=numbers, imputed=[False] * 100),
        "model": AlertModel(name="m", version="v", digest="d"),
        "source": AlertSource(stream="sensor-readings", partition=0, opened_offset=1, last_offset=2),
    } | fields
    return Alert(**found)


def encoded(sensor: str, at: float, event: str = "opened", **fields: Any) -> bytes:
    """The same as it lies in the stream; `what` and `verdict` are added to what this release writes."""
    more = {name: fields.pop(name) for name in ("what", "verdict") if name in fields}
    return msgspec.json.encode(msgspec.json.decode(encode_alert(alert(sensor, at, event, **fields))) | more)


def news(sensor: str, at: float, event: str = "opened", **fields: Any) -> AlertNews:
    return read_alert(encoded(sensor, at, event, **fields))


def book(
    patterns: list[str] | None = None,
    *,
    within: int = 5 * MINUTE,
    update_every: int | None = MINUTE,
    max_duration: int | None = 7 * 24 * 60 * MINUTE,
    state: State | None = None,
) -> Book:
    return Book(Rules(Groups(patterns).of, within, update_every, max_duration), state)


def take(book: Book, *many: AlertNews) -> list[Incident]:
    return [incident for one in many for incident in book.take(one, SOURCE)]


def told(incidents: list[Incident]) -> list[tuple[str, int, int]]:
    """Event, sequence and size of each."""
    return [(one.event, one.sequence, one.size) for one in incidents]
