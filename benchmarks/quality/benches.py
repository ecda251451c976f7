"""The benchmarks: what is run, how it is summed up, and which figures are gates."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.quality import budget, catalogue, claims, faults, hearing, images, several
from benchmarks.quality.data import Source, find_sources
from benchmarks.quality.detection import Judged, Setup, Verdict, judge, rank, shared_model
from benchmarks.quality.published import (
    in_nab_categories,
    nab_of_rivals,
    overlap_of_rivals,
    ranking_of_rivals,
)
from benchmarks.quality.results import Gate, Outcome, Table, number, percent
from benchmarks.quality.scoring import Counts, Detections, nab_score
from benchmarks.quality.workers import Workers

ALERT_GROUPS = ("NAB", "SMAP", "MSL", "UCR")
ALERT_BUDGET, NAB_BUDGET = 10_000, 1_000
UNRANKED = frozenset({"MGAB"})
"""Kinds of TSB-AD-U that the protocol leaves out of the ranking."""
NAB_SEEDS = 3
"""Trainings that the NAB score is averaged over: one alone moves it by four points."""
SYNTHETIC_SENSORS = 65
QUICK_ROWS, FULL_ROWS = 60_000, 300_000
SYNTHETIC_PARTS = 2
PRODUCT, BASELINE = "detector", "PCA 40 components"


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asks for."""

    data: Path
    setup: Setup
    shared: bool
    glob: str | None
    limit: int | None
    quick: bool
    workers: Workers
    textbook: bool = False

    def sources(self, groups: Sequence[str], *, published: bool = False) -> list[Source]:
        """The series of some groups; `published`: only the categories of NAB that published counts cover."""
        chosen: list[Source] = []
        for group in groups:
            found = find_sources(self.data, group, self.glob)
            chosen += self._spread([s for s in found if in_nab_categories(s) or not published])
        return chosen

    def _spread(self, found: list[Source]) -> list[Source]:
        if self.limit is None or len(found) <= self.limit:
            return found
        return [found[i] for i in np.linspace(0, len(found) - 1, self.limit).round().astype(int)]

    def keys(self, sources: Sequence[Source], make: Callable[[Sequence[Source], Setup], str]) -> dict[str, str | None]:
        """By group, the shared model of its series; None where every series has its own."""
        groups = sorted({source.group for source in sources})
        if not self.shared:
            return dict.fromkeys(groups)
        tasks = [([s for s in sources if s.group == group], self.setup) for group in groups]
        return dict(zip(groups, self.workers.run("shared models", make, tasks), strict=True))


def longest_first(sources: Sequence[Source]) -> list[Source]:
    """In an order that leaves no process alone with the largest file at the end."""
    return sorted(sources, key=lambda source: -sum(path.stat().st_size for path in source.files))


def judged(job: Job, title: str, sources: Sequence[Source], asked: int) -> list[Judged]:
    """The alerts of all these series."""
    keys = job.keys(sources, shared_model)
    tasks = [(source, asked, job.setup, keys[source.group]) for source in longest_first(sources)]
    return job.workers.run(title, judge, tasks)


# -- overlap ---------------------------------------------------------------------------------------------------------


def overlap(job: Job) -> Outcome:
    """Overlap F1 on four groups of series."""
    sources = job.sources(ALERT_GROUPS, published=True)
    results = judged(job, "overlap", sources, ALERT_BUDGET)
    groups = [group for group in ALERT_GROUPS if any(r.source.group == group for r in results)]
    by_group = {group: [r for r in results if r.source.group == group] for group in groups}
    scores = {
        PRODUCT: {group: _counts([r.product for r in by_group[group]]) for group in groups},
        BASELINE: {group: _counts([r.pca for r in by_group[group]]) for group in groups},
    }
    outcome = Outcome("overlap")
    covered: dict[str, int] = {}
    for rival, found in overlap_of_rivals(job.data, sources).items():
        scores[rival] = {group: found[group][0] for group in groups if group in found}
        covered |= {group: max(found[group][1], covered.get(group, 0)) for group in scores[rival]}
    means = {
        name: statistics.mean(counts.f1 for counts in of.values())
        for name, of in scores.items()
        if of and set(of) == set(groups)
    }
    outcome.tables.append(Table(
        f"Alerts: overlap F1 at a budget of 1 in {ALERT_BUDGET} readings (rivals: published, offline)",
        ("", *groups, "mean"),
        [(name, *(number(scores[name][group].f1 if group in scores[name] else None) for group in groups),
          number(means.get(name)))
         for name in (*_ordered(means), *sorted(set(scores) - set(means)))],
    ))  # fmt: skip
    details = []
    for name in (PRODUCT, BASELINE):
        for group in groups:
            verdicts = [r.product if name == PRODUCT else r.pca for r in by_group[group]]
            row = _detail(verdicts, sum(r.live_rows for r in by_group[group]))
            details.append((name, group, str(len(by_group[group])), *row))
            outcome.numbers.setdefault(name, {})[group] = {
                "tp": scores[name][group].tp, "fp": scores[name][group].fp, "fn": scores[name][group].fn,
            }  # fmt: skip
    columns = ("", "", "files", "found", "missed", "false", "recall", "false per 10 000", "median delay", "in alarm")
    outcome.tables.append(Table("Alerts in detail", columns, details))
    for group, files in covered.items():
        if files != len(by_group[group]):
            outcome.notes.append(f"{group}: rivals are published for {files} of {len(by_group[group])} series")
    outcome.numbers["mean F1"] = means
    complete = len(groups) == len(ALERT_GROUPS)
    if not complete:
        outcome.notes.append(f"overlap: only {', '.join(groups) or 'nothing'} at hand")
    outcome.gates.append(Gate.at_least("overlap: mean overlap F1", means.get(PRODUCT), 0.62, 0.66))
    return outcome


def _counts(verdicts: Sequence[Verdict]) -> Counts:
    return sum((verdict.counts for verdict in verdicts), Counts())


def _detail(verdicts: Sequence[Verdict], live: int) -> tuple[str, ...]:
    counts = _counts(verdicts)
    delays = [delay for verdict in verdicts for delay in verdict.delays]
    return (
        str(counts.tp), str(counts.fn), str(counts.fp), percent(counts.recall),
        number(1e4 * counts.fp / max(live, 1), 2),
        number(statistics.median(delays), 0) if delays else "-",
        percent(sum(verdict.alarm_rows for verdict in verdicts) / max(live, 1)),
    )  # fmt: skip


def _ordered(values: dict[str, float]) -> list[str]:
    """The product, the baseline, then rivals, best first."""
    ours = [name for name in (PRODUCT, BASELINE) if name in values]
    return ours + sorted(set(values) - set(ours), key=lambda name: -values[name])


# -- ranking ---------------------------------------------------------------------------------------------------------


def ranking(job: Job) -> Outcome:
    """Mean VUS-PR of the row scores."""
    found = job.sources(("TSB-AD-U",))
    sources = [source for source in found if source.category not in UNRANKED]
    keys = job.keys(sources, shared_model)
    tasks = [(source, ALERT_BUDGET, job.setup, keys[source.group]) for source in longest_first(sources)]
    results = job.workers.run("ranking", rank, tasks)
    outcome = Outcome("ranking")
    if len(sources) < len(found):
        outcome.notes.append(f"ranking: {len(found) - len(sources)} series of {', '.join(UNRANKED)} are left out")
    if not results:
        outcome.gates.append(Gate.at_least("ranking: mean VUS-PR", None, 0.42, 0.46))
        return outcome
    means = {
        PRODUCT: statistics.mean(r.product for r in results),
        f"{BASELINE}, newest 50 errors": statistics.mean(r.pca_40 for r in results),
        "PCA 20 components, whole window": statistics.mean(r.pca_20 for r in results),
    }
    rivals = ranking_of_rivals(job.data, [source.name for source in sources])
    rows = [(name, "yes", number(value), str(len(results))) for name, value in means.items()]
    rows += [(name, "", number(rivals[name][0]), str(rivals[name][1])) for name in
             sorted(rivals, key=lambda name: -rivals[name][0])]  # fmt: skip
    outcome.tables.append(Table("Ranking: mean VUS-PR (rivals: published)", ("", "causal", "VUS-PR", "files"), rows))
    kinds = sorted({r.source.category for r in results})
    outcome.tables.append(Table("Ranking by data set", ("", "files", PRODUCT, "PCA 40", "PCA 20"), [
        (kind, str(len(part)), *(number(statistics.mean(getattr(r, name) for r in part))
                                 for name in ("product", "pca_40", "pca_20")))
        for kind in kinds if (part := [r for r in results if r.source.category == kind])
    ]))  # fmt: skip
    outcome.numbers = {**means, "files": {r.source.name: [r.product, r.pca_40, r.pca_20] for r in results}}
    outcome.gates.append(Gate.at_least("ranking: mean VUS-PR", means[PRODUCT], 0.42, 0.46))
    return outcome


# -- NAB -------------------------------------------------------------------------------------------------------------


def nab(job: Job) -> Outcome:
    """The NAB standard score of the rows at which episodes open, as a mean over several trainings."""
    seeds = [job.setup.seed + n for n in range(1 if job.quick else NAB_SEEDS)]
    sources = job.sources(("NAB",))
    outcome = Outcome("nab")
    if not sources:
        outcome.gates.append(Gate.at_least("NAB standard score", None, 60, 69.2))
        return outcome
    trained = [
        judged(replace(job, setup=replace(job.setup, seed=seed)), f"nab, seed {seed}", sources, NAB_BUDGET)
        for seed in seeds
    ]
    ours = [nab_score(Detections(r.rows, r.windows, r.product.opened) for r in results) for results in trained]
    results = trained[0]
    scores = {
        PRODUCT: statistics.mean(ours),
        BASELINE: nab_score(Detections(r.rows, r.windows, r.pca.opened) for r in results),
    }
    split, rivals = nab_of_rivals(job.data, len(results))
    scores |= {name: score for name, score in rivals.items() if name not in scores}
    outcome.tables.append(Table(
        f"NAB standard score at a budget of 1 in {NAB_BUDGET} readings (rivals: published, on `{split}`)",
        ("", "score"), [(name, number(scores[name], 1)) for name in _ordered(scores)],
    ))  # fmt: skip
    counts = [_counts([r.product for r in results]) for results in trained]
    asked = sum(r.live_rows for r in results) / NAB_BUDGET
    for seed, score, count in zip(seeds, ours, counts, strict=True):
        outcome.notes.append(
            f"NAB, seed {seed}: {number(score, 1)}; {len(results)} files; {count.tp} windows found, {count.fn} missed, "
            f"{count.fp} false alarms where {asked:.0f} were allowed"
        )
    outcome.numbers = {
        "score": scores, "by seed": dict(zip(map(str, seeds), ours, strict=True)),
        "found": counts[0].tp, "missed": counts[0].fn, "false": counts[0].fp,
    }  # fmt: skip
    outcome.gates.append(Gate.at_least("NAB standard score", scores[PRODUCT], 60, 69.2))
    return outcome


# -- budget ----------------------------------------------------------------------------------------------------------


def budgets(job: Job) -> Outcome:
    """Observed / asked on synthetic sensors and on real normal rows."""
    rows, asked = (QUICK_ROWS, budget.BUDGETS[:3]) if job.quick else (FULL_ROWS, budget.BUDGETS)
    count = SYNTHETIC_SENSORS if job.limit is None else min(SYNTHETIC_SENSORS, max(13, job.limit))
    (key,) = job.workers.run("synthetic model", budget.synthetic_model, [(count, job.setup)])
    names = budget.names(count)
    parts = [names[i::SYNTHETIC_PARTS] for i in range(SYNTHETIC_PARTS)]
    tasks = [(part, rows, b, job.setup, key) for b in asked for part in parts]
    made = list(itertools.chain(*job.workers.run("synthetic", budget.synthetic, tasks)))
    sources = job.sources(ALERT_GROUPS)
    keys = job.keys(sources, budget.real_model)
    files = [(source, asked, job.setup, keys[source.group]) for source in longest_first(sources)]
    found = list(itertools.chain(*job.workers.run("real normal rows", budget.real, files)))

    outcome = Outcome("budget")
    title = f"observed / asked on data without faults ({count} synthetic sensors x {rows} rows)"
    lines = []
    for name, observed, passes, aim in (
        ("synthetic", made, (0.5, 1.5), (0.8, 1.2)),
        ("real", found, (0.4, 2.5), (0.5, 1.5)),
    ):
        for b in asked:
            pooled = budget.pool([o for o in observed if o.budget == b])
            lines.append((name, f"1 in {b}", *budget.cells(pooled)))
            judged_here = pooled.expected >= budget.REAL_LEAST
            outcome.gates.append(
                Gate(f"budget 1 in {b}, {name}: observed / asked", pooled.ratio if judged_here else None, passes, aim)
            )
            outcome.numbers[f"{name} {b}"] = {"asked": pooled.expected, "observed": pooled.alarms}
    outcome.tables.append(Table(f"Budget: {title}", budget.COLUMNS, lines))
    for observed, what in ((made, "kind"), (found, "data set")):
        outcome.tables.append(_by_group(observed, asked, what))
    both = budget.pool([*made, *found])
    share = both.far_above / both.judged if both.judged else None
    outcome.gates.append(Gate.at_most("budget: share of sensors above 5 x", share, 0.02, 0.0))
    outcome.notes += [
        f"far above: {o.group} {o.sensor} at 1 in {o.budget}: {o.alarms} alarms, {o.expected:.1f} asked"
        for o in [*made, *found]
        if o.expected >= budget.EXPECTED_LEAST and o.alarms > budget.FAR_ABOVE * o.expected
    ]
    return outcome


def _by_group(observed: Sequence[budget.Observed], asked: Sequence[int], what: str) -> Table:
    groups = list(dict.fromkeys(o.group for o in observed))
    rows = []
    for group in groups:
        pooled = [budget.pool([o for o in observed if o.group == group and o.budget == b]) for b in asked]
        rows.append((group, *(number(p.ratio, 2) for p in pooled)))
    return Table(f"Observed / asked by {what}", ("", *(f"1 in {b}" for b in asked)), rows)


# -- faults ----------------------------------------------------------------------------------------------------------


def second_faults(job: Job) -> Outcome:
    """A second fault after a first one, and steps that stay."""
    numbers = range(1) if job.quick else range(4)
    (key,) = job.workers.run("synthetic model", budget.synthetic_model, [(SYNTHETIC_SENSORS, job.setup)])
    tasks = [(rows, gap, numbers, job.setup, key) for gap in reversed(faults.GAPS) for rows in faults.FIRST_ROWS]
    seconds = list(itertools.chain(*job.workers.run("second faults", faults.second_faults, tasks)))
    steps = list(itertools.chain(*job.workers.run(
        "lasting steps", faults.lasting_steps, [(size, numbers, job.setup, key) for size in faults.STEPS]
    )))  # fmt: skip

    outcome = Outcome("faults")
    columns = ("first fault", *(f"gap {gap}" for gap in faults.GAPS), "all gaps", "first found")
    lines = []
    shares = {}
    for rows in faults.FIRST_ROWS:
        part = [s for s in seconds if s.first_rows == rows]
        shares[rows] = _share(s.found for s in part)
        by_gap = [_share(s.found for s in part if s.gap == gap) for gap in faults.GAPS]
        cells = [*by_gap, shares[rows], _share(s.first_found for s in part)]
        lines.append((f"{rows} rows", *map(percent, cells)))
        outcome.numbers[f"second after {rows}"] = dict(zip(map(str, faults.GAPS), by_gap, strict=True))
    title = f"Second fault of {faults.SIZE:g} deviations and {faults.SECOND_ROWS} rows, announced inside it"
    outcome.tables.append(Table(f"{title} (budget 1 in {faults.BUDGET})", columns, lines))
    kinds = list(dict.fromkeys(s.kind for s in seconds))
    outcome.tables.append(Table("The same by kind, all gaps", ("", *(f"after {r} rows" for r in faults.FIRST_ROWS)), [
        (kind, *(percent(_share(s.found for s in seconds if s.kind == kind and s.first_rows == r))
                 for r in faults.FIRST_ROWS))
        for kind in kinds
    ]))  # fmt: skip
    lines = []
    for size in faults.STEPS:
        announced = [s for s in steps if s.deviations == size and s.opened]
        took = [s.closed_after for s in announced if s.closed_after is not None]
        opened = len(announced) / sum(s.deviations == size for s in steps)
        mean = number(statistics.mean(took), 0) if took else "-"
        timely = percent(opened), percent(_in_time(announced))
        lines.append((f"{size:g} deviations", *timely, mean, str(max(took, default=0))))
        outcome.numbers[f"step {size:g}"] = {"closed in time": _in_time(announced), "rows": took}
    columns = ("a step that stays", "announced", f"closed within {faults.CLOSE_WITHIN}", "mean rows", "longest")
    outcome.tables.append(Table("A lasting new level", columns, lines))
    closed = _in_time([s for s in steps if s.opened])
    outcome.gates = [
        Gate.at_least("faults: second found after 200 rows", shares[200], 0.90, None),
        Gate.at_least("faults: second found after 3 000 rows", shares[3_000], 0.80, 0.95),
        Gate.at_least("faults: lasting steps closed within 4 000 rows", closed, 1.0, None),
    ]
    return outcome


def _in_time(steps: Sequence[faults.Step]) -> float:
    return _share(s.closed_after is not None and s.closed_after <= faults.CLOSE_WITHIN for s in steps)


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


# -- hearing ---------------------------------------------------------------------------------------------------------


def equal_faults(job: Job) -> Outcome:
    """Four equal faults and a fifth one; an event that is a habit."""
    (key,) = job.workers.run("synthetic model", budget.synthetic_model, [(SYNTHETIC_SENSORS, job.setup)])
    return hearing.outcome(job.workers, job.setup, key, quick=job.quick)


# -- channels --------------------------------------------------------------------------------------------------------


def several_channels(job: Job) -> Outcome:
    """Machines of three channels: false alarms, and faults of one channel or of the relation between them."""
    return several.outcome(job.workers, job.setup, quick=job.quick)


# -- images ----------------------------------------------------------------------------------------------------------


def one_class(job: Job) -> Outcome:
    """One-class AUROC on Fashion-MNIST."""
    return images.outcome(
        job.workers, seed=job.setup.seed, limit=job.limit, quick=job.quick, textbook=job.textbook
    )  # fmt: skip


def what_alerts_claim(job: Job) -> Outcome:
    """Channel, bounds and kind of faults that are known."""
    return claims.outcome(job.workers, job.setup, quick=job.quick)


def catalogue_of_faults(job: Job) -> Outcome:
    """Eighteen faults in three sizes, on made-up sensors and on real normal stretches, beside rivals."""
    sources = {group: job.sources((group,)) for group in catalogue.GROUPS}
    return catalogue.outcome(job.workers, job.setup, sources, quick=job.quick)


BENCHMARKS: dict[str, Callable[[Job], Outcome]] = {
    "overlap": overlap,
    "ranking": ranking,
    "nab": nab,
    "budget": budgets,
    "faults": second_faults,
    "hearing": equal_faults,
    "channels": several_channels,
    "alerts": what_alerts_claim,
    "catalogue": catalogue_of_faults,
    "images": one_class,
}
