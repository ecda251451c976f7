"""The reading path as a whole: what it promises about sensors, budgets, bad input and its own state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detector.arrays import F64
from detector.config.load import FalseAlarms, FieldsConfig, ReadingsConfig, SensorsConfig
from detector.detection.scorer import Model
from detector.detection.table import StateError
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Batch, Record
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from detector.wire.json_readings import ReadingDecoder
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading

DAILY = FalseAlarms(per="day")


def healthy(rows: int, seed: int = 2, channels: int = 1) -> F64:
    return plant.healthy(np.random.default_rng(seed), rows, channels)


def alerts_of(config: ReadingsConfig, model: Model, readings: Sequence[Reading]) -> list[Alert]:
    """The alerts over readings in records of fifty."""
    records = plant.records_of([readings[i : i + 50] for i in range(0, len(readings), 50)])
    return [decode_alert(message.value) for message in plant.play(plant.pipeline_of(config, model), records)]


def rows_opened(alerts: Sequence[Alert]) -> list[int]:
    return [row_of(alert.detected_at) for alert in alerts if alert.event == "opened"]


def row_of(time: str) -> int:
    return (parse_time(time) - START) // SECOND


def fed(config: ReadingsConfig, model: Model, groups: Sequence[Sequence[Reading]]) -> ReadingsPipeline:
    pipeline = plant.pipeline_of(config, model)
    plant.play(pipeline, plant.records_of(groups))
    return pipeline


# -- detection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, DAILY, plant.per_readings(2000)])
def test_one_absurd_reading_does_not_make_a_sensor_deaf(budget: FalseAlarms | None) -> None:
    values = healthy(7000)
    values[3000] = 1e9
    values[5000:5060] += 12
    config = plant.readings_config(warmup=1500, false_alarms=budget)
    opened = rows_opened(alerts_of(config, plant.model_of(), plant.readings_of("a", values)))
    assert any(3000 <= row < 3050 for row in opened)
    assert any(5000 <= row < 5060 for row in opened)


@pytest.mark.parametrize("size", [3, 10, 60])
@pytest.mark.parametrize("budget", [None, DAILY])
def test_a_lasting_new_level_closes_its_episode(size: float, budget: FalseAlarms | None) -> None:
    values = healthy(7500)
    values[3000:] += size
    config = plant.readings_config(warmup=1500, false_alarms=budget)
    alerts = alerts_of(config, plant.model_of(), plant.readings_of("a", values))
    first = next(alert for alert in alerts if row_of(alert.detected_at) >= 3000)
    assert 3000 <= row_of(first.detected_at) < 3100
    (closed,) = (one for one in alerts if one.alert_id == first.alert_id and one.event == "closed")
    assert closed.close_reason == "recovered"
    assert closed.ended_at is not None
    assert row_of(closed.ended_at) < 7000


def test_a_flat_sensor_is_quiet_and_a_move_of_it_is_announced() -> None:
    values = np.full((3000, 1), 42.0)
    config = plant.readings_config(false_alarms=DAILY, warmup=600)
    assert alerts_of(config, plant.model_of(), plant.readings_of("a", values)) == []
    values[2000:] = 43
    opened = rows_opened(alerts_of(config, plant.model_of(), plant.readings_of("a", values)))
    assert opened
    assert 2000 <= opened[0] < 2050


def test_without_a_budget_the_threshold_is_one() -> None:
    values = healthy(1500)
    values[1000:1100] += 20
    alerts = alerts_of(plant.readings_config(warmup=600), plant.model_of(), plant.readings_of("a", values))
    assert alerts
    assert {alert.threshold for alert in alerts} == {1}


@pytest.mark.parametrize(
    ("allowed", "interval", "budget", "limited"),
    [
        (plant.per_readings(5000), SECOND, 5000, 0),
        (FalseAlarms(per_sensor=2, per="12h"), SECOND, 21_600, 0),
        (FalseAlarms(per="12h"), 10 * SECOND, 4320, 0),
        (FalseAlarms(per="1s"), SECOND, 300, 1),
        (FalseAlarms(per="year"), SECOND // 100, 1e6, 1),
    ],
)
def test_a_budget_becomes_readings_by_the_sensors_median_interval(
    allowed: FalseAlarms, interval: int, budget: float, limited: int
) -> None:
    config = plant.readings_config(false_alarms=allowed)
    pipeline = plant.pipeline_of(config, plant.model_of())
    (batch,) = plant.batches_of(plant.records_of([plant.readings_of("a", healthy(150), interval=interval)]))
    assert pipeline.process(batch).budgets_limited == limited
    table = plant.table_of(pipeline, config)
    assert table["budget"][0] == pytest.approx(budget, rel=1e-9)


def test_a_limited_budget_is_counted_when_a_sensor_gets_its_profile_and_not_at_a_restart() -> None:
    config = plant.readings_config(false_alarms=FalseAlarms(per="1s"))
    pipeline = plant.pipeline_of(config, plant.model_of())
    first, second = plant.batches_of(plant.records_of([[one] for one in plant.readings_of("a", healthy(160))]), [155])
    assert pipeline.process(first).budgets_limited == 1
    stored = pipeline.snapshot()
    stricter = plant.readings_config(false_alarms=FalseAlarms(per="year"), warmup=155)
    for other in (config, stricter):
        restarted = plant.pipeline_of(other, plant.model_of())
        restarted.restore(stored)
        assert restarted.process(second).budgets_limited == 0


def test_several_channels_are_judged_together() -> None:
    values = healthy(1500, channels=3)
    values[1000:1100, 1] += 20
    config = plant.readings_config(channels=3, warmup=600, false_alarms=plant.per_readings(5000))
    alerts = alerts_of(config, plant.model_of(channels=3), plant.readings_of("a", values))
    opened = next(alert for alert in alerts if row_of(alert.detected_at) >= 1000)
    assert opened.channels.keys() == {"value", "pressure", "speed"}
    assert max(opened.channels, key=lambda channel: opened.channels[channel]) == "pressure"


# -- profiles --------------------------------------------------------------------------------------------------------


def test_a_warm_up_makes_the_profile_that_training_makes() -> None:
    values = healthy(400)
    config = plant.readings_config(warmup=400, false_alarms=plant.per_readings(700))
    trained = plant.model_of({"a": plant.profile_of(values, plant.reconstructor())})
    warm = plant.table_of(fed(config, plant.model_of(), [plant.readings_of("a", values)]), config)
    known = plant.table_of(fed(config, trained, [plant.readings_of("a", values[:1])]), config)
    for column in (
        "live", "center", "scale", "ridge", "bias", "median", "regular", "worst", "worst_zz", "mean", "variance",
        "count", "budget", "horizon", "rows", "credit", "peaks", "peaks_kept", "peaks_seen",
    ):  # fmt: skip
        assert warm[column][0].tobytes() == known[column][0].tobytes(), column
    assert (warm["filled"][0], known["filled"][0]) == (100, 1)


def test_a_sensor_warms_up_over_exactly_so_many_readings() -> None:
    values = healthy(500)
    values[150:] += 30
    config = plant.readings_config(warmup=200)
    pulses: list[int] = []
    decoder = ReadingDecoder(FieldsConfig(), config.channels)
    pipeline = ReadingsPipeline(
        plant.PARTITION, config, plant.model_of(), decoder, dead_letters="dead-letters", alerts="alerts",
        pulse=lambda: pulses.append(pipeline.position),
    )  # fmt: skip
    assert (pipeline.sensors, pipeline.warming, pipeline.open_episodes, pipeline.clock) == (0, 0, 0, None)
    records = plant.records_of([[reading] for reading in plant.readings_of("a", values)])
    for batch in plant.batches_of(records, range(len(records))):
        count = 1 + records.index(batch.records[0])
        pipeline.process(batch)
        assert pipeline.warming == (count < 200)
    assert pulses[0] == plant.offset_of(198) + 1
    assert (pipeline.sensors, pipeline.clock) == (1, START + 499 * SECOND)
    assert pipeline.position == plant.offset_of(499) + 1


def test_a_known_sensor_is_judged_once_its_window_is_complete() -> None:
    model = plant.model_of({"a": plant.profile_of(healthy(900), plant.reconstructor())})
    config = plant.readings_config(open_after=(1, 1))
    alerts = alerts_of(config, model, plant.readings_of("a", healthy(300) + 50))
    assert rows_opened(alerts) == [99]


# -- which readings count --------------------------------------------------------------------------------------------


def test_every_reading_is_accounted_for() -> None:
    first = plant.readings_of("a", healthy(40))
    config = plant.readings_config()
    config = config.model_copy(update={"sensors": SensorsConfig(include=("*",), exclude=("x-*",))})
    pipeline = plant.pipeline_of(config, plant.model_of())
    readings = [
        *first,
        first[-1],
        *first[5:25],
        Reading("a", START + 100 * SECOND, (None,)),
        *plant.readings_of("x-1", healthy(3)),
    ]
    records = [
        *plant.records_of([[one] for one in readings]),
        Record(10_000, b"k", b"nonsense"),
        Record(10_001, None, b'[{"sensor_id": "a", "timestamp": 1790000200, "value": 1}, {"sensor_id": "a"}]'),
    ]
    output = pipeline.process(Batch(plant.PARTITION, records, 10_002))
    assert output.outcomes() == {
        "accepted": 42, "missing": 1, "late": 19, "duplicate": 1, "excluded": 3, "failed": 0, "rejected": 2,
    }  # fmt: skip
    assert output.tally.resets == 1
    assert (output.records, output.refused) == (len(records), [len(records) - 2, len(records) - 1])
    assert [letter.stream for letter in output.dead_letters] == ["dead-letters"] * 2
    assert [letter.value for letter in output.dead_letters] == [record.value for record in records[-2:]]
    assert output.rejected == {"malformed": 2}
    assert output.first_time == START
    assert pipeline.position == 10_002
    assert list(plant.table_of(pipeline, config).slots) == ["a"]


def test_a_batch_without_readings_only_moves_the_position() -> None:
    pipeline = plant.pipeline_of(plant.readings_config(), plant.model_of())
    for records, end in (([Record(0, None, b"")], 3), ([], 9)):
        output = pipeline.process(Batch(plant.PARTITION, records, end))
        assert output.alerts == []
        assert pipeline.position == end
    assert pipeline.clock is None


@pytest.mark.parametrize("sign", ["missing", "late", "repeated"])
def test_any_reading_is_a_sign_of_life(sign: str) -> None:
    values = healthy(900, seed=4)
    own = plant.readings_of("a", values[:300])
    others = plant.readings_of("b", healthy(900, seed=3))
    config = plant.readings_config(idle_eviction=SECOND)

    def groups(signs: bool) -> list[list[Reading]]:
        found = [[own[i], others[i]] if i < 300 else [others[i]] for i in range(900)]
        for i in range(300, 900, 90):
            time = {"missing": START + i * SECOND, "late": START, "repeated": own[-1].time}[sign]
            found[i] += [Reading("a", time, (None if sign == "missing" else 1.0,))] * signs
        return found

    assert fed(config, plant.model_of(), groups(signs=False)).sensors == 1
    assert fed(config, plant.model_of(), groups(signs=True)).sensors == 2


def test_what_is_left_out_does_not_move_the_clock() -> None:
    config = plant.readings_config(idle_eviction=SECOND)
    config = config.model_copy(update={"sensors": SensorsConfig(include=("*",), exclude=("x",))})
    pipeline = plant.pipeline_of(config, plant.model_of())
    own, others = plant.readings_of("a", healthy(3)), plant.readings_of("x", healthy(1), first=START + 3600 * SECOND)
    record = plant.records_of([[own[0], others[0], own[1], own[2]]])[0]
    output = pipeline.process(Batch(plant.PARTITION, [record], 1))
    assert (output.excluded, output.tally.accepted, output.first_time) == (1, 3, START)
    assert (pipeline.clock, pipeline.sensors) == (own[2].time, 1)
    output = pipeline.process(next(plant.batches_of([record_after(pipeline, others)])))
    assert (output.excluded, output.tally.accepted, pipeline.position) == (1, 0, 2)
    assert (pipeline.clock, pipeline.sensors) == (own[2].time, 1)


def test_sensors_may_have_any_name() -> None:
    names = ["ü/ß €", "a b", "0", "x" * 256, "日本"]
    config = plant.readings_config()
    groups = [
        [one for name in names for one in plant.readings_of(name, healthy(1), first=START + i * SECOND)]
        for i in range(160)
    ]
    pipeline = fed(config, plant.model_of(), groups)
    assert (pipeline.sensors, pipeline.warming) == (5, 0)
    again = plant.pipeline_of(config, plant.model_of())
    again.restore(pipeline.snapshot())
    assert plant.state_of(again, config) == plant.state_of(pipeline, config)


# -- state -----------------------------------------------------------------------------------------------------------


def open_pipeline(config: ReadingsConfig, model: Model) -> ReadingsPipeline:
    """Two sensors, one of them in an open episode and one still warming up, if the model does not know it."""
    values = healthy(400)
    values[380:] += 30
    groups = [plant.readings_of("a", values), plant.readings_of("b", healthy(100, seed=3))]
    pipeline = fed(config, model, groups)
    assert pipeline.open_episodes == 1
    return pipeline


def test_what_is_no_state_or_another_configurations_is_refused() -> None:
    config = plant.readings_config(warmup=200)
    stored = open_pipeline(config, plant.model_of()).snapshot()
    pipeline = plant.pipeline_of(plant.readings_config(channels=2), plant.model_of(channels=2))
    with pytest.raises(StateError, match="another configuration"):
        pipeline.restore(stored)
    for broken in (b"", b"nonsense", stored[: len(stored) // 2]):
        with pytest.raises(StateError):
            plant.pipeline_of(config, plant.model_of()).restore(broken)


def test_a_replay_in_which_nobody_is_watched() -> None:
    config = plant.readings_config(overrides=[{"match": "*", "enabled": False}])
    records = plant.records_of([[reading] for reading in plant.readings_of("a", healthy(3))])
    pipeline = plant.pipeline_of(config, plant.model_of())
    pipeline.begin(0, live_from=records[2].offset)
    assert plant.play(pipeline, records) == []
    assert (pipeline.restoring, pipeline.sensors) == (False, 0)


def test_other_settings_of_a_sensor_count_from_a_restart_on() -> None:
    config = plant.readings_config(warmup=200)
    stored = open_pipeline(config, plant.model_of()).snapshot()
    override = {"match": "a", "alerts": {"false_alarms": {"per": "700 readings"}, "close_after": 3}}
    other = plant.readings_config(warmup=200, overrides=[override])
    pipeline = plant.pipeline_of(other, plant.model_of())
    pipeline.restore(stored)
    table = plant.table_of(pipeline, other)
    assert table["budget"][table.slots["a"]] == 700
    assert (pipeline.open_episodes, pipeline.warming) == (1, 1)
    quiet = plant.readings_of("a", healthy(300), first=START + 400 * SECOND)
    (closed,) = [
        decode_alert(one.value) for one in plant.play(pipeline, [record_after(pipeline, quiet)])
        if decode_alert(one.value).event == "closed"
    ]  # fmt: skip
    assert closed.close_reason == "recovered"


def test_with_another_n_of_m_a_sensor_warms_up_anew_and_others_go_on() -> None:
    config = plant.readings_config(warmup=200)
    values = healthy(300)
    pipeline = fed(config, plant.model_of(), [plant.readings_of(name, values) for name in "ab"])
    other = plant.readings_config(warmup=200, overrides=[{"match": "a", "alerts": {"open_after": {"n": 3, "of": 20}}}])
    again = plant.pipeline_of(other, plant.model_of())
    again.restore(pipeline.snapshot())
    assert (again.sensors, again.warming) == (2, 1)
    table, before = plant.table_of(again, other), plant.table_of(pipeline, config)
    a, b = table.slots["a"], table.slots["b"]
    assert a in table.warming
    assert table["recent"][b, -9:].tolist() == before["recent"][before.slots["b"]].tolist()
    plant.play(again, [record_after(again, plant.readings_of("a", values, first=START + 300 * SECOND))])
    assert plant.table_of(again, other)["open_after"][a].tolist() == [3, 20]


def test_a_sensor_that_is_left_out_from_a_restart_on_is_no_longer_heard() -> None:
    config = plant.readings_config(warmup=200, idle_eviction=100 * SECOND)
    stored = open_pipeline(config, plant.model_of()).snapshot()
    other = plant.readings_config(warmup=200, idle_eviction=100 * SECOND, overrides=[{"match": "a", "enabled": False}])
    pipeline = plant.pipeline_of(other, plant.model_of())
    pipeline.restore(stored)
    at = START + 400 * SECOND
    output = pipeline.process(
        next(plant.batches_of([record_after(pipeline, plant.readings_of("a", healthy(30), first=at))]))
    )
    assert (output.excluded, output.tally.accepted, pipeline.open_episodes) == (30, 0, 1)
    # Its episode ends when it is forgotten, as it has not been heard of.
    late = plant.readings_of("b", healthy(1), first=at + 3600 * SECOND)
    (closed,) = plant.play(pipeline, [record_after(pipeline, late)])
    assert decode_alert(closed.value).close_reason == "evicted"
    assert pipeline.sensors == 1


def record_after(pipeline: ReadingsPipeline, readings: Sequence[Reading]) -> Record:
    """The next record of the stream."""
    return Record(pipeline.position, None, plant.message(readings))


@pytest.mark.parametrize("rows", [100, 60])
def test_more_scores_may_count_than_a_warm_up_gives(rows: int) -> None:
    config = plant.readings_config(warmup=150, open_after=(rows, 100))
    values = healthy(500)
    values[300:] += 30
    assert fed(config, plant.model_of(), [plant.readings_of("a", values)]).open_episodes == 1


def test_another_model_takes_over_with_its_profiles_and_open_episodes() -> None:
    config = plant.readings_config(warmup=200, update_every=5 * SECOND)
    old = open_pipeline(config, plant.model_of())
    profile = plant.profile_of(healthy(700, seed=9), plant.reconstructor())
    new = plant.pipeline_of(config, replaced_model({"a": profile}))
    assert new.restore(old.snapshot())
    assert (new.sensors, new.warming, new.open_episodes) == (2, 1, 1)
    table = plant.table_of(new, config)
    assert table["worst"][table.slots["a"]].tolist() == profile.worst.tolist()
    assert table["live"][[table.slots["a"], table.slots["b"]]].tolist() == [True, False]
    kept = plant.table_of(old, config).episodes
    assert list(table.episodes.values()) == list(kept.values())

    values = healthy(800)[400:]
    rest = plant.records_of([[one] for one in plant.readings_of("a", values, first=START + 400 * SECOND)])
    alerts = [decode_alert(message.value) for message in plant.play(new, rest)]
    assert alerts[0].alert_id == next(iter(kept.values())).alert_id
    assert alerts[0].event == "updated"
    assert any(alert.event == "closed" for alert in alerts)


def replaced_model(profiles: dict[str, object]) -> Model:
    model = plant.model_of(profiles)  # type: ignore[arg-type]
    return Model(model.name, "2", "sha256:1", model.scaler, model.stride, model.reconstruct, model.profiles)


def test_what_an_adaptive_scale_was_before_a_fault_is_not_put_back_into_another_models() -> None:
    values = healthy(900)
    values[400:] += 30
    config = plant.readings_config(warmup=200)
    old = fed(config, plant.model_of(), [plant.readings_of("a", values)])
    assert plant.table_of(old, config)["kept"][0]
    profile = plant.profile_of(healthy(700, seed=9), plant.reconstructor())
    new = plant.pipeline_of(config, replaced_model({"a": profile}))
    assert new.restore(old.snapshot())
    table = plant.table_of(new, config)
    assert (table["kept"][0], table["high"][0], table["mean"][0].tolist()) == (False, 0, profile.mean.tolist())


def test_a_changed_budget_keeps_the_peaks_and_starts_the_credit_anew() -> None:
    before = plant.readings_config(warmup=200, false_alarms=plant.per_readings(400))
    after = plant.readings_config(warmup=200, false_alarms=plant.per_readings(2000))
    old = open_pipeline(before, plant.model_of())
    new, same = (plant.pipeline_of(config, plant.model_of()) for config in (after, before))
    assert not new.restore(old.snapshot())
    same.restore(old.snapshot())
    was, now = plant.table_of(same, before), plant.table_of(new, after)
    slot = was.slots["a"]
    assert was["credit"][slot] != 0
    assert now["credit"][slot] == 0
    assert (was["budget"][slot], now["budget"][slot], now["horizon"][slot]) == (400, 2000, 10_000)
    assert now["peaks"][slot].tolist() == was["peaks"][slot].tolist()
    assert plant.state_of(same, before) == plant.state_of(old, before)
