"""A bundle in a second: a linear autoencoder nobody trained. What it finds does not matter, only that it repeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from detector.arrays import F64
from detector.detection.profile import build_profile
from detector.models.bundle.bundles import write_bundle
from detector.models.bundle.spec import WINDOW, ModelSpec
from detector.models.bundle.versions import activate
from detector.models.runtime.onnx import OnnxRuntime

_HIDDEN = 8
ROWS = 1000
"""Of each sensor a profile is made of."""


def make_bundle(
    directory: Path,
    series: Iterable[tuple[str, F64]],
    open_after: tuple[int, int],
    seed: int,
    channels: Sequence[str] = ("value",),
) -> None:
    """Write and activate a version with profiles of these sensors, from (`ROWS`, channels) each; others warm up."""
    onnx = _linear_model(seed, len(channels))
    runtime = OnnxRuntime.load(onnx, "dense")
    times = np.arange(ROWS, dtype=np.int64) * 10**9
    profiles = {
        name: build_profile(times, values, runtime, scaler="standard", stride=1, open_after=open_after)[0]
        for name, values in series
    }
    bundle = write_bundle(
        directory,
        ModelSpec("dense", tuple(channels), hidden=(_HIDDEN,)),
        save_keras=_nothing_to_read,
        onnx=onnx,
        profiles=profiles,
        stride=1,
        open_after=open_after,
        created=datetime.now(UTC),
        name="chaos",
    )
    activate(directory, bundle.version)


def _nothing_to_read(path: Path) -> None:
    path.write_bytes(b"ONNX Runtime scores; nobody opens this")


def _linear_model(seed: int, channels: int) -> bytes:
    rng = np.random.default_rng(seed)
    width = WINDOW * channels
    basis, _ = np.linalg.qr(rng.normal(size=(width, _HIDDEN)))
    weights = basis.astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["windows", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "down"], ["code"]),
        helper.make_node("MatMul", ["code", "up"], ["decoded"]),
        helper.make_node("Reshape", ["decoded", "deep"], ["reconstruction"]),
    ]
    shape = [None, WINDOW, channels]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("windows", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("reconstruction", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(weights, "down"),
            numpy_helper.from_array(np.ascontiguousarray(weights.T), "up"),
            numpy_helper.from_array(np.array([-1, width]), "flat"),
            numpy_helper.from_array(np.array([-1, WINDOW, channels]), "deep"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
