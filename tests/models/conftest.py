"""Small trained models, made once: training is what takes the time in these tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from detector.config.load import TrainingConfig
from detector.detection.profile import build_profile
from detector.models.bundle.bundles import Bundle, write_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.architectures import save
from detector.models.training.loop import TrainReport, train
from detector.models.training.onnx_export import to_onnx
from detector.models.training.sampling import Series, sample

SECOND = 10**9
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)

MakeBundle = Callable[..., Bundle]


def waves(sensors: int, rows: int, channels: int = 1) -> Series:
    """Noisy sine waves of different periods, one reading a second."""
    rng = np.random.default_rng(5)
    times = np.arange(rows, dtype=np.int64) * SECOND
    return {
        f"pump-{i}": (
            times,
            50 + 10 * np.sin(times[:, None] / SECOND / (7 + 3 * i)) + rng.normal(0, 1, (rows, channels)),
        )
        for i in range(sensors)
    }


class Trained(NamedTuple):
    """A model, what it was made from, and its ONNX form."""

    spec: ModelSpec
    model: Any
    report: TrainReport
    onnx: bytes
    series: Series


@pytest.fixture(scope="session", params=["dense", "dense-3", "lstm", "lstm-3"])
def trained(request: pytest.FixtureRequest) -> Trained:
    """One of each architecture, with one channel and with three."""
    kind, _, channels = request.param.partition("-")
    return _train(kind, int(channels or 1))


@pytest.fixture(scope="session")
def dense() -> Trained:
    """A dense model of one channel."""
    return _train("dense", 1)


@functools.cache
def _train(kind: str, channels: int) -> Trained:
    """Once a process: in random order the fixture goes from one parameter to another and back."""
    series = waves(3, 260, channels)
    spec = ModelSpec(kind, tuple("abc"[:channels]), units=8)
    chosen = sample(series, scaler=spec.scaler, limit=TrainingConfig().max_windows)
    model, report = train(chosen, spec, TrainingConfig(epochs=1, min_steps=30))
    return Trained(spec, model, report, to_onnx(model, spec), series)


@pytest.fixture
def make_bundle(tmp_path: Path, dense: Trained) -> MakeBundle:
    """Writes versions of the dense model into `tmp_path / "models"`; keywords replace what is written."""
    runtime = OnnxRuntime.load(dense.onnx, "dense")
    profiles = {
        sensor_id: build_profile(times, values, runtime, scaler="standard", stride=1)[0]
        for sensor_id, (times, values) in dense.series.items()
    }

    def make(**changes: Any) -> Bundle:
        settings: dict[str, Any] = {
            "save_keras": lambda path: save(dense.model, path),
            "onnx": dense.onnx,
            "profiles": profiles,
            "stride": 1,
            "open_after": (10, 10),
            "created": NOON,
            **changes,
        }
        return write_bundle(tmp_path / "models", settings.pop("spec", dense.spec), **settings)

    return make
