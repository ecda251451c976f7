"""Which frames of which camera a model is trained on, and which are held back to judge it and to calibrate by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detector.arrays import F32, I64
from detector.detection.profile import MIN_ROWS
from detector.models.training.sampling import TAIL_SHARE

CameraFrames = Mapping[str | None, tuple[I64, F32]]
"""By camera id: times (L,) in ns and frames (L, h, w) in [0, 1], oldest first. None: images that are of no camera."""

LEAST: Final = 100
"""Frames without which nothing is trained."""
SMALL_SHARE: Final = 0.2
"""The share held back where a camera's frames are too few to spare a profile's."""


@dataclass(frozen=True, slots=True)
class FrameSample:
    """The training material: `frames` (N, h, w, 1) float32, scaled; `train`, `tail`: their numbers.

    `sensors`: cameras with a name.
    """

    sensors: int
    frames: F32
    train: I64
    tail: I64

    @property
    def size(self) -> int:
        """Frames of all cameras."""
        return len(self.frames)

    def picker(self, tf: Any) -> Callable[[Any], Any]:
        """A function inside TensorFlow: numbers (n,) -> frames (n, h, w, 1)."""
        frames = tf.constant(self.frames)
        return lambda numbers: tf.gather(frames, numbers)


def held_back(frames: int) -> int:
    """How many of a camera's newest frames are held back: a tenth, but enough for a profile where that is a third.

    Errors on frames the model was trained on would understate what is normal.
    """
    least = MIN_ROWS if frames >= 3 * MIN_ROWS else int(frames * SMALL_SHARE)
    return max(int(frames * TAIL_SHARE), least)


def held_back_part(frames: F32) -> F32:
    """A camera's frames that are held back."""
    return frames[len(frames) - held_back(len(frames)) :]


def scale_of_frames(cameras: CameraFrames, scaler: str) -> tuple[float, float]:
    """What of [0, 1] becomes 0 and what length becomes 1, the same for all pixels.

    standard: mean and deviation of the pixels trained on; minmax: frames stay as they are; symmetric: onto [-1, 1].
    """
    if scaler != "standard":
        return (0.0, 1.0) if scaler == "minmax" else (0.5, 0.5)
    kept = [frames[: len(frames) - held_back(len(frames))] for _, frames in cameras.values()]
    count = sum(part.size for part in kept)
    mean = sum(float(part.sum(dtype=np.float64)) for part in kept) / count
    variance = sum(float(np.square(part - np.float32(mean)).sum(dtype=np.float64)) for part in kept) / count
    return mean, max(float(np.sqrt(variance)), 1e-3)


def scaled(frames: F32, center: float, scale: float) -> F32:
    """Frames as the network takes them: (n, h, w) in [0, 1] -> (n, h, w, 1)."""
    return ((frames - np.float32(center)) / np.float32(scale))[..., None]


def sample_frames(cameras: CameraFrames, *, scaler: str, limit: int) -> FrameSample:
    """Scale all frames alike and choose `limit` of them at most, evenly spaced over all cameras.

    Raises ValueError if there are fewer than 100.
    """
    total = sum(len(frames) for _, frames in cameras.values())
    if total < LEAST:
        raise ValueError(f"training needs at least {LEAST} frames, these are {total}")
    center, scale = scale_of_frames(cameras, scaler)
    step = max(1.0, total / limit)
    blocks: list[F32] = []
    train: list[I64] = []
    tail: list[I64] = []
    offset = 0
    for _, frames in cameras.values():
        chosen = np.arange(0, len(frames), step).astype(np.int64)
        blocks.append(scaled(frames[chosen], center, scale))
        numbers = offset + np.arange(len(chosen))
        kept = chosen < len(frames) - held_back(len(frames))
        train.append(numbers[kept])
        tail.append(numbers[~kept])
        offset += len(chosen)
    return FrameSample(
        sensors=sum(camera is not None for camera in cameras),
        frames=np.concatenate(blocks),
        train=np.concatenate(train),
        tail=np.concatenate(tail),
    )
