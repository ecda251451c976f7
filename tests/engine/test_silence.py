"""Silent episodes: when they open and close, what they say, what is no silence, and how they go with other episodes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from detector.config.load import MaintenanceConfig, ReadingsConfig
from detector.detection.opened import Silence
from detector.engine.readings import ReadingsPipeline
from detector.engine.slices import pack_entry
from detector.streams.base import Message, pack_state
from detector.times import parse_time
from detector.wire.alerts import Alert, alert_id, decode_alert
from detector.wire.schemas import schema
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading

Groups = list[list[Reading]]


def patient(**settings: Any) -> ReadingsConfig:
    """Sensors warm up for longer than these tests last, unless it is said otherwise."""
    return plant.readings_config(**{"warmup": 1000, "silence_after": 30 * SECOND, "critical_ratio": 100.0, **settings})


CONFIG = patient()


def ticks(sensor: str, *spans: tuple[int, int], every: int = 1) -> list[Reading]:
    """A reading of a sensor every this many seconds, from second to second."""
    return [
        Reading(sensor, START + second * SECOND, (50.0 + second % 7,))
        for begin, end in spans
        for second in range(begin, end, every)
    ]


def together(*sensors: Sequence[Reading]) -> Groups:
    """In order of time, each reading a record."""
    return [[reading] for reading in sorted(itertools.chain(*sensors), key=lambda one: (one.time, one.sensor))]


def messages(
    groups: Groups, config: ReadingsConfig = CONFIG, maintenance: Sequence[MaintenanceConfig] = ()
) -> list[Message]:
    pipeline = plant.pipeline_of(config, plant.model_of(), maintenance=maintenance)
    return plant.play(pipeline, plant.records_of(groups), range(0, 10_000, 41))


def alerts(
    groups: Groups, config: ReadingsConfig = CONFIG, maintenance: Sequence[MaintenanceConfig] = ()
) -> list[Alert]:
    return [decode_alert(message.value) for message in messages(groups, config, maintenance)]


def second(time: str | None) -> float:
    """Seconds after START."""
    assert time is not None
    return (parse_time(time) - START) / SECOND


def told(found: Sequence[Alert]) -> list[tuple[str, str, float]]:
    """Event, sensor, and the second it is about."""
    return [(one.event, one.sensor_id, second(one.ended_at or one.detected_at)) for one in found]


LOST = together(ticks("a", (0, 200)), ticks("b", (0, 50), (120, 200)))


def test_a_sensor_that_is_not_heard_is_an_episode_until_it_is() -> None:
    opened, closed = alerts(LOST)
    assert told([opened, closed]) == [("opened", "b", 79), ("closed", "b", 120)]
    assert (opened.reason, opened.kind, opened.close_reason, closed.close_reason) == (
        "silent", "readings", None, "recovered",
    )  # fmt: skip
    assert opened.alert_id == closed.alert_id == alert_id("readings", "silent", "b", START + 79 * SECOND)
    assert second(opened.started_at) == second(closed.started_at) == 49
    assert (opened.score, opened.peak_score, opened.threshold) == (1, 1, 1)
    assert closed.score == closed.peak_score == pytest.approx(71 / 30, rel=1e-5)
    assert (opened.window, opened.channels, opened.muted) == (None, {}, False)
    # The record that passed the deadline, and the reading that ended it.
    records = plant.records_of(LOST)
    numbers = {record.offset: number for number, record in enumerate(records)}
    causes = [LOST[numbers[one.source.last_offset]][0] for one in (opened, closed)]
    assert [(cause.sensor, (cause.time - START) / SECOND) for cause in causes] == [("a", 80), ("b", 120)]
    assert opened.source.opened_offset == closed.source.opened_offset == opened.source.last_offset


def test_the_wire_form_keeps_the_schema() -> None:
    for message in messages(LOST):
        assert message.key == b"b"
        jsonschema.validate(msgspec.json.decode(message.value), schema("alert"))


def test_the_deadline_itself_is_no_silence() -> None:
    assert alerts(together(ticks("a", (0, 200)), ticks("b", (0, 50), (79, 200)))) == []
    late = [Reading("b", START + 79 * SECOND, (50.0,)), Reading("a", START + 80 * SECOND, (50.0,))]
    before = together(ticks("a", (0, 80)), ticks("b", (0, 50)))
    assert alerts([*before, [late[0]], [late[1]]]) == []
    assert told(alerts([*before, [late[1]], [late[0]]])) == [("opened", "b", 79), ("closed", "b", 80)]


@pytest.mark.parametrize(
    "sign", [Reading("b", START + 70 * SECOND, (None,)), Reading("b", START + 20 * SECOND, (50.0,))]
)
def test_a_null_and_a_late_reading_are_signs_of_life(sign: Reading) -> None:
    groups = together(ticks("a", (0, 200)), ticks("b", (0, 50)))
    place = next(i for i, (reading,) in enumerate(groups) if reading.time >= START + 70 * SECOND)
    found = alerts([*groups[:place], [sign], *groups[place:]])
    assert told(found) == [("opened", "b", 100 if sign.values[0] is None else 99)]


def test_it_becomes_critical_and_is_told_again() -> None:
    config = patient(update_every=100 * SECOND, critical_ratio=2.5)
    found = alerts(together(ticks("a", (0, 400)), ticks("b", (0, 50))), config)
    assert [(one.event, one.severity, round(one.score * 30)) for one in found] == [
        ("opened", "warning", 30), ("updated", "critical", 75), ("updated", "critical", 176),
        ("updated", "critical", 277),
    ]  # fmt: skip
    assert [one.sequence for one in found] == [0, 1, 2, 3]


def test_after_the_longest_duration_it_is_quiet_until_it_was_heard() -> None:
    config = patient(max_duration=100 * SECOND)
    found = alerts(together(ticks("a", (0, 600)), ticks("b", (0, 50), (400, 410))), config)
    assert told(found) == [
        ("opened", "b", 79), ("closed", "b", 180), ("opened", "b", 439), ("closed", "b", 540),
    ]  # fmt: skip
    assert [one.close_reason for one in found] == [None, "max_duration"] * 2


def test_a_sensor_that_is_forgotten_ends_it() -> None:
    config = patient(idle_eviction=250 * SECOND)
    found = alerts(together(ticks("a", (0, 600)), ticks("b", (0, 50))), config)
    assert told(found) == [("opened", "b", 79), ("closed", "b", 299)]
    assert found[1].close_reason == "evicted"
    early = patient(idle_eviction=20 * SECOND)
    assert alerts(together(ticks("a", (0, 600)), ticks("b", (0, 50))), early) == []


def test_overrides_say_who_may_be_silent_for_how_long() -> None:
    overrides: list[dict[str, Any]] = [{"match": "b", "silence_after": "50s"}, {"match": "c", "silence_after": None}]
    config = patient(overrides=overrides)
    lost = [ticks(sensor, (0, 50)) for sensor in "bcd"]
    found = alerts(together(ticks("a", (0, 200)), *lost), config)
    assert told(found) == [("opened", "d", 79), ("opened", "b", 99)]


# -- what is no silence ----------------------------------------------------------------------------------------------


def test_when_all_are_silent_none_is() -> None:
    pause = together(*(ticks(sensor, (0, 50), (1000, 1200)) for sensor in "abc"))
    assert alerts(pause) == []


def test_who_does_not_come_back_with_the_others_is_missed_from_then_on() -> None:
    pause = together(ticks("a", (0, 50), (1000, 1200)), ticks("b", (0, 50)))
    (opened,) = alerts(pause)
    assert (second(opened.started_at), second(opened.detected_at)) == (1000, 1030)


def test_a_pause_of_a_day_and_more_counts_for_nobody() -> None:
    days = 3 * 86_400
    back = (ticks(sensor, (0, 90), (days, days + 200)) for sensor in "ad")
    pause = together(*back, ticks("b", (0, 50)), ticks("c", (0, 89)))
    config = patient(critical_ratio=5.0)
    found = alerts(pause, config)
    # The clock moves with the twentieth reading after the pause. Before it b had been missed for 40 s and c for none.
    assert [(one.event, one.sensor_id, second(one.started_at)) for one in found] == [
        ("opened", "b", 49), ("opened", "c", days + 9), ("updated", "b", 49), ("updated", "c", days + 9),
    ]  # fmt: skip
    assert [(one.score, one.severity) for one in found] == [(1, "warning")] * 2 + [(5, "critical")] * 2


def test_one_clock_that_is_ahead_makes_nobody_silent() -> None:
    ahead = Reading("a", START + 3000 * SECOND, (50.0,))
    groups = together(*(ticks(sensor, (0, 400)) for sensor in "abc"))
    assert alerts([*groups[:150], [ahead], *groups[150:]]) == []


def test_a_pause_is_one_of_the_length_that_a_sensor_may_be_silent() -> None:
    """Readings that come once a minute for all make nobody silent who may be so for ten seconds; ten minutes do."""
    config = patient(silence_after=10 * SECOND, overrides=[{"match": "slow-*", "silence_after": "10m"}])
    groups = together(
        *(ticks(sensor, (0, 3000), every=60) for sensor in ("a", "b")), ticks("slow-1", (0, 3000), every=60),
        ticks("slow-2", (0, 600), every=60),
    )  # fmt: skip
    found = alerts(groups, config)
    assert told(found) == [("opened", "slow-2", 540 + 600)]


# -- with other episodes ---------------------------------------------------------------------------------------------


def test_a_fault_and_a_silence_are_two_episodes() -> None:
    values = plant.healthy(np.random.default_rng(3), 400)
    values[300:] += 30
    faulty = plant.readings_of("b", values)
    groups = together(ticks("a", (0, 900)), faulty, ticks("b", (600, 610)))
    config = patient(warmup=200, max_duration=1000 * SECOND)
    found = [one for one in alerts(groups, config) if one.sensor_id == "b"]
    assert [(one.reason, one.event) for one in found] == [
        ("anomaly", "opened"), ("silent", "opened"), ("silent", "closed"), ("anomaly", "closed"), ("silent", "opened"),
    ]  # fmt: skip
    assert found[3].close_reason == "gap"
    assert len({one.alert_id for one in found}) == 3


def test_it_does_not_count_against_the_budget() -> None:
    pipeline = plant.pipeline_of(CONFIG, plant.model_of())
    (batch,) = plant.batches_of(plant.records_of(LOST))
    output = pipeline.process(batch)
    assert (output.opened, output.events) == (0, {("opened", "warning"): 1, ("closed", "warning"): 1})


def test_what_opens_in_a_maintenance_window_is_muted_until_that_is_over() -> None:
    groups = together(ticks("a", (0, 400)), ticks("b", (0, 50)))
    windows = [plant.maintenance("b", 60, 100), plant.maintenance("*", 90, 150)]
    found = alerts(groups, patient(critical_ratio=3.0), windows)
    assert [(one.event, one.muted, one.severity, round(one.score * 30)) for one in found] == [
        ("opened", True, "warning", 30), ("updated", True, "critical", 90), ("updated", False, "critical", 101),
    ]  # fmt: skip
    found = alerts(LOST, CONFIG, [plant.maintenance("b", 60, 150)])
    assert [(one.event, one.muted) for one in found] == [("opened", True), ("closed", True)]
    found = alerts(groups, CONFIG, [plant.maintenance("b", 0, 79)])
    assert [(one.event, one.muted) for one in found][:1] == [("opened", False)]


# -- state -----------------------------------------------------------------------------------------------------------


def silent_pipeline() -> tuple[ReadingsPipeline, Groups]:
    """A pipeline with an open silence, and the records after it."""
    pipeline = plant.pipeline_of(CONFIG, plant.model_of())
    records = plant.records_of(LOST)
    plant.play(pipeline, records[:160])
    assert pipeline.open_episodes == 1
    return pipeline, LOST


def test_the_journal_has_the_last_word() -> None:
    pipeline, _ = silent_pipeline()
    entries = dict(pipeline.journal())
    entry = entries["b"]
    assert entry is not None
    slices, position = pipeline.snapshot(), pipeline.position
    again = plant.pipeline_of(CONFIG, plant.model_of())
    assert not again.restore(slices)
    assert (again.open_episodes, again.position) == (1, position)

    early = plant.pipeline_of(CONFIG, plant.model_of())
    records = plant.records_of(LOST)
    plant.play(early, records[:100])
    for journal, mismatches, still_open in (({"b": entry}, 0, 1), ({"b": b""}, 1, 0), ({}, 1, 0)):
        late = plant.pipeline_of(CONFIG, plant.model_of())
        late.restore(pack_state([early.pack_slice(0)], journal), live_from=position)
        assert plant.play(late, [one for one in records[100:160] if one.offset < position]) == []
        assert (late.restoring, late.mismatches, late.open_episodes) == (False, mismatches, still_open)


def test_what_the_journal_knows_of_goes_on_by_its_timers() -> None:
    groups = together(ticks("a", (0, 100)), ticks("b", (0, 50)))
    records = plant.records_of(groups)
    early, late = (plant.pipeline_of(CONFIG, plant.model_of()) for _ in range(2))
    plant.play(early, records[:100])
    at = [START + second * SECOND for second in (10, 40, 60)]
    silence = Silence("id", 0, at[0], at[1], at[0], 30 * SECOND, "warning", 7, at[2], None, False)
    entry = pack_entry(None, silence, records[110].offset)
    late.restore(pack_state([early.pack_slice(0)], {"b": entry}), live_from=records[103].offset + 1)
    assert plant.play(late, records[100:104]) == []
    found = [decode_alert(message.value) for message in plant.play(late, records[104:])]
    assert [(one.event, second(one.detected_at), one.score) for one in found] == [("updated", 40, round(50 / 30, 5))]
    assert found[0].source.last_offset == records[111].offset, "of the first record after second 60"


def test_after_a_restart_the_time_when_all_were_silent_still_counts_for_nobody() -> None:
    pause = together(ticks("a", (0, 50), (500, 560)), ticks("b", (0, 50)))
    expected = messages(pause)
    records = plant.records_of(pause)
    before, after = (plant.pipeline_of(CONFIG, plant.model_of()) for _ in range(2))
    assert plant.play(before, records[:110]) == []
    assert before.clock == START + 509 * SECOND, "it stops soon after the plant has come back"
    after.restore(before.snapshot())
    found = plant.play(after, records[110:])
    assert [second(decode_alert(message.value).started_at) for message in found] == [500]
    assert found == expected


def test_a_person_may_look_at_it() -> None:
    pipeline, _ = silent_pipeline()
    (view,) = pipeline.overview([], 5).episodes
    assert view.episode is not None
    assert (view.sensor_id, view.episode.reason, view.episode.threshold) == ("b", "silent", 1.0)
    assert view.episode.peak > 1
    assert pipeline.overview(["b"], 0).named[0].episode is None


def test_other_settings_count_from_a_restart_on() -> None:
    pipeline, _ = silent_pipeline()
    strict = patient(silence_after=5 * SECOND)
    again = plant.pipeline_of(strict, plant.model_of())
    again.restore(pipeline.snapshot())
    rest = together(ticks("a", (110, 130)), ticks("b", (120, 121)))
    found = [decode_alert(message.value) for message in plant.play(again, [
        record._replace(offset=again.position + record.offset) for record in plant.records_of(rest)
    ])]  # fmt: skip
    assert told(found) == [("closed", "b", 120), ("opened", "b", 125)]
