"""Readings of several channels that lack some: the others are judged, whatever is missing and for however long."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from detector.arrays import F64, Bools
from detector.config.load import AlignConfig, ReadingsConfig
from detector.engine.output import Output
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.engine import test_machines as machines
from tests.plant import NAMES, SECOND, START
from tests.reference_rules import Reading

WARMUP = 400
MINUTES = 60 * SECOND


def config_of(channels: int = 3, **more: Any) -> ReadingsConfig:
    return plant.readings_config(channels=channels, warmup=WARMUP, false_alarms=plant.per_readings(20_000), **more)


def play(
    values: F64, gone: Bools, *, known: bool, cut: int = 50, nothing: float = math.nan, prefix: F64 | None = None
) -> list[Output]:
    """What comes of rows a second apart, of which some cells are `gone` (L, C): there it says `nothing`, NaN: null.

    `prefix`: of what the sensor is `known`.
    """
    channels = values.shape[1]
    healthy = plant.healthy(np.random.default_rng(1), 800, channels) if prefix is None else prefix
    profiles = {"m0": plant.profile_of(healthy, plant.reconstructor(channels))} if known else {}
    pipeline = plant.pipeline_of(config_of(channels), plant.model_of(profiles, channels=channels))
    rows = [
        Reading("m0", START + at * SECOND, tuple(None if math.isnan(one) else one for one in cells))
        for at, cells in enumerate(np.where(gone, nothing, values).tolist())
    ]
    records = plant.records_of([[row] for row in rows])
    return [pipeline.process(batch) for batch in plant.batches_of(records, range(0, len(records), cut))]


def alerts_of(outputs: Sequence[Output]) -> list[Alert]:
    return [decode_alert(alert.value) for output in outputs for alert in output.alerts]


def reasons_of(outputs: Sequence[Output]) -> list[str | None]:
    return [change.reason for output in outputs for change in output.watch_changes]


def with_a_fault(rows: int = 1300, channels: int = 3) -> tuple[F64, Bools]:
    """Values with a fault in the first channel from row 1000 on, of which none is gone."""
    values = plant.healthy(np.random.default_rng(3), rows, channels)
    values[1000:1060, 0] += 9
    return values, np.zeros(values.shape, dtype=bool)


def test_null_channels_are_what_tags_that_do_not_come_are() -> None:
    values, gone = with_a_fault(channels=2)
    gone[:, 1] = np.random.default_rng(8).random(len(values)) < 0.05
    gone[990:1040, 1] = True
    gone[0] = False
    tags = machines.pipeline_of(machines.config_of(machines=1, align=AlignConfig(max_age=90 * MINUTES)))
    groups = machines.readings_of(values, gone=gone)
    joined = [json.loads(one.value) for one in machines.alerts_of(machines.play(tags, machines.records_of(groups)))]
    wide = [json.loads(one.value) for output in play(values, gone, known=False) for one in output.alerts]
    assert wide[0]["event"] == "opened"
    assert wide[0]["window"]["values"][NAMES[1]][-1] is None
    for one in (*joined, *wide):
        del one["source"]
    assert wide == joined


@pytest.mark.parametrize("first", [0, 600], ids=["never there", "lost"])
def test_a_dead_channel_is_told_and_the_others_are_judged(first: int) -> None:
    values, gone = with_a_fault()
    gone[first:, 2] = True
    outputs = play(values, gone, known=True)
    opened = alerts_of(outputs)[0]
    assert opened.event == "opened"
    assert START + 1000 * SECOND <= parse_time(opened.detected_at) <= START + 1030 * SECOND
    assert opened.channels[NAMES[0]] > 0.8
    assert opened.channels[NAMES[2]] == 0
    assert reasons_of(outputs)[-1] == "channel_missing"
    assert sum(output.tally.missing for output in outputs) == 0


def test_without_a_fault_a_dead_channel_alarms_nobody() -> None:
    values, gone = with_a_fault(1000)
    gone[300:, 2] = gone[500:700, 1] = True
    assert alerts_of(play(values, gone, known=True)) == []


def test_channels_that_come_in_turns_make_a_profile() -> None:
    values, gone = with_a_fault()
    gone[:, 1], gone[:, 2] = np.arange(len(gone)) % 2 == 0, np.arange(len(gone)) % 2 == 1
    outputs = play(values, gone, known=False)
    assert alerts_of(outputs)[0].event == "opened"
    assert reasons_of(outputs)[-1] is None


def test_a_warm_up_waits_for_each_channel() -> None:
    values, gone = with_a_fault(2600)
    gone[5:2000, 2] = True
    outputs = play(values, gone, known=False)
    watched = [(at, one.reason) for at, output in enumerate(outputs) for one in output.watch_changes]
    assert watched[0] == (2, "channel_missing")
    assert watched[-1][1] is None
    assert 2000 < watched[-1][0] * 50 < 2000 + WARMUP + 100
    assert alerts_of(outputs) == [], "that it comes back is no fault of a machine that was not known"


@pytest.mark.parametrize("known", [True, False])
def test_a_value_that_stands_for_none_is_null_in_its_channel(known: bool) -> None:
    values, gone = with_a_fault()
    gone[20:WARMUP:30, 2] = gone[50:WARMUP:60, 1] = gone[650:900, 1] = gone[985:1100, 2] = True
    gone[700:705] = known  # a warm-up has taken in such rows before it knows what stands for none
    healthy, lost = plant.healthy(np.random.default_rng(1), 800, 3), np.zeros((800, 3), dtype=bool)
    lost[::90, 1:] = lost[0, 2] = lost[10::200] = True
    null, stands = (
        play(values, gone, known=known, nothing=nothing, prefix=np.where(lost, nothing, healthy))
        for nothing in (math.nan, -9999.0)
    )
    assert [one.event for one in alerts_of(null)][:1] == ["opened"]
    assert [(one.value, one.key) for output in stands for one in output.alerts] == [
        (one.value, one.key) for output in null for one in output.alerts
    ]
    assert reasons_of(stands) == reasons_of(null)
    for outcome in ("accepted", "missing"):
        one, other = (sum(getattr(output.tally, outcome) for output in outputs) for outputs in (stands, null))
        assert one == other


def test_a_tag_that_says_what_stands_for_none_leaves_its_row_missing_and_no_more() -> None:
    values, gone = with_a_fault(channels=2)
    prefix = values[:WARMUP].copy()
    prefix[20::30, 1] = -9999.0
    values[:WARMUP] = prefix
    values[990, 1] = -9999.0
    gone[991:1040, 1] = True
    config = machines.config_of(machines=1, align=AlignConfig(max_age=90 * MINUTES))
    tags = machines.pipeline_of(config.model_copy(update={"warmup": WARMUP}))
    outputs = machines.play(tags, machines.records_of(machines.readings_of(values, gone=gone)))
    assert sum(output.tally.missing for output in outputs) == 1
    assert alerts_of(outputs)[0].event == "opened"
    assert parse_time(alerts_of(outputs)[0].detected_at) < START + 1030 * SECOND


def test_null_in_all_channels_is_a_missing_reading() -> None:
    values, gone = with_a_fault(300)
    gone[100:110] = True
    assert sum(output.tally.missing for output in play(values, gone, known=True)) == 10
