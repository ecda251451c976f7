"""Machines whose channels come as tags of their own: state, replay, any batching, and what a missing channel does."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from detector.arrays import F64
from detector.config.load import AlignConfig, Config, MachineConfig, ReadingsConfig
from detector.detection.kernel.choice import choose
from detector.detection.kernel.interpreted import Interpreted
from detector.engine.output import Output
from detector.engine.readings import ReadingsPipeline
from detector.service.pipelines import make_decoder
from detector.streams.base import Message, Record
from detector.wire.alerts import decode_alert
from tests import plant
from tests.plant import NAMES, SECOND, START

WARMUP = 400
FEW = settings(
    max_examples=12,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def config_of(channels: int = 2, machines: int = 2, align: AlignConfig | None = None, **more: Any) -> ReadingsConfig:
    config = plant.readings_config(channels=channels, warmup=WARMUP, false_alarms=plant.per_readings(20_000), **more)
    ids = [f"m{number}" for number in range(machines)]
    tags = [MachineConfig(id=one, channels={name: f"{one}/{name}" for name in NAMES[:channels]}) for one in ids]
    return config.model_copy(update={"machines": tuple(tags), "align": align})


def pipeline_of(config: ReadingsConfig) -> ReadingsPipeline:
    whole = Config().model_copy(update={"readings": config})
    decoder = make_decoder(whole, sensor=None, interval=None, live=False)
    model = plant.model_of(channels=len(config.channels))
    return ReadingsPipeline(plant.PARTITION, config, model, decoder, dead_letters="dead-letters", alerts="alerts")


def tag(machine: int, channel: int, time: int, value: float | None) -> dict[str, Any]:
    return {"sensor_id": f"m{machine}/{NAMES[channel]}", "timestamp": time, "value": value}


def records_of(groups: Sequence[Sequence[dict[str, Any]]]) -> list[Record]:
    """One record a group; what comes alone stands alone."""
    return [
        Record(plant.offset_of(at), None, json.dumps(group[0] if len(group) == 1 else list(group)).encode())
        for at, group in enumerate(groups)
    ]


def readings_of(values: F64, machine: int = 0, *, gone: Any = None) -> list[list[dict[str, Any]]]:
    """Each value as a message of its own, but for those that are `gone` (L, C)."""
    return [
        [tag(machine, channel, START + row * SECOND + channel, float(values[row, channel]))]
        for row in range(len(values))
        for channel in range(values.shape[1])
        if gone is None or not gone[row, channel]
    ]


def play(pipeline: ReadingsPipeline, records: Sequence[Record], cuts: Sequence[int] = ()) -> list[Output]:
    return [pipeline.process(batch) for batch in plant.batches_of(records, cuts)]


def alerts_of(outputs: Sequence[Output]) -> list[Message]:
    return [alert for output in outputs for alert in output.alerts]


@st.composite
def streams(draw: st.DrawFn) -> tuple[ReadingsConfig, list[Record]]:
    """Some machines with faults, and tags that are missed, late, repeated, null, ahead or set back."""
    channels, machines = draw(st.sampled_from([2, 3])), draw(st.integers(1, 3))
    align = draw(
        st.sampled_from(
            [None, AlignConfig(fill=None), AlignConfig(max_age=4 * SECOND), AlignConfig(within=SECOND // 2)]
        )
    )
    timers = draw(st.booleans())
    config = config_of(
        channels, machines, align,
        window={"allowed_lateness": draw(st.sampled_from([0, 0, 3 * SECOND]))},
        silence_after=9 * SECOND if timers else None, idle_eviction=60 * SECOND if timers else None,
        open_after=draw(st.sampled_from([(3, 5), (1, 1), (10, 10)])), close_after=20,
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = draw(st.integers(WARMUP, 2 * WARMUP + 150))
    coming: list[tuple[float, dict[str, Any]]] = []
    for machine in range(machines):
        values = plant.healthy(rng, rows, channels)
        begin = int(rng.integers(0, rows))
        values[begin : begin + 40, int(rng.integers(channels))] += draw(st.sampled_from([0.0, 12.0]))
        trouble = rng.random((rows, channels))
        dead = int(rng.integers(0, rows))
        ahead = draw(st.sampled_from([0, 0, 5, -700]))
        for row in range(rows):
            for channel in range(channels):
                if trouble[row, channel] < 0.05 or (machine == 1 and channel == 0 and dead < row < dead + 120):
                    continue
                time = START + row * SECOND + int(rng.integers(0, SECOND // 4))
                time += ahead * SECOND * (row > dead and channel > 0)
                one = tag(machine, channel, time, None if trouble[row, channel] > 0.99 else float(values[row, channel]))
                order = row + rng.random() * (4.0 if trouble[row, channel] > 0.95 else 0.4)
                coming += [(order, one)] * (2 if 0.9 < trouble[row, channel] < 0.92 else 1)
    coming.sort(key=lambda pair: pair[0])
    groups, at = [], 0
    most = draw(st.sampled_from([1, 4]))
    while at < len(coming):
        size = int(rng.integers(1, most + 1))
        groups.append([one for _, one in coming[at : at + size]])
        at += size
    return config, records_of(groups)


def cuts_of(data: st.DataObject, records: Sequence[Record]) -> list[int]:
    return data.draw(st.lists(st.integers(0, len(records)), max_size=12))


@pytest.mark.slow
@FEW
@given(streams(), st.data())
def test_batches_and_restarts_do_not_matter(stream: tuple[ReadingsConfig, list[Record]], data: st.DataObject) -> None:
    config, records = stream
    whole = pipeline_of(config)
    expected = alerts_of(play(whole, records))
    pipeline = pipeline_of(config)
    messages: list[Message] = []
    for batch in plant.batches_of(records, cuts_of(data, records)):
        messages += pipeline.process(batch).alerts
        if data.draw(st.booleans()):
            stored = pipeline.snapshot()
            pipeline = pipeline_of(config)
            assert not pipeline.restore(stored)
    assert messages == expected
    assert plant.state_of(pipeline, config) == plant.state_of(whole, config)


@pytest.mark.slow
@FEW
@given(streams(), st.data())
def test_nor_does_state_of_different_ages(stream: tuple[ReadingsConfig, list[Record]], data: st.DataObject) -> None:
    config, records = stream
    batches = list(plant.batches_of(records, cuts_of(data, records)))
    stop = data.draw(st.integers(0, len(batches) - 1))
    whole, pipeline = plant.of_different_ages(
        partial(pipeline_of, config), batches[: stop + 1], 1, lambda: data.draw(st.booleans())
    )
    again = [record for record in records if pipeline.position <= record.offset < whole.position]
    assert alerts_of(play(pipeline, again, cuts_of(data, again))) == []
    assert pipeline.mismatches == 0
    for batch in batches[stop + 1 :]:
        assert pipeline.process(batch).alerts == whole.process(batch).alerts
    assert plant.state_of(pipeline, config) == plant.state_of(whole, config)


def test_tags_one_by_one_are_what_messages_with_all_channels_are() -> None:
    values = plant.healthy(np.random.default_rng(3), 800, 2)
    values[500:560, 1] += 9
    tags = pipeline_of(config_of(machines=1))
    joined = alerts_of(play(tags, records_of(readings_of(values))))
    plain = config_of(machines=0)
    rows = plant.play(
        plant.pipeline_of(plain, plant.model_of(channels=2)),
        plant.records_of([[reading] for reading in plant.readings_of("m0", values)]),
    )
    ours, expected = ([json.loads(message.value) for message in messages] for messages in (joined, rows))
    assert [one["event"] for one in expected][:1] == ["opened"]
    for one in (*ours, *expected):
        del one["source"]
    assert ours == expected


def test_what_stands_for_a_missing_channel_alarms_nobody_and_is_null_in_alerts() -> None:
    values = plant.healthy(np.random.default_rng(4), 900, 2)
    gone = np.zeros((900, 2), dtype=bool)
    gone[500:550, 1] = True
    config = config_of(machines=1, open_after=(3, 5))
    assert alerts_of(play(pipeline_of(config), records_of(readings_of(values, gone=gone)))) == []
    flat = values.copy()
    flat[500:550, 1] = flat[499, 1]
    assert alerts_of(play(pipeline_of(config), records_of(readings_of(flat)))), "the same values, if they are real"
    values[520:560, 0] += 9
    opened = decode_alert(alerts_of(play(pipeline_of(config), records_of(readings_of(values, gone=gone))))[0].value)
    assert opened.channels[NAMES[0]] > 0.9
    assert opened.window is not None
    assert isinstance(opened.window.values, dict)
    assert None not in opened.window.values[NAMES[0]]
    assert opened.window.values[NAMES[1]].count(None) > 15


def test_values_that_are_lost_now_and_then_neither_alarm_nor_hide_a_fault() -> None:
    values = plant.healthy(np.random.default_rng(5), 1200, 2)
    gone = np.random.default_rng(9).random((1200, 2)) < 0.04
    config = config_of(machines=1, open_after=(8, 10))
    assert alerts_of(play(pipeline_of(config), records_of(readings_of(values, gone=gone)))) == []
    values[900:960, 1] += 12
    (opened, *_) = alerts_of(play(pipeline_of(config), records_of(readings_of(values, gone=gone))))
    assert decode_alert(opened.value).channels[NAMES[1]] > 0.5


def test_without_fills_a_slow_channel_gives_the_pace() -> None:
    values = plant.healthy(np.random.default_rng(5), 3000, 2)
    values[2400:2500, 1] += 12
    gone = np.zeros((3000, 2), dtype=bool)
    gone[:, 1] = np.arange(3000) % 3 > 0
    config = config_of(machines=1, align=AlignConfig(fill=None), open_after=(3, 5))
    outputs = play(pipeline_of(config), records_of(readings_of(values, gone=gone)))
    assert sum(output.tally.accepted for output in outputs) == 1000
    assert [change.reason for output in outputs for change in output.watch_changes if change.reason] == []
    opened = decode_alert(alerts_of(outputs)[0].value)
    assert opened.channels[NAMES[1]] > 0.5


@pytest.mark.parametrize("align", [AlignConfig(), AlignConfig(fill=None)], ids=["last", "null"])
def test_a_tag_that_never_comes_is_told_and_so_is_its_return(align: AlignConfig) -> None:
    values = plant.healthy(np.random.default_rng(6), 900, 2)
    gone = np.zeros((900, 2), dtype=bool)
    gone[400:700, 1] = True
    pipeline = pipeline_of(config_of(machines=1, align=align))
    changes = [
        (change.sensor_id, change.reason)
        for output in play(pipeline, records_of(readings_of(values, gone=gone)), range(0, 1600, 10))
        for change in output.watch_changes
        if "channel_missing" in (change.reason, change.before)
    ]
    assert changes[0] == ("m0", "channel_missing")
    assert len(changes) == 2
    assert changes[1][1] != "channel_missing"


def test_machines_are_what_settings_match_and_other_tags_are_left_out() -> None:
    config = config_of(machines=2, overrides=[{"match": "m1", "enabled": False}])
    pipeline = pipeline_of(config)
    values = plant.healthy(np.random.default_rng(6), 20, 2)
    groups = [*readings_of(values), *readings_of(values, 1), [tag(7, 0, START, 1.0)]]
    (output,) = play(pipeline, records_of(groups))
    assert output.new_sensors == ["m0"]
    assert output.tally.accepted == 20
    assert output.excluded == 41
    assert not output.rejected


@pytest.mark.parametrize("bad", [{"sensor_id": "m0/value", "timestamp": START, "values": {"value": 1.0}}, {}])
def test_what_is_no_reading_of_a_tag_is_a_dead_letter(bad: dict[str, Any]) -> None:
    (output,) = play(pipeline_of(config_of()), records_of([[bad]]))
    assert sum(output.rejected.values()) == 1 or output.tally.accepted == 0


def test_both_kernels_leave_a_missing_channel_out() -> None:
    values = plant.healthy(np.random.default_rng(7), 700, 2)
    gone = np.random.default_rng(8).random((700, 2)) < 0.1
    gone[:, 0] &= ~gone[:, 1]
    values[600:640] += 12
    config = config_of(machines=1, min_deviation={"absolute": 0.5})
    states = []
    for kernel in (choose().kernel, Interpreted()):
        with mock.patch("detector.detection.scorer.choose", return_value=mock.Mock(kernel=kernel)):
            pipeline = pipeline_of(config)
            messages = alerts_of(play(pipeline, records_of(readings_of(values, gone=gone))))
        states.append((messages, plant.state_of(pipeline, config)))
    assert states[0] == states[1]
    assert states[0][0]
    assert math.isfinite(decode_alert(states[0][0][0].value).score)
