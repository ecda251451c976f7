"""Everything `detector train --model conv` does between the frames and the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from detector.config import TrainingConfig
from detector.frameprofile import FrameProfile, build_frame_profile
from detector.frames import FrameModel, calibrate, score_frames
from detector.models.architectures import save
from detector.models.building import COMPARED, LIBRARIES, compare
from detector.models.bundles import Bundle, check_name, write_bundle
from detector.models.frame_bundles import ScaledReconstruct, save_frame_profiles
from detector.models.frame_sampling import CameraFrames, held_back, scale_of_frames, scaled
from detector.models.onnx_export import to_onnx
from detector.models.onnx_runtime import OnnxRuntime
from detector.models.spec import FrameSpec
from detector.models.training import Progress, TrainReport, train_frames
from detector.models.versions import check_writable
from detector.profile import MIN_ROWS
from detector.timestamps import rfc3339


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

    The frames held back calibrate the heat map, and make the profile of each camera that has 150 of them. Raises
    UserError before training if the name or the directory will not do, OperationError if the disk fails.
    """
    check_name(name or spec.kind)
    check_writable(directory)
    model, report = train_frames(cameras, spec, settings, progress=progress)
    onnx = to_onnx(model, spec)
    network = OnnxRuntime.load(onnx, spec.kind)
    center, scale = scale_of_frames(cameras, spec.scaler)
    held = {camera: _newest(times, frames) for camera, (times, frames) in cameras.items()}
    together = np.concatenate([frames for _, frames in held.values()])
    compare(model, network, scaled(together[-COMPARED:], center, scale))
    reconstruct = ScaledReconstruct(network, center, scale)
    calibration = calibrate(reconstruct, together)
    scorer = FrameModel(spec.kind, "", "", spec.image, reconstruct, calibration, {})
    profiles: dict[str, FrameProfile] = {}
    for camera, (times, frames) in held.items():
        if camera is not None and len(frames) >= MIN_ROWS:
            profiles[camera], _ = build_frame_profile(times, score_frames(scorer, frames), open_after=open_after)
    bundle = write_bundle(
        directory,
        spec,
        save_keras=lambda path: save(model, path),
        onnx=onnx,
        profiles=lambda path: save_frame_profiles(path, (center, scale), calibration, profiles),
        open_after=open_after,
        created=created,
        name=name,
        calibration=_calibration(score_frames(scorer, together).tolist(), profiles),
        training=_summary(cameras, settings, report),
        libraries={library: version(library) for library in LIBRARIES},
    )
    return bundle, report


def _newest(times: Any, frames: Any) -> tuple[Any, Any]:
    first = len(frames) - held_back(len(frames))
    return times[first:], frames[first:]


def _calibration(signal: list[float], profiles: Mapping[str, FrameProfile]) -> dict[str, Any]:
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
