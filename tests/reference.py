"""The readings path of one partition once more, slow and obvious: one record, one element, one sensor at a time.

It exists to be compared with the pipeline and shares none of its stages: plain objects, lists and numbers, no table, no
blocks, no batches, no vectorisation over sensors. Only how a profile is built and the ids of alerts are taken from the
package. Floats agree to the last few bits and not exactly, because sums are taken in another order and the reservoir
forgets by subtracting from every peak.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np

from detector.arrays import F32, F64, Bools
from detector.config.load import AlertsConfig, MaintenanceConfig, OverrideConfig, ReadingsConfig, WindowConfig
from detector.detection.columns import NEVER
from detector.detection.finding import LOOK, Window, first_look, next_look, until
from detector.detection.prefix import NotYetError, also_known
from detector.detection.profile import Carry, Profile, build_profile
from detector.detection.scorer import Model
from detector.detection.stillness import Run
from detector.engine import patience
from detector.wire.alerts import alert_id
from tests.reference_rules import Budget, Episode, Event, Order, Reading, Row, Scale, Silence

ROWS = 100
DAY = 86_400 * 10**9
SPAN_50, SPAN_40 = 2 / 51, 2 / 41


def rung_above(least: int) -> int:
    """The first rung of the ladder that is at least so high; the last one, where none is."""
    return int(next((rung for rung in patience.LADDER if rung >= least), patience.LADDER[-1]))


class Sensor:
    """One sensor: its order, warm-up, profile, window, moving averages, threshold and episode."""

    def __init__(self, owner: Reference, name: str, profile: Profile | None) -> None:
        self.owner, self.name = owner, name
        self.alerts, self.window_rules = owner.settings_of(name)
        self.order = Order(owner.config.window.allowed_lateness)
        self.warming: list[Row] = []
        self.restarts = self.unfit = self.relearnt = 0
        self.wanted = 0  # rows of a warm-up that make a profile, if not as many as it takes
        self.waiting = False  # a restart, for its first row
        self.learning: list[Row] | None = None  # under a model that does not know the sensor
        self.profile: Profile | None = None
        self.episode: Episode | None = None
        self.silence: Silence | None = None
        self.silent_no_more = False
        self.doubled = self.needed = self.packet = 0
        self.clock = 0
        self.offset = -1
        self.hold = False
        self.ended: float = -math.inf
        self.score: float | None = None
        self.judged: float | None = None
        self.ruled = self.calmed = False
        self.window: deque[Row] = deque(maxlen=ROWS)
        self._empty()
        if profile is not None:
            self._begin(profile)

    def _begin(self, profile: Profile) -> None:
        self.profile = profile
        self.budget = Budget(profile, budget_of(self.alerts, profile.median_interval))
        self.scale = Scale(profile)
        self.usual = profile.center.tolist()
        self.ways = list(zip(profile.drift_mean.tolist(), profile.drift_variance.tolist(), strict=True))
        self.noise = {name: profile.noise_usual.tolist() for name in ("quick", "slow")}

    def take_model(self, profile: Profile | None) -> None:
        """The model is another one from now on; `profile` is what it knows of the sensor."""
        if profile is not None:
            self.warming, self.learning = [], None
            self._begin(profile)
            self._forget()
        elif self.profile is not None:
            self.scale.mute(self.profile)
            self.learning = self.learning or []

    def _empty(self) -> None:
        self.window.clear()
        self._forget()

    def _forget(self) -> None:
        self.prediction: list[float] | None = None
        self.level: list[float] | None = None
        self.relation: float | None = None
        self.lean: list[float] | None = None
        self.equal: list[list[float]] = []
        self.moves = {name: [0.0] * len(self.owner.config.channels) for name in ("quick", "slow")}
        self.reconstruction = math.nan
        self.completed = 0
        self.recent: deque[float] = deque(maxlen=self.alerts.open_after.of)

    def numbers(self) -> dict[str, list[float]]:
        """What moves from row to row, empty lists for what has not begun. While it warms up: nothing."""
        if self.profile is None:
            return {}
        budget = self.budget
        scored = bool(self.recent)
        found = {
            "score": [] if self.score is None else [self.score],
            "prediction": list(filter(_is_there, self.prediction or [])),
            "level": list(filter(_is_there, self.level or [])),
            "relation": [] if self.relation is None else [self.relation],
            "held_error": [self.reconstruction] if scored else [],
            "recent": list(self.recent)[max(len(self.recent) - self.alerts.open_after.of + 1, 0) :],
            "mean": self.scale.mean,
            "variance": self.scale.variance,
            "count": [self.scale.count],
            "filled": [float(len(self.window))],
            "pending": [] if budget.pending is None else [budget.pending],
        }
        if budget.budget is not None:
            found |= {"credit": [budget.credit], "rows": [budget.behind], "peaks": budget.highest}
        return found

    # -- time ----------------------------------------------------------------------------------------------------

    def timers(self) -> Iterator[tuple[float, str, int, Sensor, str]]:
        """Deadlines; of equal ones, the update comes first and the eviction last."""
        idle = self.owner.config.idle_eviction
        if idle is not None:
            median = self.profile.median_interval if self.profile else 0
            yield self.clock + max(idle, 200 * median), self.name, 9, self, "evicted"
        after = self._may_be_silent()
        if self.silence:
            yield from self._silent_timers(self.silence)
        elif after is not None and not self.silent_no_more:
            resumed = self.owner.resumed.get(self._pause(after), 0)
            yield max(self.clock, resumed) + after, self.name, 2, self, "silent"
        if self.episode:
            yield self.episode.close_at, self.name, 1, self, "max_duration"
            yield self.episode.update_at, self.name, 0, self, "update"

    def _silent_timers(self, silence: Silence) -> Iterator[tuple[float, str, int, Sensor, str]]:
        yield silence.update_at, self.name, 3, self, "still silent"
        if not silence.critical:
            yield self._critical_silence(silence), self.name, 3, self, "still silent"
        if silence.muted:
            yield self._end_of_maintenance(silence), self.name, 3, self, "still silent"
        yield silence.close_at, self.name, 4, self, "silent for too long"

    def _critical_silence(self, silence: Silence) -> int:
        return silence.since + math.ceil(self.alerts.critical_ratio * silence.after)

    def _end_of_maintenance(self, silence: Silence) -> int:
        time = silence.detected_at
        while end := max((end for end in self.owner.ends(self.name, time)), default=0):
            time = end
        return time

    def postpone(self, by: int) -> None:
        self.clock += by
        self.needed += by
        if self.silence:
            self.silence.since += by
            self.silence.update_at += by
            self.silence.close_at += by
        if self.episode:
            self.episode.update_at += by
            self.episode.close_at += by

    # -- silence -------------------------------------------------------------------------------------------------

    def fall_silent(self, deadline: int, offset: int) -> None:
        """It was not heard for as long as it may be."""
        after = self._may_be_silent()
        assert after is not None
        self.silence = Silence(
            name=alert_id("readings", "silent", self.name, deadline),
            started_at=deadline - after,
            detected_at=deadline,
            since=deadline - after,
            after=after,
            critical=False,
            opened_offset=offset,
            update_at=self.owner.deadline(self.alerts.update_every),
            close_at=self.owner.deadline(self.alerts.max_duration),
            muted=self.owner.maintained(self.name, deadline),
        )
        self._tell_silence("opened", deadline, offset)

    def still_silent(self, deadline: int, offset: int) -> None:
        assert self.silence is not None
        self.silence.update_at = self.owner.deadline(self.alerts.update_every)
        self.silence.muted &= deadline < self._end_of_maintenance(self.silence)
        self.silence.sequence += 1
        self._tell_silence("updated", deadline, offset)

    def heard(self, offset: int) -> None:
        """A reading of it has come."""
        now = self.owner.clock
        assert now is not None
        if self.silence and not self.silence.muted:
            self._learn_patience(now - self.silence.since)
        if self._doubled() and now - self.clock > self._own_length() / 2:
            self.needed = now
        self.clock = now
        self.silent_no_more = False
        self.end_silence("recovered", self.clock, offset)

    def covered(self, times: Sequence[int]) -> None:
        """A message of it had readings at these times."""
        self.packet = 2 * (max(times) - min(times))

    def _may_be_silent(self) -> int | None:
        """How long; None: for ever."""
        after = self.owner.silence_after(self.name)
        if after != "auto":
            return after
        if self.profile is None or not self.profile.regular:
            return None
        return max(self._own_length(), rung_above(self.packet))

    def _pause(self, after: int) -> int:
        return after - after // 8 if self.owner.silence_after(self.name) == "auto" else after

    def _own_length(self) -> int:
        median = self.profile.median_interval if self.profile else 0
        return rung_above(patience.INTERVALS * median) << self._doubled()

    def _doubled(self) -> int:
        return self.doubled if self.clock - self.needed <= patience.HABIT else 0

    def _learn_patience(self, silent: int) -> None:
        if self.owner.silence_after(self.name) != "auto" or self.profile is None:
            return
        doubled = self._doubled() + 1
        if doubled > 1:
            while rung_above(patience.INTERVALS * self.profile.median_interval) << doubled <= silent:
                doubled += 1
        self.doubled, self.needed = doubled, self.owner.clock or 0

    def end_silence(self, reason: str, time: int, offset: int) -> None:
        """Close the silent episode, if there is one."""
        if self.silence is not None:
            self.silence.sequence += 1
            self._tell_silence("closed", time, offset, reason)
            self.silence = None

    def _tell_silence(self, event: str, time: int, offset: int, reason: str | None = None) -> None:
        silence = self.silence
        assert silence is not None
        silence.critical |= time >= self._critical_silence(silence)
        score = (time - silence.since) / silence.after
        self.owner.events.append(
            Event(
                silence.name, "silent", silence.sequence, event, reason, "critical" if silence.critical else "warning",
                self.name, silence.started_at, silence.detected_at, time if event == "closed" else None,
                score, score, 1.0, silence.opened_offset, offset, (), (), (), (), (), (), silence.muted,
            )
        )  # fmt: skip

    # -- rows ----------------------------------------------------------------------------------------------------

    def row(self, time: int, values: tuple[float, ...], restart: bool, offset: int) -> None:
        """A row in the sensor's order."""
        if self.profile is None:
            self._warm_up(_row_of(time, values), offset)
            return
        values = self._without_sentinels(values)
        if not any(map(_is_there, values)):
            self.waiting = self.waiting or restart
            return
        restart, self.waiting = restart or self.waiting, False
        if not restart and self._relearns(time):
            self.close("gap", hold=False)
            self._empty()
            self.profile, self.learning = None, None
            self.doubled = 0
            self.relearnt, self.restarts, self.unfit = min(self.relearnt + 1, 3), 0, 0
            self._warm_up(_row_of(time, values), offset)
            return
        row = _row_of(time, values).after(
            self.window[-1].values if self.window else tuple(self.profile.center.tolist())
        )
        missing = 0 if restart or not self.window else self._missing_before(time)
        if restart or missing is None:
            self.close("gap", hold=False)
            self._empty()
            self.budget.forget_pending()
            self.restarts += 1
        else:
            before = self.window[-1] if missing else None
            for step in range(1, missing + 1):
                assert before is not None
                between = [
                    old + (new - old) * (step / (missing + 1))
                    for old, new in zip(before.values, row.values, strict=True)
                ]
                at = before.time + (time - before.time) * step // (missing + 1)
                self.window.append(Row(at, tuple(between), True, (False,) * len(between)))
        self.window.append(row)
        self.offset = offset
        self._judge()
        if self.learning is not None and self.episode is None:
            self._learn_anew(self.window[-1], self.learning)

    def _learn_anew(self, row: Row, rows: list[Row]) -> None:
        rows.append(row)
        if len(rows) == self.owner.config.warmup:
            try:
                profile, carry = self._build(rows)
            except NotYetError:
                self.learning = []
                return
            lately = [row for row in self.window if not row.imputed]
            unbroken = self.completed >= ROWS and rows[-len(lately) :] == lately
            assert self.profile is not None
            self._begin(replace(profile, sentinels=also_known(profile.sentinels, self.profile.sentinels)))
            if unbroken:
                self._carry(carry)
            else:
                self._forget()
            self.learning = None

    def _warm_up(self, row: Row, offset: int) -> None:
        self.warming.append(row)
        self.offset = offset
        warmup = self.owner.config.warmup
        if len(self.warming) < max(warmup, self.wanted):
            return
        patient = len(self.warming) < 4 * warmup
        try:
            profile, carry = self._build(self.warming, warmup if patient else None)
        except NotYetError as error:
            self.warming = self.warming if patient else self.warming[-ROWS:]
            self.wanted = len(self.warming) + max(error.rows, warmup // 10, 1)
            return
        self._begin(profile)
        rows = [_row_of(row.time, self._without_sentinels(row.values)) for row in self.warming]
        rows = [row for row in rows if not all(row.lacks)]
        last = tuple(next(filter(_is_there, column), 0.0) for column in zip(*(row.values for row in rows), strict=True))
        for row in rows:
            self.window.append(row.after(last))
            last = self.window[-1].values
        self._carry(carry)
        self.warming, self.wanted = [], 0

    def _relearns(self, time: int) -> bool:
        """Whether the sensor's readings no longer come as its profile says."""
        assert self.profile is not None
        median = self.profile.median_interval
        if not self.window or not self.profile.regular:
            return False
        gap = time - self.window[-1].time
        self.unfit = self.unfit + 1 if abs(gap - median) > 0.2 * median else max(self.unfit - 1, 0)
        limit = self.window_rules.max_gap
        within = limit is None or gap <= limit
        too_long = (2 * gap + median) // (2 * median) - 1 > self.window_rules.max_fill
        return self.unfit >= 100 or (within and too_long and self.restarts >= 2)

    def _paced(self, profile: Profile, rows: list[Row]) -> Profile:
        """The profile, without an interval if that would empty the window too often, or did before."""
        complete, filled, median = 0, 0, profile.median_interval
        for before, row in zip([None, *rows], rows, strict=False):
            missing = 0 if before is None else max((2 * (row.time - before.time) + median) // (2 * median) - 1, 0)
            filled = 1 if missing > self.window_rules.max_fill else filled + missing + 1
            complete += filled >= ROWS
        keeps = complete >= 0.5 * (len(rows) - ROWS + 1) and self.relearnt < 3
        return replace(profile, regular=profile.regular and keeps)

    def _without_sentinels(self, values: tuple[float, ...]) -> tuple[float, ...]:
        assert self.profile is not None
        known = zip(values, self.profile.sentinels.tolist(), strict=True)
        return tuple(math.nan if value in those else value for value, those in known)

    def _build(self, rows: list[Row], least: int | None = None) -> tuple[Profile, Carry]:
        if least is None:
            try:
                return self._build(rows, 150)
            except NotYetError:
                least = 0
        model, after = self.owner.model, self.alerts.open_after
        profile, carry = build_profile(
            np.array([row.time for row in rows]),
            np.array([row.marked for row in rows]),
            model.reconstruct,
            scaler=model.scaler,
            stride=model.stride,
            open_after=(after.n, after.of),
            least=least,
        )
        return self._paced(profile, rows), carry

    def _carry(self, carry: Carry) -> None:
        self.prediction, self.level = carry.prediction.tolist(), carry.level.tolist()
        self.relation = carry.relation[0] if len(carry.relation) else None
        self.reconstruction, self.completed = carry.held_error, carry.completions
        self.moves = {"quick": carry.drift_quick.tolist(), "slow": carry.drift_slow.tolist()}
        self.noise = {"quick": carry.noise_quick.tolist(), "slow": carry.noise_slow.tolist()}
        self.recent.extend([0.0] * len(carry.recent_u) if self._limited() else carry.recent_u.tolist())

    def _missing_before(self, time: int) -> int | None:
        """Rows to fill in before this one; None: the gap is too long."""
        assert self.profile is not None
        rules = self.window_rules
        gap = time - self.window[-1].time
        if rules.max_gap is not None and gap > rules.max_gap:
            return None
        if not self.profile.regular:
            return 0
        median = self.profile.median_interval
        intervals = (2 * gap + median) // (2 * median)
        if intervals - 1 > rules.max_fill:
            return None
        return max(intervals - 1, 0)

    def _scaled(self, rows: Iterable[Row]) -> list[tuple[float, ...]]:
        assert self.profile is not None
        center, scale = tuple(self.profile.center.tolist()), tuple(self.profile.scale.tolist())
        return [_in_units(row.values, center, scale) for row in rows]

    def _judge(self) -> None:
        """Score the newest row, if the window is complete, and follow the episode."""
        profile = self.profile
        assert profile is not None
        (now,), lacks = self._scaled([self.window[-1]]), self.window[-1].lacks
        squares = [math.nan if gone else z * z for z, gone in zip(now, lacks, strict=True)]
        self.level = _towards_what_is_there(self.level or squares, squares, SPAN_40)
        if len(self.window) < ROWS:
            return
        self.restarts = 0
        window = self._scaled(self.window)
        errors = []
        for channel, newest in enumerate(window[-1]):
            weights = profile.ridge[channel].tolist()
            forecast = math.fsum(w * z[channel] for w, z in zip(weights, window[:-1], strict=True))
            errors.append((newest - forecast - float(profile.bias[channel])) ** 2)
            if self._is_unforeseen(channel):
                errors[-1] = math.nan
        usual = profile.typical if len(errors) > 1 else self.scale.mean
        begun = [float(one) for one in usual[: len(errors)]]
        averages = self.prediction or [math.nan] * len(errors)
        for i, (first, error) in enumerate(zip(begun, errors, strict=True)):
            if _is_there(error):
                old = averages[i] if _is_there(averages[i]) else first or error
                averages[i] = old + SPAN_50 * (error - old)
        self.prediction = averages
        if self.completed % self.owner.model.stride == 0:
            self.reconstruction = self._reconstruction(window)
        self.completed += 1
        signals = [*self.prediction, self.reconstruction, *self.level]
        if len(errors) > 1:
            signals = self._views(errors, squares, np.array(window[-1]))
        worst = profile.worst.tolist()
        frozen: float = max(s / worst[i] for i, s in enumerate(signals) if i != self.scale.muted and _is_there(s))
        u = min(frozen, self.scale.adaptive(signals))
        maintained = self.owner.maintained(self.name, self.window[-1].time)
        self.scale.learn(signals, u, maintained=maintained)

        ruled, calm = max(self._stuck(), self._drift(maintained=maintained)), self._calm(errors, maintained=maintained)
        alarm = self.score = max(u, ruled, calm)
        self.ruled, self.calmed = alarm > u, alarm > u and calm >= alarm

        after = self.alerts.open_after
        eligible = alarm if not self._limited() or self._matters(learns=not maintained or u < 1) else 0.0
        if not self.recent:
            self.recent.extend([eligible] * (after.of - 1))
        self.recent.append(eligible)
        v = max(math.log(max(sorted(self.recent, reverse=True)[after.n - 1], 1e-9)), -2.5)
        self.judged = v
        self._follow(v, self.budget.next_row(), maintained)

    def _is_unforeseen(self, channel: int) -> bool:
        """Whether a channel's newest value is missing, or three values in a row are, anywhere in the window."""
        lacks = [row.lacks[channel] for row in self.window]
        return lacks[-1] or any(all(lacks[i : i + 3]) for i in range(ROWS - 2))

    def _views(self, errors: list[float], squares: list[float], z: F64) -> list[float]:
        """Prediction and place of a machine's newest row z (C,), by its forecasts' errors and its squares."""
        assert self.profile is not None
        assert self.prediction is not None
        assert self.level is not None
        typical, components = self.profile.typical.astype(float), self.profile.components.astype(float)
        channels, lacks = len(z), np.array(self.window[-1].lacks)
        z = np.where(lacks, 0.0, z)
        for _ in range(32 if lacks.any() else 0):
            for channel in np.flatnonzero(lacks):
                z[channel] = (components @ z) @ components[:, channel]
        error = float(((z - (components @ z) @ components) ** 2)[~lacks].mean())
        (self.relation,) = _towards([float(typical[-1]) if self.relation is None else self.relation], [error], SPAN_50)
        level = _mean_of_those_there(self.level, squares, typical[channels + 1 : -1])
        reconstruction = 1.0 if self.scale.is_mute else self.reconstruction / typical[channels]
        place = (reconstruction + level + self.relation / typical[-1]) / 3
        return [_mean_of_those_there(self.prediction, errors, typical[:channels]), place]

    def _stuck(self) -> float:
        """The square of how many of its limits a channel has been standing still for, from 1 on; at most 20."""
        assert self.profile is not None
        row, worst = self.window[-1].marked, 0.0
        runs = self.equal or [[] for _ in row]
        resolution = self.profile.resolution.tolist()
        near = [not run or abs(value - run[0]) <= r for run, value, r in zip(runs, row, resolution, strict=True)]
        self.equal = [
            ([*run, value] if on else [value]) if _is_there(value) else run
            for run, value, on in zip(runs, row, near, strict=True)
        ]
        for run, value, limit in zip(self.equal, row, self.profile.still_limit.tolist(), strict=True):
            worst = max(worst, (len(run) / limit) ** 2) if _is_there(value) else worst
        return min(worst, 20.0) if worst >= 1 else 0.0

    def _drift(self, *, maintained: bool) -> float:
        """The most that a channel has moved away by, in units of its limits, from 1 on; at most 20."""
        profile, worst = self.profile, 0.0
        assert profile is not None
        for i, z in enumerate(self._scaled([self.window[-1]])[0]):
            if self.window[-1].lacks[i]:
                continue
            worst = max(worst, self._drift_of(i, min(max(z, -5.0), 5.0), profile, maintained=maintained))
        return min(worst, 20.0) if worst >= 1 else 0.0

    def _drift_of(self, i: int, z: float, profile: Profile, *, maintained: bool) -> float:
        running = 1 / self.completed if self.completed < 500 else 0.0  # means of what there is
        for name, rate in (("quick", 2 / 201), ("slow", 2 / 1001)):
            self.moves[name][i] += max(rate, running) * (z - self.moves[name][i])
        if self.completed < 500 or math.isinf(profile.drift_worst[i]):
            return 0.0
        quick, slow = self.moves["quick"][i], self.moves["slow"][i]
        way = min(abs(quick - slow), abs(quick)) ** 2 if (quick - slow) * quick > 0 else 0.0
        mean, variance = self.ways[i]
        unit = math.sqrt(variance) + 1e-6
        away = (way - mean) / unit
        worst, worst_zz = (float(np.float32(limit[i])) for limit in (profile.drift_worst, profile.drift_worst_zz))
        worth: float = min(way / worst, away / worst_zz)
        if not (maintained and worth >= 1):
            far = 5.0 if worth >= 8 else 2.0
            rate, step = max(2 / 8001, 1 / self.scale.count), min(max(away, -far), far) * unit
            self.ways[i] = (mean + rate * step, (1 - rate) * (variance + rate * step * step))
        return worth

    def _calm(self, errors: list[float], *, maintained: bool) -> float:
        """The square of how many of its limits, as logarithms, the errors are smaller than usual by; at most 20."""
        profile, worst = self.profile, 0.0
        assert profile is not None
        quick, slow = self.noise["quick"], self.noise["slow"]
        for i, (error, value) in enumerate(zip(errors, self.window[-1].marked, strict=True)):
            usual, hush = (float(np.float32(one[i])) for one in (profile.noise_usual, profile.noise_hush))
            sticks = len(self.equal[i]) >= profile.still_limit[i]
            if sticks or math.isinf(hush) or not (_is_there(error) and _is_there(value)):
                continue
            quick[i] += 2 / 151 * (min(error, 2 * usual) - quick[i])
            fall = min(slow[i], usual) / max(quick[i], 1e-12)
            worth = (math.log(fall) / math.log(hush)) ** 2 if fall >= hush else 0.0
            worst = max(worst, worth)
            if not (maintained and worth):
                slow[i] += (2 / 1001 if quick[i] < slow[i] else 2 / 16001) * (quick[i] - slow[i])
        return min(worst, 20.0)

    def _limited(self) -> bool:
        alerts = self.alerts
        return alerts.direction != "both" or alerts.min_deviation.absolute > 0 or alerts.min_deviation.relative > 0

    def _matters(self, *, learns: bool) -> bool:
        """Whether the newest value of the channel that leans most lies off enough, and it leans to the right side."""
        assert self.profile is not None
        offs = [value - usual for value, usual in zip(self.window[-1].marked, self.usual, strict=True)]
        scales = self.profile.scale.tolist()
        self.lean = _towards_what_is_there(self.lean or offs, offs, 2 / 101)
        leans = [
            abs(lean) / scale if _is_there(off) else -1.0
            for lean, scale, off in zip(self.lean, scales, offs, strict=True)
        ]
        worst = leans.index(max(leans))
        off, usual, side = abs(offs[worst]), abs(self.usual[worst]), self.lean[worst]
        steps = [min(max(off, -5 * scale), 5 * scale) for off, scale in zip(offs, scales, strict=True)]
        if learns:
            self.usual = [
                usual + 2 / 8001 * step if _is_there(off) else usual
                for usual, step, off in zip(self.usual, steps, offs, strict=True)
            ]
        least = self.alerts.min_deviation
        if off < least.absolute or off < least.relative * usual:
            return False
        return {"both": True, "above": side > 0, "below": side < 0}[self.alerts.direction]

    def _reconstruction(self, window: list[tuple[float, ...]]) -> float:
        """Errors are taken and weighted in the model's own precision, and summed in double precision."""
        x = np.array(window, dtype=np.float32)
        lacks = [row.lacks for row in self.window]
        errors = np.where(lacks, 0.0, (x - self._rebuilt(x, lacks)) * ROOTS)
        return math.fsum(error * error for error in errors.ravel().tolist()) / len(window[0])

    def _rebuilt(self, x: F32, lacks: Sequence[Any]) -> F32:
        """What the model makes of a window; of what is missing, what it makes of its own guess, four times."""
        expected: F32 = self.owner.model.reconstruct(x[None])[0]
        for _ in range(4 if np.any(lacks) else 0):
            expected = self.owner.model.reconstruct(np.where(lacks, expected, x)[None])[0]
        return expected

    # -- episodes ------------------------------------------------------------------------------------------------

    def _follow(self, v: float, ln_threshold: float, maintained: bool) -> None:
        row = self.window[-1]
        episode = self.episode
        if episode is not None:
            if v >= episode.close_level:
                episode.quiet, episode.loud_time = 0, row.time
            else:
                episode.quiet += 1
            episode.peak = max(episode.peak, v)
            told = episode.critical, episode.muted
            episode.critical |= v >= self._critical_from(episode.ln_threshold)
            episode.muted &= maintained or v < episode.close_level
            over, changed = episode.quiet >= self.alerts.close_after, (episode.critical, episode.muted) != told
            if over or changed or self.completed % LOOK == 0:
                self._look(episode)
            if over:
                episode.critical, episode.muted = told
                self.close("recovered", hold=False)
            elif changed:
                self.update()
        elif v < ln_threshold:
            self.hold = False
            if maintained and v >= 0:
                self.budget.forget_pending()
            else:
                self.budget.quiet(v)
        elif self.hold:
            self.budget.forget_pending()
        else:
            self._open(v, ln_threshold, maintained)

    def _critical_from(self, ln_threshold: float) -> float:
        return ln_threshold + math.log(self.alerts.critical_ratio)

    def _open(self, v: float, ln_threshold: float, maintained: bool) -> None:
        self.budget.forget_pending()
        if self.learning is not None:
            self.learning = self.learning[:-50]
        detected = self.window[-1].time
        self.episode = Episode(
            name=alert_id("readings", "anomaly", self.name, detected),
            finding=first_look(
                self._seen(),
                int(max(self.ended, NEVER)),
                self.alerts.open_after.n,
                self._standing(),
                None,
                self._calm_channels() if self.calmed else None,
            ),
            until=detected,
            detected_at=detected,
            ln_threshold=ln_threshold,
            close_level=min(ln_threshold, 0.0),
            critical=v >= self._critical_from(ln_threshold),
            opened_offset=self.offset,
            peak=v,
            loud_time=detected,
            update_at=self.owner.deadline(self.alerts.update_every),
            close_at=self.owner.deadline(self.alerts.max_duration),
            muted=maintained,
        )
        self._tell("opened")

    def _seen(self) -> Window:
        """The window as what is claimed of a fault rests on it; the claims themselves have tests of their own."""
        assert self.profile is not None
        z = np.array(self._scaled(self.window))
        lacks = [row.lacks for row in self.window]
        expected = self._rebuilt(z.astype(np.float32), lacks).astype(np.float64)
        times = np.array([row.time for row in self.window])
        errors = np.where(lacks, 0.0, (z - expected) ** 2)
        return Window(times, z, errors, self.profile.ridge.astype(np.float64), self.profile.bias)

    def _calm_channels(self) -> Bools:
        assert self.profile is not None
        return np.isfinite(self.profile.noise_hush)

    def _standing(self) -> Run | None:
        """The channel that stands still for longest, if it or a drift opens an episode."""
        if not self.ruled or self.calmed:
            return None
        assert self.profile is not None
        lengths = [
            0 if lacks else self._still_in_window(channel) for channel, lacks in enumerate(self.window[-1].lacks)
        ]
        channel = int(np.argmax(np.array(lengths) / self.profile.still_limit))
        plausible = min(float(self.profile.still_limit[channel]), ROWS)
        return Run(channel, ROWS - lengths[channel], lengths[channel] >= plausible)

    def _still_in_window(self, channel: int) -> int:
        """For how many rows the channel has been where it is."""
        assert self.profile is not None
        values = [row.values[channel] for row in self.window]
        moved = [abs(value - values[-1]) > self.profile.resolution[channel] for value in reversed(values)]
        return moved.index(True) if any(moved) else ROWS

    def _look(self, episode: Episode) -> None:
        window, before = self._seen(), episode.finding.over
        episode.finding = next_look(episode.finding, window, episode.detected_at)
        if before is not None and episode.finding.over is None:
            episode.until = None
        last = until(episode.finding, window)
        episode.until = episode.until if last is None else last

    def _end_of(self, episode: Episode) -> int:
        return episode.loud_time if episode.until is None else max(episode.until, episode.finding.onset)

    def update(self) -> None:
        assert self.episode is not None
        self.episode.update_at = self.owner.deadline(self.alerts.update_every)
        self.episode.sequence += 1
        self._tell("updated")

    def close(self, reason: str, *, hold: bool) -> None:
        """End the open episode, if there is one."""
        if self.episode is None:
            return
        if not self.episode.muted:
            self.budget.spent(self.episode.peak)
        self.episode.sequence += 1
        self.ended = self.episode.loud_time
        self._tell("closed", reason)
        self.episode, self.hold = None, hold

    def _tell(self, event: str, reason: str | None = None) -> None:
        episode, profile = self.episode, self.profile
        assert episode is not None
        assert profile is not None
        assert self.judged is not None
        window = self._scaled(self.window)
        expected = self._rebuilt(np.array(window, dtype=np.float32), [row.lacks for row in self.window]).tolist()
        errors = [
            [0.0 if lacks else (a - b) ** 2 for a, b, lacks in zip(*parts, strict=True)]
            for parts in zip(window, expected, [row.lacks for row in self.window], strict=True)
        ]
        plain = [
            [z * scale + center for z, scale, center in zip(row, profile.scale, profile.center, strict=True)]
            for row in expected
        ]
        shown = [at for at, row in enumerate(self.window) if event != "updated" or row.time > episode.shown]
        episode.shown = self.window[-1].time
        channels = range(len(profile.scale))
        self.owner.events.append(
            Event(
                alert_id=episode.name,
                reason="anomaly",
                sequence=episode.sequence,
                event=event,
                close_reason=reason,
                severity="critical" if episode.critical else "warning",
                sensor=self.name,
                started_at=episode.finding.onset,
                detected_at=episode.detected_at,
                ended_at=self._end_of(episode) if event == "closed" else None,
                score=math.exp(self.judged),
                peak=math.exp(episode.peak),
                threshold=math.exp(episode.ln_threshold),
                opened_offset=episode.opened_offset,
                last_offset=self.offset,
                stamps=tuple(self.window[at].time // 10**6 for at in shown),
                imputed=tuple(self.window[at].imputed for at in shown),
                values=tuple(
                    tuple(None if row.lacks[i] else row.values[i] for row in (self.window[at] for at in shown))
                    for i in channels
                ),
                expected=tuple(tuple(plain[at][channel] for at in shown) for channel in channels),
                errors=tuple(tuple(errors[at][channel] for at in shown) for channel in channels),
                shares=tuple(episode.finding.shares),
                muted=episode.muted,
            )
        )


class Reference:
    """One partition: feed it records, read `events`."""

    def __init__(self, config: ReadingsConfig, model: Model, maintenance: Sequence[MaintenanceConfig] = ()) -> None:
        self.config, self.model, self.maintenance = config, model, maintenance
        self.sensors: dict[str, Sensor] = {}
        self.events: list[Event] = []
        self.clock: int | None = None
        self.resumed: dict[int, int] = {}
        self._ahead: list[tuple[str, int]] = []  # readings in a row beyond a day ahead, or behind
        self._behind: list[tuple[str, int]] = []
        self._heard: dict[str, int] = {}

    def settings_of(self, sensor: str) -> tuple[AlertsConfig, WindowConfig]:
        """The settings of a sensor: those of all, changed by the first override that matches it."""
        alerts, window = self.config.alerts, self.config.window
        if override := self._override_of(sensor):
            alerts = _changed(alerts, override.alerts)
            window = _changed(window, override.window)
        return alerts, window

    def _override_of(self, sensor: str) -> OverrideConfig | None:
        for override in self.config.overrides:
            if fnmatchcase(sensor, override.match):
                return override
        return None

    def feed(self, offset: int, readings: Sequence[Reading]) -> None:
        """Take in one record. Readings of sensors that are left out are as if they had never come."""
        readings = [reading for reading in readings if self._watched(reading.sensor)]
        before = self.clock
        jump = sum(self._advance(reading.sensor, reading.time) for reading in readings)
        if jump < 0:
            self.resumed = {pause: at + jump for pause, at in self.resumed.items()}
        for sensor in self.sensors.values():
            sensor.postpone(jump)
        if before is not None and self.clock is not None:
            step = self.clock - before
            self.resumed |= {pause: self.clock for pause in self._pauses() if step > pause}
        self._fire(offset)
        for reading in readings:
            if reading.sensor not in self.sensors:
                profile = self.model.profiles.get(reading.sensor)
                self.sensors[reading.sensor] = Sensor(self, reading.sensor, profile)
            sensor = self.sensors[reading.sensor]
            sensor.heard(offset)
            values = tuple(math.nan if value is None else value for value in reading.values)
            if any(map(_is_there, values)):
                for row in sensor.order.take(reading.time, values):
                    sensor.row(*row, offset)
        for name in {reading.sensor for reading in readings}:
            self.sensors[name].covered([reading.time for reading in readings if reading.sensor == name])

    def _pauses(self) -> set[int]:
        lengths = {self.config.silence_after, *(one.silence_after for one in self.config.overrides)}
        ladder = [one - one // 8 for one in patience.LADDER.tolist()] if "auto" in lengths else []
        return {*ladder, *(length for length in lengths if isinstance(length, int))}

    def maintained(self, sensor: str, time: int) -> bool:
        """Whether the sensor is worked on at that time."""
        return any(self.ends(sensor, time))

    def ends(self, sensor: str, time: int) -> list[int]:
        """When the windows end in which the sensor is worked on at that time."""
        return [one.end for one in self.maintenance if fnmatchcase(sensor, one.match) and one.start <= time < one.end]

    def silence_after(self, sensor: str) -> int | Literal["auto"] | None:
        """How long the sensor may be silent; None: for ever."""
        override = self._override_of(sensor)
        if override is not None and "silence_after" in override.model_fields_set:
            return override.silence_after
        return self.config.silence_after

    def switch(self, model: Model) -> None:
        """Another model from the next record on."""
        self.model = model
        for name, sensor in self.sensors.items():
            sensor.take_model(model.profiles.get(name))

    def numbers(self) -> dict[str, dict[str, list[float]]]:
        """What moves from row to row, by sensor; nothing of sensors that still warm up."""
        return {name: sensor.numbers() for name, sensor in self.sensors.items()}

    def deadline(self, duration: int | None) -> float:
        """The partition clock that is `duration` after the record at hand."""
        assert self.clock is not None
        return math.inf if duration is None else self.clock + duration

    def _advance(self, sensor: str, time: int) -> int:
        """Move the partition clock; returns by how much it jumped, if it did."""
        jump = 0
        if self.clock is None:
            self.clock = time
        elif time > self.clock + DAY:
            self._behind = []
            self._ahead.append((sensor, time))
            if self._believes(self._ahead):
                jump = time - self.clock
        elif time < self.clock - DAY:
            self._ahead = []
            self._behind.append((sensor, time))
            if len(self._behind) >= 20 and _is_looked_at(len(self._behind)) and self._are_all(self._behind):
                jump = max(time for _, time in self._behind) - self.clock
        else:
            self.clock, self._ahead, self._behind = max(self.clock, time), [], []
        if jump:
            self.clock, self._ahead, self._behind = self.clock + jump, [], []
            self._heard = {name: at + jump for name, at in self._heard.items()}
        self._heard[sensor] = self.clock
        return jump

    def _believes(self, ahead: list[tuple[str, int]]) -> bool:
        if len(ahead) < 20:
            return False
        span = ahead[-1][1] - min(time for _, time in ahead)
        if len({sensor for sensor, _ in ahead}) > 1 or span >= DAY:
            return True
        return _is_looked_at(len(ahead)) and self._are_all(ahead)

    def _are_all(self, readings: list[tuple[str, int]]) -> bool:
        """Whether nobody else was heard within a day of the clock, or the time after which sensors are forgotten."""
        assert self.clock is not None
        within = min(DAY, self.config.idle_eviction or DAY)
        of_late = {name for name, at in self._heard.items() if at > self.clock - within}
        return of_late <= {sensor for sensor, _ in readings}

    def _fire(self, offset: int) -> None:
        now = self.clock
        if now is None:
            return
        while due := [timer for sensor in self.sensors.values() for timer in sensor.timers() if timer[0] < now]:
            deadline, name, _, sensor, what = min(due, key=lambda timer: timer[:3])
            at = int(deadline)
            if what == "update":
                sensor.update()
            elif what == "silent":
                sensor.fall_silent(at, offset)
            elif what == "still silent":
                sensor.still_silent(at, offset)
            elif what == "silent for too long":
                sensor.end_silence("max_duration", at, offset)
                sensor.silent_no_more = True
            else:
                sensor.close(what, hold=True)
                if what == "evicted":
                    sensor.end_silence("evicted", at, offset)
                    del self.sensors[name]

    def _watched(self, sensor: str) -> bool:
        override = self._override_of(sensor)
        if override is not None and not override.enabled:
            return False
        rules = self.config.sensors
        return any(fnmatchcase(sensor, pattern) for pattern in rules.include) and not any(
            fnmatchcase(sensor, pattern) for pattern in rules.exclude
        )


def _is_looked_at(count: int) -> bool:
    return count == 20 or count & (count - 1) == 0


def budget_of(alerts: AlertsConfig, median_interval: int) -> float | None:
    """Readings per allowed false alarm."""
    allowed = alerts.false_alarms
    if allowed is None:
        return None
    per = allowed.readings if allowed.period is None else allowed.period / max(median_interval, 1)
    assert per is not None
    return min(max(per / allowed.per_sensor, 300.0), 1e6)


def _changed(settings: Any, override: Any) -> Any:
    """The settings with the keys that the override was given."""
    return type(settings)(
        **{
            key: getattr(override if key in override.model_fields_set else settings, key)
            for key in type(settings).model_fields
        }
    )


def _towards(old: list[float], new: list[float], rate: float) -> list[float]:
    return [a + rate * (b - a) for a, b in zip(old, new, strict=True)]


@functools.lru_cache(1000)
def _in_units(values: tuple[float, ...], center: tuple[float, ...], scale: tuple[float, ...]) -> tuple[float, ...]:
    """Kept, because every row stands in a hundred windows."""
    return tuple(min(max((v - c) / s, -1e4), 1e4) for v, c, s in zip(values, center, scale, strict=True))


def _towards_what_is_there(old: list[float], new: list[float], rate: float) -> list[float]:
    """The same; what is not there, NaN, moves nothing, and begins an average that is not there."""
    return [a if not _is_there(b) else a + rate * (b - a) if _is_there(a) else b for a, b in zip(old, new, strict=True)]


def _mean_of_those_there(averages: list[float], newest: list[float], usual: F64) -> float:
    """The mean of averages in units of what is usual, of channels whose newest value is there; NaN: none is."""
    units = zip(averages, newest, usual.tolist(), strict=True)
    parts = [average / unit for average, value, unit in units if _is_there(value) and unit > 0]
    return sum(parts) / len(parts) if parts else math.nan


def _is_there(value: float) -> bool:
    return not math.isnan(value)


def _row_of(time: int, values: tuple[float, ...]) -> Row:
    return Row(time, values, False, tuple(map(math.isnan, values)))


def _weight(age: int) -> float:
    """Weight of the squared error of the row that many rows before the newest; all hundred sum to 1."""
    keep = 1 - SPAN_50
    return math.pow(keep, age) * (1 - keep) / (1 - keep**ROWS)


ROOTS = np.array([[math.sqrt(_weight(99 - i))] for i in range(ROWS)], dtype=np.float32)
"""Of the weights of a window's rows, the oldest first."""
