"""Every fault of the catalogue changes what its name says, where it says so, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from detector.arrays import F64
from detector.simulation.faults import FAULTS, SIZES, Healthy, Injected, MeaninglessError, put

DAY = 96
FIRST, ROWS = 1200, 160


def machine() -> F64:
    """(1920, 2): a machine that runs through half of each day, in cycles, and a second channel that goes with it."""
    rng = np.random.default_rng(5)
    rows = np.arange(20 * DAY)
    runs = (rows % DAY >= 32) & (rows % DAY < 80)
    load = 10.0 * runs + 2.0 * np.sin(2 * np.pi * rows / 16)
    return np.stack([load + rng.normal(0, 0.3, len(rows)), 50 + 3 * load + rng.normal(0, 1.0, len(rows))], axis=1)


def injected(fault: str, size: int = 2, *, seed: int = 1, amount: float | None = None) -> Injected:
    values = machine()
    healthy = Healthy.of(values[:FIRST], DAY)
    return put(fault, values, FIRST, ROWS, size, healthy, np.random.default_rng(seed), amount=amount)


def together(part: F64) -> float:
    """How far two channels (n, 2) go together."""
    return float(np.asarray(np.corrcoef(part.T))[0, 1])


def test_sizes_and_faults_are_those_of_the_issue() -> None:
    assert len(FAULTS) == 18
    assert all(len(set(sizes)) == 3 for sizes in SIZES.values())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_rows_of_its_own_alone_and_leaves_its_input_as_it_was(fault: str) -> None:
    values = machine()
    before = values.copy()
    healthy = Healthy.of(values[:FIRST], DAY)
    one = put(fault, values, FIRST, ROWS, 2, healthy, np.random.default_rng(1))
    again = put(fault, values, FIRST, ROWS, 2, healthy, np.random.default_rng(1))
    assert np.array_equal(values, before)
    assert np.array_equal(one.values, again.values, equal_nan=True)
    changed = np.flatnonzero(((one.values != values) | np.isnan(one.values)).any(axis=1))
    assert FIRST <= one.first <= changed[0]
    assert changed[-1] < one.stop <= len(values)
    others = [1] if fault != "swapped channels" else []
    assert all(np.array_equal(one.values[:, c], values[:, c]) for c in others)


@pytest.mark.parametrize("fault", ["offset", "drift", "gain", "spike", "noise up", "clipping", "quantisation"])
def test_a_larger_size_is_further_from_what_it_was(fault: str) -> None:
    values = machine()
    far = [float(np.abs(injected(fault, size).values - values).sum()) for size in (1, 2, 3)]
    assert far[0] < far[1] < far[2]


def test_what_sticks_has_one_value_and_what_drops_out_has_none() -> None:
    stuck, gone = injected("stuck", 3), injected("dropout", 1)
    assert stuck.stop - stuck.first == ROWS
    assert len(set(stuck.values[stuck.first : stuck.stop, 0].tolist())) == 1
    assert gone.stop - gone.first == ROWS // 4
    assert np.isnan(gone.values[gone.first : gone.stop, 0]).all()
    assert np.isfinite(gone.values[:, 1]).all()


def test_noise_goes_up_and_down_around_the_same_course() -> None:
    rows = slice(FIRST, FIRST + ROWS)
    usual = np.diff(machine()[rows, 0]).std()
    assert np.diff(injected("noise up", 3).values[rows, 0]).std() > 2 * usual
    assert np.diff(injected("noise down", 3).values[rows, 0]).std() < usual


def test_a_faster_course_has_a_shorter_period() -> None:
    values = np.sin(2 * np.pi * np.arange(2000) / 40)[:, None]
    healthy = Healthy.of(values[:1500])
    assert healthy.period == (40,)
    fast = put("frequency", values, 1500, 400, 3, healthy, np.random.default_rng(0))
    assert Healthy.of(fast.values[1500:1900]).period == (16,)


def test_a_night_run_is_busy_and_a_day_off_is_not() -> None:
    night, off = injected("night run", 3), injected("day off", 3)
    assert (np.arange(night.first, night.stop) % DAY >= 80).all() or (
        np.arange(night.first, night.stop) % DAY < 80
    ).any()
    assert night.values[night.first : night.stop, 0].mean() > 7
    assert off.values[off.first : off.stop, 0].mean() < 3
    assert machine()[night.first : night.stop, 0].mean() < 3
    assert machine()[off.first : off.stop, 0].mean() > 7


def test_a_broken_relation_leaves_each_channel_in_its_own_range() -> None:
    values = machine()
    for fault in ("relation broken", "swapped channels", "delay"):
        one = injected(fault, 3)
        part = one.values[one.first : one.stop]
        assert part.min(axis=0) == pytest.approx(values.min(axis=0), abs=12)
        assert part.max() < 1.2 * values.max()
        if fault != "swapped channels":  # channels that go together may be swapped
            assert together(part) < together(values[one.first : one.stop]) - 0.1


def test_the_side_of_a_step_may_be_chosen() -> None:
    values, healthy = machine(), Healthy.of(machine()[:FIRST])
    for seed in range(5):
        assert (injected("offset", amount=-2.0, seed=seed).values - values)[FIRST, 0] < 0
        assert (injected("drift", amount=2.0, seed=seed).values - values)[FIRST, 0] > 0
    sides = {float(np.sign((injected("offset", seed=seed).values - values)[FIRST, 0])) for seed in range(8)}
    assert sides == {-1.0, 1.0}
    up = put("offset", values, FIRST, ROWS, 2, healthy, np.random.default_rng(0), channel=1, amount=-1.0)
    assert np.array_equal(up.values[:, 0], values[:, 0])


@pytest.mark.parametrize(
    ("fault", "lacks"),
    [
        ("frequency", "it has no cycle"), ("missing cycle", "it has no cycle"), ("delay", "it has one channel"),
        ("relation broken", "it has one channel"), ("swapped channels", "it has one channel"),
        ("night run", "it has no day"), ("day off", "it has no day"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_a_sensor_says_so(fault: str, lacks: str) -> None:
    noise = np.random.default_rng(3).normal(size=(800, 1))
    with pytest.raises(MeaninglessError, match=lacks):
        put(fault, noise, 500, 200, 2, Healthy.of(noise, DAY), np.random.default_rng(0))


def test_what_changes_nothing_or_does_not_fit_says_so() -> None:
    still = np.full((300, 1), 4.0)
    rng = np.random.default_rng(0)
    for fault in ("stuck", "gain", "clipping", "repeated segment"):
        with pytest.raises(MeaninglessError, match="changes nothing"):
            put(fault, still, 100, 100, 2, Healthy.of(still), rng)
    noise = rng.normal(size=(300, 1))
    with pytest.raises(MeaninglessError, match="end before the fault"):
        put("drift", noise, 250, 100, 2, Healthy.of(noise), rng)
    with pytest.raises(KeyError):
        put("gremlin", noise, 100, 100, 2, Healthy.of(noise), rng)


def test_spread_and_noise_are_robust_and_never_nought() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(20, 2, (5000, 1))
    values[::50] = 1e6
    one = Healthy.of(values)
    assert one.center[0] == pytest.approx(20, abs=0.2)
    assert one.spread[0] == pytest.approx(2, rel=0.1)
    assert one.noise[0] == pytest.approx(2, rel=0.1)
    assert Healthy.of(np.zeros((50, 1))).spread.tolist() == [1.0]
    assert Healthy.of(np.full((50, 1), np.nan)).period == (None,)
    rare = np.zeros((400, 1))
    rare[10] = 1.0
    assert Healthy.of(rare).spread[0] > 0
