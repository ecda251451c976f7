"""`detector simulate`: what lies where afterwards, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import jsonschema
import pytest

from detector.cli.main import main
from detector.simulation import plant as simulation
from detector.times import parse_time
from detector.wire.schemas import schema

NOW = 1_800_000_000 * 10**9


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("detector: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_directory_gets_the_stream_and_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", "plant", "--sensors", "6", "--rows", "1500", "--seed", "7"]) == 0
    plant = simulation.simulate(sensors=6, rows=1500, seed=7)
    directory = tmp_path / "plant"
    assert sorted(path.name for path in directory.iterdir()) == ["labels.json", "sensor-readings.jsonl"]
    assert (directory / "sensor-readings.jsonl").read_bytes() == b"".join(simulation.lines(plant))
    labels = json.loads((directory / "labels.json").read_bytes())
    assert labels
    assert [set(label) for label in labels] == [{"sensor_id", "start", "end", "kind"}] * len(labels)
    assert [(label["sensor_id"], parse_time(label["start"]), parse_time(label["end"])) for label in labels] == [
        (label.sensor_id, label.start, label.end) for label in plant.labels
    ]
    out = capsys.readouterr().out
    assert f"{plant.readings} readings of 6 sensors" in out
    assert f"{len(labels)} faults" in out


def test_without_out_it_goes_where_the_daemon_reads(tmp_path: Path) -> None:
    arguments = ["--set", f"streams.directory.path={tmp_path}/here", "--set", "readings.input=plant-a"]
    assert main(["simulate", "--sensors", "1", "--rows", "10", *arguments]) == 0
    assert (tmp_path / "here" / "plant-a.jsonl").is_file()


def test_standard_output_carries_readings_alone(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    assert main(["simulate", "--out", "-", "--sensors", "2", "--rows", "50", "--faults", "none"]) == 0
    plant = simulation.simulate(sensors=2, rows=50, seed=0, faults=())
    assert capfdbinary.readouterr().out == b"".join(simulation.lines(plant))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["plant", "-"])
def test_a_rate_writes_readings_with_the_time_at_which_it_is(
    out: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def paced(items: object, due: list[float]) -> object:
        asked.extend(due)
        return items

    monkeypatch.setattr(simulation, "paced", paced)
    monkeypatch.setattr("detector.cli.simulate.time_ns", lambda: NOW)
    assert main(["simulate", "--out", out, "--sensors", "2", "--rows", "20", "--rate", "12.5/s"]) == 0
    written = capfdbinary.readouterr().out if out == "-" else (tmp_path / out / "sensor-readings.jsonl").read_bytes()
    assert (asked[0], len(asked)) == (0.0, 40)
    assert asked[-1] == pytest.approx(39 / 12.5)
    plant = simulation.told_live(simulation.simulate(sensors=2, rows=20, seed=0), 12.5, NOW)
    assert written == b"".join(simulation.lines(plant))
    times = [parse_time(json.loads(line)["timestamp"]) for line in written.splitlines()]
    assert [(time - NOW) / 1e9 for time in times] == pytest.approx(asked, abs=1e-3)


def test_chosen_faults_only(tmp_path: Path) -> None:
    assert main(["simulate", "--out", "plant", "--sensors", "5", "--rows", "2500", "--faults", "spike,drift"]) == 0
    labels = json.loads((tmp_path / "plant" / "labels.json").read_bytes())
    assert {label["kind"] for label in labels} == {"spike", "drift"}


def test_history_is_written_at_once(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    waited: list[bytes] = []

    def paced(items: Iterable[bytes], due: list[float]) -> Iterator[bytes]:
        for item in items:
            waited.append(item)
            yield item

    monkeypatch.setattr(simulation, "paced", paced)
    monkeypatch.setattr("detector.cli.simulate.time_ns", lambda: NOW)
    arguments = ["simulate", "--out", "-", "--sensors", "3", "--rows", "100", "--rate", "1/s"]
    assert main([*arguments, "--history"]) == 0
    lines = capfdbinary.readouterr().out.splitlines(keepends=True)
    at_once = lines[: len(lines) - len(waited)]
    assert at_once + waited == lines
    assert parse_time(json.loads(waited[0])["timestamp"]) == pytest.approx(NOW, abs=1e6)
    plant = simulation.simulate(sensors=3, rows=100, seed=0)
    for series in plant.series:
        assert sum(series.sensor_id.encode() in line for line in at_once) >= series.healthy_rows
    assert waited, "something is left to happen"
    waited.clear()
    assert main(arguments) == 0
    assert len(waited) == len(lines), "without --history everything is paced"


def test_cameras_have_a_stream_and_labels_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sensors", "2", "--rows", "3000", "--cameras", "2", "--frames", "600", "--seed", "3"]
    for out in ("plant", "again"):
        assert main(["simulate", "--out", out, *arguments]) == 0
    directory = tmp_path / "plant"
    for name in ("labels.json", "image-frames.jsonl", "sensor-readings.jsonl"):
        assert (directory / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    lines = [json.loads(line) for line in (directory / "image-frames.jsonl").read_bytes().splitlines()]
    assert len(lines) == 1200
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    validator = jsonschema.Draft202012Validator(schema("frame"))
    assert all(validator.is_valid(line) for line in lines)
    labels = json.loads((directory / "labels.json").read_bytes())
    assert labels == sorted(labels, key=lambda label: (label["start"], label["sensor_id"]))
    assert {label["sensor_id"] for label in labels if "camera" in label["sensor_id"]} == {"camera-01", "camera-02"}
    assert "1200 frames of 2 cameras, the first 300 frames of each without faults" in capsys.readouterr().out


def test_without_faults_cameras_have_none_either(tmp_path: Path) -> None:
    assert (
        main(["simulate", "--out", "plant", "--sensors", "1", "--rows", "9", "--cameras", "1", "--faults", "none"]) == 0
    )
    assert json.loads((tmp_path / "plant" / "labels.json").read_bytes()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "-"], "standard output carries readings alone (--cameras)"),
        (["--out", "plant", "--rate", "5/s"], "frames are written at once (--rate)"),
        (["--out", "plant", "--frames", "2000000"], "1 cameras of 2000000 frames are too many at once"),
        (["--out", "plant", "--cameras", "-1"], "`-1` is not a whole number from 0 on"),
    ],
)
def test_cameras_that_cannot_be(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--sensors", "1", "--rows", "9", "--cameras", "1", *arguments]) == 2
    assert says in error_of(capsys)


@pytest.mark.parametrize(
    "name", ["image-frames.jsonl", "sensor-readings.jsonl", "sensor-readings.csv.gz", "labels.json"]
)
def test_what_is_there_is_not_overwritten(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "plant"
    directory.mkdir()
    (directory / name).write_text("mine")
    assert main(["simulate", "--out", "plant", "--sensors", "1", "--rows", "10", "--cameras", "1"]) == 2
    assert f"(plant/{name})" in error_of(capsys)
    assert [path.name for path in directory.iterdir()] == [name]
    assert (directory / name).read_text() == "mine"


def test_a_file_in_place_of_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plant").write_text("a file")
    assert main(["simulate", "--out", "plant/inner", "--sensors", "1", "--rows", "10"]) == 2
    assert "cannot write the plant: Not a directory (plant/inner)" in error_of(capsys)


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = simulation.lines

    def lines(plant: object, names: object) -> object:
        yield b'{"sensor_id": "a"}\n'
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(simulation, "lines", lines)
    assert main(["simulate", "--out", "plant", "--sensors", "1", "--rows", "10"]) == 1
    assert "No space left on device (plant)" in error_of(capsys)
    assert list((tmp_path / "plant").iterdir()) == []
    monkeypatch.setattr(simulation, "lines", real)
    assert main(["simulate", "--out", "plant", "--sensors", "1", "--rows", "10"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--faults", "spike,meteor"], "`meteor` is no fault"),
        (["--rate", "10"], "`10` is not a rate such as 100/s"),
        (["--rate", "0/s"], "`0/s` is not a rate"),
        (["--sensors", "0"], "`0` is not a whole number from 1 on"),
        (["--rows", "many"], "`many` is not a whole number"),
        (["--seed", "-1"], "`-1` is not a whole number from 0 on"),
        (["--sensors", "10000", "--rows", "10000"], "too many at once"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", "plant", *arguments]) == 2
    assert says in error_of(capsys)
