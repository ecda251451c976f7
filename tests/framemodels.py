"""Small models of frames, without a network: what tests of the image path score with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.frames import FrameModel, Network, calibrate

F32 = NDArray[np.float32]


def smoothing_network(shape: tuple[int, int], code: int = 4) -> Network:
    """A stand-in for an autoencoder: it reproduces the horizontal mean of three pixels; the code is a few rows' means.

    Elementwise, so that its bits do not depend on the batch.
    """

    def network(frames: F32) -> tuple[F32, F32]:
        grey = frames[..., 0]
        left = np.concatenate([grey[..., :1], grey[..., :-1]], axis=-1)
        right = np.concatenate([grey[..., 1:], grey[..., -1:]], axis=-1)
        rows = np.linspace(0, shape[0] - 1, code).astype(int)
        return ((left + grey + right) / np.float32(3))[..., None], grey[:, rows].mean(axis=2)

    return network


def textured_frames(n: int, shape: tuple[int, int] = (28, 28), seed: int = 0) -> F32:
    """Frames (n, h, w) of a smooth pattern with changing brightness, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    pattern = 0.5 + 0.3 * np.sin(4 * x + 3 * y)
    brightness = rng.uniform(0.8, 1.1, (n, 1, 1))
    frames = brightness * pattern + rng.normal(0, 0.02, (n, *shape))
    clipped: F32 = np.clip(frames, 0, 1).astype(np.float32)
    return clipped


def frame_model(shape: tuple[int, int] = (28, 28), frames: int = 300) -> FrameModel:
    """A model of `textured_frames` that knows no camera."""
    network = smoothing_network(shape)
    calibration = calibrate(network, textured_frames(frames, shape, seed=1))
    return FrameModel("tiny", "v1", "0" * 64, shape, network, calibration, {})
