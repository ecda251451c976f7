"""What the channels of a machine say together: by hand, row by row and at once, with channels that are missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.peaks import usual_worst
from detector.detection.profile import build_profile
from detector.detection.sensor import Sensor
from detector.detection.signals import PREDICTION_RATE, TINY
from detector.detection.views import (
    COMPONENTS,
    components_of,
    relation_error,
    relation_errors,
    share,
    together,
    typical_of,
    views,
    views_of,
)
from tests import plant
from tests.sensors import sensor_of

SECOND = 10**9
LOADED = np.array([0.6, 0.8, 0.0])
"""Two channels follow one load, the third is for itself."""


def rows_of(count: int, seed: int = 0) -> F64:
    """(count, 3) standardised."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (count, 1)) * LOADED + rng.normal(0, 0.1, (count, 3))
    return np.ascontiguousarray(values)


def machine(**cells: Any) -> Sensor:
    components = np.zeros((COMPONENTS, 3))
    components[0] = LOADED
    known: dict[str, Any] = {
        "typical": np.ones(8),
        "components": components,
        "mean": 1.0,
        "worst": 2.0,
        "scale": 1.0,
        "center": 0.0,
    }
    return sensor_of(3, **(known | cells))


def test_channels_are_judged_together_where_a_profile_says_what_is_usual_for_them() -> None:
    assert together(machine())
    assert not together(machine(typical=math.nan))
    assert not together(sensor_of(1))


def test_components_explain_half_of_the_variance_and_leave_something() -> None:
    found = components_of(rows_of(500).T)
    assert np.abs(found[0]) == pytest.approx(LOADED, abs=0.01)
    assert not found[1:].any()
    every = np.linalg.eigh(np.eye(2))[1]
    assert np.count_nonzero(components_of(every * 3).any(axis=1)) == 1
    assert not components_of(np.zeros((3, 50))).any()
    many = components_of(np.random.default_rng(1).normal(size=(30, 400)))
    assert many.any(axis=1).all()


def test_relation_is_the_distance_from_what_the_components_make_of_a_row() -> None:
    s = machine()
    assert relation_error(s, [1.2, 1.6, 0.0]) == pytest.approx(0.0)
    assert relation_error(s, [0.8, -0.6, 0.0]) == pytest.approx(1 / 3)
    assert relation_error(s, [1.2, 1.6, 3.0]) == pytest.approx(9 / 3)


def test_a_missing_value_is_what_the_others_let_expect() -> None:
    s = machine()
    assert relation_error(s, [1.2, math.nan, 0.3]) == pytest.approx(0.09 / 2, rel=0.01)
    assert relation_error(s, [math.nan, 1.6, math.nan]) == pytest.approx(0.0, abs=1e-3)
    assert math.isnan(relation_error(s, [math.nan] * 3))


def test_relations_of_many_rows_have_the_bits_of_each() -> None:
    values = rows_of(60, seed=2)
    lacks = np.random.default_rng(3).random(values.shape) < 0.3
    s = machine(components=components_of(rows_of(500).T))
    at_once = relation_errors(values.T, np.array(s.components, dtype=np.float32), lacks.T)
    one_by_one = [
        relation_error(s, np.where(one, math.nan, row).tolist()) for row, one in zip(values, lacks, strict=True)
    ]
    assert at_once.tobytes() == np.array(one_by_one).tobytes()


def test_a_share_is_a_mean_over_channels_that_say_something() -> None:
    assert share([2.0, 6.0, 5.0], [1.0, 2.0, 0.0]) == pytest.approx(2.5)
    assert share([2.0, math.nan, 5.0], [1.0, 2.0, 0.0]) == pytest.approx(2.0)
    assert math.isnan(share([math.nan, 5.0], [1.0, 0.0]))


def test_views_of_a_row_are_averages_in_units_of_the_usual() -> None:
    s = machine(typical=[1.0, 2.0, 4.0, 0.5, 1.0, 1.0, 3.0, 0.1], relation=0.2)
    signals = [1.0, 4.0, 12.0, 1.5, 2.0, 3.0, 6.0]
    found = views_of(s, signals, [1.2, 1.6, 0.0])
    relation = 0.2 * (1 - PREDICTION_RATE)
    assert s.relation == pytest.approx([relation])
    assert found == pytest.approx([2.0, (3.0 + (2 + 3 + 2) / 3 + relation / 0.1) / 3])
    mute = machine(typical=[1.0, 2.0, 4.0, math.inf, 1.0, 1.0, 3.0, 0.1], relation=0.2)
    assert views_of(mute, signals, [1.2, 1.6, 0.0])[1] == pytest.approx((1.0 + 7 / 3 + relation / 0.1) / 3)


def test_views_of_many_rows_are_those_of_each() -> None:
    rng = np.random.default_rng(5)
    signals, typical = rng.random((7, 20)) + 0.1, (rng.random(8) + 0.5).astype(np.float32)
    signals[1, :5] = signals[5, 3:9] = math.nan
    relation = rng.random(20)
    found = views(signals, relation, typical)
    for row in range(20):
        prediction = [x / u for x, u in zip(signals[:3, row], typical[:3], strict=True) if x == x]
        level = [x / u for x, u in zip(signals[4:, row], typical[4:7], strict=True) if x == x]
        place = (signals[3, row] / typical[3] + np.mean(level) + relation[row] / typical[7]) / 3
        assert found[:, row] == pytest.approx([np.mean(prediction), place], rel=1e-6)


def test_a_channel_that_hardly_ever_moves_says_nothing_of_prediction_and_level() -> None:
    values = rows_of(1000)
    values[:, 2] = np.where(np.arange(1000) % 50 == 0, 1.0, 0.0)
    typical = typical_of(values, np.ones((7, 900)), np.full(900, 2.0))
    assert typical == pytest.approx([1, 1, 0, 1, 1, 1, 0, 2], rel=1e-5)


def test_one_high_peak_of_a_long_prefix_is_not_the_measure() -> None:
    quiet = np.abs(np.random.default_rng(0).normal(size=9000)) + 1
    quiet[4000:4010] = 80.0
    assert usual_worst(quiet[3000:6000]) == 80.0
    assert usual_worst(quiet) == 80.0 / 2
    quiet[[1000, 7000]] = 70.0, 60.0
    assert usual_worst(quiet[:7999]) == 70.0
    assert usual_worst(quiet) == 60.0
    holes = np.where(np.arange(9000) % 3 == 1, np.nan, quiet)
    assert 40.0 <= usual_worst(holes) <= 80.0
    assert math.isnan(usual_worst(holes * np.nan))


def test_a_profile_of_a_machine_has_two_signals_around_one() -> None:
    values = plant.healthy(np.random.default_rng(0), 900, 3)
    profile, carry = build_profile(np.arange(900) * SECOND, values, plant.reconstructor(3))
    assert profile.mean == pytest.approx([1.0, 1.0], rel=1e-3)
    assert (profile.worst > 1.0).all()
    assert profile.typical.shape == (8,)
    assert carry.relation.shape == (1,)
    assert profile.worst_zz_of_others == profile.worst_zz


def test_a_machine_that_stands_still_has_a_profile() -> None:
    profile, _ = build_profile(np.arange(300) * SECOND, np.full((300, 3), 7.0), plant.reconstructor(3))
    assert not profile.typical[[0, 1, 2, 4, 5, 6]].any()
    assert np.isfinite(profile.worst).all()
    assert not profile.components.any()


def test_what_a_row_lacks_is_found_where_channels_go_together_exactly() -> None:
    """Each step comes half as much nearer; what is usual for the relation is next to nothing there."""
    rows = np.random.default_rng(3).normal(size=(1, 50)).repeat(2, axis=0)
    components = np.zeros((COMPONENTS, 2), dtype=np.float32)
    components[0] = math.sqrt(0.5)
    lacks = np.zeros(rows.shape, dtype=bool)
    lacks[1, 10:] = True
    assert relation_errors(rows, components, lacks).max() < TINY
