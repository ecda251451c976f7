"""The threshold: what moves it, what may not, and that it follows the plain description in every row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.detection import threshold
from detector.detection.profile import peaks_of_suffix
from detector.detection.threshold import NO_BUDGET, Rows, Thresholds, first_reservoir, nth_largest_log
from tests import plant
from tests.reference_rules import Budget

NOBODY = np.empty(0, dtype=np.intp)
COLUMNS = {
    "peaks_kept": "i2", "peaks_seen": "i8", "pending_age": "i2",
}  # fmt: skip
PROFILE = plant.profile_of(plant.healthy(np.random.default_rng(1), 2500), plant.reconstructor())


def rows_of(*sensors: dict[str, Any]) -> Rows:
    """Threshold columns of sensors side by side."""
    return {name: np.array([one[name] for one in sensors], dtype=COLUMNS.get(name, "f8")) for name in sensors[0]}


def sensor(peaks: list[float], rows: int = 900, budget: float = 1000.0, **cells: Any) -> dict[str, Any]:
    return first_reservoir(peaks, rows, budget) | cells


def level_of(rows: Rows) -> float:
    """The ln threshold of the first sensor's next row."""
    return float(Thresholds(rows).before_row(1)[0])


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
    low, high = rows_of(sensor([-1.0, -1.2], rows=2000)), rows_of(sensor([1.0, 0.8], rows=2000))
    assert level_of(high) > level_of(low)


def test_the_return_level_is_limited_while_a_sensor_is_young() -> None:
    assert level_of(rows_of(sensor([5.0], rows=998, budget=1000.0))) == pytest.approx(math.log(3 * 1000 / 999))
    assert level_of(rows_of(sensor([5.0], rows=999, budget=1000.0))) > 5
    assert level_of(rows_of(sensor([9.0], rows=999, budget=1e5))) == pytest.approx(math.log(300))


def test_the_fewer_budgets_are_behind_it_the_fewer_episodes_a_return_level_allows() -> None:
    """m = 1, w = 15, s = 0.35: r = y + 5.25 ((B / (a N))^(1/15) - 1) with a from 1 + 2 sqrt(3 N / B) to 3."""
    for rows, aim in ((1_200, 1 + 2 * math.sqrt(0.36)), (300, 1 + 2 * math.sqrt(0.09)), (4_800, 3.0)):
        cells = sensor([-1.0], rows=rows - 1, budget=1e4)
        expected = -1 + 100 / (rows - 1) + 5.25 * ((1e4 / (aim * rows)) ** (1 / 15) - 1)
        assert level_of(rows_of(cells)) == pytest.approx(max(expected, 0.0))


def test_without_a_budget_the_threshold_is_one_whatever_happens() -> None:
    rows = rows_of(sensor([5.0], budget=NO_BUDGET), sensor([5.0], rows=1000))
    thresholds = Thresholds(rows)
    for _ in range(3):
        limits = thresholds.before_row(2)
        assert limits[0] == 0
        assert limits[1] > 5
        thresholds.closed(np.array([0]), np.array([9.0]))


def test_a_sensor_that_stays_quiet_sinks_below_one_but_not_below_its_return_level() -> None:
    cells = sensor([-2.5], rows=50_000, budget=1e4, credit=17.0)
    assert level_of(rows_of(cells)) == pytest.approx(-0.07 * (17.0001 - 3))
    assert level_of(rows_of(cells | {"peaks": [-0.5] + [-math.inf] * 7})) == pytest.approx(-0.5, abs=1e-3)


def test_a_loose_budget_is_spent_sooner() -> None:
    loose, strict = (
        level_of(rows_of(sensor([-2.5], rows=int(5 * budget), budget=budget, credit=4.0))) for budget in (1e3, 1e5)
    )
    assert strict == pytest.approx(-0.07 * 1.0, abs=1e-4)
    assert loose == pytest.approx(-0.07 * 10**0.75 * (4.001 - 3 / 10**0.25))


def test_credit_rises_to_its_limit_and_falls_with_episodes_to_another() -> None:
    rows = rows_of(sensor([-2.5], rows=5000, budget=300.0))
    thresholds = Thresholds(rows)
    for _ in range(300):
        thresholds.before_row(1)
    assert rows["credit"][0] == pytest.approx(1)
    rows["credit"][:] = 100
    thresholds.before_row(1)
    assert rows["credit"][0] == pytest.approx(3 + 1 / 0.07)
    for _ in range(30):
        thresholds.closed(np.array([0]), np.array([-2.5]))
    assert rows["credit"][0] == -4


def test_overspent_credit_lifts_the_threshold() -> None:
    even, over = (rows_of(sensor([0.0], rows=5000, credit=credit)) for credit in (0.0, -2.0))
    assert level_of(over) - level_of(even) == pytest.approx(0.4 * (2 - 0.001))


def test_a_peak_is_counted_once_a_hundred_rows_pass_with_nothing_higher() -> None:
    rows = rows_of(sensor([0.0], rows=2000))
    thresholds = Thresholds(rows)
    for row in range(110):
        thresholds.before_row(1)
        thresholds.quiet_row(np.array([-0.5 if row in (3, 9) else -1.0]), NOBODY)
        assert rows["peaks_seen"][0] == (2 if row >= 103 else 1)
    assert rows["peaks"][0, :3].tolist() == [0.05, -0.5, -math.inf]
    assert rows["pending"][0] == -1.0


def test_a_glitch_enters_only_a_little_above_the_return_level() -> None:
    rows = rows_of(sensor([-1.0, -1.1, -1.2], rows=3000))
    thresholds = Thresholds(rows)
    before = thresholds.before_row(1)[0]
    thresholds.closed(np.array([0]), np.array([math.log(1e8)]))
    after = thresholds.before_row(1)[0]
    assert before < after < before + 2


def test_beyond_its_horizon_the_reservoir_forgets() -> None:
    rows = rows_of(sensor([1.0, 0.9, 0.8, 0.7], rows=1500, budget=300.0))
    thresholds = Thresholds(rows)
    first = thresholds.before_row(1)[0]
    for _ in range(500):
        last = thresholds.before_row(1)[0]
    assert rows["rows"][0] == rows["horizon"][0] == 1500
    assert last == pytest.approx(first - 500 * 0.35 / 1500, rel=0.1)


# -- exactness -------------------------------------------------------------------------------------------------------


def random_sensor(rng: np.random.Generator) -> dict[str, Any]:
    peaks = rng.normal(-0.5, 1, int(rng.integers(1, 20))).tolist()
    budget = float(rng.choice([300.0, 1000.0, 5e4, NO_BUDGET]))
    return first_reservoir(peaks, int(rng.integers(60, 3000)), budget) | {"credit": rng.uniform(-4, 17)}


def advance(rows: Rows, v: np.ndarray, closings: np.ndarray) -> np.ndarray:
    """Thresholds (T, n) over rows of v; every so often an episode is closed."""
    thresholds = Thresholds(rows)
    limits = []
    for now, over in zip(v, closings, strict=True):
        limits.append(thresholds.before_row(v.shape[1]).copy())
        thresholds.quiet_row(now, np.flatnonzero(over))
        thresholds.closed(np.flatnonzero(over), now[over])
    return np.array(limits)


def test_a_sensor_has_the_same_bits_alone_and_among_others() -> None:
    rng = np.random.default_rng(5)
    sensors = [random_sensor(rng) for _ in range(33)]
    v = np.maximum(rng.normal(-1, 1, (260, 33)), -2.5)
    closings = rng.random(v.shape) < 0.01
    together = rows_of(*sensors)
    expected = advance(together, v, closings)
    for size in (*range(1, 10), 16, 17, 32):
        for first in (0, 33 - size):
            part = slice(first, first + size)
            rows = rows_of(*sensors[part])
            assert advance(rows, v[:, part], closings[:, part]).tobytes() == expected[:, part].tobytes()
            for name, column in rows.items():
                assert column.tobytes() == together[name][part].tobytes()


def test_taking_the_state_up_again_changes_no_bit() -> None:
    rng = np.random.default_rng(6)
    sensors = [random_sensor(rng) for _ in range(5)]
    v = np.maximum(rng.normal(-1, 1, (300, 5)), -2.5)
    closings = rng.random(v.shape) < 0.02
    at_once, in_parts = rows_of(*sensors), rows_of(*sensors)
    expected = advance(at_once, v, closings)
    limits = [advance(in_parts, v[i : i + 7], closings[i : i + 7]) for i in range(0, 300, 7)]
    assert np.concatenate(limits).tobytes() == expected.tobytes()


@given(st.integers(0, 2**32 - 1), st.sampled_from([300.0, 700.0, 5000.0]))
def test_it_is_the_threshold_of_the_plain_description(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    plain = Budget(PROFILE, budget)
    length = min(PROFILE.scored_rows, int(5 * budget))
    rows = rows_of(first_reservoir(peaks_of_suffix(PROFILE, length), length, budget))
    thresholds = Thresholds(rows)
    ours, expected = [], []
    for v in np.maximum(rng.normal(-1, 1, 400).cumsum() / 5, threshold.FLOOR_V).tolist():
        ours.append(float(thresholds.before_row(1)[0]))
        expected.append(plain.next_row())
        if rng.random() < 0.02:
            thresholds.opened(np.array([0]))
            thresholds.closed(np.array([0]), np.array([v]))
            plain.forget_pending()
            plain.spent(v)
        else:
            thresholds.quiet_row(np.array([v]), NOBODY)
            plain.quiet(v)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
