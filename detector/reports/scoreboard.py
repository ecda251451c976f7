"""Alerts against labels: which faults were found, how late, and what was a false alarm."""

from __future__ import annotations

import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from detector.errors import UserError
from detector.times import parse_time
from detector.wire.alerts import Alert

JUDGED: Final = 50
"""An episode that opens may be owed to a fault in this many rows before it."""
MILLISECOND: Final = 10**6


class Label(msgspec.Struct, forbid_unknown_fields=True, rename={"word": "is"}):
    """A known fault of one sensor; times in RFC 3339, both ends included. `word`: the verdict it comes from."""

    sensor_id: str
    start: str
    end: str
    kind: str = "fault"
    word: Literal["real"] | None = None

    @property
    def interval(self) -> tuple[int, int]:
        """Start and end, ns."""
        return parse_time(self.start), parse_time(self.end)


@dataclass(frozen=True, slots=True)
class EpisodeSpan:
    """One episode as its messages tell it: ns; `ended` None while it is open.

    `judged_from`: the first of the rows that opened it, which may lie in a fault that is over; None: `started`. `what`:
    what seems to be wrong, in words.
    """

    sensor_id: str
    started: int
    detected: int
    ended: int | None
    severity: str
    peak: float
    close_reason: str | None
    alert_id: str = ""
    muted: bool = False
    silent: bool = False
    judged_from: int | None = None
    what: str = ""

    def meets(self, start: int, end: int) -> bool:
        """Whether it has to do with what was from `start` to `end`, ns: it is about that time, or was opened by it."""
        first = self.started if self.judged_from is None else min(self.started, self.judged_from)
        return first <= end and (self.ended is None or max(self.ended, self.detected) >= start)

    @property
    def counts(self) -> bool:
        """Whether a person was called, and because of the readings: what budgets and false alarms are about."""
        return not self.muted and not self.silent


@dataclass(slots=True)
class Scoreboard:
    """`found`: labels with the delay (ns) from their start to the opening; a fault noticed early has delay 0."""

    found: list[tuple[Label, int]] = field(default_factory=list)
    missed: list[Label] = field(default_factory=list)
    false_alarms: list[EpisodeSpan] = field(default_factory=list)

    @property
    def median_delay(self) -> float | None:
        """Median delay of the faults found, ns."""
        return statistics.median(delay for _, delay in self.found) if self.found else None


class Episodes:
    """Puts the messages of each episode together as they come; `spans` by alert id, in order of opening."""

    def __init__(self) -> None:
        self.spans: dict[str, EpisodeSpan] = {}

    def add(self, alert: Alert) -> None:
        """Take in a message: the newest of an episode has all that is known of it, but for the rows that opened it."""
        opened = self.spans.get(alert.alert_id)
        self.spans[alert.alert_id] = EpisodeSpan(
            sensor_id=alert.sensor_id,
            started=parse_time(alert.started_at),
            detected=parse_time(alert.detected_at),
            ended=None if alert.ended_at is None else parse_time(alert.ended_at),
            severity=alert.severity,
            peak=alert.peak_score,
            close_reason=alert.close_reason,
            alert_id=alert.alert_id,
            muted=alert.muted,
            silent=alert.reason == "silent",
            judged_from=_judged_from(alert) if opened is None else opened.judged_from,
            what="" if alert.what is None else alert.what.text,
        )


def episodes_of(alerts: Iterable[Alert]) -> list[EpisodeSpan]:
    """Put the messages of each episode together, in order of opening."""
    episodes = Episodes()
    for alert in alerts:
        episodes.add(alert)
    return list(episodes.spans.values())


def _judged_from(alert: Alert) -> int | None:
    """The first of the `JUDGED` rows up to the newest of a message, ns; None where it shows fewer."""
    times = [] if alert.window is None else alert.window.timestamps
    return times[-JUDGED - 1] * MILLISECOND if len(times) > JUDGED else None


def score(episodes: Sequence[EpisodeSpan], labels: Sequence[Label]) -> Scoreboard:
    """A label that any episode of its sensor meets is found; an episode that meets no label is a false alarm.

    Unless it is muted, or about silence. What a fault leaves behind when it ends is no false alarm: see `judged_from`.
    """
    board = Scoreboard()
    by_sensor: dict[str, list[EpisodeSpan]] = {}
    for episode in episodes:
        by_sensor.setdefault(episode.sensor_id, []).append(episode)
    hits: set[EpisodeSpan] = set()
    for label in labels:
        start, end = label.interval
        over = [episode for episode in by_sensor.get(label.sensor_id, []) if episode.meets(start, end)]
        hits.update(over)
        if over:
            board.found.append((label, max(0, min(e.detected for e in over) - start)))
        else:
            board.missed.append(label)
    board.false_alarms = [episode for episode in episodes if episode not in hits and episode.counts]
    return board


def fitting(
    labels: Sequence[Label], sensors: Container[str], first: int | None, last: int | None
) -> tuple[list[Label], list[Label]]:
    """Labels of these sensors that overlap the time from `first` to `last` (ns), and the others."""
    inside: list[Label] = []
    others: list[Label] = []
    for label in labels:
        start, end = label.interval
        fits = label.sensor_id in sensors and first is not None and last is not None and start <= last and end >= first
        (inside if fits else others).append(label)
    return inside, others


def read_labels(path: Path) -> list[Label]:
    """Read a label file: `[{"sensor_id", "start", "end", "kind"}]`. Raises UserError."""
    try:
        labels = msgspec.json.decode(path.read_bytes(), type=list[Label])
        for label in labels:
            start, end = label.interval
            if end < start:
                raise ValueError(f"the label of {label.sensor_id} ends before it starts")
    except OSError as error:
        raise UserError(f"cannot read the labels: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise UserError(
            f"these are no labels: {error}", where=str(path),
            todo='Expected [{"sensor_id": ..., "start": RFC 3339, "end": RFC 3339, "kind": ...}]',
        ) from error  # fmt: skip
    return labels


def by_kind(board: Scoreboard) -> Mapping[str, tuple[int, int]]:
    """Found and all labels of each kind."""
    kinds: dict[str, tuple[int, int]] = {}
    for label, _ in board.found:
        found, total = kinds.get(label.kind, (0, 0))
        kinds[label.kind] = found + 1, total + 1
    for label in board.missed:
        found, total = kinds.get(label.kind, (0, 0))
        kinds[label.kind] = found, total + 1
    return dict(sorted(kinds.items()))


def of_kind(board: Scoreboard, kind: str) -> Scoreboard:
    """The faults of one kind that were found."""
    return Scoreboard(found=[(label, delay) for label, delay in board.found if label.kind == kind])
