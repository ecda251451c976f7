"""Everything `detector train` does between the readings and the bundle: train, export, compare, calibrate, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from detector.arrays import F32
from detector.config.load import TrainingConfig
from detector.detection.profile import Profile, build_profile, scale_of
from detector.detection.signals import standardise
from detector.errors import OperationError
from detector.models.bundle.bundles import Bundle, check_name, write_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.bundle.versions import check_writable
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.architectures import save
from detector.models.training.loop import Progress, TrainReport, train
from detector.models.training.onnx_export import to_onnx
from detector.models.training.sampling import CLIP, Series
from detector.times import rfc3339

EXPORT_TOLERANCE: Final = 1e-2
"""A right export differs from Keras in the last digits, a wrong one by whole units."""
COMPARED: Final = 64
"""Windows, or frames, that both compute."""
LIBRARIES: Final = ("tensorflow", "keras", "numpy", "onnx", "onnxruntime")


def build_bundle(
    directory: Path,
    series: Series,
    spec: ModelSpec,
    settings: TrainingConfig,
    *,
    stride: int,
    open_after: tuple[int, int],
    created: datetime,
    name: str | None = None,
    other_open_after: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    progress: Callable[[Progress], None] = lambda _: None,
    profiled: Callable[[int], None] = lambda _: None,
) -> tuple[Bundle, TrainReport]:
    """Train on `series` (each sensor with at least 150 rows) and write a bundle version, which is not activated.

    Each sensor's profile is built from all of its rows, with the exported model, as the daemon would; `open_after` is
    the (n, m) of their alerts, `other_open_after` that of sensors where it differs. `profiled` is
    told after each sensor how many are done. Raises UserError before training if the name or the directory will not
    do, OperationError if the disk fails.
    """
    check_name(name or spec.kind)
    check_writable(directory)
    model, report = train(series, spec, settings, progress=progress)
    onnx = to_onnx(model, spec)
    runtime = OnnxRuntime.load(onnx, spec.kind)
    compare(model, runtime, _newest_windows(series, spec))
    profiles: dict[str, Profile] = {}
    for sensor_id, (times, values) in series.items():
        profiles[sensor_id], _ = build_profile(
            times,
            values,
            runtime,
            scaler=spec.scaler,
            stride=stride,
            open_after=other_open_after.get(sensor_id, open_after),
        )
        profiled(len(profiles))
    bundle = write_bundle(
        directory,
        spec,
        save_keras=lambda path: save(model, path),
        onnx=onnx,
        profiles=profiles,
        stride=stride,
        open_after=open_after,
        created=created,
        name=name,
        calibration=_calibration(profiles, spec),
        training=_summary(series, settings, report),
        libraries={library: version(library) for library in LIBRARIES},
    )
    return bundle, report


def _newest_windows(series: Series, spec: ModelSpec) -> F32:
    """Some windows of one sensor as the model takes them."""
    _, values = next(iter(series.values()))
    z = standardise(values, *scale_of(values, spec.scaler))[-(COMPARED + spec.window - 1) :]
    rows = np.clip(z, -CLIP, CLIP).astype(np.float32)
    return np.stack([rows[i : i + spec.window] for i in range(len(rows) - spec.window + 1)])


def compare(model: Any, runtime: OnnxRuntime, windows: F32) -> None:
    """Make sure that the exported model computes what the trained one does. Raises OperationError."""
    difference = float(np.abs(np.asarray(model(windows)) - runtime(windows)).max())
    if not difference <= EXPORT_TOLERANCE:
        raise OperationError(
            f"the exported model differs from the trained one by {difference:.3g}",
            where="model.onnx",
            todo="Report this with the output of `pip freeze`",
        )


def _calibration(profiles: Mapping[str, Profile], spec: ModelSpec) -> dict[str, Any]:
    """The profiles in numbers: medians over the sensors."""
    signals = [*(f"prediction {channel}" for channel in spec.channels), "reconstruction"]
    signals += [f"level {channel}" for channel in spec.channels]
    worst = np.median([profile.worst for profile in profiles.values()], axis=0)
    return {
        "sensors": len(profiles),
        "regular_sensors": sum(profile.regular for profile in profiles.values()),
        "median_scored_rows": float(np.median([profile.scored_rows for profile in profiles.values()])),
        "median_worst": dict(zip(signals, worst.tolist(), strict=True)),
    }


def _summary(series: Series, settings: TrainingConfig, report: TrainReport) -> dict[str, Any]:
    """The training data and the run, for the manifest."""
    return {
        "from": rfc3339(min(int(times.min()) for times, _ in series.values())),
        "to": rfc3339(max(int(times.max()) for times, _ in series.values())),
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "max_windows": settings.max_windows,
        **asdict(report),
    }
