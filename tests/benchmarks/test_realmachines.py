"""Real machines: found where they lie, judged with every channel, beside rivals that are what they are said to be."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import realmachines
from benchmarks.quality.data import find_sources, load
from benchmarks.quality.detection import Setup
from benchmarks.quality.modelling import ModelStore
from benchmarks.quality.scoring import Counts
from benchmarks.quality.workers import Workers
from detector.detection.scorer import Model
from tests import plant

TRAIN, ROWS = 600, 1200
FAULT = slice(800, 860)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One machine of three channels, in the layout of the data."""
    values = plant.healthy(np.random.default_rng(4), ROWS, 3)
    values[FAULT, 1] += 15
    labels = np.zeros(ROWS, dtype=int)
    labels[FAULT] = 1
    (tmp_path / "multichannel").mkdir()
    for part, rows in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, ROWS))):
        lines = ["c00,c01,c02" + (",label" if part == "test" else "")]
        for row, label in zip(values[rows].tolist(), labels[rows].tolist(), strict=True):
            lines.append(",".join(map(str, [*row, label] if part == "test" else row)))
        text = "\n".join(lines) + "\n"
        (tmp_path / f"multichannel/machine-9-9.{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_a_machine_is_read_with_all_of_its_channels(data: Path) -> None:
    (source,) = find_sources(data, "SMD")
    assert find_sources(data, "ASD") == []
    series = load(source)
    assert (series.values.shape, series.train_rows) == ((ROWS, 3), TRAIN)
    assert series.intervals == ((FAULT.start, FAULT.stop - 1),)


def test_a_machine_is_judged_beside_its_rivals(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(*_: object) -> Model:
        return plant.model_of(channels=3)

    monkeypatch.setattr(realmachines, "opened_model", model)
    monkeypatch.setattr(ModelStore, "make", lambda *_: "")
    (source,) = find_sources(data, "SMD")
    found = realmachines.judge(source, (1_000,), Setup("dense", tmp_path))
    assert list(found.ranking) == ["detector", "row PCA", "row PCA, average of 50", "mean z^2, average of 50"]
    assert min(found.ranking.values()) > 0.3
    (alerts,) = found.alerts
    assert (alerts.counts.tp, alerts.counts.fn, len(alerts.delays)) == (1, 0, 1)
    assert 0 <= alerts.delays[0] < 30
    assert alerts.allowed == pytest.approx(0.54)


def test_rivals_leave_what_their_components_do_not_explain() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (500, 1)) * [1.0, 2.0, 0.0] + rng.normal(0, 0.01, (500, 3)) * [1, 1, 0]
    values[400, 1] += 3
    values[410:, 2] = 4.0
    scores = realmachines.rivals(values, 300)
    residual = scores["row PCA"]
    assert residual[:400].max() < 0.01
    assert residual[400] > 0.5
    assert residual[410:] == pytest.approx(16.0, rel=0.01)  # a constant channel keeps its unit
    assert scores["row PCA, average of 50"][399] < scores["row PCA, average of 50"][402] < residual[400]


def test_what_machines_come_to_is_summed_up() -> None:
    machines = [
        realmachines.Machine(
            "SMD", name, {"detector": 0.5 + step, "row PCA": 0.4, "row PCA, average of 50": 0.45, "mean z^2": 0.2},
            tuple(realmachines.Alerts(b, Counts(4, step, 4), 9.0, (10, 12)) for b in realmachines.BUDGETS),
        )
        for step, name in enumerate(("a", "b"))
    ]  # fmt: skip

    class Done(Workers):
        def run(self, *_: object) -> list[realmachines.Machine]:  # type: ignore[override]
            return machines

    with Done(1) as workers:
        result = realmachines.outcome(workers, Setup("dense", Path()), [])
    gates = {gate.name: gate for gate in result.gates}
    ranking = gates["machines-real: SMD: VUS-PR, beside row PCA and its average"]
    assert (ranking.value, ranking.passes[0]) == (1.0, 0.45)
    assert gates["machines-real: SMD, 1 in 1000: F1"].value == pytest.approx(16 / 25)
    assert gates["machines-real: 1 in 1000: false / allowed"].value == pytest.approx(1 / 18)
