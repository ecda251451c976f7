"""Readings as extreme as finite numbers get: each command deals with them, or says in one line what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64
from detector.cli.main import main
from detector.models.bundle.bundles import load_bundle
from tests.plant import healthy
from tests.tiny import START, tiny_bundle

ROWS = 400
WARMUP = 150
OPTIONS = (
    "--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models", "--set", f"readings.warmup={WARMUP}",
    "--log-format", "json",
)  # fmt: skip


def healthy_but(rows: slice, *cells: float) -> F64:
    values: F64 = healthy(np.random.default_rng(0), ROWS)[:, 0]
    values[rows] = np.resize(cells, ROWS)[: len(values[rows])]
    return values


IN_WARMUP = slice(10, 12)
ALL, LATER = slice(None), slice(250, None)
STORIES = {
    "largest double in the warm-up": healthy_but(IN_WARMUP, 1.797e308, -1.797e308),
    "largest value in the warm-up": healthy_but(IN_WARMUP, 1e150),
    "both ends in the warm-up": healthy_but(IN_WARMUP, 1e150, -1e150),
    "both ends in turn": healthy_but(ALL, 1e150, -1e150),
    "a large constant": healthy_but(ALL, 123456789.1),
    "the largest constant": healthy_but(ALL, -1e150),
    "a long constant first": healthy_but(slice(200), 42.0),
    "the smallest double": healthy_but(ALL, 5e-324, 0.0),
    "the largest value later": healthy_but(LATER, 1e150),
    "both ends later": healthy_but(LATER, 1e150, -1e150),
    "another regime": healthy_but(LATER, 1e12),
    "every other one missing": healthy_but(slice(None, None, 2), np.nan),
    "nothing but missing values": healthy_but(ALL, np.nan),
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_all(sensors: dict[str, F64]) -> Path:
    """One CSV file of all sensors, in order of time."""
    columns = {name: values.tolist() for name, values in sensors.items()}
    lines = [
        f"{START + row},{name},{'' if column[row] != column[row] else repr(column[row])}"
        for row in range(ROWS)
        for name, column in columns.items()
    ]
    path = Path("all.csv")
    path.write_text("\n".join(["timestamp,sensor_id,value", *lines]) + "\n")
    return path


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def log_of(lines: Sequence[str]) -> list[str]:
    """The events of a log, of which each line is one."""
    return [json.loads(line)["event"] for line in lines]


def test_run_backtest_and_inspect_deal_with_them(capfd: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(Path("models"))
    data = str(write_all(STORIES))
    assert main(["run", "--input", data, "--output", "out.jsonl", "--until-end", *OPTIONS]) == 0
    events = log_of(capfd.readouterr().err.splitlines())
    assert "sensor_failed" not in events
    assert events[-1] == "stopped"
    letters = lines_of("out.jsonl.state/detector-dead-letters.jsonl")
    assert [letter["reason"] for letter in letters] == ["value_out_of_range"] * 2
    opened = {alert["sensor_id"]: alert["alert_id"] for alert in lines_of("out.jsonl") if alert["event"] == "opened"}
    assert {"the largest value later", "another regime", "a long constant first"} <= opened.keys()
    assert not {"a large constant", "the largest constant", "the smallest double", "both ends in turn"} & opened.keys()

    assert main(["backtest", "--data", data, "--out", "report", *OPTIONS]) == 0
    assert "Traceback" not in capfd.readouterr().err
    assert Path("report/alerts.jsonl").read_bytes() == Path("out.jsonl").read_bytes()

    largest = opened["the largest value later"]
    assert main(["inspect", "out.jsonl", "--alert", largest, "-o", "picture.png"]) == 0
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


def test_train_deals_with_them(capfd: pytest.CaptureFixture[str]) -> None:
    data = str(write_all(STORIES))
    assert main(["train", "--data", data, "--out", "models", "--epochs", "1"]) == 0
    known = set(load_bundle(Path("models")).profiles())
    assert known >= STORIES.keys() - {"nothing but missing values"}
    said = capfd.readouterr().err
    assert "is beyond 1e+150" in said
    assert not any(word in said for word in ("Traceback", "internal", "nan", "overflow"))


def test_what_holds_no_value_at_all_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    data = str(write_all({"a": np.full(ROWS, 1.797e308)}))
    assert main(["train", "--data", data, "--out", "models"]) == 2
    *_, line = capfd.readouterr().err.splitlines()
    assert line.startswith("detector: error: ")
    tiny_bundle(Path("models"))
    assert main(["run", "--input", data, "--output", "out.jsonl", "--until-end", *OPTIONS]) == 1
    *log, line = capfd.readouterr().err.splitlines()
    assert log_of(log)
    assert line.startswith("detector: error: ")
