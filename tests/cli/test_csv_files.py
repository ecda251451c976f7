"""Whatever a CSV file is like, `backtest` says of it what `run` says, and that is what the readings in it lead to."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from detector.cli.main import main
from tests.csv_files import FILES, File
from tests.tiny import json_lines, tiny_bundle

OPTIONS = ("--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models", "--set", "readings.warmup=150")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("models"))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_backtest_is_run(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.reports.page.page", lambda *_: "")  # drawing takes longer than all the rest
    Path(file.file).write_bytes(file.content())
    assert main(["backtest", "--data", file.file, "--out", "report", *file.options, *OPTIONS]) == 0
    arguments = ["--input", file.file, "--output", "out.jsonl", "--until-end", *file.options, *OPTIONS]
    assert main(["run", *arguments]) == 0
    published = Path("out.jsonl").read_bytes()
    assert Path("report/alerts.jsonl").read_bytes() == published
    assert {json.loads(line)["sensor_id"] for line in published.splitlines()} == {file.sensor}
    plain = "".join(
        json.dumps({"sensor_id": sensor, "timestamp": time, "value": value}) + "\n"
        for sensor, time, value in file.readings()
    )
    assert [_told(line) for line in published.splitlines()] == _of_plain(plain)


@functools.cache
def _of_plain(lines: str) -> list[dict[str, object]]:
    """What the same readings lead to in one plain form, but for where they stand in the file; many files have them."""
    Path("plain.jsonl").write_text(lines)
    assert main(["run", "--input", "plain.jsonl", "--output", "plain.out", "--until-end", *OPTIONS]) == 0
    return [_told(line) for line in Path("plain.out").read_bytes().splitlines()]


def _told(line: bytes) -> dict[str, object]:
    alert: dict[str, object] = json.loads(line)
    return {key: value for key, value in alert.items() if key != "source"}


def test_wide_channels_are_those_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """A column that shows numbers only later, or is new, changes nothing of what is read."""
    wide = ("--wide", "channels", "--set", "readings.model=wide", "--set", "http.listen=127.0.0.1:0")
    machine, out = Path("machine.csv"), Path("out.jsonl")
    machine.write_text("Time;flow;heat;note\n" + "".join(_rows(0, 40, "x")))
    assert main(["backtest", "--data", "machine.csv", *wide]) == 2
    assert "no trained model" in capsys.readouterr().err
    tiny_bundle(Path("wide"), channels=("flow", "heat"), sensors=("machine",))
    run = ("run", "--input", "machine.csv", "--output", str(out), "--until-end", *wide)
    assert main([*run]) == 0
    with machine.open("a") as file:
        file.write("".join(_rows(40, 400, "7")))
    assert main([*run]) == 0
    machine.write_text("Time;flow;heat;note\n" + "".join(_rows(0, 400, "7")))
    assert main(["backtest", "--data", "machine.csv", "--json", *wide]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["readings"]["accepted"] == 400


def _rows(begin: int, end: int, note: str) -> list[str]:
    return [f"{1_795_341_600 + i};{i % 7},5;{i % 11},25;{note}\n" for i in range(begin, end)]


def test_wide_channels_are_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backtest", "--data", "kafka", "--wide", "channels"]) == 2
    assert "only a CSV file has columns (--wide channels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--input", "in.jsonl", "--output", "out.jsonl", "--until-end", *OPTIONS],
        ["train", "--data", "in.jsonl"],
        ["backtest", "--data", "in.jsonl", *OPTIONS],
        ["check", "--data", "in.jsonl"],
    ],
    ids=lambda words: words[0],
)
def test_what_is_said_of_csv_is_refused_for_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_bytes(json_lines())
    assert main([*words, "--zone", "Europe/Berlin", "--interval", "1s"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--zone Europe/Berlin --interval 1s says how a CSV file is written, and this is none (in.jsonl)" in last
