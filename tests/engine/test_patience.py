"""`silence_after: auto`: the lengths that sensors have of their own, what they learn, and that stops are no storms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from detector.config.load import MaintenanceConfig, ReadingsConfig
from detector.detection.scorer import Model
from detector.engine import patience
from detector.engine.readings import ReadingsPipeline
from detector.times import rfc3339
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import SECOND, START
from tests.reference import Reference
from tests.reference_rules import Reading

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
Groups = list[list[Reading]]
VALUES = plant.healthy(np.random.default_rng(0), 300)
PROFILES = {
    interval: plant.profile_of(VALUES, plant.reconstructor(), interval=interval)
    for interval in (SECOND, 5 * SECOND, 10 * SECOND, MINUTE, 3 * MINUTE)
}


def config_of(**settings: Any) -> ReadingsConfig:
    return plant.readings_config(**{"warmup": 1000, "silence_after": "auto", "critical_ratio": 1000.0, **settings})


def model_of(**intervals: int) -> Model:
    """Sensors with these intervals."""
    return plant.model_of({name: PROFILES[interval] for name, interval in intervals.items()})


def every(sensor: str, interval: int, *spans: tuple[int, int]) -> list[Reading]:
    """A reading every `interval` ns, from time to time after START."""
    times = [at for begin, end in spans for at in range(begin, end, interval)]
    return [Reading(sensor, START + at, (50.0 + at // interval % 7,)) for at in times]


def together(*sensors: Sequence[Reading]) -> Groups:
    """In order of time, each reading a record."""
    return [[reading] for reading in sorted(itertools.chain(*sensors), key=lambda one: (one.time, one.sensor))]


def silences(
    groups: Groups, model: Model, config: ReadingsConfig | None = None, *, cuts: range = range(0)
) -> list[Alert]:
    pipeline = plant.pipeline_of(config or config_of(), model)
    alerts = [decode_alert(message.value) for message in plant.play(pipeline, plant.records_of(groups), cuts)]
    return [one for one in alerts if one.reason == "silent"]


def opened(groups: Groups, model: Model, config: ReadingsConfig | None = None) -> list[tuple[str, int]]:
    """Who was missed, and for how long by then, s."""
    return [(one.sensor_id, length_of(one)) for one in silences(groups, model, config) if one.event == "opened"]


def length_of(alert: Alert) -> int:
    begin, end = (np.datetime64(time[:-1], "s").astype(int) for time in (alert.started_at, alert.detected_at))
    return int(end - begin)


# -- lengths ---------------------------------------------------------------------------------------------------------


def test_it_is_the_default_and_cameras_have_none() -> None:
    assert ReadingsConfig().silence_after == "auto"


def test_a_length_is_twenty_intervals_on_a_ladder() -> None:
    intervals = {"a": SECOND, "b": 5 * SECOND, "c": 10 * SECOND, "d": MINUTE, "e": 3 * MINUTE}
    others = [every(name, interval, (0, 10 * MINUTE)) for name, interval in intervals.items() if name != "a"]
    found = opened(together(every("a", SECOND, (0, 2 * HOUR + 10 * MINUTE)), *others), model_of(**intervals))
    # Of 20, 100, 200, 1200 and 3600 seconds.
    assert found == [("b", 120), ("c", 240), ("d", 32 * 60), ("e", 64 * 60)]


def test_who_has_no_regular_interval_is_not_missed() -> None:
    irregular = plant.profile_of(VALUES, plant.reconstructor(), interval=SECOND, jitter=0.9)
    assert not irregular.regular
    model = plant.model_of({"a": PROFILES[SECOND], "b": irregular})
    groups = together(
        every("a", SECOND, (0, 20 * MINUTE)), every("b", SECOND, (0, MINUTE)), every("new", SECOND, (0, MINUTE))
    )
    assert opened(groups, model) == []


def test_an_override_may_have_it_or_not() -> None:
    overrides: list[dict[str, Any]] = [
        {"match": "b", "silence_after": None}, {"match": "c", "silence_after": "30s"},
        {"match": "d", "silence_after": "auto"},
    ]  # fmt: skip
    short = [every(name, SECOND, (0, MINUTE)) for name in "bcd"]
    groups = together(every("a", SECOND, (0, 10 * MINUTE)), *short)
    model = model_of(a=SECOND, b=SECOND, c=SECOND, d=SECOND)
    assert opened(groups, model, config_of(overrides=overrides)) == [("c", 30), ("d", 60)]
    assert opened(groups, model, config_of(overrides=overrides, silence_after=None)) == [("c", 30), ("d", 60)]


# -- what is learnt --------------------------------------------------------------------------------------------------


def test_a_silence_that_ended_by_itself_doubles_the_length() -> None:
    model = model_of(a=SECOND, b=SECOND)
    groups = together(every("a", SECOND, (0, 30 * MINUTE)), every("b", SECOND, (0, MINUTE), (3 * MINUTE, 4 * MINUTE)))
    assert opened(groups, model) == [("b", 60), ("b", 120)]


@pytest.mark.parametrize(("begin", "end"), [(0, 4 * MINUTE), (6 * MINUTE, 7 * MINUTE)])
def test_what_lies_in_a_maintenance_window_teaches_nothing(begin: int, end: int) -> None:
    groups = together(every("a", SECOND, (0, 30 * MINUTE)), every("b", SECOND, (0, MINUTE), (3 * MINUTE, 4 * MINUTE)))
    pipeline = plant.pipeline_of(
        config_of(), model_of(a=SECOND, b=SECOND), maintenance=[plant.maintenance("b", begin // SECOND, end // SECOND)]
    )
    alerts = [decode_alert(message.value) for message in plant.play(pipeline, plant.records_of(groups))]
    assert [length_of(one) for one in alerts if (one.event, one.reason) == ("opened", "silent")] == [
        60,
        60 if begin == 0 else 120,
    ]


def uploads(sensor: str, interval: int, every_: int, hours: int, *, late: int = 0) -> list[tuple[int, Reading]]:
    """Readings with the time at which each is sent: all of an hour together, `late` after it is over."""
    return [
        (START + (at // every_ + 1) * every_ + late, Reading(sensor, START + at, (50.0,)))
        for at in range(0, hours * HOUR, interval)
    ]


@pytest.mark.parametrize("interval", [5 * SECOND, MINUTE])
def test_hourly_uploads_are_understood_after_two_alarms(interval: int) -> None:
    live = [(one.time, one) for one in every("live", 10 * SECOND, (0, 9 * HOUR))]
    sent = [one for at in range(8) for one in uploads(f"u{at}", interval, HOUR, 9, late=at * 20 * SECOND)]
    groups = [[one] for _, one in sorted([*live, *sent], key=lambda pair: pair[0])]
    sensors = {f"u{at}": interval for at in range(8)}
    found = opened(groups, model_of(live=10 * SECOND, **sensors))
    assert {sensor for sensor, _ in found} <= set(sensors)
    assert max(sum(one == sensor for one, _ in found) for sensor in sensors) <= 2
    # And then it is missed after a little more than an hour.
    gone = [
        [one]
        for _, one in sorted([*live, *(one for one in sent if one[0] < START + 5 * HOUR)], key=lambda pair: pair[0])
    ]
    assert [length for _, length in opened(gone, model_of(live=10 * SECOND, **sensors))][-8:] == [64 * 60] * 8


@pytest.mark.parametrize("interleaved", [False, True])
def test_packets_in_a_message_are_understood_at_once(interleaved: bool) -> None:
    live = [(one.time, [one]) for one in every("live", SECOND, (0, 30 * MINUTE))]
    names = ["p", "q"] if interleaved else ["p"]
    packets = [
        (START + begin + 100 * SECOND, [one for at in range(begin, begin + 100 * SECOND, SECOND) for name in names
                                       for one in every(name, SECOND, (at, at + SECOND))])
        for begin in range(0, 20 * MINUTE, 100 * SECOND)
    ]  # fmt: skip
    groups = [group for _, group in sorted([*live, *packets], key=lambda pair: pair[0])]
    found = opened(groups, model_of(live=SECOND, **dict.fromkeys(names, SECOND)))
    assert found == [(name, 240) for name in names], "when no more came"
    # Whoever sends single readings from then on is missed as others are.
    singles = together(
        every("live", SECOND, (20 * MINUTE, 30 * MINUTE)), every("p", SECOND, (20 * MINUTE, 22 * MINUTE))
    )
    before = [group for _, group in packets if group[0].time < START + 20 * MINUTE]
    assert opened([*before, *singles], model_of(live=SECOND, p=SECOND))[0] == ("p", 60)


def test_one_long_failure_does_not_make_it_deaf() -> None:
    """Ten hours away cost one doubling, and that is forgotten when it was not needed for two weeks."""
    model = model_of(a=MINUTE, b=MINUTE)
    day = 24 * HOUR
    first = (0, HOUR), (11 * HOUR, 12 * HOUR)
    assert opened(together(every("a", MINUTE, (0, day)), every("b", MINUTE, *first)), model) == [
        ("b", 32 * 60), ("b", 64 * 60),
    ]  # fmt: skip
    later = every("b", MINUTE, (0, HOUR), (11 * HOUR, 15 * day))
    assert opened(together(every("a", MINUTE, (0, 16 * day)), later), model) == [("b", 32 * 60), ("b", 32 * 60)]


def test_a_habit_is_kept_as_long_as_it_is_needed() -> None:
    """Off every night: two alarms, and none in the nights of a month."""
    day = 24 * HOUR
    days = [(at * day, at * day + 14 * HOUR) for at in range(30)]
    model = model_of(a=3 * MINUTE, b=3 * MINUTE)
    found = opened(together(every("a", 3 * MINUTE, (0, 30 * day)), every("b", 3 * MINUTE, *days)), model)
    assert found == [("b", 64 * 60), ("b", 128 * 60)]


def test_who_learns_a_new_pace_gets_the_length_of_it() -> None:
    rng = np.random.default_rng(1)
    values = plant.healthy(rng, 700)
    slow = plant.readings_of("b", values, first=START, interval=10 * SECOND)
    end = (slow[-1].time - START) // SECOND * SECOND
    groups = together(every("a", SECOND, (0, end + HOUR)), slow)
    found = opened(groups, model_of(a=SECOND, b=SECOND), config_of(warmup=200))
    assert found == [("b", 240)]


# -- stops are no storms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [50 * SECOND, 58 * SECOND, 63 * MINUTE, HOUR, 26 * HOUR])
def test_when_everything_stops_nobody_is_missed(stop: int) -> None:
    intervals = {"a": SECOND, "b": 5 * SECOND, "c": MINUTE, "d": 3 * MINUTE, "e": 3 * MINUTE}
    phases = {"e": 2 * MINUTE}
    back = 2 * HOUR + stop
    readings = [
        every(name, interval, (phases.get(name, 0), 2 * HOUR), (back + phases.get(name, 0), back + HOUR))
        for name, interval in intervals.items()
        if name != "a"
    ]
    groups = together(every("a", SECOND, (2 * HOUR - MINUTE, 2 * HOUR), (back, back + MINUTE)), *readings)
    assert [one for one in opened(groups, model_of(**intervals)) if one[0] != "a"] == []


def test_who_is_alone_is_not_missed() -> None:
    alone = together(every("a", SECOND, (0, MINUTE), (5 * HOUR, 5 * HOUR + MINUTE), (30 * HOUR, 30 * HOUR + MINUTE)))
    assert opened(alone, model_of(a=SECOND)) == []
    groups, cut = together(every("a", SECOND, (0, MINUTE)), every("b", 5 * SECOND, (MINUTE, HOUR))), 60
    pipeline = plant.pipeline_of(config_of(), model_of(a=SECOND, b=5 * SECOND))
    parts = [plant.play(pipeline, part) for part in (plant.records_of(groups)[:cut], plant.records_of(groups)[cut:])]
    (missed,) = [one for one in map(decode_alert, (message.value for message in parts[1])) if one.reason == "silent"]
    assert (missed.sensor_id, missed.detected_at, parts[0]) == ("a", rfc3339(START + 119 * SECOND), [])
    assert missed.source.last_offset == plant.offset_of(cut + 12), "of the first record behind that second"


# -- against the reference, however cut ------------------------------------------------------------------------------


@st.composite
def hearings(draw: st.DrawFn) -> tuple[ReadingsConfig, Model, list[MaintenanceConfig], Groups]:
    """Sensors that come and go, alone or together, in packets, uploads and single readings."""
    sensors = {f"s{at}": draw(st.sampled_from([SECOND, 5 * SECOND])) for at in range(draw(st.integers(1, 4)))}
    known = {name: interval for name, interval in sensors.items() if draw(st.integers(0, 4))}
    length = 300 * SECOND
    coming: list[tuple[int, str, list[Reading]]] = []
    pauses = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 90)), max_size=3)
    common = draw(pauses)
    for name, interval in sensors.items():
        away = [*common, *draw(pauses), (0, draw(st.sampled_from([0, 0, 60, 200])))]
        own = [
            one for one in every(name, interval, (0, length))
            if not any(begin <= (one.time - START) // SECOND < begin + size for begin, size in away)
        ]  # fmt: skip
        form, size = draw(st.sampled_from(["single", "single", "packets", "uploads"])), draw(st.integers(2, 40))
        for at in range(0, len(own), 1 if form == "single" else size):
            part = own[at : at + (1 if form == "single" else size)]
            groups = [part] if form == "packets" else [[one] for one in part]
            coming += [(part[-1].time, name, group) for group in groups]
    coming.sort(key=lambda one: one[:2])
    config = config_of(
        warmup=draw(st.sampled_from([150, 1000])),
        silence_after=draw(st.sampled_from(["auto", "auto", "auto", 7 * SECOND])),
        overrides=draw(
            st.sampled_from([[], [{"match": "s0", "silence_after": "9s"}], [{"match": "s1", "silence_after": None}]])
        ),
        idle_eviction=draw(st.sampled_from([None, None, 90 * SECOND])),
        max_duration=draw(st.sampled_from([None, 50 * SECOND])),
        update_every=draw(st.sampled_from([None, 20 * SECOND])),
        critical_ratio=draw(st.sampled_from([2.0, 1000.0])),
    )
    windows = [plant.maintenance("s[01]", 100, 200)] if draw(st.integers(0, 3)) == 0 else []
    return config, model_of(**known), windows, [group for _, _, group in coming]


@settings(
    max_examples=15,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(hearings(), st.data())
def test_who_is_missed_is_what_the_reference_says_however_records_come(
    story: tuple[ReadingsConfig, Model, list[MaintenanceConfig], Groups], data: st.DataObject
) -> None:
    config, model, maintenance, groups = story
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "LADDER", 2 * SECOND << np.arange(20))
        patch.setattr(patience, "INTERVALS", 3)
        patch.setattr(patience, "HABIT", 90 * SECOND)
        records = plant.records_of(groups)
        reference = Reference(config, model, maintenance)
        for record, group in zip(records, groups, strict=True):
            reference.feed(record.offset, group)
        expected = [one for one in reference.events if one.reason == "silent"]
        learnt = sum(bool(sensor.doubled) for sensor in reference.sensors.values())
        event(f"{min(len(expected), 6)} messages, {learnt} patient")

        def make() -> ReadingsPipeline:
            return plant.pipeline_of(config, model, maintenance=maintenance)

        cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=6))
        pipelines = [make(), make()]
        with plant.unrounded() as written:
            messages = plant.play(pipelines[0], records)
        alerts = [decode_alert(message.value) for message in messages]
        ours = [plant.event_of(written[one.alert_id, one.sequence]) for one in alerts if one.reason == "silent"]
        assert ours == expected
        again = []
        for batch in plant.batches_of(records, cuts):
            again += pipelines[1].process(batch).alerts
            if data.draw(st.booleans()):
                stored = pipelines[1].snapshot()
                pipelines[1] = make()
                pipelines[1].restore(stored)
        assert again == messages
        assert plant.state_of(pipelines[1], config) == plant.state_of(pipelines[0], config)
