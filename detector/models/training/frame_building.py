"""Everything `detector train --model conv` does between the frames and the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from detector.arrays import F32
from detector.config.load import TrainingConfig
from detector.detection.framesignal import FrameModel, normal_errors, score_frames
from detector.detection.profile import MIN_ROWS, Calibration, build_frame_profile
from detector.models.bundle.bundles import Bundle, check_name, write_bundle
from detector.models.bundle.frame_bundles import ScaledReconstruct, save_frame_profiles
from detector.models.bundle.spec import FrameSpec
from detector.models.bundle.versions import check_writable
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.architectures import save
from detector.models.training.building import COMPARED, LIBRARIES, compare
from detector.models.training.frame_sampling import CameraFrames, held_back_part, scale_of_frames, scaled
from detector.models.training.loop import Progress, TrainReport, train_frames
from detector.models.training.onnx_export import to_onnx
from detector.times import rfc3339


def build_frame_bundle(
    directory: Path,
    cameras: CameraFrames,
    spec: FrameSpec,
    settings: TrainingConfig,
    *,
    open_after: tuple[int, int],
    created: datetime,
    name: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Bundle, TrainReport]:
    """Train on `cameras` (at least 100 frames in all) and write a bundle version, which is not activated.

    The frames held back say what errors are normal, and make the profile of each camera that has 150 of them. Raises
    UserError before training if the name or the directory will not do, OperationError if the disk fails.
    """
    check_name(name or spec.kind)
    check_writable(directory)
    fitted = fit_frames(cameras, spec, settings, progress=progress)
    profiles: dict[str, Calibration] = {}
    for camera, (times, frames) in cameras.items():
        newest = held_back_part(frames)
        if camera is not None and len(newest) >= MIN_ROWS:
            signal = score_frames(fitted.scorer, newest)
            profiles[camera], _ = build_frame_profile(times[-len(newest) :], signal, open_after=open_after)
    bundle = write_bundle(
        directory,
        spec,
        save_keras=lambda path: save(fitted.network, path),
        onnx=fitted.onnx,
        profiles=lambda path: save_frame_profiles(path, fitted.scale, fitted.scorer.normal, profiles),
        open_after=open_after,
        created=created,
        name=name,
        calibration=_calibration(score_frames(fitted.scorer, _held_back(cameras)).tolist(), profiles),
        training=_summary(cameras, settings, fitted.report),
        libraries={library: version(library) for library in LIBRARIES},
    )
    return bundle, fitted.report


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained autoencoder: as Keras' model and as ONNX; `scorer` scores with the latter and knows no camera."""

    network: Any
    onnx: bytes
    scale: tuple[float, float]
    scorer: FrameModel
    report: TrainReport


def fit_frames(
    cameras: CameraFrames,
    spec: FrameSpec,
    settings: TrainingConfig,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Fitted:
    """Train, export, compare, and measure the errors on the frames held back."""
    network, report = train_frames(cameras, spec, settings, progress=progress)
    onnx = to_onnx(network, spec)
    runtime = OnnxRuntime.load(onnx, spec.kind)
    scale = scale_of_frames(cameras, spec.scaler)
    held = _held_back(cameras)
    compare(network, runtime, scaled(held[-COMPARED:], *scale))
    reconstruct = ScaledReconstruct(runtime, *scale)
    scorer = FrameModel(spec.kind, "", "", spec.image, reconstruct, normal_errors(reconstruct, held), {})
    return Fitted(network, onnx, scale, scorer, report)


def _held_back(cameras: CameraFrames) -> F32:
    return np.concatenate([held_back_part(frames) for _, frames in cameras.values()])


def _calibration(signal: list[float], profiles: Mapping[str, Calibration]) -> dict[str, Any]:
    """The frames held back in numbers."""
    return {
        "frames": len(signal),
        "cameras": len(profiles),
        "median_signal": float(np.median(signal)),
        "worst_signal": max(signal),
    }


def _summary(cameras: CameraFrames, settings: TrainingConfig, report: TrainReport) -> dict[str, Any]:
    """The training data and the run, for the manifest; images that are of no camera have no times."""
    named = [times for camera, (times, _) in cameras.items() if camera is not None]
    return {
        "from": rfc3339(min(int(times.min()) for times in named)) if named else None,
        "to": rfc3339(max(int(times.max()) for times in named)) if named else None,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "max_windows": settings.max_windows,
        **asdict(report),
    }
