"""How detections are scored: overlap counts, VUS-PR, the NAB score, and intervals of Poisson counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.data import Interval, runs
from detector.arrays import F64, Bools

# -- overlap ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """Labelled intervals found and missed, and episodes that overlap none; sums over files are counts again."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 where there is nothing."""
        return 2 * self.tp / max(2 * self.tp + self.fp + self.fn, 1)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 where there is nothing."""
        return self.tp / max(self.tp + self.fn, 1)


def overlap_counts(intervals: Sequence[Interval], episodes: Sequence[Interval]) -> Counts:
    """A labelled interval that overlaps any episode is found; an episode that overlaps no interval is a false alarm."""
    tp = sum(any(_overlap(interval, episode) for episode in episodes) for interval in intervals)
    fp = sum(not any(_overlap(interval, episode) for interval in intervals) for episode in episodes)
    return Counts(tp, fp, len(intervals) - tp)


def _overlap(one: Interval, other: Interval) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


# -- ranking ---------------------------------------------------------------------------------------------------------

THRESHOLDS = 250
DEFAULT_PERIOD, PERIOD_ROWS, PERIOD_LAGS = 125, 20_000, (3, 400)


def vus_pr(labels: Bools, scores: F64, buffer: int) -> float:
    """Volume under the precision-recall surface (Paparrizos et al., VLDB 2022, as TSB-AD computes it).

    For every width w up to `buffer` labelled intervals (L,) are widened by w // 2 rows on both sides with weights
    sqrt(1 - distance / w); recall is discounted by the share of widened intervals that were hit; the area under the
    precision-recall curve over 250 thresholds at evenly spaced ranks is averaged over w.
    """
    rows = len(labels)
    intervals = runs(labels)
    if not intervals or not np.isfinite(scores).all():
        raise ValueError("a ranking needs a labelled row and finite scores")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    thresholds = ranked[np.linspace(0, rows - 1, THRESHOLDS).astype(int)]
    predicted = np.searchsorted(-ranked, -thresholds, side="right")
    core = np.cumsum(labels[order])[predicted - 1]
    return float(np.mean([
        _average_precision(labels, scores, intervals, order, thresholds, predicted, core, width)
        for width in range(buffer + 1)
    ]))  # fmt: skip


def _average_precision(
    labels: Bools,
    scores: F64,
    intervals: Sequence[Interval],
    order: NDArray[np.intp],
    thresholds: F64,
    predicted: NDArray[np.intp],
    core: NDArray[np.intp],
    width: int,
) -> float:
    rows, half = len(labels), width // 2
    weights = labels.astype(float)
    for first, last in intervals if width else ():
        after = np.arange(last + 1, min(last + half + 1, rows))
        before = np.arange(max(first - half, 0), first)
        weights[after] += np.sqrt(1 - (after - last) / width)
        weights[before] += np.sqrt(1 - (first - before) / width)
    np.minimum(weights, 1, out=weights)
    peaks = np.array([scores[first : last + 1].max() for first, last in _widened(intervals, half, rows)])
    hit = (peaks[None, :] >= thresholds[:, None]).mean(axis=1)
    found = np.cumsum(weights[order])[predicted - 1]
    positives = labels.sum() + (found - core) / 2
    recall = np.minimum(found / positives, 1) * hit
    return float(np.diff(np.concatenate([[0.0], recall])) @ (found / predicted))


def _widened(intervals: Sequence[Interval], half: int, rows: int) -> list[Interval]:
    """The intervals widened by `half` on both sides, those that then touch joined."""
    joined = []
    begin = max(intervals[0][0] - half, 0)
    for (_, last), (following, _) in itertools.pairwise(intervals):
        if last + half < following - half:
            joined.append((begin, last + half))
            begin = following - half
    joined.append((begin, min(intervals[-1][1] + half, rows - 1)))
    return joined


def period(values: F64) -> int:
    """The series' period as TSB-AD finds it: the highest local maximum of the autocorrelation, 125 if there is none."""
    x = values[:PERIOD_ROWS] - values[:PERIOD_ROWS].mean()
    low, high = PERIOD_LAGS
    size = 1 << (2 * len(x) - 1).bit_length()
    spectrum = np.fft.rfft(x, size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), size)[: high + 1]
    if correlation[0] == 0:
        return DEFAULT_PERIOD
    found = (correlation / correlation[0])[low : min(high + 1, len(x))]
    peaks = np.flatnonzero((found[1:-1] > found[:-2]) & (found[1:-1] > found[2:])) + 1
    if not len(peaks):
        return DEFAULT_PERIOD
    best = int(peaks[np.argmax(found[peaks])])
    return DEFAULT_PERIOD if not low <= best <= 300 else best + low


# -- NAB -------------------------------------------------------------------------------------------------------------

FALSE_POSITIVE, FALSE_NEGATIVE = 0.11, 1.0


@dataclass(frozen=True, slots=True)
class Detections:
    """The rows at which something was detected in one file of `rows` rows, and its labelled windows."""

    rows: int
    windows: tuple[Interval, ...]
    detected: tuple[int, ...]


def nab_probation(rows: int) -> int:
    """Rows at the beginning of a file that do not count."""
    return int(min(math.floor(0.15 * rows), 0.15 * 5000))


def nab_score(files: Iterable[Detections]) -> float:
    """The NAB v1.1 score, standard profile: 100 for every window noticed at its first row, 0 for silence.

    A detection in a window is worth more the earlier it is, only the best of a window counts, and a window without
    one costs 1; each detection outside costs up to 0.11, less just after a window.
    """
    total = silence = perfect = 0.0
    for file in files:
        best: dict[int, float] = {}
        for row in file.detected:
            if row < nab_probation(file.rows):
                continue
            window, value = _nab_value(file, row)
            if window is None:
                total += FALSE_POSITIVE * value
            else:
                best[window] = max(best.get(window, -FALSE_NEGATIVE), value)
        counting = [number for number, (_, last) in enumerate(file.windows) if last >= nab_probation(file.rows)]
        silence -= FALSE_NEGATIVE * len(counting)
        total += sum(best.get(number, -FALSE_NEGATIVE) for number in counting)
        perfect += len(file.windows)
    return 100 * (total - silence) / (perfect - silence) if perfect else 0.0


def _nab_value(file: Detections, row: int) -> tuple[int | None, float]:
    """The window a detection lies in (None: in none) and its unweighted worth."""
    previous: Interval | None = None
    for number, (first, last) in enumerate(file.windows):
        if first <= row <= last:
            return number, _sigmoid(-(last - row + 1) / (last - first + 1)) / _sigmoid(-1.0)
        if last < row:
            previous = first, last
    if previous is None:
        return None, -1.0
    return None, _sigmoid((row - previous[1]) / max(previous[1] - previous[0], 1))


def _sigmoid(position: float) -> float:
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


# -- rates -----------------------------------------------------------------------------------------------------------

NORMAL_QUANTILE = 1.959964


def poisson_interval(count: int) -> tuple[float, float]:
    """A 95 % interval of the expectation behind a Poisson count (Byar's approximation, good from 5 on)."""

    def bound(n: float, sign: int) -> float:
        return n * (1 - 1 / (9 * n) + sign * NORMAL_QUANTILE / (3 * math.sqrt(n))) ** 3

    return (bound(count, -1) if count else 0.0), bound(count + 1, 1)


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """A 95 % interval of the share behind `hits` of `trials` (Wilson's score interval); of none, everything."""
    if not trials:
        return 0.0, 1.0
    z2 = NORMAL_QUANTILE**2
    share, rows = hits / trials, trials + z2
    middle = (hits + z2 / 2) / rows
    half = NORMAL_QUANTILE / rows * math.sqrt(trials * share * (1 - share) + z2 / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)
