"""Profiles: what a prefix says about a sensor, checked against a plain computation, and kept on disk."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from detector.arrays import F32, F64
from detector.detection.profile import (
    MIN_ROWS,
    Calibration,
    Profile,
    build_frame_profile,
    build_profile,
    peaks_of_suffix,
    scale_of,
    typical_interval,
)
from detector.detection.signals import NEWEST_FIRST, WINDOW
from detector.detection.threshold import first_reservoir
from detector.models.bundle.profiles import load_profiles, pack_profiles, save_profiles, unpack_profiles
from tests import plant
from tests.plant import SECOND, START

TIMES = START + np.arange(5000) * SECOND


def healthy(rows: int, channels: int = 1, seed: int = 3) -> F64:
    return plant.healthy(np.random.default_rng(seed), rows, channels)


def same(one: Profile, other: Profile) -> bool:
    """Equal to the bit."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Profile)]
    return all(
        a.tobytes() == b.tobytes() and a.dtype == b.dtype if isinstance(a, np.ndarray) else a == b for a, b in pairs
    )


def plain_signals(profile: Profile, values: F64, stride: int = 1) -> F64:
    """The signals of each scored row of the prefix, one row at a time."""
    channels = values.shape[1]
    reconstruct = plant.reconstructor(channels)
    z = (values - profile.center) / profile.scale
    prediction: list[float] = []
    level = (z[0] ** 2).tolist()
    held = math.nan
    rows = []
    for row in range(len(z)):
        level = [old + 2 / 41 * (float(new) ** 2 - old) for old, new in zip(level, z[row], strict=True)]
        if row < WINDOW - 1:
            continue
        window = z[row - WINDOW + 1 : row + 1]
        errors = [
            float(window[-1, c] - (window[:-1, c] * profile.ridge[c]).sum() - profile.bias[c]) ** 2
            for c in range(channels)
        ]
        prediction = [old + 2 / 51 * (new - old) for old, new in zip(prediction or errors, errors, strict=True)]
        if (row - WINDOW + 1) % stride == 0:
            error = (window - reconstruct(window.astype(np.float32)[None])[0]) ** 2
            held = float((error.mean(axis=1) * NEWEST_FIRST).sum())
        rows.append([*prediction, held, *level])
    return np.array(rows[1:])


def plain_views(profile: Profile, values: F64, signals: F64) -> F64:
    """Prediction and place of the same rows, from the signals of the channels."""
    channels = values.shape[1]
    z = ((values - profile.center) / profile.scale)[WINDOW - 1 :]
    components = profile.components.astype(float)
    distance = ((z - (z @ components.T) @ components) ** 2).mean(axis=1)
    relation = [distance[0]]
    for one in distance[1:].tolist():
        relation.append(relation[-1] + 2 / 51 * (one - relation[-1]))
    everything = np.column_stack([signals, relation[1:]])
    shares = everything / (everything.mean(axis=0) + 1e-6)
    place = (shares[:, channels] + shares[:, channels + 1 : -1].mean(axis=1) + shares[:, -1]) / 3
    return np.stack([shares[:, :channels].mean(axis=1), place], axis=1)


@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (1, 3), (2, 1)])
def test_a_profile_is_what_the_prefix_says(channels: int, stride: int) -> None:
    values = healthy(400, channels)
    profile, carry = build_profile(TIMES[:400], values, plant.reconstructor(channels), stride=stride)
    of_channels = signals = plain_signals(profile, values, stride)
    if channels > 1:
        signals = plain_views(profile, values, of_channels)
    assert profile.scored_rows == profile.count == len(signals) == 300
    np.testing.assert_allclose(profile.worst, signals.max(axis=0) + 1e-6, rtol=1e-5)
    np.testing.assert_allclose(profile.mean, signals.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(profile.variance, signals.var(axis=0), rtol=1e-4)
    zz = (signals - profile.mean) / (np.sqrt(profile.variance) + 1e-6)
    assert profile.worst_zz == pytest.approx(max(1.0, float(zz.max())), rel=1e-4)
    np.testing.assert_allclose(carry.prediction, of_channels[-1, :channels], rtol=1e-5)
    np.testing.assert_allclose(carry.level, of_channels[-1, channels + 1 :], rtol=1e-5)
    assert carry.held_error == pytest.approx(of_channels[-1, channels], rel=1e-5)
    assert carry.completions == 301


@pytest.mark.parametrize("open_after", [(10, 10), (3, 5), (1, 1)])
def test_peaks_of_any_suffix_are_those_found_row_by_row(open_after: tuple[int, int]) -> None:
    n, m = open_after
    values = healthy(2500)
    values[900:905] += 3
    profile, carry = build_profile(TIMES[:2500], values, plant.reconstructor(), open_after=open_after)
    signals = plain_signals(profile, values)
    zz = ((signals - profile.mean) / (np.sqrt(profile.variance) + 1e-6)).max(axis=1)
    u = np.minimum((signals / profile.worst).max(axis=1), np.maximum(zz / profile.worst_zz, 0)).tolist()
    assert u[-99:] == pytest.approx(carry.recent_u.tolist(), rel=1e-4)
    assert profile.open_after == open_after
    recent = [u[0]] * (m - 1) + u
    v = [max(math.log(max(sorted(recent[i : i + m])[m - n], 1e-9)), -2.5) for i in range(len(u))]
    for rows in (1, 2, 99, 100, 101, 102, 777, 1500, 2399, 2400):
        assert peaks_of_suffix(profile, rows) == pytest.approx(peaks_by_hand(v[-rows:]), abs=1e-3)


def peaks_by_hand(v: list[float]) -> list[float]:
    peaks: list[float] = []
    pending, age = -math.inf, 0
    for one in v:
        pending, age = (one, 0) if one > pending else (pending, age + 1)
        if age == 100:
            peaks.append(pending)
            pending, age = -math.inf, 0
    return peaks if math.isinf(pending) else [*peaks, pending]


def test_a_plateau_counts_as_one_peak_a_hundred_rows() -> None:
    flat = np.full((700, 1), 3.0)
    profile, _ = build_profile(TIMES[:700], flat, lambda windows: windows)
    assert peaks_of_suffix(profile, 600) == [-2.5] * 6
    assert peaks_of_suffix(profile, 101) == [-2.5]
    assert peaks_of_suffix(profile, 102) == [-2.5, -2.5]


def test_a_short_prefix_makes_no_profile() -> None:
    with pytest.raises(ValueError, match="150 rows, these are 149"):
        build_profile(TIMES[: MIN_ROWS - 1], healthy(MIN_ROWS - 1), plant.reconstructor())
    build_profile(TIMES[:MIN_ROWS], healthy(MIN_ROWS), plant.reconstructor())


def test_equal_prefixes_make_equal_bits_whatever_their_layout() -> None:
    values = healthy(500, 2)
    one = plant.profile_of(values, plant.reconstructor(2))
    other = plant.profile_of(np.asfortranarray(values), plant.reconstructor(2))
    assert same(one, other)


def test_a_channel_is_judged_as_if_alone() -> None:
    values = healthy(500, 2)
    both = plant.profile_of(values, plant.reconstructor(2))
    for channel in range(2):
        alone = plant.profile_of(values[:, channel : channel + 1], plant.reconstructor())
        assert alone.ridge[0].tobytes() == both.ridge[channel].tobytes()
        assert (alone.center[0], alone.scale[0], alone.bias[0]) == (
            both.center[channel],
            both.scale[channel],
            both.bias[channel],
        )


def test_the_stride_thins_the_autoencoder() -> None:
    seen = []

    def reconstruct(windows: F32) -> F32:
        seen.append(len(windows))
        return windows

    for stride in (1, 3, 7):
        build_profile(TIMES[:450], healthy(450), reconstruct, stride=stride)
    assert seen == [351, 117, 51]


@pytest.mark.parametrize(
    ("scaler", "center", "scale"),
    [
        ("standard", [0.0, 7.0, 101_325.0], [1.0, 0.007, 101.325]),
        ("minmax", [-1.0, 7.0, 101_325.0], [2.0, 0.007, 101.325]),
        ("symmetric", [0.0, 7.0, 101_325.0], [1.0, 0.007, 101.325]),
    ],
)
def test_scales(scaler: str, center: list[float], scale: list[float]) -> None:
    values = np.array([[1.0, 7.0, 101_325.0], [-1.0, 7.0, 101_325.0]])
    found = scale_of(values, scaler)
    np.testing.assert_allclose(found[0], center)
    np.testing.assert_allclose(found[1], scale)


@pytest.mark.parametrize("scaler", ["standard", "minmax", "symmetric"])
@pytest.mark.parametrize("value", [123_456_789.1, -1e9 / 3, 1e16 / 3, 1e150])
def test_a_constant_channel_has_a_thousandth_of_its_magnitude_as_its_unit(value: float, scaler: str) -> None:
    """However large it is: the mean of this many equal values differs from them in its last digits."""
    _, scale = scale_of(np.full((1000, 1), value), scaler)
    assert scale == pytest.approx([abs(value) / 1000])


def test_an_unknown_scaler_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scaler 'robust'"):
        scale_of(healthy(10), "robust")


def test_the_median_interval_is_usable_if_nearly_all_intervals_keep_to_it() -> None:
    steps = np.full(200, 10)
    assert typical_interval(np.cumsum(steps)) == (10, True)
    steps[:19] = 40
    assert typical_interval(np.cumsum(steps)) == (10, True)
    steps[:22] = 40
    assert typical_interval(np.cumsum(steps)) == (10, False)
    steps[:22] = 12
    assert typical_interval(np.cumsum(steps)) == (10, True)
    assert typical_interval(np.zeros(200, dtype=np.int64)) == (0, False)


def test_a_constant_sensor_gets_a_profile_of_finite_numbers() -> None:
    profile, carry = build_profile(TIMES[:300], np.zeros((300, 1)), plant.reconstructor())
    limits = ("sentinels", "still_limit", "drift_worst", "noise_hush", "contexts", "zone")
    numbers = [getattr(profile, field.name) for field in fields(Profile) if field.name not in limits]
    assert all(np.isfinite(number).all() for number in numbers)
    assert (profile.worst > 0).all()
    assert np.isfinite(carry.recent_u).all()
    assert np.isinf([profile.still_limit, profile.drift_worst, profile.noise_hush]).all()


def test_where_the_prefix_has_few_scores_the_first_stands_for_the_missing() -> None:
    _, carry = build_profile(TIMES[:150], healthy(150), plant.reconstructor(), open_after=(60, 100))
    assert carry.recent_u.shape == (99,)
    assert len(set(carry.recent_u[:50].tolist())) == 1
    assert len(set(carry.recent_u[49:].tolist())) > 40


def test_profiles_on_disk_are_the_same_bits(tmp_path: Path) -> None:
    profiles = {
        "pump-1": plant.profile_of(healthy(300, 2), plant.reconstructor(2)),
        "Pumpe ü/2": plant.profile_of(healthy(900, 2, seed=5), plant.reconstructor(2), jitter=0.9),
        "x" * 256: plant.profile_of(np.ones((150, 2)), plant.reconstructor(2)),
    }
    save_profiles(tmp_path / "profiles.npz", profiles)
    loaded = load_profiles(tmp_path / "profiles.npz")
    assert list(loaded) == list(profiles)
    for name, profile in profiles.items():
        assert same(loaded[name], profile)
        assert [type(getattr(loaded[name], field.name)) for field in fields(Profile)] == [
            type(getattr(profile, field.name)) for field in fields(Profile)
        ]


def test_a_file_of_profiles_has_the_arrays_that_bundles_have(tmp_path: Path) -> None:
    save_profiles(tmp_path / "profiles.npz", {"a": plant.profile_of(healthy(300), plant.reconstructor())})
    with np.load(tmp_path / "profiles.npz") as archive:
        assert archive.files == [
            "sensor_id", "center", "scale", "ridge", "bias", "median_interval", "regular", "worst", "worst_zz",
            "worst_zz_of_others", "mean", "variance", "count", "scored_rows", "peak_first", "peak_last", "peak_v",
            "open_after", "still_limit", "resolution", "drift_worst", "drift_worst_zz", "drift_mean", "drift_variance",
            "noise_usual", "noise_hush", "peak_count",
        ]  # fmt: skip
    assert list(pack_profiles(Calibration, {"c": camera_profile(200)})) == [
        "camera_id", "median_interval", "regular", "worst", "worst_zz", "mean", "variance", "count", "scored_rows",
        "peak_first", "peak_last", "peak_v", "peak_count",
    ]  # fmt: skip


def test_something_else_on_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profiles.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError):  # noqa: PT011
        load_profiles(path)
    np.savez(path, sensor_id=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_profiles(path)
    with pytest.raises(OSError, match="No such file"):
        load_profiles(tmp_path / "absent.npz")


# -- cameras ---------------------------------------------------------------------------------------------------------


def signal_of(n: int, seed: int = 0) -> F64:
    return np.random.default_rng(seed).gamma(4.0, size=n)


def camera_profile(n: int, seed: int = 0) -> Calibration:
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


def test_a_short_prefix_makes_no_profile_of_a_camera() -> None:
    with pytest.raises(ValueError, match="at least 150 frames, these are 149"):
        camera_profile(149)


@pytest.mark.parametrize("cameras", [[], ["a"], ["a", "Tor 3", "ü"]])
def test_what_is_packed_comes_back(cameras: list[str]) -> None:
    profiles = {camera: camera_profile(200 + 50 * i, seed=i) for i, camera in enumerate(cameras)}
    back = unpack_profiles(Calibration, pack_profiles(Calibration, profiles))
    assert list(back) == cameras
    for camera in cameras:
        for field in fields(Calibration):
            made, read = getattr(profiles[camera], field.name), getattr(back[camera], field.name)
            assert np.array_equal(made, read)
            assert type(made) is type(read)
