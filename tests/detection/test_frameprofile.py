"""A camera's profile: the steps of `detector.detection.profile` with one signal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.frameprofile import (
    FrameProfile,
    build_frame_profile,
    pack_frame_profiles,
    unpack_frame_profiles,
)
from detector.detection.profile import peaks_of_suffix
from detector.detection.threshold import first_reservoir

SECOND = 10**9


def signal_of(n: int, seed: int = 0) -> F64:
    return np.random.default_rng(seed).gamma(4.0, size=n)


def profile_of(n: int, seed: int = 0) -> FrameProfile:
    return build_frame_profile(np.arange(n) * SECOND, signal_of(n, seed))[0]


def test_the_worst_frame_of_the_prefix_scores_one() -> None:
    signal = signal_of(400)
    profile, recent = build_frame_profile(np.arange(400) * SECOND, signal, open_after=(3, 5))
    assert profile.worst == pytest.approx([signal.max()])
    assert profile.mean == pytest.approx([signal.mean()])
    assert profile.variance == pytest.approx([signal.var()])
    assert (profile.count, profile.scored_rows) == (400.0, 400)
    assert (profile.median_interval, profile.regular) == (SECOND, True)
    zz = (signal - signal.mean()) / signal.std()
    assert profile.worst_zz == pytest.approx(zz.max(), rel=1e-4)
    u = np.minimum(signal / signal.max(), np.maximum(zz / zz.max(), 0))
    assert recent == pytest.approx(u[-4:], abs=1e-4)


def test_the_peaks_are_those_of_the_nth_largest_of_m() -> None:
    signal = signal_of(300)
    signal[150] = 100.0  # alone: two of the five scores around it are never as high
    lonely = build_frame_profile(np.arange(300) * SECOND, signal, open_after=(3, 5))[0]
    each = build_frame_profile(np.arange(300) * SECOND, signal, open_after=(1, 1))[0]
    assert max(peaks_of_suffix(lonely, 300)) < -1.0
    assert max(peaks_of_suffix(each, 300)) == pytest.approx(0.0, abs=1e-5)
    assert first_reservoir(peaks_of_suffix(each, 300), 300, 1000.0)["peaks_seen"] >= 2


def test_a_short_prefix_makes_no_profile() -> None:
    with pytest.raises(ValueError, match="at least 150 frames, these are 149"):
        profile_of(149)


@pytest.mark.parametrize("cameras", [[], ["a"], ["a", "Tor 3", "ü"]])
def test_what_is_packed_comes_back(cameras: list[str]) -> None:
    profiles = {camera: profile_of(200 + 50 * i, seed=i) for i, camera in enumerate(cameras)}
    back = unpack_frame_profiles(pack_frame_profiles(profiles))
    assert list(back) == cameras
    for camera in cameras:
        for field in dataclasses.fields(FrameProfile):
            made, read = getattr(profiles[camera], field.name), getattr(back[camera], field.name)
            assert np.array_equal(made, read)
            assert type(made) is type(read)
