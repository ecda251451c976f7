"""`detector train --model conv`: from images, an IDX file or a stream of frames to an active version."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.arrays import F32, U8
from detector.cli.main import main
from detector.detection.framesignal import FrameModel
from detector.models.bundle.bundles import Bundle, load_bundle
from detector.models.bundle.frame_bundles import open_frame_model
from detector.models.bundle.spec import FRAME_KINDS
from tests.framemodels import textured_frames

SHAPE = (12, 16)
START = 1_700_000_000
FRAMES = textured_frames(460, SHAPE)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def grey(frame: F32) -> U8:
    return np.round(255 * frame).astype(np.uint8)


def png(frame: F32) -> bytes:
    out = io.BytesIO()
    Image.fromarray(grey(frame)).save(out, "PNG")
    return out.getvalue()


def images(directory: str, frames: F32 = FRAMES) -> Path:
    path = Path(directory)
    path.mkdir()
    for number, frame in enumerate(frames):
        (path / f"{number:04d}.png").write_bytes(png(frame))
    return path


def idx(name: str, frames: F32 = FRAMES) -> Path:
    path = Path(name)
    content = struct.pack(">4B3I", 0, 0, 8, 3, *frames.shape) + grey(frames).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def line(camera: str, second: float, frame: F32) -> str:
    text = base64.b64encode(png(frame)).decode()
    return json.dumps({"camera_id": camera, "timestamp": START + second, "value_base64": text})


def stream(lines: Iterable[str]) -> Path:
    Path("streams").mkdir()
    path = Path("streams/image-frames.jsonl")
    path.write_text("\n".join(lines) + "\n")
    return path.parent


OPTIONS = ["train", "--model", "conv", "--out", "models", "--epochs", "1", "--set", "training.image=[12, 16]"]


def trained(*arguments: str) -> tuple[Bundle, FrameModel]:
    assert main([*OPTIONS, *arguments]) == 0
    bundle = load_bundle(Path("models"), kinds=FRAME_KINDS)
    return bundle, open_frame_model(bundle)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of the error, after warnings; nothing on standard output and nothing written."""
    assert main([*OPTIONS, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not Path("models").exists()
    *warnings, last = captured.err.splitlines()
    assert all(warning.startswith("detector: warning: ") for warning in warnings)
    assert last.startswith("detector: error: ")
    return last.removeprefix("detector: error: ")


# -- what works ----------------------------------------------------------------------------------------------------


def test_images_of_a_directory_become_the_active_version(capsys: pytest.CaptureFixture[str]) -> None:
    bundle, model = trained("--data", str(images("pictures")))
    captured = capsys.readouterr()
    path, head, _, train, held = captured.out.splitlines()
    assert path == str(bundle.path)
    assert head.startswith("460 frames of (12, 16); ")
    assert train.split()[:3] == ["trained", "on", "310"]
    assert held.split()[:3] == ["held", "back", "150"]
    assert "every camera will warm up" in captured.err
    assert model.profiles == {}
    assert model.shape == SHAPE


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_an_idx_file_gives_the_same_as_its_images(name: str) -> None:
    _, from_idx = trained("--data", str(idx(name)), "--sensor", "door", "--interval", "5s")
    _, from_images = trained("--data", str(images("pictures")), "--sensor", "door", "--interval", "5s")
    assert list(from_idx.profiles) == ["door"]
    assert from_idx.profiles["door"].median_interval == 5 * 10**9
    assert from_idx.profiles["door"].peak_v.tobytes() == from_images.profiles["door"].peak_v.tobytes()
    assert from_idx.normal.fine_spread.tobytes() == from_images.normal.fine_spread.tobytes()


def test_a_stream_gives_each_camera_its_profile(capsys: pytest.CaptureFixture[str]) -> None:
    other = textured_frames(120, SHAPE, seed=3)
    lines = [line("door", 2 * i, frame) for i, frame in enumerate(FRAMES)]
    lines[1:1] = [line("gate", 3 * i, frame) for i, frame in enumerate(other)]
    lines += [line("door", 10, FRAMES[0]), "{}", line("gate", 9_999, textured_frames(1, (24, 16))[0])]
    bundle, model = trained("--data", str(stream(lines)))
    captured = capsys.readouterr()
    assert (
        "of 583 frames 1 rejected, 1 not newer than the one before, 1 resized; first rejected: line 582" in captured.err
    )
    assert "these cameras will warm up: gate (121)" in captured.err
    assert captured.out.splitlines()[1].startswith("2 cameras, 581 frames of (12, 16) from 2023-11-14T22:13:20Z to ")
    assert list(model.profiles) == ["door"]
    assert (model.profiles["door"].median_interval, model.profiles["door"].regular) == (2 * 10**9, True)
    assert bundle.manifest.calibration["frames"] == 150 + 24


def test_parts_of_a_stream_are_chosen_by_number_and_time() -> None:
    data = str(stream(line("door", i, frame) for i, frame in enumerate(FRAMES)))
    counts = []
    for options in (["--rows", "120"], ["--until", "2023-11-14T22:15:20Z"], ["--since", "149s"]):
        bundle, _ = trained("--data", data, *options)
        counts.append(bundle.manifest.training["rows"])
    assert counts == [120, 120, 150]


def test_a_frame_model_is_listed_checked_and_activated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*OPTIONS, "--data", str(idx("images")), "--no-activate", "--name", "door"]) == 0
    (path, *_) = capsys.readouterr().out.splitlines()
    assert main(["models", "list", "--dir", "models"]) == 0
    created = load_bundle(Path("models"), Path(path).name, kinds=FRAME_KINDS).manifest.created
    listed = capsys.readouterr().out.splitlines()[1]
    assert listed.split() == [Path(path).name, "conv", created, "0", "frames", "12", "x", "16"]
    assert main(["models", "activate", "door", "--dir", "models"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("detector.service.supported.refuse_unsupported", lambda _: None)
    frames = ["--set", "readings.enabled=false", "--set", "frames.enabled=true", "--set", "frames.model=models"]
    assert main(["check", *frames]) == 0
    assert f"OK  frame model    {path}, conv, digest " in (out := capsys.readouterr().out)
    assert "OK  frames         shape (12, 16), 0 cameras known from training, onnx" in out
    assert main(["check", *frames, "--set", "frames.alerts.open_after.n=2"]) == 2
    assert "this configuration has 2 of 5" in capsys.readouterr().err


def test_cameras_with_too_few_frames_are_named_or_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(f"cam-{i % 7}", i, frame) for i, frame in enumerate(FRAMES[:105])]
    trained("--data", str(stream(lines)))
    told = "these cameras will warm up: cam-0 (15), cam-1 (15), cam-2 (15), cam-3 (15), cam-4 (15) and 2 more\n"
    assert told in capsys.readouterr().err


# -- what is refused -----------------------------------------------------------------------------------------------


def test_an_image_size_that_does_not_go_through_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line_ = refused(capsys, "--data", str(idx("images")), "--set", "training.image=[30, 28]")
    assert line_.startswith("a model takes frames whose sides are multiples of 4: (30, 28) would come back as (28, 28)")


def test_an_idx_file_of_another_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--data", str(idx("images")), "--set", "training.image=[28, 28]")
    assert said.startswith(
        "the images are of shape (12, 16), the model takes (28, 28) (images). Set training.image to "
    )


def test_broken_idx_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    whole = idx("whole").read_bytes()
    for content, says in (
        (whole[:-1], "should have 88320 bytes of shape (460, 12, 16), it has 88319"),
        (whole[:10], "ends within its header"),
        (gzip.compress(whole)[:200], "cannot read the file"),
    ):
        Path("broken").write_bytes(content)
        assert says in refused(capsys, "--data", "broken")


def test_a_directory_without_anything_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "the directory has no file of the stream image-frames" in refused(capsys, "--data", "empty")
    assert "the input does not exist" in refused(capsys, "--data", "missing")


def test_files_that_are_no_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    path = images("pictures", FRAMES[:10])
    for number in range(12):
        (path / f"text-{number}.png").write_text("not an image")
    assert "12 of 22 are no frames; the first: text-0.png: neither PNG nor JPEG" in refused(capsys, "--data", str(path))


def test_a_few_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--data", str(images("pictures", FRAMES[:99])))
    assert said.startswith("there are 99 frames here; training needs at least 100 (pictures)")


def test_what_is_said_of_csv_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--data", str(images("pictures")), "--zone", "Europe/Berlin")
    assert said == "frames are in no CSV file (--zone Europe/Berlin). Leave it out."


def test_a_camera_of_images_needs_an_interval_and_has_no_times(capsys: pytest.CaptureFixture[str]) -> None:
    data = str(idx("images"))
    assert "images do not say how often camera door takes one" in refused(capsys, "--data", data, "--sensor", "door")
    assert "images have no times" in refused(capsys, "--data", data, "--since", "1h")


def test_readings_are_no_frames(capsys: pytest.CaptureFixture[str]) -> None:
    Path("readings.csv").write_text("timestamp,value\n" + "".join(f"{START + i},1\n" for i in range(200)))
    assert "no frames" in refused(capsys, "--data", "readings.csv")
