"""What was asked for against what was got: false alarms on data without faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.data import Source, load
from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import play, play_together
from benchmarks.quality.modelling import ModelStore, training_rows
from benchmarks.quality.results import number
from benchmarks.quality.scoring import overlap_counts, poisson_interval
from benchmarks.quality.synthetic import KINDS, sensor
from detector.detection.profile import MIN_ROWS

BUDGETS = (1_000, 3_000, 10_000, 30_000, 100_000)
WARMUP = 5_000
SEED = 71
"""No setting was chosen by looking at the sensors of this seed."""
TRAINED_SHARE = 0.4
EXPECTED_LEAST = 3.0
"""From this many expected alarms on a single sensor is judged."""
FAR_ABOVE = 5.0
LIVE_LEAST = 100
REAL_LEAST = 15
"""Expected alarms from which on a ratio is judged."""


@dataclass(frozen=True, slots=True)
class Observed:
    """False alarms of one sensor at one budget, beside the number asked for."""

    group: str
    sensor: str
    budget: int
    expected: float
    alarms: int


@dataclass(frozen=True, slots=True)
class Pooled:
    """Sensors together: observed / asked with its 95 % interval; of `judged` sensors how many are far above."""

    expected: float
    alarms: int
    judged: int
    far_above: int

    @property
    def ratio(self) -> float:
        """Observed / asked."""
        return self.alarms / self.expected if self.expected else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The ratio's 95 % interval, were alarms independent."""
        low, high = poisson_interval(self.alarms)
        return (low / self.expected, high / self.expected) if self.expected else (0.0, 0.0)


def pool(observed: Sequence[Observed]) -> Pooled:
    """Sum over sensors."""
    judged = [o for o in observed if o.expected >= EXPECTED_LEAST]
    far = sum(o.alarms > FAR_ABOVE * o.expected for o in judged)
    return Pooled(sum(o.expected for o in observed), sum(o.alarms for o in observed), len(judged), far)


COLUMNS = ("", "budget", "asked", "observed", "ratio", "95 %", "sensors with 3 or more asked", "above 5 x")
"""Of a table whose rows begin with a name and a budget, and go on with `cells`."""


def cells(pooled: Pooled) -> tuple[str, ...]:
    """What a row of a table says of sensors together."""
    low, high = pooled.interval
    return (
        number(pooled.expected, 1), str(pooled.alarms), number(pooled.ratio, 2), f"{low:.2f} to {high:.2f}",
        str(pooled.judged), str(pooled.far_above),
    )  # fmt: skip


def names(sensors: int) -> list[tuple[str, int]]:
    """So many sensors, kinds in turn: (kind, number)."""
    kinds = list(KINDS)
    return [(kinds[i % len(kinds)], i // len(kinds)) for i in range(sensors)]


def synthetic_model(sensors: int, setup: Setup) -> str:
    """One model for all synthetic sensors."""
    prefixes = {f"{kind} {number}": sensor(kind, number, WARMUP, SEED) for kind, number in names(sensors)}
    return ModelStore(setup.models).make(prefixes, setup.kind, setup.seed)


def synthetic(which: Sequence[tuple[str, int]], rows: int, budget: int, setup: Setup, key: str) -> list[Observed]:
    """False alarms of some sensors, side by side in one pipeline."""
    sensors = {f"{kind} {number}": sensor(kind, number, WARMUP + rows, SEED) for kind, number in which}
    found = play_together(sensors, WARMUP, opened_model(setup.models, key), budget)
    return [
        Observed(kind, f"{kind} {number}", budget, rows / budget, len(found[f"{kind} {number}"]))
        for kind, number in which
    ]


def real(source: Source, budgets: Sequence[int], setup: Setup, key: str | None) -> list[Observed]:
    """False alarms on normal rows: after 40 % of a training prefix; of NAB after its probation, outside its windows."""
    series = load(source)
    values, train, intervals = series.values, series.train_rows, series.intervals
    if source.group != "NAB":
        values, train, intervals = values[:train], int(TRAINED_SHARE * train), ()
    train = max(train, MIN_ROWS)
    if len(values) - train < LIVE_LEAST:
        return []
    key = key or ModelStore(setup.models).make({source.name: training_rows(values, train)}, setup.kind, setup.seed)
    normal = np.ones(len(values), dtype=bool)
    normal[:train] = False
    for first, last in intervals:
        normal[first : last + 1] = False
    observed = []
    for budget in budgets:
        played = play(values, train, opened_model(setup.models, key), budget)
        spans = [(episode.started, episode.ended) for episode in played.episodes]
        alarms = overlap_counts(intervals, spans).fp
        observed.append(Observed(source.group, source.name, budget, int(normal.sum()) / budget, alarms))
    return observed


def real_model(sources: Sequence[Source], setup: Setup) -> str:
    """One model for all these series, trained on what `real` lets each be known by."""
    prefixes = {}
    for source in sources:
        series = load(source)
        train = series.train_rows if source.group == "NAB" else int(TRAINED_SHARE * series.train_rows)
        prefixes[source.name] = training_rows(series.values, train)
    return ModelStore(setup.models).make(prefixes, setup.kind, setup.seed)
