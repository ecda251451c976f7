"""The image path's own stages: from decoded frames to one signal a frame, and to what an alert shows of a frame.

How a frame is judged, and who does what::

    images.decode       bytes -> frame (h, w) float32 in [0, 1]
    score_frames        frames (n, h, w) of any cameras -> signal (n,), higher is worse; the same bits in any batch
    profile             the signal of one camera's prefix -> its Calibration, as of a sensor, with one signal
    scorer, threshold, episodes, faultmemory   score and judge row by row, as for readings, with K = 1
    examine             one frame -> reconstruction, heat map and summary for the alert

A camera known from training has its profile in `FrameModel.profiles`; any other warms up with its first
`frames.warmup` frames: keep their signals and times, then call `profile.build_frame_profile`, which training
calls as well. `FrameModel.normal` is the model's, the same for all cameras.

The signal has two parts. Both look at the difference d of frame and reconstruction after averaging it over a
neighbourhood *with its sign*, so that noise and blurred edges cancel and what is there, or missing, adds up; squared,
and in units of what the same pixel has where nothing is wrong::

    q(p) = smooth(d)(p)^2 / (spread(p) + FLOOR^2)
    signal = mean of the broad q / its usual value + PEAK_WEIGHT * maximum of the fine q / its usual value

The broad neighbourhood (7 x 7 of 28 x 28 pixels) sees that the whole is wrong, the fine one (3 x 3, twice) a small
fault; the fine map is also what an alert shows as heat. docs/detection.md says what else was tried.

No I/O, no clock. A frame's result has the same bits whichever frames are scored beside it: elementwise operations and
sums along the last, contiguous axis; the autoencoder keeps to that by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from detector.arrays import F32, F64, U8
from detector.detection.profile import Calibration
from detector.detection.signals import TINY

FrameReconstruct = Callable[[F32], F32]
"""An autoencoder: frames (n, h, w, 1) float32 in [0, 1] in, the same shape out, each one's bits its own."""

CHUNK: Final = 64
"""Frames scored together: what a processor's cache holds of them."""
BROAD: Final = 4
"""The broad neighbourhood's sides are this part of the frame's, rounded up to an odd number."""
FINE: Final = 8
"""The same for the fine one."""
PEAK_WEIGHT: Final = 0.2
"""How much the hottest spot counts beside the mean."""
FLOOR: Final = 1e-2
"""A pixel's usual smoothed difference is taken to be at least this: where all frames are equal, it would be nothing."""


@dataclass(frozen=True, slots=True)
class NormalErrors:
    """What the autoencoder does on frames without faults that it was not trained on.

    `broad_spread`, `fine_spread` (h, w): mean square of each pixel's smoothed difference; `usual_mean`: the broad q,
    mean over pixels and frames; `usual_peak`: the frames' hottest spots of the fine q, mean; `worst_peak`: the hottest
    of all.
    """

    broad_spread: F32
    fine_spread: F32
    usual_mean: float = 1.0
    usual_peak: float = 1.0
    worst_peak: float = 1.0


@dataclass(frozen=True, slots=True)
class FrameModel:
    """An autoencoder for frames of one shape (h, w), ready to score, and what was made with it."""

    name: str
    version: str
    digest: str
    shape: tuple[int, int]
    reconstruct: FrameReconstruct
    normal: NormalErrors
    profiles: Mapping[str, Calibration]


@dataclass(frozen=True, slots=True)
class Examined:
    """What an alert shows of a frame.

    `reconstruction` (h, w) in [0, 1]; `heat` (h, w): the fine q, 1 being the hottest spot of all frames without
    faults; `summary`: numbers for the alert's `frame`.
    """

    reconstruction: F32
    heat: F32
    summary: dict[str, float]


def normal_errors(reconstruct: FrameReconstruct, frames: F32) -> NormalErrors:
    """Measure the errors on frames (n, h, w) without faults that the autoencoder was not trained on."""
    broad, fine = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    for chunk in _chunks(frames):
        difference = _difference(reconstruct, chunk)
        broad += np.square(_smooth_broadly(difference), dtype=np.float64).sum(axis=0)
        fine += np.square(_smooth_finely(difference), dtype=np.float64).sum(axis=0)
    spreads = NormalErrors((broad / len(frames)).astype(np.float32), (fine / len(frames)).astype(np.float32))
    parts = [_parts(spreads, _difference(reconstruct, chunk)) for chunk in _chunks(frames)]
    means, peaks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return replace(
        spreads,
        usual_mean=max(float(means.mean()), TINY),
        usual_peak=max(float(peaks.mean()), TINY),
        worst_peak=max(float(peaks.max()), TINY),
    )


def score_frames(model: FrameModel, frames: F32) -> F64:
    """The signal (n,) of frames (n, h, w) float32 in [0, 1], before any camera's own calibration; higher is worse.

    Raises ValueError for frames of another shape.
    """
    _check(model, frames)
    parts = [_signal(model.normal, _difference(model.reconstruct, chunk)) for chunk in _chunks(frames)]
    return np.concatenate([*parts, np.empty(0)])


def examine(model: FrameModel, frame: F32) -> Examined:
    """Reconstruction, heat map and summary of one frame (h, w). Raises ValueError for another shape."""
    _check(model, frame[None])
    rebuilt = model.reconstruct(frame[None, ..., None])[0, ..., 0]
    difference = (frame - rebuilt)[None]
    normal = model.normal
    (mean,), (peak,) = _parts(normal, difference)
    heat = _q(_smooth_finely(difference), normal.fine_spread)[0] / np.float32(normal.worst_peak)
    row, column = np.unravel_index(int(heat.argmax()), frame.shape)
    summary = {
        "mean_squared_error": float(np.square(difference, dtype=np.float64).mean()),
        "mean_ratio": float(mean) / normal.usual_mean,
        "peak_ratio": float(peak) / normal.usual_peak,
        "peak_row": float(row),
        "peak_column": float(column),
    }
    return Examined(rebuilt.clip(0.0, 1.0), heat, summary)


def region_of(heat: F32) -> tuple[int, int, int, int]:
    """The box (x, y, width, height) around the hottest spot of a heat map: what hangs together at half its heat.

    >>> region_of(np.array([[0, 0, 0, 0], [0, 4, 6, 0], [0, 5, 9, 0]], dtype=np.float32))
    (1, 1, 2, 2)
    """
    hot = heat >= heat.max() / 2
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    top, bottom, left, right = int(row), int(row) + 1, int(column), int(column) + 1
    while True:
        wide = hot[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
        rows, columns = np.flatnonzero(wide.any(axis=1)), np.flatnonzero(wide.any(axis=0))
        y, x = max(top - 1, 0), max(left - 1, 0)
        grown = y + int(rows[0]), y + int(rows[-1]) + 1, x + int(columns[0]), x + int(columns[-1]) + 1
        if grown == (top, bottom, left, right):
            return left, top, right - left, bottom - top
        top, bottom, left, right = grown


def heat_bytes(heat: F32) -> U8:
    """A heat map as 8-bit grey (h, w): white is its hottest spot, or 1 where it has none that hot."""
    return np.round(255.0 * heat / max(1.0, float(heat.max()))).astype(np.uint8)


def _difference(reconstruct: FrameReconstruct, frames: F32) -> F32:
    return frames - reconstruct(frames[..., None])[..., 0]


def _signal(normal: NormalErrors, difference: F32) -> F64:
    means, peaks = _parts(normal, difference)
    return means / normal.usual_mean + PEAK_WEIGHT * (peaks / normal.usual_peak)


def _parts(normal: NormalErrors, difference: F32) -> tuple[F64, F64]:
    """Mean of the broad q and maximum of the fine q of each frame's difference (n, h, w): (n,), (n,)."""
    n = len(difference)
    broad = _q(_smooth_broadly(difference), normal.broad_spread).reshape(n, -1)
    fine = _q(_smooth_finely(difference), normal.fine_spread).reshape(n, -1)
    return broad.mean(axis=1, dtype=np.float64), fine.max(axis=1).astype(np.float64)


def _q(smooth: F32, spread: F32) -> F32:
    squares: F32 = smooth * smooth
    squares /= spread + np.float32(FLOOR**2)
    return squares


def _smooth_broadly(difference: F32) -> F32:
    return _smooth(difference, BROAD)


def _smooth_finely(difference: F32) -> F32:
    """Twice, so that the middle of a neighbourhood counts most and the heat has its peak where the fault is."""
    return _smooth(_smooth(difference, FINE), FINE)


def _smooth(difference: F32, part: int) -> F32:
    """The mean over each pixel's neighbourhood; at the border the outermost pixels are repeated.

    Sums of shifted copies: a running sum would carry rounding from one pixel to the next.
    """
    for axis in (1, 2):
        size = difference.shape[axis]
        side = (size // part) | 1
        if side == 1:
            continue
        wide = difference.take(np.clip(np.arange(size + side - 1) - side // 2, 0, size - 1), axis=axis)
        shifted = [wide[:, i : i + size] if axis == 1 else wide[:, :, i : i + size] for i in range(side)]
        total = shifted[0] + shifted[1]
        for one in shifted[2:]:
            total += one
        total /= np.float32(side)
        difference = total
    return difference


def _chunks(frames: F32) -> Iterator[F32]:
    return (frames[i : i + CHUNK] for i in range(0, len(frames), CHUNK))


def _check(model: FrameModel, frames: F32) -> None:
    if frames.shape[1:] != model.shape or frames.dtype != np.float32:
        raise ValueError(
            f"the model takes float32 frames of shape {model.shape}, these are {frames.dtype} of {frames.shape[1:]}"
        )
