"""`detector prove`: a table, JSON and a page of what would be told, and nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from tests.tiny import csv_lines, json_lines, tiny_bundle

OPTIONS = ("--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models", "--within", "200",
           "--set", "readings.alerts.false_alarms={per_sensor: 1, per: 10000 readings}")  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detector.reports.proving.STEPS", (8.0, 16.0))
    monkeypatch.setattr("detector.reports.proving.DRIFTS", (32.0,))
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())


def prove(*arguments: str, data: str = "in.jsonl") -> int:
    return main(["prove", "--data", data, *OPTIONS, *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, data: str = "in.jsonl") -> str:
    assert prove(*arguments, data=data) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("detector: error: ").strip()


def test_a_table_a_result_and_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    assert prove("--out", "proof", "--set", "readings.silence_after=60s") == 0
    out = capsys.readouterr().out
    assert "The smallest fault that would be told (2 sensors)" in out
    assert "pump-0" in out
    assert "pump-1" in out
    assert "Told means: in 4 of 5 quiet places of the recording, within 200 readings" in out
    made = sorted(set(Path().rglob("*")) - set(before))
    assert made == [Path("proof"), Path("proof/prove.html"), Path("proof/prove.json")]
    result: dict[str, Any] = json.loads(Path("proof/prove.json").read_bytes())
    line = result["results"][1]
    assert (result["sensors"], result["known"], result["sample"], line["unwatched"]) == (2, 2, False, None)
    assert (line["sensor_id"], line["readings"], line["places"], line["unwatched"]) == ("pump-1", 800, 5, None)
    assert line["step"]["told"]
    assert line["step"]["size"] == pytest.approx(line["step"]["spreads"] * line["spread"], rel=1e-4)
    assert line["dropout"] == {"told": True, "readings": 60, "seconds": 60.0}
    html = Path("proof/prove.html").read_text()
    assert "<svg" in html
    assert "src=" not in html.replace("xlink:href", "")
    assert "A step of" in html


def test_json_of_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert prove("--json", "--sensors", "1") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["sensors"], result["known"], result["sample"]) == (1, 2, True)
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "models"]


def test_sensors_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert prove("--json", "--sensors", "fan-*, pump-1") == 0
    result = json.loads(capsys.readouterr().out)
    assert [line["sensor_id"] for line in result["results"]] == ["pump-1"]
    assert not result["sample"]
    assert refused(capsys, "--sensors", "fan-*").startswith("none of 2 sensors is called so; there is pump-0")


def test_a_sensor_that_is_as_good_as_unwatched_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    lines = csv_lines().splitlines()[:150]
    Path("new.csv").write_bytes(b"\n".join(lines))
    assert prove(data="new.csv") == 0
    out = capsys.readouterr().out
    assert "As good as unwatched: new: it is still warming up (warming)." in out


def test_a_threshold_that_is_too_high_is_said_beside_what_it_lets_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        prove("--json", "--sensors", "pump-1", "--set", "readings.alerts.false_alarms={per_sensor: 1, per: month}") == 0
    )
    result = json.loads(capsys.readouterr().out)
    (line,) = result["results"]
    assert line["unwatched"].startswith("its threshold is so high that hardly anything is told: ")
    assert line["unwatched"].endswith("times the worst of training (threshold)")
    assert line["places"] == 5


def test_a_sensor_that_is_never_quiet_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    often = "readings.alerts.false_alarms={per_sensor: 1, per: 1000 readings}"
    assert prove("--sensors", "pump-1", "--set", often) == 0
    out = capsys.readouterr().out
    assert "pump-1: not tried: nowhere do 200 quiet readings follow each other between 2 episodes of its own." in out


def test_what_cannot_be_tried_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.csv").write_text("timestamp,value\n")
    assert refused(capsys, data="empty.csv").startswith("the recording has no readings")
    Path("other.jsonl").write_text('{"a": 1}\n' * 5)
    assert "5 of 5 records are no readings" in refused(capsys, data="other.jsonl")
    assert "no reading of a watched sensor" in refused(capsys, "--set", "readings.sensors.include=[fan]")
    assert refused(capsys, data="nowhere.csv")
    assert refused(capsys, "--sensors", " , ").startswith("argument --sensors: this is empty")


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--help"]) == 0
    assert "Example: detector prove --data pump.csv --out proof" in capsys.readouterr().out
