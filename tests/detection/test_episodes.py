"""Episodes: when they open, stay open and close, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detector.detection.columns import NEVER
from detector.detection.episodes import Closing, Opening, end_from_outside, follow
from detector.detection.scorer import EPISODE, THRESHOLD
from detector.detection.table import SensorTable
from detector.detection.threshold import NO_BUDGET, Rows, first_reservoir

QUIET, LOUD = -1.0, 1.0


def rows_of(sensors: int = 1, *, budget: float = NO_BUDGET, **cells: Any) -> Rows:
    """Threshold and episode columns of sensors that have just begun; without a budget they open at v = 0."""
    table = SensorTable(1, 10)
    slots = np.array([table.add(f"s{i}") for i in range(sensors)])
    for slot in slots.tolist():
        table.set(slot, {"live": True} | first_reservoir([0.2, 0.1], 2000, budget) | cells)
    return table.take(slots, (*THRESHOLD, *EPISODE))


def run(rows: Rows, *series: list[float], close_after: int = 3, first: int = 0) -> list[Opening | Closing]:
    """Follow series of v, longest first; the row t is at time 10 t."""
    ticks = len(series[0])
    v = np.zeros((ticks, len(series)))
    for i, one in enumerate(series):
        v[: len(one), i] = one
    times = np.repeat(10 * np.arange(first, first + ticks)[:, None], len(series), axis=1)
    active = [sum(len(one) > tick for one in series) for tick in range(ticks)]
    return follow(rows, v, times, active, np.full(len(series), close_after))[0]


def test_an_episode_opens_at_the_threshold_and_closes_after_enough_quiet_rows() -> None:
    rows = rows_of()
    opening, closing = run(rows, [QUIET, 0.0, 2.0, QUIET, QUIET, LOUD, QUIET, QUIET, QUIET, QUIET])
    assert opening == Opening(at=0, tick=1, ln_threshold=0.0, ended=NEVER)
    assert closing == Closing(at=0, tick=8, ended=50, peak=2.0)
    assert not rows["open"][0]
    assert rows["ended"][0] == 50


def test_an_episode_over_two_calls_is_the_same() -> None:
    series = [QUIET, LOUD, 3.0, LOUD, QUIET, QUIET, LOUD, QUIET, QUIET, QUIET, LOUD, QUIET]
    whole = run(rows_of(), series)
    for cut in range(1, len(series)):
        rows = rows_of()
        parts = run(rows, series[:cut])
        later = run(rows, series[cut:], first=cut)
        assert [(one.tick, one.at) for one in parts] + [(one.tick + cut, one.at) for one in later] == [
            (one.tick, one.at) for one in whole
        ]
        assert [one.peak for one in (*parts, *later) if isinstance(one, Closing)] == [3.0]


def test_a_threshold_above_one_still_closes_below_one() -> None:
    rows = rows_of(budget=1000.0, credit=-2.0)
    opening, *closings = run(rows, [5.0, 0.1, 0.1, 0.1, 0.1, -0.1, -0.1, -0.1])
    assert isinstance(opening, Opening)
    assert opening.ln_threshold > 0.5
    assert [(one.tick, one.at) for one in closings] == [(7, 0)]


def test_a_threshold_below_one_closes_there() -> None:
    rows = rows_of(budget=1e4, credit=17.0, peaks=[-2.0, -2.0] + [-math.inf] * 6)
    opening, *closings = run(rows, [-0.5, -0.9, -0.9, -0.9, -0.9, -1.1, -1.1, -1.1])
    assert isinstance(opening, Opening)
    assert -1 < opening.ln_threshold < -0.9
    assert [one.tick for one in closings] == [7]


def test_closing_costs_credit_and_leaves_a_peak_opening_discards_what_was_pending() -> None:
    rows = rows_of(budget=1000.0)
    run(rows, [0.15, 9.0, 9.0])
    assert rows["pending"][0] == -math.inf
    assert rows["peaks_seen"][0] == 2
    assert rows["credit"][0] == pytest.approx(3 / 1000)
    run(rows, [QUIET, QUIET, QUIET])
    assert rows["peaks_seen"][0] == 3
    assert rows["credit"][0] == pytest.approx(6 / 1000 - 1)


def test_sensors_side_by_side_do_not_touch_one_another() -> None:
    rng = np.random.default_rng(0)
    series = [rng.normal(0, 1, length).tolist() for length in (60, 60, 41, 40, 7, 1)]
    together = rows_of(len(series))
    transitions = run(together, *series)
    assert len(transitions) > 6
    for at, one in enumerate(series):
        alone = rows_of()
        expected = [(t.tick, type(t)) for t in run(alone, one)]
        assert [(t.tick, type(t)) for t in transitions if t.at == at] == expected
        for name, column in alone.items():
            assert together[name][at : at + 1].tobytes() == column.tobytes(), name


def test_an_episode_ended_from_outside_costs_like_any_other() -> None:
    rows = rows_of(3, budget=1000.0)
    run(rows, [LOUD, 4.0], [LOUD, 2.0], [QUIET, QUIET])
    closings = end_from_outside(rows, hold=False)
    assert [(one.at, one.ended, one.peak) for one in closings] == [(0, 10, 4.0), (1, 10, 2.0)]
    assert rows["open"].tolist() == [False, False, False]
    assert (rows["credit"] < 0).tolist() == [True, True, False]
    again = run(rows, [6.0], [6.0], [QUIET], first=2)
    assert [(one.at, one.ended) for one in again] == [(0, 10), (1, 10)]


def test_on_hold_nothing_opens_before_a_quiet_row() -> None:
    rows = rows_of()
    run(rows, [LOUD])
    end_from_outside(rows, hold=True)
    assert run(rows, [LOUD] * 5) == []
    assert rows["hold"][0]
    assert rows["pending"][0] == -math.inf
    (opening,) = run(rows, [LOUD, QUIET, LOUD])
    assert opening.tick == 2
    assert not rows["hold"][0]
