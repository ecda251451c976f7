"""Noise that dies down: how calm a channel may be, what a calm beyond that is worth, and what is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.quietness import FEWEST, MOST, Noise, calmest, noise_of, quiet
from detector.detection.sensor import Sensor
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START
from tests.sensors import sensor_of

DAY = 288


def noise(rows: int, seed: int = 0) -> F64:
    """Errors of forecasts, squared, of a channel that is white noise."""
    return np.asarray(np.random.default_rng(seed).normal(size=rows) ** 2)


def known(errors: F64) -> Noise:
    return noise_of(errors[None], np.full((1, len(errors)), True))


def sensor_after(errors: F64) -> Sensor:
    of = known(errors)
    return sensor_of(noise_quick=of.quick, noise_slow=of.slow, noise_usual=of.usual, noise_hush=of.hush)


def worth(one: Sensor, errors: F64, *, inside: bool = False, value: float = 0.0) -> F64:
    return np.array([quiet(one, [error], [value], inside) for error in errors.tolist()])


# -- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "rows"), [(0.5, 250), (0.25, 120), (0.1, 90)])
def test_a_channel_with_a_part_of_its_noise_left_is_worth_something_in_time(left: float, rows: int) -> None:
    one = sensor_after(noise(4000))
    assert worth(one, noise(3000, 1)).max() == 0.0
    found = worth(one, left**2 * noise(400, 2))
    assert found[:rows].max() >= 1.0
    assert found.max() <= MOST
    assert worth(one, noise(1000, 3))[200:].max() == 0.0


def test_a_calm_that_lasts_becomes_usual() -> None:
    found = worth(sensor_after(noise(4000)), 0.01 * noise(6000, 1))
    assert found[:400].max() > 4.0
    assert found[4000:].max() == 0.0


def test_a_calm_that_comes_every_night_becomes_usual() -> None:
    one = sensor_after(noise(700))
    nights = [np.concatenate([noise(192, seed), 0.04 * noise(DAY - 192, 50 + seed)]) for seed in range(12)]
    days = [worth(one, night).max() for night in nights]
    assert days[0] > 1.5
    assert max(days[6:]) < 1.1


def test_a_calm_that_the_prefix_has_is_none_and_a_deep_one_leaves_no_limit() -> None:
    loud = np.where(np.arange(9000) // 60 % 6 == 0, 1.0, 9.0) * noise(9000)
    assert worth(sensor_after(loud[:4000]), loud[4000:]).max() == 0.0
    idle = np.where(np.arange(4000) // 500 == 5, 1e-4, 1.0) * noise(4000)
    assert known(idle).hush == [math.inf]


def test_a_jump_now_and_then_makes_no_channel_loud() -> None:
    jumps = noise(4000)
    jumps[::50] += 1e4
    assert worth(sensor_after(jumps), noise(2000, 1)).max() == 0.0


def test_few_and_exact_forecasts_and_state_of_before_have_no_limit() -> None:
    assert known(noise(FEWEST - 1)).hush == [math.inf]
    assert known(np.empty(0)).hush == [math.inf]
    assert known(np.where(np.arange(4000) % 3 == 0, noise(4000), 0.0)).hush == [math.inf]
    assert worth(sensor_of(), np.zeros(1000)).max() == 0.0


def test_what_sticks_or_is_not_there_does_not_count_and_what_is_maintained_does_not_become_usual() -> None:
    one = sensor_after(noise(4000))
    before = one.noise_quick[0], one.noise_slow[0]
    one.still_rows, one.still_limit = [20.0], [20.0]
    assert worth(one, np.zeros(500)).max() == 0.0
    one.still_rows = [1.0]
    assert worth(one, np.full(500, math.nan)).max() == 0.0
    assert worth(one, np.zeros(500), value=math.nan).max() == 0.0
    assert (one.noise_quick[0], one.noise_slow[0]) == before
    assert worth(one, np.zeros(500), inside=True)[-1] == MOST
    assert worth(one, np.zeros(5000), inside=True).min() == MOST


def test_of_several_channels_the_one_that_has_become_calm_is_named() -> None:
    white = np.random.default_rng(0).normal(size=(100, 3))
    white[30:, 2], white[:, 0] = 0.2 * white[30:, 2], 0.0
    found = calmest(white, np.array([False, True, True]))
    assert found.channel == 2
    assert abs(found.row - 30) <= 3
    assert 0.1 < found.size < 0.3
    assert calmest(0.2 * white[:, 1:], np.array([True, False])).row == 0


# -- what is told ----------------------------------------------------------------------------------------------------


def told(values: F64) -> list[Alert]:
    """The episodes of one sensor that opened after row 3000; 2 000 are its warm-up."""
    readings = plant.readings_of("a", values[:, None])
    config = plant.readings_config(warmup=2000, false_alarms=plant.per_readings(10_000))
    records = plant.records_of([readings[i : i + 100] for i in range(0, len(readings), 100)])
    alerts = [decode_alert(m.value) for m in plant.play(plant.pipeline_of(config, plant.model_of()), records)]
    return [alert for alert in alerts if (parse_time(alert.detected_at) - START) // SECOND >= 3000]


def test_a_filter_that_was_left_on_is_told_as_what_it_is() -> None:
    rng = np.random.default_rng(4)
    wave, hiss = np.sin(np.arange(4500) * 2 * np.pi / 60), rng.normal(0, 0.3, 4500)
    assert told(wave + hiss) == []
    hiss[3000:3500] *= 0.1
    opened, *_, closed = told(wave + hiss)
    assert (parse_time(opened.detected_at) - START) // SECOND < 3200
    assert (closed.alert_id, closed.event) == (opened.alert_id, "closed")
    assert closed.ended_at is not None
    for alert in (opened, closed):
        assert alert.what is not None
        assert (alert.what.kind, alert.what.text[:18]) == ("noise", "quieter than usual")
        assert abs((parse_time(alert.started_at) - START) // SECOND - 3000) <= 10
    assert abs((parse_time(closed.ended_at) - START) // SECOND - 3500) <= 20


def test_a_value_that_sticks_stays_one_episode_of_its_own_kind() -> None:
    values = plant.healthy(np.random.default_rng(2), 4500)[:, 0]
    values[3000:3500] = values[3000]
    alerts = told(values)
    assert len({alert.alert_id for alert in alerts}) == 1
    assert {alert.what.kind for alert in alerts if alert.what is not None} == {"stuck"}
