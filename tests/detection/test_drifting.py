"""A level that moves away slowly: which moves are plausible, what one that is farther is worth, and what is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.quality.synthetic import KINDS, sensor
from detector.arrays import F64
from detector.detection.drifting import MOST, SETTLED, Drift, drift, drift_of
from detector.detection.sensor import Sensor
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START
from tests.sensors import sensor_of

WARMUP = 2000
BEGIN = 3000


def known(z: F64) -> Drift:
    return drift_of(z[None], np.full((1, len(z)), True))


def sensor_after(z: F64) -> Sensor:
    """A sensor with this prefix, standardised."""
    of = known(z)
    return sensor_of(
        center=0.0, scale=1.0, completions=len(z), count=len(z), drift_quick=of.quick, drift_slow=of.slow,
        drift_worst=of.worst, drift_worst_zz=of.worst_zz, drift_mean=of.mean, drift_variance=of.variance,
    )  # fmt: skip


def worth(one: Sensor, z: F64, *, inside: bool = False) -> F64:
    found = []
    for value in z.tolist():
        one.completions += 1
        one.count += 1
        found.append(drift(one, [value], inside))
    return np.array(found)


def noise(rows: int, seed: int = 0) -> F64:
    return np.random.default_rng(seed).normal(size=rows)


def ramp(rows: int, size: float) -> F64:
    return size * np.arange(1, rows + 1) / rows


def standardised(kind: str, rows: int, seed: int) -> F64:
    values = sensor(kind, 0, WARMUP + rows, seed)
    return np.asarray((values - values[:WARMUP].mean()) / values[:WARMUP].std())


# -- the rule --------------------------------------------------------------------------------------------------------


def test_a_drift_is_worth_something_before_it_is_over_and_no_more_when_the_level_is_back() -> None:
    one = sensor_after(noise(2000))
    found = worth(one, np.concatenate([noise(700, 1) + ramp(700, 3.0), noise(2000, 2)]))
    assert found[:50].max() == 0.0
    assert 1.0 <= found[300:700].max() <= MOST
    assert found[1000:].max() == 0.0


def test_a_lasting_level_is_accepted_in_time() -> None:
    found = worth(sensor_after(noise(2000)), noise(4000, 1) + 3.0)
    assert found[:1000].max() > 1.0
    assert found[3000:].max() == 0.0


def test_what_comes_back_to_the_usual_place_has_not_moved_away() -> None:
    one = sensor_after(noise(2000))
    worth(one, noise(4000, 1) + 3.0)
    assert worth(one, noise(3000, 2)).max() == 0.0


def test_one_wild_value_is_no_drift() -> None:
    values = noise(500, 1)
    values[100] = 1e4
    assert worth(sensor_after(noise(2000)), values).max() == 0.0


@pytest.mark.parametrize("seed", [5, 6])
def test_healthy_sensors_of_all_kinds_stay_below_the_budget(seed: int) -> None:
    """13 kinds, 10 000 rows each: at 1 in 10 000 one alarm a sensor is asked for."""
    alarms = 0
    for kind in KINDS:
        z = standardised(kind, 10_000, seed)
        loud = worth(sensor_after(z[:WARMUP]), z[WARMUP:]) > 0
        alarms += int((np.diff(np.flatnonzero(loud), prepend=-math.inf) > 300).sum())
    assert alarms <= 4


def test_a_swing_that_the_prefix_has_is_none() -> None:
    row = np.arange(12_000)
    z = np.sin(2 * np.pi * row / 1500) + 0.3 * noise(12_000)
    assert worth(sensor_after(z[:4000]), z[4000:]).max() == 0.0


def test_a_swing_that_a_quiet_prefix_has_nothing_of_becomes_usual_within_days() -> None:
    one, day = sensor_after(noise(700)), 288
    days = [np.r_[np.full(192, 45.0), noise(day - 192, seed)] for seed in range(8)]
    most = worth(one, np.concatenate(days)).reshape(len(days), day).max(axis=1)
    assert most[0] == MOST
    assert most[4:].max() < 2.0


def test_after_a_drift_the_next_one_like_it_is_told_while_it_lasts() -> None:
    one = sensor_after(noise(2000))
    for seed in (1, 2):
        said = worth(one, ramp(1500, 6.0) + noise(1500, seed))
        assert said[:500].max() >= 1.0
        worth(one, noise(3000, seed + 2))


def test_state_of_before_short_and_flat_prefixes_and_seldom_switches_have_no_limit() -> None:
    assert worth(sensor_of(scale=1.0), noise(2000) + ramp(2000, 5.0)).max() == 0.0
    assert known(noise(SETTLED - 1)).worst == [math.inf]
    assert known(np.zeros(2000)).worst == [math.inf]
    assert known(np.sign(noise(2000) - 1.5)).worst == [math.inf]
    assert known(np.sign(noise(2000))).worst != [math.inf]
    assert known(np.maximum(noise(2000) - 1.5, 0)).worst != [math.inf]


def test_until_its_averages_have_settled_a_sensor_that_begins_is_silent() -> None:
    one = sensor_after(noise(2000))
    one.completions = 0
    assert worth(one, noise(SETTLED - 1, 1) + ramp(SETTLED - 1, 8.0)).max() == 0.0
    assert worth(one, noise(300, 2) + 8.0).max() > 0.0


def test_what_is_not_there_does_not_count_and_what_is_maintained_is_not_learnt() -> None:
    one = sensor_after(noise(2000))
    before = one.drift_quick[0], one.drift_mean[0]
    assert worth(one, np.full(500, math.nan)).max() == 0.0
    assert (one.drift_quick[0], one.drift_mean[0]) == before
    worth(one, noise(600, 1) + ramp(600, 4.0))
    learnt = one.drift_mean[0]
    assert worth(one, np.full(10, 4.0), inside=True).min() >= 1.0
    assert one.drift_mean[0] == learnt


# -- what is told ----------------------------------------------------------------------------------------------------


def told(values: F64) -> list[Alert]:
    """The episodes of one sensor that opened after its warm-up."""
    readings = plant.readings_of("a", values[:, None])
    config = plant.readings_config(warmup=WARMUP, false_alarms=plant.per_readings(10_000))
    records = plant.records_of([readings[i : i + 100] for i in range(0, len(readings), 100)])
    alerts = [decode_alert(m.value) for m in plant.play(plant.pipeline_of(config, plant.model_of()), records)]
    return [alert for alert in alerts if (parse_time(alert.detected_at) - START) // SECOND >= BEGIN]


def test_a_drift_that_a_person_sees_is_told_while_it_lasts() -> None:
    values = plant.healthy(np.random.default_rng(2), 6000)[:, 0]
    deviation = values[:WARMUP].std()
    assert told(values) == []
    values[BEGIN : BEGIN + 700] += ramp(700, 2.5 * deviation)
    opened, *later = told(values)
    assert (parse_time(opened.detected_at) - START) // SECOND < BEGIN + 700
    assert opened.what is not None
    assert opened.what.kind == "drift"
    assert opened.what.text.endswith("above its usual level")
    closed = later[-1]
    assert (closed.alert_id, closed.event) == (opened.alert_id, "closed")
    assert closed.what is not None
    assert closed.what.kind == "drift"
    assert closed.ended_at is not None
    assert BEGIN + 600 <= (parse_time(closed.ended_at) - START) // SECOND <= BEGIN + 850
