"""The rules of the slow reference, one object each: order of readings, adaptive scale, threshold; and its words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from detector.detection.finding import Finding
from detector.detection.profile import Profile, peaks_of_suffix

SPAN_8000 = 2 / 8001

Values = tuple[float | None, ...]


class Reading(NamedTuple):
    """One decoded reading: time in ns, a value a channel, None where it is missing."""

    sensor: str
    time: int
    values: Values


class Event(NamedTuple):
    """What an alert says. Times are ns, but window stamps ms; values, expected and errors are tuples by channel."""

    alert_id: str
    reason: str
    sequence: int
    event: str
    close_reason: str | None
    severity: str
    sensor: str
    started_at: int
    detected_at: int
    ended_at: int | None
    score: float
    peak: float
    threshold: float
    opened_offset: int
    last_offset: int
    stamps: tuple[int, ...]
    imputed: tuple[bool, ...]
    values: tuple[tuple[float | None, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]
    muted: bool


class Row(NamedTuple):
    """A row of a window. `lacks`: of which channels the value stands for a missing one."""

    time: int
    values: tuple[float, ...]
    imputed: bool
    lacks: tuple[bool, ...]

    @property
    def marked(self) -> tuple[float, ...]:
        """The values, NaN in place of what stands for a missing one."""
        return tuple(math.nan if lacks else value for value, lacks in zip(self.values, self.lacks, strict=True))

    def after(self, last: tuple[float, ...]) -> Row:
        """The row, the last value of a channel in place of one that it lacks."""
        there = zip(self.values, last, self.lacks, strict=True)
        return self._replace(values=tuple(old if lacks else value for value, old, lacks in there))


@dataclass
class Episode:
    """An open episode. `quiet`: rows since the last one at or above the closing level, whose time is `loud_time`.

    `shown`: the time of the newest row of the last message.
    """

    name: str
    finding: Finding
    until: int | None
    detected_at: int
    ln_threshold: float
    close_level: float
    critical: bool
    opened_offset: int
    peak: float
    loud_time: int
    update_at: float
    close_at: float
    muted: bool
    quiet: int = 0
    sequence: int = 0
    shown: float = -math.inf


@dataclass
class Silence:
    """An open episode of a sensor that is missed from `since` on, and may be so for `after`."""

    name: str
    started_at: int
    detected_at: int
    since: int
    after: int
    critical: bool
    opened_offset: int
    update_at: float
    close_at: float
    muted: bool
    sequence: int = 0


class Aside:
    """Peaks too high for the tail of the last `memory` rows: the newest twelve, until they are a habit."""

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self.kept: list[tuple[int, float]] = []

    def add(self, row: int, peak: float) -> list[float]:
        """Keep a peak of that row; returns what is learnt now."""
        self.kept = [*[(at, one) for at, one in self.kept if row - at < self.memory][-11:], (row, _short([peak])[0])]
        heights = [one for _, one in self.kept]
        begins = [low for low in heights if sum(low <= one <= low + math.log(2) for one in heights) >= 8]
        if not begins and len(heights) < 12:
            return []
        low = min(begins or heights)
        high = low + math.log(2) if len(heights) < 12 else math.inf
        self.kept = [(at, one) for at, one in self.kept if not low <= one <= high]
        return [min(one, low + math.log(2)) for one in heights if low <= one <= high]


class Budget:
    """The ln threshold that one episode in `budget` rows is expected to pass; no budget: always 0."""

    def __init__(self, profile: Profile, budget: float | None) -> None:
        self.budget = budget
        self.pending: float | None = None
        self.since = 0
        if budget is None:
            return
        rows = min(profile.scored_rows, int(5 * budget))
        peaks = peaks_of_suffix(profile, rows)
        self.highest = sorted((peak + 100 / rows for peak in peaks), reverse=True)[:8]
        self.seen = len(peaks)
        self.behind = float(rows)
        self.memory = max(5 * budget, float(rows))
        self.credit = 0.0
        self.row = 0
        self.aside = Aside(self.memory)

    def next_row(self) -> float:
        """Count one row and return the ln threshold that holds for it."""
        if self.budget is None:
            return 0.0
        self.row += 1
        self.credit = min(self.credit + 1 / self.budget, 3 + 1 / 0.07)
        loose = min(self.budget / 10_000, 1.0)
        if self.behind < self.memory:
            self.behind += 1
        else:
            fade = self._spread()[1] / self.memory
            self.highest = [peak - fade for peak in self.highest]
        level = self._return_level()
        if self.behind < self.budget:
            level = min(level, math.log(3 * self.budget / self.behind))
        floor = -0.07 * float(loose**-0.75) * max(self.credit - 3 * float(loose**0.25), 0.0)
        return max(level, floor) + min(0.4 * max(-self.credit, 0.0), math.log(2))

    def quiet(self, v: float) -> None:
        """A row outside of episodes: part of the peak that is under way, or what ends it."""
        if self.pending is None or v > self.pending:
            self.pending, self.since = v, 0
            return
        self.since += 1
        if self.since == 100:
            if self.budget is not None:
                self._keep(min(self.pending, self._limit()))
            self.forget_pending()

    def forget_pending(self) -> None:
        self.pending, self.since = None, 0

    def spent(self, peak: float) -> None:
        """An episode is over: its peak counts, unless it is far above the tail and no habit, and it costs one."""
        if self.budget is not None:
            for one in (
                [peak] if peak <= self._limit(min(self.behind / self.budget, 1.0)) else self.aside.add(self.row, peak)
            ):
                self._keep(one)
            self.credit = max(self.credit - 1, -4.0)

    def _keep(self, peak: float) -> None:
        self.seen += 1
        self.highest = sorted([*self.highest, peak], reverse=True)[:8]

    def _limit(self, known: float = 1.0) -> float:
        """What is higher is no part of the tail."""
        return self._return_level() + 1.5 * self._spread()[1] * known

    def _spread(self) -> tuple[int, float, float]:
        """How many peaks count, the scale of their excesses with its prior, and the weight behind it."""
        used = min(len(self.highest), max(1, self.seen // 2))
        lowest = self.highest[used - 1]
        weight = used - 1 + 15.0
        return used, (sum(peak - lowest for peak in self.highest[:used]) + 15 * 0.35) / weight, weight

    def _return_level(self) -> float:
        assert self.budget is not None
        used, scale, weight = self._spread()
        aim = 1 + 2 * math.sqrt(min(3 * self.behind / self.budget, 1.0))
        asked = max(1.0, used * self.budget / (aim * self.behind))
        return self.highest[used - 1] + weight * scale * (math.pow(asked, 1 / weight) - 1)


@dataclass
class Order:
    """Which readings of a sensor become rows, and when."""

    lateness: int
    held: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    released: float = -math.inf
    newest: float = -math.inf
    late: int = 0
    restart: bool = False

    def take(self, time: int, values: tuple[float, ...]) -> Iterator[tuple[int, tuple[float, ...], bool]]:
        """Take in a reading; yields what is released by it: time, values, whether the window begins again with it."""
        if time == self.released or any(time == other for other, _ in self.held):
            return
        if time < self.released:
            self.late += 1
            if self.late < 20:
                return
            yield from self._release(math.inf)
            self.released, self.newest, self.restart = -math.inf, -math.inf, True
        self.late = 0
        self.held = sorted([*self.held, (time, values)])
        self.newest = max(self.newest, time)
        yield from self._release(self.newest - self.lateness)

    def _release(self, until: float) -> Iterator[tuple[int, tuple[float, ...], bool]]:
        while self.held and self.held[0][0] <= until:
            time, values = self.held.pop(0)
            self.released = time
            restart, self.restart = self.restart, False
            yield time, values, restart


class Scale:
    """The adaptive scale: running mean and variance of each signal, and what they were before a long fault."""

    def __init__(self, profile: Profile) -> None:
        self.mean, self.variance = profile.mean.tolist(), profile.variance.tolist()
        self.count = profile.count
        self._worst_zz = profile.worst_zz
        self._machine = len(profile.center) > 1
        self.muted: int | None = None
        """The signal that does not count, if any does not."""
        self.is_mute = False
        """Whether the reconstruction does not count."""
        self._before: tuple[list[float], list[float]] | None = None
        self._high = self._cold = self._calm = self._age = 0

    def mute(self, profile: Profile) -> None:
        """The reconstruction does not count from now on: of one channel it is the second signal."""
        self.is_mute = True
        if not self._machine:
            self.muted, self._worst_zz = 1, profile.worst_zz_of_others

    def adaptive(self, signals: list[float]) -> float:
        """The score on this scale."""
        return self._on(signals, self.mean, self.variance)

    def learn(self, signals: list[float], u: float, *, maintained: bool) -> None:
        """Let mean and variance learn a row whose score is u; of a high one in a maintenance window nothing."""
        self._look_back(u, signals)
        if u >= 1 and (maintained or (self._machine and self._before is None)):
            return
        self.count += 1
        rate = max(SPAN_8000, 1 / self.count)
        for i, signal in enumerate(signals):
            if math.isnan(signal):
                continue
            unit = math.sqrt(self.variance[i]) + 1e-6
            most = 4.0 if self._machine else 5.0
            step = 0.0 if i == self.muted else min(max((signal - self.mean[i]) / unit, -most), most) * unit
            self.mean[i] += rate * step
            self.variance[i] = (1 - rate) * (self.variance[i] + rate * step * step)

    def _on(self, signals: list[float], means: list[float], variances: list[float]) -> float:
        away = [(s - m) / (math.sqrt(v) + 1e-6) for s, m, v in zip(signals, means, variances, strict=True)]
        counting = [one for i, one in enumerate(away) if i != self.muted and not math.isnan(one)]
        return max(max(counting) / self._worst_zz, 0.0)

    def _look_back(self, u: float, signals: list[float]) -> None:
        """What a long fault has taught is forgotten again once the signals are as they were before."""
        if self._before is not None:
            means, variances = self._before
            self._age += 1
            self._calm = self._calm + 1 if self._on(signals, means, variances) < 1 else 0
            if self._calm >= 50:
                self.mean, self.variance = means, variances
            if self._calm >= 50 or self._age >= 8000:
                self._before, self._high, self._cold = None, 0, 0
            return
        if u >= 1:
            self._high, self._cold = self._high + 1, 0
        else:
            self._cold += 1
            if self._cold >= 50:
                self._high = 0
        if self._high > 300:
            self._before, self._age, self._calm = (_short(self.mean), _short(self.variance)), 0, 0


def _short(numbers: list[float]) -> list[float]:
    """As single precision keeps them."""
    return [float(np.float32(number)) for number in numbers]
