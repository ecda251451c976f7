"""A bundle made without TensorFlow, and readings to go with it: sensors in good health until something happens."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detector.arrays import F64
from detector.detection.profile import Profile, build_profile
from detector.models.bundle.bundles import Bundle, write_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.bundle.versions import activate
from detector.models.runtime.onnx import OnnxRuntime
from tests.plant import healthy

SECOND: Final = 10**9
START: Final = 1_790_000_000
"""Seconds since the epoch of the first reading."""
SENSORS: Final = ("pump-0", "pump-1")
ROWS: Final = 800
FAULT: Final = (300, 420)
"""Rows in which the first sensor reads too high."""


@functools.cache
def autoencoder(channels: int = 1) -> bytes:
    """A small random autoencoder as ONNX."""
    rng = np.random.default_rng(3)
    width = 100 * channels
    constants = {
        "flat": np.array([0, -1]),
        "down": rng.normal(0, width**-0.5, (width, 4)).astype(np.float32),
        "up": rng.normal(0, width**-0.5, (4, width)).astype(np.float32),
        "shape": np.array([0, 100, channels]),
    }
    nodes = [
        helper.make_node("Reshape", ["windows", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "down"], ["code"]),
        helper.make_node("MatMul", ["code", "up"], ["wide"]),
        helper.make_node("Reshape", ["wide", "shape"], ["expected"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 100, channels]) for n in ("windows", "expected")]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = onnx.ModelProto.SerializeToString(model)
    return content


@functools.cache
def profile(seed: int, channels: int = 1) -> Profile:
    """The profile of a sensor that `values` goes on with."""
    times = (START - 300 + np.arange(300, dtype=np.int64)) * SECOND
    reconstruct = OnnxRuntime.load(autoencoder(channels), "dense")
    return build_profile(times, healthy(np.random.default_rng(100 + seed), 300, channels), reconstruct)[0]


def _keras_file(path: Path) -> None:
    path.write_bytes(b"not opened while serving")


def tiny_bundle(
    directory: Path, *, channels: Sequence[str] = ("value",), sensors: Sequence[str] = SENSORS, day: int = 22
) -> Bundle:
    """Write a version that knows `sensors`, made on that day, and make it the active one."""
    bundle = write_bundle(
        directory,
        ModelSpec("dense", tuple(channels)),
        save_keras=_keras_file,
        onnx=autoencoder(len(channels)),
        profiles={sensor: profile(i, len(channels)) for i, sensor in enumerate(sensors)},
        stride=1,
        open_after=(10, 10),
        created=datetime(2026, 11, day, tzinfo=UTC),
    )
    activate(directory, bundle.version)
    return bundle


def values(sensor: int, rows: int = ROWS) -> F64:
    """(rows,) of a sensor; the first one has the fault."""
    column: F64 = healthy(np.random.default_rng(sensor), rows, begin=300)[:, 0].round(4)
    if sensor == 0:
        column[FAULT[0] : FAULT[1]] += 15
    return column


def json_lines(rows: int = ROWS, sensors: Sequence[str] = SENSORS) -> bytes:
    """Readings of all sensors in the order of time, one a line."""
    columns = [values(i, rows).tolist() for i in range(len(sensors))]
    lines = [
        json.dumps({"sensor_id": sensor, "timestamp": START + row, "value": columns[i][row]})
        for row in range(rows)
        for i, sensor in enumerate(sensors)
    ]
    return "\n".join(lines).encode() + b"\n"


def csv_lines(rows: int = ROWS) -> bytes:
    """Readings of the first sensor without its name."""
    lines = ["timestamp,value", *(f"{START + row},{value}" for row, value in enumerate(values(0, rows).tolist()))]
    return "\n".join(lines).encode() + b"\n"
