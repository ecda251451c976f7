"""Tags of machines through the commands: train, backtest and run on the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detector.cli.main import main
from tests import plant
from tests.engine.test_machines import readings_of

CONFIG = """
readings:
  model: models
  channels: [value, pressure]
  machines: [{id: m0, channels: {value: m0/value, pressure: m0/pressure}}]
  alerts: {false_alarms: {per: 20000 readings}}
http: {listen: "127.0.0.1:0"}
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    values = plant.healthy(np.random.default_rng(3), 1600, 2)
    values[1300:1360, 1] += 12
    gone = np.random.default_rng(2).random((1600, 2)) < 0.02
    lines = [json.dumps(reading) for (reading,) in readings_of(values, gone=gone)]
    Path("tags.jsonl").write_text("\n".join(lines) + "\n")
    cells = [json.loads(line) for line in lines]
    rows = [f"{one['timestamp']};{one['sensor_id']};{str(one['value']).replace('.', ',')}" for one in cells]
    Path("tags.csv").write_text("\n".join(["timestamp;sensor_id;value", *rows]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("data", ["tags.jsonl", "tags.csv"])
def test_a_machine_is_trained_on_and_watched(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", data, "--rows", "1000", "--out", "models", "--epochs", "2"]) == 0
    capsys.readouterr()
    assert main(["run", "--input", data, "--output", "alerts.jsonl", "--until-end", "--plain"]) == 0
    ran = Path("alerts.jsonl").read_text()
    assert main(["backtest", "--data", data, "--out", "report"]) == 0
    assert Path("report/alerts.jsonl").read_text() == ran
    opened = json.loads(ran.splitlines()[0])
    assert (opened["sensor_id"], opened["event"]) == ("m0", "opened")
    assert opened["channels"]["pressure"] > 0.5
    assert main(["inspect", "alerts.jsonl", "--alert", opened["alert_id"], "-o", "alert.png"]) == 0
    capsys.readouterr()
    assert main(["check", "--data", data]) == 0
    assert "m0" in capsys.readouterr().out
