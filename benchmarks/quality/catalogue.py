"""The catalogue of faults: how many of each kind and size are found, at the same number of false alarms as rivals.

Eighteen faults in three sizes (`detector.simulation.faults`) are put into healthy continuations: of 13 kinds of
made-up sensors and of machines of three channels, and of real normal stretches. The product goes its own way at a
budget, from a copy of its state at the fault. Each rival has one threshold for all sensors, in units of its worst on
the prefix: the lowest with no more false alarms on the healthy continuations than the product has there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.quality import kinds
from benchmarks.quality.baseline import CLOSE_AFTER, WINDOW
from benchmarks.quality.data import Source, load, runs
from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import SECOND, START, settings
from benchmarks.quality.modelling import ModelStore, channel_names
from benchmarks.quality.results import Gate, Outcome, Table, number
from benchmarks.quality.rivals import RIVALS, SEVERAL_CHANNELS, SLOW, context, installed
from benchmarks.quality.scoring import wilson_interval
from benchmarks.quality.workers import Workers
from detector.arrays import F64, in_any_channel
from detector.detection.columns import columns
from detector.detection.profile import MIN_ROWS
from detector.detection.scorer import Model, ScoreBlock
from detector.engine.output import Output
from detector.engine.readings import ReadingsPipeline
from detector.reports.sampled import Recorded
from detector.reports.trials import MakePipeline, follow, opening, with_values
from detector.simulation.faults import FAULTS, Healthy, MeaninglessError, put
from detector.streams.base import Batch, Partition
from detector.times import parse_time
from detector.wire.readings import Decoder

SEED: Final = 83
"""No setting was chosen by looking at the sensors of this seed."""
BUDGET: Final = 10_000
WARMUP: Final = 4_000
CONTINUED: Final = 8_000
"""Healthy rows behind the warm-up, in which faults are put and false alarms are counted."""
QUICK_CONTINUED: Final = 4_000
ROWS: Final = 400
"""Of a fault, where it does not end by itself sooner."""
AFTER: Final = 100
"""Rows after the end of a fault in which it still counts as found."""
ROOM: Final = 1_600
"""Rows left behind a fault's beginning, for those that wait for a night or take several cycles."""
PLACES: Final = 3
NUMBERS, QUICK_NUMBERS = 4, 1
"""Sensors of each kind."""
REAL, QUICK_REAL = 3, 1
"""Series of each real data set."""
GROUPS: Final = ("NAB", "SMAP", "MSL", "UCR")
REAL_LEAST: Final = 100
SIZES: Final = (1, 2, 3)
ABLATED: Final = (2,)
"""The sizes on which signals and rules are left out, one by one."""
PRODUCT: Final = "detector"

PARTS: Final[dict[str, tuple[str, Callable[[int], slice]]]] = {
    "reconstruction": ("worst", lambda channels: slice(channels, channels + 1)),
    "prediction": ("worst", lambda channels: slice(0, channels)),
    "level": ("worst", lambda channels: slice(channels + 1, None)),
    "stuck": ("still_limit", lambda _: slice(None)),
    "drift": ("drift_worst", lambda _: slice(None)),
    "quiet": ("noise_hush", lambda _: slice(None)),
    "context": ("contexts", lambda _: slice(None)),
}
"""Signals and rules that may be left out: the cells that hold what is the worst of training, and which of them, by the
number of channels. Where that is infinite a signal or a rule is mute. Profiles of hours are dropped."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A sensor in good health: rows (L, C), of which the first `warmup` are known to be. `interval`: ns."""

    group: str
    name: str
    values: F64
    warmup: int
    interval: int = SECOND
    day: int | None = None
    first: bool = True
    """Whether slow rivals have to do with it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault: after how many rows the product told it, None: not; and the rivals' worst scores of it."""

    fault: str
    size: int
    delay: int | None
    rivals: dict[str, float]


@dataclass(frozen=True, slots=True)
class Examined:
    """One sensor: healthy rows behind the warm-up, the product's false alarms in them, rivals' scores of them."""

    group: str
    channels: int
    rows: int
    alarms: int
    trials: tuple[Trial, ...]
    scores: dict[str, F64]


# -- sensors ---------------------------------------------------------------------------------------------------------


def made_up(kind: str, number: int, continued: int) -> Subject:
    """A sensor of `kinds`."""
    values = kinds.healthy(kind, number, WARMUP + continued, SEED)
    return Subject(kind, f"{kind} {number}", values, WARMUP, kinds.interval(kind), kinds.day(kind), number == 0)


def real(source: Source, *, first: bool = True) -> Subject | None:
    """A normal stretch: the training part, of which 40 % are known; of NAB what comes before the first window."""
    series = load(source)
    if source.group == "NAB":
        ends = series.intervals[0][0] if series.intervals else len(series.values)
        values, warmup = series.values[:ends], max(series.train_rows, MIN_ROWS)
    else:
        values = series.values[: series.train_rows]
        warmup = max(min(int(0.4 * len(values)), WARMUP), MIN_ROWS)
    values = values[np.isfinite(values)][: warmup + CONTINUED]
    if (len(values) - warmup - AFTER) // 4 < REAL_LEAST:
        return None
    return Subject(source.group, source.name, np.ascontiguousarray(values[:, None]), warmup, first=first)


def model_of(subjects: Sequence[Subject], setup: Setup) -> str:
    """One model for all of them, trained on what is known of each."""
    prefixes = {
        one.name: np.ascontiguousarray(
            one.values[: one.warmup, 0] if one.values.shape[1] == 1 else one.values[: one.warmup]
        )
        for one in subjects
    }
    return ModelStore(setup.models).make(prefixes, setup.kind, setup.seed)


def made_up_model(names: Sequence[str], numbers: int, setup: Setup) -> str:
    """One model for the sensors of these kinds."""
    return model_of([made_up(kind, number, 0) for kind in names for number in range(numbers)], setup)


def real_model(sources: Sequence[Source], setup: Setup) -> str:
    """One model for these series."""
    return model_of([one for source in sources if (one := real(source)) is not None], setup)


# -- trials ----------------------------------------------------------------------------------------------------------


class _Without(ReadingsPipeline):
    """A pipeline of whose sensors a signal or a rule is mute from the end of their warm-up on."""

    part: tuple[str, slice]

    def process(self, batch: Batch) -> Output:
        output = super().process(batch)
        name, cells = self.part
        for slot in np.flatnonzero(self._table["live"]).tolist():
            if name == "contexts":
                self._table.contexts.pop(slot)
            else:
                self._table[name][slot, cells] = np.inf
        return output


def parts() -> list[str]:
    """The signals and rules that there are to be left out."""
    there = {"contexts", *(column.name for column in columns(1, 1))}
    return [name for name, (cell, _) in PARTS.items() if cell in there]


def _maker(model: Model, subject: Subject, without: str | None) -> MakePipeline:
    channels: int = subject.values.shape[1]
    names = channel_names(subject.values[:, 0] if channels == 1 else subject.values)
    config = settings(subject.warmup, BUDGET, names)
    unheard = config.model_copy(update={"silence_after": None})
    partition = Partition("sensor-readings", 0)

    def make(decoder: Decoder, score: ScoreBlock, *, silence: bool) -> ReadingsPipeline:
        chosen = config if silence else unheard
        kind = ReadingsPipeline if without is None else _Without
        made = kind(partition, chosen, model, decoder, dead_letters="dead", alerts="alerts", score=score)
        if isinstance(made, _Without) and without is not None:
            cell, which = PARTS[without]
            made.part = cell, which(channels)
        return made

    return make


def examine_made_up(
    kind: str, number: int, continued: int, sizes: Sequence[int], setup: Setup, key: str,
    rivals: Sequence[str], without: str | None,
) -> Examined:  # fmt: skip
    """Every fault in one made-up sensor."""
    return examine(made_up(kind, number, continued), sizes, opened_model(setup.models, key), rivals, without)


def examine_real(
    source: Source,
    number: int,
    sizes: Sequence[int],
    setup: Setup,
    key: str,
    rivals: Sequence[str],
    without: str | None,
) -> Examined | None:
    """Every fault in one real normal stretch; None where it is too short."""
    subject = real(source, first=number == 0)
    return None if subject is None else examine(subject, sizes, opened_model(setup.models, key), rivals, without)


def examine(
    subject: Subject, sizes: Sequence[int], model: Model, rivals: Sequence[str], without: str | None = None
) -> Examined:
    """Put every fault that has a meaning into the sensor's healthy continuation, each in a trial of its own."""
    values, warmup, count = subject.values, subject.warmup, len(subject.values)
    rng = np.random.default_rng([SEED, count, warmup])
    rows = min(ROWS, (count - warmup - AFTER) // 4)
    room = min(ROOM, count - warmup - rows - AFTER)
    places = np.sort(rng.choice(np.arange(warmup + AFTER, count - room), PLACES, replace=False)).tolist()
    recorded = Recorded(subject.name, START + np.arange(count) * subject.interval, values)
    make = _maker(model, subject, without)
    followed = follow(make, recorded, at=[warmup, *places])
    copies = {copy.row: copy for copy in followed.copies}
    healthy = Healthy.of(values[:warmup], subject.day)
    scored = _Rivals(subject, rivals)
    trials = []
    for at, fault in enumerate(FAULTS):
        for size in sizes:
            copy = copies.get(places[(at + size) % PLACES])
            if copy is None:
                continue
            try:
                one = put(fault, values, copy.row, rows, size, healthy, np.random.default_rng([SEED, at, size]))
            except MeaninglessError:
                continue
            gone = in_any_channel(np.isnan(one.values))
            stop = min(one.stop + AFTER, count)
            alert = opening(
                make, copy, with_values(recorded, one.values), stop,
                unsent=gone if gone.any() else None, other="another" if gone.any() else None,
            )  # fmt: skip
            delay = None if alert is None else (parse_time(alert.detected_at) - START) // subject.interval - one.first
            told = delay if delay is not None and delay >= 0 else None
            trials.append(Trial(fault, size, told, scored.of(one.values, one.first, stop)))
    alarms = sum(first >= warmup for first, _ in followed.episodes)
    return Examined(subject.group, values.shape[1], count - warmup, alarms, tuple(trials), scored.healthy())


class _Rivals:
    """Rivals fitted to a sensor's prefix; their scores are in units of the worst of it."""

    def __init__(self, subject: Subject, names: Sequence[str]) -> None:
        self._subject = subject
        prefix = subject.values[: subject.warmup]
        several = prefix.shape[1] > 1
        chosen = [n for n in names if (several or n not in SEVERAL_CHANNELS) and (subject.first or n not in SLOW)]
        self._fitted = {name: RIVALS[name](prefix) for name in chosen}
        self._worst = {name: max(float(score(prefix)[WINDOW:].max()), 1e-12) for name, score in self._fitted.items()}

    def healthy(self) -> dict[str, F64]:
        """Of the healthy continuation (rows,)."""
        begin = context(self._subject.warmup)
        return {
            name: (score(self._subject.values[begin:])[self._subject.warmup - begin :] / self._worst[name])
            for name, score in self._fitted.items()
        }

    def of(self, values: F64, first: int, stop: int) -> dict[str, float]:
        """The worst from a fault's first row on. What does not come is scored like nothing."""
        begin = context(first)
        part = values[begin:stop]
        gone = in_any_channel(np.isnan(part))
        filled = part[np.maximum.accumulate(np.where(gone, 0, np.arange(len(part))))]
        out = {}
        for name, score in self._fitted.items():
            scores = np.where(gone, 0.0, score(filled))[first - begin :]
            out[name] = float(scores.max()) / self._worst[name]
        return out


# -- what it comes to ------------------------------------------------------------------------------------------------


def alarms_at(scores: Iterable[F64], threshold: float) -> int:
    """False alarms of a rival: stretches above the threshold with at least 100 rows between them."""
    total = 0
    for one in scores:
        spans = runs(one >= threshold)
        total += sum(n == 0 or first - spans[n - 1][1] > CLOSE_AFTER for n, (first, _) in enumerate(spans))
    return total


def threshold_for(scores: Sequence[F64], alarms: int) -> float:
    """The lowest threshold, within one per cent, with no more false alarms than are allowed."""
    low, high = 0.0, 1.01 * max(float(one.max()) for one in scores)
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        # Below a rival's usual level everything is one alarm.
        few = alarms_at(scores, middle) <= alarms and middle > min(float(np.median(one)) for one in scores)
        low, high = (low, middle) if few else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class _Found:
    """Faults found of those tried."""

    hits: int
    trials: int

    @property
    def cell(self) -> str:
        """The share with its 95 % interval, in per cent."""
        if not self.trials:
            return "-"
        low, high = wilson_interval(self.hits, self.trials)
        return f"{100 * self.hits / self.trials:.0f} ({100 * low:.0f} to {100 * high:.0f})"

    @property
    def share(self) -> str:
        """The share alone."""
        return f"{100 * self.hits / self.trials:.0f}" if self.trials else "-"


def _of(trials: Iterable[Trial]) -> _Found:
    found = [trial.delay is not None for trial in trials]
    return _Found(sum(found), len(found))


def _of_rival(examined: Sequence[Examined], name: str, threshold: float, fault: str | None) -> _Found:
    worst = [
        trial.rivals[name]
        for one in examined
        for trial in one.trials
        if name in trial.rivals and fault in (None, trial.fault)
    ]
    return _Found(sum(score >= threshold for score in worst), len(worst))


def outcome(workers: Workers, setup: Setup, sources: dict[str, list[Source]], *, quick: bool) -> Outcome:
    """Run it all, in parallel. `sources`: by data set, the real series at hand."""
    names, notes = installed()
    if quick:
        names = [name for name in names if name not in SLOW]
        notes = [f"quick: {' and '.join(sorted(SLOW))} are left out"]
    count, continued = (QUICK_NUMBERS, QUICK_CONTINUED) if quick else (NUMBERS, CONTINUED)
    made = (kinds.KINDS, (kinds.MACHINE,))
    # The others are sensors that the model has never seen.
    keys = workers.run("models", made_up_model, [(group, 1, setup) for group in made])
    sensors = [(kind, n, key) for group, key in zip(made, keys, strict=True) for kind in group for n in range(count)]
    result = Outcome("catalogue")
    tasks = [(kind, n, continued, SIZES, setup, key, names, None) for kind, n, key in sensors]
    examined = workers.run("made-up sensors", examine_made_up, tasks)
    _tell(result, "made-up sensors", examined, names)
    _by_group(result, "made-up sensors", examined)
    _ablate(result, workers, setup, sensors, continued, examined)
    _real(result, workers, setup, sources, names, quick=quick)
    large = _of(t for one in examined for t in one.trials if t.size == SIZES[-1])
    result.gates.append(Gate.at_least("catalogue: large faults found", large.hits / max(large.trials, 1), 0.5, 0.8))
    result.notes += notes
    return result


def _tell(result: Outcome, what: str, examined: Sequence[Examined], rivals: Sequence[str]) -> None:
    """The faults of some sensors, found by the product and by rivals."""
    alarms, rows = sum(one.alarms for one in examined), sum(one.rows for one in examined)
    thresholds: dict[str, float] = {}
    for name in rivals:
        those = [one for one in examined if name in one.scores]
        if those:
            allowed = sum(one.alarms for one in those)
            thresholds[name] = threshold_for([one.scores[name] for one in those], allowed)
    lines = []
    for fault in (*FAULTS, None):
        trials = [t for one in examined for t in one.trials if fault in (None, t.fault)]
        if not trials:
            continue
        delays = [t.delay for t in trials if t.delay is not None]
        shown = [_of_rival(examined, name, thresholds[name], fault) for name in thresholds]
        lines.append((
            fault or "all", str(len(trials)), *(_of(t for t in trials if t.size == size).cell for size in SIZES),
            number(statistics.median(delays), 0) if delays else "-", _of(trials).share,
            *(found.share for found in shown),
        ))  # fmt: skip
        result.numbers.setdefault(what, {})[fault or "all"] = {
            "sizes": {size: [_of(t for t in trials if t.size == size).hits, sum(t.size == size for t in trials)]
                      for size in SIZES},
            "rivals": {name: [found.hits, found.trials] for name, found in zip(thresholds, shown, strict=True)},
        }  # fmt: skip
    title = f"Faults found, {what}: per cent (95 %), at {alarms} false alarms in {rows} healthy rows"
    columns = ("fault", "tried", "small", "middle", "large", "rows", PRODUCT, *thresholds)
    result.tables.append(Table(title, columns, lines))


def _by_group(result: Outcome, what: str, examined: Sequence[Examined]) -> None:
    lines = []
    for group in dict.fromkeys(one.group for one in examined):
        those = [one for one in examined if one.group == group]
        found = [_of(t for one in those for t in one.trials if t.size == size).share for size in SIZES]
        rows, alarms = sum(one.rows for one in those), sum(one.alarms for one in those)
        lines.append((group, str(sum(len(one.trials) for one in those)), *found, str(alarms), number(rows / BUDGET, 1)))
    columns = ("", "tried", "small", "middle", "large", "false alarms", "allowed")
    result.tables.append(Table(f"Faults found by kind of sensor, {what}: per cent", columns, lines))


def _ablate(
    result: Outcome, workers: Workers, setup: Setup, sensors: Sequence[tuple[str, int, str]], continued: int,
    whole: Sequence[Examined],
) -> None:  # fmt: skip
    """The same without each signal and rule, on one sensor of each kind and middle sizes."""
    chosen = [at for at, (_, n, _) in enumerate(sensors) if n == 0]
    names = parts()
    tasks = [
        (sensors[at][0], 0, continued, ABLATED, setup, sensors[at][2], (), name) for name in names for at in chosen
    ]
    found = workers.run("without a part", examine_made_up, tasks)
    by_part = {name: found[i * len(chosen) : (i + 1) * len(chosen)] for i, name in enumerate(names)}
    variants: dict[str, Sequence[Examined]] = {"all": [whole[at] for at in chosen], **by_part}
    lines = []
    for fault in (*FAULTS, None):
        cells = []
        for some in variants.values():
            trials = [t for one in some for t in one.trials if t.size in ABLATED and fault in (None, t.fault)]
            cells.append(_of(trials))
        if cells[0].trials:
            lines.append((fault or "all", str(cells[0].trials), *(cell.share for cell in cells)))
            result.numbers.setdefault("without", {})[fault or "all"] = dict(
                zip(variants, ([cell.hits, cell.trials] for cell in cells), strict=True)
            )
    lines.append(("false alarms", "", *(str(sum(one.alarms for one in some)) for some in variants.values())))
    columns = ("fault", "tried", "all", *(f"no {name}" for name in names))
    result.tables.append(Table("What each signal and rule is worth: middle sizes, per cent found", columns, lines))


def _real(
    result: Outcome,
    workers: Workers,
    setup: Setup,
    sources: dict[str, list[Source]],
    names: Sequence[str],
    *,
    quick: bool,
) -> None:
    """The same faults in real normal stretches."""
    there: dict[str, list[Source]] = {}
    for group in GROUPS:
        found = _long_enough(sources.get(group, []), QUICK_REAL if quick else REAL)
        if found:
            there[group] = found
        else:
            result.notes.append(f"{group} is left out: there is no normal stretch of it that is long enough here")
    if not there:
        return
    keys = workers.run("real models", real_model, [(found, setup) for found in there.values()])
    tasks = [
        (source, number, SIZES, setup, key, names, None)
        for (_, found), key in zip(there.items(), keys, strict=True)
        for number, source in enumerate(found)
    ]
    examined = [one for one in workers.run("real stretches", examine_real, tasks) if one is not None]
    if examined:
        _tell(result, "real normal stretches", examined, names)
        _by_group(result, "real normal stretches", examined)


def _long_enough(sources: Sequence[Source], most: int) -> list[Source]:
    """Some series with a normal stretch that faults can be put into, by lot."""
    found: list[Source] = []
    for at in np.random.default_rng(SEED).permutation(len(sources)).tolist():
        if len(found) < most and real(sources[at]) is not None:
            found.append(sources[at])
    return found
