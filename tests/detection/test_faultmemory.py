"""What a long fault taught is forgotten when the fault is over, and kept when it turns out to be the new normal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.faultmemory import CALM_ROWS, COLD_ROWS, LEARNT_ROWS, PATIENCE, remember
from detector.detection.scale import deviations, learn, units_of
from detector.detection.sensor import Sensor
from detector.engine.readings import ReadingsPipeline
from detector.times import parse_time
from detector.wire.alerts import decode_alert
from tests import plant
from tests.sensors import sensor_of

WORST_ZZ = 4.0
CALM, WILD = 0.0, 100.0


@dataclass
class Slow:
    """The same rules for one sensor and one signal, in plain Python, one row at a time."""

    mean: float = 0.0
    variance: float = 1.0
    high: int = 0
    cold: int = 0
    calm: int = 0
    age: int = 0
    copy: tuple[float, float] | None = None
    restored: list[int] = field(default_factory=list)

    def row(self, number: int, high: bool, signal: float) -> None:
        if self.copy is None:
            if high:
                self.high, self.cold = self.high + 1, 0
            else:
                self.cold += 1
                if self.cold >= 50:
                    self.high = 0
            if self.high > 300:
                self.copy = float(np.float32(self.mean)), float(np.float32(self.variance))
                self.high = self.cold = self.calm = self.age = 0
            return
        self.age += 1
        score = max(0.0, (signal - self.copy[0]) / (np.sqrt(self.copy[1]) + 1e-6) / WORST_ZZ)
        self.calm = self.calm + 1 if score < 1 else 0
        if self.calm >= 50:
            self.mean, self.variance = self.copy
            self.restored.append(number)
        if self.calm >= 50 or self.age >= 8000:
            self.copy = None


def run(sensor: Sensor, high: bool, signal: float, rows: int) -> list[int]:
    """So many equal rows of one sensor; the rows, counted from 1, at which its scale was put back."""
    return [row for row in range(1, rows + 1) if remember(sensor, high, [signal] * 3)]


def fresh() -> Sensor:
    return sensor_of(worst_zz=WORST_ZZ)


def test_a_copy_is_kept_from_the_row_after_the_last_one_that_may_teach() -> None:
    sensor = fresh()
    run(sensor, True, WILD, LEARNT_ROWS)
    assert not any(sensor.kept_mean)
    sensor.mean = [7.0] * 3
    run(sensor, True, WILD, 1)
    assert sensor.kept
    assert sensor.kept_mean == [7.0, 7.0, 7.0]


def test_the_count_of_high_rows_survives_a_short_calm_only() -> None:
    for quiet, kept in ((COLD_ROWS - 1, True), (COLD_ROWS, False)):
        sensor = fresh()
        run(sensor, True, WILD, LEARNT_ROWS)
        run(sensor, False, CALM, quiet)
        run(sensor, True, WILD, 1)
        assert sensor.kept is kept


def test_the_scale_comes_back_once_the_signals_are_calm_by_the_copy() -> None:
    sensor = fresh()
    run(sensor, True, WILD, LEARNT_ROWS + 1)
    sensor.mean, sensor.variance = [50.0] * 3, [900.0] * 3
    assert run(sensor, False, CALM, CALM_ROWS - 1) == []
    assert run(sensor, True, WILD, 1) == []
    assert run(sensor, False, CALM, CALM_ROWS) == [CALM_ROWS]
    assert sensor.mean == [0.0] * 3
    assert sensor.variance == [1.0] * 3
    assert not sensor.high
    assert not sensor.kept


def test_a_new_normal_keeps_what_it_taught() -> None:
    sensor = fresh()
    run(sensor, True, WILD, LEARNT_ROWS + 1)
    sensor.mean, sensor.variance = [100.0] * 3, [4.0] * 3
    assert run(sensor, False, WILD, PATIENCE - 1) == []
    assert sensor.kept_rows == PATIENCE - 1
    assert run(sensor, False, WILD, 1) == []
    assert not sensor.kept
    assert sensor.mean == [100.0] * 3


@pytest.mark.parametrize("seed", range(6))
def test_it_does_what_the_plain_description_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 12_000
    # Spells of trouble and of calm, of all lengths around the limits, and rows that break them.
    lengths = rng.choice([20, 49, 50, 51, 120, 299, 301, 600, 3000], 200)
    spells = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)[:rows]
    troubled = spells ^ (rng.random(rows) < rng.choice([0.0, 0.002, 0.02]))
    sensor, slow = fresh(), Slow()
    for row, (high, signal) in enumerate(zip(troubled.tolist(), rng.random(rows).tolist(), strict=True)):
        now = signal + 30.0 if high else signal
        sensor.mean = [mean + 0.01 * (now - mean) for mean in sensor.mean]
        slow.mean += 0.01 * (now - slow.mean)
        slow.row(row, high, now)
        if high or sensor.high or sensor.kept:
            remember(sensor, high, [now] * 3)
        assert sensor.mean[0] == slow.mean
        assert sensor.kept is (slow.copy is not None)
    assert slow.restored


def test_learning_after_the_scale_came_back_starts_from_it() -> None:
    """A restored sensor and one that never had a fault learn alike from then on."""
    restored, other = fresh(), fresh()
    run(restored, True, WILD, LEARNT_ROWS + 1)
    restored.mean, restored.variance = [50.0] * 3, [900.0] * 3
    run(restored, False, CALM, CALM_ROWS)
    for sensor in (restored, other):
        units = units_of(sensor.variance)
        learn(sensor, deviations(sensor, [0.5] * 3, sensor.mean, units), units)
    assert (restored.mean, restored.variance) == (other.mean, other.variance)


def faulty(first_rows: int, second_rows: int = 300) -> F64:
    """A prefix of 1 000 rows, a fault, 1 500 rows of health, and the same fault again."""
    values = plant.healthy(np.random.default_rng(3), 1000 + 1500 + first_rows + 1500 + second_rows + 200)
    values[2500 : 2500 + first_rows] += 12
    again = 2500 + first_rows + 1500
    values[again : again + second_rows] += 12
    return values


def pipeline() -> ReadingsPipeline:
    config = plant.readings_config(warmup=1000, false_alarms=plant.per_readings(10_000))
    return plant.pipeline_of(config, plant.model_of())


def opened(values: F64) -> list[int]:
    """The rows at which a sensor with these values has an episode opened."""
    groups = [[reading] for reading in plant.readings_of("s", values)]
    messages = plant.play(pipeline(), plant.records_of(groups), range(0, len(values), 500))
    alerts = [decode_alert(message.value) for message in messages]
    times = [parse_time(alert.detected_at) for alert in alerts if alert.event == "opened"]
    return [(time - plant.START) // plant.SECOND for time in times]


def test_a_fault_after_a_long_one_is_announced() -> None:
    rows = opened(faulty(3000))
    assert any(2500 <= row < 2800 for row in rows)
    assert any(7000 <= row < 7300 for row in rows)


def test_it_does_not_matter_where_batches_end_around_a_long_fault() -> None:
    config = plant.readings_config(warmup=1000, false_alarms=plant.per_readings(10_000))
    records = plant.records_of([[reading] for reading in plant.readings_of("s", faulty(1200, 60))])
    states = []
    for cuts in ([], range(0, len(records), 331), [2810, 2811, 2812, 3749, 3750, 3751]):
        one = plant.pipeline_of(config, plant.model_of())
        messages = plant.play(one, records, cuts)
        states.append(([message.value for message in messages], plant.state_of(one, config)))
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("silent", [True, False], ids=["mute", "heard"])
def test_a_mute_signal_does_not_hold_the_fault_up(silent: bool) -> None:
    sensor = fresh()
    if silent:
        sensor.worst[1] = np.inf
    assert run(sensor, True, WILD, LEARNT_ROWS + 1) == []
    assert sensor.kept
    back = [remember(sensor, False, [CALM, WILD, CALM]) for _ in range(CALM_ROWS)]
    assert back[-1] == silent
