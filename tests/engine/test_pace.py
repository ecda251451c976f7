"""Sensors whose readings no longer come at the pace of their profile learn it again."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector.arrays import I64
from detector.engine.pace import keeps_windows
from detector.engine.readings import ReadingsPipeline
from detector.times import parse_time
from detector.wire.json_readings import ReadingDecoder
from tests.plant import (
    PARTITION,
    SECOND,
    START,
    batches_of,
    event_of,
    healthy,
    model_of,
    per_readings,
    pipeline_of,
    profile_of,
    readings_config,
    reconstructor,
    records_of,
    state_of,
    unrounded,
)
from tests.reference import Reference
from tests.reference_rules import Event, Reading

MODEL = model_of({"pump": profile_of(healthy(np.random.default_rng(3), 600), reconstructor())})
WARMUP = 150


def times_of(kind: str, rows: int) -> I64:
    """Times of rows, in seconds after START."""
    at = np.arange(rows)
    if kind == "eight-of-sixty":
        seconds = np.arange(2 * rows)
        return np.asarray(seconds[seconds % 60 < 52][:rows])
    if kind == "bursts":
        return np.asarray(at // 60 * 3600 + at % 60)
    if kind == "tenfold":
        return np.asarray(at * 10)
    if kind == "a-tenth":
        return np.asarray(at / 10)
    if kind == "double":
        return np.asarray(at * 2)
    if kind == "alternating":
        return np.cumsum(np.where(at % 2, 1, 10))
    return at


KINDS = ["eight-of-sixty", "bursts", "tenfold", "a-tenth", "double", "alternating"]


def readings(kind: str, rows: int, *, fault: bool = False, seed: int = 4) -> list[Reading]:
    """200 rows at the pace of the profile, and then at another."""
    values = healthy(np.random.default_rng(seed), 200 + rows)
    if fault:
        values[-150:] += 30.0
    seconds = np.r_[np.arange(200), 201 + times_of(kind, rows)]
    return [
        Reading("pump", START + round(at * SECOND), (value,)) for at, value in zip(seconds, values[:, 0], strict=True)
    ]


def run(pipeline: ReadingsPipeline, some: Sequence[Reading], cuts: Sequence[int] = ()) -> tuple[list[Any], list[Any]]:
    """Reasons as they follow each other, and alerts."""
    outputs = [pipeline.process(batch) for batch in batches_of(records_of([[one] for one in some]), cuts)]
    reasons = [change.reason for output in outputs for change in output.watch_changes]
    return reasons, [alert.value for output in outputs for alert in output.alerts]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_watched_again_and_a_fault_is_told(kind: str) -> None:
    """Over every pace at which no window was ever complete, or the intervals were others."""
    config = readings_config(warmup=WARMUP, false_alarms=per_readings(2000))
    some = readings(kind, 900, fault=True)
    reasons, alerts = run(pipeline_of(config, MODEL), some)
    assert reasons.count("relearning") == 1
    assert reasons[-1] is None
    assert any(
        b'"opened"' in alert and parse_time(json.loads(alert)["detected_at"]) >= some[-150].time for alert in alerts
    )


@pytest.mark.parametrize("kind", ["eight-of-sixty", "bursts", "alternating"])
def test_where_windows_cannot_be_complete_there_is_no_interval(kind: str) -> None:
    config = readings_config(warmup=WARMUP)
    pipeline = pipeline_of(config, MODEL)
    run(pipeline, readings(kind, 600))
    assert not pipeline._table["regular"][0]  # noqa: SLF001


@pytest.mark.parametrize(("kind", "interval"), [("tenfold", 10.0), ("a-tenth", 0.1), ("double", 2.0)])
def test_the_budget_follows_the_new_interval(kind: str, interval: float) -> None:
    from detector.config.load import FalseAlarms

    config = readings_config(warmup=WARMUP, false_alarms=FalseAlarms(per_sensor=1, per="6h"))
    pipeline = pipeline_of(config, MODEL)
    run(pipeline, readings(kind, 600))
    table = pipeline._table  # noqa: SLF001
    assert table["regular"][0]
    assert table["median"][0] == pytest.approx(interval * SECOND, rel=1e-6)
    assert table["budget"][0] == pytest.approx(6 * 3600 / interval, rel=1e-6)


AGREED = readings_config(warmup=WARMUP, false_alarms=per_readings(300))


@functools.cache
def expected_of(kind: str) -> tuple[list[Event], Any]:
    """The reference's events, and the state of a run in batches of 77."""
    some = readings(kind, 500, fault=True)
    reference, pipeline = Reference(AGREED, MODEL), pipeline_of(AGREED, MODEL)
    for record, reading in zip(records_of([[one] for one in some]), some, strict=True):
        reference.feed(record.offset, [reading])
    run(pipeline, some, range(0, 1200, 77))
    return reference.events, state_of(pipeline, AGREED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [(), range(3, 1200, 5), range(1200)], ids=["one", "fives", "single"])
def test_batches_and_the_reference_agree(kind: str, cuts: Sequence[int]) -> None:
    expected, state = expected_of(kind)
    pipeline = pipeline_of(AGREED, MODEL)
    with unrounded() as written:
        run(pipeline, readings(kind, 500, fault=True), cuts)
        events = [event_of(alert) for alert in written.values()]
    assert state_of(pipeline, AGREED) == state
    assert [(event.alert_id, event.event, event.close_reason) for event in events] == [
        (event.alert_id, event.event, event.close_reason) for event in expected
    ]
    assert any(event.event == "opened" for event in events)


def test_a_restart_in_the_middle_changes_nothing() -> None:
    config = readings_config(warmup=WARMUP, false_alarms=per_readings(300))
    some = readings("bursts", 500, fault=True)
    records = records_of([[one] for one in some])
    whole = pipeline_of(config, MODEL)
    expected = [alert.value for batch in batches_of(records) for alert in whole.process(batch).alerts]
    for at in (150, 263, 265, 300, 420):
        first, second = pipeline_of(config, MODEL), pipeline_of(config, MODEL)
        (head,), (tail,) = batches_of(records[:at]), batches_of(records[at:])
        alerts = [alert.value for alert in first.process(head).alerts]
        second.restore(first.snapshot())
        alerts += [alert.value for alert in second.process(tail).alerts]
        assert alerts == expected
        assert state_of(second, config) == state_of(whole, config)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("at", [150, 350, 420])
def test_another_model_while_it_relearns(known: bool, at: int) -> None:
    """One that knows the sensor knows it by its pace of before, so that it relearns again; else it goes on.

    At 150 it has not begun, at 420 it has collected half of its warm-up.
    """
    config = readings_config(warmup=WARMUP, false_alarms=per_readings(300))
    other = replace(MODEL, digest="sha256:other", profiles=MODEL.profiles if known else {})
    some = readings("double", 700, fault=True)
    records = records_of([[one] for one in some])
    (head,), tail = batches_of(records[:at]), records[at:]
    first = pipeline_of(config, MODEL)
    told = [change.reason for change in first.process(head).watch_changes]
    outcomes = []
    for cuts in ((), range(at, len(records), 7)):
        second = pipeline_of(config, other)
        assert second.restore(first.snapshot())
        outputs = [second.process(batch) for batch in batches_of(tail, cuts)]
        alerts = [alert.value for output in outputs for alert in output.alerts]
        reasons = [change.reason for output in outputs for change in output.watch_changes]
        outcomes.append((alerts, reasons, state_of(second, config)))
    assert outcomes[0] == outcomes[1]
    alerts, reasons, _ = outcomes[0]
    assert [*told, *reasons].count("relearning") == (2 if known and at > 300 else 1)
    assert reasons[-1] is None
    assert any(b'"opened"' in alert for alert in alerts)


def test_a_sensor_that_changes_its_pace_again_and_again_has_no_interval_in_the_end() -> None:
    config = readings_config(warmup=WARMUP)
    pipeline = pipeline_of(config, MODEL)
    steps = np.repeat(np.resize([10, 1], 12), 300)
    values = healthy(np.random.default_rng(5), len(steps))
    some = [
        Reading("pump", START + int(at) * SECOND, (value,))
        for at, value in zip(np.cumsum(steps), values[:, 0], strict=True)
    ]
    reasons, _ = run(pipeline, some)
    assert reasons.count("relearning") <= 3
    assert reasons[-1] is None


def test_gaps_beyond_max_gap_restart_for_ever_and_are_said() -> None:
    config = readings_config(warmup=WARMUP, window={"max_gap": 5 * SECOND})
    reasons, _ = run(pipeline_of(config, MODEL), readings("tenfold", 300))
    assert reasons == [None, "gaps", "interval", "relearning", None, "gaps", "interval"], "of the interval, once"


def test_single_gaps_teach_nothing() -> None:
    config = readings_config(warmup=WARMUP)
    values = healthy(np.random.default_rng(6), 1200)
    at = np.arange(1200) + np.arange(1200) // 150 * 60
    some = [Reading("pump", START + int(t) * SECOND, (v,)) for t, v in zip(at, values[:, 0], strict=True)]
    reasons, _ = run(pipeline_of(config, MODEL), some)
    assert set(reasons) == {None, "gaps"}


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        (np.arange(500), True),
        (np.arange(500) * 6, True),
        (np.arange(500) // 60 * 100 + np.arange(500) % 60, False),
        (np.arange(1000) // 400 * 1000 + np.arange(1000) % 400, True),
    ],
)
def test_an_interval_is_kept_where_windows_become_complete(times: I64, kept: bool) -> None:
    assert keeps_windows(times * SECOND, SECOND, 5) == kept


def test_there_is_a_sign_of_life_between_sensors_that_do_the_same_at_once() -> None:
    """They are met, begin to relearn, have a new profile, and have an alert, each time all of them in one batch."""
    sensors, config = ["a", "b", "c"], readings_config(warmup=WARMUP, false_alarms=per_readings(2000))
    model = replace(MODEL, profiles=dict.fromkeys(sensors, MODEL.profiles["pump"]))
    signs: list[int] = []
    pipeline = ReadingsPipeline(
        PARTITION, config, model, ReadingDecoder(config.fields, config.channels),
        dead_letters="dead", alerts="alerts", pulse=lambda: signs.append(1),
    )  # fmt: skip
    some = [[one._replace(sensor=sensor)] for one in readings("tenfold", 420, fault=True) for sensor in sensors]
    records, seen = records_of(some), set()
    for batch in batches_of(records, range(0, len(records), len(sensors))):
        signs.clear()
        output = pipeline.process(batch)
        happened = {
            "met": len(output.new_sensors),
            "relearning": sum(change.reason == "relearning" for change in output.watch_changes),
            "watched": sum(change.reason is None for change in output.watch_changes) if "relearning" in seen else 0,
            "alert": len(output.alerts),
        }
        for what, count in happened.items():
            if count:
                seen.add(what)
                assert len(signs) >= count == len(sensors), what
    assert seen == {"met", "relearning", "watched", "alert"}
