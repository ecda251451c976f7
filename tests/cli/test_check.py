"""`detector check`: what is right is listed, the first thing that is wrong is one line and exit status 2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from detector.cli.main import main
from detector.detection.profile import Profile, build_profile
from detector.models.bundle.bundles import Bundle, write_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.bundle.versions import activate


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def identity(channels: int) -> bytes:
    """An autoencoder that is never wrong, as ONNX."""
    windows, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 100, channels]) for n in ("w", "out"))
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], "identity", [windows], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = onnx.ModelProto.SerializeToString(model)
    return content


def keras_file(path: Path) -> None:
    path.write_bytes(b"not opened by this command")


def profile(channels: int) -> Profile:
    rng = np.random.default_rng(0)
    times = np.arange(300, dtype=np.int64) * 1_000_000_000
    return build_profile(times, rng.normal(size=(300, channels)), lambda windows: windows)[0]


def bundle(
    directory: Path,
    *,
    channels: Sequence[str] = ("value",),
    stride: int = 1,
    open_after: tuple[int, int] = (10, 10),
    model: bytes | None = None,
) -> Bundle:
    written = write_bundle(
        directory,
        ModelSpec("dense", tuple(channels)),
        save_keras=keras_file,
        onnx=identity(len(channels)) if model is None else model,
        profiles={"pump-7": profile(len(channels))},
        stride=stride,
        open_after=open_after,
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )
    activate(directory, written.version)
    return written


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["check", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("detector: error: ")
    assert err.count("\n") == 1
    return err


def test_everything_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = bundle(tmp_path / "var/models/readings")
    before = sorted(tmp_path.rglob("*"))
    assert main(["check"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert all(line.startswith("OK  ") for line in lines)
    assert [line.split()[1] for line in lines] == [
        "configuration",
        "model",
        "windows",
        "profiles",
        "runtime",
        "input",
        "output",
    ]
    assert "defaults" in lines[0]
    assert written.version in lines[1]
    assert "(100, 1)" in lines[2]
    assert "1 sensor known" in lines[3]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_configuration_and_the_input_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path / "m")
    (tmp_path / "my.yaml").write_text("readings: {model: m, input: plant}\nstreams: {directory: {path: here}}\n")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "plant.csv").write_text("timestamp,value\n")
    assert main(["check", "-c", "my.yaml"]) == 0
    out = capsys.readouterr().out
    assert "OK  configuration  my.yaml\n" in out
    assert "OK  input          here/plant.csv, 16 bytes\n" in out


def test_no_model_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "detector train" in refusal(capsys)


def test_what_only_tests_can_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing can be read from memory" in refusal(capsys, "--set", "streams.backend=memory")


@pytest.mark.parametrize("file", ["model.onnx", "model.keras", "profiles.npz", "manifest.json"])
def test_a_changed_byte_is_found(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle(tmp_path / "m").path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert file in refusal(capsys, "--set", "readings.model=m")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("readings.channels=[value, pressure]", "windows of shape (100, 1), this configuration makes (100, 2)"),
        ("readings.channels=[pressure]", "trained on the channels value"),
        ("readings.window.stride=4", "stride 1, this configuration has 4"),
        ("readings.alerts.open_after={n: 3, of: 5}", "after 10 of 10 rows"),
    ],
)
def test_a_model_for_something_else_is_refused(
    setting: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle(tmp_path / "m")
    assert says in refusal(capsys, "--set", "readings.model=m", "--set", setting)


def test_what_was_right_before_is_listed_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path / "m")
    assert main(["check", "--set", "readings.model=m", "--set", "readings.window.stride=4"]) == 2
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["configuration", "model"]


def test_a_model_that_does_not_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path / "m", model=b"no model")
    assert "ONNX Runtime cannot run this model" in refusal(capsys, "--set", "readings.model=m")


def test_a_file_in_place_of_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path / "m")
    (tmp_path / "data").write_text("a file")
    said = refusal(capsys, "--set", "readings.model=m", "--set", "streams.directory.path=data/inner")
    assert "data/inner cannot be written" in said


def test_rights_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(tmp_path / "m")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sensor-readings.jsonl").write_text("")
    options = ["--set", "readings.model=m", "--set", "streams.directory.path=data"]
    # The tests may run as root, to whom everything is allowed.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.R_OK)
    assert "the input may not be read (data/sensor-readings.jsonl)" in refusal(capsys, *options)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert "data cannot be written" in refusal(capsys, *options)


def test_a_wrong_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("readings:\n  warmpu: 3\n")
    assert "readings.warmpu" in refusal(capsys)


def test_what_applies_to_a_sensor_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path / "m")
    (tmp_path / "my.yaml").write_text(
        """
        readings:
          model: m
          window: {max_gap: 1h}
          sensors: {exclude: ["tank-*"]}
          overrides:
            - {match: "fan-*", enabled: false}
            - {match: "pump-[0-7]", window: {max_fill: 2}, alerts: {false_alarms: {per: day}, close_after: 9}}
        maintenance:
          - {match: "fan-*", from: 2026-12-24T00:00:00Z, to: 2026-12-25T00:00:00Z}
          - {match: "pump-*", from: 2026-12-24T00:00:00+01:00, to: 2026-12-25T00:00:00Z}
        """
    )
    assert main(["check", "-c", "my.yaml", "--sensor", "pump-7"]) == 0
    captured = capsys.readouterr()
    lines = [line.strip() for line in captured.out.splitlines()]
    mark = "readings.overrides[1] (`pump-[0-7]`)"
    assert "OK  sensor         pump-7: watched" in lines
    assert f"alerts.false_alarms    {{per_sensor: 1.0, per: day}}   {mark}" in lines
    assert f"alerts.close_after     9   {mark}" in lines
    assert "alerts.update_every    15m" in lines
    assert "window.max_gap         1h" in lines
    assert f"window.max_fill        2   {mark}" in lines
    assert "silence_after          auto" in lines
    times = "2026-12-23T23:00:00Z to 2026-12-25T00:00:00Z"
    assert [line for line in lines if line.startswith("maintenance")] == [
        f"maintenance            {times}   maintenance[1] (`pump-*`)"
    ]
    assert captured.err == (
        "detector: warning: readings.overrides[0] (`fan-*`) applies to nothing known from training, which is 1 sensor\n"
        "detector: warning: maintenance[0] (`fan-*`) applies to nothing known from training, which is 1 sensor\n"
    )

    assert main(["check", "-c", "my.yaml", "--set", "readings.silence_after=1500ms"]) == 0
    said = "detector: warning: silence_after is less than two usual intervals of 1 sensor, such as pump-7\n"
    assert capsys.readouterr().err.endswith(said)

    for sensor, told in {"fan-1": "readings.overrides[0] (`fan-*`) says so", "tank-1": "readings.sensors"}.items():
        assert main(["check", "-c", "my.yaml", "--sensor", sensor]) == 0
        assert f"{sensor}: not watched, {told}" in capsys.readouterr().out


def test_a_profile_of_another_n_of_m_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path / "m")
    override = 'readings.overrides=[{match: "pump-*", alerts: {open_after: {n: 3, of: 5}}}]'
    said = refusal(capsys, "--set", "readings.model=m", "--set", override)
    assert (
        "the model's profile of pump-7 was built for alerts after 10 of 10 rows, this configuration has 3 of 5" in said
    )
    assert main(["check", "--set", "readings.model=m", "--set", override.replace("pump", "fan")]) == 0


def test_what_is_no_sensor_id_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --sensor: this is no sensor id" in refusal(capsys, "--sensor", "")
