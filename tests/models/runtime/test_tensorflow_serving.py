"""`runtime: tensorflow`: the commands score with the Keras model, and find what they find with ONNX Runtime."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.cli.main import main
from detector.models.bundle.versions import activate
from detector.models.runtime.tensorflow import TensorFlowRuntime
from detector.models.training.architectures import save
from tests.models.conftest import MakeBundle, Trained, waves

ROWS = 500
FAULT = slice(300, 360)


@pytest.fixture
def plant(make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained model, and readings of its sensors, one of which has a fault."""
    bundle = make_bundle()
    activate(tmp_path / "models", bundle.version)
    monkeypatch.chdir(tmp_path)
    series = {sensor: values[:, 0] for sensor, (_, values) in waves(3, ROWS).items()}
    series["pump-1"][FAULT] += 40
    lines = [
        json.dumps({"sensor_id": sensor, "timestamp": 1_790_000_000 + row, "value": values[row]})
        for row in range(ROWS)
        for sensor, values in series.items()
    ]
    Path("in.jsonl").write_text("\n".join(lines) + "\n")


def options(runtime: str) -> list[str]:
    """The sensors' one channel is called `a`, as the model was trained."""
    settings = (
        "http.listen=127.0.0.1:0",
        "readings.model=models",
        "readings.channels=[a]",
        f"readings.runtime={runtime}",
    )
    return [word for setting in settings for word in ("--set", setting)]


def run(runtime: str) -> list[dict[str, Any]]:
    words = ["run", "--input", "in.jsonl", "--output", f"{runtime}.jsonl", "--until-end", *options(runtime)]
    assert main(words) == 0
    return read(Path(f"{runtime}.jsonl"))


def backtest(runtime: str) -> list[dict[str, Any]]:
    assert main(["backtest", "--data", "in.jsonl", "--out", runtime, *options(runtime)]) == 0
    return read(Path(runtime) / "alerts.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def agree(ours: Any, theirs: Any) -> bool:
    """Equal but for the last digits of what was computed; errors of windows are squares of small differences."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(agree(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(agree, ours, theirs))
    if isinstance(theirs, float):
        return bool(np.isclose(ours, theirs, rtol=1e-3, atol=1e-4))
    return bool(ours == theirs)


@pytest.mark.usefixtures("plant")
@pytest.mark.parametrize("command", [run, backtest])
def test_it_finds_what_onnx_runtime_finds(command: Callable[[str], list[dict[str, Any]]]) -> None:
    theirs, ours = command("onnx"), command("tensorflow")
    assert theirs[0]["event"] == "opened"
    assert {alert["sensor_id"] for alert in theirs} == {"pump-1"}
    assert agree(ours, theirs)


def test_windows_of_any_number_are_traced_once(dense: Trained, tmp_path: Path) -> None:
    save(dense.model, tmp_path / "model.keras")
    runtime = TensorFlowRuntime.load(tmp_path / "model.keras", "dense")
    for size in (1, 2, 7, 64, 1001):
        runtime(np.zeros((size, 100, 1), dtype=np.float32))
    assert runtime._run.experimental_get_tracing_count() == 1  # noqa: SLF001


@pytest.mark.usefixtures("plant")
@pytest.mark.parametrize("words", [["run", "--input", "in.jsonl", "--output", "o.jsonl", "--until-end"], ["check"]])
def test_where_it_is_not_installed_that_is_said(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "tensorflow" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main([*words, *options("tensorflow")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "detector: error: TensorFlow is not installed here (readings.runtime: tensorflow). Set it to"
    )
