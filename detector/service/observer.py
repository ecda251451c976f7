"""What the main loop tells of itself: counts and times into the metrics, and a status for people once a second."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from detector.detection.watch import REASONS, Reason
from detector.engine.budget import BudgetAccount
from detector.engine.output import Output
from detector.engine.overview import Overview
from detector.engine.partition import PartitionPipeline
from detector.errors import is_foreseen
from detector.service.health import WAITING, Health
from detector.service.logs import event
from detector.service.metrics import KINDS, Metrics, observe_many
from detector.service.watchlog import WatchLog
from detector.service.web.status import Board, PartitionStatus, Sensor, Setup, Status, Unwatched
from detector.streams.base import Partition
from detector.wire.alerts import Kind
from detector.wire.readings import EXEMPT

_log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 1.0
"""How often a status is made: often enough for a person, seldom enough to cost nothing."""
RESTORE_SECONDS: Final = 5.0
"""Between two log lines about the restore of one partition."""
RATE_SECONDS: Final = 10.0
"""The time over which a throughput is taken."""
HISTORY: Final = 300
"""This many throughputs are kept, one a second."""
LISTED: Final = 100
"""This many sensors that are not watched are named."""
SHOWN: Final = 12
"""This many sensors are shown of each sort: the worst ones."""
CLOSED: Final = 20
"""This many of the episodes that have closed are shown."""
LATE_SECONDS: Final = 60.0
"""Between two log lines about readings that came too late, of which there may be some in every batch."""
NAMED: Final = 5
"""This many sensors are named there: those with the most."""
NANOSECONDS: Final = 1e9

Pipelines = Mapping[Partition, PartitionPipeline]


class Observer:
    """Called by the main loop alone. Event times it gives to no one are ns, all others seconds."""

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        board: Board,
        setup: Setup,
        *,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.inputs: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        """Readings and frames that came in, whatever became of them."""
        self.unused: dict[str, int] = dict.fromkeys(("late", "duplicate", "rejected"), 0)
        """Those of them that were not used, by outcome."""
        self.alerts = 0
        self._metrics = metrics
        self._health = health
        self._board = board
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self.setup = setup
        self._started = wall_clock()
        self._closed: deque[bytes] = deque(maxlen=CLOSED)
        self._event_latency: float | None = None
        self._commit_latency: float | None = None
        self._commit_seconds: float | None = None
        self._waiting = False
        self._overview_failed = False
        self._watch_logs: dict[Partition, WatchLog] = {}
        self._full: set[Kind] = set()  # where new sensors were refused
        self._late = LateInputs(monotonic)
        self._samples: deque[tuple[float, dict[Kind, int]]] = deque()
        self._rates: dict[Kind, deque[float]] = {kind: deque(maxlen=HISTORY) for kind in KINDS}

    @property
    def setup(self) -> Setup:
        """With what the process works."""
        return self._setup

    @setup.setter
    def setup(self, setup: Setup) -> None:
        self._setup = setup
        for kind, model in setup.models.items():
            self._metrics.model(kind, name=model.name, version=model.version, digest=model.digest)
        self._metrics.last_reload_successful.set(setup.reloaded)
        self._due = self._monotonic()

    def reload_failed(self) -> None:
        """What is newest is not in use."""
        self._metrics.errors["reload"].inc()
        self.setup = replace(self._setup, reloaded=False)

    def processed(self, pipeline: PartitionPipeline, output: Output) -> None:
        """A pipeline has returned this, and it was written."""
        metrics, kind = self._metrics, pipeline.kind
        self.alerts += len(output.alerts)
        self._board.hear(output.alerts)
        for outcome, count in output.outcomes().items():
            metrics.inputs[kind][outcome].inc(count)
            self.inputs[kind] += count
            if outcome in self.unused:
                self.unused[outcome] += count
        self._late.met(kind, output.late_of)
        for reason, count in output.rejected.items():
            metrics.rejects[reason].inc(count)
        if output.rejected.get("too_many_sensors") and kind not in self._full:
            self._full.add(kind)
            event(
                _log, logging.WARNING, "too_many_sensors",
                stream=pipeline.partition.stream, partition=pipeline.partition.number, sensors=pipeline.sensors,
            )  # fmt: skip
        if not output.rejected.keys() <= EXEMPT:
            records, reasons = len(output.refused), output.rejected
            if kind == "frames":
                event(_log, logging.WARNING, "frames_rejected", records=records, reasons=reasons)
            else:
                event(_log, logging.WARNING, "readings_rejected", records=records, reasons=reasons)
        for failure in output.failures:
            metrics.errors["sensor"].inc()
            event(
                _log, logging.ERROR, "sensor_failed",
                sensor_id=failure.sensor_id, stage=failure.stage, stream=pipeline.partition.stream,
                partition=pipeline.partition.number, offset=failure.offset, traceback=failure.traceback,
            )  # fmt: skip
        for one in output.sentinels:
            event(
                _log, logging.WARNING, "value_taken_as_missing",
                sensor_id=one.sensor_id, channel=one.channel, value=one.value, times=one.times,
                text=f"{one.value:.10g} came {one.times} times: taken as missing",
            )  # fmt: skip
        for trace in output.internal:
            event(_log, logging.ERROR, "record_not_decoded", stream=pipeline.partition.stream, traceback=trace)
        metrics.errors["record"].inc(output.rejected.get("internal", 0))
        metrics.clock_resets.inc(output.tally.resets)
        for scores in output.scores:
            observe_many(metrics.score[kind], scores)
            metrics.windows_scored[kind].inc(len(scores))
        for errors in output.errors:
            observe_many(metrics.reconstruction_error[kind], errors)
        # The event is among the first keys of an alert; whether it is one is seen when somebody looks.
        self._closed.extend(message.value for message in output.alerts if b'"closed"' in message.value[:200])
        for (what, severity), count in output.events.items():
            metrics.alerts[kind, what, severity].inc(count)
        metrics.muted_alerts[kind].inc(output.muted)
        for word, count in output.judged.items():
            metrics.verdicts[word].inc(count)
        if output.budgets_limited:
            event(
                _log, logging.WARNING, "budget_limited", sensors=output.budgets_limited,
                text=f"the false-alarm budget of these sensors is kept within 300 to 1000000 {kind} an alarm",
            )  # fmt: skip
        if pipeline.clock is not None:
            self._watch_logs.setdefault(pipeline.partition, WatchLog()).changed(output.watch_changes, pipeline.clock)

    def committed(self, seconds: float, moved: Iterable[PartitionPipeline], stamps: Iterable[int]) -> None:
        """A durable commit took so long, with something new of `moved`; others are no later for it.

        `stamps`: the broker's time (ms) of each partition's newest record in it.
        """
        metrics, now = self._metrics, self._wall_clock()
        metrics.commit.observe(seconds)
        self._commit_seconds = seconds
        of_events = [max(0.0, now - pipeline.clock / NANOSECONDS) for pipeline in moved if pipeline.clock is not None]
        of_broker = [max(0.0, now - milliseconds / 1000) for milliseconds in stamps]
        for latency in of_events:
            metrics.event_latency.observe(latency)
        for latency in of_broker:
            metrics.commit_latency.observe(latency)
        self._event_latency = max(of_events, default=self._event_latency)
        self._commit_latency = max(of_broker, default=self._commit_latency)

    def turned(self, pipelines: Pipelines, lag: Mapping[Partition, int]) -> None:
        """The loop has done a turn."""
        self._metrics.last_progress.set(self._wall_clock())
        reasons = self._health.reasons
        self._metrics.ready.set(not reasons)
        if WAITING in reasons and not self._waiting:
            self._metrics.errors["commit"].inc()
        self._waiting = WAITING in reasons
        partitions = tuple(
            PartitionStatus(
                at.stream, at.number, one.kind, one.position, lag.get(at, 0),
                one.sensors, one.warming, one.open_episodes, one.clock, one.restoring, one.relearning,
                one.muted_episodes,
            )
            for at, one in sorted(pipelines.items())
        )  # fmt: skip
        self._gauge(partitions)
        self._late.tell()
        now = self._monotonic()
        if now >= self._due:
            self._due = now + EVERY_SECONDS
            self._sample(now)
            self._board.status = self._look(pipelines, partitions)

    def drained(self, pipelines: Pipelines, lag: Mapping[Partition, int]) -> None:
        """The last commit is done: what is shown from here on is how it ended."""
        self._due = self._monotonic()
        self.turned(pipelines, lag)

    def stopped(self) -> None:
        """It is over, in whatever way."""
        self._late.tell(now=True)
        status = self._board.status
        if status is not None:  # after a failure it is of up to a second ago
            self._board.status = replace(status, at=self._wall_clock(), inputs=dict(self.inputs), alerts=self.alerts)

    def gone(self, partition: Partition) -> None:
        """The partition is no longer ours."""
        self._watch_logs.pop(partition, None)

    def _unwatched(self, pipelines: Pipelines) -> tuple[Counter[Reason], tuple[Unwatched, ...]]:
        """How many sensors are not watched, by reason, and some of them."""
        counts: Counter[Reason] = Counter(dict.fromkeys(REASONS, 0))
        for one in pipelines.values():
            counts.update(one.unwatched)
        for reason, gauge in self._metrics.sensors_unwatched.items():
            gauge.set(counts[reason])
        found = [
            Unwatched(one.kind, at, *named) for at, one in pipelines.items() for named in one.some_unwatched(LISTED)
        ]
        return counts, tuple(
            sorted(found, key=lambda one: (one.reason == "warming", one.reason == "threshold"))[:LISTED]
        )

    def _overview(self, pipeline: PartitionPipeline) -> Overview:
        """What is shown of a partition; nothing where that fails, because nobody's alerts depend on it."""
        try:
            return pipeline.overview(self._setup.sensors, SHOWN)
        except Exception as error:
            if is_foreseen(error):
                raise
            if not self._overview_failed:
                self._overview_failed = True
                at = pipeline.partition
                _log.error(
                    "overview_failed", exc_info=True, extra={"fields": {"stream": at.stream, "partition": at.number}}
                )
            return Overview((), (), ())

    def _look(self, pipelines: Pipelines, partitions: tuple[PartitionStatus, ...]) -> Status:
        """The status, with what is seen of the sensors; those with metrics of their own go there, too."""
        seen = {at: self._overview(one) for at, one in pipelines.items()}
        self._metrics.watch(view for overview in seen.values() for view in overview.named)
        worst = [Sensor(pipelines[at].kind, at, view) for at, overview in seen.items() for view in overview.worst]
        episodes = [Sensor(pipelines[at].kind, at, view) for at, overview in seen.items() for view in overview.episodes]
        counts, unwatched = self._unwatched(pipelines)
        return Status(
            at=self._wall_clock(),
            started=self._started,
            setup=self._setup,
            partitions=partitions,
            inputs=dict(self.inputs),
            rates={kind: tuple(rates) for kind, rates in self._rates.items()},
            alerts=self.alerts,
            budget_ratios=self._budgets(pipelines),
            event_latency=self._event_latency,
            commit_latency=self._commit_latency,
            commit_seconds=self._commit_seconds,
            worst=tuple(sorted(worst, key=lambda one: -one.view.score)[:SHOWN]),
            episodes=tuple(sorted(episodes, key=_urgency)[:SHOWN]),
            unwatched_by_reason={reason: count for reason, count in counts.items() if count},
            unwatched=unwatched,
            closed=tuple(reversed(self._closed)),
        )

    def _budgets(self, pipelines: Pipelines) -> dict[Kind, float]:
        """By kind, how the budget of the last day is kept by partitions whose state is complete; also as metrics."""
        ratios: dict[Kind, float] = {}
        for kind in KINDS:
            total = BudgetAccount()
            for one in pipelines.values():
                if one.kind == kind and not one.restoring:
                    account = one.budget_account
                    total.add(account.opened, account.allowed)
            self._metrics.budget_opened[kind].set(total.opened)
            self._metrics.budget_allowed[kind].set(total.allowed)
            self._metrics.budget_ratio[kind].set(total.ratio or 0.0)
            if total.ratio is not None:
                ratios[kind] = total.ratio
        return ratios

    def _gauge(self, partitions: Sequence[PartitionStatus]) -> None:
        metrics = self._metrics
        metrics.sensors.set(sum(one.sensors for one in partitions))
        metrics.sensors_warming.set(sum(one.warming for one in partitions))
        metrics.sensors_relearning.set(sum(one.relearning for one in partitions))
        for kind in KINDS:
            told = (one.open_episodes - one.muted_episodes for one in partitions if one.kind == kind)
            metrics.open_episodes[kind].set(sum(told))
        for one in partitions:
            labels = one.stream, str(one.number)
            metrics.lag.labels(*labels).set(one.lag)
            if one.clock is not None:
                metrics.last_event_timestamp.labels(*labels).set(one.clock / NANOSECONDS)

    def _sample(self, now: float) -> None:
        samples = self._samples
        samples.append((now, dict(self.inputs)))
        while len(samples) > 2 and now - samples[1][0] >= RATE_SECONDS:
            samples.popleft()
        since, before = samples[0]
        for kind, count in self.inputs.items():
            self._rates[kind].append((count - before[kind]) / (now - since) if now > since else 0.0)


def _urgency(one: Sensor) -> tuple[bool, float]:
    """Critical episodes first, then those that were worst."""
    episode = one.view.episode
    return (True, 0.0) if episode is None else (episode.severity != "critical", -episode.peak)


class RestoreProgress:
    """The share that was run again of a partition's records from `position` up to `live_from`."""

    def __init__(
        self, partition: Partition, position: int, live_from: int, metrics: Metrics, monotonic: Callable[[], float]
    ) -> None:
        self._partition = partition
        self._first = position
        self._last = live_from
        self._share = metrics.restore_progress.labels(*partition)
        self._share.set(0.0)
        self._monotonic = monotonic
        self._told = monotonic()

    def reached(self, position: int) -> None:
        """Records before `position` were run again."""
        share = (position - self._first) / (self._last - self._first)
        self._share.set(share)
        now = self._monotonic()
        if now - self._told >= RESTORE_SECONDS:
            self._told = now
            event(
                _log, logging.INFO, "restore_progress",
                stream=self._partition.stream, partition=self._partition.number,
                position=position, live_from=self._last, percent=round(100 * share),
            )  # fmt: skip


class LateInputs:
    """Tells the log what was dropped for coming too late: at once, and then once a minute what has come since."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._late: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}  # not told yet
        self._due = monotonic()

    def met(self, kind: Kind, late: Counter[str]) -> None:
        """Readings of these sensors, or frames of these cameras, were dropped: how many of each."""
        if late:
            self._late[kind].update(late)
            self.tell()

    def tell(self, *, now: bool = False) -> None:
        """Tell of what there is, if it is time, or `now`."""
        if not now and self._monotonic() < self._due:
            return
        for kind, late in self._late.items():
            if late:
                self._due = self._monotonic() + LATE_SECONDS
                sensor_ids = [sensor_id for sensor_id, _ in late.most_common(NAMED)]
                count, sensors = late.total(), len(late)
                if kind == "frames":
                    event(_log, logging.WARNING, "frames_late", count=count, sensors=sensors, sensor_ids=sensor_ids)
                else:
                    event(_log, logging.WARNING, "readings_late", count=count, sensors=sensors, sensor_ids=sensor_ids)
                late.clear()


class DuplicateSensors:
    """Tells the log once, when a sensor is met on a partition that is known on another one of this process."""

    def __init__(self) -> None:
        self._told = False

    def met(
        self, pipelines: Mapping[Partition, PartitionPipeline], partition: Partition, sensor_ids: Iterable[str]
    ) -> None:
        """These sensors have come up on one of the partitions: with records, or with its state."""
        if self._told or pipelines[partition].kind != "readings":
            return
        others = [one for place, one in pipelines.items() if place.stream == partition.stream and place != partition]
        if not others:
            return
        for sensor_id in sensor_ids:
            twin = next((other for other in others if other.knows(sensor_id)), None)
            if twin is not None:
                self._told = True
                event(
                    _log, logging.WARNING, "sensor_on_two_partitions", stream=partition.stream, sensor_id=sensor_id,
                    partitions=sorted((twin.partition.number, partition.number)),
                    text="they are two sensors, each with its own window; use the sensor id as the record key",
                )  # fmt: skip
                return
