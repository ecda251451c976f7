"""How far and to which side a value has to lie off for its row to count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64
from detector.config.load import MinDeviation, ReadingsConfig
from detector.detection.deviation import LEAN_RATE, deviates
from detector.detection.profile import Profile
from detector.wire.alerts import decode_alert
from tests import plant
from tests.plant import START
from tests.sensors import sensor_of


def asked(
    values: list[float],
    usual: list[float],
    scale: list[float],
    *,
    leaning: list[float] | None = None,
    **limits: float,
) -> bool:
    """Whether a row counts, where the average of how far rows lie off is `leaning` after it, or what this one does."""
    sensor = sensor_of(len(values), usual=usual, scale=scale)
    for i, lean in enumerate(leaning or ()):
        # What the average has to be before the row.
        sensor.lean[i] = (lean - LEAN_RATE * (values[i] - usual[i])) / (1 - LEAN_RATE)
    for name in ("direction", "absolute", "relative"):
        setattr(sensor, name, limits.get(name, 0.0))
    return deviates(sensor, values, False)


@pytest.mark.parametrize(
    ("value", "limits", "counts"),
    [
        (53.0, {}, True),
        (50.0, {}, True),
        (53.0, {"direction": 1.0}, True),
        (53.0, {"direction": -1.0}, False),
        (47.0, {"direction": -1.0}, True),
        (50.0, {"direction": 1.0}, False),
        (53.0, {"absolute": 3.0}, True),
        (52.9, {"absolute": 3.0}, False),
        (47.0, {"absolute": 3.0}, True),
        (53.0, {"relative": 0.05}, True),
        (52.0, {"relative": 0.05}, False),
        (53.0, {"absolute": 1.0, "relative": 0.1}, False),
        (53.0, {"absolute": 5.0, "relative": 0.01}, False),
        (47.0, {"absolute": 1.0, "direction": 1.0}, False),
    ],
)
def test_a_row_counts_if_it_deviates_enough_to_the_right_side(
    value: float, limits: dict[str, Any], counts: bool
) -> None:
    assert asked([value], [50.0], [2.0], **limits) is counts


def test_the_magnitude_of_what_is_expected_counts_below_zero_too() -> None:
    assert asked([-53.0], [-50.0], [2.0], relative=0.05)
    assert not asked([-52.0], [-50.0], [2.0], relative=0.05)


def test_of_several_channels_the_worst_in_its_own_unit_counts() -> None:
    # The first lies 1 unit above, the second 3 units below: what the second does decides.
    values, expected, scale = [60.0, 0.7], [50.0, 1.0], [10.0, 0.1]
    assert not asked(values, expected, scale, direction=1.0)
    assert asked(values, expected, scale, direction=-1.0)
    assert not asked(values, expected, scale, absolute=1.0)
    assert asked(values, expected, scale, relative=0.3 - 1e-9)
    assert asked([51.0, 51.0], [50.0, 50.0], [1.0, 1.0], direction=1.0)
    assert asked([51.0, 49.0], [50.0, 50.0], [1.0, 1.0], direction=1.0), "of equal ones the first"


def test_the_side_is_that_of_late_and_the_size_that_of_the_newest_value() -> None:
    assert asked([49.0], [50.0], [2.0], direction=1.0, absolute=1.0, leaning=[5.0])
    assert not asked([51.0], [50.0], [2.0], direction=1.0, leaning=[-5.0])
    assert not asked([49.5], [50.0], [2.0], absolute=1.0, leaning=[5.0])


def test_the_usual_level_follows_what_lasts_and_hardly_what_does_not() -> None:
    lasting, once = sensor_of(usual=50.0, scale=2.0), sensor_of(usual=7.0, scale=1.0)
    for _ in range(8000):
        deviates(lasting, [53.0], False)
    assert lasting.usual[0] == pytest.approx(53 - 3 * math.exp(-2), abs=0.01)
    deviates(once, [53.0], False)
    assert once.lean == [46.0]
    assert once.usual[0] == 7 + 2 / 8001 * 5, "one row, however absurd, counts as five units"


def test_an_unlearnt_row_moves_the_lean_alone() -> None:
    sensor = sensor_of(usual=50.0, scale=2.0)
    deviates(sensor, [53.0], True)
    assert (sensor.usual, sensor.lean) == ([50.0], [3.0])


def test_the_lean_is_an_average_over_a_window() -> None:
    sensor = sensor_of(usual=50.0, scale=1e-9, lean=0.0)
    for value in [50.0] * 500 + [60.0] * 100:
        deviates(sensor, [value], False)
    assert sensor.lean[0] == pytest.approx(10 * (1 - (1 - 2 / 101) ** 100), rel=1e-6)


# -- in the pipeline -------------------------------------------------------------------------------------------------


def profile() -> Profile:
    return plant.profile_of(plant.healthy(np.random.default_rng(5), 1500), plant.reconstructor())


def opened(config: ReadingsConfig, values: F64) -> list[int]:
    """The rows at which episodes open."""
    records = plant.records_of([plant.readings_of("a", values)])
    alerts = [
        decode_alert(one.value)
        for one in plant.play(plant.pipeline_of(config, plant.model_of({"a": profile()})), records)
    ]
    return [alert.source.opened_offset for alert in alerts if alert.event == "opened"]


def shifted(size: float) -> F64:
    values = plant.healthy(np.random.default_rng(6), 900)
    values[400:600] += size
    return values


@pytest.mark.parametrize(("size", "direction", "found"), [
    (15.0, "both", 1), (15.0, "above", 1), (15.0, "below", 0), (-15.0, "below", 1), (-15.0, "above", 0),
])  # fmt: skip
def test_what_deviates_to_the_other_side_stays_quiet(size: float, direction: str, found: int) -> None:
    assert len(opened(plant.readings_config(direction=direction), shifted(size))) == found


@pytest.mark.parametrize(("least", "found"), [(0.0, 1), (5.0, 1), (30.0, 0)])
def test_what_deviates_too_little_to_matter_stays_quiet(least: float, found: int) -> None:
    assert len(opened(plant.readings_config(min_deviation=MinDeviation(absolute=least)), shifted(15.0))) == found


def test_rows_that_do_not_count_are_no_peaks_and_the_budget_holds() -> None:
    """Faults nobody wants to hear of fill no reservoir: the threshold stays where those that matter put it."""
    values = plant.healthy(np.random.default_rng(8), 6000)
    for first in range(500, 5500, 500):
        values[first : first + 40] -= 15
    config = plant.readings_config(direction="above", false_alarms=plant.per_readings(1000))
    pipeline = plant.pipeline_of(config, plant.model_of({"a": profile()}))
    assert plant.play(pipeline, plant.records_of([plant.readings_of("a", values)])) == []
    table = plant.table_of(pipeline, config)
    slot = table.slots["a"]
    assert table["credit"][slot] == pytest.approx(5.9, abs=0.1)
    assert (table["peaks"][slot] - table["forgotten"][slot]).max() < 0.6
    assert table["clock"][slot] == START + 5999 * plant.SECOND
