"""A backtest: the daemon's own path over recorded data, and what it would have said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from detector.detection.watch import REASONS, Reason
from detector.engine.budget import BudgetAccount
from detector.engine.order import Order
from detector.engine.output import SensorFailure
from detector.engine.readings import ReadingsPipeline
from detector.reports.scoreboard import Episodes, EpisodeSpan, Label, Scoreboard, fitting, score
from detector.reports.text import duration
from detector.streams.base import Batch, Partition
from detector.times import rfc3339
from detector.wire.alerts import decode_alert
from detector.wire.readings import Decoder, Readings, Word
from detector.wire.verdicts import WORDS

SHOWN_SENSORS = 20
NAMED_UNWATCHED = 100
"""This many sensors are named for each reason for which some are not watched at the end."""


@dataclass(slots=True)
class BacktestResult:
    """`alerts`: the messages as `run` publishes them. `board`: against labels, if there were any.

    `disorder`: why the recording is not in the order of time, None: it is. `limited`: sensors whose budget in readings
    was kept within limits. `labels` are those of the recording, `foreign` those of other sensors or times. `first`,
    `last`: the period covered, ns; `watched`: how long sensors were watched, all together, by their readings, ns.
    `unwatched`: sensors of which no fault would be told at the end, by reason;
    `unwatched_sensors`: some of them. `verdicts` took effect, by word; `unknown_verdicts` are on alerts that this run,
    with its model and settings, did not lead to.
    """

    alerts: list[bytes] = field(default_factory=list)
    episodes: list[EpisodeSpan] = field(default_factory=list)
    readings: Counter[str] = field(default_factory=Counter)
    records: int = 0
    refused: int = 0
    first_refusal: str = ""
    sensors: int = 0
    warming: int = 0
    windows_scored: int = 0
    limited: int = 0
    disorder: str | None = None
    failures: list[SensorFailure] = field(default_factory=list)
    unwatched: Counter[Reason] = field(default_factory=Counter)
    unwatched_sensors: list[tuple[str, Reason]] = field(default_factory=list)
    first: int | None = None
    last: int | None = None
    watched: int = 0
    board: Scoreboard | None = None
    labels: list[Label] = field(default_factory=list)
    foreign: list[Label] = field(default_factory=list)
    budget: BudgetAccount = field(default_factory=BudgetAccount)
    verdicts: Counter[Word] = field(default_factory=Counter)
    unknown_verdicts: int = 0

    @property
    def critical(self) -> int:
        """Episodes that were critical."""
        return sum(episode.severity == "critical" for episode in self.episodes)


def run_backtest(
    batches: Iterable[Batch],
    make_pipeline: Callable[[Partition], ReadingsPipeline],
    labels: Sequence[Label] | None,
    seen: Set[str] | None = None,
) -> BacktestResult:
    """Feed a recording through fresh pipelines, one a partition; alerts are in the order of the batches.

    `seen` are the sensors of the recording, known by its end (see `Seen`): labels of others, or of another time, are
    put aside.
    """
    replay = Replay(make_pipeline)
    for batch in batches:
        replay.take(batch)
    result = replay.finish()
    if labels is not None:
        if seen is not None:
            labels, result.foreign = fitting(labels, seen, result.first, result.last)
        result.labels = list(labels)
        result.board = score(result.episodes, labels)
    return result


class Replay:
    """Feeds a recording, batch by batch, through fresh pipelines, one a partition. `keep` the alerts as published."""

    def __init__(self, make_pipeline: Callable[[Partition], ReadingsPipeline], *, keep: bool = True) -> None:
        self._make_pipeline = make_pipeline
        self._keep = keep
        self._pipelines: dict[Partition, ReadingsPipeline] = {}
        self._episodes = Episodes()
        self._result = BacktestResult()
        self._order = Order()

    def take(self, batch: Batch) -> None:
        """Process the next batch."""
        result = self._result
        pipeline = self._pipelines.get(batch.partition)
        if pipeline is None:
            pipeline = self._pipelines[batch.partition] = self._make_pipeline(batch.partition)
        output = pipeline.process(batch)
        self._order.take(output)
        result.budget.add(output.opened, output.allowed)
        result.limited += output.budgets_limited
        result.watched += output.watched
        result.failures += output.failures
        for message in output.alerts:
            self._episodes.add(decode_alert(message.value))
            if self._keep:
                result.alerts.append(message.value)
        result.readings.update(output.outcomes())
        result.records += output.records
        result.refused += len(output.refused)
        result.verdicts.update(output.judged)
        result.unknown_verdicts += output.rejected.get("bad_verdict", 0)
        if output.dead_letters and not result.first_refusal:
            result.first_refusal = dict(output.dead_letters[0].headers)["detector.message"].decode()
        result.windows_scored += sum(len(scores) for scores in output.scores)
        if output.first_time is not None:
            result.first = output.first_time if result.first is None else min(result.first, output.first_time)

    def finish(self) -> BacktestResult:
        """What it came to."""
        result, pipelines = self._result, self._pipelines.values()
        result.last = max((one.clock for one in pipelines if one.clock is not None), default=None)
        result.sensors = sum(one.sensors for one in pipelines)
        result.warming = sum(one.warming for one in pipelines)
        result.disorder = self._order.fault
        for one in pipelines:
            result.unwatched.update(one.unwatched)
            result.unwatched_sensors += one.some_unwatched(NAMED_UNWATCHED)
        result.episodes = list(self._episodes.spans.values())
        return result


class Seen:
    """A decoder that notes which sensors there are readings of, but for those that are not watched."""

    def __init__(self, decoder: Decoder, watches: Callable[[str], bool]) -> None:
        self._decoder = decoder
        self._watches = watches
        self.sensors: set[str] = set()

    def decode(self, batch: Batch) -> Readings:
        """Decode, and note."""
        readings = self._decoder.decode(batch)
        self.sensors.update(filter(self._watches, set(readings.ids) - self.sensors))
        return readings


def unwatched_lines(result: BacktestResult) -> list[str]:
    """What to say of the sensors that are not watched at the end, a line for each reason."""
    lines = []
    for reason in REASONS:
        if count := result.unwatched[reason]:
            names = [name for name, why in result.unwatched_sensors if why == reason][:SHOWN_SENSORS]
            more = f" and {count - len(names)} more" if count > len(names) else ""
            lines.append(f"Not watched at the end ({reason}): {', '.join(names)}{more}")
    return lines


def verdicts_line(result: BacktestResult) -> str | None:
    """What to say of the verdicts in a recording; None where there are none."""
    if not result.verdicts and not result.unknown_verdicts:
        return None
    told = [f"{result.verdicts[word]} {word}" for word in WORDS if result.verdicts[word]]
    return f"Verdicts: {', '.join([*told, f'{result.unknown_verdicts} on alerts that are not known here'])}"


def summary(result: BacktestResult) -> dict[str, Any]:
    """The result as JSON."""
    out: dict[str, Any] = {
        "from": None if result.first is None else rfc3339(result.first),
        "to": None if result.last is None else rfc3339(result.last),
        "sensors": result.sensors,
        "sensors_warming": result.warming,
        "sensors_unwatched": {reason: result.unwatched[reason] for reason in REASONS if result.unwatched[reason]},
        "unwatched": [{"sensor_id": name, "reason": reason} for name, reason in result.unwatched_sensors],
        "records": result.records,
        "readings": dict(result.readings),
        "windows_scored": result.windows_scored,
        "verdicts": {**dict(result.verdicts), "unknown": result.unknown_verdicts},
        "episodes": len(result.episodes),
        "allowed": round(result.budget.allowed, 3),
        "critical": result.critical,
        "muted": sum(episode.muted for episode in result.episodes),
        "silent": sum(episode.silent for episode in result.episodes),
    }
    if result.board is not None:
        out["labels"] = {
            "found": len(result.board.found),
            "missed": len(result.board.missed),
            "false_alarms": len(result.board.false_alarms),
            "outside": len(result.foreign),
            "median_delay_seconds": None if result.board.median_delay is None else result.board.median_delay / 1e9,
        }
    return out


@dataclass(frozen=True, slots=True)
class SensorSum:
    """The episodes of one sensor; `alarm`: time in alarm, ns."""

    sensor_id: str
    episodes: list[EpisodeSpan]
    alarm: int

    @property
    def critical(self) -> int:
        """How many of them were critical."""
        return sum(episode.severity == "critical" for episode in self.episodes)

    @property
    def worst(self) -> EpisodeSpan:
        """The one with the highest score."""
        return max(self.episodes, key=lambda episode: episode.peak)


def worst_first(result: BacktestResult) -> list[SensorSum]:
    """Sensors with episodes, by their highest score."""
    by_sensor: dict[str, list[EpisodeSpan]] = {}
    for episode in result.episodes:
        by_sensor.setdefault(episode.sensor_id, []).append(episode)
    end = result.last or 0
    sums = [
        SensorSum(name, episodes, max(0, sum((end if e.ended is None else e.ended) - e.started for e in episodes)))
        for name, episodes in by_sensor.items()
    ]
    return sorted(sums, key=lambda one: -one.worst.peak)


def table_of(result: BacktestResult) -> Table:
    """Sensors with episodes, worst first."""
    table = Table(title="Sensors with episodes", title_justify="left", title_style="bold")
    table.add_column("sensor")
    for column in ("episodes", "critical", "worst score", "in alarm"):
        table.add_column(column, justify="right")
    worst = worst_first(result)
    for one in worst[:SHOWN_SENSORS]:
        table.add_row(
            one.sensor_id, str(len(one.episodes)), str(one.critical), f"{one.worst.peak:.3g}", duration(one.alarm)
        )
    if len(worst) > SHOWN_SENSORS:
        table.add_row(f"and {len(worst) - SHOWN_SENSORS} more", "", "", "", "")
    return table
