"""Whatever a CSV file is like, `backtest` says of it what `run` says, and that is what the readings in it lead to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.cli.main import main
from tests.csv_files import FILES, File
from tests.tiny import tiny_bundle

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
    # The same readings in one plain form lead to the same alerts, but for where they stand in the file.
    plain = "".join(
        json.dumps({"sensor_id": sensor, "timestamp": time, "value": value}) + "\n"
        for sensor, time, value in file.readings()
    )
    Path("plain.jsonl").write_text(plain)
    assert main(["run", "--input", "plain.jsonl", "--output", "plain.out", "--until-end", *OPTIONS]) == 0
    assert [_told(line) for line in Path("plain.out").read_bytes().splitlines()] == [
        _told(line) for line in published.splitlines()
    ]


def _told(line: bytes) -> dict[str, object]:
    alert: dict[str, object] = json.loads(line)
    return {key: value for key, value in alert.items() if key != "source"}


def test_a_file_to_judge_may_have_more_columns_than_the_model_has_channels(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{i % 7}.5,{int(i > 300)}\n" for i in range(400))
    Path("labelled.csv").write_text(f"value,label\n{rows}")
    assert main(["backtest", "--data", "labelled.csv", "--wide", "channels", "--interval", "1m", *OPTIONS]) == 0
    assert "readings: 400 accepted" in capsys.readouterr().out
    Path("other.csv").write_text(f"flow,label\n{rows}")
    assert main(["backtest", "--data", "other.csv", "--wide", "channels", "--interval", "1m", *OPTIONS]) == 2
    assert "this configuration makes (100, 2)" in capsys.readouterr().err


def test_wide_channels_are_trained_on_and_watched(capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{1_795_341_600 + i};{i % 7},5;{i % 11},25;x\n" for i in range(400))
    Path("machine.csv").write_text(f"Time;flow;heat;note\n{rows}")
    wide = ("--wide", "channels", "--set", "readings.model=wide", "--set", "http.listen=127.0.0.1:0")
    assert main(["backtest", "--data", "machine.csv", *wide]) == 2
    assert "wide" in capsys.readouterr().err  # there is no model yet
    assert main(["backtest", "--data", "kafka", *wide]) == 2
    assert "only a CSV file has columns (--wide channels)" in capsys.readouterr().err
