"""What a long fault taught is forgotten when the fault is over, and kept when it turns out to be the new normal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.columns import columns
from detector.detection.faultmemory import CALM_ROWS, COLD_ROWS, FAULT_MEMORY, LEARNT_ROWS, PATIENCE, FaultMemory
from detector.detection.signals import deviation, learn
from detector.engine.readings import ReadingsPipeline
from detector.times import parse_time
from detector.wire.alerts import decode_alert
from tests import plant

WORST_ZZ = 4.0
CALM, WILD = 0.0, 100.0


def cells_of(sensors: int) -> dict[str, Any]:
    """The recovery columns of sensors that never had a fault, as the table gives them (one channel)."""
    return {
        c.name: np.full((sensors, *c.shape), c.empty, dtype=c.dtype) for c in columns(1, 10) if c.name in FAULT_MEMORY
    }


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


def run(recovery: FaultMemory, high: bool, signal: float, rows: int, mean: F64, variance: F64) -> list[int]:
    """So many equal rows of one sensor; the rows, eligible from 1, at which its scale was put back."""
    flags, values = np.array([high]), np.full((3, 1), signal)
    return [row for row in range(1, rows + 1) if recovery.row(flags, values, mean, variance)]


def fresh() -> tuple[dict[str, Any], FaultMemory, F64, F64]:
    cells = cells_of(1)
    return cells, FaultMemory(cells, np.array([WORST_ZZ])), np.zeros((3, 1)), np.ones((3, 1))


def test_a_copy_is_kept_from_the_row_after_the_last_one_that_may_teach() -> None:
    cells, recovery, mean, variance = fresh()
    run(recovery, True, WILD, LEARNT_ROWS, mean, variance)
    assert not cells["kept"][0]
    mean[:] = 7.0
    run(recovery, True, WILD, 1, mean, variance)
    recovery.store()
    assert cells["kept"][0]
    assert cells["kept_mean"].tolist() == [[7.0, 7.0, 7.0]]


def test_the_count_of_high_rows_survives_a_short_calm_only() -> None:
    for quiet, eligible in ((COLD_ROWS - 1, True), (COLD_ROWS, False)):
        cells, recovery, mean, variance = fresh()
        run(recovery, True, WILD, LEARNT_ROWS, mean, variance)
        run(recovery, False, CALM, quiet, mean, variance)
        run(recovery, True, WILD, 1, mean, variance)
        assert bool(cells["kept"][0]) is eligible


def test_the_scale_comes_back_once_the_signals_are_calm_by_the_copy() -> None:
    cells, recovery, mean, variance = fresh()
    run(recovery, True, WILD, LEARNT_ROWS + 1, mean, variance)
    mean[:], variance[:] = 50.0, 900.0
    assert run(recovery, False, CALM, CALM_ROWS - 1, mean, variance) == []
    assert run(recovery, True, WILD, 1, mean, variance) == []
    assert run(recovery, False, CALM, CALM_ROWS, mean, variance) == [CALM_ROWS]
    assert mean.tolist() == [[0.0]] * 3
    assert variance.tolist() == [[1.0]] * 3
    assert not recovery.active
    assert not cells["kept"][0]


def test_a_new_normal_keeps_what_it_taught() -> None:
    cells, recovery, mean, variance = fresh()
    run(recovery, True, WILD, LEARNT_ROWS + 1, mean, variance)
    mean[:], variance[:] = 100.0, 4.0
    assert run(recovery, False, WILD, PATIENCE - 1, mean, variance) == []
    assert cells["kept"][0]
    assert run(recovery, False, WILD, 1, mean, variance) == []
    assert not cells["kept"][0]
    assert mean.tolist() == [[100.0]] * 3


@pytest.mark.parametrize("seed", range(6))
def test_many_sensors_side_by_side_do_what_each_does_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sensors, rows = 5, 12_000
    together = cells_of(sensors)
    mean, variance = np.zeros((3, sensors)), np.ones((3, sensors))
    slow = [Slow() for _ in range(sensors)]
    # Spells of trouble and of calm, of all lengths around the limits, and rows that break them.
    troubled = np.zeros((rows, sensors), dtype=bool)
    for sensor in range(sensors):
        lengths = rng.choice([20, 49, 50, 51, 120, 299, 301, 600, 3000], 200)
        spells = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)[:rows]
        troubled[:, sensor] = spells ^ (rng.random(rows) < rng.choice([0.0, 0.002, 0.02]))
    recovery = FaultMemory(together, np.full(sensors, WORST_ZZ))
    for row in range(rows):
        if row % 97 == 0:
            recovery.store()
            recovery = FaultMemory(together, np.full(sensors, WORST_ZZ))
        signal = np.where(troubled[row], 30.0 + rng.random(sensors), rng.random(sensors))
        mean += 0.01 * (signal - mean)
        for sensor, one in enumerate(slow):
            one.mean += 0.01 * (float(signal[sensor]) - one.mean)
            one.row(row, bool(troubled[row, sensor]), float(signal[sensor]))
        if troubled[row].any() or recovery.active:
            recovery.row(troubled[row], np.tile(signal, (3, 1)), mean, variance)
        assert mean[0].tolist() == [one.mean for one in slow]
        assert together["kept"].tolist() == [one.copy is not None for one in slow]
    assert sum(len(one.restored) for one in slow) > 3


def test_learning_after_the_scale_came_back_starts_from_it() -> None:
    """A restored sensor and one that never had a fault learn alike from then on."""
    _, recovery, mean, variance = fresh()
    run(recovery, True, WILD, LEARNT_ROWS + 1, mean, variance)
    mean[:], variance[:] = 50.0, 900.0
    run(recovery, False, CALM, CALM_ROWS, mean, variance)
    other_mean, other_variance = np.zeros((3, 1)), np.ones((3, 1))
    for m, v in ((mean, variance), (other_mean, other_variance)):
        zz, unit = deviation(np.full((3, 1), 0.5), m, v)
        learn(zz, unit, m, v, np.array([9000.0]))
    assert mean.tobytes() == other_mean.tobytes()
    assert variance.tobytes() == other_variance.tobytes()


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
    cells = cells_of(1)
    mute = np.array([[False], [True], [False]]) if silent else None
    recovery, mean, variance = FaultMemory(cells, np.array([WORST_ZZ]), mute), np.zeros((3, 1)), np.ones((3, 1))
    assert run(recovery, True, WILD, LEARNT_ROWS + 1, mean, variance) == []
    assert cells["kept"][0]
    values = np.array([[CALM], [WILD], [CALM]])
    back = [recovery.row(np.array([False]), values, mean, variance) for _ in range(CALM_ROWS)]
    assert back[-1] == silent
