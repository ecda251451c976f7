"""Frames as what a model is made of: `detector train --model conv`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from detector.arrays import F32, I64
from detector.detection.framesignal import FrameModel, normal_errors, score_frames
from detector.detection.profile import MIN_ROWS, Calibration, build_frame_profile
from detector.models.bundle.frame_bundles import ScaledReconstruct, save_frame_profiles
from detector.models.bundle.spec import FrameSpec
from detector.models.runtime.onnx import OnnxRuntime
from detector.models.training.building import COMPARED, Calibrated
from detector.models.training.frame_sampling import (
    CameraFrames,
    FrameSample,
    held_back_part,
    sample_frames,
    scale_of_frames,
    scaled,
)


@dataclass(frozen=True)
class Cameras:
    """At least 100 frames in all; `open_after` is the (n, m) of the cameras' alerts.

    The frames held back say what errors are normal, and make the profile of each camera that has 150 of them.
    """

    frames: CameraFrames
    spec: FrameSpec
    open_after: tuple[int, int]
    stride: ClassVar[int] = 1

    @property
    def times(self) -> Sequence[I64]:
        """Times of the frames, in ns, of each camera; images that are of no camera have none."""
        return [times for camera, (times, _) in self.frames.items() if camera is not None]

    @cached_property
    def scale(self) -> tuple[float, float]:
        """What of [0, 1] becomes 0 and what length becomes 1."""
        return scale_of_frames(self.frames, self.spec.scaler)

    def sample(self, limit: int) -> FrameSample:
        """The frames that are trained on and those held back. Raises ValueError if there are too few."""
        return sample_frames(self.frames, scaler=self.spec.scaler, limit=limit)

    def newest(self) -> F32:
        """Some frames as the model takes them."""
        return scaled(self._held_back()[-COMPARED:], *self.scale)

    def scorer(self, runtime: OnnxRuntime) -> FrameModel:
        """The model calibrated, ready to score; it knows no camera."""
        reconstruct = ScaledReconstruct(runtime, *self.scale)
        normal = normal_errors(reconstruct, self._held_back())
        return FrameModel(self.spec.kind, "", "", self.spec.image, reconstruct, normal, {})

    def calibrate(self, runtime: OnnxRuntime, profiled: Callable[[int], None]) -> Calibrated:
        """Calibration, and the profiles of cameras; `profiled` is told after each camera how many are done."""
        scorer = self.scorer(runtime)
        profiles: dict[str, Calibration] = {}
        for done, (camera, (times, frames)) in enumerate(self.frames.items(), 1):
            newest = held_back_part(frames)
            if camera is not None and len(newest) >= MIN_ROWS:
                signal = score_frames(scorer, newest)
                profiles[camera], _ = build_frame_profile(times[-len(newest) :], signal, open_after=self.open_after)
            profiled(done)
        return Calibrated(
            lambda path: save_frame_profiles(path, self.scale, scorer.normal, profiles),
            _numbers(score_frames(scorer, self._held_back()).tolist(), profiles),
        )

    def _held_back(self) -> F32:
        return np.concatenate([held_back_part(frames) for _, frames in self.frames.values()])


def _numbers(signal: list[float], profiles: Mapping[str, Calibration]) -> dict[str, Any]:
    """The frames held back in numbers."""
    return {
        "frames": len(signal),
        "cameras": len(profiles),
        "median_signal": float(np.median(signal)),
        "worst_signal": max(signal),
    }
