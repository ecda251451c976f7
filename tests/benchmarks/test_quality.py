"""The quality benchmarks: scores against cases worked out by hand, series read and played without being changed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.quality import baseline, budget, faults, synthetic
from benchmarks.quality.__main__ import main
from benchmarks.quality.data import DEFAULT, VARIABLE, find_data, find_sources, load, runs
from benchmarks.quality.drive import play, play_together
from benchmarks.quality.modelling import training_rows
from benchmarks.quality.published import nab_of_rivals, overlap_of_rivals, ranking_of_rivals
from benchmarks.quality.results import Gate, Table, gate_table
from benchmarks.quality.scoring import (
    Counts,
    Detections,
    nab_probation,
    nab_score,
    overlap_counts,
    period,
    poisson_interval,
    vus_pr,
)
from detector.errors import UserError
from tests import plant
from tests.benchmarks import labelled

# -- scores ----------------------------------------------------------------------------------------------------------


def test_overlap_counts_intervals_found_and_episodes_that_overlap_none() -> None:
    intervals = [(10, 20), (40, 50), (70, 70)]
    episodes = [(0, 9), (20, 25), (21, 39), (45, 48), (49, 60)]
    assert overlap_counts(intervals, episodes) == Counts(tp=2, fp=2, fn=1)


def test_f1_and_recall_are_of_the_sums() -> None:
    total = Counts(2, 1, 0) + Counts(1, 0, 3)
    assert total == Counts(3, 1, 3)
    assert total.f1 == pytest.approx(6 / 10)
    assert total.recall == pytest.approx(3 / 6)
    assert Counts().f1 == 0.0


def test_runs_are_intervals_with_both_ends() -> None:
    assert runs(np.array([True, False, True, True])) == ((0, 0), (2, 3))
    assert runs(np.zeros(3, dtype=bool)) == ()


def test_a_perfect_ranking_without_widening_has_the_whole_area() -> None:
    labels = np.zeros(500, dtype=bool)
    labels[100:350] = True
    assert vus_pr(labels, labels.astype(float), 0) == pytest.approx(1.0)


def test_a_constant_score_ranks_as_chance() -> None:
    labels = np.zeros(1000, dtype=bool)
    labels[400:500] = True
    assert vus_pr(labels, np.ones(1000), 0) == pytest.approx(0.1)


def test_a_ranking_needs_labels_and_finite_scores() -> None:
    with pytest.raises(ValueError, match="a ranking needs"):
        vus_pr(np.zeros(10, dtype=bool), np.zeros(10), 3)
    with pytest.raises(ValueError, match="a ranking needs"):
        vus_pr(np.ones(10, dtype=bool), np.full(10, np.nan), 3)


def test_period_of_a_sine_and_of_nothing() -> None:
    assert abs(period(np.sin(2 * np.pi * np.arange(2000) / 50)) - 50) <= 3
    assert period(np.ones(500)) == 125


def test_nab_rewards_the_first_row_of_a_window_in_full_and_silence_not_at_all() -> None:
    windows = ((500, 599),)
    assert nab_score([Detections(1000, windows, (500,))]) == pytest.approx(100.0)
    assert nab_score([Detections(1000, windows, ())]) == pytest.approx(0.0)
    assert nab_score([Detections(1000, (), ())]) == 0.0


def test_nab_counts_the_best_detection_of_a_window_and_charges_those_outside() -> None:
    windows = ((500, 599),)
    one = nab_score([Detections(1000, windows, (550,))])
    assert 0 < one < 100
    assert nab_score([Detections(1000, windows, (550, 560, 590))]) == pytest.approx(one)
    # A detection before any window costs 0.11 of the 2 between silence and perfection.
    assert nab_score([Detections(1000, windows, (300, 500))]) == pytest.approx(100 - 100 * 0.11 / 2)
    assert nab_score([Detections(1000, windows, (149, 500))]) == pytest.approx(100.0)
    just_after = nab_score([Detections(1000, windows, (500, 601))])
    assert 100 - 100 * 0.11 / 2 < just_after < 100


def test_nab_probation_is_limited() -> None:
    assert nab_probation(1000) == 150
    assert nab_probation(100_000) == 750


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 3.689), (10, 4.795, 18.39), (100, 81.36, 121.63)])
def test_poisson_intervals_are_near_the_exact_ones(count: int, low: float, high: float) -> None:
    ours = poisson_interval(count)
    assert ours[0] == pytest.approx(low, rel=0.03, abs=0.001)
    assert ours[1] == pytest.approx(high, rel=0.03)


def _scoring(name: str) -> ModuleType:
    path = Path(os.environ.get(VARIABLE) or DEFAULT) / "scoring" / f"{name}.py"
    if not path.is_file():
        pytest.skip(f"the labelled data with {name}.py are not here (${VARIABLE})")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vus_is_that_of_the_data_s_own_scoring() -> None:
    theirs = _scoring("vus")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows = int(rng.integers(300, 3000))
        labels = np.zeros(rows, dtype=bool)
        for first in rng.integers(0, rows, 3):
            labels[first : first + int(rng.integers(1, 80))] = True
        scores = rng.random(rows) + labels * rng.random()
        values = np.sin(np.arange(rows) / rng.uniform(2, 40)) + rng.normal(0, 0.2, rows)
        assert period(values) == theirs.period(values)
        width = int(rng.integers(0, 150))
        assert vus_pr(labels, scores, width) == pytest.approx(theirs.vus(labels, scores, W=width)[0])


def test_nab_score_is_that_of_the_data_s_own_scoring() -> None:
    theirs = _scoring("nab_score")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        ours, given = [], []
        for _ in range(4):
            rows = int(rng.integers(800, 6000))
            edges = np.sort(rng.choice(np.arange(rows // 5, rows - 1), 4, replace=False)).tolist()
            windows = ((edges[0], edges[1]), (edges[2], edges[3]))
            detected = np.unique(rng.integers(0, rows, 6))
            flags = np.zeros(rows)
            flags[detected] = 1
            ours.append(Detections(rows, windows, tuple(detected.tolist())))
            given.append((flags, list(windows)))
        assert nab_score(ours) == pytest.approx(theirs.nab(given, threshold=0.5)["score"])


# -- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return labelled.make(tmp_path / "data")


@pytest.mark.parametrize("group", ["SMAP", "MSL", "UCR", "TSB-AD-U"])
def test_series_have_their_rows_prefix_and_labels(data: Path, group: str) -> None:
    (source,) = find_sources(data, group)
    series = load(source)
    assert len(series.values) == labelled.ROWS
    assert series.train_rows == labelled.TRAIN
    assert series.intervals == (labelled.FAULT,)
    assert series.labels.sum() == labelled.FAULT[1] - labelled.FAULT[0] + 1


def test_nab_has_its_windows_and_probation(data: Path) -> None:
    one, two = find_sources(data, "NAB")
    assert (one.category, one.name) == ("realTweets", "one")
    series = load(two)
    assert series.train_rows == 135
    assert series.intervals == (labelled.FAULT,)


def test_a_glob_chooses_by_name(data: Path) -> None:
    assert [s.name for s in find_sources(data, "NAB", "o*")] == ["one"]
    assert [s.name for s in find_sources(data, "UCR", "*NOISE*")] == ["007-NOISEpump_2"]


def test_a_file_that_is_no_series_is_named(data: Path) -> None:
    path = data / "ucr" / "008_UCR_Anomaly_x_300_600_660.csv.gz"
    path.write_bytes(b"not compressed")
    with pytest.raises(UserError, match="008_UCR_Anomaly_x"):
        load(find_sources(data, "UCR")[1])


def test_a_directory_without_series_is_refused_with_the_public_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError):
        find_data(str(tmp_path))
    assert main(["alerts", "--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "github.com/numenta/NAB" in told
    assert str(tmp_path) in told


def test_published_counts_are_those_of_the_series_at_hand(data: Path) -> None:
    sources = [s for group in ("NAB", "SMAP", "MSL", "UCR") for s in find_sources(data, group)]
    rivals = overlap_of_rivals(data, sources)
    assert rivals["rival"] == {
        "NAB": (Counts(1, 1, 0), 1),
        "SMAP": (Counts(1, 0, 0), 1),
        "MSL": (Counts(0, 0, 1), 1),
        "UCR": (Counts(1, 2, 0), 1),
    }
    assert ranking_of_rivals(data, [s.name for s in find_sources(data, "TSB-AD-U")]) == {"Rival": (0.25, 1)}
    assert nab_of_rivals(data, 2) == ("all", {"rival": 51.5})
    assert nab_of_rivals(data, 41) == ("dev", {"rival": 40.5})


# -- the pipeline ----------------------------------------------------------------------------------------------------


def test_every_row_after_the_prefix_has_its_score_and_episodes_are_in_rows() -> None:
    values = np.array(labelled.series(9))
    played = play(values, labelled.TRAIN, plant.model_of(), 10_000)
    assert len(played.scores) == labelled.ROWS
    assert not played.scores[: labelled.TRAIN].any()
    assert (played.scores[labelled.TRAIN : labelled.FAULT[0]] > 0).all()
    assert played.scores.max() == played.scores[labelled.FAULT[0] : labelled.FAULT[1] + 100].max()
    assert played.live_rows == labelled.ROWS - labelled.TRAIN
    (episode,) = played.episodes
    assert labelled.FAULT[0] <= episode.opened <= labelled.FAULT[0] + 30
    assert episode.opened - episode.started == 50
    assert labelled.FAULT[1] <= episode.ended < labelled.ROWS
    assert episode.closed


def test_rows_without_a_value_are_not_sent_and_keep_their_number() -> None:
    values = np.array(labelled.series(9))
    holes = np.array([5, 100, 450, 451, 610])
    sparse = np.insert(values, holes, np.nan)
    dense = play(values, labelled.TRAIN, plant.model_of(), 10_000)
    played = play(sparse, labelled.TRAIN + 2, plant.model_of(), 10_000)
    present = np.isfinite(sparse)
    assert played.scores[present].tobytes() == dense.scores.tobytes()
    assert not played.scores[~present].any()
    assert played.live_rows == dense.live_rows
    rows = np.flatnonzero(present)
    assert [e.opened for e in played.episodes] == [rows[e.opened] for e in dense.episodes]


def test_sensors_side_by_side_have_the_episodes_they_have_alone() -> None:
    sensors = {f"s{seed}": np.array(labelled.series(seed))[: 900 - 40 * seed] for seed in range(4)}
    together = play_together(sensors, labelled.TRAIN, plant.model_of(), 1_000)
    alone = {name: play(values, labelled.TRAIN, plant.model_of(), 1_000) for name, values in sensors.items()}
    assert together == {name: played.episodes for name, played in alone.items()}
    assert all(together.values())


def test_training_rows_are_the_finite_ones_of_the_prefix() -> None:
    values = np.arange(400.0)
    values[[3, 7]] = np.nan
    assert training_rows(values, 300).tolist() == [v for v in range(300) if v not in (3, 7)]
    assert len(training_rows(values, 10)) == 150


# -- baseline, synthetic sensors, budget -----------------------------------------------------------------------------


def test_the_baseline_finds_a_plain_fault_and_scores_no_training_row() -> None:
    values = np.array(labelled.series(4))
    scores = baseline.pca_scores(values, labelled.TRAIN, 40, 50)
    assert not scores[: labelled.TRAIN].any()
    assert scores[600:700].max() > 10 * scores[labelled.TRAIN : 590].max()
    episodes = baseline.pca_episodes(values, labelled.TRAIN, 40, 50)
    assert any(first <= 660 and last >= 600 for (first, last), _ in episodes)


@pytest.mark.parametrize("kind", list(synthetic.KINDS))
def test_synthetic_sensors_follow_from_their_seed(kind: str) -> None:
    one, again, other = (synthetic.sensor(kind, number, 2000, 5) for number in (0, 0, 1))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()
    assert one.shape == (2000,)
    assert np.isfinite(one).all()


def test_a_fault_is_added_in_units_of_the_prefix() -> None:
    values = np.tile([1.0, 3.0], 50)
    faulty = synthetic.shifted(values, 60, 10, 6, 40)
    assert (faulty - values).tolist() == [0.0] * 60 + [6.0] * 10 + [0.0] * 30
    assert (synthetic.shifted(values, 60, None, 2, 40) - values).sum() == pytest.approx(80)


def test_rates_are_pooled_and_only_sensors_with_enough_expected_are_judged() -> None:
    observed = [
        budget.Observed("a", "1", 1000, 10.0, 8),
        budget.Observed("a", "2", 1000, 3.0, 16),
        budget.Observed("b", "3", 1000, 1.0, 9),
    ]
    pooled = budget.pool(observed)
    assert pooled.ratio == pytest.approx(33 / 14)
    assert (pooled.judged, pooled.far_above) == (2, 1)
    assert pooled.interval[0] < pooled.ratio < pooled.interval[1]


def test_faults_lie_where_they_are_looked_for() -> None:
    assert faults.CLOSE_AFTER == 100
    assert {kind for kind, _ in budget.names(len(synthetic.KINDS))} == set(synthetic.KINDS)


# -- results ---------------------------------------------------------------------------------------------------------


def test_gates_have_three_verdicts_and_none() -> None:
    verdicts = [Gate.at_least("g", value, 0.5, 0.7).verdict for value in (0.4, 0.5, 0.7, None)]
    assert verdicts == ["missed", "passed", "aim reached", "not measured"]
    assert Gate.at_most("g", 0.1, 0.02, 0.0).missed
    assert not Gate("g", 1.0, (0.5, 1.5), (0.8, 1.2)).missed
    assert "0.5 to 1.5" in str(gate_table([Gate("g", 1.0, (0.5, 1.5), (0.8, 1.2))]))


def test_tables_are_aligned() -> None:
    assert str(Table("T", ("", "n"), [("one", "1"), ("x", "10")])) == "T\n-\n      n\none   1\nx    10\n"


# -- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_measures_a_directory_it_has_never_seen(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    arguments = ["overlap", "ranking", "nab", "--data", str(data), "--jobs", "1", "--json", str(result), "--gate"]
    code = main([*arguments, "--models", str(tmp_path / "models")])
    told = capsys.readouterr().out
    assert (code, told.splitlines()[-1]) in ((0, "PASS"), (1, "FAIL"))
    assert "rival" in told
    assert re.search(r"incomplete +- +1\.000( +-){3}", told), "one that says nothing of some groups has no mean"
    record = json.loads(result.read_text(encoding="utf-8"))
    assert record["configuration"]["training"]["epochs"] == 30
    counts = record["results"]["overlap"]["detector"]
    assert [counts[group]["tp"] for group in ("NAB", "SMAP", "MSL", "UCR")] == [1, 1, 1, 1]
    assert len(record["gates"]) == 3
    assert record["results"]["ranking"]["detector"] > 0.5
