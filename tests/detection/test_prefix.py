"""What of a prefix a sensor is calibrated on."""

from __future__ import annotations

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.prefix import NotYetError, Prefix, examine
from detector.detection.profile import build_profile, scale_of
from tests.plant import SECOND, START, reconstructor

RNG = np.random.default_rng(16)
LIFE = RNG.normal(50, 1, 1000)
EVERY_200TH = np.arange(1000) % 200 == 7


def prefix(values: F64, least: int = 150) -> Prefix:
    return examine(np.arange(len(values)) * SECOND, np.reshape(values, (len(values), -1)), least=least)


@pytest.mark.parametrize(
    "values",
    [
        LIFE,
        RNG.laplace(0, 1, 1000),
        np.cumsum(LIFE - 50),
        RNG.integers(0, 3, 1000).astype(float),
        np.where(RNG.random(1000) < 0.01, 1.0, 0.0),
        np.where(np.arange(1000) // 150 % 2, LIFE, 0.0),
        np.where(np.arange(1000) // 150 % 2, 1500.0, 0.0),
        np.where(np.arange(1000) // 100 % 3 > 0, RNG.normal(0, 0.1, 1000), 5000.0),
        np.linspace(0, 1e6, 1000),
        np.full(1000, 7.0),
    ],
    ids=["normal", "laplace", "walk", "integers", "flag", "on-off", "two-states", "saturated", "ramp", "constant"],
)
def test_ordinary_prefixes_are_taken_as_they_are(values: F64) -> None:
    found = prefix(values)
    assert len(found.values) == 1000
    assert not found.wild.any()
    assert np.isnan(found.sentinels).all()


@pytest.mark.parametrize("sentinel", [-9999.0, 2147483647.0, -3.4e38, 0.0])
def test_a_value_that_stands_for_none_is_known(sentinel: float) -> None:
    found = prefix(np.where(EVERY_200TH, sentinel, LIFE))
    assert found.sentinels[0, 0] == sentinel
    assert len(found.values) == 995
    assert not found.wild.any()


def test_many_of_them_among_the_rest_are_known_and_two_kinds_of_them() -> None:
    values = np.where(np.arange(1000) % 10 == 3, -9999.0, LIFE)
    values[::50] = 2147483647.0
    found = prefix(values)
    assert sorted(found.sentinels[0, :2]) == [-9999.0, 2147483647.0]
    assert len(found.values) == 880


def test_a_legitimate_value_of_one_channel_is_a_sentinel_of_another() -> None:
    found = prefix(np.stack([np.where(EVERY_200TH, -9999.0, LIFE), np.linspace(-9999.0, -9000.0, 1000)], axis=1))
    assert found.sentinels[0, 0] == -9999.0
    assert np.isnan(found.sentinels[1]).all()


def test_what_came_once_is_wild_also_beside_a_constant() -> None:
    for values in (LIFE.copy(), np.full(1000, 50.0)):
        values[500], values[800] = -9999.0, 2147483647.0
        found = prefix(values)
        assert np.flatnonzero(found.wild).tolist() == [500, 800]
        center, scale = scale_of(values[:, None], "standard")
        assert abs(center[0] - 50) < 0.2
        assert scale[0] < 1.2


def test_wild_rows_that_leave_few_windows_are_a_habit() -> None:
    values = LIFE.copy()
    values[::60] += RNG.uniform(100, 200, len(values[::60]))
    assert not prefix(values).wild.any()


@pytest.mark.parametrize(
    ("values", "begin"),
    [
        (np.r_[np.zeros(400), LIFE[:600]], 400),
        (np.r_[LIFE[:300], np.zeros(400), LIFE[:300]], 700),
        (np.r_[LIFE[:700] - 500, LIFE[:300]], 700),
        (np.r_[np.zeros(10), LIFE[:990]], 10),
    ],
    ids=["zeros-life", "life-zeros-life", "two-levels", "ten-zeros"],
)
def test_of_two_regimes_the_later_counts_once_it_is_long_enough(values: F64, begin: int) -> None:
    found = prefix(values)
    assert found.values[0, 0] == values[begin]
    assert len(found.values) == 1000 - begin
    with pytest.raises(NotYetError) as raised:
        prefix(values, least=1000)
    assert raised.value.rows == begin


def test_a_profile_does_not_learn_from_wild_rows() -> None:
    """As little as a few rows that are not there."""
    wild = LIFE.copy()
    wild[300], wild[700] = 9999.0, 9999.5
    profiles = [
        build_profile(START + np.arange(1000) * SECOND, values[:, None], reconstructor())[0] for values in (LIFE, wild)
    ]
    for name in ("center", "scale", "worst", "mean"):
        clean, spoilt = (getattr(one, name) for one in profiles)
        np.testing.assert_allclose(spoilt, clean, rtol=0.3)
    assert profiles[1].scored_rows == 1000 - 99 - 1 - 100 - 100


@pytest.mark.parametrize("unit", [1e-200, 1e-12, 1e-9, 1.0, 1e12])
@pytest.mark.parametrize("scaler", ["standard", "minmax", "symmetric"])
def test_what_is_flat_is_relative_to_the_values(unit: float, scaler: str) -> None:
    center, scale = scale_of((LIFE[:, None] - 49) * unit, scaler)
    expected = scale_of(LIFE[:, None] - 49, scaler)
    np.testing.assert_allclose([center / unit, scale / unit], expected, rtol=1e-9)
    _, flat = scale_of(np.full((1000, 1), 3 * unit), scaler)
    np.testing.assert_allclose(flat, [3e-3 * unit])


def test_what_is_rounded_off_is_no_move() -> None:
    values = np.where(np.arange(1000) % 2, 0.1 + 0.2, 0.3)
    np.testing.assert_allclose(scale_of(values[:, None], "standard")[1], [3e-4])
    assert scale_of(np.zeros((9, 1)), "standard")[1].tolist() == [1e-3]
