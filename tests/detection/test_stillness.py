"""A value that sticks: which runs of equal values are plausible, what one that is longer is worth, and what is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.synthetic import KINDS, sensor
from detector.arrays import F64
from detector.config.load import MinDeviation
from detector.detection.stillness import MOST, limits_of, newest_run, still
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading
from tests.sensors import sensor_of

WARMUP = 1000


def limit_of(values: F64) -> float:
    limits, _ = limits_of(values[:, None], np.full((len(values), 1), True))
    return float(limits[0])


def noise(rows: int, seed: int = 0) -> F64:
    return np.random.default_rng(seed).normal(size=rows)


# -- what is plausible -----------------------------------------------------------------------------------------------


def test_a_sensor_that_never_repeats_a_value_may_do_so_for_a_few_rows() -> None:
    assert limit_of(noise(1000)) == 20
    assert limit_of(noise(1000).round(2)) == 20


def test_what_never_moves_cannot_stick() -> None:
    assert limit_of(np.full(1000, 7.0)) == math.inf


def test_a_switch_may_stay_for_longer_than_it_ever_did_and_the_more_so_the_fewer_times_it_was_seen() -> None:
    often = limit_of(np.tile(np.repeat([0.0, 1.0], 50), 20))
    seldom = limit_of(np.tile(np.repeat([0.0, 1.0], 50), 3))
    assert 100 < often < seldom < 1000


def test_values_that_stand_for_missing_ones_are_no_run() -> None:
    values, there = noise(1000)[:, None], np.full((1000, 1), True)
    values[300:700], there[301:700] = values[300], False
    assert limits_of(values, there)[0] == [20.0]
    assert limits_of(values, np.full((1000, 1), True))[0] > 1000


def test_what_is_equal_follows_from_the_steps_of_the_data() -> None:
    there = np.full((1000, 1), True)
    assert limits_of(noise(1000).round(1)[:, None], there)[1] == pytest.approx([0.05])
    jittered = noise(1000).round(1) + 1e-12 * noise(1000, 1)
    assert limits_of(jittered[:, None], there)[1] == pytest.approx([0.05], rel=1e-6)
    assert 0 < limits_of(101_325 + noise(1000)[:, None], there)[1] < 1e-3


@pytest.mark.parametrize("form", ["rounded", "coarse", "boolean", "rare", "counter", "as it is"])
def test_healthy_sensors_of_all_kinds_stay_below_the_budget(form: str) -> None:
    """13 kinds, 20 000 rows each after 1 000 to learn from: at 1 in 10 000 two alarms a sensor are asked for."""
    alarms = 0
    for kind in KINDS:
        values = sensor(kind, 0, 21_000, seed=5)
        mean, unit = values[:WARMUP].mean(), values[:WARMUP].std()
        match form:
            case "rounded":
                values = np.round(values / unit * 2)
            case "coarse":
                values = np.round(values / unit / 2)
            case "boolean":
                values = (values > mean).astype(float)
            case "rare":
                values = (values > mean + 1.5 * unit).astype(float)
            case "counter":
                values = np.cumsum(values > mean)
        begins = np.flatnonzero(np.diff(values[WARMUP:])) + 1
        runs = np.diff(np.concatenate([[0], begins, [20_000]]))
        alarms += int((runs > limit_of(values[:WARMUP])).sum())
    assert alarms <= 13


# -- what a run is worth ---------------------------------------------------------------------------------------------


def test_a_run_is_worth_the_square_of_its_limits_from_one_on_and_never_more_than_the_most() -> None:
    one = sensor_of(still_limit=20.0)
    worth = [still(one, [3.5]) for _ in range(200)]
    assert worth[:19] == [0.0] * 19
    assert worth[19::10][:3] == [1.0, 2.25, 4.0]
    assert worth[-1] == MOST
    assert still(one, [3.6]) == 0.0


def test_a_value_that_creeps_is_not_equal_and_one_that_jitters_is() -> None:
    creeping, jittering = sensor_of(still_limit=20.0, resolution=0.5), sensor_of(still_limit=20.0, resolution=0.5)
    assert max(still(creeping, [0.1 * row]) for row in range(100)) == 0.0
    assert max(still(jittering, [0.4 * (row % 2)]) for row in range(30)) > 1.0


def test_a_row_that_lacks_the_channel_neither_goes_on_with_a_run_nor_ends_it() -> None:
    one = sensor_of(2, still_limit=20.0)
    assert max(still(one, [1.0, float(row)]) for row in range(19)) == 0.0
    assert max(still(one, [math.nan, row + 0.5]) for row in range(50)) == 0.0
    assert still(one, [1.0, 0.0]) == 1.0


def test_state_of_before_has_no_limit() -> None:
    one = sensor_of()
    assert max(still(one, [1.0]) for _ in range(1000)) == 0.0


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_the_newest_run_is_that_of_the_rows(values: list[int]) -> None:
    rows = np.array(values, dtype=float)[:, None]
    since = len(values) - 1
    while since and values[since - 1] == values[-1]:
        since -= 1
    sticks = len(values) - since >= min(20, len(values))
    assert newest_run(rows, np.array([20.0]), np.array([0.0])) == (0, since, sticks)


# -- what is told ----------------------------------------------------------------------------------------------------


def played(values: F64, **config: Any) -> list[Alert]:
    """The alerts of one sensor, whose row r comes r seconds after the start; NaN: it does not come."""
    readings = [
        Reading("a", START + row * SECOND, (value,)) for row, value in enumerate(values.tolist()) if value == value
    ]
    settings = plant.readings_config(warmup=WARMUP, false_alarms=plant.per_readings(10_000), **config)
    records = plant.records_of([readings[i : i + 100] for i in range(0, len(readings), 100)])
    return [decode_alert(m.value) for m in plant.play(plant.pipeline_of(settings, plant.model_of()), records)]


def seconds(time: str) -> int:
    return (parse_time(time) - START) // SECOND


def stuck(values: F64, rows: int) -> F64:
    out = values.copy()
    out[1500 : 1500 + rows] = out[1500]
    return out


@pytest.mark.parametrize("decimals", [12, 1])
def test_a_value_that_sticks_inside_its_range_is_told_as_what_it_is(decimals: int) -> None:
    alerts = played(stuck(noise(2200).round(decimals), 200))
    opened = next(alert for alert in alerts if seconds(alert.detected_at) >= 1500)
    assert opened.what is not None
    assert opened.what.kind == "stuck"
    assert 1500 + 28 <= seconds(opened.detected_at) < 1500 + 60
    assert abs(seconds(opened.started_at) - 1500) <= 1
    closed = next(alert for alert in alerts if (alert.alert_id, alert.event) == (opened.alert_id, "closed"))
    assert closed.ended_at is not None
    assert abs(seconds(closed.ended_at) - 1699) <= 1
    assert closed.peak_score > opened.score


def test_rows_that_were_filled_in_are_none_that_stick() -> None:
    """Of 45 equal rows every third came: 15 are no run that is too long, and those between them were filled in."""
    values = noise(2400).round(1)
    values[:1500] = noise(1500)
    begin, rows = 1500, 15
    values[begin : begin + 3 * rows] = values[begin]
    values[[row for row in range(begin, begin + 3 * rows) if row % 3]] = np.nan
    assert [a for a in played(values, window={"max_fill": 5}) if a.what and a.what.kind == "stuck"] == []


def test_who_asks_for_deviations_is_not_told_of_a_value_that_has_none() -> None:
    values = stuck(noise(2200), 200)
    values[1500:1700] = 0.2
    assert [a for a in played(values) if seconds(a.detected_at) >= 1500]
    assert [a for a in played(values, min_deviation=MinDeviation(absolute=1.0)) if seconds(a.detected_at) >= 1500] == []
