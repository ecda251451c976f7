"""What makes a profile one that cannot be judged by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.detection.hours import Hours
from detector.detection.profile import Profile, build_profile
from detector.detection.usable import check_usable
from detector.models.bundle.profiles import load_profiles, save_profiles
from tests import plant
from tests.shifts import shifts


def profile(channels: int = 2) -> Profile:
    rng = np.random.default_rng(0)
    return plant.profile_of(plant.healthy(rng, 300, channels), plant.reconstructor(channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_built_of_readings_is_accepted(channels: int) -> None:
    check_usable({"a": profile(channels)}, channels)
    flat = plant.profile_of(np.full((150, channels), 7.0), plant.reconstructor(channels))
    check_usable({"a": flat, "b": profile(channels)}, channels)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"center": np.zeros(3)}, r"`center` has the shape \(3,\), not \(2,\)"),
        ({"ridge": np.zeros((2, 98))}, r"`ridge` has the shape \(2, 98\)"),
        ({"worst": np.ones((2, 1))}, r"`worst` has the shape \(2, 1\), not \(2,\)"),
        ({"bias": np.array([0.0, np.nan])}, "`bias` of a is beyond"),
        ({"scale": np.array([1.0, 0.0])}, "`scale` of a is beyond"),
        ({"worst": np.array([1, np.inf])}, "`worst` of a is beyond"),
        ({"typical": np.ones(5)}, r"`typical` has the shape \(5,\), not \(6,\)"),
        ({"components": np.full((4, 2), np.nan)}, "`components` of a is beyond"),
        ({"variance": -np.ones(2)}, "`variance` of a is beyond"),
        ({"worst_zz": 0.0}, "`worst_zz` of a is beyond"),
        ({"worst_zz_of_others": np.nan}, "`worst_zz_of_others` of a is beyond"),
        ({"count": -1.0}, "`count` of a is beyond"),
        ({"still_limit": np.array([20.0, np.nan])}, "`still_limit` of a is beyond"),
        ({"resolution": np.array([0.0, -1.0])}, "`resolution` of a is beyond"),
        ({"drift_worst": np.array([1.0, 0.0])}, "`drift_worst` of a is beyond"),
        ({"drift_variance": np.array([1.0, -1.0])}, "`drift_variance` of a is beyond"),
        ({"open_after": (10,)}, "`open_after` has the shape"),
        ({"scored_rows": 7}, "the peaks of a are not in order"),
        ({"peak_last": np.array([], int), "peak_first": np.array([], int), "peak_v": np.array([])}, "a has no peaks"),
        ({"peak_v": np.array([0.0])}, "a beginning, an end and a score each"),
    ],
)
def test_what_cannot_be_judged_by_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_usable({"a": dataclasses.replace(profile(), **changes)}, 2)


def by_hours() -> Profile:
    times, values = shifts(18)
    hours = Hours("Europe/Berlin")
    return build_profile(times, values[:, None], plant.reconstructor(), hours=(hours, "press"))[0]


def test_profiles_of_hours_are_stored_with_those_of_others(tmp_path: Path) -> None:
    one, other = by_hours(), profile(1)
    assert len(one.contexts) == 1
    save_profiles(tmp_path / "profiles.npz", {"fan": other, "press": one, "pump": other})
    found = load_profiles(tmp_path / "profiles.npz")
    check_usable(found, 1)
    assert [len(profile_.contexts) for profile_ in found.values()] == [0, 1, 0]
    assert found["press"].contexts.tobytes() == one.contexts.tobytes()
    assert found["press"].zone == "Europe/Berlin"
    save_profiles(tmp_path / "others.npz", {"fan": other})
    with np.load(tmp_path / "others.npz") as archive:
        assert not [name for name in archive.files if name.startswith("context")]


@pytest.mark.parametrize(
    ("name", "value"), [("channel", 1), ("channel", -1), ("half", 0.0), ("limit", np.nan), ("center", np.inf)]
)
def test_hours_that_cannot_be_judged_by_are_refused(name: str, value: float) -> None:
    one = by_hours()
    one.contexts[name] = value
    with pytest.raises(ValueError, match="the hours of press are beyond what can be computed with"):
        check_usable({"press": one}, 1)


def test_peaks_out_of_order_are_refused() -> None:
    good = profile()
    assert len(good.peak_v) > 1
    mixed = (
        dataclasses.replace(good, peak_last=good.peak_last[::-1]),
        dataclasses.replace(good, peak_first=good.peak_last + 1),
    )
    for profile_ in mixed:
        with pytest.raises(ValueError, match="the peaks of b are not in order"):
            check_usable({"a": good, "b": profile_, "c": good}, 2)
    with pytest.raises(ValueError, match="the peaks of b are not in order"):
        check_usable({"a": good, "b": dataclasses.replace(good, peak_v=good.peak_v * np.nan)}, 2)
