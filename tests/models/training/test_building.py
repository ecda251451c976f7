"""From readings to a bundle in one go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.config.load import TrainingConfig
from detector.detection.profile import build_profile, scale_of
from detector.errors import OperationError, UserError
from detector.models.bundle.bundles import load_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime.onnx import OnnxRuntime, open_runtime
from detector.models.training import building
from detector.models.training.building import build_bundle
from detector.models.training.sensors import Sensors, with_a_scale
from tests.models.conftest import NOON, waves

SPEC = ModelSpec("dense", ("value",), hidden=(8,), activation="tanh", scaler="symmetric")


def few() -> Sensors:
    return Sensors(waves(1, 150), SPEC, stride=1, open_after=(10, 10))


def test_profiles_are_what_the_daemon_would_build(tmp_path: Path) -> None:
    series = waves(2, 300)
    done: list[int] = []
    settings = TrainingConfig(epochs=1)
    material = Sensors(series, SPEC, stride=3, open_after=(3, 5))
    bundle, report = build_bundle(tmp_path, material, settings, created=NOON, profiled=done.append)
    assert done == [1, 2]
    assert load_bundle(tmp_path, bundle.version) == bundle
    reconstruct = open_runtime(bundle)
    for sensor_id, profile in bundle.profiles().items():
        times, values = series[sensor_id]
        again, _ = build_profile(times, values, reconstruct, scaler="symmetric", stride=3, open_after=(3, 5))
        assert profile.worst.tobytes() == again.worst.tobytes()
        assert profile.peak_v.tobytes() == again.peak_v.tobytes()
    summary = bundle.manifest.training
    assert (summary["sensors"], summary["rows"], summary["epochs"]) == (2, 600, report.epochs)
    assert (summary["from"], summary["to"]) == ("1970-01-01T00:00:00Z", "1970-01-01T00:04:59Z")
    assert summary["train"]["windows"] == report.train.windows
    assert list(bundle.manifest.calibration["median_worst"]) == ["prediction value", "reconstruction", "level value"]
    assert set(bundle.manifest.libraries) >= {"tensorflow", "onnxruntime", "numpy"}


@pytest.mark.parametrize(
    ("scaler", "without"), [("standard", ["huge", "wide"]), ("minmax", ["wide"]), ("symmetric", ["huge", "wide"])]
)
def test_sensors_without_a_scale_are_told_apart(scaler: str, without: list[str]) -> None:
    times, rows = waves(1, 150)["pump-0"]
    signs = np.where(np.arange(150) % 2, 1.0, -1.0)[:, None]
    series = {"huge": np.full((150, 1), 1.7e308), "pump-0": rows, "wide": 1.5e308 * signs, "limit": 1e150 * signs}
    kept, refused = with_a_scale({name: (times, values) for name, values in series.items()}, scaler)
    assert list(refused) == without
    assert list(kept) == [name for name in series if name not in without]
    assert refused["wide"] == "values from -1.5e+308 to 1.5e+308 are too far apart, or too large"


@pytest.mark.parametrize("scaler", ["standard", "minmax", "symmetric"])
def test_a_million_values_of_the_largest_magnitude_have_a_scale(scaler: str) -> None:
    values = np.full((1_000_000, 1), 1e150)
    values[::2] = -1e150
    center, scale = scale_of(values, scaler)
    assert abs(center[0]) <= 1e150
    assert 1e150 <= scale[0] <= 2e150


def test_a_wrong_export_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntime, "__call__", lambda self, windows: windows + np.float32(1))
    with pytest.raises(OperationError, match="the exported model differs"):
        build_bundle(tmp_path, few(), TrainingConfig(epochs=1), created=NOON)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "train", lambda *_, **__: pytest.fail("it was trained"))
    (tmp_path / "file").write_text("")
    for directory, name in ((tmp_path / "file" / "models", None), (tmp_path, "a/b")):
        with pytest.raises(UserError):
            build_bundle(directory, few(), TrainingConfig(), created=NOON, name=name)
