"""A backtest: the daemon's own path over recorded data, and what it would have said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from detector.budget import BudgetAccount
from detector.messages import decode_alert
from detector.pipeline import Pipeline
from detector.reports.scoreboard import EpisodeSpan, Label, Scoreboard, episodes_of, score
from detector.reports.text import duration
from detector.streams.base import Batch, Partition

SHOWN_SENSORS = 20


@dataclass(slots=True)
class BacktestResult:
    """`alerts`: the messages as `run` publishes them. `board`: against labels, if there were any."""

    alerts: list[bytes] = field(default_factory=list)
    episodes: list[EpisodeSpan] = field(default_factory=list)
    readings: Counter[str] = field(default_factory=Counter)
    records: int = 0
    refused: int = 0
    first_refusal: str = ""
    sensors: int = 0
    warming: int = 0
    windows_scored: int = 0
    first: int | None = None
    last: int | None = None
    board: Scoreboard | None = None
    budget: BudgetAccount = field(default_factory=BudgetAccount)


def run_backtest(
    batches: Iterable[Batch], make_pipeline: Callable[[Partition], Pipeline], labels: Sequence[Label] | None
) -> BacktestResult:
    """Feed a recording through fresh pipelines, one a partition; alerts are in the order of the batches."""
    result = BacktestResult()
    pipelines: dict[Partition, Pipeline] = {}
    firsts: list[int] = []
    for batch in batches:
        pipeline = pipelines.get(batch.partition)
        if pipeline is None:
            pipeline = pipelines[batch.partition] = make_pipeline(batch.partition)
        output = pipeline.process(batch)
        result.budget.add(pipeline.clock or 0, output.opened, output.allowed)
        result.alerts += [message.value for message in output.alerts]
        result.readings.update(output.outcomes())
        result.records += output.records
        result.refused += len(output.refused)
        if output.dead_letters and not result.first_refusal:
            result.first_refusal = dict(output.dead_letters[0].headers)["detector.message"].decode()
        result.windows_scored += sum(len(scores) for scores in output.scores)
        if output.first_time is not None:
            firsts.append(output.first_time)
    result.first = min(firsts, default=None)
    result.last = max((one.clock for one in pipelines.values() if one.clock is not None), default=None)
    result.sensors = sum(one.sensors for one in pipelines.values())
    result.warming = sum(one.warming for one in pipelines.values())
    result.episodes = episodes_of(decode_alert(value) for value in result.alerts)
    if labels is not None:
        result.board = score(result.episodes, labels)
    return result


def summary(result: BacktestResult) -> dict[str, Any]:
    """The result as JSON."""
    out: dict[str, Any] = {
        "sensors": result.sensors,
        "sensors_warming": result.warming,
        "records": result.records,
        "readings": dict(result.readings),
        "windows_scored": result.windows_scored,
        "episodes": len(result.episodes),
        "allowed": round(result.budget.allowed, 3),
        "critical": sum(episode.severity == "critical" for episode in result.episodes),
    }
    if result.board is not None:
        out["labels"] = {
            "found": len(result.board.found),
            "missed": len(result.board.missed),
            "false_alarms": len(result.board.false_alarms),
            "median_delay_seconds": None if result.board.median_delay is None else result.board.median_delay / 1e9,
        }
    return out


def table_of(result: BacktestResult) -> Table:
    """Sensors with episodes, worst first."""
    table = Table(title="Sensors with episodes", title_justify="left", title_style="bold")
    table.add_column("sensor")
    for column in ("episodes", "critical", "worst score", "in alarm"):
        table.add_column(column, justify="right")
    by_sensor: dict[str, list[EpisodeSpan]] = {}
    for episode in result.episodes:
        by_sensor.setdefault(episode.sensor_id, []).append(episode)
    worst = sorted(by_sensor, key=lambda sensor: -max(episode.peak for episode in by_sensor[sensor]))
    for sensor in worst[:SHOWN_SENSORS]:
        episodes = by_sensor[sensor]
        end = result.last or 0
        alarm = sum((end if e.ended is None else e.ended) - e.started for e in episodes)
        table.add_row(
            sensor,
            str(len(episodes)),
            str(sum(e.severity == "critical" for e in episodes)),
            f"{max(e.peak for e in episodes):.3g}",
            duration(max(0, alarm)),
        )
    if len(worst) > SHOWN_SENSORS:
        table.add_row(f"and {len(worst) - SHOWN_SENSORS} more", "", "", "", "")
    return table
