"""Simulated cameras: the same for a seed, healthy at first, and with faults where the labels say."""

from __future__ import annotations

import numpy as np
import pytest

from detector.simulation.cameras import CAMERA_FAULTS, INTERVAL, frame_lines, simulate_cameras

END = 1_772_323_200 * 10**9


def test_equal_arguments_give_equal_frames() -> None:
    one, two, other = (simulate_cameras(cameras=2, frames=300, end=END, seed=seed) for seed in (1, 1, 2))
    assert list(frame_lines(one)) == list(frame_lines(two)) != list(frame_lines(other))


def test_times_are_regular_and_end_with_the_plant() -> None:
    for camera in simulate_cameras(cameras=3, frames=50, end=END, seed=0):
        assert set(np.diff(camera.times).tolist()) == {INTERVAL}
        assert END - INTERVAL < camera.times[-1] < END


def test_faults_come_after_the_healthy_part_and_can_be_seen() -> None:
    cameras = simulate_cameras(cameras=3, frames=2500, end=END, seed=0)
    kinds = set()
    for camera in cameras:
        middle = np.mean([camera.picture(i) for i in range(60)], axis=0)
        usual = max(np.abs(camera.picture(i) - middle).mean() for i in range(60, 120))
        assert camera.labels
        for label, (kind, start, stop) in zip(camera.labels, camera.faults, strict=True):
            assert (label.kind, label.start, label.end) == (kind, camera.times[start], camera.times[stop - 1])
            assert start >= camera.healthy_frames
            kinds.add(kind)
            assert np.abs(camera.picture(start) - middle).mean() > usual
    assert kinds == set(CAMERA_FAULTS)


def test_few_frames_or_no_wish_for_faults_have_none() -> None:
    assert simulate_cameras(cameras=1, frames=300, end=END, seed=0)[0].labels == ()
    assert simulate_cameras(cameras=1, frames=2000, end=END, seed=0, faults=False)[0].labels == ()


@pytest.mark.parametrize(("cameras", "frames"), [(-1, 10), (1, 0), (1001, 1000)])
def test_what_cannot_be_simulated_is_refused(cameras: int, frames: int) -> None:
    with pytest.raises(ValueError, match="frames"):
        simulate_cameras(cameras=cameras, frames=frames, end=END, seed=0)
