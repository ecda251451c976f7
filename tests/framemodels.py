"""Small models of frames, without a network: what tests of the image path score with."""

from __future__ import annotations

import numpy as np

from detector.arrays import F32
from detector.detection.framesignal import FrameModel, FrameReconstruct, normal_errors


def pattern(shape: tuple[int, int]) -> F32:
    """What all `textured_frames` show, in brighter or darker light."""
    y, x = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    wave: F32 = (0.5 + 0.3 * np.sin(4 * x + 3 * y)).astype(np.float32)
    return wave


def pattern_network(shape: tuple[int, int]) -> FrameReconstruct:
    """A stand-in for an autoencoder: it knows the pattern, and its code is the frame's mean brightness.

    The bits of a frame's result do not depend on the batch.
    """
    known = pattern(shape) / pattern(shape).mean()

    def network(frames: F32) -> F32:
        brightness: F32 = frames.reshape(len(frames), -1).mean(axis=1)
        shown: F32 = brightness[:, None, None] * known
        return shown[..., None]

    return network


def textured_frames(n: int, shape: tuple[int, int] = (28, 28), seed: int = 0) -> F32:
    """Frames (n, h, w) of a smooth pattern with changing brightness, and noise."""
    rng = np.random.default_rng(seed)
    frames = rng.uniform(0.8, 1.1, (n, 1, 1)) * pattern(shape) + rng.normal(0, 0.02, (n, *shape))
    clipped: F32 = np.clip(frames, 0, 1).astype(np.float32)
    return clipped


def frame_model(shape: tuple[int, int] = (28, 28), frames: int = 300) -> FrameModel:
    """A model of `textured_frames` that knows no camera."""
    network = pattern_network(shape)
    normal = normal_errors(network, textured_frames(frames, shape, seed=1))
    return FrameModel("tiny", "v1", "0" * 64, shape, network, normal, {})
