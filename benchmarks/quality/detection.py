"""One labelled series through the product and through the plain baseline; the work of one process at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality import baseline
from benchmarks.quality.data import Interval, Source, load
from benchmarks.quality.drive import play
from benchmarks.quality.modelling import ModelStore, training_rows
from benchmarks.quality.scoring import Counts, overlap_counts, period, vus_pr
from detector.detection.scorer import Model

PCA = (40, 50)
"""Components and newest errors of the baseline that ranks best."""
PLAIN_PCA = (20, 100)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all pieces of work have in common: which kind of model, and where models are kept."""

    kind: str
    models: Path
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The episodes of one series held against its labels. Rows; `delays` of the intervals found."""

    counts: Counts
    delays: tuple[int, ...]
    opened: tuple[int, ...]
    alarm_rows: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One series: rows after training, and what the product and the baseline made of them."""

    source: Source
    rows: int
    live_rows: int
    windows: tuple[Interval, ...]
    product: Verdict
    pca: Verdict


@dataclass(frozen=True, slots=True)
class Ranked:
    """VUS-PR of one series."""

    source: Source
    product: float
    pca_20: float
    pca_40: float


def shared_model(sources: Sequence[Source], setup: Setup) -> str:
    """Train one model on the training rows of all these series; its key."""
    prefixes = {}
    for source in sources:
        series = load(source)
        prefixes[source.name] = training_rows(series.values, series.train_rows)
    return ModelStore(setup.models).make(prefixes, setup.kind, setup.seed)


def judge(source: Source, budget: int, setup: Setup, key: str | None) -> Judged:
    """Alerts of one series at a budget. `key`: a shared model; None: one of its own."""
    series = load(source)
    key = key or _own_model(source, setup)
    played = play(series.values, series.train_rows, opened_model(setup.models, key), budget)
    ours = [((episode.started, episode.ended), episode.opened) for episode in played.episodes]
    plain = baseline.pca_episodes(series.values, series.train_rows, *PCA)
    return Judged(
        source, len(series.values), played.live_rows, series.intervals,
        _verdict(series.intervals, ours), _verdict(series.intervals, plain),
    )  # fmt: skip


def rank(source: Source, budget: int, setup: Setup, key: str | None) -> Ranked:
    """The causal ranking of one series; the scores do not depend on the budget."""
    series = load(source)
    key = key or _own_model(source, setup)
    played = play(series.values, series.train_rows, opened_model(setup.models, key), budget)
    width, labels = period(series.values), series.labels
    plain, best = (baseline.pca_scores(series.values, series.train_rows, *pca) for pca in (PLAIN_PCA, PCA))
    return Ranked(source, *(vus_pr(labels, scores, width) for scores in (played.scores, plain, best)))


@functools.lru_cache(maxsize=8)
def opened_model(models: Path, key: str) -> Model:
    """A model, opened once a process."""
    return ModelStore(models).load(key)


def _own_model(source: Source, setup: Setup) -> str:
    return shared_model([source], setup)


def _verdict(intervals: Sequence[Interval], episodes: Sequence[tuple[Interval, int]]) -> Verdict:
    delays = []
    for first, last in intervals:
        over = [opened for (begin, end), opened in episodes if begin <= last and end >= first]
        if over:
            delays.append(max(min(over) - first, 0))
    covered = sum(end - begin + 1 for (begin, end), _ in episodes)
    counts = overlap_counts(intervals, [interval for interval, _ in episodes])
    return Verdict(counts, tuple(delays), tuple(opened for _, opened in episodes), covered)
