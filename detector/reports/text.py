"""Alerts and times in words, for terminals."""

from __future__ import annotations

from detector.messages import Alert

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(ns: float) -> str:
    """A length of time with two figures at most: `45 s`, `12 min`, `3.5 h`."""
    seconds = ns / 1e9
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def counted(number: int, what: str) -> str:
    """`1 sensor`, `2 sensors`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def describe(alert: Alert) -> str:
    """An alert on one line."""
    line = f"{alert.event:<7} {alert.sensor_id:<24} {alert.severity:<8} {'muted, ' * alert.muted}"
    if alert.event == "closed":
        return (
            line + f"peak score {alert.peak_score:.3g}, {alert.started_at} .. {alert.ended_at} ({alert.close_reason})"
        )
    return line + f"score {alert.peak_score:.3g} (threshold {alert.threshold:.3g}) at {alert.detected_at}"
