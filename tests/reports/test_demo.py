"""The demo: on stand-ins for the commands, and once, small, on the real ones."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detector.errors import OperationError, UserError
from detector.reports import demo
from detector.reports.demo import Demo
from detector.wire.incidents import encode_incident
from tests.notify.made import incident
from tests.reports.made import alert, at

STAND_IN = """
import os, pathlib, shutil, sys
command, *words = sys.argv[1:]
value = dict(zip(words, words[1:])).get
home = pathlib.Path("stand-in")
with open("asked", "a") as asked:
    print(command, *words, file=asked)
if (home / f"{command}.fails").exists():
    sys.exit(f"{command} does not work")
if command == "simulate":
    pathlib.Path(value("--out")).mkdir(parents=True)
    shutil.copy(home / "labels.json", value("--out"))
if command == "run":
    shutil.copy(home / "alerts.jsonl", value("--output"))
    shutil.copy(home / "anomaly-incidents.jsonl", pathlib.Path(value("--output")).parent)
    shutil.copyfileobj(open(home / "log"), sys.stderr)
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for every command; the directory has what they do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_argv", lambda *words: [sys.executable, "-c", STAND_IN, *words])
    home = tmp_path / "stand-in"
    home.mkdir()
    alerts = [
        alert(),
        alert("updated", sequence=1),
        alert("updated", sequence=2, severity="critical"),
        alert("closed", sequence=3, severity="critical", ended_at=at(60), close_reason="recovered"),
        alert(alert_id="b", sensor_id="pump[/]", detected_at=at(500), started_at=at(490)),
    ]
    eye: dict[str, Any] = {"sensor_id": "camera-01", "kind": "frames", "window": None, "heatmap": "", "frame": {}}
    alerts += [
        alert(alert_id="c", **eye),
        alert("closed", alert_id="c", sequence=1, ended_at=at(40), close_reason="recovered", **eye),
    ]
    (home / "alerts.jsonl").write_bytes(b"".join(msgspec.json.encode(message) + b"\n" for message in alerts))
    incidents = [incident("one"), incident("one", "closed"), incident("two", size=1, title="[two]")]
    (home / "anomaly-incidents.jsonl").write_bytes(b"".join(encode_incident(one) + b"\n" for one in incidents))
    labels = [
        {"sensor_id": "camera-01", "start": at(5), "end": at(30), "kind": "stain"},
        {"sensor_id": "pump-7", "start": at(0), "end": at(30), "kind": "spike"},
        {"sensor_id": "pump-7", "start": at(200), "end": at(300), "kind": "drift"},
    ]
    (home / "labels.json").write_text(json.dumps(labels))
    stopped = {"event": "stopped", "fields": {"readings": 5000, "frames": 70, "alerts": 7, "seconds": 2.5}}
    (home / "log").write_text(json.dumps({"event": "started", "fields": {}}) + "\n" + json.dumps(stopped) + "\n")
    return home


def asked() -> list[list[str]]:
    return [line.split() for line in Path("asked").read_text().splitlines()]


def run(directory: str = "demo") -> None:
    assert Demo(Path(directory), seed=3, plain=True).run() == 0


def test_it_says_what_the_episodes_come_to(commands: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run()
    told = " ".join(capfd.readouterr().out.split())
    assert "Incidents: 2, of 15 episodes (demo/anomaly-incidents.jsonl)" in told
    assert 'line 2: 14 sensors, first pressure-03 "new" (stuck), 10:00 [two]' in told


def test_it_does_what_it_shows(commands: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run()
    shown = re.findall(r"\$ detector (.*)", capfd.readouterr().out)
    assert [" ".join(words) for words in asked()] == shown
    assert [words.split()[0] for words in shown] == ["simulate", "train", "train", "run", "backtest"]
    assert "--seed 3" in shown[0]
    assert "--cameras 1" in shown[0]
    assert "--rows 4000 --out demo/models" in shown[1]
    assert "--model conv" in shown[2]
    assert "frames.model=demo/frame-models --set frames.enabled=true" in shown[3]


def test_it_says_how_well_it_went(commands: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run()
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    notifies = [line.split()[:3] for line in lines if line.startswith(("opened", "updated", "closed"))]
    assert notifies == [
        ["opened", "pump-7", "warning"],
        ["updated", "pump-7", "critical"],
        ["closed", "pump-7", "critical"],
        ["opened", "pump[/]", "warning"],
        ["opened", "camera-01", "warning"],
        ["closed", "camera-01", "warning"],
    ]
    assert "Sensors: 1 of 2 faults found, 1 missed, 1 false alarm, median delay 10 s." in lines
    assert "Camera:  1 of 1 faults found, 0 missed, 0 false alarms, median delay 5 s." in lines
    assert f"missed       pump-7  drift  {at(200)} .. {at(300)[11:]}" in lines
    assert f"false alarm  pump[/]  peak score 2.5  {at(500)}" in lines
    assert any(
        line.startswith("5000 readings and 70 frames in 2.5 s: 2,000 readings/s beside the camera.") for line in lines
    )
    assert "Alerts: demo/alerts.jsonl   labels: demo/plant/labels.json" in lines
    assert lines[-4].endswith("train --data YOUR.csv --rows 2000")
    assert lines[-3].endswith("run --input YOUR.csv --output alerts.jsonl --until-end")
    assert lines[-1] == "What was found and what was missed, with pictures: demo/report/report.html"


def test_it_can_be_run_again(commands: Path) -> None:
    run()
    run()
    assert len(asked()) == 10


def test_what_another_put_there_stays(commands: Path) -> None:
    theirs = Path("demo/plant/theirs")
    theirs.mkdir(parents=True)
    with pytest.raises(UserError, match=r"already something here, and not by a demo \(demo/plant\)\. Choose another"):
        run()
    assert theirs.exists()
    assert not Path("asked").exists()


def test_a_place_that_cannot_be_is_told(commands: Path) -> None:
    Path("file").touch()
    with pytest.raises(UserError, match=r"cannot write here: Not a directory \(file/demo\)"):
        run("file/demo")


@pytest.mark.parametrize("command", ["simulate", "train", "backtest"])
def test_a_command_that_fails_ends_it(command: str, commands: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (commands / f"{command}.fails").touch()
    with pytest.raises(OperationError, match=f"`detector {command}` failed with status 1"):
        run()
    assert capfd.readouterr().err == f"{command} does not work\n"


def test_a_daemon_that_fails_ends_it_with_its_last_word(commands: Path) -> None:
    (commands / "run.fails").touch()
    with pytest.raises(OperationError, match="`detector run` failed with status 1: run does not work"):
        run()


@pytest.mark.slow
def test_small_and_real(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # What the camera has to see here is plain, and takes less training.
    monkeypatch.setattr(demo, "QUICK", ("--epochs", "5", "--set", "training.batch_size=32"))
    small = Demo(tmp_path, seed=0, plain=True, sensors=6, rows=1500, training_rows=500, epochs=1, frames=1200)
    assert small.run() == 0
    text = capfd.readouterr().out
    said = re.findall(r"(\d+) of (\d+) faults found, (\d+) missed", text)
    assert len(said) == 2
    labels = json.loads((tmp_path / "plant" / "labels.json").read_bytes())
    for watched, (found, faults, missed) in zip(("sensors", "camera"), said, strict=True):
        known = sum(label["sensor_id"].startswith("camera") == (watched == "camera") for label in labels)
        assert int(faults) == known == int(found) + int(missed) > 0
    assert int(said[1][0]) > 0, "the camera finds what anybody would see"
    readings = (tmp_path / "plant" / "sensor-readings.jsonl").read_bytes().count(b"\n")
    assert f"{readings} readings and 1200 frames in " in text
    opened = (tmp_path / "alerts.jsonl").read_bytes().count(b'"event":"opened"')
    assert len(re.findall(r"^ +opened ", text, re.MULTILINE)) == opened > 0
    assert "<svg" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
