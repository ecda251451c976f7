"""`detector tune`: the numbers of a backtest under each budget, and a budget found and written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64
from detector.cli.main import main
from detector.config.load import load_config
from detector.reports.tuning import SEARCHED, SHOWN, spoken
from tests.plant import healthy
from tests.tiny import START, tiny_bundle

STEP = 600
ROWS = 6300
"""One in ten minutes: 44 days."""
WARMUP = 300
DAYS = (ROWS - WARMUP) * STEP / 86_400
"""As long as sensors are watched."""
COLUMNS = 8
FAULTS = (700, 1500, 2300, 3100, 3900, 4700, 5500)
OPTIONS = ("--set", "readings.warmup=300", "--set", "readings.model=models")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("models"))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Readings of two sensors that no model knows; the first one has faults of several sizes."""
    path = tmp_path_factory.mktemp("plant") / "in.jsonl"
    columns = [series(number) for number in range(2)]
    for size, row in enumerate(FAULTS):
        columns[0][row : row + 15] += 0.4 + 0.4 * size
    columns[1][2000:2030] += 9
    names = ("new-1", "new [x]")
    with path.open("w") as file:
        for row in range(ROWS):
            for name, column in zip(names, columns, strict=True):
                reading = {"sensor_id": name, "timestamp": START + row * STEP, "value": column[row]}
                file.write(json.dumps(reading) + "\n")
    return path


def series(number: int) -> F64:
    column: F64 = healthy(np.random.default_rng(number), ROWS, begin=300)[:, 0].round(4)
    return column


def tune(plant: Path, *arguments: str) -> int:
    return main(["tune", "--data", str(plant), *OPTIONS, *arguments])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("│", "|").strip("|").split("|")]


def backtest(plant: Path, capsys: pytest.CaptureFixture[str], budget: str) -> dict[str, Any]:
    per_sensor, _, per = budget.partition("/")
    options = ("--set", f"readings.alerts.false_alarms={{per_sensor: {per_sensor}, per: {per}}}")
    assert main(["backtest", "--data", str(plant), "--json", *OPTIONS, *options]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_each_budget_costs_what_a_backtest_says(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(plant) == 0
    out = capsys.readouterr().out
    rows = {row[0]: row for line in out.splitlines() if len(row := cells(line)) == COLUMNS}
    assert {spoken(budget) for budget in SHOWN} <= set(rows)
    counts = []
    for budget in map(spoken, SHOWN[::2]):  # they are worked out alike, and a backtest of each takes its time
        told = backtest(plant, capsys, budget)
        assert [rows[budget][1], rows[budget][4]] == [str(told["episodes"]), str(told["critical"])]
        counts.append(told["episodes"])
    assert len(set(counts)) > 1
    sensors = {row[0]: row[1:] for line in out.splitlines() if len(row := cells(line)) == 1 + len(SHOWN)}
    assert sum(int(row[0]) for name, row in sensors.items() if name != "sensor") == counts[0]
    assert (
        "2026-09-21T14:13:20Z .. 2026-11-04T08:03:20Z (44 d), 2 sensors (0 still warming up), watched for 42 d each."
        in out
    )


def test_a_rate_is_turned_into_a_budget_and_written(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# ours\r\nreadings:\r\n  alerts:  # few\r\n    close_after: 60\r\n"
    Path("config.yaml").write_bytes(text.encode())
    assert tune(plant, "--alerts", "2/week", "--write") == 0
    lines = capsys.readouterr().out.splitlines()
    said = next(line for line in lines if " keeps to 2/week for all: " in line)
    budget = said.split()[0]
    assert budget in map(spoken, SEARCHED)
    told = backtest(plant, capsys, budget)
    assert told["episodes"] * 7 / DAYS == pytest.approx(float(said.split()[-4]), rel=0.01)
    assert told["episodes"] * 7 / DAYS <= 2
    per_sensor, _, per = budget.partition("/")
    value = f"{{per_sensor: {per_sensor}, per: {per}}}"
    assert lines[-1] == f"Written: readings.alerts.false_alarms: {value} (config.yaml)"
    assert Path("config.yaml").read_bytes().decode() == text.replace(
        "    close_after", f"    false_alarms: {value}\r\n    close_after"
    )
    assert load_config(Path("config.yaml")).readings.alerts.close_after == 60
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EACCES, 2)])
def test_a_configuration_that_cannot_be_written_stays_as_it_is(
    number: int, status: int, plant: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, content: bytes) -> int:
        Path(".config.yaml.part").touch()
        raise OSError(number, os.strerror(number))

    Path("config.yaml").write_text("log: {level: info}\n")
    monkeypatch.setattr(Path, "write_bytes", fail)
    assert tune(plant, "--since", "10d", "--alerts", "50/day", "--write") == status
    assert f"cannot write the configuration: {os.strerror(number)} (" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in Path().iterdir()) == ["config.yaml", "models"]
    assert Path("config.yaml").read_text() == "log: {level: info}\n"


def test_without_a_file_one_is_begun(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(plant, "--alerts", "50/day", "--write") == 0
    out = capsys.readouterr().out
    assert "4/day keeps to 50/day, too; it would add " in out, "no clearer than noise"
    assert "4/week for each sensor keeps to 50/day for all" in out
    alarms = load_config(Path("config.yaml")).readings.alerts.false_alarms
    assert alarms is not None
    assert (alarms.per_sensor, alarms.per) == (4.0, "week")


def test_a_recording_shorter_than_a_budget_cannot_tell(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(plant, "--since", "10d") == 0
    out = capsys.readouterr().out
    rows = {row[0]: row for line in out.splitlines() if len(row := cells(line)) == COLUMNS}
    assert [rows[spoken(budget)][6] == "?" for budget in SHOWN] == [False, False, False, False, True, True]
    assert ": that cannot show what 2/month, 1/month would cost, whose time is longer." in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--since", "5d", "--alerts", "3/week"),
            "sensors were watched for 2.9 d, too short to know what 3/week takes",
        ),
        (
            ("--since", "60h", "--alerts", "1/hour"),
            "sensors were watched for 10 h, shorter than the time of every budget (",
        ),
        (("--alerts", "0.001/month"), "no budget that this recording can judge keeps to 0.001/month; 1/month has"),
        (("--alerts", "3 a week"), "argument --alerts: `3 a week` is no rate; write it as 3/week, 1/day or 2/12h. See"),
        (("--alerts", "0/week"), "argument --alerts: `0/week` is no rate"),
        (("--alerts=-1/week",), "argument --alerts: `-1/week` is no rate"),
        (("--alerts", "3/100 readings"), "argument --alerts: `100 readings` is not a duration"),
        (("--alerts", "3/0s"), "argument --alerts: `3/0s` has no length of time"),
        (("--write",), "which budget to write is not said (--write). Give --alerts as well."),
        (("--since", "0s"), "argument --since: `0s` is no time"),
        (("--until", "2001-01-01T00:00:00Z"), "no reading lies in the time asked for"),
        (("--set", "readings.model=none"), "there is no trained model (none)."),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], line: str, plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(plant, *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"detector: error: {line}")
    assert not Path("config.yaml").exists()


def test_pictures_of_what_each_budget_adds(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(plant, "--since", "16d", "--alerts", "4/week", "--out", "report") == 0
    out = capsys.readouterr().out
    assert "Report: report/tune.html" in out
    page = Path("report/tune.html").read_text()
    assert page.count("recommended") == 1
    assert "data:image/png;base64," in page
    assert "new [x]" in page
    assert " adds " in out
