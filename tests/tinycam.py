"""A bundle for cameras made without TensorFlow, and frames to go with it."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detector.arrays import F32
from detector.detection.framesignal import FrameModel, normal_errors, score_frames
from detector.detection.profile import build_frame_profile
from detector.models.bundle.bundles import Bundle, write_bundle
from detector.models.bundle.frame_bundles import ScaledReconstruct, save_frame_profiles
from detector.models.bundle.spec import FrameSpec
from detector.models.bundle.versions import activate
from detector.models.runtime.onnx import OnnxRuntime
from tests.framemodels import textured_frames
from tests.pictures import png

SHAPE: Final = (12, 16)
SECOND: Final = 10**9
START: Final = 1_790_000_000
"""Seconds since the epoch of the first frame."""


@functools.cache
def smoother() -> bytes:
    """A network as ONNX that reproduces the mean of a pixel and its neighbours to the left and to the right."""
    height, width = SHAPE
    row = sum(np.eye(width, k=shift, dtype=np.float32) for shift in (-1, 0, 1)) / np.float32(3)
    mix = np.kron(np.eye(height, dtype=np.float32), row)
    constants = {"flat": np.array([0, -1]), "mix": mix, "shape": np.array([0, height, width, 1])}
    nodes = [
        helper.make_node("Reshape", ["frames", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "mix"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "shape"], ["expected"]),
    ]
    shape: list[str | int | None] = ["n", height, width, 1]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("frames", "expected")]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = onnx.ModelProto.SerializeToString(model)
    return content


def _keras_file(path: Path) -> None:
    path.write_bytes(b"not opened while serving")


def tiny_frame_bundle(directory: Path, *, cameras: Sequence[str] = ("door",), day: int = 22) -> Bundle:
    """Write a version that knows `cameras`, made on that day, and make it the active one."""
    reconstruct = ScaledReconstruct(OnnxRuntime.load(smoother(), "conv"), 0.0, 1.0)
    frames = textured_frames(300, SHAPE, seed=1)
    normal = normal_errors(reconstruct, frames)
    model = FrameModel("conv", "", "", SHAPE, reconstruct, normal, {})
    times = (START - 300 + np.arange(300)) * SECOND
    profile, _ = build_frame_profile(times, score_frames(model, frames))
    profiles = dict.fromkeys(cameras, profile)
    bundle = write_bundle(
        directory,
        FrameSpec(SHAPE),
        save_keras=_keras_file,
        onnx=smoother(),
        profiles=lambda path: save_frame_profiles(path, (0.0, 1.0), normal, profiles),
        open_after=(3, 5),
        created=datetime(2026, 11, day, tzinfo=UTC),
    )
    activate(directory, bundle.version)
    return bundle


def frames_of(camera: int, count: int, faults: Sequence[tuple[int, int]] = ()) -> F32:
    """Frames of one camera; during faults stripes stand in the picture."""
    frames = textured_frames(count, SHAPE, seed=50 + camera)
    for begin, end in faults:
        frames[begin:end, 3:9, 4:12:2] = 1.0
        frames[begin:end, 3:9, 5:12:2] = 0.0
    return frames


def frame_lines(cameras: Mapping[str, F32], start: int = START) -> bytes:
    """The frames as PNG in JSON lines, in the order of time, one of each camera a second."""
    lines = []
    for second in range(max(map(len, cameras.values()))):
        for camera, frames in cameras.items():
            if second < len(frames):
                value = base64.b64encode(png((frames[second] * 255).round().astype(np.uint8))).decode()
                lines.append(json.dumps({"camera_id": camera, "timestamp": start + second, "value_base64": value}))
    return "\n".join(lines).encode() + b"\n"
