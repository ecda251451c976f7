"""What would be told on a sensor's own data: the smallest step and drift, how long a value sticks or nothing comes.

Faults of the catalogue are put into recorded readings where they are quiet, at five places. Told is what is told in
four of them. Steps and drifts climb a fixed ladder of sizes; how long a fault takes to be told follows from one trial,
since what happens afterwards cannot change it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from detector.arrays import Bools
from detector.config.rules import Rules
from detector.detection.signals import WINDOW
from detector.detection.watch import Reason
from detector.engine.output import ScoredRows, traced
from detector.errors import counted
from detector.reports.curves import Curve, Curves
from detector.reports.sampled import Recorded
from detector.reports.scoreboard import EpisodeSpan, episodes_of
from detector.reports.trials import Copy, Followed, MakePipeline, follow, opening, run_on, with_values
from detector.simulation.faults import Healthy, MeaninglessError, put
from detector.times import parse_time
from detector.wire.alerts import Alert

Kind = Literal["step", "drift", "stuck", "dropout"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
STEPS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Sizes of steps, in units of the sensor's usual spread."""
DRIFTS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Usual spreads in 1 000 readings."""
PLACES: Final = 5
"""Where in the recording each fault is tried."""
SHARE: Final = 0.8
"""Of the places, in which a fault has to be found to count as told."""
WITHIN: Final = 2_000
"""Rows that a trial runs, at most."""
LEAST_WITHIN: Final = 200
SHOWN_BEFORE, SHOWN_AFTER = 300, 150
"""Rows of an example before its fault and after the alert."""

Untold = Literal["too small", "no meaning", "off", "alone"]
"""Why a fault is not told: even the largest was not in time; the sensor's values would not change; `silence_after` is
null; silence is relative to other sensors, and there is none."""


@dataclass(frozen=True, slots=True)
class Example:
    """One trial as a picture: the readings around a fault, and what was made of them. Times in ns.

    `rows`: after how many readings it was told.
    """

    curve: Curve
    rows: int
    fault: tuple[int, int]
    episodes: tuple[EpisodeSpan, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """The smallest fault of a kind that is told.

    `spreads`: its size in usual spreads, of a drift in 1 000 readings; None where it is told by how long it lasts.
    `rows`, `time` (ns): after how many readings, and how long, in the middle of those told; of what is told by how long
    it lasts: how long that is.
    """

    spreads: float | None
    rows: int
    time: int
    example: Example | None = None


@dataclass(frozen=True, slots=True)
class Proved:
    """What became of one channel of one sensor.

    `spread`: its usual one, in the unit of its values. `interval`: the median one, ns. `places`: where each fault was
    tried; `within`: rows of each trial. `found`: by kind, what is told, or why it is not. `blind`: why it is as good as
    unwatched; None: it is watched.
    """

    sensor_id: str
    channel: str
    readings: int
    interval: int
    spread: float
    threshold: float | None
    places: int
    within: int
    found: dict[Kind, Told | Untold] = field(default_factory=dict)
    blind: str | None = None


def prove(
    make: MakePipeline,
    recorded: Recorded,
    channels: Sequence[str],
    rules: Rules,
    *,
    other: str | None,
    within: int = WITHIN,
    examples: bool = False,
) -> Iterator[Proved]:
    """Try every channel of one sensor. `other`: the id of another one, against which this one may be silent."""
    followed = follow(make, recorded)
    rows, copies = _placed(followed, within)
    dropout: Told | Untold | None = None
    for number, channel in enumerate(channels):
        at, column = recorded.of_channel(number)
        if not len(at):
            continue
        interval = int(np.median(np.diff(recorded.times[at]))) if len(at) > 1 else 0
        healthy = Healthy.of(recorded.values[at, column][:, None])
        bench = _Bench(make, followed, copies, rows, rules, number, healthy, other)
        found: dict[Kind, Told | Untold] = {}
        if copies:
            # Of several channels in one reading none can be silent alone.
            dropout = bench.dropout() if dropout is None or recorded.channels is not None else dropout
            found = {**bench.values(examples=examples), "dropout": dropout}
        yield Proved(
            recorded.sensor_id, channel, len(recorded), interval, float(healthy.spread[0]), followed.threshold,
            len(copies), rows, found, _blind(followed, copies, found, rules),
        )  # fmt: skip


def _placed(followed: Followed, within: int) -> tuple[int, list[Copy]]:
    """How many rows trials run, and from where: shorter ones where the quiet parts of a recording are short."""
    rows, best = within, followed.placements(within, PLACES)
    while len(best) < PLACES and rows // 2 >= LEAST_WITHIN:
        rows //= 2
        shorter = followed.placements(rows, PLACES)
        if len(shorter) > len(best):
            best, within = shorter, rows
    return within, best


_WHY: Final[dict[Reason, str]] = {
    "warming": "it is still warming up",
    "gaps": "gaps keep its window from becoming complete",
    "interval": "its readings come further apart than its gaps may be",
    "profile": "its readings make no profile yet",
    "threshold": "its threshold is so high that hardly anything is told",
    "relearning": "it learns a new interval",
    "capped": "there is no place for it",
    "failed": "it was set aside",
    "channel_missing": "a channel has no values",
}


def _blind(followed: Followed, copies: Sequence[Copy], found: dict[Kind, Told | Untold], rules: Rules) -> str | None:
    """Why a sensor is as good as unwatched; None: it is not."""
    if followed.unwatched is not None:
        high = followed.unwatched == "threshold" and followed.threshold is not None
        level = f": {followed.threshold:.3g} times the worst of training" if high else ""
        return f"{_WHY[followed.unwatched]}{level} ({followed.unwatched})"
    if not followed.copies:
        return f"too short: it was watched for none of {len(followed.recorded):,} readings until the last ones"
    if not copies:
        own = counted(len(followed.episodes), "episode")
        return f"not tried: nowhere do {LEAST_WITHIN} quiet readings follow each other between {own} of its own"
    if not isinstance(found["step"], Told):
        why = f"not even a step of {STEPS[-1]:g} times its usual spread is told"
        if followed.threshold is not None:
            why += f"; its threshold is {followed.threshold:.3g}"
        least = rules.alerts.min_deviation
        if least.absolute or least.relative:
            why += ", and alerts.min_deviation leaves small ones out"
        return why
    return None


@dataclass(slots=True)
class _Bench:
    """The trials of one channel."""

    make: MakePipeline
    followed: Followed
    copies: Sequence[Copy]
    within: int
    rules: Rules
    channel: int
    healthy: Healthy
    other: str | None

    def values(self, *, examples: bool) -> dict[Kind, Told | Untold]:
        """The faults of what is read."""
        return {
            "step": self._climbed("step", STEPS, examples=examples),
            "drift": self._climbed("drift", DRIFTS, examples=examples),
            "stuck": self._lasting("stuck", examples=examples),
        }

    @property
    def _needed(self) -> int:
        return math.ceil(SHARE * len(self.copies))

    def _climbed(self, kind: Kind, ladder: Sequence[float], *, examples: bool) -> Told | Untold:
        """The lowest rung that is told, by bisection."""
        low, high = 0, len(ladder)
        best: list[tuple[Copy, Alert]] = []
        while low < high:
            middle = (low + high) // 2
            told = self._told(kind, ladder[middle])
            if len(told) >= self._needed:
                high, best = middle, told
            else:
                low = middle + 1
        if high == len(ladder):
            return "too small"
        rows, time = self._delay(best, statistics.median_low)
        example = self._example(kind, ladder[high], *best[-1]) if examples else None
        return Told(ladder[high], rows, time, example)

    def _lasting(self, kind: Kind, *, examples: bool) -> Told | Untold:
        """How long a fault has to last."""
        changed = [copy for copy in self.copies if self._changed(kind, 0.0, copy) is not None]
        if len(changed) < self._needed:
            return "no meaning"
        told = self._told(kind, 0.0)
        if len(told) < self._needed:
            return "too small"
        rows, time = self._delay(told, lambda found: sorted(found)[self._needed - 1])
        return Told(None, rows, time, self._example(kind, 0.0, *told[-1]) if examples else None)

    def dropout(self) -> Told | Untold:
        """For how long nothing has to come."""
        if self.rules.silence_after is None:
            return "off"
        if self.other is None:
            return "alone"
        recorded, found = self.followed.recorded, list[tuple[int, int]]()
        for copy in self.copies:
            unsent = self._unsent(copy.row)
            stop = copy.row + self.within
            alert = opening(self.make, copy, recorded, stop, unsent=unsent, other=self.other)
            if alert is not None:
                at = parse_time(alert.detected_at)
                row = int(np.searchsorted(recorded.times, at, side="right"))
                found.append((row - copy.row, at - int(recorded.times[copy.row - 1])))
        if len(found) < self._needed:
            return "too small"
        rows, time = sorted(found)[self._needed - 1]
        return Told(None, rows, time)

    def _unsent(self, row: int) -> Bools:
        recorded = self.followed.recorded
        unsent = np.zeros(len(recorded), dtype=bool)
        unsent[row:] = True
        return unsent

    def _told(self, kind: Kind, size: float) -> list[tuple[Copy, Alert]]:
        """The places where a fault is told, and by which alert; gives up where too few are left."""
        out: list[tuple[Copy, Alert]] = []
        for number, copy in enumerate(self.copies):
            changed = self._changed(kind, size, copy)
            if changed is not None:
                alert = opening(self.make, copy, changed, copy.row + self.within)
                if alert is not None:
                    out.append((copy, alert))
            if len(out) + len(self.copies) - number - 1 < self._needed:
                break
        return out

    def _changed(self, kind: Kind, size: float, copy: Copy) -> Recorded | None:
        """The recording with the fault; None where it changes nothing."""
        recorded = self.followed.recorded
        at, column = recorded.of_channel(self.channel)
        first, stop = np.searchsorted(at, (copy.row, copy.row + self.within)).tolist()
        turn = -1.0 if self.copies.index(copy) % 2 else 1.0
        side = {"above": 1.0, "below": -1.0}.get(self.rules.alerts.direction, turn)
        fault, amount = {
            "step": ("offset", side * size),
            "drift": ("drift", side * size * (stop - first) / 1000),
            "stuck": ("stuck", 1.0),
        }[kind]
        part = slice(max(first - WINDOW, 0), stop)
        column_of = recorded.values[at[part], column][:, None]
        rng = np.random.default_rng(0)
        try:
            faulty = put(fault, column_of, first - part.start, stop - first, 1, self.healthy, rng, amount=amount)
        except MeaninglessError:
            return None
        values = recorded.values.copy()
        values[at[part], column] = faulty.values[:, 0]
        return with_values(recorded, values)

    def _delay(self, told: Sequence[tuple[Copy, Alert]], pick: Callable[[list[int]], int]) -> tuple[int, int]:
        """Rows and time (ns) from the first reading of the fault to the opening, of one of the places."""
        times = self.followed.recorded.times
        rows, spans = [], []
        for copy, alert in told:
            at = parse_time(alert.detected_at)
            rows.append(int(np.searchsorted(times, at, side="right")) - copy.row)
            spans.append(at - int(times[copy.row]))
        return pick(rows), pick(spans)

    def _example(self, kind: Kind, size: float, copy: Copy, alert: Alert) -> Example | None:
        """The trial once more, from an earlier copy, so that it shows what was before."""
        changed = self._changed(kind, size, copy)
        if changed is None:
            return None
        times, curves = changed.times, Curves(changed.values.shape[1])
        at = int(np.searchsorted(times, parse_time(alert.detected_at), side="right"))
        stop = min(at + SHOWN_AFTER, copy.row + self.within, len(times))
        earlier = self.followed.before(copy.row)
        begin = copy if earlier is None or not earlier.quiet else earlier
        shown = int(times[max(copy.row - SHOWN_BEFORE, begin.row)])
        alerts = run_on(self.make, begin, changed, stop, score=traced(_since(curves, shown)))
        curve = curves.of(changed.sensor_id)
        if curve is None:
            return None
        spans = [span for span in episodes_of(alerts) if span.detected >= times[copy.row]]
        return Example(curve, at - copy.row, (int(times[copy.row]), int(times[stop - 1])), tuple(spans))


def _since(curves: Curves, time: int) -> Callable[[ScoredRows], None]:
    """Lets `curves` hear of the rows of one sensor from a time on, ns."""

    def listen(rows: ScoredRows) -> None:
        kept = rows.times >= time
        if not kept.any():
            return
        curves(
            ScoredRows(
                rows.ids, np.array([int(kept.sum())]), rows.records[kept], rows.times[kept], rows.values[kept],
                rows.expected[kept], rows.scores[kept], rows.judged[kept], rows.thresholds[kept],
            )
        )  # fmt: skip

    return listen
