"""Frames in, alerts out: episodes of cameras, in any batching, decoded at any speed, over any restart."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detector.config.alerts import FalseAlarms
from detector.config.settings import LimitsConfig
from detector.detection.framerows import FrameBlock, score_frame_block
from detector.detection.framesignal import score_frames
from detector.detection.profile import build_frame_profile
from detector.detection.scorer import Scored
from detector.detection.table import SensorTable, StateError, camera_table
from detector.engine import framequeue
from detector.engine import frames as frames_module
from detector.engine import slices as snapshots
from detector.engine.framealerts import heatmap
from detector.engine.frames import FramesPipeline
from detector.engine.slices import provenance_of, unpack_slices
from detector.streams.base import Batch, Message, Record, pack_state, unpack_state
from detector.times import parse_time
from detector.wire.alerts import Alert, decode_alert
from detector.wire.frames import Frame, FrameDecoder, NoFrame
from detector.wire.readings import Verdict
from detector.wire.schemas import schema
from tests.cameras import (
    PARTITION,
    SECOND,
    SHAPE,
    START,
    batches_of,
    finish,
    frames_config,
    model_of,
    numbered,
    pipeline_of,
    play,
    raw_record,
    records_of,
    state_of,
    watched,
)
from tests.plant import maintenance

CONFIG = frames_config()


def alerts_of(messages: Sequence[Message]) -> list[Alert]:
    return [decode_alert(message.value) for message in messages]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Two cameras known from training, one with a fault, and one that nobody knew, with two."""
    return records_of(
        {
            "door": watched(300, seed=5, faults=[(200, 240)]),
            "gate": watched(300, seed=6),
            "new": watched(300, seed=7, faults=[(180, 190), (250, 300)]),
        }
    )


@pytest.fixture(scope="module")
def expected(records: list[Record]) -> list[Message]:
    return play(pipeline_of(CONFIG, model_of("door", "gate")), records)


# -- episodes ------------------------------------------------------------------------------------------------------


def test_faults_are_episodes(expected: list[Message]) -> None:
    told = [(alert.sensor_id, alert.event) for alert in alerts_of(expected) if alert.event != "updated"]
    assert told == [
        ("new", "opened"), ("door", "opened"), ("new", "closed"), ("new", "opened"), ("door", "closed"),
    ]  # fmt: skip


def test_an_alert_says_what_it_is_about(expected: list[Message], records: list[Record]) -> None:
    opened = next(alert for alert in alerts_of(expected) if alert.sensor_id == "door")
    assert (opened.kind, opened.reason, opened.window, opened.channels) == ("frames", "anomaly", None, {"grey": 1.0})
    # The third frame of the fault opens it; it began with the first of the five that was too bad by itself.
    assert opened.detected_at == "2026-09-21T14:16:42Z"
    assert opened.started_at == "2026-09-21T14:16:40Z"
    assert opened.source.stream == "image-frames"
    assert records[202 * 3].offset == opened.source.opened_offset == opened.source.last_offset
    assert opened.score > opened.threshold
    closed = next(a for a in alerts_of(expected) if a.sensor_id == "door" and a.event == "closed")
    assert (closed.close_reason, closed.ended_at) == ("recovered", "2026-09-21T14:17:19Z"), "its last frame"


@given(
    st.sampled_from([(3, 5), (2, 2), (1, 1), (1, 4)]),
    st.integers(5, 40),
    st.integers(8, 30),
    st.lists(st.integers(0, 120), max_size=6),
    st.sampled_from([None, 60, 75]),
)
@settings(max_examples=12)
def test_an_episode_is_as_long_as_its_frames_are_bad(
    open_after: tuple[int, int], first: int, rows: int, cuts: list[int], stop: int | None
) -> None:
    config = frames_config(open_after=open_after)
    records = records_of({"door": watched(120, seed=5, faults=[(first, first + rows)])})
    pipeline, messages = pipeline_of(config, model_of("door")), []
    for batch in batches_of(records, [*cuts, *([] if stop is None else [stop])]):
        messages += [*pipeline.process(batch).alerts, *finish(pipeline)]
        if stop is not None and pipeline.position >= records[stop].offset:
            stored, stop = pipeline.snapshot(), None
            pipeline = pipeline_of(config, model_of("door"))
            pipeline.restore(stored)
    (opened, *_, closed) = alerts_of(messages)
    assert (parse_time(opened.started_at) - START) // SECOND == first
    assert (parse_time(closed.ended_at or "") - START) // SECOND == first + rows - 1


def test_a_camera_that_cannot_be_judged_is_set_aside_and_the_others_go_on(records: list[Record]) -> None:
    def broken(table: SensorTable, block: FrameBlock, *rest: Any) -> Scored:
        if "gate" in (table.name(slot) for slot in block.slots.tolist()):
            raise ArithmeticError("gate")
        return score_frame_block(table, block, *rest)

    pipeline = pipeline_of(CONFIG, model_of("door", "gate"))
    with mock.patch.object(frames_module, "score_frame_block", broken):
        told = alerts_of(play(pipeline, records))
    assert {alert.sensor_id for alert in told} == {"door", "new"}
    table = camera_table(SHAPE, CONFIG.alerts.open_after.of)
    unpack_slices(table, unpack_state(pipeline.snapshot())[0])
    assert [table.name(slot) for slot in table.failed] == ["gate"]


def test_an_episode_begins_no_earlier_than_the_last_one_ended() -> None:
    config = frames_config(close_after=1)
    frames = watched(60, faults=[(20, 30), (33, 40)])
    alerts = alerts_of(play(pipeline_of(config, model_of("door")), records_of({"door": frames})))
    ended = next(alert.ended_at for alert in alerts if alert.event == "closed")
    later = [alert for alert in alerts if alert.event == "opened"][1]
    assert ended is not None
    assert later.started_at > ended


def test_the_wire_form_keeps_the_schema(expected: list[Message]) -> None:
    validator = jsonschema.Draft202012Validator(schema("alert"))
    for message in expected:
        document = json.loads(message.value)
        validator.validate(document)
        assert "window" not in document
        assert message.key == document["sensor_id"].encode()
        image = Image.open(io.BytesIO(base64.b64decode(document["heatmap"])))
        assert (image.format, image.mode, image.size) == ("PNG", "L", (28, 28))


def test_the_heat_map_shows_where() -> None:
    alerts = alerts_of(
        play(pipeline_of(CONFIG, model_of("door")), records_of({"door": watched(30, faults=[(10, 20)])}))
    )
    text = alerts[0].heatmap
    assert text is not None
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(float)
    rows, columns = slice(3 * 28 // 12, 9 * 28 // 12), slice(4 * 28 // 16, 12 * 28 // 16)
    inside, total = heat[rows, columns], heat.sum()
    assert inside.mean() > 10 * (total - inside.sum()) / (heat.size - inside.size)
    assert alerts[0].frame is not None
    assert alerts[0].frame["peak_ratio"] > 1


def test_equal_heat_maps_give_equal_text() -> None:
    heat = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    assert heatmap(heat) == heatmap(heat.copy())
    assert heatmap(heat) != heatmap(heat[::-1])


def test_a_healthy_camera_is_quiet() -> None:
    pipeline = pipeline_of(frames_config(false_alarms=FalseAlarms(per="week")), model_of("door"))
    assert play(pipeline, records_of({"door": watched(2000, seed=9)})) == []


# -- batches and speed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_any_batching_gives_the_same(records: list[Record], expected: list[Message], size: int) -> None:
    pipeline = pipeline_of(CONFIG, model_of("door", "gate"))
    assert play(pipeline, records, range(size, len(records), size)) == expected
    whole = pipeline_of(CONFIG, model_of("door", "gate"))
    play(whole, records)
    assert state_of(pipeline, CONFIG) == state_of(whole, CONFIG)


def odd_records(seed: int) -> list[Record]:
    """Frames of four cameras with faults, gaps, late and repeated ones, clocks that go back, and rejects among them."""
    rng = np.random.default_rng(seed)
    faults = [(int(b), int(b) + 15) for b in rng.integers(20, 300, 4)]
    frames = {
        camera: watched(330, seed=seed + i, faults=faults) for i, camera in enumerate(("door", "gate", "new", "old"))
    }
    rows = []
    time = 0
    for i in range(330):
        time += int(rng.choice([1, 1, 1, 1, 90, 3000], p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01]))
        for camera, shown in frames.items():
            shift = (
                -5000 if camera == "door" and 100 < i < 200 else int(rng.choice([0, -1, -200], p=[0.94, 0.04, 0.02]))
            )
            row = raw_record(camera, shown[i], START + (time + shift) * SECOND)
            rows.append(row._replace(value=b"broken") if rng.random() < 0.02 else row)
    return numbered(rows)


TIMERS = frames_config(
    false_alarms=FalseAlarms(per="400 readings"), idle_eviction=2000 * SECOND, update_every=7 * SECOND,
    max_duration=300 * SECOND, close_after=6,
)  # fmt: skip


MAINTENANCE = [maintenance("[dg]*", 2000, 7000), maintenance("old", 5000, 9000), maintenance("new", 0, 20000)]


def timed_pipeline() -> FramesPipeline:
    return pipeline_of(TIMERS, model_of("door", "gate"), maintenance=MAINTENANCE)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_timers_and_odd_records_in_any_batching(seed: int, data: st.DataObject) -> None:
    records = odd_records(seed)
    cuts = data.draw(st.lists(st.integers(1, len(records)), max_size=30))
    whole, pieces = timed_pipeline(), timed_pipeline()
    expected = play(whole, records)
    assert {alert.event for alert in alerts_of(expected)} == {"opened", "updated", "closed"}
    assert play(pieces, records, cuts) == expected
    assert state_of(pieces, TIMERS) == state_of(whole, TIMERS)


def test_every_reason_to_close_comes_up() -> None:
    alerts = [alert for seed in range(3) for alert in alerts_of(play(timed_pipeline(), odd_records(seed)))]
    assert {alert.close_reason for alert in alerts} >= {None, "recovered", "gap", "max_duration"}
    assert {(alert.event, alert.muted) for alert in alerts} == set(
        itertools.product(("opened", "updated", "closed"), (True, False))
    )


def test_what_is_muted_and_outlives_the_maintenance_is_told() -> None:
    records = records_of({"door": watched(300, seed=5, faults=[(200, 240)])})
    free = alerts_of(play(pipeline_of(CONFIG, model_of("door")), records))
    assert [(one.event, one.muted) for one in free] == [("opened", False), ("closed", False)]
    pipeline = pipeline_of(CONFIG, model_of("door"), maintenance=[maintenance("do*", 150, 220)])
    muted = alerts_of(play(pipeline, records))
    assert [(one.event, one.muted) for one in muted] == [("opened", True), ("updated", False), ("closed", False)]
    assert {one.alert_id for one in muted} == {free[0].alert_id}


class Held(FrameDecoder):
    """Decodes the frames of one camera only when it is let."""

    def __init__(self, camera: bytes) -> None:
        super().__init__(SHAPE, LimitsConfig())
        self._held = camera
        self.let = threading.Event()

    def decode(self, record: Record) -> Frame | Verdict | NoFrame:
        if record.key == self._held:
            assert self.let.wait(60)
        return super().decode(record)


def test_a_slow_frame_holds_nothing_up_but_what_follows_it(records: list[Record], expected: list[Message]) -> None:
    slow = Held(b"slow")
    pipeline = pipeline_of(CONFIG, model_of("door", "gate"), slow)
    late = raw_record("slow", watched(1)[0], START)._replace(offset=records[449].offset + 1)
    before, after = batches_of(records, [450])
    told: list[Message] = []
    for batch in (before, Batch(PARTITION, [late], after.records[0].offset), after):
        told += pipeline.process(batch).alerts
    while pipeline.position < before.next_offset:
        told += pipeline.advance().alerts
    assert pipeline.advance().records == 0
    assert (pipeline.pending, pipeline.position) == (True, before.next_offset)
    slow.let.set()
    told += finish(pipeline)
    assert told == expected
    assert pipeline.position == after.next_offset


def test_offsets_without_records_are_passed_in_their_turn(records: list[Record]) -> None:
    pipeline = pipeline_of(CONFIG, model_of("door", "gate"))
    (some,) = batches_of(records[:90])
    for batch, end in ((Batch(PARTITION, (), 5), 5), (some, some.next_offset), (Batch(PARTITION, (), 9999), 9999)):
        pipeline.process(batch)
        finish(pipeline)
        assert (pipeline.pending, pipeline.position) == (False, end)
    again = pipeline_of(CONFIG, model_of("door", "gate"))
    again.restore(pipeline.snapshot(), live_from=12_000)
    assert again.restoring
    again.process(Batch(PARTITION, (), 12_000))
    assert (again.restoring, again.position) == (False, 12_000)


def test_what_memory_should_not_hold_is_waited_for(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framequeue, "PENDING_RECORDS", 100)
    monkeypatch.setattr(framequeue, "PORTION_RECORDS", 50)
    monkeypatch.setattr(framequeue, "_WAIT_SECONDS", 0.001)
    slow = Held(b"door")
    pulses = []

    def pulse() -> None:
        pulses.append(1)
        if len(pulses) == 3:
            slow.let.set()

    pipeline = pipeline_of(CONFIG, model_of("door", "gate"), slow, pulse)
    output = pipeline.process(batches_of(records)[0])
    assert output.records >= len(records) - 100
    assert len(pulses) >= 3


# -- what came of frames -------------------------------------------------------------------------------------------


def test_rejects_and_outcomes_are_counted() -> None:
    frames = watched(10)
    rows = [raw_record("door", frame, START + i * SECOND) for i, frame in enumerate(frames)]
    small = raw_record("door", frames[0][:6, :8].copy(), START + 20 * SECOND)
    rows += [rows[3], rows[9], rows[0]._replace(value=b"text"), rows[0]._replace(key=None), small]
    pipeline = pipeline_of(CONFIG, model_of("door"))
    output = pipeline.process(Batch(PARTITION, numbered(rows), 1000))
    while pipeline.pending:
        more = pipeline.advance()
        if more.records:
            output = more
    assert output.outcomes() == {"accepted": 10, "resized": 1, "late": 1, "duplicate": 1, "failed": 0, "rejected": 2}
    assert output.rejected == {"shape_mismatch": 1, "missing_sensor_id": 1}
    assert output.refused == [12, 13]
    assert [dict(letter.headers)["detector.reason"] for letter in output.dead_letters] == [
        b"shape_mismatch", b"missing_sensor_id",
    ]  # fmt: skip
    assert [letter.value for letter in output.dead_letters] == [b"text", rows[0].value]
    assert sum(map(len, output.scores)) == sum(map(len, output.errors)) == 11


# -- warm-up -------------------------------------------------------------------------------------------------------


def test_a_warm_up_is_judged_as_training_would() -> None:
    frames = watched(400, seed=8, faults=[(300, 340)])
    records = records_of({"new": frames})
    model = model_of()
    profile, _ = build_frame_profile(START + SECOND * np.arange(150), score_frames(model, frames[:150]))
    known = dataclasses.replace(model, profiles={"new": profile})
    warm, cold = pipeline_of(CONFIG, model), pipeline_of(CONFIG, known)
    told = play(warm, records)
    assert (warm.warming, warm.sensors) == (0, 1)
    assert told == play(cold, records[150:])
    assert alerts_of(told)[0].event == "opened"


@pytest.mark.parametrize("cuts", [(), (1, 2, 30), (60,)])
def test_fewer_frames_may_be_asked_for_than_were_collected(cuts: tuple[int, ...]) -> None:
    frames = {"new": watched(400, seed=8, faults=[(300, 340)]), "other": watched(400, seed=9)}
    records = records_of(frames)
    first, rest = records[:500], records[500:]
    before, after = pipeline_of(frames_config(warmup=300), model_of()), pipeline_of(CONFIG, model_of())
    assert play(before, first) == []
    assert not after.restore(before.snapshot())
    assert after.warming == 2
    profiles = {
        camera: build_frame_profile(START + SECOND * np.arange(250), score_frames(model_of(), own[:250]))[0]
        for camera, own in frames.items()
    }
    expected = play(pipeline_of(CONFIG, dataclasses.replace(model_of(), profiles=profiles)), rest)
    assert alerts_of(expected)[0].event == "opened"
    assert play(after, rest, list(cuts)) == expected
    assert after.warming == 0


def test_nothing_is_told_during_the_warm_up() -> None:
    pipeline = pipeline_of(frames_config(warmup=200), model_of())
    assert play(pipeline, records_of({"new": watched(199, faults=[(100, 199)])})) == []
    assert pipeline.warming == 1


# -- restarts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 400, 500, 612, 640, 899])
def test_a_restart_changes_nothing(records: list[Record], expected: list[Message], at: int) -> None:
    model = model_of("door", "gate")
    one, two = pipeline_of(CONFIG, model), pipeline_of(CONFIG, model)
    first, rest = batches_of(records, [at])
    told = one.process(first).alerts + finish(one)
    assert two.restore(one.snapshot()) is False
    assert two.position == first.next_offset
    assert told + two.process(rest).alerts + finish(two) == expected


@pytest.fixture(scope="module")
def slices_of_one() -> Iterator[None]:
    with mock.patch.object(snapshots, "SLICE_SENSORS", 1):
        yield


@pytest.mark.usefixtures("slices_of_one")
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_slices_of_different_ages_are_brought_up_to_date(data: st.DataObject) -> None:
    records = odd_records(3)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records) - 1), min_size=3, max_size=6)))
    one = timed_pipeline()
    journal: dict[str, bytes] = {}
    slices: dict[int, tuple[int, bytes]] = {}
    expected: list[Message] = []
    begun = 0
    for batch in batches_of(records, cuts):
        whole_state = pack_state([data for _, data in slices.values()], journal) if slices else None
        if slices and len(slices) == one.slices():
            two = timed_pipeline()
            oldest = min(position for position, _ in slices.values())
            assert whole_state is not None
            two.restore(whole_state, one.position, oldest)
            for again in batches_of(records):
                part = [r for r in again.records if oldest <= r.offset < one.position]
                if part:
                    output = two.process(Batch(PARTITION, part, one.position))
                    assert (output.alerts, two.pending) == ([], False)
            assert (two.mismatches, two.restoring) == (0, False)
            assert state_of(two, TIMERS) == state_of(one, TIMERS)
            begun += 1
        expected += one.process(batch).alerts + finish(one)
        for key, value in one.journal():
            journal[key] = value or b""
        for number in range(one.slices()):
            if number not in slices or data.draw(st.booleans()):
                slices[number] = one.position, one.pack_slice(number)
    assert begun


def test_another_model_is_taken_up_and_open_episodes_go_on() -> None:
    records = records_of({"door": watched(300, faults=[(100, 150)]), "new": watched(300, seed=8)})
    first, rest = batches_of(records, [240])
    one = pipeline_of(CONFIG, model_of("door"))
    told = one.process(first).alerts + finish(one)
    assert one.open_episodes == 1
    two = pipeline_of(CONFIG, model_of("door", version="2"))
    assert two.restore(one.snapshot()) is True
    assert two.renewed() is True
    assert two.warming == 1
    later = alerts_of(two.process(rest).alerts + finish(two))
    assert [(a.event, a.model.version) for a in later if a.sensor_id == "door"] == [("closed", "2")]
    assert {a.alert_id for a in later} == {alerts_of(told)[-1].alert_id}
    state = state_of(two, CONFIG)["new"]
    assert state["warming"] is not None or two.warming == 0


def test_a_new_budget_is_taken_up() -> None:
    records = records_of({"door": watched(50)})
    one = pipeline_of(frames_config(false_alarms=FalseAlarms(per="1000 readings")), model_of("door"))
    play(one, records)
    config = frames_config(false_alarms=FalseAlarms(per="700 readings"))
    two = pipeline_of(config, model_of("door"))
    two.restore(one.snapshot())
    assert float(two._table["budget"][0]) == 700  # noqa: SLF001


def test_the_state_names_its_basis() -> None:
    one = pipeline_of(CONFIG, model_of("door"))
    play(one, records_of({"door": watched(5)}))
    assert provenance_of(one.snapshot()) == one.provenance
    assert type(CONFIG).model_validate_json(one.provenance.settings).alerts == CONFIG.alerts


def test_a_state_of_other_frames_is_refused() -> None:
    one = pipeline_of(CONFIG, model_of("door"))
    play(one, records_of({"door": watched(5)}))
    two = pipeline_of(frames_config(open_after=(3, 6)), model_of("door"))
    with pytest.raises(StateError, match="another configuration"):
        two.restore(one.snapshot())
