"""What is known of one camera before it is judged: built from the signal of its first frames, by one function.

The prefix is the held-back part of the training images or the warm-up of a camera met for the first time. A frame has
one signal, so what `detector.detection.profile` holds of three is here of one (K = 1), and there is no window and no
forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64
from detector.detection.profile import MIN_ROWS, standing_maxima, typical_interval
from detector.detection.signals import TINY, combine, deviation
from detector.detection.threshold import nth_largest_log


@dataclass(frozen=True, slots=True)
class FrameProfile:
    """Everything frozen about a camera; the fields mean what they mean in `detector.detection.profile.Profile`.

    `median_interval`: ns between frames, `regular`: whether intervals keep to it. `worst` (1,): the signal's maximum
    on the prefix, `worst_zz`: the largest deviation there, at least 1. `mean`, `variance` (1,), `count`: where the
    adaptive scale starts. `scored_rows`, `peak_first`, `peak_last`, `peak_v`: for `profile.peaks_of_suffix`.
    """

    median_interval: int
    regular: bool
    worst: F64
    worst_zz: float
    mean: F64
    variance: F64
    count: float
    scored_rows: int
    peak_first: I64
    peak_last: I64
    peak_v: F64


def build_frame_profile(times: I64, signal: F64, *, open_after: tuple[int, int] = (3, 5)) -> tuple[FrameProfile, F64]:
    """Build a camera's profile from its prefix: times (L,) ns, strictly increasing, and the signal (L,).

    `open_after` = (n, m) of the alerts. Returns also the newest m - 1 scores, oldest first, for a camera that carries
    on from its warm-up. Raises ValueError under 150 frames.
    """
    rows = len(signal)
    if rows < MIN_ROWS:
        raise ValueError(f"a profile needs at least {MIN_ROWS} frames, these are {rows}")
    signals = signal[None]
    worst = signals.max(axis=1) + TINY
    mean, variance = signals.mean(axis=1), signals.var(axis=1)
    zz, _ = deviation(signals, mean[:, None], variance[:, None])
    worst_zz = max(1.0, float(zz.max()))
    u = combine(signals, zz, worst[:, None], worst_zz)
    n, m = open_after
    v = nth_largest_log(np.concatenate([np.full(m - 1, u[0]), u])[:, None], n, m)[:, 0]
    first, last, peak_v = standing_maxima(v)
    median_interval, regular = typical_interval(times)
    profile = FrameProfile(
        median_interval=median_interval, regular=regular, worst=worst, worst_zz=worst_zz, mean=mean,
        variance=variance, count=float(rows), scored_rows=rows, peak_first=first, peak_last=last, peak_v=peak_v,
    )  # fmt: skip
    return profile, u[len(u) - (m - 1) :]


_PEAKS = ("peak_first", "peak_last", "peak_v")


def pack_frame_profiles(profiles: Mapping[str, FrameProfile]) -> dict[str, NDArray[Any]]:
    """Profiles by camera id as arrays, for an npz without pickled objects."""
    arrays: dict[str, NDArray[Any]] = {"camera_id": np.array(list(profiles), dtype=str)}
    for field in fields(FrameProfile):
        column = [getattr(profile, field.name) for profile in profiles.values()]
        ragged = field.name in _PEAKS and column
        arrays[field.name] = np.concatenate(column) if ragged else np.array(column)
    arrays["peak_count"] = np.array([len(profile.peak_v) for profile in profiles.values()], dtype=np.int64)
    return arrays


def unpack_frame_profiles(arrays: Mapping[str, NDArray[Any]]) -> dict[str, FrameProfile]:
    """Read what `pack_frame_profiles` made. Raises KeyError or ValueError if it is something else."""
    profiles = {}
    ends = np.cumsum(arrays["peak_count"], dtype=np.int64)
    for i, camera_id in enumerate(arrays["camera_id"].tolist()):
        part = slice(int(ends[i] - arrays["peak_count"][i]), int(ends[i]))
        row: dict[str, Any] = {
            field.name: arrays[field.name][part if field.name in _PEAKS else i] for field in fields(FrameProfile)
        }
        for name, kind in (
            ("median_interval", int), ("regular", bool), ("worst_zz", float), ("count", float), ("scored_rows", int),
        ):  # fmt: skip
            row[name] = kind(row[name])
        profiles[camera_id] = FrameProfile(**row)
    return profiles
