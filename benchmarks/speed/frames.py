"""Frames a second through the pipeline, beside bare decoding and bare ONNX Runtime on the same processor."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from detector.arrays import U8
from detector.config.load import Config, FramesConfig
from detector.models.bundle.bundles import load_bundle
from detector.models.bundle.spec import FRAME_KINDS
from detector.models.runtime.onnx import OnnxRuntime
from detector.service.pipelines import frame_pipeline_factory, load_frame_model
from detector.simulation.cameras import simulate_cameras
from detector.streams.base import Batch, Partition, Record

Form = Literal["png", "raw"]
FORMS: Final[tuple[Form, ...]] = ("png", "raw")
PARTITION: Final = Partition("image-frames", 0)
END: Final = 1_790_000_000 * 10**9
CAMERAS: Final = (1, 32)
FRAMES: Final = 4096
BATCH: Final = 2048
ROUNDS: Final = 5
BARE_SIZES: Final = (32, 64, 128)
GATES: Final[dict[tuple[Form, int], float]] = {("png", 32): 0.7, ("raw", 32): 0.6}
"""The least share of bare, by form and cameras; 0.8 is what is aimed at."""
_SEED: Final = 4
"""Of the cameras: the model is trained on the same scenes."""


def ensure_frame_model(directory: Path) -> None:
    """Train a model into `directory/conv`, once, on the cameras that are measured with. Raises CalledProcessError."""
    if (directory / "conv" / "current").exists():
        return
    sys.stderr.write("training a conv model, once ...\n")
    plant = directory / "cameras"
    run = [sys.executable, "-m", "detector.cli.main"]
    simulate = ["simulate", "--out", plant, "--cameras", max(CAMERAS), "--seed", _SEED, "--faults", "none"]
    train = ["train", "--data", plant / "image-frames.jsonl", "--model", "conv", "--out", directory / "conv"]
    for words in (
        [*simulate, "--sensors", "1", "--rows", "400"],
        [*train, "--set", "training.epochs=1", "--set", "training.min_steps=600"],
    ):
        subprocess.run([*run, *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure_frames(models: Path, form: Form, cameras: int) -> dict[str, float]:
    """`frames_speed` in a fresh process whose libraries use one thread."""
    words = [sys.executable, "-m", "benchmarks.speed.frames", str(models), form, str(cameras)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def frames_speed(models: Path, form: Form, cameras: int) -> dict[str, float]:
    """Frames a second, decoded and scored, of `form`; `bare` is measured in turns with that.

    All on one processor: the pipeline's threads for decoding gain nothing by being several. `bare` decodes a batch,
    puts it into one array and runs the network on it, at its best batch size.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = Config(frames=FramesConfig(enabled=True, model=models / "conv"))
    model = load_frame_model(config)
    make = frame_pipeline_factory(config, model)
    plant = simulate_cameras(cameras=cameras, frames=FRAMES // cameras, end=END, seed=_SEED, faults=False)
    records: list[Record] = []
    for number in range(FRAMES // cameras):
        for camera in plant:
            value = _value(camera.picture(number), form, int(camera.times[number]))
            records.append(Record(len(records), camera.camera_id.encode(), *value))
    network = OnnxRuntime.load(load_bundle(models / "conv", kinds=FRAME_KINDS).path / "model.onnx", "conv")
    session = network._session  # noqa: SLF001 - the same session as in the product, without what is around it
    rates, bare = [], []
    for _ in range(ROUNDS):
        pipeline = make(PARTITION)
        scored = 0
        began = time.perf_counter()
        for first in range(0, FRAMES, BATCH):
            scored += pipeline.process(Batch(PARTITION, records[first : first + BATCH], first + BATCH)).tally.accepted
        while pipeline.pending:
            scored += pipeline.advance().tally.accepted
        rates.append(FRAMES / (time.perf_counter() - began))
        if scored != FRAMES or pipeline.open_episodes:
            raise RuntimeError(f"{scored} frames scored, {pipeline.open_episodes} in an alarm: this is no normal load")
        bare += [_bare(session, records, form, size) for size in BARE_SIZES]
    return {"rate": max(rates), "bare": max(bare)}


def _value(picture: U8, form: Form, time_ns: int) -> tuple[bytes, int, Sequence[tuple[str, bytes]]]:
    """Value, timestamp in ms and headers of a record."""
    if form == "raw":
        shape = ",".join(map(str, picture.shape)).encode()
        return picture.tobytes(), time_ns // 10**6, [("shape", shape), ("dtype", b"uint8")]
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue(), time_ns // 10**6, []


def _bare(session: Any, records: Sequence[Record], form: Form, size: int) -> float:
    """Frames a second."""
    name = session.get_inputs()[0].name
    decode = _png if form == "png" else _raw
    began = time.perf_counter()
    for first in range(0, len(records), size):
        frames = np.stack([decode(record.value or b"") for record in records[first : first + size]])
        session.run(None, {name: frames.astype(np.float32)[..., None] / np.float32(255)})
    return len(records) / (time.perf_counter() - began)


def _png(value: bytes) -> U8:
    return np.asarray(Image.open(io.BytesIO(value)))


def _raw(value: bytes) -> U8:
    return np.frombuffer(value, np.uint8).reshape(28, 28)


if __name__ == "__main__":
    form: Form = "png" if sys.argv[2] == "png" else "raw"
    sys.stdout.write(json.dumps(frames_speed(Path(sys.argv[1]), form, int(sys.argv[3]))) + "\n")
