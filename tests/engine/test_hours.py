"""Machines that go by the time of the day, through the pipeline: what is told of other hours, and what is learnt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.arrays import F64, I64
from detector.config.load import CalendarConfig, MaintenanceConfig, ReadingsConfig
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Record
from detector.times import parse_time, rfc3339
from detector.wire.alerts import Alert, decode_alert
from detector.wire.json_readings import ReadingDecoder
from tests import plant
from tests.plant import PARTITION
from tests.reference_rules import Reading
from tests.shifts import DAY, HOUR, MONDAY, Spans, shifts, two_shifts

LEARNT = 18
"""Days."""
STEP = HOUR // 2
MODEL = plant.model_of()


def pipeline(
    config: ReadingsConfig, calendar: Sequence[CalendarConfig] = (), maintenance: Sequence[MaintenanceConfig] = ()
) -> ReadingsPipeline:
    return ReadingsPipeline(
        PARTITION, config, MODEL, ReadingDecoder(config.fields, config.channels),
        dead_letters="dead-letters", alerts="alerts", calendar=calendar, maintenance=maintenance,
    )  # fmt: skip


def config_of(timezone: str | None = "UTC", **more: object) -> ReadingsConfig:
    config = plant.readings_config(
        warmup=LEARNT * 48,
        false_alarms=plant.per_readings(10_000),
        open_after=(3, 3),
        **more,  # type: ignore[arg-type]
    )
    return config.model_copy(update={"timezone": timezone})


def by_day(times: I64, values: F64, sensor: str = "press") -> list[list[Reading]]:
    """A message a day."""
    ends = np.flatnonzero(np.diff((times - MONDAY) // DAY)) + 1
    parts = zip(np.split(times, ends), np.split(values, ends), strict=True)
    return [[Reading(sensor, int(time), (float(value),)) for time, value in zip(*part, strict=True)] for part in parts]


def told(made: ReadingsPipeline, times: I64, values: F64) -> list[Alert]:
    messages = plant.play(made, plant.records_of(by_day(times, values)))
    return [decode_alert(message.value) for message in messages]


def told_from(made: ReadingsPipeline, times: I64, values: F64, days: int) -> list[Alert]:
    """What is told of rows that come behind those of so many days."""
    records = [
        Record(plant.offset_of(i), None, plant.message(group)) for i, group in enumerate(by_day(times, values), days)
    ]
    return [decode_alert(message.value) for message in plant.play(made, records)]


def opened(alerts: Sequence[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.event == "opened"]


def other(*days: int, runs: Callable[[int], Spans]) -> Callable[[int], Spans]:
    """Two shifts, but for some days."""
    return lambda day: runs(day) if day in days else two_shifts(day)


def idle(day: int) -> Spans:
    return []


def night(day: int) -> Spans:
    return [*two_shifts(day), (0, 6)]


OFF = 22  # a Tuesday


# -- what is told ----------------------------------------------------------------------------------------------------


def test_a_day_off_is_told_and_named() -> None:
    alerts = told(pipeline(config_of()), *shifts(27, other(OFF, runs=idle)))
    (alert,) = opened(alerts)
    assert alert.what is not None
    assert alert.what.kind == "context"
    text = alert.what.text
    assert re.fullmatch(r"idle at [01]\.\d+, where on a Tuesday at 09:00 it usually runs at (9\.\d+|10\.\d)", text)
    assert alert.started_at == rfc3339(MONDAY + OFF * DAY + 6 * HOUR)
    (closed,) = [alert for alert in alerts if alert.event == "closed"]
    assert closed.what == alert.what
    assert closed.ended_at is not None
    assert abs(parse_time(closed.ended_at) - (MONDAY + OFF * DAY + 22 * HOUR)) <= 2 * HOUR


def test_a_night_run_is_told() -> None:
    (alert,) = opened(told(pipeline(config_of()), *shifts(25, other(OFF, runs=night))))
    assert alert.what is not None
    assert alert.what.kind == "context"
    assert re.fullmatch(r"runs at \d\S*, where on a Tuesday at 03:00 it usually is idle at [01]\S*", alert.what.text)


@pytest.mark.parametrize("timezone", ["UTC", None])
def test_without_a_fault_nothing_is_told(timezone: str | None) -> None:
    made = pipeline(config_of(timezone))
    assert told(made, *shifts(40, seed=3)) == []
    assert len(contexts(made, timezone)) == (timezone is not None)


def test_who_has_no_hours_is_judged_as_ever() -> None:
    values = plant.healthy(np.random.default_rng(4), 1500)[:, 0]
    values[1200:1300] += 9
    times = MONDAY + np.arange(1500) * STEP
    one, two = pipeline(config_of()), pipeline(config_of(None))
    assert told(one, times, values) == told(two, times, values) != []
    assert plant.state_of(one, config_of()) == plant.state_of(two, config_of(None))


@pytest.mark.parametrize(("direction", "count"), [("above", 0), ("below", 1)])
def test_the_side_that_is_asked_for_is_that_of_the_hour(direction: str, count: int) -> None:
    made = pipeline(config_of(direction=direction))
    found = [
        one for one in opened(told(made, *shifts(25, other(OFF, runs=idle)))) if one.what and one.what.kind == "context"
    ]
    assert len(found) == count


def test_maintenance_is_no_news() -> None:
    window = MaintenanceConfig.model_validate(
        {"match": "*", "from": rfc3339(MONDAY + OFF * DAY), "to": rfc3339(MONDAY + (OFF + 1) * DAY)}
    )
    assert opened(told(pipeline(config_of(), maintenance=[window]), *shifts(25, other(OFF, runs=idle)))) == []


@pytest.mark.parametrize("like", ["sunday", None])
def test_a_day_of_the_calendar_is_no_news(like: str | None) -> None:
    day = rfc3339(MONDAY + OFF * DAY)[:10]
    holiday = CalendarConfig.model_validate({"from": day, "to": day, "like": like})
    assert opened(told(pipeline(config_of(), [holiday]), *shifts(25, other(OFF, runs=idle)))) == []


def test_a_machine_that_runs_on_a_holiday_is_told() -> None:
    day = rfc3339(MONDAY + OFF * DAY)[:10]
    holiday = CalendarConfig.model_validate({"from": day, "to": day, "like": "sunday"})
    (alert,) = opened(told(pipeline(config_of(), [holiday]), *shifts(25)))
    assert alert.what is not None
    assert "where on a Sunday at" in alert.what.text


# -- clocks that are set ---------------------------------------------------------------------------------------------


SET = 27
"""The day on which clocks are set, a Sunday."""
SPRING = parse_time("2027-03-28T01:00:00Z") - (MONDAY + SET * DAY + HOUR)
"""From the plant's days to those around it."""


def clocks_set(times: I64, values: F64) -> tuple[I64, F64]:
    """A plant that does by local time what it always does: on day `SET` an hour is left out of it, in Berlin."""
    change = MONDAY + SET * DAY + 2 * HOUR
    kept = (times < change) | (times >= change + HOUR)
    times, values = times[kept], values[kept]
    return times - np.where(times < change, HOUR, 2 * HOUR) + SPRING, values


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "UTC"])
def test_a_clock_that_is_set_is_no_fault(timezone: str) -> None:
    made = pipeline(config_of(timezone))
    assert opened(told(made, *clocks_set(*shifts(42, seed=1)))) == []
    assert contexts(made, timezone)["weekly"].all()
    assert len(contexts(made, timezone)) == 1


def test_a_shift_that_moves_as_the_clocks_are_set_is_learnt() -> None:
    """Fourteen days later a machine that rests on a working day is told by the new pattern."""

    def runs(day: int) -> Spans:
        return two_shifts(day) if day < SET + 1 else [] if day == SET + 17 else four_hours_later(day)

    alerts = [
        one for one in opened(told(pipeline(config_of("Europe/Berlin")), *clocks_set(*shifts(50, runs)))) if one.what
    ]
    days = [(parse_time(one.detected_at) - SPRING - MONDAY) // DAY for one in alerts]
    changed = [day for day in days if day <= SET + 14]
    assert 1 <= len(changed) <= 2
    assert days == [*changed, SET + 17]


# -- a prefix that does not know the day ----------------------------------------------------------------------------


def test_who_is_known_from_a_weekend_alone_learns_the_working_days() -> None:
    """A budget allows one alarm in as many rows."""
    step, first, monday = HOUR // 12, MONDAY + 4 * DAY + 22 * HOUR, MONDAY + 7 * DAY + 6 * HOUR
    config = plant.readings_config(warmup=(monday - first) // step, false_alarms=plant.per_readings(10_000))
    alerts = opened(told(pipeline(config), *shifts(35, interval=step, begin=first)))
    assert 1 <= len(alerts) <= 3
    assert all(parse_time(one.detected_at) < MONDAY + 21 * DAY for one in alerts)


# -- what it learns --------------------------------------------------------------------------------------------------


CHANGED = 21


def four_hours_later(day: int) -> Spans:
    """Two shifts that begin at ten and end at two in the night."""
    return [*([(10, 24)] if day % 7 < 5 else []), *([(0, 2)] if 1 <= day % 7 < 6 else [])]


PATTERNS: dict[str, Callable[[int], Spans]] = {
    "four hours later": four_hours_later,
    "one shift": lambda day: [(6, 14)] if day % 7 < 5 else [],
    "nights": lambda day: [(0, 6), (22, 24)] if day % 7 < 5 else [],
    "the weekend, too": lambda day: [(6, 22)],
    "saturdays": lambda day: [(6, 22)] if day % 7 < 6 else [],
    "three shifts": lambda day: [(0, 24)] if day % 7 < 5 else [],
}


@pytest.mark.parametrize(("pattern", "first"), [(name, CHANGED + 3 * (at % 2)) for at, name in enumerate(PATTERNS)])
def test_another_pattern_is_told_twice_at_most_and_then_known(pattern: str, first: int) -> None:
    def runs(day: int) -> Spans:
        return two_shifts(day) if day < first else [] if day == 52 else PATTERNS[pattern](day)

    alerts = [one for one in opened(told(pipeline(config_of()), *shifts(56, runs))) if one.what is not None]
    by_hours = [one for one in alerts if one.what is not None and one.what.kind == "context"]
    before = [one for one in by_hours if parse_time(one.detected_at) < MONDAY + 51 * DAY]
    assert 1 <= len(before) <= 2
    assert all(parse_time(one.detected_at) < MONDAY + (first + 14) * DAY for one in before)
    if pattern != "nights":
        assert len(by_hours) == len(before) + 1, "a day off is a fault by the new pattern"


def test_single_faults_are_told_each() -> None:
    faults = {21: idle, 23: night, 25: idle, 29: idle, 31: night, 36: night}  # a Monday to a Tuesday
    made = pipeline(config_of(close_after=10))
    alerts = opened(told(made, *shifts(40, lambda day: faults.get(day, two_shifts)(day))))
    days = {(parse_time(one.detected_at) - MONDAY) // DAY for one in alerts if one.what and one.what.kind == "context"}
    assert days == set(faults)


def test_an_episode_teaches_nothing() -> None:
    made = pipeline(config_of())
    times, values = shifts(25, other(OFF, runs=idle))
    cut = int(np.searchsorted(times, MONDAY + OFF * DAY))
    records = plant.records_of(by_day(times, values))
    plant.play(made, records[: OFF + 1])
    tuesday = slice(24 + 7, 24 + 21)  # what of it was out of the ordinary from its first row on
    before = contexts(made)["center"][0, tuesday].copy()
    plant.play(made, records[OFF + 1 :])
    assert contexts(made)["center"][0, tuesday].tolist() == before.tolist()
    assert values[cut + 20] < 2


def test_days_that_the_prefix_did_not_have_are_not_missed() -> None:
    config = plant.readings_config(warmup=5 * 48, open_after=(3, 3), close_after=10)
    made = pipeline(config)
    told(made, *shifts(5))  # from Monday to Friday
    (one,) = hours_of(made, config)
    assert (bool(one["weekly"]), int(one["days"])) == (False, 0b11111)
    times, values = shifts(16, other(9, runs=idle))
    later = times >= MONDAY + 5 * DAY
    found = [alert for alert in opened(told_from(made, times[later], values[later], 5)) if alert.what]
    by_hours = [alert for alert in found if alert.what and alert.what.kind == "context"]
    assert [alert.detected_at[:10] for alert in by_hours] == [rfc3339(MONDAY + 9 * DAY)[:10]], "a Wednesday"
    (one,) = hours_of(made, config)
    assert int(one["days"]) == 0b11111, "a weekend is not like them"


def test_a_weekday_that_goes_by_the_others_is_known_then() -> None:
    def always(day: int) -> Spans:
        return [(6, 22)]

    config = plant.readings_config(warmup=150, open_after=(3, 3))
    made = pipeline(config)
    told(made, *shifts(6, always))
    (one,) = hours_of(made, config)
    assert int(one["days"]) == 0b11111


# -- the same however the rows come ----------------------------------------------------------------------------------


def contexts(made: ReadingsPipeline, timezone: str | None = "UTC") -> NDArray[Any]:
    """The states of its sensors' hours."""
    return hours_of(made, config_of(timezone))


def hours_of(made: ReadingsPipeline, config: ReadingsConfig) -> NDArray[Any]:
    """The same of sensors with other settings."""
    table = plant.table_of(made, config)
    return np.concatenate([table.contexts.of(slot) for slot in table.slots.values()])


def stories() -> list[Reading]:
    """Three sensors whose rows come in one order: two by hours, one by none."""
    faults = [other(19, 24, runs=idle), other(20, 21, 27, runs=night)]
    readings = []
    for at, runs in enumerate(faults):
        times, values = shifts(30, runs, seed=at)
        readings += [Reading(f"press-{at}", int(t) + at, (float(v),)) for t, v in zip(times, values, strict=True)]
    values = plant.healthy(np.random.default_rng(4), 30 * 48)[:, 0]
    readings += [Reading("fan", MONDAY + i * STEP + 5, (float(v),)) for i, v in enumerate(values)]
    return sorted(readings, key=lambda one: one.time)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    groups: list[list[Reading]] = [[]]
    rng = np.random.default_rng(0)
    for reading in stories():
        if len(groups[-1]) >= 100 or (rng.random() < 0.02 and groups[-1]):
            groups.append([])
        groups[-1].append(reading)
    return plant.records_of(groups)


def test_any_batches_give_the_same(records: list[Record]) -> None:
    whole, single = pipeline(config_of("Europe/Berlin")), pipeline(config_of("Europe/Berlin"))
    said = plant.play(whole, records)
    kinds = [one.what.kind for one in map(decode_alert, (one.value for one in said)) if one.what]
    assert kinds.count("context") >= 4
    assert plant.play(single, records, range(len(records))) == said
    assert contexts(whole, "Europe/Berlin").tobytes() == contexts(single, "Europe/Berlin").tobytes()


@pytest.mark.parametrize("cut", [60, 75])
def test_a_restart_changes_nothing(records: list[Record], cut: int) -> None:
    whole = pipeline(config_of())
    cut = cut * len(records) // 100
    first, second = list(plant.batches_of(records, [cut]))
    whole.process(first)
    again = pipeline(config_of())
    again.restore(whole.snapshot(), live_from=whole.position)
    assert contexts(again).tobytes() == contexts(whole).tobytes()
    said = whole.process(second).alerts
    assert said
    assert again.process(second).alerts == said
    assert contexts(again).tobytes() == contexts(whole).tobytes()


def test_state_by_other_clocks_is_not_taken_up(records: list[Record]) -> None:
    whole = pipeline(config_of())
    plant.play(whole, records[: len(records) * 7 // 10])
    assert len(contexts(whole)) == 2
    again = pipeline(config_of("Europe/Berlin"))
    again.restore(whole.snapshot(), live_from=whole.position)
    assert len(contexts(again, "Europe/Berlin")) == 0


def test_a_fault_of_every_night_is_told_every_night() -> None:
    """Also of a sensor that knows a day alone, for which it might be usual at the hour: no repetition makes deaf."""
    minute, nights = HOUR // 60, 8
    times, values = shifts(1 + nights, lambda day: [], interval=minute)
    night, since = np.divmod(times - MONDAY, DAY)
    faulty = (night > 0) & (since >= 3 * HOUR) & (since < 4 * HOUR)
    made = plant.pipeline_of(plant.readings_config(warmup=1200, false_alarms=plant.per_readings(10_000)), MODEL)
    found = opened(told(made, times, np.where(faulty, values + 4.0, values)))
    assert [divmod(parse_time(one.detected_at) - MONDAY, DAY)[0] for one in found] == list(range(1, nights + 1))
