"""What other budgets would have cost: the episodes that one recording leads to under each of several budgets.

Every budget goes the whole path of a backtest; only the scores, which do not depend on it, are computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from detector.config.settings import FalseAlarms
from detector.config.values import PERIODS, parse_duration
from detector.detection.scorer import ScoreBlock, score_block
from detector.engine.readings import ReadingsPipeline
from detector.reports.backtest import BacktestResult, Replay, worst_first
from detector.reports.rescoring import RecordedScores
from detector.reports.text import duration
from detector.streams.base import Batch, Partition
from detector.wire.readings import Decoder, Readings

SHOWN_SENSORS: Final = 10
MakePipeline = Callable[[Partition, FalseAlarms, ScoreBlock], ReadingsPipeline]


def budget(text: str) -> FalseAlarms:
    """The budget or the rate `3/week`, `1/12h`. Raises ValueError."""
    number, slash, per = text.partition("/")
    count = float(number) if number.strip().replace(".", "", 1).isdecimal() else 0.0
    if not slash or not 0 < count < 1e9:
        raise ValueError(f"`{text}` is no rate")
    if per not in PERIODS and not parse_duration(per):
        raise ValueError(f"`{text}` has no length of time")
    return FalseAlarms(per_sensor=count, per=per)


def spoken(asked: FalseAlarms) -> str:
    """`3/week`."""
    return f"{asked.per_sensor:g}/{asked.per}"


def period(asked: FalseAlarms) -> int:
    """The time that a budget counts in, ns."""
    if asked.period is None:
        raise ValueError(f"{spoken(asked)} counts readings")
    return asked.period


SHOWN: Final = tuple(budget(text) for text in ("1/day", "4/week", "2/week", "1/week", "2/month", "1/month"))
"""The budgets that are shown, most alarms first."""
SEARCHED: Final = (
    *(budget(text) for text in ("4/day", "2/day")), *SHOWN, *(budget(text) for text in ("4/year", "1/year")),
)  # fmt: skip
"""The budgets that are tried to find one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one budget came to on the recording."""

    budget: FalseAlarms
    result: BacktestResult

    @property
    def span(self) -> int:
        """The time the recording covers, ns."""
        if self.result.first is None or self.result.last is None:
            return 0
        return self.result.last - self.result.first

    @property
    def known(self) -> bool:
        """Whether the recording is as long as the budget's period: a shorter one cannot show what it costs."""
        return self.span >= period(self.budget)

    def rate(self, per: int) -> float:
        """Episodes of all sensors together in a time of `per` ns."""
        return len(self.result.episodes) * per / self.span if self.span else 0.0

    @property
    def share_in_alarm(self) -> float:
        """Time in alarm as a share of the time of all sensors that were watched."""
        watched = (self.result.sensors - self.result.warming) * self.span
        return sum(one.alarm for one in worst_first(self.result)) / watched if watched > 0 else 0.0


def costs_of(
    batches: Iterable[Batch],
    decoder: Decoder,
    make_pipeline: Callable[[Decoder], MakePipeline],
    budgets: Sequence[FalseAlarms],
    *,
    once: bool = True,
) -> list[Cost]:
    """Run the recording under each budget; `once`: with scores computed once, which changes no result."""
    decoded = _DecodedOnce(decoder)
    make, recorded = make_pipeline(decoded), RecordedScores()

    def making(asked: FalseAlarms, score: ScoreBlock) -> Callable[[Partition], ReadingsPipeline]:
        return lambda partition: make(partition, asked, score)

    replays = []
    for number, asked in enumerate(budgets):
        score = score_block if not once else recorded.reuse() if number else recorded.record
        replays.append(Replay(making(asked, score), keep=False))
    for batch in batches:
        for replay in replays:
            replay.take(batch)
        recorded.forget()
    return [Cost(asked, _called_for(replay.finish())) for asked, replay in zip(budgets, replays, strict=True)]


def _called_for(result: BacktestResult) -> BacktestResult:
    """The result without what no budget could change: episodes that are muted, or about silence."""
    result.episodes = [episode for episode in result.episodes if episode.counts]
    return result


class _DecodedOnce:
    """A decoder for several pipelines that are given the same batch one after the other."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._last: tuple[Batch, Readings] | None = None

    def decode(self, batch: Batch) -> Readings:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, self._decoder.decode(batch)
        return self._last[1]


def choose(costs: Sequence[Cost], asked: FalseAlarms) -> Cost | None:
    """Of what the recording can judge, the budget with the most alarms that keeps to the rate `asked`, as do all
    stricter ones; None if there is none. `costs`: most alarms first.
    """
    chosen = None
    for cost in reversed([cost for cost in costs if cost.known]):
        if cost.rate(period(asked)) > asked.per_sensor:
            break
        chosen = cost
    return chosen


def table_of(costs: Sequence[Cost], chosen: Cost | None) -> Table:
    """A line a budget."""
    table = Table(title="What each budget would have cost", title_justify="left", title_style="bold")
    table.add_column("per sensor")
    for column in ("episodes", "critical", "sensors", "a week, all sensors", "in alarm"):
        table.add_column(column, justify="right")
    week = PERIODS["week"]
    for cost in costs:
        rate = f"{cost.rate(week):.3g}" if cost.known else "not known"
        table.add_row(
            spoken(cost.budget), str(len(cost.result.episodes)), str(cost.result.critical),
            str(len({episode.sensor_id for episode in cost.result.episodes})), rate, f"{cost.share_in_alarm:.2%}",
            style="bold green" if cost is chosen else None,
        )  # fmt: skip
    return table


def sensors_of(costs: Sequence[Cost]) -> Table:
    """The ten sensors with the most episodes, and how many under each budget that is shown."""
    costs = [cost for cost in costs if cost.budget in SHOWN]
    table = Table(title="Sensors with the most episodes", title_justify="left", title_style="bold")
    table.add_column("sensor")
    counts = [Counter(episode.sensor_id for episode in cost.result.episodes) for cost in costs]
    for cost in costs:
        table.add_column(spoken(cost.budget), justify="right")
    total = sum(counts, Counter[str]())
    for sensor, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_SENSORS]:
        table.add_row(sensor, *(str(count[sensor]) for count in counts))
    if len(total) > SHOWN_SENSORS:
        table.add_row(f"and {len(total) - SHOWN_SENSORS} more", *("" for _ in counts))
    return table


def remarks(costs: Sequence[Cost]) -> list[str]:
    """What a reader of the table has to know."""
    told = []
    unknown = [spoken(cost.budget) for cost in costs if not cost.known]
    if unknown:
        told.append(
            f"The recording covers {duration(costs[0].span)}: it cannot show what {', '.join(unknown)} would cost, "
            "whose time is longer."
        )
    limited = [spoken(cost.budget) for cost in costs if cost.result.limited]
    if limited:
        told.append(
            f"Kept within 300 to 1,000,000 readings an alarm for some sensors, and so less far apart than written: "
            f"{', '.join(limited)}."
        )
    return told
