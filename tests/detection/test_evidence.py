"""Since when, until when and where: what the rows of one window say, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.arrays import F64
from detector.detection.evidence import (
    OLDER,
    Run,
    find_onset,
    last_of_run,
    last_unusual,
    longest_run,
    shares,
    usual_errors,
)
from detector.detection.tail import chance

WINDOW = 100


def noise(seed: int, channels: int = 1) -> F64:
    return np.random.default_rng(seed).normal(size=(WINDOW, channels))


@pytest.mark.parametrize(("onset", "channels"), [(25, 1), (50, 1), (80, 1), (50, 3), (80, 3)])
def test_the_onset_is_where_rows_become_unlike_what_was_before(onset: int, channels: int) -> None:
    off = []
    for seed in range(12):
        z = noise(seed, channels)
        z[onset:, -1] += 7
        off.append(abs(find_onset(z, min(onset + 10, 90)).row - onset))
    assert sorted(off)[9] <= 10
    assert sorted(off)[5] <= 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), last=st.integers(OLDER, WINDOW - 1), channels=st.integers(1, 3))
def test_the_onset_leaves_rows_before_it_and_is_not_after_the_detection(seed: int, last: int, channels: int) -> None:
    found = find_onset(noise(seed, channels), last)
    assert OLDER <= found.row <= last
    assert found.gain >= 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), unit=st.floats(1e-3, 1e3), level=st.floats(-1e3, 1e3), onset=st.integers(25, 85))
def test_the_onset_does_not_depend_on_the_unit(seed: int, unit: float, level: float, onset: int) -> None:
    """So anybody who has the values of an alert finds the row that it says."""
    values = noise(seed)
    values[onset:] += 8
    told = level + unit * values
    again = (told - told.mean()) / told.std()
    scaled = (values - values.mean()) / values.std()
    assert find_onset(scaled, 90).row == find_onset(again, 90).row
    assert find_onset(values, 90) == find_onset(values.copy(), 90)


def test_what_is_unusual_is_what_is_beyond_the_usual() -> None:
    errors = np.tile([1.0, 9.0, 4.0], (WINDOW, 1))
    errors[70:] += [3.0, 0.0, 1.0]
    assert shares(errors, usual_errors(errors, 70), 70) == pytest.approx([6 / 7, 0, 1 / 7], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), row=st.integers(0, WINDOW - 1), channels=st.integers(1, 4))
def test_parts_are_parts_of_one(seed: int, row: int, channels: int) -> None:
    errors = np.square(noise(seed, channels))
    parts = shares(errors, usual_errors(errors, row), row)
    assert parts.sum() == pytest.approx(1)
    assert (parts >= 0).all()


def test_without_any_error_channels_share_alike() -> None:
    errors = np.zeros((WINDOW, 4))
    assert shares(errors, usual_errors(errors, 50), 50) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("end", [30, 60, 75])
def test_it_is_over_behind_the_last_unusual_row(end: int) -> None:
    off = []
    for seed in range(12):
        errors = np.square(noise(seed))
        errors[: end + 1] *= 60
        last = last_unusual(errors, np.ones(1))
        assert last is not None
        off.append(abs(last - end))
    assert sorted(off)[9] <= 3


def test_what_lasts_is_not_over_and_what_never_was_has_no_end() -> None:
    errors = np.square(noise(3))
    assert last_unusual(50 * errors, np.ones(1)) == WINDOW - 1
    assert last_unusual(errors, np.ones(1)) is None


def test_runs_of_equal_values() -> None:
    x = np.concatenate([np.arange(30.0), np.full(20, 7.0), np.arange(50.0)])
    assert longest_run(x) == Run(30, 49)
    assert last_of_run(x) == 49
    assert longest_run(np.arange(100.0)) is None
    assert last_of_run(np.arange(100.0)) is None
    assert longest_run(np.repeat(np.arange(5.0), 20)) is None, "equal values are usual here"
    assert longest_run(np.zeros(100)) == Run(0, 99)


def test_the_chance_of_a_peak_falls_with_it() -> None:
    at = chance(0.5, 0.5)
    assert at == pytest.approx(1 - math.exp(-1))
    assert chance(0.5, 0.2) == at, "an episode may close below"
    chances = [chance(0.0, above) for above in (0.0, 0.5, 1.0, 3.0, 20.0)]
    assert chances == sorted(chances, reverse=True)
    assert all(0 < one < 1 for one in chances)
