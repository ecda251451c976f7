"""Real machines of many channels: ranking and alerts, beside what a row's principal components say."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.quality.budget import REAL_LEAST
from benchmarks.quality.data import Interval, Source, load
from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import play
from benchmarks.quality.modelling import ModelStore, training_rows
from benchmarks.quality.results import Gate, Outcome, Table, number
from benchmarks.quality.scoring import Counts, overlap_counts, vus_pr
from benchmarks.quality.workers import Workers
from detector.arrays import F64
from detector.detection.signals import ewma_path

GROUPS: Final = ("SMD", "ASD")
BUDGETS: Final = (1_000, 3_000, 10_000)
VUS_WINDOW: Final = 100
PRODUCT: Final = "detector"
SPAN: Final = 50
Z_LIMIT, VARIANCE, FLAT = 1_000.0, 0.9, 1e-9
"""Of the rivals: limit of standardised values, the share of their variance that components explain, and the deviation
under which a channel counts as constant and keeps its unit."""
LEAST_F1: Final = {("SMD", 1_000): (0.40, 0.45), ("ASD", 1_000): (0.36, 0.40), ("SMD", 10_000): (0.34, None),
                   ("ASD", 10_000): (0.222, None)}  # fmt: skip
AIM: Final = {"SMD": 0.50, "ASD": 0.47}
MOST_FALSE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Alerts:
    """Episodes of one machine at one budget: events found and not, false ones, how many are allowed, delays in rows."""

    budget: int
    counts: Counts
    allowed: float
    delays: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine: VUS-PR by who ranks its rows, and the product's alerts."""

    group: str
    name: str
    ranking: dict[str, float]
    alerts: tuple[Alerts, ...]


def judge(source: Source, budgets: Sequence[int], setup: Setup) -> Machine:
    """One machine through the product, its train part being the prefix, and through the rivals."""
    series = load(source)
    begin, labels = series.train_rows, series.labels[series.train_rows :]
    prefix = training_rows(series.values, begin)
    model = opened_model(setup.models, ModelStore(setup.models).make({source.name: prefix}, setup.kind, setup.seed))
    alerts, scores = [], {}
    for budget in budgets:
        played = play(series.values, begin, model, budget)
        scores = {PRODUCT: played.scores[begin:]}
        spans = [(episode.started, episode.ended) for episode in played.episodes]
        opened = [episode.opened for episode in played.episodes]
        counts = overlap_counts(series.intervals, spans)
        allowed = float((~labels).sum()) / budget
        alerts.append(Alerts(budget, counts, allowed, _delays(series.intervals, spans, opened)))
    scores |= {name: score[begin:] for name, score in rivals(series.values, begin).items()}
    return Machine(
        source.group, source.name, {name: vus_pr(labels, score, VUS_WINDOW) for name, score in scores.items()},
        tuple(alerts),
    )  # fmt: skip


def _delays(intervals: Sequence[Interval], spans: Sequence[Interval], opened: Sequence[int]) -> tuple[int, ...]:
    """Rows from the beginning of each event that was found to the first episode in it."""
    found = [
        [row for (first, last), row in zip(spans, opened, strict=True) if first <= end and last >= begin]
        for begin, end in intervals
    ]
    return tuple(max(min(rows) - begin, 0) for rows, (begin, _) in zip(found, intervals, strict=True) if rows)


def rivals(values: F64, train_rows: int) -> dict[str, F64]:
    """Scores of rows (L, C), each (L,): the squared residual of a row's principal components, and averages."""
    prefix = values[:train_rows]
    deviations = prefix.std(axis=0)
    z = (values - prefix.mean(axis=0)) / np.where(deviations > FLAT, deviations, 1.0)
    z = np.clip(z, -Z_LIMIT, Z_LIMIT)
    variances, vectors = np.linalg.eigh(z[:train_rows].T @ z[:train_rows])
    explained = np.cumsum(variances[::-1]) / variances.sum()
    components = vectors[:, ::-1][:, : int(np.searchsorted(explained, VARIANCE)) + 1]
    rest = z - z @ components @ components.T
    residual, rate = (rest * rest).sum(axis=1), 2 / (SPAN + 1)
    return {
        "row PCA": residual,
        f"row PCA, average of {SPAN}": ewma_path(residual, rate),
        f"mean z^2, average of {SPAN}": ewma_path((z * z).mean(axis=1), rate),
    }


def outcome(workers: Workers, setup: Setup, sources: Sequence[Source]) -> Outcome:
    """Run all machines, in parallel."""
    found = workers.run("machines", judge, [(source, BUDGETS, setup) for source in sources])
    result = Outcome("machines-real")
    by_group = {group: those for group in GROUPS if (those := [one for one in found if one.group == group])}
    if not by_group:
        result.gates = [Gate.at_least(f"machines-real: {group}: VUS-PR", None, 0.0, AIM[group]) for group in GROUPS]
        return result
    means = {group: _means(those) for group, those in by_group.items()}
    names = list(next(iter(means.values())))
    rows = [(name, *(number(means[group][name]) for group in by_group)) for name in names]
    result.tables.append(Table(f"Ranking: mean VUS-PR (window {VUS_WINDOW})", ("", *by_group), rows))
    lines = []
    for group, those in by_group.items():
        best = max(means[group][name] for name in names[1:3])
        gate = f"machines-real: {group}: VUS-PR, beside row PCA and its average"
        result.gates.append(Gate.at_least(gate, means[group][PRODUCT], best, AIM[group]))
        for place, budget in enumerate(BUDGETS):
            counts, allowed, delays = _together([one.alerts[place] for one in those])
            delay = number(statistics.median(delays), 0) if delays else "-"
            lines.append((
                group, f"1 in {budget}", str(counts.tp), str(counts.fn), str(counts.fp), number(allowed, 1),
                number(counts.f1), delay,
            ))  # fmt: skip
            result.numbers[f"{group} {budget}"] = {
                "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "allowed": allowed,
            }  # fmt: skip
            if (group, budget) in LEAST_F1:
                least, aim = LEAST_F1[group, budget]
                gate = f"machines-real: {group}, 1 in {budget}: F1"
                result.gates.append(Gate.at_least(gate, counts.f1, least, aim))
    columns = ("", "budget", "found", "missed", "false", "allowed", "F1", "median delay")
    result.tables.append(Table("Alerts: events that an episode overlaps, episodes that overlap none", columns, lines))
    for place, budget in enumerate(BUDGETS):
        counts, allowed, _ = _together([one.alerts[place] for one in found])
        ratio = counts.fp / allowed if allowed >= REAL_LEAST else None
        result.gates.append(Gate.at_most(f"machines-real: 1 in {budget}: false / allowed", ratio, MOST_FALSE, 1.0))
    result.numbers |= {"ranking": means, "machines": {one.name: one.ranking for one in found}}
    return result


def _means(machines: Sequence[Machine]) -> dict[str, float]:
    return {name: statistics.mean(one.ranking[name] for one in machines) for name in machines[0].ranking}


def _together(alerts: Sequence[Alerts]) -> tuple[Counts, float, list[int]]:
    counts = sum((one.counts for one in alerts), Counts())
    delays = list(itertools.chain.from_iterable(one.delays for one in alerts))
    return counts, sum(one.allowed for one in alerts), delays
