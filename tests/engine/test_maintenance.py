"""Maintenance windows: whose they are, what is muted in them, when it is told after all, and what is not learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from detector.arrays import F64
from detector.config.load import MaintenanceConfig, ReadingsConfig
from detector.detection.table import SensorTable
from detector.engine.maintenance import Maintenance
from detector.engine.output import Output
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START, maintenance

CONFIG = plant.readings_config(warmup=600, false_alarms=plant.per_readings(1000))


def values(*faults: tuple[int, int], rows: int = 3000, size: float = 20) -> F64:
    """(rows, 1) with faults from row to row."""
    column = plant.healthy(np.random.default_rng(2), rows)
    for begin, end in faults:
        column[begin:end] += size
    return column


def run(
    column: F64, windows: Sequence[MaintenanceConfig] = (), config: ReadingsConfig = CONFIG
) -> tuple[list[Alert], SensorTable, int]:
    """What is published of a sensor `pump-1`, its state in the end, and how many episodes a person is called for."""
    readings = plant.readings_of("pump-1", column)
    records = plant.records_of([readings[i : i + 50] for i in range(0, len(readings), 50)])
    pipeline = plant.pipeline_of(config, plant.model_of(), maintenance=windows)
    outputs: list[Output] = [pipeline.process(batch) for batch in plant.batches_of(records, range(0, 60, 7))]
    alerts = [decode_alert(message.value) for output in outputs for message in output.alerts]
    return alerts, plant.table_of(pipeline, config), sum(output.opened for output in outputs)


def told(alerts: Sequence[Alert]) -> list[tuple[str, bool]]:
    return [(alert.event, alert.muted) for alert in alerts]


# -- whose, and when -----------------------------------------------------------------------------------------------


def test_a_window_has_its_beginning_and_not_its_end() -> None:
    windows = Maintenance([maintenance("a*", 10, 20)])
    at = [START + second * SECOND for second in (9, 10, 19, 20)]
    assert [windows.until("a1", time) > time for time in at] == [False, True, True, False]
    assert windows.until("b", at[1]) == at[1]


def test_windows_that_touch_or_overlap_are_one() -> None:
    windows = Maintenance(
        [maintenance("a", 30, 40), maintenance("*", 10, 20), maintenance("a", 15, 30), maintenance("b", 40, 50)]
    )
    assert windows.until("a", START + 10 * SECOND) == START + 40 * SECOND
    assert list(windows.of("a")) == [0, 1, 2]
    assert windows.without_sensors(["a", "c"]) == [3]


# -- what is muted -------------------------------------------------------------------------------------------------


def test_an_episode_inside_is_scored_and_muted() -> None:
    free, _, called = run(values((1500, 1560)))
    assert (told(free), called) == ([("opened", False), ("closed", False)], 1)
    muted, _, called = run(values((1500, 1560)), [maintenance("pump-*", 1400, 2000)])
    assert (told(muted), called) == ([("opened", True), ("closed", True)], 0)
    assert [alert.alert_id for alert in muted] == [alert.alert_id for alert in free]
    assert muted[0].score == free[0].score
    other, _, called = run(values((1500, 1560)), [maintenance("fan-*", 1400, 2000)])
    assert (other, called) == (free, 1)


def test_a_fault_that_outlives_the_maintenance_is_told() -> None:
    alerts, _, called = run(values((1500, 1800)), [maintenance("*", 1400, 1700)])
    assert (told(alerts), called) == ([("opened", True), ("updated", False), ("closed", False)], 1)
    assert alerts[1].window is not None
    assert alerts[1].window.timestamps[-1] == (START + 1700 * SECOND) // 10**6
    assert [alert.sequence for alert in alerts] == [0, 1, 2]


def test_one_that_only_fades_after_the_maintenance_is_not() -> None:
    config = plant.readings_config(warmup=600, close_after=400)
    alerts, _, called = run(values((1500, 1560)), [maintenance("*", 1400, 1800)], config)
    assert (told(alerts), called) == ([("opened", True), ("closed", True)], 0)
    assert alerts[1].window is not None
    assert alerts[1].window.timestamps[-1] > (START + 1900 * SECOND) // 10**6


def test_an_episode_from_before_stays_told() -> None:
    alerts, _, called = run(values((1500, 1700)), [maintenance("*", 1600, 2400)])
    assert (told(alerts), called) == ([("opened", False), ("closed", False)], 1)


def test_what_is_muted_is_counted_apart() -> None:
    readings = plant.readings_of("pump-1", values((1500, 1800), rows=2200))
    pipeline = plant.pipeline_of(CONFIG, plant.model_of(), maintenance=[maintenance("*", 1400, 1700)])
    open_now, muted = [], 0
    counted: dict[str, int] = {}
    for batch in plant.batches_of(plant.records_of([[reading] for reading in readings]), (1600, 1750)):
        output = pipeline.process(batch)
        open_now.append((pipeline.open_episodes, pipeline.muted_episodes))
        counted |= {event: count for (event, _), count in output.events.items()}
        muted += output.muted
    assert open_now == [(1, 1), (1, 0), (0, 0)]
    assert (counted, muted) == ({"updated": 1, "closed": 1}, 1)


# -- what is learnt ------------------------------------------------------------------------------------------------


def test_the_adaptive_scale_learns_nothing_of_what_is_unusual_inside() -> None:
    fault = values((1500, 2000), rows=2000)
    tables = run(fault[:1500])[1], run(fault)[1], run(fault, [maintenance("*", 1400, 2400)])[1]
    before, learnt, muted = (float(table["mean"][0, 2]) for table in tables)
    assert muted == pytest.approx(before, rel=0.2)
    assert learnt > 2 * before


def test_nor_does_the_threshold() -> None:
    fault = values((1500, 2000), rows=2400)
    (_, before, _), (_, learnt, _) = run(fault[:1500]), run(fault)
    alerts, muted, _ = run(fault, [maintenance("*", 1400, 2400)])
    assert told(alerts) == [("opened", True), ("closed", True)]
    spent = [float(table["credit"][0]) for table in (before, learnt, muted)]
    assert spent[2] - spent[0] == pytest.approx(900 / 1000)
    assert spent[2] - spent[1] == pytest.approx(1)
    assert learnt["peaks_seen"][0] > muted["peaks_seen"][0]


def test_the_usual_level_learns_nothing_either() -> None:
    config = plant.readings_config(warmup=600, direction="above")
    windows = [maintenance("*", 1400, 2400)]
    usual = [
        float(table["usual"][0, 0])
        for _, table, _ in (
            run(values(rows=1500), (), config),
            run(values((1500, 2000), rows=2000), (), config),
            run(values((1500, 2000), rows=2000), windows, config),
        )
    ]
    assert usual[1] - usual[0] > 0.2
    assert abs(usual[2] - usual[0]) < 0.05


def test_an_episode_that_is_muted_ends_by_a_timer_without_costing_anything() -> None:
    config = plant.readings_config(warmup=600, false_alarms=plant.per_readings(1000), max_duration=50 * SECOND)
    alerts, table, called = run(values((1500, 1700), rows=1700), [maintenance("*", 1400, 2000)], config)
    assert told(alerts) == [("opened", True), ("closed", True)]
    assert (alerts[1].close_reason, called) == ("max_duration", 0)
    assert not table["muted"][0]
    assert table["credit"][0] == pytest.approx(min(1100 / 1000, math.inf))
