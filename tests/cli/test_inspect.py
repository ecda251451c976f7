"""`detector inspect`: one alert becomes a picture, and what cannot be drawn is said in one line."""

from __future__ import annotations

import base64
import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from detector.arrays import U8
from detector.cli.main import main
from detector.detection.framesignal import FrameModel, examine, heat_bytes
from detector.models.bundle.bundles import Bundle, write_bundle
from detector.models.bundle.frame_bundles import open_frame_model, save_frame_profiles
from detector.models.bundle.spec import FrameSpec
from detector.models.training.architectures import build
from detector.models.training.onnx_export import to_onnx
from detector.reports import alertpicture
from detector.reports.joined import joined
from detector.times import rfc3339
from tests.framemodels import frame_model, textured_frames
from tests.models.conftest import NOON

SHAPE = (12, 16)
ID, OTHER = "24dd63a3-df7b-51ad-9f48-4dca8c0e0fc4", "24dd9000-df7b-51ad-9f48-4dca8c0e0fc4"
START = 1_790_000_000
SIZE = (1100, 300)
"""Width and height that every picture has at least."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1, "alert_id": ID, "sequence": 0, "event": "opened", "kind": "readings", "reason": "anomaly",
        "close_reason": None, "muted": False, "sensor_id": "pump $7", "severity": "critical",
        "started_at": "2026-09-21T13:34:10Z", "detected_at": "2026-09-21T13:34:59Z", "ended_at": None, "score": 4.2,
        "peak_score": 4.2, "threshold": 1.3, "p_value": None, "window": None, "channels": {"value": 1.0},
        "model": {"name": "dense", "version": "v1", "digest": "0" * 64},
        "source": {"stream": "sensor-readings", "partition": 0, "opened_offset": 12, "last_offset": 40}, **changes,
    }  # fmt: skip


def window(*channels: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def column() -> Any:
        lists = {name: [None, *rng.normal(20, 1, 99).round(3).tolist()] for name in channels}
        return lists if len(channels) > 1 else lists[channels[0]]

    times = [1000 * (START + i) for i in range(100)]
    return {
        "timestamps": times, "values": column(), "expected": column(), "errors": column(),
        "imputed": [i == 5 for i in range(100)],
    }  # fmt: skip


def write(*messages: dict[str, Any]) -> str:
    Path("alerts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in messages))
    return "alerts.jsonl"


def drawn(*arguments: str) -> U8:
    """The picture (h, w, 3)."""
    assert main(["inspect", "alerts.jsonl", "-o", "alert.png", *arguments]) == 0
    with Image.open("alert.png") as image:
        assert image.format == "PNG"
        assert image.width >= SIZE[0]
        assert image.height >= SIZE[1]
        return np.asarray(image.convert("RGB"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    assert main(["inspect", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("detector: error: ")


def share_of(picture: U8, colour: str) -> float:
    """How much of the picture has this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(picture.astype(int) - wanted).max(axis=2) <= 2).mean())


# -- readings ------------------------------------------------------------------------------------------------------


def test_readings_show_values_expected_values_errors_and_the_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    write(message(alert_id=OTHER), message(window=window("value")))
    picture = drawn("--alert", ID)
    assert capsys.readouterr().out == "alert.png\n"
    for colour in ("#1f4e79", "#d9822b", "#c02626"):
        assert share_of(picture, colour) > 1e-4


def test_an_alert_is_named_by_its_beginning_and_a_message_by_its_sequence() -> None:
    opened = message(window=window("a", "b"), channels={"a": 0.8, "b": 0.2})
    closed = {
        **opened, "sequence": 2, "event": "closed", "close_reason": "recovered", "score": 0.0, "severity": "warning",
        "ended_at": "2026-09-21T13:35:30Z", "window": window("a", "b"),
    }  # fmt: skip
    write(opened, message(alert_id=OTHER), closed, opened)
    first, last = drawn("--alert", "24dd6", "--sequence", "0"), drawn("--alert", "24dd6", "--sequence", "2")
    assert first.shape == last.shape
    assert (first != last).any()


def test_without_a_sequence_the_rows_of_all_messages_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(windows: Any) -> Any:
        found = joined(windows)
        assert found is not None
        seen.append(len(found.timestamps))
        return found

    monkeypatch.setattr(alertpicture, "joined", counted)
    newer = {**window("value"), "timestamps": [1000 * (START + 100 + i) for i in range(15)]}
    newer |= {name: newer[name][:15] for name in ("values", "expected", "errors", "imputed")}
    closed = message(sequence=2, event="closed", close_reason="recovered", window=window("value"))
    write(message(window=window("value")), message(sequence=1, event="updated", window=newer), closed)
    whole, opening, updated = drawn("--alert", ID), *(drawn("--alert", ID, "--sequence", n) for n in ("0", "1"))
    assert seen == [115, 100, 115]
    assert (whole != opening).any()
    assert (updated != opening).any()


def test_what_is_shaded_is_what_the_last_message_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    shaded: list[tuple[int, int]] = []

    def noted(_: Axes, begin: float, end: float, **__: Any) -> None:
        shaded.append((round(begin * 86_400) - START, round(end * 86_400) - START))

    monkeypatch.setattr(Axes, "axvspan", noted)
    times = {name: rfc3339((START + second) * 10**9) for name, second in (("early", 40), ("known", 52), ("end", 77))}
    opened = message(window=window("value"), started_at=times["early"], detected_at=times["end"])
    closed = {**opened, "sequence": 1, "event": "closed", "close_reason": "recovered"}
    write(opened, {**closed, "started_at": times["known"], "ended_at": times["end"]})
    drawn("--alert", ID)
    drawn("--alert", ID, "--sequence", "0")
    assert shaded == [(52, 77)] * 2 + [(40, 99)] * 2, "values and errors"


def test_the_errors_of_several_channels_are_named_whatever_they_are_called() -> None:
    pictures = []
    for names in (("$a_{", "_b"), ("$x^", "b")):
        write(message(window=window(*names), channels=dict.fromkeys(names, 0.5)))
        pictures.append(drawn("--alert", ID))
    assert (pictures[0] != pictures[1]).any()


def test_a_message_with_fields_of_a_later_version_is_drawn() -> None:
    write(message(window=window("value"), schema=2, more={"a": 1}))
    drawn("--alert", ID)


def test_silence_has_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, write(message(reason="silent")), "--alert", ID, "-o", "alert.png")
    assert line.startswith(f"alert {ID} is about silence: there are no readings to draw (alerts.jsonl)")
    assert not Path("alert.png").exists()


# -- frames --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of frames that was not trained."""
    spec = FrameSpec(SHAPE, filters=(4, 4), units=4)
    network = build(spec)
    return write_bundle(
        tmp_path_factory.mktemp("models"),
        spec,
        save_keras=_not_opened,
        onnx=to_onnx(network, spec),
        profiles=lambda path: save_frame_profiles(path, (0.5, 0.3), frame_model(SHAPE).normal, {}),
        open_after=(3, 5),
        created=NOON,
    )


def _not_opened(path: Path) -> None:
    path.write_bytes(b"")


def png(pixels: U8) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def frames_and_alert(bundle: Bundle) -> tuple[list[str], dict[str, Any]]:
    """A stream of three frames under `streams`, and the alert of the second one."""
    model: FrameModel = open_frame_model(bundle)
    frames = np.round(255 * textured_frames(3, SHAPE)).astype(np.uint8)
    lines = [
        json.dumps({"camera_id": "door", "timestamp": START + i, "value_base64": png(frame)}) + "\n"
        for i, frame in enumerate(frames)
    ]
    Path("streams").mkdir()
    Path("streams/image-frames.jsonl").write_text("".join(lines))
    seen = examine(model, frames[1].astype(np.float32) / np.float32(255))
    at = {"stream": "image-frames", "partition": 0, "opened_offset": len(lines[0]), "last_offset": len(lines[0])}
    alert = message(
        kind="frames", sensor_id="door", channels={"grey": 1.0}, heatmap=png(heat_bytes(seen.heat)), frame=seen.summary,
        model={"name": "conv", "version": bundle.version, "digest": bundle.digest}, source=at,
    )  # fmt: skip
    del alert["window"]
    return ["--alert", ID, "--set", f"frames.model={bundle.path.parent}"], alert


def test_a_frame_is_found_in_its_stream_and_reconstructed(bundle: Bundle) -> None:
    options, alert = frames_and_alert(bundle)
    write(alert)
    found = drawn(*options, "--data", "streams")
    assert (drawn(*options, "--data", "streams/image-frames.jsonl") == found).all()
    assert (drawn(*options, "--set", "streams.directory.path=streams") == found).all()
    without = drawn(*options)
    assert share_of(without, "#f3f4f6") > 0.2
    assert share_of(found, "#f3f4f6") < 0.01


def test_the_heat_map_is_drawn_where_no_frame_is_to_be_had(bundle: Bundle) -> None:
    options, alert = frames_and_alert(bundle)
    write(alert | {"model": {"name": "conv", "version": "gone", "digest": ""}})
    assert share_of(drawn(*options), "#f3f4f6") > 0.2
    assert share_of(drawn(*options, "--set", "streams.backend=kafka"), "#f3f4f6") > 0.2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sensor_id": "gate"}, "the frame of gate is not at offset"),
        ({"source": {"stream": "image-frames", "partition": 0, "last_offset": 3}}, "no record begins there"),
        ({"source": {"stream": "image-frames", "partition": 0, "last_offset": 10**6}}, "no record begins there"),
        ({"heatmap": "bm8gcGljdHVyZQ=="}, "is no picture"),
        ({"heatmap": "?"}, "is no picture"),
        ({"model": {"name": "conv", "version": "gone"}}, "the model version gone is not there"),
    ],
)
def test_data_that_is_not_the_alert_s_is_refused(
    change: dict[str, Any], says: str, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    options, alert = frames_and_alert(bundle)
    path = write(alert | change)
    assert says in refused(capsys, path, *options, "--data", "streams", "-o", "alert.png")


# -- files ---------------------------------------------------------------------------------------------------------


def test_what_is_no_alert_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--alert", ID, "-o", "alert.png"]
    assert "cannot read the alerts: No such file" in refused(capsys, "missing.jsonl", *options)
    Path("text").write_text("timestamp,value\n")
    assert "line 1 is no alert" in refused(capsys, "text", *options)
    Path("numbers").write_text('{"alert_id": 3}\n')
    assert "line 1 is no alert" in refused(capsys, "numbers", *options)
    Path("binary").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "line 1 is no alert" in refused(capsys, "binary", *options)
    assert f"there is no alert `{ID}` among 1 messages" in refused(capsys, write(message(alert_id=OTHER)), *options)
    both = write(message(), message(alert_id=OTHER))
    said = refused(capsys, both, "--alert", "24dd", "-o", "alert.png")
    assert said.startswith(f"24dd may be any of {ID}, {OTHER}")
    said = refused(capsys, both, *options, "--sequence", "7")
    assert said == "the alert has no message 7 (alerts.jsonl). Its messages are 0."


def test_a_line_that_is_being_written_is_passed_over() -> None:
    write(message(window=window("value")))
    with Path("alerts.jsonl").open("a") as file:
        file.write('{"schema": 1, "alert_')
    drawn("--alert", ID)


def test_a_place_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    path = write(message(window=window("value")))
    said = refused(capsys, path, "--alert", ID, "-o", "missing/alert.png")
    assert said.startswith("cannot write the picture: No such file or directory (missing/alert.png)")
    said = refused(capsys, path, "--alert", ID, "-o", "alert.jpg")
    assert said == "the picture is a PNG (--output alert.jpg). Name it FILE.png."
    assert not Path("alert.jpg").exists()


def test_a_full_disk_is_for_the_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    said = refused(capsys, write(message(window=window("value"))), "--alert", ID, "-o", "alert.png", status=1)
    assert said.startswith("cannot write the picture: No space left on device (alert.png)")
