"""Models for the benchmarks: trained as `detector train` does, kept by what they were trained on."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detector.arrays import F64
from detector.config.load import TrainingConfig
from detector.detection.profile import MIN_ROWS
from detector.detection.scorer import Model
from detector.models.bundle.spec import ModelSpec
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training import architectures, onnx_export, sampling
from detector.models.training import loop as training
from detector.models.training.tensorflow_setup import load_tensorflow

SECOND = 10**9


def channel_names(values: F64) -> tuple[str, ...]:
    """What the columns of a sensor's rows (L,) or (L, C) are called."""
    return ("value",) if values.ndim == 1 else tuple(f"c{number}" for number in range(values.shape[1]))


def training_rows(values: F64, train_rows: int) -> F64:
    """The finite values of the training prefix (at least 150 rows of the series, where it has them)."""
    rows = np.flatnonzero(np.isfinite(values))
    used = max(int(np.searchsorted(rows, train_rows)), MIN_ROWS)
    return np.ascontiguousarray(values[rows[:used]])


class ModelStore:
    """A directory of ONNX models by key. Training is deterministic, so one that is there is the one it would make."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, prefixes: Mapping[str, F64], kind: str, seed: int = 0) -> str:
        """The key of the model trained on these sensors' prefixes (L,) or (L, C), each of at least 150 rows."""
        config = TrainingConfig(seed=seed)
        spec = ModelSpec(
            kind, channel_names(next(iter(prefixes.values()))), hidden=config.hidden, units=config.units,
            activation=config.activation, scaler=config.scaler,
        )  # fmt: skip
        key = f"{kind}-{_digest(prefixes, spec, config)}"
        path = self._path(key)
        if not path.is_file():
            onnx = _train(prefixes, spec, config)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(onnx)
            draft.replace(path)
        return key

    def load(self, key: str) -> Model:
        """The model of a key, ready to score, without any profile."""
        content = self._path(key).read_bytes()
        kind = key.partition("-")[0]
        return Model(
            name=kind,
            version="1",
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            scaler=TrainingConfig().scaler,
            stride=1,
            reconstruct=OnnxRuntime.load(content, kind),
            profiles={},
        )

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.onnx"


def _train(prefixes: Mapping[str, F64], spec: ModelSpec, config: TrainingConfig) -> bytes:
    _, keras = _one_thread()
    series = {
        name: (np.arange(len(values), dtype=np.int64) * SECOND, values.reshape(len(values), -1))
        for name, values in prefixes.items()
    }
    sampled = sampling.sample(series, scaler=spec.scaler, limit=config.max_windows)
    model, _ = training.train(sampled, spec, config)
    onnx = onnx_export.to_onnx(model, spec)
    keras.backend.clear_session()
    return onnx


def _one_thread() -> tuple[Any, Any]:
    """TensorFlow with a single thread: as many processes run as there are processors."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        return load_tensorflow()
    finally:
        os.sched_setaffinity(0, cpus)


def _digest(prefixes: Mapping[str, F64], spec: ModelSpec, config: TrainingConfig) -> str:
    """What decides the weights: the data, the settings and the code that trains."""
    digest = hashlib.sha256(f"{spec} {config}".encode())
    for module in (architectures, onnx_export, sampling, training):
        digest.update(inspect.getsource(module).encode())
    for name, values in prefixes.items():
        digest.update(f"{name} {len(values)} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:32]
