"""Which windows are trained on and which are held back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.models.training.sampling import SENSOR_LIMIT, sample, share_out
from tests.models.conftest import SECOND, waves


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=30), st.integers(0, 50_000))
def test_shares_are_equal_but_for_those_who_have_less(available: list[int], limit: int) -> None:
    shares = share_out(available, limit)
    assert sum(shares) == min(limit, sum(min(count, SENSOR_LIMIT) for count in available))
    limited = [share for share, count in zip(shares, available, strict=True) if share < min(count, SENSOR_LIMIT)]
    assert all(share <= min(count, SENSOR_LIMIT) for share, count in zip(shares, available, strict=True))
    if limited:
        # Whoever could give more gives as much as anyone, to the unit.
        assert max(shares) - min(limited) <= 1


def test_the_newest_tenth_of_every_sensor_is_held_back() -> None:
    chosen = sample(waves(2, 500), scaler="standard", limit=10_000)
    assert chosen.rows.shape == (1000, 1)
    assert chosen.rows.dtype == np.float32
    assert chosen.train.tolist() == [*range(361), *range(500, 861)]
    assert chosen.tail.tolist() == [*range(361, 401), *range(861, 901)]


def test_a_tail_of_fewer_than_fifty_windows_is_trained_on() -> None:
    chosen = sample(waves(1, 500), scaler="standard", limit=10_000)
    assert chosen.train.tolist() == list(range(401))
    assert len(chosen.tail) == 0


def test_windows_are_spread_evenly_over_the_rows() -> None:
    chosen = sample(waves(2, 500), scaler="standard", limit=20)
    assert chosen.train.tolist() == [*np.linspace(0, 400, 10).round(), *(500 + np.linspace(0, 400, 10).round())]


def test_no_window_spans_two_sensors() -> None:
    chosen = sample(waves(3, 200), scaler="standard", limit=10_000)
    starts = np.concatenate([chosen.train, chosen.tail])
    assert (starts // 200 == (starts + 99) // 200).all()


@pytest.mark.parametrize(("scaler", "low", "high"), [("minmax", 0.0, 1.0), ("symmetric", -1.0, 1.0)])
def test_rows_are_scaled_sensor_by_sensor(scaler: str, low: float, high: float) -> None:
    chosen = sample(waves(2, 300), scaler=scaler, limit=100)
    for part in (chosen.rows[:300], chosen.rows[300:]):
        assert part.min() == pytest.approx(low)
        assert part.max() == pytest.approx(high)


def test_outliers_are_limited_to_ten_deviations() -> None:
    values = np.zeros((1000, 1))
    values[500] = 1e9
    chosen = sample({"a": (np.arange(1000) * SECOND, values)}, scaler="standard", limit=100)
    assert chosen.rows.max() == 10.0


@pytest.mark.parametrize("rows", [[], [149], [500, 149]])
def test_too_few_rows_are_refused(rows: list[int]) -> None:
    series = {str(i): waves(1, count)["pump-0"] for i, count in enumerate(rows)}
    with pytest.raises(ValueError, match="at least 150 rows"):
        sample(series, scaler="standard", limit=100)
