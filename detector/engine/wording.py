"""What an alert says in words: a sentence for a shift leader, in the sensor's own unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from detector.arrays import F64
from detector.config.values import WEEKDAYS
from detector.detection.finding import Finding
from detector.detection.opened import Episode
from detector.times import rfc3339
from detector.wire.alerts import What

_SECOND: Final = 10**9
_WIDER: Final = 1.2
_IDLE: Final = 0.25
"""Of the value of a machine that runs, that of one that is idle is at most this much."""
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def in_words(found: Finding, episode: Episode, scale: F64, center: F64, channels: Sequence[str]) -> What:
    """The kind and the text of a fault. `scale`, `center` (C,): a value is z times the one plus the other."""
    kind, channel = found.kind, found.channel
    name, unit = channels[channel], float(scale[channel])
    off = f"{number(abs(kind.size) * unit)} {'above' if kind.size > 0 else 'below'}"
    since = f"since {clock(episode.started_at)}"
    end = episode.detected_at if episode.until is None else episode.until
    match kind.name:
        case "stuck":
            value = number(kind.level * unit + float(center[channel]))
            text = f"stuck at {value} for {lasting(end - episode.started_at)}, {since}"
        case "level-shift":
            text = f"{off} its usual level {since}"
        case "spike":
            text = f"a spike at {clock(episode.started_at)}: {off} what was to be expected"
        case "drift":
            text = f"drifting: by now {off} its usual level"
        case "noise":
            much = f"{number(kind.size)} times as noisy as usual" if kind.size > 1 else "quieter than usual"
            text = f"{much} {since}"
        case "oscillation":
            text = f"{_swings(found)} {since}"
        case "relation":
            text = f"no longer follows {channels[kind.partner]} {since}"
        case "context":
            text = _of_other_hours(found, unit, float(center[channel]))
        case _:
            text = f"unlike anything in training {since}"
    if len(channels) > 1:
        text = f"{name} {text}" if kind.name == "relation" else f"{name}: {text}"
    return What(kind.name, text)


def _of_other_hours(found: Finding, unit: float, center: float) -> str:
    kind = found.kind
    value, usual = kind.level * unit + center, (kind.level - kind.size) * unit + center
    day = f"on a {WEEKDAYS[kind.weekday].capitalize()} " if kind.weekday >= 0 else ""
    when = f"where {day}at {kind.hour:02}:00 it usually"
    if abs(value) <= _IDLE * abs(usual):
        return f"idle at {number(value)}, {when} runs at {number(usual)}"
    if abs(usual) <= _IDLE * abs(value):
        return f"runs at {number(value)}, {when} is idle at {number(usual)}"
    return f"at {number(value)}, {when} is at {number(usual)}"


def _swings(found: Finding) -> str:
    kind = found.kind
    if kind.usual_period and kind.period:
        return f"swings once in {number(kind.period)} readings, usually once in {number(kind.usual_period)}"
    if kind.usual_period:
        return f"no longer swings once in {number(kind.usual_period)} readings"
    if kind.size > _WIDER:
        return f"swings {number(kind.size)} times as wide as usual"
    return f"swings once in {number(kind.period)} readings, which is unusual"


def silent_for(since: int, now: int, *, ended: bool) -> str:
    """Of a sensor that is missed since an instant, ns."""
    if ended:
        return f"no reading for {lasting(now - since)}, since {clock(since)}"
    return f"no reading since {clock(since)}, while other sensors have some"


def image(region: tuple[int, int, int, int], shape: tuple[int, ...]) -> str:
    """Of a frame (h, w) with a box that is unusual.

    >>> image((20, 1, 6, 4), (28, 28))
    'unlike the pictures of training, most of all at the upper right'
    """
    x, y, width, height = region
    if 2 * width * height > shape[0] * shape[1]:
        return "unlike the pictures of training all over"
    row = ("upper", "", "lower")[min(int(3 * (y + height / 2) / shape[0]), 2)]
    column = ("left", "", "right")[min(int(3 * (x + width / 2) / shape[1]), 2)]
    place = " ".join(part for part in (row, column) if part)
    where = f"at the {place}" if row and column else f"in the {place} part" if place else "in the middle"
    return f"unlike the pictures of training, most of all {where}"


def number(value: float) -> str:
    """Three digits, whole numbers in full.

    >>> number(0.12345), number(73.21), number(101325.4)
    ('0.123', '73.2', '101325')
    """
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def clock(time: int) -> str:
    """The time of the day of an instant, ns: with its seconds, in UTC.

    >>> clock(1_772_323_200 * 10**9)
    '00:00:00'
    """
    return rfc3339(time - time % _SECOND)[11:19]


def lasting(ns: int) -> str:
    """A length of time: `45 s`, `14 min`, `3.5 h`."""
    seconds = ns / _SECOND
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"
