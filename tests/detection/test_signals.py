"""The three signals and their two scales, and that no row's bits depend on the rows computed beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from detector.arrays import F32
from detector.detection import signals
from detector.detection.score import signals_of
from detector.detection.signals import WINDOW
from tests import plant
from tests.sensors import sensor_of

SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33)
MOST = max(SIZES)


def rows_of(*shape: int, seed: int = 0, dtype: str = "f8") -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (MOST, *shape)).astype(dtype)


def forecast_of(seed: int) -> np.ndarray:
    forecast = rows_of(WINDOW, seed=seed)
    forecast[:, -1] = 0
    return forecast


def combined(part: slice) -> np.ndarray:
    values, zz, worst = (rows_of(3, seed=seed)[part].T for seed in (1, 2, 3))
    return signals.combine(values, zz, np.abs(worst) + 1, np.abs(rows_of(seed=4))[part] + 1)


STAGES: dict[str, Callable[[slice], np.ndarray]] = {
    "standardise": lambda part: signals.standardise(rows_of(7, 2)[part], rows_of(1, 2)[part], rows_of(1, 2)[part]),
    "prediction_errors": lambda part: signals.prediction_errors(
        rows_of(WINDOW)[part], forecast_of(1)[part], rows_of(seed=2)[part]
    ),
    "reconstruction_errors": lambda part: signals.reconstruction_errors(
        rows_of(WINDOW, 1, dtype="f4")[part], rows_of(WINDOW, 1, seed=1, dtype="f4")[part]
    ),
    "reconstruction_errors of three channels": lambda part: signals.reconstruction_errors(
        rows_of(WINDOW, 3, dtype="f4")[part], rows_of(WINDOW, 3, seed=1, dtype="f4")[part]
    ),
    "deviation": lambda part: (
        signals.deviation(rows_of(3)[part].T, rows_of(3, seed=1)[part].T, np.square(rows_of(3, seed=2))[part].T)[0].T
    ),
    "combine": combined,
    "the plant's autoencoder": lambda part: plant.reconstructor(2)(rows_of(WINDOW, 2, dtype="f4")[part]),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_row_has_the_same_bits_alone_and_among_others(stage: str) -> None:
    everything = STAGES[stage](slice(None))
    assert len(everything) == MOST
    for size in SIZES:
        assert STAGES[stage](slice(0, size)).tobytes() == everything[:size].tobytes()
        assert STAGES[stage](slice(MOST - size, MOST)).tobytes() == everything[MOST - size :].tobytes()
    for row in range(MOST):
        assert STAGES[stage](slice(row, row + 1)).tobytes() == everything[row : row + 1].tobytes()


def test_standardised_values_are_limited() -> None:
    z = signals.standardise(np.array([[3.0], [1e12], [-1e12]]), np.array([1.0]), np.array([4.0]))
    assert z.tolist() == [[0.5], [1e4], [-1e4]]


def test_a_value_that_follows_its_forecast_has_no_prediction_error() -> None:
    windows = np.arange(2.0 * WINDOW).reshape(2, WINDOW)
    forecast = np.zeros((2, WINDOW))
    forecast[:, -3:-1] = -1, 2
    assert signals.prediction_errors(windows, forecast, np.array([0.0, 3.0])).tolist() == [0, 9]


def test_the_newest_row_weighs_most_and_all_weights_sum_to_one() -> None:
    windows = np.zeros((3, WINDOW, 1), dtype=np.float32)
    expected = windows.copy()
    expected[0], expected[1, -1], expected[2, 0] = 1, 1, 1
    everywhere, newest, oldest = signals.reconstruction_errors(windows, expected).tolist()
    assert everywhere == pytest.approx(1, rel=1e-6)
    assert newest == pytest.approx(signals.NEWEST_FIRST[-1], rel=1e-6)
    assert newest / oldest == pytest.approx((51 / 49) ** 99, rel=1e-5)


def test_channels_count_equally_in_the_reconstruction_error() -> None:
    windows = np.zeros((1, WINDOW, 2), dtype=np.float32)
    expected = windows + np.array([1, 3], dtype=np.float32)
    assert signals.reconstruction_errors(windows, expected).tolist() == pytest.approx([5], rel=1e-6)


def test_an_average_starts_at_its_first_element() -> None:
    assert signals.ewma_path(np.array([4.0, 8.0, 0.0]), 0.5).tolist() == [4, 6, 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_one_wild_error_in_a_first_window_is_no_alarm_by_itself(channels: int) -> None:
    """The average of a sensor that begins is its running mean, of which the first error is a 25th part."""
    sensor = sensor_of(channels, mean=np.full(2 * channels + 1, 2.0))
    found = signals_of(sensor, [53.0] * channels, [1.0] * channels, 0.5, [0.0] * channels)
    assert found[:channels] == pytest.approx([4.0] * channels)


def test_the_score_is_the_smaller_of_both_scales_and_never_negative() -> None:
    worst, worst_zz = np.full((2, 3), 2.0), np.full(3, 4.0)
    values = np.array([[2.0, 8.0, 8.0], [1.0, 0.0, 0.0]])
    zz = np.array([[40.0, 8.0, -8.0], [0.0, 0.0, -9.0]])
    assert signals.combine(values, zz, worst, worst_zz).tolist() == [1, 2, 0]


def in_step(windows: F32) -> F32:
    """The reconstruction by a model that knows of three channels only that they go up and down together."""
    return np.broadcast_to(windows.mean(axis=2, keepdims=True), windows.shape).copy()


def test_a_channel_that_stands_still_costs_the_others_nothing() -> None:
    """The others go on as ever; the missing one's last value is far from where they are by now."""
    rng = np.random.default_rng(5)
    load = np.cumsum(rng.normal(0, 0.3, (4, WINDOW, 1)), axis=1)
    windows = (load + rng.normal(0, 0.1, (4, WINDOW, 3))).astype(np.float32)
    whole = signals.reconstruction_errors(windows, in_step(windows))
    holes = np.zeros(windows.shape, dtype=bool)
    holes[1:, 20:, 2] = True
    windows[1:, 20:, 2] = windows[1:, 19:20, 2]
    spoilt = signals.reconstruction_errors(windows, in_step(windows), holes)
    found = signals.reconstruction_errors(windows, signals.rebuild(windows, holes, in_step), holes)
    assert found[0] == whole[0]
    assert (spoilt[1:] > 5 * whole[1:]).all()
    assert (found[1:] < 1.5 * whole[1:]).all()


def test_what_is_made_of_a_window_with_holes_does_not_rest_on_its_neighbours() -> None:
    windows = rows_of(WINDOW, 3, dtype="f4")
    holes = np.random.default_rng(6).random(windows.shape) < 0.2
    holes[::3] = False
    together = signals.rebuild(windows, holes, in_step)
    for i in range(MOST):
        alone = signals.rebuild(windows[i : i + 1], holes[i : i + 1], in_step)
        assert alone.tobytes() == together[i : i + 1].tobytes()
