"""From batches of records to each sensor's rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from detector.config.load import AlignConfig, Config, FieldsConfig
from detector.detection.alignment import alignment_of
from detector.models.training import dataset
from detector.models.training.dataset import Collected, Machines, collect, constant_sensors, in_order
from detector.service.pipelines import make_decoder
from detector.streams.base import Batch, Partition, Record
from detector.wire.json_readings import ReadingDecoder
from tests import plant
from tests.engine.test_machines import config_of, pipeline_of, play, readings_of, records_of

SECOND = 10**9
START = 1_700_000_000


def batches(messages: Sequence[object], size: int = 4) -> list[Batch]:
    records = [Record(10 * i, None, json.dumps(message).encode()) for i, message in enumerate(messages)]
    return [
        Batch(Partition("readings", 0), records[i : i + size], 10 * (i + size), None, i)
        for i in range(0, len(records), size)
    ]


def reading(second: int, value: object = 1.0, sensor: str = "a") -> dict[str, object]:
    return {"sensor_id": sensor, "timestamp": START + second, "value": value}


def collected(messages: Sequence[object], **keywords: Any) -> Collected:
    return collect(batches(messages), ReadingDecoder(FieldsConfig(), ("value",)), **keywords)


def seconds(found: Collected, sensor: str = "a") -> list[int]:
    return [time // SECOND - START for time in found.series[sensor][0].tolist()]


def test_readings_are_sorted_by_sensor_and_keep_their_order() -> None:
    messages = [reading(second, second * k, sensor) for second in range(20) for k, sensor in enumerate("ab", 1)]
    found = collected(messages)
    assert list(found.series) == ["a", "b"]
    assert seconds(found) == seconds(found, "b") == list(range(20))
    assert found.series["b"][1].tolist() == [[2.0 * second] for second in range(20)]
    assert (found.records, found.readings, found.refused, found.outside, found.missing) == (40, 40, 0, 0, 0)


def test_messages_of_many_readings_and_channels() -> None:
    message = {
        "sensor_id": "a",
        "timestamps": [START, START + 1, START + 2],
        "values": {"flow": [1, 2, None], "heat": [4, 5, 6]},
    }
    found = collect(batches([message]), ReadingDecoder(FieldsConfig(), ("heat", "flow")))
    np.testing.assert_array_equal(found.series["a"][1], [[4, 1], [5, 2], [6, np.nan]])
    assert found.missing == 0


def test_a_csv_file_has_its_sensor_from_outside() -> None:
    rows = [f"2026-01-01 00:00:{second:02d},{second}".encode() for second in range(10)]
    batch = Batch(Partition("x", 0), [Record(i, None, row) for i, row in enumerate(rows)], 10, b"timestamp,value", 0)
    found = collect([batch], ReadingDecoder(FieldsConfig(), ("value",), "pump"))
    assert found.series["pump"][1][:, 0].tolist() == list(range(10))


def test_missing_late_and_repeated_readings_make_no_rows() -> None:
    found = collected([reading(5), reading(6, None), reading(5, 9), reading(4), reading(6), reading(8), reading(7)])
    assert seconds(found) == [5, 6, 8]
    assert found.series["a"][1][:, 0].tolist() == [1.0, 1.0, 1.0]
    assert (found.missing, found.late, found.duplicate, found.resets) == (1, 2, 1, 0)


def test_a_clock_set_back_goes_on_from_the_new_time() -> None:
    found = collected([reading(1000 + i) for i in range(5)] + [reading(i) for i in range(30)])
    assert seconds(found) == [1000, 1001, 1002, 1003, 1004, *range(19, 30)]
    assert (found.late, found.resets) == (19, 1)


def test_a_sensor_that_runs_backwards_is_sorted() -> None:
    messages = [message for i in range(300) for message in (reading(1000 - i, float(i)), reading(i, 1.0, "b"))]
    found = collected(messages)
    assert found.sorted == ["a"]
    assert seconds(found) == list(range(701, 1001))
    assert found.series["a"][1][0, 0] == 299.0
    assert seconds(found, "b") == list(range(300))
    assert (found.late, found.resets) == (0, 0)


def test_the_first_rows_of_each_sensor_as_they_came() -> None:
    messages = [reading(second, None if second == 1 else 1.0, sensor) for second in range(6) for sensor in "ab"]
    found = collected(messages, rows=4)
    assert seconds(found) == seconds(found, "b") == [0, 2, 3]
    assert (found.missing, found.outside) == (2, 4)


def test_since_counts_back_from_the_newest_reading_of_all_and_until_is_not_included() -> None:
    messages = [reading(second, 1.0, "a") for second in range(10)] + [reading(second, 1.0, "b") for second in range(20)]
    found = collected(messages, since=12 * SECOND)
    assert (seconds(found), seconds(found, "b")) == ([7, 8, 9], list(range(7, 20)))
    found = collected(messages, until=(START + 15) * SECOND, since=6 * SECOND, rows=2)
    assert (seconds(found), seconds(found, "b")) == ([8, 9], [8, 9])
    assert found.outside == 26


def test_sensors_that_are_not_watched_are_left_out() -> None:
    messages = [reading(second, 1.0, sensor) for second in range(3) for sensor in ("a", "test-b")]
    found = collected(messages, includes=lambda sensor_id: not sensor_id.startswith("test"))
    assert list(found.series) == ["a"]
    assert (found.readings, found.excluded) == (6, 3)


def test_what_is_rejected_is_counted_and_the_first_is_named() -> None:
    found = collected([reading(0), reading(1), reading(2), reading(3), reading(4), reading(5, "warm"), {"x": 1}])
    assert (found.records, found.refused, found.readings) == (7, 2, 5)
    assert found.first_refusal == "line 6: value `warm` is text, not a number"


@pytest.mark.parametrize("messages", [[], [{"x": 1}]])
def test_no_readings_give_no_series(messages: list[object]) -> None:
    assert collected(messages, rows=5, since=SECOND, until=SECOND).series == {}


def test_a_sensor_without_a_single_value_is_none() -> None:
    assert collected([reading(0, None)]).series == {}


def test_constant_sensors_are_found() -> None:
    messages = [reading(second, value, sensor) for second in range(5) for sensor, value in (("a", 7), ("b", second))]
    assert list(constant_sensors(collected(messages))) == [("a", 5, [0])]


# -- the rows of `run` ---------------------------------------------------------------------------------------------

STRETCHES = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 99), st.integers(1, 40), st.sampled_from([-1, 1, 1, 2])), max_size=8
)
"""Sensor, first second, readings, seconds from one to the next: late by one or by many, and clocks set back."""


@given(STRETCHES, st.sampled_from([0, 3, 45]), st.lists(st.integers(0, 200)), st.sampled_from([1, 7, 1000]))
def test_training_sees_the_rows_that_run_admits(
    stretches: list[tuple[str, int, int, int]], lateness: int, cuts: list[int], portion: int
) -> None:
    arrivals = [(sensor, first + step * i) for sensor, first, length, step in stretches for i in range(length)]
    records = [
        Record(i, None, json.dumps(reading(second, None if i % 11 == 9 else float(i), sensor)).encode())
        for i, (sensor, second) in enumerate(arrivals)
    ]
    config = plant.readings_config(warmup=1000, window={"allowed_lateness": lateness * SECOND})
    pipeline = plant.pipeline_of(config, plant.model_of())
    tallies = [pipeline.process(batch).tally for batch in plant.batches_of(records, cuts)]
    table = plant.table_of(pipeline, config)
    admitted = {
        sensor: (rows.times.tobytes(), rows.values.tobytes())
        for sensor, slot in table.slots.items()
        if (rows := table.warming[slot]).count
    }
    with mock.patch.object(dataset, "PORTION", portion):
        found = collect(
            plant.batches_of(records), ReadingDecoder(FieldsConfig(), ("value",)), lateness=lateness * SECOND
        )
    assume(not found.sorted)  # those whose clock was set back too often are sorted, which `run` cannot do
    assert {sensor: (times.tobytes(), values.tobytes()) for sensor, (times, values) in found.series.items()} == admitted
    assert list(found.series) == list(admitted)
    for name in ("missing", "late", "duplicate", "resets"):
        assert getattr(found, name) == sum(getattr(tally, name) for tally in tallies)
    used = sum(len(times) for times, _ in found.series.values())
    assert used + found.held == sum(tally.accepted for tally in tallies)


@given(st.lists(st.integers(0, 60), max_size=120))
def test_frames_follow_the_same_rule(times: list[int]) -> None:
    stamps = np.array(times, dtype=np.int64)
    found = collected([reading(second) for second in times])
    assert [times[i] for i in in_order(stamps).tolist()] == (seconds(found) if times else [])


def test_readings_within_the_allowed_lateness_are_sorted_in_and_the_newest_are_still_held_back() -> None:
    messages = [reading(second, float(second)) for second in (0, 2, 1, 3, 5, 4, 6)]
    strict, lenient = collected(messages), collected(messages, lateness=2 * SECOND)
    assert (seconds(strict), strict.late, strict.held) == ([0, 2, 3, 5, 6], 2, 0)
    assert (seconds(lenient), lenient.late, lenient.held) == ([0, 1, 2, 3, 4], 0, 2)
    assert lenient.series["a"][1][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_of_readings_out_of_order_the_first_are_taken_as_they_came() -> None:
    messages = [reading(second, 1.0, sensor) for second in (0, 9, 1, 2) for sensor in "ab"]
    found = collected(messages, rows=3, lateness=3 * SECOND)
    assert (seconds(found), seconds(found, "b"), found.held, found.outside) == ([0, 1], [0, 1], 2, 2)


def test_tags_of_machines_become_the_rows_that_the_daemon_learns_from() -> None:
    config = config_of(machines=2, align=AlignConfig(within=SECOND // 2), window={"allowed_lateness": SECOND})
    values = plant.healthy(np.random.default_rng(1), 300, 2)
    gone = np.random.default_rng(2).random((300, 2)) < 0.1
    records = records_of([*readings_of(values, gone=gone), *readings_of(values, 1)])
    pipeline = pipeline_of(config.model_copy(update={"warmup": 1000}))
    (output,) = play(pipeline, records)
    warming = plant.table_of(pipeline, config).warming.values()
    decoder = make_decoder(Config().model_copy(update={"readings": config}), sensor=None, interval=None, live=False)
    machines = Machines(2, alignment_of(config))
    for portion in (7, 100_000):
        with mock.patch.object(dataset, "PORTION", portion):
            found = collect(plant.batches_of(records), decoder, lateness=SECOND, machines=machines)
        assert list(found.series) == ["m0", "m1"]
        assert found.missing == output.tally.missing
        for (times, rows), ours in zip(found.series.values(), warming, strict=True):
            assert times.tolist() == ours.times.tolist()
            np.testing.assert_array_equal(rows, ours.values)
            assert np.isnan(rows).any() == (times is found.series["m0"][0])
    first = collect(plant.batches_of(records), decoder, rows=50, machines=machines)
    assert len(first.series["m1"][0]) == 50


def test_readings_that_lack_channels_are_rows_from_where_each_has_come() -> None:
    cells = [(None, 1.0), (2.0, None), (None, 3.0), (None, None), (4.0, None)]
    messages = [
        {"sensor_id": "a", "timestamp": START + second, "values": {"x": x, "y": y}}
        for second, (x, y) in enumerate(cells)
    ]
    messages += [{"sensor_id": "b", "timestamp": START, "values": {"x": 1.0, "y": None}}]
    found = collect(batches(messages), ReadingDecoder(FieldsConfig(), ("x", "y")))
    assert seconds(found) == [1, 2, 4]
    np.testing.assert_array_equal(found.series["a"][1], [[2.0, np.nan], [np.nan, 3.0], [4.0, np.nan]])
    assert (found.missing, found.never) == (1, {"b": [1]})
    assert list(found.series) == ["a"]


def test_the_first_rejected_record_of_a_topic_is_named_by_its_offset() -> None:
    bad = Record(4711, b"a", b"words", 1_795_341_600_000)
    found = collect([Batch(Partition("t", 3), [bad], 4712)], ReadingDecoder(FieldsConfig(), ("value",)))
    assert found.first_refusal.startswith("partition 3, offset 4711: not JSON")
