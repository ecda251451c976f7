"""The threshold: what moves it, what may not, and that it follows the plain description in every row."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.detection import threshold
from detector.detection.profile import peaks_of_suffix
from detector.detection.sensor import Sensor
from detector.detection.threshold import (
    NO_BUDGET,
    advance,
    begin,
    first_reservoir,
    forget_pending,
    nth_largest_log,
    quiet_row,
    smallest_of_recent,
    spend,
)  # fmt: skip
from tests import plant
from tests.reference_rules import Budget
from tests.sensors import sensor_of

PROFILE = plant.profile_of(plant.healthy(np.random.default_rng(1), 2500), plant.reconstructor())


def sensor(peaks: list[float], rows: int = 900, budget: float = 1000.0, **cells: Any) -> Sensor:
    one = sensor_of(**(first_reservoir(peaks, rows, budget) | cells))
    begin(one)
    return one


def next_row(one: Sensor) -> float:
    """The ln threshold of the sensor's next row."""
    advance(one)
    return threshold.threshold(one)


LIFTED = math.log(2)


def rows(one: Sensor, count: int) -> None:
    """So many rows of which nothing is a peak."""
    for _ in range(count):
        advance(one)


def kept_aside(one: Sensor) -> list[float]:
    """The peaks that are not learnt and may still be part of a habit."""
    pairs = zip(one.unlearnt, one.unlearnt_age, strict=True)
    return sorted(peak for peak, age in pairs if peak > -math.inf and age + one.unlearnt_rows <= one.horizon)


# -- n of m ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(10, 10), (3, 5), (1, 1), (1, 4), (2, 3)])
def test_v_is_the_log_of_the_nth_largest_of_the_last_m_scores(n: int, m: int) -> None:
    u = np.random.default_rng(m).lognormal(0, 2, (m - 1 + 50, 4))
    v = nth_largest_log(u, n, m)
    assert v.shape == (50, 4)
    for row in range(50):
        for column in range(4):
            nth = sorted(u[row : row + m, column], reverse=True)[n - 1]
            assert v[row, column] == max(np.log(nth), -2.5)


def test_v_of_no_score_at_all_is_the_floor() -> None:
    assert nth_largest_log(np.zeros((10, 1)), 10, 10).tolist() == [[-2.5]]


@pytest.mark.parametrize(("n", "m"), [(10, 10), (3, 5)])
def test_v_has_the_same_bits_alone_and_among_others(n: int, m: int) -> None:
    u = np.random.default_rng(0).lognormal(0, 2, (m - 1 + 33, 33))
    everything = nth_largest_log(u, n, m)
    for size in range(1, 34):
        assert nth_largest_log(np.ascontiguousarray(u[:, :size]), n, m).tobytes() == everything[:, :size].tobytes()
        assert nth_largest_log(u[: m - 1 + size], n, m).tobytes() == everything[:size].tobytes()


# -- the reservoir ---------------------------------------------------------------------------------------------------


def test_the_first_reservoir_keeps_the_eight_highest_peaks_raised() -> None:
    cells = first_reservoir([float(peak) for peak in range(12)], 400, 1000.0)
    assert cells["peaks"] == [11.25 - i for i in range(8)]
    assert (cells["peaks_kept"], cells["peaks_seen"]) == (8, 12)
    assert (cells["rows"], cells["horizon"]) == (400, 5000)


def test_few_peaks_leave_places_free() -> None:
    cells = first_reservoir([1.0], 50, 300.0)
    assert cells["peaks"] == [3.0] + [-math.inf] * 7
    assert (cells["peaks_kept"], cells["peaks_seen"]) == (1, 1)


def test_a_long_prefix_is_remembered_whole() -> None:
    assert first_reservoir([0.0], 9000, 300.0)["horizon"] == 9000


def test_higher_peaks_make_a_higher_threshold() -> None:
    assert next_row(sensor([1.0, 0.8], rows=2000)) > next_row(sensor([-1.0, -1.2], rows=2000))


def test_the_return_level_is_limited_while_a_sensor_is_young() -> None:
    assert next_row(sensor([5.0], rows=998, budget=1000.0)) == pytest.approx(math.log(3 * 1000 / 999))
    assert next_row(sensor([5.0], rows=999, budget=1000.0)) > 5
    assert next_row(sensor([9.0], rows=999, budget=1e5)) == pytest.approx(math.log(300))


def test_the_fewer_budgets_are_behind_it_the_fewer_episodes_a_return_level_allows() -> None:
    """m = 1, w = 15, s = 0.35: r = y + 5.25 ((B / (a N))^(1/15) - 1) with a from 1 + 2 sqrt(3 N / B) to 3."""
    for rows, aim in ((1_200, 1 + 2 * math.sqrt(0.36)), (300, 1 + 2 * math.sqrt(0.09)), (4_800, 3.0)):
        expected = -1 + 100 / (rows - 1) + 5.25 * ((1e4 / (aim * rows)) ** (1 / 15) - 1)
        assert next_row(sensor([-1.0], rows=rows - 1, budget=1e4)) == pytest.approx(max(expected, 0.0))


def test_without_a_budget_the_threshold_is_one_whatever_happens() -> None:
    one = sensor([5.0], budget=NO_BUDGET)
    for _ in range(3):
        assert next_row(one) == 0
        spend(one, 9.0)


def test_a_sensor_that_stays_quiet_sinks_below_one_but_not_below_its_return_level() -> None:
    quiet = partial(sensor, rows=50_000, budget=1e4, credit=17.0)
    assert next_row(quiet([-2.5])) == pytest.approx(-0.07 * (17.0001 - 3))
    assert next_row(quiet([-0.502])) == pytest.approx(-0.5, abs=1e-3)


def test_a_loose_budget_is_spent_sooner() -> None:
    loose, strict = (next_row(sensor([-2.5], rows=int(5 * budget), budget=budget, credit=4.0)) for budget in (1e3, 1e5))
    assert strict == pytest.approx(-0.07 * 1.0, abs=1e-4)
    assert loose == pytest.approx(-0.07 * 10**0.75 * (4.001 - 3 / 10**0.25))


def test_credit_rises_to_its_limit_and_falls_with_episodes_to_another() -> None:
    one = sensor([-2.5], rows=5000, budget=300.0)
    for _ in range(300):
        advance(one)
    assert one.credit == pytest.approx(1)
    one.credit = 100.0
    advance(one)
    assert one.credit == pytest.approx(3 + 1 / 0.07)
    for _ in range(30):
        spend(one, -2.5)
    assert one.credit == -4


def test_overspent_credit_lifts_the_threshold_by_at_most_a_factor_of_two() -> None:
    even, over, far_over = (next_row(sensor([0.0], rows=5000, credit=credit)) for credit in (0.0, -1.0, -4.0))
    assert over - even == pytest.approx(0.4 * (1 - 0.001))
    assert far_over - even == pytest.approx(math.log(2))


def test_a_peak_is_counted_once_a_hundred_rows_pass_with_nothing_higher() -> None:
    one = sensor([0.0], rows=2000)
    for row in range(110):
        advance(one)
        quiet_row(one, -0.5 if row in (3, 9) else -1.0)
        assert one.peaks_seen == (2 if row >= 103 else 1)
    assert one.peaks[:3] == [0.05, -0.5, -math.inf]
    assert one.pending == -1.0


def test_a_quiet_peak_enters_only_a_little_above_the_return_level() -> None:
    one = sensor([-2.0, -2.1, -2.2], rows=3000, credit=-4.0)
    limit = threshold.end_of_tail(one, 1.0)
    for v in [-0.1] + [-1.5] * 100:
        quiet_row(one, v)
    assert one.peaks[0] == limit < -0.1


@pytest.mark.parametrize("peak", [2.0, math.log(1e8)])
def test_an_episode_far_above_the_tail_teaches_nothing(peak: float) -> None:
    one, never = (sensor([-1.0, -1.1, -1.2], rows=3000) for _ in range(2))
    for _ in range(7):
        spend(one, peak)
    assert next_row(one) == pytest.approx(next_row(never) + LIFTED)
    assert one.peaks == never.peaks
    assert one.peaks_seen == never.peaks_seen


def test_an_episode_of_the_tail_is_learnt_as_it_is() -> None:
    one = sensor([-1.0, -1.1, -1.2], rows=3000)
    peak = threshold.end_of_tail(one, 1.0)
    spend(one, peak)
    assert one.peaks[:2] == [peak, -1.0 + 100 / 3000]
    assert kept_aside(one) == []


def test_until_a_budget_has_passed_hardly_any_episode_is_of_the_tail() -> None:
    one = sensor([-1.0, -1.1, -1.2], rows=100, budget=1e4)
    spend(one, threshold.end_of_tail(one, 0.01))
    assert one.peaks_seen == 4
    spend(one, threshold.end_of_tail(one, 0.02))
    assert one.peaks_seen == 4


def test_eight_alike_within_five_budgets_are_a_habit() -> None:
    """Within a factor of 2; what is not like them stays aside."""
    one = sensor([-1.0, -1.1, -1.2], rows=5000)
    far = [2.0, 2.5, 4.0, 2.1, 2.2, 2.6, 2.05, 5.0, 2.69]
    for peak in far:
        spend(one, peak)
        rows(one, 500)
    assert one.peaks[0] < 0
    spend(one, 2.3)
    assert one.peaks == pytest.approx([2.69, 2.6, 2.5, 2.3, 2.2, 2.1, 2.05, 2.0])
    assert kept_aside(one) == [4.0, 5.0]
    assert one.peaks_seen == 3 + 8
    assert next_row(one) > 2.0


def test_what_lies_further_back_is_no_part_of_a_habit() -> None:
    one = sensor([-1.0, -1.1, -1.2], rows=5000)
    for _ in range(20):
        spend(one, 2.0)
        rows(one, 715)  # seven of them in 5 005 rows
    assert max(one.peaks) < 0
    assert one.peaks_seen == 3
    spend(one, 2.0)
    assert one.peaks_seen == 3
    rows(one, 600)
    spend(one, 2.0)
    assert one.peaks_seen == 3 + 8


def test_seven_alike_and_others_are_none_but_twelve_of_any_kind_are() -> None:
    """They all reach the least of them. What is far above it counts as twice the least."""
    one = sensor([-1.0, -1.1, -1.2], rows=5000)
    for peak in [9.0, 5.0, 2.0, 7.0, 3.0, 4.0, 2.5, 6.0, 8.0, 10.0, 11.0]:
        spend(one, peak)
    assert one.peaks_seen == 3
    spend(one, 12.0)
    assert one.peaks == pytest.approx([2.0 + math.log(2)] * 8)
    assert one.peaks_seen == 3 + 12
    assert kept_aside(one) == []


def test_the_oldest_gives_way_where_there_are_twelve_of_which_some_are_too_old() -> None:
    one = sensor([-1.0, -1.1, -1.2], rows=5000)
    for peak in range(2, 24):
        spend(one, float(peak))
        rows(one, 500)
    assert kept_aside(one) == [float(peak) for peak in range(14, 24)]


def test_beyond_its_horizon_the_reservoir_forgets() -> None:
    one = sensor([1.0, 0.9, 0.8, 0.7], rows=1500, budget=300.0)
    first = next_row(one)
    for _ in range(500):
        last = next_row(one)
    assert one.rows == one.horizon == 1500
    assert last == pytest.approx(first - 500 * 0.35 / 1500, rel=0.1)


def test_the_first_score_stands_for_those_that_are_missing() -> None:
    one = sensor_of(open_after=(3, 5))
    assert math.exp(smallest_of_recent(one, 4.0)) == pytest.approx(4.0)
    assert [math.exp(smallest_of_recent(one, u)) for u in (1.0, 2.0, 8.0, 16.0)] == pytest.approx([4, 4, 4, 4])
    assert math.exp(smallest_of_recent(one, 0.0)) == pytest.approx(2.0)


@given(st.integers(0, 2**32 - 1), st.sampled_from([300.0, 700.0, 5000.0]))
def test_it_is_the_threshold_of_the_plain_description(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    plain = Budget(PROFILE, budget)
    length = min(PROFILE.scored_rows, int(5 * budget))
    one = sensor(peaks_of_suffix(PROFILE, length), length, budget)
    ours, expected = [], []
    for v in np.maximum(rng.normal(-1, 1, 400).cumsum() / 5, threshold.FLOOR_V).tolist():
        ours.append(next_row(one))
        expected.append(plain.next_row())
        if rng.random() < 0.02:
            forget_pending(one)
            spend(one, v)
            plain.forget_pending()
            plain.spent(v)
        else:
            quiet_row(one, v)
            plain.quiet(v)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
