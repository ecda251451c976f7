"""The image path's own stages: from decoded frames to one signal a frame, and to what an alert shows of a frame.

How a frame is judged, and who does what::

    images.decode       bytes -> frame (h, w) float32 in [0, 1]
    score_frames        frames (n, h, w) of any cameras -> signal (n,), higher is worse; the same bits in any batch
    frameprofile        the signal of one camera's prefix -> its FrameProfile (RECIPE steps 4 and 5, one signal)
    signals, threshold, episodes, recovery   steps 4 to 8 row by row, as for readings, with K = 1
    examine             one frame -> reconstruction, heat map and summary for the alert

A camera known from training has its profile in `FrameModel.profiles`; any other warms up with its first
`frames.warmup` frames: keep their signals and times, then call `frameprofile.build_frame_profile`, which training
calls as well. `FrameModel.calibration` is the model's, the same for all cameras.

No I/O, no clock. A frame's result has the same bits whichever frames are scored beside it: elementwise operations and
sums along the last, contiguous axis, a fixed number of frames at a time; the network keeps to that by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.frameprofile import FrameProfile

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
Network = Callable[[F32], tuple[F32, F32]]
"""Frames (n, h, w, 1) float32 in [0, 1] -> their reconstruction, the same shape, and their code (n, c)."""

CHUNK: Final = 64
"""Frames scored together: what a processor's cache holds of them and their layers."""
PIXEL_FLOOR: Final = 1e-2
"""A pixel's error counts in units of its usual one, which is taken to be at least this."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the network does on frames without faults that it was not trained on.

    `pixel_error` (h, w): each pixel's mean squared error; `worst_heat`: the hottest spot of the heat maps.
    """

    pixel_error: F64
    worst_heat: float


@dataclass(frozen=True, slots=True)
class FrameModel:
    """An autoencoder for frames of one shape (h, w), ready to score, and what was made with it."""

    name: str
    version: str
    digest: str
    shape: tuple[int, int]
    network: Network
    calibration: Calibration
    profiles: Mapping[str, FrameProfile]


@dataclass(frozen=True, slots=True)
class Examined:
    """What an alert shows of a frame.

    `reconstruction` (h, w) in [0, 1]; `heat` (h, w): local error, 1 is the hottest spot of frames without faults;
    `summary`: numbers for the alert's `frame`.
    """

    reconstruction: F32
    heat: F64
    summary: dict[str, float]


def calibrate(network: Network, frames: F32) -> Calibration:
    """Learn the calibration from frames (n, h, w) without faults, best ones the network was not trained on."""
    total = np.zeros(frames.shape[1:])
    for i in range(0, len(frames), CHUNK):
        chunk = frames[i : i + CHUNK]
        rebuilt, _ = network(chunk[..., None])
        total += ((chunk - rebuilt[..., 0]).astype(np.float64) ** 2).sum(axis=0)
    pixel_error = total / len(frames)
    unscaled = Calibration(pixel_error, 1.0)
    worst = max(float(_heat(unscaled, chunk, network(chunk[..., None])[0][..., 0]).max()) for chunk in _chunks(frames))
    return Calibration(pixel_error, worst)


def score_frames(model: FrameModel, frames: F32) -> F64:
    """The signal (n,) of frames (n, h, w) float32 in [0, 1], before any camera's own calibration; higher is worse.

    Raises ValueError for frames of another shape.
    """
    _check(model, frames)
    out = np.empty(len(frames))
    for i in range(0, len(frames), CHUNK):
        chunk = frames[i : i + CHUNK]
        rebuilt, _ = model.network(chunk[..., None])
        heat = _heat(model.calibration, chunk, rebuilt[..., 0])
        out[i : i + CHUNK] = heat.reshape(len(chunk), -1).mean(axis=1)
    return out


def examine(model: FrameModel, frame: F32) -> Examined:
    """Reconstruction, heat map and summary of one frame (h, w). Raises ValueError for another shape."""
    _check(model, frame[None])
    rebuilt, _ = model.network(frame[None, ..., None])
    heat = _heat(model.calibration, frame[None], rebuilt[..., 0])[0]
    squared = (frame - rebuilt[0, ..., 0]).astype(np.float64) ** 2
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    summary = {
        "error": float(squared.mean()),
        "max_heat": float(heat.max()),
        "row": float(row),
        "column": float(column),
    }
    return Examined(rebuilt[0, ..., 0].clip(0.0, 1.0), heat, summary)


def heat_bytes(heat: F64) -> NDArray[np.uint8]:
    """A heat map as 8-bit grey (h, w): white is its hottest spot, or 1 where it has none that hot."""
    return np.round(255.0 * heat / max(1.0, float(heat.max()))).astype(np.uint8)


def _heat(calibration: Calibration, frames: F32, rebuilt: F32) -> F64:
    """Local error (n, h, w) in units of the hottest spot without faults."""
    error = (frames - rebuilt).astype(np.float64)
    error *= error
    error /= calibration.pixel_error + PIXEL_FLOOR**2
    error /= calibration.worst_heat
    return error


def _chunks(frames: F32) -> list[F32]:
    return [frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK)]


def _check(model: FrameModel, frames: F32) -> None:
    if frames.shape[1:] != model.shape or frames.dtype != np.float32:
        raise ValueError(
            f"the model takes float32 frames of shape {model.shape}, these are {frames.dtype} of {frames.shape[1:]}"
        )
