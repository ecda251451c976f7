"""A dense model is followed by an LSTM that knows one of the sensors: the others go on, and learn it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.cli.main import main
from detector.detection.profile import build_profile
from detector.models.bundle.versions import activate
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.architectures import save
from tests.models.conftest import MakeBundle, Trained, waves

START = 1_790_000_000
FAULTS = (slice(300, 360), slice(700, 760), slice(1250, 1310))
"""Of `pump-1`, in rows: under the first model, while it is mute, and after it has learnt the second one."""
FIRST, ROWS = 500, 1500


def feed(begin: int, end: int) -> None:
    """More rows at the end of the input."""
    series = {sensor: values[:, 0].copy() for sensor, (_, values) in waves(3, ROWS).items()}
    for fault in FAULTS:
        series["pump-1"][fault] += 40
    with Path("in.jsonl").open("a") as file:
        for row in range(begin, end):
            for sensor, values in series.items():
                file.write(json.dumps({"sensor_id": sensor, "timestamp": START + row, "value": values[row]}) + "\n")


def run(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """To the end of the input; the events of the log, by name."""
    words = ["run", "--input", "in.jsonl", "--output", "out.jsonl", "--until-end", "--log-format", "json"]
    settings = [
        "http.listen=127.0.0.1:0", "readings.model=models", "readings.channels=[a]", "readings.warmup=300",
        "readings.alerts.false_alarms={per: 1000 readings}",
    ]  # fmt: skip
    assert main([*words, *(word for setting in settings for word in ("--set", setting))]) == 0
    return {entry["event"]: entry["fields"] for entry in map(json.loads, capfd.readouterr().err.splitlines())}


@pytest.mark.parametrize("trained", ["lstm"], indirect=True)
def test_faults_are_found_before_during_and_after(
    trained: Trained, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    dense = make_bundle()
    activate(tmp_path / "models", dense.version)
    monkeypatch.chdir(tmp_path)
    feed(0, FIRST)
    run(capfd)
    times, values = trained.series["pump-0"]
    lstm = make_bundle(
        spec=trained.spec,
        save_keras=lambda path: save(trained.model, path),
        onnx=trained.onnx,
        profiles={"pump-0": build_profile(times, values, OnnxRuntime.load(trained.onnx, "lstm"))[0]},
    )
    activate(tmp_path / "models", lstm.version)
    feed(FIRST, ROWS)
    assert "model_changed_since_last_run" in run(capfd)
    alerts = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    opened = [alert for alert in alerts if alert["event"] == "opened" and alert["sensor_id"] == "pump-1"]
    rows = [round(np.datetime64(alert["detected_at"].rstrip("Z")).astype("datetime64[s]").astype(int) - START)
            for alert in opened]  # fmt: skip
    for fault in FAULTS:
        assert any(fault.start <= row < fault.stop for row in rows), (fault, rows)
    versions = [dense.version if row < FIRST else lstm.version for row in rows]
    assert [alert["model"]["version"] for alert in opened] == versions
