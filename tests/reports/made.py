"""Alerts made up for the tests of the reports."""

from __future__ import annotations

from typing import Any

from detector.times import rfc3339
from detector.wire.alerts import Alert, AlertModel, AlertSource

SECOND = 10**9
NOON = 1_790_000_000 * SECOND


def at(second: float) -> str:
    """A time this many seconds after noon."""
    return rfc3339(NOON + int(second * SECOND))


def alert(event: str = "opened", **changes: Any) -> Alert:
    """An alert of `pump-7`, which began at noon and was noticed after 10 s."""
    settings: dict[str, Any] = {
        "alert_id": "a",
        "sequence": 0,
        "event": event,
        "kind": "readings",
        "reason": "anomaly",
        "sensor_id": "pump-7",
        "severity": "warning",
        "started_at": at(0),
        "detected_at": at(10),
        "ended_at": None,
        "score": 1.5,
        "peak_score": 2.5,
        "threshold": 1.25,
        "p_value": None,
        "window": None,
        "channels": {"value": 1.0},
        "model": AlertModel(name="m", version="1", digest="d"),
        "source": AlertSource(stream="sensor-readings", partition=0, opened_offset=0, last_offset=0),
        **changes,
    }
    return Alert(**settings)
