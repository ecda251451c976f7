"""THE catalogue of metrics: every name, unit, label and bucket this process exports, and nothing elsewhere.

Rules it keeps: base units in the name, `_total` on counters, no label that grows with the plant (a sensor appears
only when `metrics.sensors` names it). Children of closed label sets exist from the start, so their series begin at 0
and a rate over the first event is right. Hot paths hold a child in a variable; they never call `.labels()`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from detector import __version__
from detector.detection.watch import REASONS, Reason
from detector.engine.overview import SensorView
from detector.wire.alerts import Kind
from detector.wire.readings import FrameReason, Word
from detector.wire.readings import Reason as RejectReason
from detector.wire.verdicts import WORDS

KINDS: Final[tuple[Kind, ...]] = ("readings", "frames")
EVENTS: Final = ("opened", "updated", "closed")
SEVERITIES: Final = ("warning", "critical")

# What became of a reading: taken into its sensor's window, a null at its timestamp, older than what was released,
# a timestamp seen before, refused with a dead letter, or of a sensor the configuration leaves out.
READING_OUTCOMES: Final = ("accepted", "missing", "late", "duplicate", "rejected", "excluded", "failed")

# What became of a frame: taken in as it came or after a change of its size; the others as for readings.
FRAME_OUTCOMES: Final = ("accepted", "resized", "late", "duplicate", "rejected", "failed")

# Why a record or a part of one was refused.
REJECT_REASONS: Final[tuple[RejectReason | FrameReason, ...]] = (*get_args(RejectReason), *get_args(FrameReason))

# Where an error was met and survived: everything was begun again from the last commit, or the broker had to be waited
# for; a page could not be made; the broker had forgotten a committed offset; a reload was refused; a sensor was set
# aside; a record could not be dealt with.
STAGES: Final = ("commit", "http", "offsets", "reload", "sensor", "record")

_LATENCY: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Event time runs from live (milliseconds) to a backlog of days.
_EVENT_LATENCY: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_RECORDS: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 100000.0)
# A score of 1 is the threshold without a bar; half of the buckets lie on either side of it.
_SCORE: Final = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
# Squared errors in units of a sensor's own variance.
_ERROR: Final = tuple(float(f"{mantissa}e{exponent}") for exponent in range(-4, 5) for mantissa in (1, 3))


@dataclass(frozen=True, slots=True)
class Description:
    """A metric as people read of it. `labels` include those that an info metric carries."""

    section: str
    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


class Maker:
    """Makes the metrics of a section, without the `detector_` that all their names begin with, and describes them."""

    def __init__(self, registry: CollectorRegistry, section: str, described: list[Description]) -> None:
        self._registry = registry
        self._section = section
        self._described = described

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._describe(name, "counter", text, labels), text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._describe(name, "gauge", text, labels), text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        full = self._describe(name, "histogram", text, labels, buckets)
        return Histogram(full, text, labels, buckets=buckets, registry=self._registry)

    def info(self, name: str, text: str, *labels: str, carries: tuple[str, ...]) -> Info:
        self._describe(f"{name}_info", "info", text, (*labels, *carries))
        return Info(f"detector_{name}", text, labels, registry=self._registry)

    def _describe(
        self, name: str, type_: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = ()
    ) -> str:
        self._described.append(Description(self._section, f"detector_{name}", type_, labels, text, buckets))
        return f"detector_{name}"


class Metrics:
    """All metrics of one process, on a registry of their own.

    `sensors` are the ids that get series of their own. Creating it turns off prometheus_client's `_created` series,
    which would double the number of series, for the whole process.
    """

    def __init__(self, registry: CollectorRegistry, *, sensors: Sequence[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self.described: list[Description] = []
        """What `docs/metrics.md` lists."""
        self._latency_and_size()
        self._results()
        self._input()
        self._process()
        self._watched(sensors)

    def _latency_and_size(self) -> None:
        make = self._maker("Latency and size")
        self.event_latency = make.histogram(
            "event_latency_seconds",
            "Time from a partition's newest accepted timestamp (event time) to the commit that covers it",
            _EVENT_LATENCY,
        )
        self.commit_latency = make.histogram(
            "commit_latency_seconds",
            "Time from the broker's timestamp of a partition's newest record to the commit that covers it; "
            "nothing where there is no broker",
            _LATENCY,
        )
        scoring = make.histogram(
            "scoring_seconds", "Time one batch of records takes from decoding to alerts", _LATENCY, "kind"
        )
        self.scoring: dict[Kind, Histogram] = {kind: scoring.labels(kind) for kind in KINDS}
        self.batch_records = make.histogram("batch_records", "Records handed out by one poll", _RECORDS)
        self.commit = make.histogram("commit_seconds", "Time one durable commit takes", _LATENCY)
        self.restore = make.histogram(
            "restore_seconds", "Time from the assignment of a partition to its first live record", _SLOW
        )
        self.snapshot_bytes = make.gauge(
            "snapshot_bytes",
            "Size of the state of all partitions as it was last stored, before compression; on Kafka of the slices "
            "stored since the assignment of a partition, all of them after one state.snapshot_interval",
        )

    def _results(self) -> None:
        make = self._maker("Results")
        error = make.histogram(
            "reconstruction_error",
            "Weighted squared error of the autoencoder, in units of the sensor's own variance; of frames, of pixels",
            _ERROR,
            "kind",
        )
        self.reconstruction_error: dict[Kind, Histogram] = {kind: error.labels(kind) for kind in KINDS}
        score = make.histogram(
            "score", "Scores; 1 is as bad as the worst of training and the threshold without a bar", _SCORE, "kind"
        )
        self.score: dict[Kind, Histogram] = {kind: score.labels(kind) for kind in KINDS}
        scored = make.counter("windows_scored_total", "Windows, or frames, that were scored", "kind")
        self.windows_scored: dict[Kind, Counter] = {kind: scored.labels(kind) for kind in KINDS}
        alerts = make.counter(
            "alerts_total", "Alert messages published that are not muted", "kind", "event", "severity"
        )
        self.alerts: dict[tuple[str, str, str], Counter] = {
            labels: alerts.labels(*labels) for labels in product(KINDS, EVENTS, SEVERITIES)
        }
        muted = make.counter("muted_alerts_total", "Alert messages published that are muted", "kind")
        self.muted_alerts: dict[Kind, Counter] = {kind: muted.labels(kind) for kind in KINDS}
        verdicts = make.counter("verdicts_total", "Verdicts on alerts that took effect, by what they say", "is")
        self.verdicts: dict[Word, Counter] = {word: verdicts.labels(word) for word in WORDS}
        open_episodes = make.gauge("open_episodes", "Alert episodes open at the moment that are not muted", "kind")
        self.open_episodes: dict[Kind, Gauge] = {kind: open_episodes.labels(kind) for kind in KINDS}
        budget = make.gauge(
            "false_alarm_budget_ratio",
            "Episodes opened over the last day of event time, without those judged `real` or `expected`, over what the "
            "budget allows in a day",
            "kind",
        )
        self.budget_ratio: dict[Kind, Gauge] = {kind: budget.labels(kind) for kind in KINDS}
        opened = make.gauge(
            "budget_opened",
            "Episodes a person was called for in the last day of event time, without `real` and `expected` ones",
            "kind",
        )
        self.budget_opened: dict[Kind, Gauge] = {kind: opened.labels(kind) for kind in KINDS}
        allowed = make.gauge("budget_allowed", "What the budget of the sensors watched allows in a day", "kind")
        self.budget_allowed: dict[Kind, Gauge] = {kind: allowed.labels(kind) for kind in KINDS}

    def _input(self) -> None:
        make = self._maker("Input")
        readings = make.counter("readings_total", "Readings by what became of them", "outcome")
        self.readings: dict[str, Counter] = {outcome: readings.labels(outcome) for outcome in READING_OUTCOMES}
        frames = make.counter("frames_total", "Frames by what became of them", "outcome")
        self.frames: dict[str, Counter] = {outcome: frames.labels(outcome) for outcome in FRAME_OUTCOMES}
        self.inputs: dict[Kind, dict[str, Counter]] = {"readings": self.readings, "frames": self.frames}
        rejects = make.counter("rejects_total", "Records or elements of records refused, by reason", "reason")
        self.rejects: dict[str, Counter] = {reason: rejects.labels(reason) for reason in REJECT_REASONS}
        self.sensors = make.gauge("sensors", "Sensors that have state")
        self.sensors_warming = make.gauge("sensors_warming", "Sensors that have no profile yet and cannot alert")
        self.sensors_relearning = make.gauge(
            "sensors_relearning",
            "Sensors the model does not know that keep the profile made with another one, without its reconstruction "
            "signal, until they have learnt this one",
        )
        unwatched = make.gauge("sensors_unwatched", "Sensors of which no fault would be told, by why not", "reason")
        self.sensors_unwatched: dict[Reason, Gauge] = {reason: unwatched.labels(reason) for reason in REASONS}
        self.clock_resets = make.counter(
            "clock_resets_total", "Sensors started again because their clock went back for good"
        )
        # They carry the partitions of this process alone: `partition_gone` takes a lost one away.
        self.restore_progress = make.gauge(
            "restore_progress_ratio",
            "Share of the records to be run again after a restore that were; 1 once the partition is live",
            "stream",
            "partition",
        )
        self.last_event_timestamp = make.gauge(
            "last_event_timestamp_seconds",
            "Largest accepted timestamp of a partition, seconds since the epoch",
            "stream",
            "partition",
        )
        self.lag = make.gauge(
            "lag_records",
            "Records that are there and not read yet (bytes on the directory backend)",
            "stream",
            "partition",
        )

    def _process(self) -> None:
        make = self._maker("Process")
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.ready = make.gauge("ready", "1 when /readyz answers 200, else 0")
        self.last_progress = make.gauge(
            "loop_last_progress_timestamp_seconds", "When the main loop last finished a turn, seconds since the epoch"
        )
        self._model = make.info("model", "The active model", "kind", carries=("name", "version", "digest"))
        self.last_reload_successful = make.gauge(
            "config_last_reload_successful", "1 when the newest configuration or model is the one in use, else 0"
        )
        self.last_reload_successful.set(1)
        errors = make.counter("errors_total", "Errors met and survived, by where", "stage")
        self.errors: dict[str, Counter] = {stage: errors.labels(stage) for stage in STAGES}
        self.replay_mismatches = make.counter(
            "replay_mismatch_total", "Episodes whose replayed state differed from the published one"
        )
        build = make.info("build", "Version of the program and of Python", carries=("version", "python"))
        build.info({"version": __version__, "python": platform.python_version()})

    def _watched(self, sensors: Iterable[str]) -> None:
        make = self._maker("Sensors named in metrics.sensors")
        texts = {
            "value": "Newest value of a sensor named in metrics.sensors, of its first channel",
            "expected": "What the model expected in its place",
            "score": "Newest score of the sensor; 1 is as bad as the worst of training",
            "threshold": "Threshold that its next score is compared with",
        }
        self._sensor_gauges = {name: make.gauge(f"sensor_{name}", text, "sensor_id") for name, text in texts.items()}
        self._sensors = frozenset(sensors)
        self._shown: set[tuple[str, str]] = set()

    def _maker(self, section: str) -> Maker:
        return Maker(self.registry, section, self.described)

    def model(self, kind: Kind, *, name: str, version: str, digest: str) -> None:
        """State the active model of `kind` in place of the one before."""
        self._model.labels(kind).info({"name": name, "version": version, "digest": digest})

    def watch(self, views: Iterable[SensorView]) -> None:
        """State the sensors named in `metrics.sensors` that are there now; the series of the others go.

        What is not known of one (its score while it warms up) has no series.
        """
        shown = set()
        for view in views:
            if view.sensor_id not in self._sensors:
                continue
            numbers = {"score": view.score, "threshold": view.threshold}
            if len(view.values):
                numbers["value"] = float(view.values[-1, 0])
            if view.expected is not None:
                numbers["expected"] = float(view.expected[-1, 0])
            for name, number in numbers.items():
                if math.isfinite(number):
                    self._sensor_gauges[name].labels(view.sensor_id).set(number)
                    shown.add((name, view.sensor_id))
        for name, sensor_id in self._shown - shown:
            self._sensor_gauges[name].remove(sensor_id)
        self._shown = shown

    def partition_gone(self, stream: str, partition: int) -> None:
        """Drop the series of a partition that another process reports from now on."""
        for gauge in (self.last_event_timestamp, self.lag, self.restore_progress):
            gauge.remove(stream, partition)


def observe_many(histogram: Histogram, values: NDArray[np.floating]) -> int:
    """Observe every element of `values` (any shape) and return how many were not finite and so left out.

    One NaN would make the sum NaN for good. The effect is that of `observe` in a loop, at the cost of one addition a
    bucket; `prometheus_client` has no public way to do that, which is why its version is bounded in pyproject.toml.
    """
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if finite.size:
        # The first bucket whose bound is not below the value, as in `observe`. SLF001: see above.
        bounds = histogram._upper_bounds  # noqa: SLF001
        counts = np.bincount(np.searchsorted(bounds, finite, side="left"), minlength=len(bounds))
        for index in np.flatnonzero(counts):
            histogram._buckets[index].inc(float(counts[index]))  # noqa: SLF001
        histogram._sum.inc(float(finite.sum()))  # noqa: SLF001
    return int(np.size(values) - finite.size)
