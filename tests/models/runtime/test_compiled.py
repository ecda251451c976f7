"""The LSTM compiled for itself: what it makes of windows, the same bits however they come, and when it is not used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.arrays import F32, F64
from detector.detection.kernel import build as build_module
from detector.detection.kernel.build import LSTM_SOURCE, build, compilers
from detector.detection.kernel.choice import INTERPRETED, VARIABLE
from detector.detection.kernel.compiled import UnusableError
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime.compiled import Layer, Lstm, Weights, choose, read_weights
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.onnx_export import to_onnx
from tests.tiny import autoencoder

ROWS = 100
SCALERS = {"linear": "standard", "sigmoid": "minmax", "tanh": "symmetric"}
SHAPES = [(32, 1, "linear"), (5, 3, "sigmoid"), (33, 2, "tanh"), (1, 1, "linear")]
"""Units, channels, activation."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, as this machine's compiler makes it."""
    if not any(compilers()):
        pytest.skip("there is no C compiler")
    made = build(tmp_path_factory.mktemp("lstm") / "lstm.so", LSTM_SOURCE)
    try:
        Lstm(read_weights(written(1, 1)), ROWS, made)
    except UnusableError as error:
        pytest.skip(str(error))
    return made


def written(units: int, channels: int, activation: str = "linear", gain: float = 2.0) -> bytes:
    """The ONNX file of an LSTM whose weights are random, and larger than an untrained one has."""
    rng = np.random.default_rng(units)

    def weights(*shape: int) -> F32:
        return (gain * rng.normal(0, 1 / np.sqrt(sum(shape)), shape)).astype(np.float32)

    layers = [
        [weights(inputs, 4 * units), weights(units, 4 * units), weights(4 * units)] for inputs in (channels, units)
    ]
    layers.append([weights(units, channels), weights(channels)])
    model = SimpleNamespace(layers=[SimpleNamespace(get_weights=lambda one=one: one) for one in layers])
    names = tuple(f"c{i}" for i in range(channels))
    return to_onnx(model, ModelSpec("lstm", names, (), units, activation, SCALERS[activation]))


def windows_for(channels: int, count: int = 90) -> F32:
    return np.random.default_rng(1).normal(0, 3, (count, ROWS, channels)).astype(np.float32)


def expected(weights: Weights, windows: F32) -> F64:
    """What the model makes of windows, in twice the digits, row after row."""
    inputs = np.swapaxes(windows.astype(np.float64), 0, 1)
    code = _states(weights.first, inputs)[-1]
    states = _states(weights.second, np.broadcast_to(code, (ROWS, *code.shape)))
    values = np.swapaxes(states, 0, 1) @ weights.values.astype(np.float64) + weights.values_bias
    found: F64 = (lambda x: x, _sigmoid, np.tanh)[weights.activation](values)
    return found


def _states(layer: Layer, inputs: F64) -> F64:
    weights, recurrent = layer.inputs.astype(np.float64).T, layer.states.astype(np.float64).T
    bias = layer.biases.astype(np.float64).reshape(2, -1).sum(axis=0)
    state = memory = np.zeros((inputs.shape[1], recurrent.shape[0]))
    states = []
    for row in inputs:
        into, out, forget, cell = np.split(row @ weights + state @ recurrent + bias, 4, axis=1)
        memory = _sigmoid(forget) * memory + _sigmoid(into) * np.tanh(cell)
        state = _sigmoid(out) * np.tanh(memory)
        states.append(state)
    return np.stack(states)


def _sigmoid(x: F64) -> F64:
    made: F64 = 1 / (1 + np.exp(-x))
    return made


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.tobytes() == other.tobytes()


# -- what it makes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "channels", "activation"), SHAPES)
def test_it_makes_what_the_model_says(library: Path, units: int, channels: int, activation: str) -> None:
    weights, windows = read_weights(written(units, channels, activation)), windows_for(channels)
    windows[:30] = np.clip(windows[:30] * 9, -10, 10)
    np.testing.assert_allclose(Lstm(weights, ROWS, library)(windows), expected(weights, windows), 1e-4, 1e-5)


@pytest.mark.parametrize(("units", "channels", "activation"), SHAPES)
def test_bits_depend_on_no_neighbour_and_no_position(library: Path, units: int, channels: int, activation: str) -> None:
    run, windows = Lstm(read_weights(written(units, channels, activation)), ROWS, library), windows_for(channels)
    together = run(windows)
    for size in (1, 2, 15, 16, 23, 24, 25, 64):
        assert same_bits(np.concatenate([run(windows[i : i + size]) for i in range(0, len(windows), size)]), together)
    order = np.random.default_rng(2).permutation(len(windows))
    assert same_bits(run(windows[order]), together[order])
    assert same_bits(run(windows[::2]), together[::2])  # which lie apart in memory
    windows[1::4], windows[3::4] = 1e4, np.nan
    assert same_bits(run(windows)[::2], together[::2])


def test_bits_depend_on_no_width_of_vectors(library: Path) -> None:
    weights, windows = read_weights(written(33, 2, "tanh")), windows_for(2, 70)
    runs = {run.lanes: run for run in (Lstm(weights, ROWS, library, lanes=lanes) for lanes in _usable(library))}
    assert len({run(windows).tobytes() for run in runs.values()}) == 1
    assert all(same_bits(run(windows[:1]), run(windows)[:1]) for run in runs.values())


def _usable(library: Path) -> list[int]:
    """The widths of vectors that this processor has."""
    found = []
    for lanes in (4, 8, 16):
        try:
            found.append(Lstm(read_weights(written(1, 1)), ROWS, library, lanes=lanes).lanes)
        except UnusableError:
            continue
    return found


def test_what_is_extreme_stays_a_number_and_what_is_none_stays_none(library: Path) -> None:
    run, windows = Lstm(read_weights(written(32, 1, gain=8)), ROWS, library), windows_for(1, 24)
    windows[:8] *= 1e4
    windows[8], windows[9, 50] = 1e30, np.nan
    made = run(windows)
    assert np.isfinite(made[np.arange(24) != 9]).all()
    assert np.isnan(made[9]).all()


def test_no_windows_give_no_result_and_other_shapes_are_refused(library: Path) -> None:
    run = Lstm(read_weights(written(5, 3)), ROWS, library)
    assert run(np.empty((0, ROWS, 3), np.float32)).shape == (0, ROWS, 3)
    with pytest.raises(ValueError, match=r"\(n, 100, 3\), these are float32 of shape \(2, 100, 1\)"):
        run(np.zeros((2, ROWS, 1), np.float32))


# -- which runtime is chosen ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content() -> bytes:
    return written(5, 1)


@pytest.fixture(scope="module")
def other(content: bytes) -> OnnxRuntime:
    return OnnxRuntime.load(content, "lstm")


def test_it_is_used_where_it_says_what_onnx_runtime_says(library: Path, content: bytes, other: OnnxRuntime) -> None:
    chosen = choose(content, other, other.shape, library)
    assert isinstance(chosen.runtime, Lstm)
    assert chosen.reason is None


def test_a_person_may_ask_for_onnx_runtime(
    library: Path, content: bytes, other: OnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, INTERPRETED)
    assert choose(content, other, other.shape, library) == (other, None)


def test_without_a_library_or_with_another_one_onnx_runtime_is_used(
    content: bytes, other: OnnxRuntime, tmp_path: Path
) -> None:
    path = tmp_path / "lstm.so"
    assert choose(content, other, other.shape, path) == (other, "it has not been built")
    path.write_bytes(b"\x7fELF of another machine")
    chosen = choose(content, other, other.shape, path)
    assert chosen.runtime is other
    assert str(chosen.reason).startswith("it cannot be loaded: ")
    shutil.copy(build_module.LIBRARY, path) if build_module.LIBRARY.exists() else pytest.skip("there is none at all")
    assert choose(content, other, other.shape, path) == (other, "it was built from another source")


def test_a_processor_without_the_instructions_is_left_to_onnx_runtime(library: Path, content: bytes) -> None:
    with pytest.raises(UnusableError, match="this processor"):
        Lstm(read_weights(content), ROWS, library, lanes=2)


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("553271.438f", "553000.0f", "it differs from ONNX Runtime by "),
        ("LOAD(begin + g", "SPLAT(0.1f) + LOAD(begin + g", "depends on the batch"),
    ],
    ids=["of any window", "of windows alone"],
)
def test_a_library_that_calculates_otherwise_is_not_used(
    right: str, wrong: str, reason: str, library: Path, content: bytes, other: OnnxRuntime, tmp_path: Path
) -> None:
    """As one would that a compiler with a fault has made."""
    for path in (LSTM_SOURCE, LSTM_SOURCE.with_name("lstm_lanes.h")):
        (tmp_path / path.name).write_text(path.read_text().replace(right, wrong))
    told = f'-DKERNEL_DIGEST="{build_module.digest(LSTM_SOURCE)}"'
    made, flags = tmp_path / "lstm.so", [*build_module.FLAGS, "-O1", told]
    subprocess.run([*next(compilers()), *flags, "-o", str(made), str(tmp_path / "lstm.c")], check=True)
    chosen = choose(content, other, other.shape, made)
    assert chosen.runtime is other
    assert reason in str(chosen.reason)


def test_another_model_is_left_to_onnx_runtime(library: Path, content: bytes, other: OnnxRuntime) -> None:
    assert choose(autoencoder(1), other, other.shape, library) == (other, "its operations are others")
    chosen = choose(content, other, (ROWS, 2), library)
    assert "these are float32 of shape (2, 100, 2)" in str(chosen.reason)


def test_what_is_damaged_is_no_model_or_other_numbers(content: bytes) -> None:
    """Its bytes are known by their digest; what they say is checked all the same before C is given it."""
    rng, refused = np.random.default_rng(0), 0
    for _ in range(400):
        damaged = bytearray(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content)
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = rng.integers(0, 256)
        try:
            weights = read_weights(bytes(damaged))
        except ValueError:
            refused += 1
        else:
            units, channels = weights.values.shape
            assert weights.first.inputs.shape == (4 * units, channels)
    assert refused > 100
