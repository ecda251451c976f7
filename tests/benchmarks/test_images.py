"""The benchmark on images: its measure against cases worked out by hand, and a run over a small collection."""

from __future__ import annotations

import functools
import gzip
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.quality import images
from benchmarks.quality.__main__ import main
from benchmarks.quality.workers import Workers
from detector.config.load import TrainingConfig
from detector.models.training.building import fit
from tests.framemodels import textured_frames


def test_auroc_counts_pairs_and_halves_ties() -> None:
    assert images.auroc(np.array([0.0, 1.0, 2.0]), np.array([1.5, 3.0])) == pytest.approx(100 * 5 / 6)
    assert images.auroc(np.zeros(7), np.zeros(3)) == 50.0
    assert images.auroc(np.array([1.0, 2.0]), np.array([0.5])) == 0.0


def test_pca_reproduces_what_lies_in_its_components() -> None:
    rng = np.random.default_rng(0)
    provenance = rng.normal(size=(32, 784))
    normal = (rng.normal(size=(400, 32)) @ provenance).reshape(-1, 28, 28).astype(np.float32)
    within, beyond = normal[:5], normal[:5] + rng.normal(0, 1, (5, 28, 28)).astype(np.float32)
    squared, calibrated = images.pca_scores(normal, np.concatenate([within, beyond]))
    assert squared[:5].max() < 1e-3 * squared[5:].min()
    assert calibrated[:5].max() < calibrated[5:].min()


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two classes, smooth ones and noise, in the files of Fashion-MNIST."""
    for part, each in (("train", 120), ("t10k", 30)):
        smooth = textured_frames(each, seed=each)
        noise = np.random.default_rng(each).uniform(0, 1, (each, 28, 28))
        pixels = np.round(255 * np.concatenate([smooth, noise])).astype(np.uint8)
        labels = np.repeat([0, 1], each).astype(np.uint8)
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path


def test_the_class_trained_on_scores_lowest(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "TrainingConfig", functools.partial(TrainingConfig, min_steps=1))
    here = cast(Workers, SimpleNamespace(run=lambda title, work, tasks: [work(*task) for task in tasks]))
    out: Any = images.outcome(here, seed=0, limit=1, quick=False, directory=collection)
    (result,) = out.numbers["classes"].values()
    assert result["product"] > 99
    assert result["pca"] > 99
    assert out.numbers["mean"] == result
    assert [gate.verdict for gate in out.gates[:1]] == ["not measured"]  # one class of ten
    assert "T-shirt" in str(out.tables[0])


def test_the_textbook_preset_is_measured_and_not_judged(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "TrainingConfig", functools.partial(TrainingConfig, epochs=1, min_steps=1))
    seen: list[Any] = []

    def noted(material: Any, settings: TrainingConfig) -> Any:
        seen.append(material.spec)
        return fit(material, settings)

    monkeypatch.setattr(images, "fit", noted)
    here = cast(Workers, SimpleNamespace(run=lambda title, work, tasks: [work(*task) for task in tasks]))
    out: Any = images.outcome(here, seed=0, limit=1, quick=False, textbook=True, directory=collection)
    assert [spec.textbook for spec in seen] == [True]
    assert out.gates == []
    assert "preset textbook" in str(out.tables[0])


def test_without_the_images_it_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the start, not after the benchmarks before it have run for minutes."""
    monkeypatch.setattr(images.require, "__defaults__", (tmp_path,))
    assert main(["images", "--jobs", "1"]) == 2
    told = capsys.readouterr()
    assert "apt-get install dataset-fashion-mnist" in told.err
    assert told.out == ""
