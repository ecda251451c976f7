"""What sensors do in the field, and what is promised about each: the whole path, a budget of 1 in 2 000 readings."""

from __future__ import annotations

import numpy as np
import pytest

from detector.arrays import F64
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading

WARMUP = 1500
FAULT = 5000
DEVIATION = 2.15
"""Of a healthy sensor of `plant`: a cycle of amplitude 3 and noise of 0.4."""


def played(values: F64, *, update_every: int | None = None) -> list[Alert]:
    """The alerts over one sensor's readings (L,), one a second; NaN: a null."""
    readings = [
        Reading("a", START + row * SECOND, (None if np.isnan(value) else value,))
        for row, value in enumerate(values.tolist())
    ]
    config = plant.readings_config(warmup=WARMUP, false_alarms=plant.per_readings(2000), update_every=update_every)
    records = plant.records_of([readings[i : i + 100] for i in range(0, len(readings), 100)])
    return [decode_alert(m.value) for m in plant.play(plant.pipeline_of(config, plant.model_of()), records)]


def row(time: str | None) -> int:
    assert time is not None
    return (parse_time(time) - START) // SECOND


def opened(alerts: list[Alert], first: int, last: int) -> list[Alert]:
    """Openings from row `first` up to `last`, excluded."""
    return [a for a in alerts if a.event == "opened" and first <= row(a.detected_at) < last]


def closing(alerts: list[Alert], opening: Alert) -> int:
    """The last row of an episode."""
    (closed,) = (a for a in alerts if a.alert_id == opening.alert_id and a.event == "closed")
    return row(closed.ended_at)


def healthy(rows: int = 7000, seed: int = 2) -> F64:
    return plant.healthy(np.random.default_rng(seed), rows)[:, 0]


def with_fault(values: F64, first: int = FAULT, rows: int = 100, size: float = 6.0) -> F64:
    out = values.copy()
    out[first : first + rows] += size * DEVIATION
    return out


def test_a_sensor_flat_in_training_may_come_alive() -> None:
    """That is said at once, in one episode for as long as the scale needs to grow from nothing: under 8 000 rows."""
    values = np.full(12_000, 42.0)
    values[3000:] += np.random.default_rng(0).normal(0, 1, 9000)
    alerts = played(values)
    assert opened(alerts, 0, 3000) == []
    (only,) = opened(alerts, 3000, 9000)
    assert row(only.detected_at) < 3050
    assert closing(alerts, only) < 11_000


def test_a_sensor_may_stand_still_and_go_on() -> None:
    """That is two changes and at most as many alarms; a fault afterwards is found."""
    values = healthy()
    values[3000:3600] = values[3000]
    alerts = played(with_fault(values))
    assert len(opened(alerts, 3000, FAULT)) <= 2
    assert opened(alerts, FAULT, FAULT + 100)


def test_slow_drift_costs_no_more_than_the_budget() -> None:
    """Three deviations over 15 000 rows."""
    values = healthy(WARMUP + 15_000)
    values[WARMUP:] += np.linspace(0, 3 * DEVIATION, 15_000)
    assert len([a for a in played(values) if a.event == "opened"]) <= 15_000 / 2000


@pytest.mark.parametrize("share", [0.03, 0.3])
def test_missing_readings_make_no_alarm_and_hide_no_fault(share: float) -> None:
    values = with_fault(healthy())
    values[np.random.default_rng(1).random(len(values)) < share] = np.nan
    alerts = played(values)
    assert len(opened(alerts, 0, FAULT)) <= 2
    assert opened(alerts, FAULT, FAULT + 100)


def test_a_gap_costs_one_alarm_at_most() -> None:
    """An hour without readings empties the window. The averages that start again after it may say so once."""
    values = with_fault(healthy(9000), 8000)
    values[3000:6600] = np.nan
    alerts = played(values)
    assert len(opened(alerts, 2950, 7500)) <= 1
    assert opened(alerts, 8000, 8100)


def test_a_larger_amplitude_is_said_and_becomes_normal() -> None:
    values = healthy(11_000)
    values[FAULT:] = 50 + 2.5 * (values[FAULT:] - 50)
    alerts = played(values)
    (first, *_) = opened(alerts, FAULT, FAULT + 100)
    assert closing(alerts, first) < FAULT + 4000


def test_one_spike_in_the_training_data_hides_no_fault() -> None:
    values = with_fault(healthy(), rows=300)
    values[700] += 20 * DEVIATION
    alerts = played(values)
    assert opened(alerts, FAULT, FAULT + 300)


def test_updates_of_an_open_episode_tell_of_a_worse_fault_inside_it() -> None:
    """No second episode opens; the next update carries the higher peak, and severity rises where it was lower."""
    values = with_fault(healthy(), rows=800, size=0.6)
    before = played(values, update_every=300 * SECOND)
    alerts = played(with_fault(values, FAULT + 400, 200, 30.0), update_every=300 * SECOND)
    (only,) = opened(alerts, FAULT, FAULT + 700)
    assert only.severity == "warning"
    updates = [a for a in alerts if a.alert_id == only.alert_id and a.event == "updated"]
    quiet = max(a.peak_score for a in before if a.event == "updated")
    told = [a for a in updates if a.peak_score > 10 * quiet]
    assert told
    assert told[0].severity == "critical"
    assert told[0].window is not None
    assert told[0].window.timestamps[-1] < (START // SECOND + FAULT + 400 + 400) * 1000  # a record is 100 rows


@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_to_a_new_normal_ends_and_a_fault_beyond_it_is_found(sign: int) -> None:
    values = healthy(12_000)
    values[3000:] += sign * 6 * DEVIATION
    alerts = played(with_fault(values, 10_000, rows=300, size=sign * 6.0))
    (first, *_) = opened(alerts, 3000, 3050)
    assert closing(alerts, first) < 3000 + 4000
    assert opened(alerts, 10_000, 10_300)
