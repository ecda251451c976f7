"""What other budgets would have cost: the episodes that one recording leads to under each of several budgets.

Every budget goes the whole path of a backtest; only what does not depend on it, scores for one, is computed once.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from detector.config.alerts import FalseAlarms
from detector.config.values import PERIODS, parse_duration
from detector.detection.scorer import ScoreBlock, score_block
from detector.engine.readings import BuildProfile, MakeWriter, ReadingsPipeline
from detector.errors import counted
from detector.reports.backtest import BacktestResult, Replay, worst_first
from detector.reports.rescoring import RecordedScores, SharedLooks, SharedProfiles
from detector.reports.scoreboard import EpisodeSpan
from detector.reports.text import duration
from detector.streams.base import Batch, Partition
from detector.times import rfc3339
from detector.wire.readings import Decoder, Readings

SHOWN_SENSORS: Final = 10
SHOWN_EPISODES: Final = 3
"""Of each budget."""
CLEAR: Final = 2.0
"""An episode stands out if its peak is this many times as bad as noise."""
SELDOM: Final = 0.05
"""A budget is recommended for episodes that chance alone would add less often than this."""
MakePipeline = Callable[[Partition, FalseAlarms, ScoreBlock, MakeWriter, BuildProfile], ReadingsPipeline]


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
    def sensors(self) -> int:
        """How many sensors were judged."""
        return self.result.sensors - self.result.warming

    @property
    def watched(self) -> int:
        """For how long a sensor was watched, ns, on average: a time without readings does not count."""
        return self.result.watched // self.sensors if self.sensors > 0 else 0

    @property
    def known(self) -> bool:
        """Whether sensors were watched as long as the budget's period: less cannot show what it costs."""
        return self.watched >= period(self.budget)

    def rate(self, per: int) -> float:
        """Episodes of all sensors together while they are watched for `per` ns."""
        return len(self.result.episodes) * per / self.watched if self.watched else 0.0

    @property
    def share_in_alarm(self) -> float:
        """Time in alarm as a share of the time for which sensors were watched."""
        alarm = sum(one.alarm for one in worst_first(self.result))
        return min(1.0, alarm / self.result.watched) if self.result.watched else 0.0


@dataclass(frozen=True, slots=True)
class Addition:
    """What a budget has beyond a stricter one: episodes, the worst first.

    `by_chance`: how many more than the stricter one it has on average where nothing is wrong. `clear`: how many of the
    episodes stand out, see `noise_of`.
    """

    budget: FalseAlarms
    episodes: list[EpisodeSpan]
    by_chance: float
    clear: int

    @property
    def is_clear(self) -> bool:
        """Whether it is more than noise: some episode stands out, or chance alone seldom adds as many."""
        return self.clear > 0 or chance_of(len(self.episodes), self.by_chance) < SELDOM


def noise_of(loosest: Cost) -> Callable[[EpisodeSpan], float]:
    """What noise of the episode's sensor comes to: the worst of training, or half of its episodes if that is more.

    The loosest budget has little but noise where most of the time nothing is wrong.
    """
    peaks: dict[str, list[float]] = {}
    for one in loosest.result.episodes:
        peaks.setdefault(one.sensor_id, []).append(one.peak)
    levels = {sensor: max(1.0, statistics.median(found)) for sensor, found in peaks.items()}
    return lambda episode: levels.get(episode.sensor_id, 1.0)


def added(cost: Cost, stricter: Cost, noise: Callable[[EpisodeSpan], float]) -> Addition:
    """The episodes of a budget that a stricter one does not have, not even in part."""
    there: dict[str, list[EpisodeSpan]] = {}
    for one in stricter.result.episodes:
        there.setdefault(one.sensor_id, []).append(one)
    end = cost.result.last or 0
    new = [
        one
        for one in cost.result.episodes
        if not any(_overlap(one, other, end) for other in there.get(one.sensor_id, ()))
    ]
    worst = sorted(new, key=lambda one: (-one.peak, one.detected, one.sensor_id))
    more = cost.result.budget.allowed - stricter.result.budget.allowed
    return Addition(cost.budget, worst, max(0.0, more), sum(one.peak >= CLEAR * noise(one) for one in worst))


def _overlap(one: EpisodeSpan, other: EpisodeSpan, end: int) -> bool:
    """Whether two episodes of a sensor share some time between beginning and end; `end`: of those that are open."""
    until, others = (max(end if span.ended is None else span.ended, span.detected) for span in (one, other))
    return one.started <= others and other.started <= until


def chance_of(count: int, mean: float) -> float:
    """The probability of `count` or more where `mean` are expected, by Poisson's law.

    >>> round(chance_of(2, 0.5), 3), chance_of(0, 3.0)
    (0.09, 1.0)
    """
    term, below = math.exp(-mean), 0.0
    for number in range(count):
        below += term
        term *= mean / (number + 1)
    return max(0.0, 1.0 - below)


def costs_of(
    batches: Iterable[Batch],
    decoder: Decoder,
    make_pipeline: Callable[[Decoder], MakePipeline],
    budgets: Sequence[FalseAlarms],
    *,
    once: bool = True,
    pictured: bool = False,
) -> list[Cost]:
    """Run the recording under each budget; `once`: with scores computed once, which changes no result.

    `pictured`: results have alerts, which show the rows at which episodes opened and closed.
    """
    decoded = _DecodedOnce(decoder)
    make, recorded, looks = make_pipeline(decoded), RecordedScores(), SharedLooks(pictured=pictured)
    profiles = SharedProfiles()

    def making(asked: FalseAlarms, score: ScoreBlock) -> Callable[[Partition], ReadingsPipeline]:
        return lambda partition: make(partition, asked, score, looks.writer(), profiles.build)

    replays = []
    for number, asked in enumerate(budgets):
        score = score_block if not once else recorded.reuse() if number else recorded.record
        replays.append(Replay(making(asked, score), keep=pictured))
    for batch in batches:
        for replay in replays:
            replay.take(batch)
        recorded.forget()
        looks.forget()
        profiles.forget()
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


@dataclass(frozen=True, slots=True)
class Choice:
    """The budget to take for a rate; and what looser ones would add that keep to the rate, too: nothing clear."""

    cost: Cost
    unclear: list[Addition]


def choose(costs: Sequence[Cost], asked: FalseAlarms) -> Choice | None:
    """Of what the recording can judge, the budget with the most alarms that keeps to the rate `asked`, as do all
    stricter ones, and has more episodes than the next stricter one of these by more than chance seldom makes. The
    strictest, where none has. None if none keeps to the rate. `costs`: most alarms first.
    """
    chosen: Cost | None = None
    unclear: list[Addition] = []
    noise = noise_of(costs[0])
    for cost in reversed([cost for cost in costs if cost.known]):
        if cost.rate(period(asked)) > asked.per_sensor:
            break
        more = None if chosen is None else added(cost, chosen, noise)
        if more is None or more.is_clear:
            chosen, unclear = cost, []
        else:
            unclear.append(more)
    return None if chosen is None else Choice(chosen, unclear)


def additions(costs: Sequence[Cost]) -> list[Addition]:
    """What each budget adds to the next stricter one. `costs`: most alarms first."""
    noise = noise_of(costs[0])
    return [added(cost, stricter, noise) for cost, stricter in itertools.pairwise(costs)]


def table_of(costs: Sequence[Cost], chosen: Cost | None) -> Table:
    """A line a budget."""
    table = Table(title="What each budget of a sensor would have cost", title_justify="left", title_style="bold")
    table.add_column("budget")
    for column in ("episodes", "added", "clear", "critical", "sensors", "a week", "alarm"):
        table.add_column(column, justify="right")
    week = PERIODS["week"]
    for cost, more in zip(costs, [*additions(costs), None], strict=True):
        table.add_row(
            spoken(cost.budget), str(len(cost.result.episodes)),
            *(("", "") if more is None else (str(len(more.episodes)), str(more.clear))), str(cost.result.critical),
            str(len({episode.sensor_id for episode in cost.result.episodes})),
            f"{cost.rate(week):.3g}" if cost.known else "?", f"{cost.share_in_alarm:.2%}",
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


def added_lines(costs: Sequence[Cost], most: int = SHOWN_EPISODES) -> list[str]:
    """The worst episodes that each budget adds to the next stricter one, a line each."""
    lines = []
    for more in additions(costs):
        if more.episodes:
            lines.append(f"{spoken(more.budget)} adds {counted(len(more.episodes), 'episode')}, {judged(more)}:")
            lines += [f"  {described(one)}" for one in more.episodes[:most]]
        if len(more.episodes) > most:
            lines.append(f"  and {len(more.episodes) - most} more")
    return lines


def judged(more: Addition) -> str:
    """What chance has to do with it."""
    told = f"{more.clear} of them clear, {_number(more.by_chance)} expected by chance"
    return told if more.is_clear else f"{told}: no clearer than noise"


def _number(mean: float) -> str:
    return f"{mean:.0f}" if mean >= 10 else f"{mean:.2g}"


def described(episode: EpisodeSpan) -> str:
    """An episode in one line."""
    time = rfc3339(episode.detected - episode.detected % 10**9)
    return f"{episode.sensor_id}  {time}  {episode.what or 'unusual'}  (score {episode.peak:.3g})"


def remarks(costs: Sequence[Cost]) -> list[str]:
    """What a reader of the table has to know."""
    told = [
        "`added`: episodes that the budget below does not have; `clear`: those of them that are twice as bad as "
        "training and as most episodes of their sensor. `a week`: of all sensors together, while they send readings."
    ]
    unknown = [spoken(cost.budget) for cost in costs if not cost.known]
    if unknown:
        told.append(
            f"Sensors were watched for {duration(costs[0].watched)}: that cannot show what {', '.join(unknown)} would "
            "cost, whose time is longer."
        )
    limited = [spoken(cost.budget) for cost in costs if cost.result.limited]
    if limited:
        told.append(
            f"Kept within 300 to 1,000,000 readings an alarm for some sensors, and so less far apart than written: "
            f"{', '.join(limited)}."
        )
    return told
