"""`detector run` with cameras beside sensors: both in one process, over kills, and each alone."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from detector.cli.main import main
from detector.wire.schemas import schema
from tests.tiny import START, json_lines, tiny_bundle
from tests.tinycam import frame_lines, frames_of, tiny_frame_bundle

COUNT = 900
FAULTS = [(300, 330), (600, 640)]


def options(place: Path, *more: str) -> list[str]:
    """What makes both paths run on the directory `place`."""
    settings = [
        f"streams.directory.path={place}/data", f"readings.model={place}/readings", f"frames.model={place}/frames",
        "frames.enabled=true", "http.listen=127.0.0.1:0", "streams.directory.checkpoint_interval=20ms",
        # Which of several faults in a quarter of an hour a budget lets through is not what is tested here.
        "frames.alerts.false_alarms=null", *more,
    ]  # fmt: skip
    return ["run", "--log-format", "json", *(word for setting in settings for word in ("--set", setting))]


def plant(place: Path) -> Path:
    """Models and streams of sensors and of two cameras, one of them unknown to the model and some of it broken."""
    tiny_bundle(place / "readings")
    tiny_frame_bundle(place / "frames")
    data = place / "data"
    data.mkdir()
    (data / "sensor-readings.jsonl").write_bytes(json_lines())
    cameras = {"door": frames_of(0, COUNT, FAULTS), "new": frames_of(1, COUNT, [(800, 830)])}
    lines = frame_lines(cameras, START).splitlines()
    text = base64.b64encode(b"text").decode()
    broken = [{"camera_id": "door", "timestamp": START, "value_base64": text}, {"timestamp": 1}]
    for place_of, line in zip((100, 1500), broken, strict=True):
        lines.insert(place_of, json.dumps(line).encode())
    (data / "image-frames.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return data


def by_kind(path: Path) -> dict[str, list[bytes]]:
    """The published lines of each kind: between the two of them there is no order."""
    lines = path.read_bytes().splitlines()
    kinds = {kind: [line for line in lines if json.loads(line)["kind"] == kind] for kind in ("readings", "frames")}
    assert sum(map(len, kinds.values())) == len(lines)
    return kinds


def letters(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / "detector-dead-letters.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of streams after a run of both paths."""
    place = tmp_path_factory.mktemp("both")
    data = plant(place)
    assert main([*options(place), "--until-end"]) == 0
    return data


def test_both_publish_to_one_stream(undisturbed: Path) -> None:
    kinds = by_kind(undisturbed / "anomaly-alerts.jsonl")
    events = [(alert["sensor_id"], alert["event"]) for alert in map(json.loads, kinds["frames"])]
    turns = [camera for camera in ("door", "door", "new") for _ in range(2)]
    told = [event for event in events if event[1] != "updated"]
    assert told == list(zip(turns, ["opened", "closed"] * 3, strict=True))
    assert {alert["sensor_id"] for alert in map(json.loads, kinds["readings"])} == {"pump-0"}
    assert [(one["stream"], one["reason"]) for one in letters(undisturbed)] == [("image-frames", "malformed")] * 2


@pytest.mark.parametrize("kind", ["readings", "frames"])
def test_either_alone_publishes_the_same(undisturbed: Path, tmp_path: Path, kind: str) -> None:
    data = plant(tmp_path)
    other = {"readings": "frames", "frames": "readings"}[kind]
    assert main([*options(tmp_path, f"{other}.enabled=false"), "--until-end"]) == 0
    alone = by_kind(data / "anomaly-alerts.jsonl")
    assert alone == {kind: by_kind(undisturbed / "anomaly-alerts.jsonl")[kind], other: []}


def test_a_file_of_frames(undisturbed: Path, tmp_path: Path) -> None:
    words = options(tmp_path, "readings.enabled=false", f"frames.model={undisturbed.parent}/frames")
    source = str(undisturbed / "image-frames.jsonl")
    assert main([*words, "--input", source, "--output", str(tmp_path / "out.jsonl"), "--until-end"]) == 0
    expected = by_kind(undisturbed / "anomaly-alerts.jsonl")["frames"]
    assert (tmp_path / "out.jsonl").read_bytes().splitlines() == expected


def test_kills_change_nothing_on_either_path(undisturbed: Path, tmp_path: Path) -> None:
    data = plant(tmp_path)
    command = [sys.executable, "-m", "detector.cli.main", *options(tmp_path)]
    streams = ("sensor-readings", "image-frames")
    whole = {name: (data / f"{name}.jsonl").read_bytes().splitlines(True) for name in streams}
    for name in whole:
        (data / f"{name}.jsonl").write_bytes(b"")
    kills = 5
    for turn in range(kills):
        for name, lines in whole.items():
            share = slice(len(lines) * turn // kills, len(lines) * (turn + 1) // kills)
            with (data / f"{name}.jsonl").open("ab") as out:
                out.writelines(lines[share])
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _until_assigned(process)
            time.sleep(0.05 + 0.12 * turn)  # not waiting for anything: a moment like any other
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert main([*options(tmp_path), "--until-end"]) == 0
    assert by_kind(data / "anomaly-alerts.jsonl") == by_kind(undisturbed / "anomaly-alerts.jsonl")
    assert letters(data) == letters(undisturbed)


def _until_assigned(process: subprocess.Popen[str]) -> None:
    _until(process, "partition_assigned", 2)


def _until(process: subprocess.Popen[str], name: str, times: int = 1) -> dict[str, Any]:
    """Read the log up to an event, the `times`-th of its name; its fields."""
    assert process.stderr is not None
    seen: list[str] = []
    for line in process.stderr:
        seen.append(line)
        times -= f'"event":"{name}"' in line
        if not times:
            fields: dict[str, Any] = json.loads(line)["fields"]
            return fields
    raise AssertionError("".join(seen))


@pytest.mark.parametrize("change", ["model", "settings"])
def test_what_is_new_for_cameras_is_taken_up_and_sensors_go_on(undisturbed: Path, tmp_path: Path, change: str) -> None:
    data = plant(tmp_path)
    stream = data / "image-frames.jsonl"
    lines = stream.read_bytes().splitlines(True)
    # Up to within the first fault of the first camera: its episode is open.
    stream.write_bytes(b"".join(lines[: 2 * FAULTS[0][0] + 20]))
    file = tmp_path / "config.yaml"
    file.write_text("frames: {alerts: {close_after: 20}}\n")
    command = [*options(tmp_path), "--config", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "detector.cli.main", *command], stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        _until_assigned(process)
        while not _of_frames(data):
            assert process.poll() is None
            time.sleep(0.02)
        if change == "model":
            version = tiny_frame_bundle(tmp_path / "frames", day=23).version
        else:
            file.write_text("frames: {alerts: {close_after: 40}}\n")
            process.send_signal(signal.SIGHUP)
        said = _until(process, "reloaded")
    finally:
        process.kill()
        process.communicate()
    with stream.open("ab") as out:
        out.writelines(lines[2 * FAULTS[0][0] + 20 :])
    assert main([*command, "--until-end"]) == 0
    kinds = by_kind(data / "anomaly-alerts.jsonl")
    before = by_kind(undisturbed / "anomaly-alerts.jsonl")
    assert kinds["readings"] == before["readings"]
    # With another model a camera that it does not know warms up again.
    alerts, usual = (
        [alert for alert in map(json.loads, one["frames"]) if alert["sensor_id"] == "door"] for one in (kinds, before)
    )
    assert [(a["alert_id"], a["event"]) for a in alerts] == [(a["alert_id"], a["event"]) for a in usual]
    if change == "model":
        assert said["models"]["frames"] == version
        assert [alert["model"]["version"] == version for alert in alerts] == [False] + [True] * (len(alerts) - 1)
    else:
        assert said["changed"] == ["frames.alerts.close_after"]
        ends = [[a["source"]["last_offset"] for a in one if a["event"] == "closed"] for one in (alerts, usual)]
        assert all(later > earlier for later, earlier in zip(*ends, strict=True)), "20 frames later"


def _of_frames(data: Path) -> list[bytes]:
    alerts = data / "anomaly-alerts.jsonl"
    return [line for line in alerts.read_bytes().splitlines() if b'"frames"' in line] if alerts.exists() else []


def test_a_restart_with_another_kind_keeps_the_first(undisturbed: Path, tmp_path: Path) -> None:
    data = plant(tmp_path)
    assert main([*options(tmp_path, "frames.enabled=false"), "--until-end"]) == 0
    assert main([*options(tmp_path), "--until-end"]) == 0
    assert by_kind(data / "anomaly-alerts.jsonl") == by_kind(undisturbed / "anomaly-alerts.jsonl")


def test_check_looks_at_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path)
    words = options(tmp_path)[3:]
    assert main(["check", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines].count("input") == 2
    assert any(line.startswith("OK  frames         shape (12, 16), 1 camera known from training") for line in lines)


def test_frames_of_a_directory_are_what_the_schema_says(undisturbed: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema("frame"))
    lines = (undisturbed / "image-frames.jsonl").read_bytes().splitlines()
    assert [number for number, line in enumerate(lines) if not validator.is_valid(json.loads(line))] == [1500]


def test_no_model_of_frames_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path)
    assert main([*options(tmp_path, f"frames.model={tmp_path}/none"), "--until-end"]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("detector: error: there is no trained model")


def test_nothing_enabled_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(options(tmp_path, "readings.enabled=false", "frames.enabled=false")) == 2
    assert "nothing is enabled" in capfd.readouterr().err
