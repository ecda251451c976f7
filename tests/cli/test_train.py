"""`detector train`: from a file to an active version, and every input it cannot use in one line."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64, I64
from detector.cli import progress
from detector.cli.main import main
from detector.detection.profile import build_profile
from detector.models.bundle.bundles import Bundle, load_bundle
from detector.models.training import sensors
from detector.models.training.loop import Progress

START = 1_700_000_000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def values(rows: int, seed: int = 0) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 0.3, rows)
    wave: list[float] = (20 + np.sin(np.arange(rows) / 9) + noise).round(4).tolist()
    return wave


def write_csv(path: Path, cells: Sequence[object], header: str = "timestamp,value") -> Path:
    lines = [header, *(f"{START + second},{cell}" for second, cell in enumerate(cells))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_jsonl(path: Path, sensors: dict[str, Sequence[float]]) -> Path:
    lines = [
        json.dumps({"sensor_id": name, "timestamp": START + second, "value": value})
        for name, row in sensors.items()
        for second, value in enumerate(row)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def trained(*arguments: str) -> Bundle:
    assert main(["train", "--out", "models", "--epochs", "1", *arguments]) == 0
    return load_bundle(Path("models"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of the error, after warnings; nothing on standard output and nothing written."""
    assert main(["train", "--out", "models", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not Path("models").exists()
    *warnings, line = captured.err.splitlines()
    assert all(warning.startswith("detector: warning: ") for warning in warnings)
    assert line.startswith("detector: error: ")
    return line.removeprefix("detector: error: ")


# -- what works ----------------------------------------------------------------------------------------------------


def test_a_csv_file_becomes_the_active_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = trained("--data", str(write_csv(tmp_path / "boiler.csv", values(300))))
    assert list(bundle.profiles()) == ["boiler"]
    assert (bundle.kind, bundle.channels, bundle.stride, bundle.scaler) == ("dense", ("value",), 1, "standard")
    captured = capsys.readouterr()
    path, summary, header, *rows = captured.out.splitlines()
    assert path == f"models/{bundle.version}"
    rows_read, _, work = summary.partition("; ")
    assert rows_read == "1 sensor, 300 rows from 2023-11-14T22:13:20Z to 2023-11-14T22:18:19Z"
    assert re.fullmatch(r"1 epoch, \d+ steps?, [\d.]+ s; active", work)
    assert header.split() == ["squared", "error", "windows", "mean", "median", "p95", "p99", "max"]
    assert [row[:10].strip() for row in rows] == ["trained on"]
    progress = [line for line in captured.err.splitlines() if line.startswith("training: ")]
    assert progress[-1].startswith("training: step 1 of 1, error ")
    assert len(progress) == 1


def test_a_csv_file_with_several_value_columns_is_trained_on_and_run(tmp_path: Path) -> None:
    count = 600
    columns = {name: values(count, seed) for seed, name in enumerate(("flow", "temperature", "pressure"))}
    columns["pressure"][450:520] = [value + 8 for value in columns["pressure"][450:520]]
    rows = [
        f"{START + row},boiler,{','.join(str(column[row]) for column in columns.values())},on" for row in range(count)
    ]
    rows[200] = rows[200].rpartition(",")[0].rpartition(",")[0] + ",,on"  # no pressure: a missing value
    Path("all.csv").write_text("\n".join([f"when,machine,{','.join(columns)},state", *rows]) + "\n")
    config = Path("config.yaml")
    config.write_text(
        "readings:\n  channels: [temperature, pressure]\n  fields: {sensor_id: machine, timestamp: when}\n"
        "  model: models\nhttp: {listen: '127.0.0.1:0'}\n"
    )
    bundle = trained("--data", "all.csv", "--rows", "400")
    assert (bundle.channels, bundle.shape, list(bundle.profiles())) == (
        ("temperature", "pressure"),
        (100, 2),
        ["boiler"],
    )
    assert bundle.profiles()["boiler"].center == pytest.approx([20, 20], abs=0.2)
    assert main(["run", "--input", "all.csv", "--output", "alerts.jsonl", "--until-end"]) == 0
    opened = json.loads(Path("alerts.jsonl").read_bytes().splitlines()[0])
    assert (opened["event"], opened["sensor_id"]) == ("opened", "boiler")
    assert opened["channels"]["pressure"] > 0.6
    assert list(opened["window"]["values"]) == ["temperature", "pressure"]


def test_the_textbooks_model_has_its_own_scaler(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "pump.csv", values(300))
    manifest = trained("--data", str(path), "--preset", "textbook", "--set", "training.hidden=[7]").manifest
    assert (manifest.kind, manifest.scaler, manifest.activation) == ("dense", "minmax", "sigmoid")


def test_a_directory_of_streams_and_the_settings_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(
        tmp_path / "plant" / "hall-1.jsonl",
        {"a": values(400), "b": values(400, 1), "test": values(400), "c": [1.0] * 5},
    )
    settings = {
        "readings.input": "hall-1",
        "readings.model": "elsewhere",
        "readings.window.stride": "4",
        "readings.sensors.exclude": "[test*]",
        "readings.alerts.open_after": "{n: 3, of: 5}",
        "training.hidden": "[8, 4]",
        "training.activation": "sigmoid",
        "training.scaler": "minmax",
    }
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    assert main(["train", "--data", "plant", "--epochs", "1", "--seed", "3", "--name", "winter", *sets]) == 0
    bundle = load_bundle(tmp_path / "elsewhere")
    assert list(bundle.profiles()) == ["a", "b"]
    assert (bundle.name, bundle.stride, bundle.scaler, bundle.activation) == ("winter", 4, "minmax", "sigmoid")
    assert (bundle.manifest.hidden, bundle.manifest.open_after) == ((8, 4), (3, 5))
    assert bundle.manifest.training["seed"] == 3
    captured = capsys.readouterr()
    assert "detector: warning: left out, with fewer than 150 usable readings: c (5)\n" in captured.err
    assert "held back" in captured.out


def test_without_data_the_configured_directory_is_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "var" / "data" / "sensor-readings.jsonl", {"a": values(200)})
    assert list(trained().profiles()) == ["a"]


@pytest.mark.slow
def test_an_lstm(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "boiler.csv", values(160))
    bundle = trained("--data", str(path), "--model", "lstm", "--set=training.units=2", "--set=training.batch_size=4")
    assert (bundle.kind, bundle.manifest.units) == ("lstm", 2)


def test_the_part_of_the_data_that_was_asked_for(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "boiler.csv", values(600))
    until = "2023-11-14T22:21:40Z"  # second 500
    summary = trained("--data", str(path), "--until", until, "--since", "350s", "--rows", "200").manifest.training
    assert (summary["rows"], summary["from"], summary["to"]) == (200, "2023-11-14T22:15:49Z", "2023-11-14T22:19:08Z")


def test_rows_without_time_and_sensor(tmp_path: Path) -> None:
    path = tmp_path / "boiler.csv.gz"
    path.write_bytes(gzip.compress("\n".join(["value", *map(str, values(200))]).encode()))
    bundle = trained("--data", str(path), "--interval", "10s", "--sensor", "boiler 7")
    assert {name: profile.median_interval for name, profile in bundle.profiles().items()} == {"boiler 7": 10 * 10**9}


def test_a_version_that_is_not_activated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "boiler.csv", values(200))
    first = trained("--data", str(path), "--name", "first")
    second = trained("--data", str(path), "--name", "second", "--no-activate")
    assert second == first  # what is active
    assert len(list(Path("models").glob("*-second-*"))) == 1
    assert "; not active\n" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "boiler.csv", values(200))
    models = [
        (trained("--data", str(path), "--name", f"model-{i}", "--seed", seed).path / "model.onnx").read_bytes()
        for i, seed in enumerate("112")
    ]
    assert models[0] == models[1] != models[2]


def test_all_values_equal_is_accepted_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = trained("--data", str(write_csv(tmp_path / "flat.csv", [7.5] * 200)))
    assert bundle.profiles()["flat"].scale.tolist() == [0.0075]
    assert "detector: warning: flat: all 200 values are equal; any other value" in capsys.readouterr().err


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells: list[object] = [*values(200)]
    cells[5], cells[6], cells[7] = "", "nan", "warm"
    path = write_csv(tmp_path / "boiler.csv", cells)
    with path.open("a") as file:
        file.write(f"{START + 199},1\n{START + 100},2\n")
    assert trained("--data", str(path)).manifest.training["rows"] == 197
    assert (
        "detector: warning: not all of the 202 records are used: 1 rejected record, 2 missing values, 1 late, "
        "1 duplicate; first rejected: row 9: `warm` is not a finite number (" in capsys.readouterr().err
    )


def test_a_clock_set_back_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "plant.jsonl", {"a": values(200)})
    path.write_text(path.read_text() + "".join(path.read_text().splitlines(keepends=True)[:60]))
    trained("--data", str(path))
    assert "detector: warning: time was set back (1 x); rows go on" in capsys.readouterr().err


def test_readings_held_back_for_others_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "boiler.csv", values(200))
    bundle = trained("--data", str(path), "--set", "readings.window.allowed_lateness=5s")
    assert bundle.manifest.training["rows"] == 195
    assert "not all of the 200 records are used: 5 held back at the end (" in capsys.readouterr().err


@pytest.mark.parametrize("scaler", ["standard", "minmax", "symmetric"])
def test_values_of_any_magnitude_are_trained_on(
    scaler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = values(200)
    wild[20:22] = [1e150, -1e150]
    path = write_jsonl(tmp_path / "plant.jsonl", {"boiler": values(200), "wild": wild, "vast": [1e150] * 200})
    activation = {"standard": "linear", "minmax": "sigmoid", "symmetric": "tanh"}[scaler]
    sets = [f"--set=training.{key}" for key in (f"scaler={scaler}", f"activation={activation}")]
    bundle = trained("--data", str(path), *sets)
    assert list(bundle.profiles()) == ["boiler", "wild", "vast"]
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize("extreme", [[1.797e308, 1.797e308], [1e308, -1e308], [1e200, 0.0]])
def test_a_sensor_of_impossible_values_costs_no_other_its_model(
    extreme: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = values(200)
    wild[20:22] = extreme
    bundle = trained("--data", str(write_jsonl(tmp_path / "plant.jsonl", {"wild": wild, "boiler": values(200)})))
    assert "boiler" in bundle.profiles()
    said = capsys.readouterr().err
    assert not any(word in said for word in ("Error", "internal", "nan", "overflow"))


def test_a_sensor_that_cannot_be_calibrated_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_for_two(times: I64, rows: F64, *arguments: Any, **keywords: Any) -> Any:
        if rows[0, 0] == 2:
            raise np.linalg.LinAlgError("Singular matrix")
        profile, carry = build_profile(times, rows, *arguments, **keywords)
        return (dataclasses.replace(profile, worst=profile.worst * np.nan) if rows[0, 0] == 3 else profile), carry

    monkeypatch.setattr(sensors, "build_profile", fail_for_two)
    data: dict[str, Sequence[float]] = {
        name: [float(first), *values(200)] for name, first in (("a", 1), ("b", 2), ("c", 3), ("d", 4))
    }
    bundle = trained("--data", str(write_jsonl(tmp_path / "plant.jsonl", data)))
    assert list(bundle.profiles()) == ["a", "d"]
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert told == [
        "detector: warning: b is left out, its readings cannot be calibrated: Singular matrix",
        "detector: warning: c is left out, its readings cannot be calibrated: "
        "`worst` of c is beyond what can be computed with",
    ]


# -- what does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "the input does not exist (data.csv)"),
        ("", "there are no readings here (data.csv)"),
        ("timestamp,value\n", "there are no readings here (data.csv)"),
        ("timestamp,value\n1700000000,1\n1700000001,2\n", "profile needs: data has 2 (data.csv). Give more data."),
        ("when,value\n1700000000,1\n", "no column `timestamp`; the columns are when, value"),
        (
            "timestamp,value\n1700000000,warm\n1700000001,2.5.1\n",
            "2 of 2 records are no readings; the first: row 2: `warm` is",
        ),
        ("timestamp,value\n" + "".join(f"{START + i},1\n" for i in range(149)), "data has 149 (data.csv)"),
        ("timestamp,value\n" + "".join(f"{START + i},\n" for i in range(200)), "none of the 200 readings is left"),
    ],
)
def test_input_that_cannot_be_trained_on(
    content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "data.csv").write_text(content)
    assert says in refused(capsys, "--data", "data.csv")


def test_the_longest_sensors_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "plant.jsonl", {f"s{i}": values(20 + i) for i in range(8)})
    line = refused(capsys, "--data", "plant.jsonl")
    assert "s7 has 27, s6 has 26, s5 has 25, s4 has 24, s3 has 23 and 3 more (plant.jsonl)" in line


@pytest.mark.parametrize("option", ["--until=2020-01-01T00:00:00Z", "--set=readings.sensors.include=[other]"])
def test_nothing_left_to_train_on(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "data.csv", values(200))
    line = refused(capsys, "--data", "data.csv", option)
    assert "none of the 200 readings is left" in line
    assert "Look at --since, --until and readings.sensors" in line


def test_nothing_left_after_what_is_held_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "data.csv", values(200))
    line = refused(capsys, "--data", "data.csv", "--set", "readings.window.allowed_lateness=1h")
    assert "0 were cut off, 200 are held back by readings.window.allowed_lateness (data.csv). Look at" in line


def test_no_sensor_that_can_be_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(sensors, "build_profile", fail)
    path = write_csv(tmp_path / "data.csv", values(200))
    assert main(["train", "--out", "models", "--epochs", "1", "--data", str(path)]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("detector: error: there is no sensor whose readings can be calibrated. Look at")
    assert list(Path("models").iterdir()) == []


def test_a_directory_without_the_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plant").mkdir()
    assert "the directory has no file of the stream sensor-readings (plant)" in refused(capsys, "--data", "plant")


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "data.csv", values(200))
    assert main(["train", "--data", str(path), "--out", "data.csv/models"]) == 2
    assert capsys.readouterr().err.startswith("detector: error: cannot write here: Not a directory (data.csv/models).")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "transformer"], "invalid choice: 'transformer'"),
        (["--rows", "0"], "`0` is not a whole number from 1 on"),
        (["--epochs", "many"], "`many` is not a whole number from 1 on"),
        (["--seed", "-1"], "`-1` is not a whole number from 0 to"),
        (["--since", "yesterday"], "`yesterday` is not a duration"),
        (["--interval", "0s"], "`0s` is no time"),
        (["--until", "noon"], "`noon`: expected RFC 3339"),
        (["--sensor", ""], "a sensor id has 1 to 256 printable characters"),
        (["--name", "a/b"], "a model cannot be called 'a/b' (--name)"),
        (["--set", "training.activation=tanh"], "activation tanh does not go with scaler standard"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, "--data", "data.csv", *arguments)


@pytest.mark.parametrize("model", ["dense", "conv"])
def test_an_installation_for_serving_alone_cannot_train(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    said = refused(capsys, "--data", "data.csv", "--model", model)
    assert said.startswith("training needs TensorFlow and ONNX, and onnx is not installed here")


# -- progress ------------------------------------------------------------------------------------------------------


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.training_progress(7) as (trained_so_far, profiled):
        trained_so_far(Progress(10, 20, 0.5, None))
        trained_so_far(Progress(20, 20, 0.25, 0.125))
        profiled(7)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "20/20" in shown.err
    assert "error 0.2500, held back 0.1250" in shown.err
    assert "7/7" in shown.err


def test_a_line_for_every_tenth_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    told: Callable[[Progress], None]
    with progress.training_progress(1) as (told, _):
        for step in range(1, 101):
            told(Progress(step, 100, 1 / step, None))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "training: step 10 of 100, error 0.1000"
