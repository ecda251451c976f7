"""Alerts and times in words, for terminals."""

from __future__ import annotations

from detector.times import SECOND, parse_time, rfc3339
from detector.wire.alerts import Alert

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(ns: float) -> str:
    """A length of time with two figures at most: `45 s`, `12 min`, `3.5 h`."""
    seconds = ns / 1e9
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def moment(ns: int) -> str:
    """A time to the second, in the form that options take."""
    return rfc3339(ns - ns % SECOND)


def span(begin: int, end: int) -> str:
    """From when to when (ns); the date is said once where it is the same."""
    first, last = moment(begin), moment(end)
    return f"{first} .. {last[11:] if first[:10] == last[:10] else last}"


def describe(alert: Alert) -> str:
    """An alert on one line."""
    line = f"{alert.event:<7} {alert.sensor_id:<24} {alert.severity:<8} {'muted, ' * alert.muted}"
    if alert.reason == "silent":
        began = parse_time(alert.started_at)
        if alert.ended_at is None:
            return f"{line}silent since {moment(began)}"
        return f"{line}silent, {span(began, parse_time(alert.ended_at))} ({alert.close_reason})"
    told = "" if alert.what is None else f": {alert.what.text}"
    if alert.event == "closed" and alert.ended_at is not None:
        times = span(parse_time(alert.started_at), parse_time(alert.ended_at))
        return f"{line}peak score {alert.peak_score:.3g}, {times} ({alert.close_reason}){told}"
    at = moment(parse_time(alert.detected_at))
    return f"{line}score {alert.peak_score:.3g} (threshold {alert.threshold:.3g}) at {at}{told}"
