"""What kind of fault a window is taken for: every kind on several sorts of sensors, and what is none of them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.evidence import find_onset
from detector.detection.faultkind import Fault, Kind, kind_of
from detector.detection.profile import Profile, build_profile
from tests.plant import SECOND, START

ROWS, WINDOW, ONSET = 1_100, 100, 40
SEEDS = range(6)
MOST = 5
"""How many of six sensors have to be right; `unusual` is no wrong kind."""


def white(rng: np.random.Generator, rows: int) -> F64:
    return rng.normal(size=rows)


def wandering(rng: np.random.Generator, rows: int) -> F64:
    out = np.zeros(rows)
    for row, step in enumerate(rng.normal(0, 0.45, rows)):
        out[row] = 0.9 * out[row - 1] + step
    return out


def cycling(rng: np.random.Generator, rows: int) -> F64:
    return np.sin(2 * np.pi * np.arange(rows) / 23 + rng.uniform(0, 6)) + rng.normal(0, 0.15, rows)


SENSORS = (white, wandering, cycling)


@functools.lru_cache
def profile_of(past: bytes, channels: int) -> Profile:
    values = np.frombuffer(past).reshape(-1, channels)
    return build_profile(START + np.arange(len(values)) * SECOND, values, np.zeros_like)[0]


def judged(healthy: F64, change: Callable[[F64], None], onset: int = ONSET) -> Kind:
    """The kind of fault that is put into the rows behind a profile's; healthy: (L,), `change` has the last window."""
    profile, window = profile_of(healthy[:-WINDOW].tobytes(), 1), healthy[-WINDOW:].copy()
    change(window)
    z = (window[:, None] - profile.center) / profile.scale
    return kind_of(z, 0, onset, profile.ridge[0].astype(np.float64), 0.0)


def shift(x: F64) -> None:
    x[ONSET:] += 5 * x.std()


def slope(x: F64) -> None:
    x += 0.06 * x.std() * np.arange(len(x))


def spike(x: F64) -> None:
    x[ONSET : ONSET + 2] -= 12 * x.std()


def noise(x: F64) -> None:
    x[ONSET:] += 3 * x.std() * np.random.default_rng(1).normal(size=len(x) - ONSET)


def calm(x: F64) -> None:
    x[ONSET:] = x[ONSET] + 0.05 * (x[ONSET:] - x[ONSET])


def swing(x: F64) -> None:
    x[ONSET:] += 3 * x.std() * np.sin(2 * np.pi * np.arange(len(x) - ONSET) / 9)


def stuck(x: F64) -> None:
    x[ONSET:] = x[ONSET]


def stuck_for_a_while(x: F64) -> None:
    x[ONSET:-15] = x[ONSET]


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (shift, "level-shift"), (slope, "drift"), (spike, "spike"), (noise, "noise"), (calm, "noise"),
        (swing, "oscillation"), (stuck, "stuck"), (stuck_for_a_while, "stuck"),
    ],
)  # fmt: skip
def test_a_fault_is_told_by_its_form(sensor: Callable[..., F64], change: Callable[[F64], None], name: Fault) -> None:
    onset = 0 if name == "drift" else ONSET
    found = [judged(sensor(np.random.default_rng(seed), ROWS), change, onset).name for seed in SEEDS]
    assert found.count(name) >= MOST, found
    assert set(found) <= {name, "unusual"}


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_healthy_window_has_no_kind(sensor: Callable[..., F64]) -> None:
    found = [judged(sensor(np.random.default_rng(seed), ROWS), lambda x: None).name for seed in range(12)]
    assert found.count("unusual") >= 11, found


def test_how_far_off_it_is_has_its_sign_and_size() -> None:
    healthy = white(np.random.default_rng(3), ROWS)
    up, down = judged(healthy, shift), judged(healthy, spike)
    assert up.size == pytest.approx(5, rel=0.2)
    assert down.size == pytest.approx(-12, rel=0.2)
    drift = judged(healthy, slope, 0)
    assert drift.size == pytest.approx(0.06 * 90, rel=0.2)


def test_a_stuck_value_is_known_with_its_first_row() -> None:
    healthy = wandering(np.random.default_rng(4), ROWS)
    kind = judged(healthy, stuck)
    assert (kind.name, kind.row) == ("stuck", ONSET)
    assert judged(healthy, stuck_for_a_while).row == ONSET


def test_values_that_are_equal_because_they_were_cut_off_far_away_are_a_shift() -> None:
    def to_the_stop(x: F64) -> None:
        x[ONSET:] = x.mean() + 8 * x.std()

    found = [judged(white(np.random.default_rng(seed), ROWS), to_the_stop).name for seed in SEEDS]
    assert found == ["level-shift"] * len(found)


def test_a_sensor_with_few_values_is_not_stuck_because_some_are_equal() -> None:
    def few(rng: np.random.Generator, rows: int) -> F64:
        return np.repeat(rng.integers(0, 3, rows // 8 + 1), 8)[:rows].astype(np.float64)

    found = [judged(few(np.random.default_rng(seed), ROWS), lambda x: None).name for seed in SEEDS]
    assert "stuck" not in found


def test_another_speed_is_another_cycle() -> None:
    def cycles(period: float, rows: int, seed: int) -> F64:
        rng = np.random.default_rng(seed)
        out: F64 = np.sin(2 * np.pi * np.arange(rows) / period + rng.uniform(0, 6)) + rng.normal(0, 0.15, rows)
        return out

    def faster(x: F64) -> None:
        x[ONSET:] = cycles(9, len(x) - ONSET, 99)

    def slower(x: F64) -> None:
        x[ONSET:] = cycles(90, len(x) - ONSET, 99)

    for change in (faster, slower):
        found = [judged(cycles(23, ROWS, seed), change) for seed in SEEDS]
        assert [kind.name for kind in found].count("oscillation") >= MOST
    fast = judged(cycles(23, ROWS, 0), faster)
    assert fast.period == pytest.approx(9, rel=0.1)
    slow = judged(cycles(23, ROWS, 0), slower)
    assert slow.usual_period == pytest.approx(23, rel=0.1)


def machine(seed: int, rows: int) -> F64:
    """Two channels that follow one load, and one that does not."""
    rng = np.random.default_rng(seed)
    load = wandering(rng, rows)
    linked = load[:, None] + rng.normal(0, 0.1, (rows, 2))
    return np.column_stack([linked, wandering(rng, rows)])


def judged_machine(seed: int, change: Callable[[F64], None]) -> Kind:
    values = machine(seed, ROWS)
    profile, window = profile_of(values[:-WINDOW].tobytes(), 3), values[-WINDOW:].copy()
    change(window)
    z = (window - profile.center) / profile.scale
    return kind_of(z, 0, ONSET, profile.ridge[0].astype(np.float64), 0.0)


def test_a_channel_that_goes_its_own_healthy_way_has_lost_its_relation() -> None:
    def foreign(x: F64) -> None:
        x[ONSET:, 0] = machine(77, len(x) - ONSET)[:, 0]

    def inverted(x: F64) -> None:
        x[ONSET:, 0] *= -1

    for change in (foreign, inverted):
        found = [judged_machine(seed, change) for seed in SEEDS]
        assert [kind.name for kind in found].count("relation") >= MOST
        assert {kind.partner for kind in found if kind.name == "relation"} == {1}


def test_a_linked_channel_with_a_fault_of_its_own_has_not() -> None:
    def off(x: F64) -> None:
        x[ONSET:, 0] += 4 * x[:, 0].std()

    def loud(x: F64) -> None:
        x[ONSET:, 0] += 2 * x[:, 0].std() * np.random.default_rng(1).normal(size=len(x) - ONSET)

    cases: tuple[tuple[Callable[[F64], None], Fault], ...] = ((off, "level-shift"), (loud, "noise"))
    for change, name in cases:
        found = [judged_machine(seed, change).name for seed in SEEDS]
        assert found.count(name) >= MOST, found
        assert "relation" not in found


def test_a_flat_sensor_that_moves_has_a_shift() -> None:
    z = np.zeros((WINDOW, 1))
    z[ONSET:] = 3 + np.arange(WINDOW - ONSET)[:, None] % 2
    assert kind_of(z, 0, find_onset(z, 60).row, np.zeros(WINDOW - 1), 0.0).name == "level-shift"


@pytest.mark.parametrize("row", [0, 1, 99, 200])
def test_an_onset_at_either_end_leaves_rows_to_look_at(row: int) -> None:
    z = np.random.default_rng(2).normal(size=(WINDOW, 2))
    assert kind_of(z, 1, row, np.zeros(WINDOW - 1), 0.0).name in ("unusual", "relation")


def test_values_as_large_as_they_may_be_are_judged() -> None:
    z = np.random.default_rng(1).normal(size=(WINDOW, 1))
    z[70:] = 1e4
    z[70::2] = -1e4
    with np.errstate(all="raise"):
        assert kind_of(z, 0, 70, np.full(WINDOW - 1, 1 / 99), 0.0).name in ("oscillation", "noise")
