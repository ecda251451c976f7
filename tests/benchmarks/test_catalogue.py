"""The benchmark of the catalogue: its sensors, its rivals and its reckoning, on what is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import catalogue, images, kinds
from benchmarks.quality.__main__ import main
from benchmarks.quality.catalogue import PARTS, Subject, alarms_at, examine, threshold_for
from benchmarks.quality.published import nab_of_rivals
from benchmarks.quality.rivals import RIVALS, row_pca, sigma, window_pca
from benchmarks.quality.scoring import wilson_interval
from detector.detection.columns import columns
from detector.errors import UserError
from tests import plant
from tests.benchmarks import labelled


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (10, 10, (0.7225, 1.0)), (0, 0, (0.0, 1.0))],
)
def test_wilson_intervals(hits: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(hits, trials) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", [*kinds.KINDS, kinds.MACHINE])
def test_a_sensor_follows_from_its_kind_number_and_seed(kind: str) -> None:
    values = kinds.healthy(kind, 1, 700, 5)
    assert values.shape == (700, 3 if kind == kinds.MACHINE else 1)
    assert np.isfinite(values).all()
    assert values.std() > 0
    assert np.array_equal(values, kinds.healthy(kind, 1, 700, 5))
    assert not np.array_equal(values, kinds.healthy(kind, 2, 700, 5))


def test_there_are_thirteen_kinds_and_a_machine_with_shifts_stands_still_at_the_week_end() -> None:
    assert len(kinds.KINDS) == 13
    values = kinds.healthy("shifts", 0, 14 * kinds.SHIFT_DAY, 5)[:, 0]
    runs = values > 5
    by_day = [bool(runs[day * kinds.SHIFT_DAY :][: kinds.SHIFT_DAY].any()) for day in range(14)]
    assert 8 <= sum(by_day) <= 12
    assert 0.3 < runs.mean() < 0.6


@pytest.mark.parametrize("fit", [sigma, window_pca, row_pca])
def test_a_rival_scores_what_is_off_higher_and_no_row_by_a_later_one(fit: object) -> None:
    assert callable(fit)
    values = plant.healthy(np.random.default_rng(3), 900, 2)
    score = fit(values[:600])
    faulty = values[500:].copy()
    faulty[250:] += [[30.0, -30.0]]
    scores, before = score(faulty), score(values[500:])
    assert scores[260:].max() > 3 * before[100:].max()
    assert np.array_equal(scores[:250], before[:250])


def test_a_threshold_has_no_more_alarms_than_allowed_and_hardly_less() -> None:
    rng = np.random.default_rng(2)
    scores = [np.exp(rng.normal(size=5_000)) for _ in range(4)]
    for allowed in (0, 3, 12):
        threshold = threshold_for(scores, allowed)
        assert alarms_at(scores, threshold) <= allowed
        assert alarms_at(scores, 0.9 * threshold) > allowed
    assert alarms_at([np.array([0.0, 2.0, 0.0, 2.0])], 1.0) == 1
    assert alarms_at([np.concatenate([[2.0], np.zeros(200), [2.0]])], 1.0) == 2


def subject() -> Subject:
    return Subject("cycle", "cycle 0", plant.healthy(np.random.default_rng(4), 2_200), 500)


def test_every_fault_is_tried_in_its_sizes_and_large_ones_are_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    some = ("offset", "stuck", "dropout", "frequency", "delay", "night run", "swapped channels")
    monkeypatch.setattr(catalogue, "FAULTS", some)
    examined = examine(subject(), (1, 3), plant.model_of(), ["4 sigma", "row PCA"])
    tried = {(trial.fault, trial.size) for trial in examined.trials}
    assert {fault for fault, _ in tried} == set(some[:4])  # the others have no meaning for it
    assert len(tried) == len(examined.trials)
    found = {(trial.fault, trial.size): trial for trial in examined.trials}
    large = found["offset", 3]
    assert large.delay is not None
    assert large.delay < 60
    assert large.rivals["4 sigma"] > max(1.0, found["offset", 1].rivals["4 sigma"])
    assert examined.scores.keys() == {"4 sigma"}  # a row of one channel has no components
    assert examined.scores["4 sigma"].shape == (examined.rows,) == (1_700,)


def test_without_its_signals_nothing_of_the_values_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"contexts", *(column.name for column in columns(1, 1))}
    assert {"reconstruction", "prediction", "level"} <= set(catalogue.parts()) <= set(PARTS)
    assert all((PARTS[name][0] in there) == (name in catalogue.parts()) for name in PARTS)
    monkeypatch.setitem(PARTS, "every signal", ("worst", lambda _: slice(None)))
    monkeypatch.setattr(catalogue, "FAULTS", ("gain", "noise up"))  # which no rule is about
    without = examine(subject(), (3,), plant.model_of(), [], "every signal").trials
    assert {trial.fault: trial.delay for trial in without} == {"gain": None, "noise up": None}
    whole = examine(subject(), (3,), plant.model_of(), []).trials
    assert all(trial.delay is not None for trial in whole)


def test_rivals_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.quality.rivals._PACKAGES", {"RRCF": "no_such_package_here"})
    from benchmarks.quality.rivals import installed

    names, notes = installed()
    assert set(names) == set(RIVALS) - {"RRCF"}
    assert len(notes) == 1
    assert notes[0].startswith("RRCF is left out: the package `no_such_package_here` is not installed")


# -- what the other benchmarks lacked --------------------------------------------------------------------------------


def test_missing_images_skip_only_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise UserError("Fashion-MNIST is not here", where="/nowhere")

    monkeypatch.setattr(images, "require", missing)
    from benchmarks.quality import __main__ as command

    assert command.available(["images", "budget"]) == ["budget"]
    assert "images are skipped: Fashion-MNIST is not here" in capsys.readouterr().err
    assert main(["images"]) == 2


def test_published_results_may_lie_beside_a_part_that_was_held_back(tmp_path: Path) -> None:
    labelled.make(tmp_path)
    (tmp_path / "held").mkdir()
    assert nab_of_rivals(tmp_path / "held", 41) == ("dev", {"rival": 40.5})
