"""The Python API gives what `run` gives, and its page in the documentation works."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detector
from detector.cli.main import main
from detector.errors import UserError
from detector.models.bundle.versions import active_version
from detector.wire.alerts import encode_alert
from tests.tiny import SENSORS, START, json_lines, tiny_bundle
from tests.tutorial import blocks, follow

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


LINES = json_lines(sensors=SENSORS[:1])


def readings() -> tuple[str, list[float], list[float]]:
    rows = [json.loads(line) for line in LINES.splitlines()]
    return rows[0]["sensor_id"], [row["timestamp"] for row in rows], [row["value"] for row in rows]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_alerts_are_those_of_run_however_readings_are_grouped(models: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "in.jsonl").write_bytes(LINES)
    command = ["run", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--until-end",
               "--set", f"readings.model={models}", "--set", "http.listen=127.0.0.1:0",
               "--config", "/dev/null"]  # fmt: skip
    assert main(command) == 0
    published = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    watch = detector.Detector.from_bundle(models)
    sensor, times, values = readings()
    got = [
        json.loads(encode_alert(alert))
        for i in range(0, len(times), size)
        for alert in watch.update(sensor, times[i : i + size], values[i : i + size]).episodes
    ]
    for alert in (*published, *got):
        del alert["source"]  # a position in bytes there, a count here
    assert published
    assert got == published


def test_rows_are_the_readings_that_were_scored(models: Path) -> None:
    sensor, times, values = readings()
    rows = detector.Detector.from_bundle(models).update(sensor, times, values).rows
    assert 0 < len(rows) == len(values) - 99
    np.testing.assert_array_equal(rows.values[:, 0], values[99:])
    stamps = (np.asarray(times[99:]) * 1e9).round().astype(np.int64).astype("datetime64[ns]")
    np.testing.assert_array_equal(rows.times, stamps)
    for column in (rows.scores, rows.judged, rows.thresholds):
        assert column.shape == (len(rows),)
        assert np.isfinite(column).all()


def test_times_may_be_written_in_many_ways(models: Path) -> None:
    sensor, _, values = readings()
    seconds = START + np.arange(len(values))
    ways: list[Any] = [
        seconds,
        seconds.astype("datetime64[s]"),
        [datetime.fromtimestamp(second, UTC) for second in seconds.tolist()],
        [f"{second}Z" for second in seconds.astype("datetime64[s]")],
    ]
    results = [detector.Detector.from_bundle(models).update(sensor, way, values) for way in ways]
    for result in results[1:]:
        np.testing.assert_array_equal(result.rows.times, results[0].rows.times)
        np.testing.assert_array_equal(result.rows.scores, results[0].rows.scores)


def test_one_version_can_be_named(models: Path) -> None:
    version = active_version(models)
    assert version is not None
    (models / "current").unlink()
    with pytest.raises(UserError, match="no model version is active"):
        detector.Detector.from_bundle(models)
    sensor, times, values = readings()
    assert detector.Detector.from_bundle(models / version).update(sensor, times, values).episodes


def test_settings_are_those_of_the_configuration(models: Path) -> None:
    sensor, times, values = readings()
    strict = {"readings.alerts.min_deviation": {"absolute": 1e9}}
    assert not detector.Detector.from_bundle(models, settings=strict).update(sensor, times, values).episodes
    with pytest.raises(UserError, match=r"readings\.warmpu"):
        detector.Detector.from_bundle(models, settings={"readings.warmpu": 3})


def test_what_does_not_fit_is_said(models: Path) -> None:
    watch = detector.Detector.from_bundle(models)
    with pytest.raises(ValueError, match=r"there are 2 times and 1 value$"):
        watch.update("pump", [1, 2], [1.0])
    with pytest.raises(ValueError, match="the model has 1 channel "):
        watch.update("pump", [1, 2], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="the model's channels are value"):
        watch.update("pump", [1], {"heat": [1.0]})
    with pytest.raises(ValueError, match="infinite"):
        watch.update("pump", [1], [np.inf])
    missing = watch.update("pump", [START, START + 1, START + 1], [np.nan, 1.0, 2.0])
    assert (len(missing.rows), missing.duplicate, missing.episodes) == (0, 1, ())
    assert watch.update("pump", ["yesterday"], [1.0]).rejected == {"bad_timestamp": 1}


def test_the_package_has_nothing_else_of_that_sort() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Detectr'"):
        detector.Detectr  # noqa: B018


@pytest.mark.slow
def test_the_page_works(tmp_path: Path) -> None:
    first = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    random = np.random.default_rng(3)
    values = 70 + 4 * np.sin(np.arange(5000) / 7) + random.normal(0, 0.5, 5000)
    rows = [
        f"{datetime.fromtimestamp(first + 60 * i, UTC).isoformat()},{value:.2f}\n" for i, value in enumerate(values)
    ]
    (tmp_path / "pump.csv").write_text("timestamp,value\n" + "".join(rows))
    follow("detector train --data pump.csv --rows 2000", tmp_path)
    (tmp_path / "page.py").write_text("\n".join(blocks("python", PAGE)))
    said = follow("python page.py", tmp_path)
    assert re.search(r"^4901 rows, \d\d+ above the threshold$", said, re.MULTILINE)
    assert re.search(r"^opened pump \w+ \S+ 2026-10-03T18:4\S+$", said, re.MULTILINE)
