"""What comes at the same hour every day: of which sensors the third time is hushed, and what is told all the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64, I64
from detector.detection.daily import DAY, HOUR, KEPT_FOR
from detector.detection.episodes import end_from_outside, judge_row
from detector.detection.kernel.cells import OPENED
from detector.detection.sensor import Sensor, store
from detector.detection.threshold import begin, first_reservoir
from detector.streams.base import Batch
from detector.times import SECOND, parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.reference_rules import Reading
from tests.sensors import cells_for, sensor_of
from tests.shifts import MONDAY, shifts, two_shifts

STEP = HOUR // 4
QUIET = -1.0


def fresh(**cells: Any) -> Sensor:
    """A sensor whose prefix has no week; its episodes open at v = 0."""
    reservoir = first_reservoir([0.0], 10_000, 10_000)
    sensor = sensor_of(close_after=2, **({"brief": True} | reservoir | {"credit": 3.0} | cells))
    begin(sensor)
    return sensor


def told(sensor: Sensor, *episodes: tuple[float, float, float], inside: bool = False) -> list[bool]:
    """Of episodes at some hours, of so many hours and with this v: whether each was told."""
    found = []
    for hour, hours, v in episodes:
        rows = int(hours * HOUR) // STEP + 1
        judged = [judge_row(sensor, v, int(hour * HOUR) + row * STEP, inside)[0] for row in range(rows)]
        for row in range(rows, rows + 2):
            judge_row(sensor, QUIET, int(hour * HOUR) + row * STEP, False)
        found.append(OPENED in judged)
    return found


def at_six(*days: float, hours: float = 2.0, v: float = 2.0) -> list[tuple[float, float, float]]:
    return [(24 * day + 6, hours, v) for day in days]


def test_the_third_episode_at_an_hour_of_other_days_is_hushed_and_so_are_those_after_it() -> None:
    sensor = fresh()
    credit = sensor.credit
    assert told(sensor, *at_six(0, 1, 2, 3, 4, 7)) == [True, True, False, False, False, False]
    assert not sensor.open
    assert not sensor.hushed
    assert sensor.credit == pytest.approx(credit - 2, abs=0.02)


def test_what_lay_within_two_episodes_is_usual_and_no_other_hour_is() -> None:
    sensor = fresh()
    told(sensor, *at_six(0, 1, hours=5.0))
    assert told(sensor, (48 + 10, 1.0, 2.0), (72 + 13, 1.0, 2.0)) == [False, True]


def test_two_episodes_of_one_day_are_one_day() -> None:
    assert told(fresh(), (5.5, 0.5, 2.0), (6.5, 0.5, 2.0), *at_six(1, 2)) == [True, True, True, False]


def test_an_episode_of_days_says_nothing_of_hours_but_that_of_its_opening() -> None:
    sensor = fresh()
    told(sensor, (6.0, 30.0, 2.0), (54.0, 30.0, 2.0))
    assert told(sensor, (96 + 15, 1.0, 2.0), (120 + 6, 1.0, 2.0)) == [True, False]


@pytest.mark.parametrize(("louder", "longer"), [({"v": 2.8}, {}), ({}, {"hours": 4.75})])
def test_what_is_more_than_twice_as_loud_or_as_long_is_told(louder: dict[str, float], longer: dict[str, float]) -> None:
    sensor = fresh()
    assert told(sensor, *at_six(0, 1, 2)) == [True, True, False]
    assert told(sensor, *at_six(3, **louder, **longer)) == [True]


def test_where_the_prefix_has_a_week_all_are_told() -> None:
    assert told(fresh(brief=False), *at_six(0, 1, 2, 3)) == [True] * 4


def test_what_is_muted_or_long_ago_makes_nothing_usual() -> None:
    sensor = fresh()
    told(sensor, *at_six(0, 1), inside=True)
    assert told(sensor, *at_six(2, 3)) == [True, True]
    assert told(sensor, *at_six(4 + KEPT_FOR // DAY)) == [True]


def test_no_episode_that_was_hushed_is_ended_from_outside() -> None:
    sensor = fresh()
    told(sensor, *at_six(0, 1))
    judge_row(sensor, 2.0, 54 * HOUR, False)
    cells = cells_for(1)
    store([sensor], cells)
    assert sensor.hushed
    assert end_from_outside(cells, hold=False) == []


# -- what is told ----------------------------------------------------------------------------------------------------


def alarms(times: I64, values: F64, warmup: int, real: float = math.inf) -> list[float]:
    """Days after Monday, 0:00, at which episodes of a sensor opened; the last one before `real` is said to be that."""
    config = plant.readings_config(warmup=warmup, false_alarms=plant.per_readings(10_000), open_after=(10, 10))
    rows = [Reading("press", time, (value,)) for time, value in zip(times.tolist(), values.tolist(), strict=True)]
    pipeline = plant.pipeline_of(config, plant.model_of())
    found: list[Alert] = []
    for i in range(0, len(rows), 500):
        (record,) = plant.records_of([rows[i : i + 500]])
        records = [record._replace(offset=plant.offset_of(i))]
        if (rows[i].time - MONDAY) / DAY >= real:
            records.insert(0, plant.verdict("press", found[-1].alert_id, "real", plant.offset_of(i) - 1))
            real = math.inf
        output = pipeline.process(Batch(plant.PARTITION, records, records[-1].offset + 1))
        found += [alert for message in output.alerts if (alert := decode_alert(message.value)).event == "opened"]
    return [(parse_time(one.detected_at) - MONDAY) / DAY for one in found]


@pytest.mark.parametrize(
    ("interval", "idle", "days"), [(30 * SECOND, 8, 5.5), (60 * SECOND, 56, 11), (120 * SECOND, 56, 18)]
)
def test_a_prefix_that_is_all_night_causes_three_alarms_at_most(interval: int, idle: int, days: float) -> None:
    """Two shifts on five days, learnt from a night or a weekend; `idle` hours."""
    times, values = shifts(days, two_shifts, interval=interval, begin=MONDAY + (6 - idle) * HOUR)
    assert 1 <= len(alarms(times, values, (idle - 1) * HOUR // interval)) <= 3


def test_a_fault_at_an_hour_that_is_hushed_is_told() -> None:
    times, values = shifts(7, two_shifts, interval=60 * SECOND, begin=MONDAY - 50 * HOUR)
    calm = alarms(times, values, 55 * 60)
    fault = (times >= MONDAY + 4 * DAY + 7 * HOUR) & (times < MONDAY + 4 * DAY + 8 * HOUR)
    found = alarms(times, np.where(fault, values + 40.0, values), 55 * 60)
    assert len(calm) == 2
    assert found[:2] == calm
    assert found[2] == pytest.approx(4 + 7 / 24, abs=0.02)


def test_what_a_person_has_called_real_is_told_the_next_day_too() -> None:
    times, values = shifts(5.5, two_shifts, interval=60 * SECOND, begin=MONDAY - 50 * HOUR)
    assert [int(day) for day in alarms(times, values, 55 * 60)] == [0, 1]
    assert [int(day) for day in alarms(times, values, 55 * 60, real=2.1)] == [0, 1, 2, 3]
