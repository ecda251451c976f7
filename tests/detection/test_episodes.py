"""Episodes: when they open, stay open and close, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detector.detection.columns import NEVER
from detector.detection.episodes import end_from_outside, judge_row
from detector.detection.kernel.cells import CLOSED, OPENED
from detector.detection.sensor import Sensor, store
from detector.detection.threshold import NO_BUDGET, begin, first_reservoir
from tests.sensors import cells_for, sensor_of

QUIET, LOUD = -1.0, 1.0


def fresh(*, budget: float = NO_BUDGET, close_after: int = 3, **cells: Any) -> Sensor:
    """A sensor that has just begun; without a budget its episodes open at v = 0."""
    sensor = sensor_of(close_after=close_after, **(first_reservoir([0.2, 0.1], 2000, budget) | cells))
    begin(sensor)
    return sensor


def run(sensor: Sensor, series: list[float], *, first: int = 0, inside: bool = False) -> list[tuple[int, int]]:
    """Judge a series of v, whose row t is at time 10 t; what happened at which row."""
    judged = [judge_row(sensor, v, 10 * row, inside)[0] for row, v in enumerate(series, start=first)]
    return [(row, what) for row, what in enumerate(judged, start=first) if what]


def test_an_episode_opens_at_the_threshold_and_closes_after_enough_quiet_rows() -> None:
    sensor = fresh()
    assert sensor.ended == NEVER
    found = run(sensor, [QUIET, 0.0, 2.0, QUIET, QUIET, LOUD, QUIET, QUIET, QUIET, QUIET])
    assert found == [(1, OPENED), (8, CLOSED)]
    assert not sensor.open
    assert (sensor.ended, sensor.peak) == (50, 2.0)


def test_an_episode_over_two_calls_is_the_same() -> None:
    series = [QUIET, LOUD, 3.0, LOUD, QUIET, QUIET, LOUD, QUIET, QUIET, QUIET, LOUD, QUIET]
    whole = run(fresh(), series)
    assert [what for _, what in whole] == [OPENED, CLOSED, OPENED]
    for cut in range(1, len(series)):
        sensor = fresh()
        parts = run(sensor, series[:cut])
        begin(sensor)
        assert parts + run(sensor, series[cut:], first=cut) == whole


def test_a_threshold_above_one_still_closes_below_one() -> None:
    sensor = fresh(budget=1000.0, credit=-2.0)
    assert run(sensor, [5.0, 0.1, 0.1, 0.1, 0.1, -0.1, -0.1, -0.1]) == [(0, OPENED), (7, CLOSED)]
    assert sensor.close_level == 0.0


def test_a_threshold_below_one_closes_there() -> None:
    sensor = fresh(budget=1e4, credit=17.0, peaks=[-2.0, -2.0] + [-math.inf] * 6)
    assert run(sensor, [-0.5, -0.9, -0.9, -0.9, -0.9, -1.1, -1.1, -1.1]) == [(0, OPENED), (7, CLOSED)]
    assert -1 < sensor.close_level < -0.9


def test_closing_costs_credit_and_leaves_a_peak_opening_discards_what_was_pending() -> None:
    sensor = fresh(budget=1000.0)
    run(sensor, [0.15, 0.5, 0.5])
    assert sensor.pending == -math.inf
    assert sensor.peaks_seen == 2
    assert sensor.credit == pytest.approx(3 / 1000)
    run(sensor, [QUIET, QUIET, QUIET])
    assert sensor.peaks_seen == 3
    assert sensor.credit == pytest.approx(6 / 1000 - 1)


def test_an_episode_in_a_maintenance_window_is_muted_until_it_outlives_it() -> None:
    muted, outliving = fresh(budget=1000.0), fresh(budget=1000.0)
    for sensor in (muted, outliving):
        run(sensor, [9.0, 9.0], inside=True)
        assert sensor.muted
    run(muted, [QUIET] * 3)
    run(outliving, [9.0, QUIET, QUIET, QUIET])
    assert not muted.open
    assert not outliving.open
    assert muted.credit > 0 > outliving.credit
    kept_aside = [sum(peak > -math.inf for peak in sensor.unlearnt) for sensor in (muted, outliving)]
    assert kept_aside == [0, 1]


def test_an_episode_ended_from_outside_costs_like_any_other() -> None:
    sensors = [fresh(budget=1000.0) for _ in range(3)]
    for sensor, series in zip(sensors, ([LOUD, 4.0], [LOUD, 2.0], [QUIET, QUIET]), strict=True):
        run(sensor, series)
    cells = cells_for(3)
    store(sensors, cells)
    closings = end_from_outside(cells, hold=False)
    assert [(one.at, one.ended, one.peak) for one in closings] == [(0, 10, 4.0), (1, 10, 2.0)]
    assert cells["open"].tolist() == [False, False, False]
    assert (cells["credit"] < 0).tolist() == [True, True, False]
    assert not cells["hold"].any()


def test_on_hold_nothing_opens_before_a_quiet_row() -> None:
    sensor = fresh()
    run(sensor, [LOUD])
    cells = cells_for(1)
    store([sensor], cells)
    end_from_outside(cells, hold=True)
    assert np.array_equal(cells["hold"], [True])
    sensor.open, sensor.hold = False, True
    assert run(sensor, [LOUD] * 5) == []
    assert sensor.hold
    assert sensor.pending == -math.inf
    assert run(sensor, [LOUD, QUIET, LOUD]) == [(2, OPENED)]
    assert not sensor.hold
