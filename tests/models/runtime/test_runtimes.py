"""Scoring: both runtimes agree with Keras, and a window's result never depends on its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from detector.arrays import F32
from detector.detection.kernel.build import LSTM_SOURCE
from detector.detection.kernel.compiled import UnusableError, opened
from detector.errors import UserError
from detector.models.bundle.bundles import ONNX_FILE
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime import compiled
from detector.models.runtime.onnx import CHUNK, OnnxRuntime, open_runtime, say_once
from detector.models.runtime.tensorflow import TensorFlowRuntime
from detector.models.training.architectures import save
from detector.models.training.sampling import sample
from tests.models.conftest import MakeBundle, Trained


def windows_of(trained: Trained) -> F32:
    """What the model was trained on, the same with a level shift and a spike, and noise, all within +-10."""
    rows = sample(trained.series, scaler="standard", limit=1000).rows
    seen = np.stack([rows[start : start + 100] for start in range(0, 160, 4)])
    shifted = seen.copy()
    shifted[:, 60:] += 6
    shifted[:, 30] = -9
    noise = np.random.default_rng(0).uniform(-10, 10, seen.shape).astype(np.float32)
    windows: F32 = np.clip(np.concatenate([seen, shifted, noise]), -10, 10)
    return windows


def test_onnx_agrees_with_keras(trained: Trained) -> None:
    windows = windows_of(trained)
    expected = np.asarray(trained.model(windows))
    np.testing.assert_allclose(OnnxRuntime.load(trained.onnx, trained.spec.kind)(windows), expected, 1e-4, 1e-5)


@pytest.mark.parametrize("trained", ["lstm", "lstm-3"], indirect=True)
def test_the_compiled_lstm_agrees_with_keras(trained: Trained, make_bundle: MakeBundle) -> None:
    runtime = open_runtime(make_bundle(spec=trained.spec, onnx=trained.onnx))
    assert runtime.name == ("the compiled LSTM" if _can_be_compiled() else "ONNX Runtime")
    windows = windows_of(trained)
    np.testing.assert_allclose(runtime(windows), np.asarray(trained.model(windows)), 1e-4, 1e-5)


def _can_be_compiled() -> bool:
    """Whether there is a library for this processor, as there is where there was a compiler."""
    try:
        return bool(opened(compiled.LIBRARY, LSTM_SOURCE).lstm_lanes(compiled.LANES))
    except UnusableError:
        return False


@pytest.mark.parametrize("trained", ["lstm"], indirect=True)
def test_where_it_is_not_compiled_the_log_says_so_once(
    trained: Trained, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> None:
        raise UnusableError("it has not been built")

    monkeypatch.setattr(compiled, "opened", missing)
    say_once.cache_clear()
    bundle = make_bundle(spec=trained.spec, onnx=trained.onnx)
    assert open_runtime(bundle).name == open_runtime(bundle).name == "ONNX Runtime"
    say_once.cache_clear()
    (said,) = [record for record in caplog.records if record.message == "lstm_not_compiled"]
    assert said.__dict__["fields"] == {"reason": "it has not been built"}


def test_tensorflow_agrees_with_keras(trained: Trained, tmp_path: Path) -> None:
    save(trained.model, tmp_path / "model.keras")
    windows = windows_of(trained)
    expected = np.asarray(trained.model(windows))
    runtime = TensorFlowRuntime.load(tmp_path / "model.keras", trained.spec.kind)
    np.testing.assert_allclose(runtime(windows), expected, 1e-4, 1e-5)


def test_bits_depend_on_no_neighbour_and_no_position(trained: Trained) -> None:
    runtime = OnnxRuntime.load(trained.onnx, trained.spec.kind)
    assert runtime.batching == "free"
    rng = np.random.default_rng(1)
    windows = rng.normal(0, 3, (CHUNK[trained.spec.kind] + 37, *trained.spec.shape)).astype(np.float32)
    together = runtime(windows)
    for size in (1, 2, 3, 7, 16, 31, 64, 200):
        parts = [runtime(windows[i : i + size]) for i in range(0, len(windows), size)]
        assert np.concatenate(parts).tobytes() == together.tobytes()
    order = rng.permutation(len(windows))
    assert runtime(windows[order]).tobytes() == together[order].tobytes()
    huge = windows.copy()
    huge[1::2] = 1e4
    assert runtime(huge)[::2].tobytes() == together[::2].tobytes()


def test_no_windows_give_no_result(trained: Trained) -> None:
    empty = np.empty((0, *trained.spec.shape), dtype=np.float32)
    assert OnnxRuntime.load(trained.onnx, trained.spec.kind)(empty).shape == empty.shape


def test_the_lstm_is_two_operators_and_no_loop(trained: Trained) -> None:
    operators = [node.op_type for node in onnx.load_from_string(trained.onnx).graph.node]
    assert operators.count("LSTM") == (2 if trained.spec.kind == "lstm" else 0)
    assert not {"Loop", "Scan", "If"} & set(operators)
    assert operators.count("MatMul") == (1 if trained.spec.kind == "lstm" else 2)


@pytest.mark.parametrize("runtime", [OnnxRuntime, TensorFlowRuntime])
@pytest.mark.parametrize(
    ("windows", "says"),
    [
        (np.zeros((3, 50, 1), np.float32), r"\(n, 100, 1\), these are float32 of shape \(3, 50, 1\)"),
        (np.zeros((3, 100), np.float32), r"\(n, 100, 1\), these are float32 of shape \(3, 100\)"),
        (np.zeros((3, 100, 1)), r"\(n, 100, 1\), these are float64 of shape \(3, 100, 1\)"),
    ],
)
def test_other_shapes_are_refused(runtime: Any, windows: F32, says: str, dense: Trained) -> None:
    loaded = (
        OnnxRuntime.load(dense.onnx, "dense") if runtime is OnnxRuntime else TensorFlowRuntime(dense.model, "dense")
    )
    with pytest.raises(ValueError, match=says):
        loaded(windows)


class FakeSession:
    """Doubles windows, with an error that depends on the batch as `error` says."""

    def __init__(self, error: Any) -> None:
        self.error = error
        self.sizes: list[int] = []

    def get_inputs(self) -> Sequence[Any]:
        return [SimpleNamespace(name="windows", shape=["n", 100, 1])]

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, F32]) -> Sequence[F32]:
        windows = feed["windows"]
        self.sizes.append(len(windows))
        return [2 * windows + self.error(len(windows)).astype(np.float32)[:, None, None]]


@pytest.mark.parametrize(
    ("error", "batching", "sizes"),
    [
        (lambda n: np.zeros(n), "free", {32, 5}),
        (lambda n: np.full(n, n), "padded", {32}),
        (lambda n: np.arange(n), "single", {1}),
    ],
    ids=["of nothing", "of the batch's size", "of the position"],
)
def test_batches_are_padded_where_bits_depend_on_them(error: Any, batching: str, sizes: set[int]) -> None:
    session = FakeSession(error)
    runtime = OnnxRuntime(session, "lstm")
    assert runtime.batching == batching
    session.sizes.clear()
    windows = np.random.default_rng(0).normal(size=(69, 100, 1)).astype(np.float32)
    together = runtime(windows)
    assert set(session.sizes) == sizes
    assert together.shape == windows.shape
    assert np.concatenate([runtime(windows[i : i + 1]) for i in range(69)]).tobytes() == together.tobytes()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for load, name in ((OnnxRuntime.load, "model.onnx"), (TensorFlowRuntime.load, "model.keras")):
        path = tmp_path / name
        path.write_bytes(b"something else")
        with pytest.raises(UserError, match="cannot") as caught:
            load(path, "dense")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnx", "tensorflow"])
def test_a_bundle_is_opened_with_either_runtime(runtime: str, make_bundle: MakeBundle, dense: Trained) -> None:
    reconstruct = open_runtime(make_bundle(), runtime)
    windows = windows_of(dense)
    np.testing.assert_allclose(reconstruct(windows), np.asarray(dense.model(windows)), 1e-4, 1e-5)


def test_an_unknown_runtime_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(UserError, match="there is no runtime 'torch'"):
        open_runtime(make_bundle(), "torch")


def test_a_model_unlike_its_manifest_is_refused(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(spec=ModelSpec("dense", ("a", "b")))
    assert (bundle.path / ONNX_FILE).exists()
    with pytest.raises(UserError, match=r"windows of shape \(100, 1\), its manifest says \(100, 2\)"):
        open_runtime(bundle)
