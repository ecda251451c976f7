"""Another model: what it knows takes its profiles, the others keep theirs, mute where they must be, and learn again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from detector.arrays import F64
from detector.config.load import ReadingsConfig
from detector.detection import scorer
from detector.detection.columns import profile_cells
from detector.detection.profile import build_profile
from detector.detection.scorer import Model
from detector.detection.table import SensorTable
from detector.detection.windows import window_of
from detector.engine import readings as pipeline_module
from detector.engine import slices as snapshots
from detector.engine.readings import ReadingsPipeline
from detector.engine.relearning import keep_profile
from detector.streams.base import Batch, Message, Record, pack_state
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.engine.test_readings_property import (
    THOROUGH,
    Scenario,
    arrivals,
    differences,
    grouped,
    long_story,
    random_cuts,
    scenarios,
)
from tests.fuzz.budget import LONGER
from tests.plant import SECOND, START
from tests.reference import Reference
from tests.reference_rules import Event, Reading

SOME = settings(THOROUGH, max_examples=5 * LONGER)  # the scenarios are those of test_pipeline_property


def healthy(rows: int, seed: int = 2, channels: int = 1) -> F64:
    return plant.healthy(np.random.default_rng(seed), rows, channels)


def model_with(seed: int = 0, profiles: Mapping[str, F64] | None = None) -> Model:
    """A model that knows these sensors by these prefixes. Another seed is another model."""
    profiles = profiles or {}
    made = {sensor: plant.profile_of(values, plant.reconstructor(seed=seed)) for sensor, values in profiles.items()}
    return dataclasses.replace(plant.model_of(made, seed=seed), version=str(seed), digest=f"sha256:{seed}")


def switched(pipeline: ReadingsPipeline, config: ReadingsConfig, model: Model) -> ReadingsPipeline:
    """A pipeline that goes on where that one stands, with another model."""
    successor = plant.pipeline_of(config, model)
    assert successor.restore(pipeline.snapshot())
    return successor


def fed(pipeline: ReadingsPipeline, readings: Sequence[Reading]) -> list[Alert]:
    """What comes of more readings, one a record."""
    messages: list[Message] = []
    for reading in readings:
        record = Record(pipeline.position, None, plant.message([reading]))
        messages += pipeline.process(Batch(plant.PARTITION, [record], record.offset + 1)).alerts
    return [decode_alert(one.value) for one in messages]


def cells(pipeline: ReadingsPipeline, config: ReadingsConfig) -> tuple[SensorTable, int]:
    table = plant.table_of(pipeline, config)
    return table, table.slots["a"]


# -- one sensor ------------------------------------------------------------------------------------------------------


def test_a_sensor_the_new_model_does_not_know_keeps_its_profile_and_is_mute() -> None:
    config = plant.readings_config(warmup=300)
    old_model = model_with(0, {"a": healthy(700)})
    old = plant.pipeline_of(config, old_model)
    fed(old, plant.readings_of("a", healthy(150, seed=3)))
    new = switched(old, config, model_with(1))
    assert (new.warming, new.relearning, new.sensors) == (0, 1, 1)
    (before, slot), (after, _) = cells(old, config), cells(new, config)
    for column in ("center", "scale", "ridge", "bias", "median", "mean", "variance", "peaks", "prediction", "recent"):
        assert after[column][slot].tobytes() == before[column][slot].tobytes(), column
    kept = old_model.profiles["a"]
    assert after["worst"][slot].tolist() == [kept.worst[0], np.inf, kept.worst[2]]
    assert after["worst_zz"][slot] == kept.worst_zz_of_others


@pytest.mark.parametrize("channels", [1, 2])
def test_what_stands_for_none_is_known_to_the_new_profile_too(channels: int) -> None:
    config = plant.readings_config(channels=channels, warmup=300, false_alarms=plant.per_readings(50_000))
    values = healthy(850, channels=channels)
    values[20::37, -1] = -9999.0
    old = plant.pipeline_of(config, plant.model_of(channels=channels))
    records = plant.records_of([[reading] for reading in plant.readings_of("a", values)])
    assert plant.play(old, records[:500]) == []
    new = switched(old, config, dataclasses.replace(plant.model_of(channels=channels, seed=1), digest="sha256:1"))
    assert plant.play(new, records[500:]) == []
    assert new.relearning == 0
    table, slot = cells(new, config)
    assert table["sentinels"][slot, -1, 0] == -9999.0


def test_of_a_machine_the_reconstruction_counts_as_usual() -> None:
    table = SensorTable(2, 10)
    slot = table.add("press")
    profile = plant.profile_of(healthy(300, channels=2), plant.reconstructor(2))
    table.set(slot, profile_cells(profile, 1000.0))
    keep_profile(table, slot)
    assert table["typical"][slot].tolist() == [*profile.typical[:2], np.inf, *profile.typical[3:]]
    assert np.isfinite(table["worst"][slot]).all()
    table.set(slot, {"typical": np.nan})  # a profile of the release before
    keep_profile(table, slot)
    assert np.isinf(table["worst"][slot]).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("mute", [True, False])
def test_only_the_reconstruction_is_mute(mute: bool) -> None:
    """What the autoencoder alone finds odd leads to no alert once it is another one; a shift does."""
    profile = plant.profile_of(healthy(700), plant.reconstructor())
    # As if in training the other signals had been three times as bad, and the reconstruction next to nothing.
    patient = dataclasses.replace(
        profile, worst=profile.worst * [3, 1e-3, 3], worst_zz=1e-3, worst_zz_of_others=3 * profile.worst_zz
    )
    model = plant.model_of({"a": patient})
    config = plant.readings_config(warmup=400)
    pipeline = plant.pipeline_of(config, model)
    fed(pipeline, plant.readings_of("a", healthy(1)))
    if mute:
        pipeline = switched(pipeline, config, model_with(1))
    values = healthy(300, seed=3)
    values[200:] += 40
    alerts = fed(pipeline, plant.readings_of("a", values[1:], first=START + SECOND))
    opened = [alert.detected_at for alert in alerts if alert.event == "opened"]
    assert opened
    first = (parse_time(opened[0]) - START) // SECOND
    assert first >= 200 if mute else first < 110


def test_the_profile_is_that_of_the_next_readings_and_the_newest_model() -> None:
    config = plant.readings_config(warmup=200, false_alarms=plant.per_readings(700))
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)}))
    values = healthy(500, seed=3)
    readings = plant.readings_of("a", values)
    fed(pipeline, readings[:150])
    pipeline = switched(pipeline, config, model_with(1))
    fed(pipeline, readings[150:200])
    # One more model in the middle: what was collected is of use for its profile, too.
    pipeline = switched(pipeline, config, model_with(2))
    fed(pipeline, readings[200:349])
    assert pipeline.relearning == 1
    fed(pipeline, readings[349:350])
    assert pipeline.relearning == 0
    times = START + np.arange(150, 350) * SECOND
    profile, carry = build_profile(times, values[150:350], plant.reconstructor(seed=2))
    table, slot = cells(pipeline, config)
    for column in ("center", "scale", "ridge", "bias", "worst", "worst_zz", "worst_zz_of_others", "mean", "variance"):
        assert table[column][slot].tobytes() == np.asarray(getattr(profile, column)).tobytes(), column
    assert table["prediction"][slot].tolist() == carry.prediction.tolist()
    assert table["credit"][slot] == 0
    assert table["filled"][slot] == 100
    assert window_of(table, slot)[1].tolist() == values[250:350].tolist()


def test_a_warm_up_goes_on_under_another_model() -> None:
    config = plant.readings_config(warmup=200)
    pipeline = plant.pipeline_of(config, model_with())
    values = healthy(200)
    readings = plant.readings_of("a", values)
    fed(pipeline, readings[:150])
    pipeline = switched(pipeline, config, model_with(1))
    assert (pipeline.warming, pipeline.relearning) == (1, 0)
    fed(pipeline, readings[150:])
    assert pipeline.warming == 0
    table, slot = cells(pipeline, config)
    expected, _ = build_profile(START + np.arange(200) * SECOND, values, plant.reconstructor(seed=1))
    assert table["worst"][slot].tolist() == expected.worst.tolist()


def test_what_another_model_knows_it_takes_even_while_it_learns() -> None:
    config = plant.readings_config(warmup=200)
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)}))
    fed(pipeline, plant.readings_of("a", healthy(150)))
    pipeline = switched(pipeline, config, model_with(1))
    assert pipeline.relearning == 1
    knowing = model_with(2, {"a": healthy(600, seed=5)})
    pipeline = switched(pipeline, config, knowing)
    assert pipeline.relearning == 0
    table, slot = cells(pipeline, config)
    assert table["worst"][slot].tolist() == knowing.profiles["a"].worst.tolist()


def test_an_open_episode_goes_on_under_its_id_and_is_not_what_is_learnt() -> None:
    config = plant.readings_config(warmup=200, update_every=40 * SECOND)
    values = healthy(1400, seed=3)
    values[150:500] += 30
    readings = plant.readings_of("a", values)
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)}))
    alerts = fed(pipeline, readings[:200])
    pipeline = switched(pipeline, config, model_with(1))
    alerts += fed(pipeline, readings[200:1200])
    assert pipeline.relearning == 0
    table, slot = cells(pipeline, config)
    assert table["center"][slot] == pytest.approx([50], abs=1)
    assert table["scale"][slot] < 4
    first = [alert for alert in alerts if alert.alert_id == alerts[0].alert_id]
    assert [alert.sequence for alert in first] == list(range(len(first)))
    assert [alert.event for alert in first] == ["opened", *["updated"] * (len(first) - 2), "closed"]
    assert {alert.model.version for alert in first} == {"0", "1"}


def test_after_a_gap_the_averages_begin_anew_with_the_profile() -> None:
    config = plant.readings_config(warmup=200)
    values = healthy(400, seed=3)
    readings = plant.readings_of("a", values)
    later = [one._replace(time=one.time + 3600 * SECOND) for one in readings]
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)}))
    fed(pipeline, readings[:120])
    pipeline = switched(pipeline, config, model_with(1))
    fed(pipeline, [*readings[120:240], *later[240:320]])
    table, slot = cells(pipeline, config)
    assert (pipeline.relearning, table["filled"][slot], np.isnan(table["prediction"][slot]).all()) == (0, 80, True)
    fed(pipeline, later[320:])
    table, slot = cells(pipeline, config)
    assert table["completions"][slot] == 61
    assert np.isfinite(table["score"][slot])


@pytest.mark.parametrize("known", [True, False], ids=["learning again", "warming up"])
def test_fewer_readings_may_be_asked_for_than_were_collected(known: bool) -> None:
    config, fewer = plant.readings_config(warmup=400), plant.readings_config(warmup=150)
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)} if known else None))
    readings = plant.readings_of("a", healthy(500, seed=3))
    fed(pipeline, readings[:1])
    pipeline = switched(pipeline, config, model_with(1))
    fed(pipeline, readings[1:300])
    successor = plant.pipeline_of(fewer, model_with(1))
    successor.restore(pipeline.snapshot())
    assert successor.warming + successor.relearning == 1
    fed(successor, readings[300:301])
    assert successor.warming + successor.relearning == 0
    table, slot = cells(successor, fewer)
    # Of n readings collected the last n - 100 are scored on both scales, and one more came.
    assert table["count"][slot] == (299 if known else 300) - 100 + 1


def test_with_another_n_of_m_as_well_it_warms_up_anew() -> None:
    config, other = plant.readings_config(warmup=200), plant.readings_config(warmup=200, open_after=(3, 5))
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)}))
    fed(pipeline, plant.readings_of("a", healthy(150)))
    successor = plant.pipeline_of(other, model_with(1))
    assert successor.restore(pipeline.snapshot())
    assert (successor.warming, successor.relearning) == (1, 0)
    pipeline = switched(pipeline, config, model_with(1))
    again = plant.pipeline_of(other, model_with(1))
    assert not again.restore(pipeline.snapshot())
    assert (again.warming, again.relearning) == (1, 0)


OPEN_THEN_WARMING = plant.readings_config(warmup=200), plant.readings_config(warmup=200, open_after=(3, 5))
"""Settings under which an episode opens, and those under which its sensor warms up again."""


def taken_up(stored: bytes) -> ReadingsPipeline:
    successor = plant.pipeline_of(OPEN_THEN_WARMING[1], model_with(0))
    successor.restore(stored)
    return successor


@functools.cache
def open_then_warming() -> tuple[bytes, list[Reading], Alert]:
    """State with an open episode, the readings that come next, and what closes it without a restart."""
    values = healthy(700, seed=3)
    values[150:210] += 30
    readings = plant.readings_of("a", values)
    pipeline = plant.pipeline_of(OPEN_THEN_WARMING[0], model_with(0, {"a": healthy(700)}))
    opened, _critical = fed(pipeline, readings[:200])
    stored = pipeline.snapshot()
    pipeline = taken_up(stored)
    assert (pipeline.warming, pipeline.open_episodes) == (1, 1)
    (closed,) = fed(pipeline, readings[200:])
    assert (closed.alert_id, closed.event) == (opened.alert_id, "closed")
    return stored, readings[200:], closed


@pytest.mark.parametrize("restart", [1, 100, 199, 200, 330, 400])
def test_a_restart_changes_nothing_for_an_episode_that_is_open_while_its_sensor_warms_up_again(restart: int) -> None:
    stored, readings, closed = open_then_warming()
    pipeline = taken_up(stored)
    alerts = fed(pipeline, readings[:restart])
    assert alerts + fed(taken_up(pipeline.snapshot()), readings[restart:]) == [closed]


def test_who_is_forgotten_learns_no_more() -> None:
    config = plant.readings_config(warmup=200, idle_eviction=300 * SECOND)
    pipeline = plant.pipeline_of(config, model_with(0, {"a": healthy(700)}))
    fed(pipeline, plant.readings_of("a", healthy(150)))
    pipeline = switched(pipeline, config, model_with(1))
    fed(pipeline, plant.readings_of("b", healthy(20), first=START + 1000 * SECOND))
    assert (pipeline.sensors, pipeline.relearning) == (1, 0)


# -- many, against the reference, in any batches, killed anywhere ----------------------------------------------------


def successions(scenario: Scenario, data: st.DataObject, records: int) -> tuple[Model, int]:
    """What the model is replaced with, and at which record."""
    known = [data.draw(st.booleans()) for _ in scenario.known]
    return scenario.successor(known), data.draw(st.integers(1, max(1, records // 2)))


def run(
    config: ReadingsConfig, models: tuple[Model, Model], records: Sequence[Record], at: int, cuts: Sequence[int]
) -> tuple[list[Message], ReadingsPipeline]:
    """The alerts of a run that goes on with the other model from that record on."""
    pipeline = plant.pipeline_of(config, models[0])
    messages = plant.play(pipeline, records[:at], cuts)
    pipeline = switched(pipeline, config, models[1])
    return messages + plant.play(pipeline, records[at:], [cut - at for cut in cuts]), pipeline


def check_reference(
    config: ReadingsConfig, models: tuple[Model, Model], groups: Sequence[Sequence[Reading]], at: int,
    cuts: Sequence[int],
) -> tuple[list[Event], Reference]:  # fmt: skip
    records = plant.records_of(groups)
    reference = Reference(config, models[0])
    for i, (record, group) in enumerate(zip(records, groups, strict=True)):
        if i == at:
            reference.switch(models[1])
        reference.feed(record.offset, group)
    with plant.unrounded() as written:
        messages, pipeline = run(config, models, records, at, cuts)
    decoded = [msgspec.json.decode(message.value) for message in messages]
    events = [plant.event_of(written[alert["alert_id"], alert["sequence"]]) for alert in decoded]
    assert differences(events, reference.events) == []
    numbers = plant.numbers_of(pipeline, config)
    for sensor, expected in reference.numbers().items():
        assert numbers[sensor] == {part: pytest.approx(cells, rel=1e-8, abs=1e-11) for part, cells in expected.items()}
    return reference.events, reference


@SOME
@given(scenarios(), st.data())
def test_another_model_does_what_the_reference_does(scenario: Scenario, data: st.DataObject) -> None:
    groups = grouped(scenario, arrivals(scenario))
    new, at = successions(scenario, data, len(groups))
    models = scenario.model(), new
    events, reference = check_reference(scenario.config, models, groups, at, random_cuts(scenario, len(groups)))
    for sensor in reference.sensors.values():
        if sensor.profile is not None and new.profiles.get(sensor.name) is not sensor.profile:
            event("still learning" if sensor.learning is not None else "learnt again or warmed up")
    event("with episodes" if events else "quiet")


def story(seed: int) -> tuple[ReadingsConfig, tuple[Model, Model], list[list[Reading]], int]:
    """Two sensors over long faults and gaps: the new model knows one of them. The switch falls into a fault."""
    config, model, groups = long_story(seed)
    prefix = healthy(500, seed=8)
    old, new = (
        dataclasses.replace(
            plant.model_of(
                {sensor: plant.profile_of(prefix, plant.reconstructor(seed=number), stride=model.stride)
                 for sensor in sensors},
                stride=model.stride, seed=number,
            ),
            digest=f"sha256:{number}",
        )
        for number, sensors in enumerate((("s0", "s1"), ("s1",)))
    )  # fmt: skip
    return config, (old, new), groups, 1000 // (2 - seed % 2) + seed


@pytest.mark.parametrize("seed", [0, 1])
def test_so_it_does_in_the_middle_of_long_faults(seed: int) -> None:
    config, models, groups, at = story(seed)
    events, reference = check_reference(config, models, groups, at, [at + 100, at + 101, 2002])
    assert sum(one.event == "opened" and one.sensor == "s0" for one in events) >= 3
    assert reference.sensors["s0"].learning is None
    assert reference.sensors["s0"].scale.muted is None


def check_batches(
    config: ReadingsConfig, models: tuple[Model, Model], records: Sequence[Record], at: int,
    cuttings: Sequence[Sequence[int]],
) -> None:  # fmt: skip
    """However records are cut into batches, and batches into blocks, messages and state are the same to the bit."""
    outcomes = []
    for cuts in ((), *cuttings):
        messages, pipeline = run(config, models, records, at, cuts)
        outcomes.append((messages, plant.state_of(pipeline, config)))
    with mock.patch.object(pipeline_module, "BLOCK_ROWS", 4), mock.patch.object(scorer, "CHUNK", 3):
        messages, pipeline = run(config, models, records, at, ())
        outcomes.append((messages, plant.state_of(pipeline, config)))
    for one in outcomes[1:]:
        assert one == outcomes[0]


@SOME
@given(scenarios(), st.data())
def test_batches_do_not_matter(scenario: Scenario, data: st.DataObject) -> None:
    records = plant.records_of(grouped(scenario, arrivals(scenario)))
    new, at = successions(scenario, data, len(records))
    middle = min(at + 150, len(records) - 1)
    single = range(middle, min(middle + 60, len(records)))
    check_batches(scenario.config, (scenario.model(), new), records, at, [random_cuts(scenario, len(records)), single])


@pytest.mark.parametrize("seed", [0, 1])
def test_nor_do_they_in_the_middle_of_long_faults(seed: int) -> None:
    config, models, groups, at = story(seed)
    check_batches(config, models, plant.records_of(groups), at, [range(at, len(groups), 37), [at + 131]])


def killed(
    config: ReadingsConfig, models: tuple[Model, Model], records: Sequence[Record], at: int, cuts: Sequence[int],
    kill: int, stores: Callable[[], bool],
) -> None:  # fmt: skip
    """After the switch slices are stored now and then; killed after `kill` batches it comes back to the same."""
    with mock.patch.object(snapshots, "SLICE_SENSORS", 1):
        old = plant.pipeline_of(config, models[0])
        plant.play(old, records[:at], cuts)
        whole = switched(old, config, models[1])
        slices = {number: whole.pack_slice(number) for number in range(whole.slices())}
        journal = {sensor: entry for sensor, entry in old.journal() if entry is not None}
        whole.journal()
        batches = list(plant.batches_of(records[at:], [cut - at for cut in cuts]))
        for batch in batches[:kill]:
            whole.process(batch)
            plant.keep_journal(journal, whole)
            for number in range(whole.slices()):
                if number not in slices or stores():
                    slices[number] = whole.pack_slice(number)
        pipeline = plant.pipeline_of(config, models[1])
        pipeline.restore(pack_state(list(slices.values()), journal), live_from=whole.position)
    again = [record for record in records if pipeline.position <= record.offset < whole.position]
    assert plant.play(pipeline, again, range(0, len(again), 50)) == []
    assert pipeline.mismatches == 0
    for batch in batches[kill:]:
        assert pipeline.process(batch).alerts == whole.process(batch).alerts
    assert plant.state_of(pipeline, config) == plant.state_of(whole, config)


@SOME
@given(scenarios(), st.data())
def test_nor_does_a_kill(scenario: Scenario, data: st.DataObject) -> None:
    records = plant.records_of(grouped(scenario, arrivals(scenario)))
    new, at = successions(scenario, data, len(records))
    cuts = [*random_cuts(scenario, len(records)), *range(at, len(records), 80)]
    kill = data.draw(st.integers(1, 3))
    killed(scenario.config, (scenario.model(), new), records, at, cuts, kill, lambda: data.draw(st.booleans()))


@pytest.mark.parametrize("kill", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_nor_does_one_in_the_middle_of_long_faults(seed: int, kill: int) -> None:
    config, models, groups, at = story(seed)
    turn = iter(range(10**6))
    killed(config, models, plant.records_of(groups), at, range(at, len(groups), 60), kill, lambda: next(turn) % 3 == 0)
