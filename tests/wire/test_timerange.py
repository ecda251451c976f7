"""A part of a recording: whole readings go or stay, whatever message they came in."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from detector.config.load import FieldsConfig
from detector.streams.base import Batch, Record
from detector.wire.json_readings import ReadingDecoder
from detector.wire.timerange import TimeRange, newest_time
from tests.plant import PARTITION

SECOND = 10**9
DECODER = ReadingDecoder(FieldsConfig(), ("value",))
BASE = 1_790_000_000
"""Seconds since the epoch; times in these tests are seconds after it."""


def batch(*documents: object) -> Batch:
    values = [document if isinstance(document, bytes) else json.dumps(document).encode() for document in documents]
    return Batch(PARTITION, [Record(i, None, value) for i, value in enumerate(values)], len(values))


def at(second: int) -> int:
    return (BASE + second) * SECOND


def run(sensor: str, seconds: Sequence[int]) -> dict[str, object]:
    return {
        "sensor_id": sensor,
        "timestamps": [BASE + second for second in seconds],
        "values": [float(second) for second in seconds],
    }


MIXED = batch(run("a", [1, 2, 3, 4]), run("b", [9, 10]), b"no reading", run("c", [2, 9, 3]))


def test_an_open_range_is_the_recording_itself() -> None:
    found = TimeRange(DECODER, None, None).decode(MIXED)
    assert (found.ids, found.counts.tolist()) == (["a", "b", "c"], [4, 2, 3])


@pytest.mark.parametrize(
    ("start", "end", "left"),
    [
        (3, None, {"a": [3, 4], "b": [9, 10], "c": [9, 3]}),
        (None, 3, {"a": [1, 2], "c": [2]}),
        (3, 10, {"a": [3, 4], "b": [9], "c": [9, 3]}),
        (10, 9, {}),
    ],
)
def test_readings_outside_are_as_if_never_sent(start: int | None, end: int | None, left: dict[str, list[int]]) -> None:
    bounds = [None if bound is None else at(bound) for bound in (start, end)]
    found = TimeRange(DECODER, *bounds).decode(MIXED)
    assert found.ids == list(left)
    assert found.counts.tolist() == [len(seconds) for seconds in left.values()]
    assert found.records.tolist() == [{"a": 0, "b": 1, "c": 3}[sensor] for sensor in left]
    assert (found.times // SECOND - BASE).tolist() == [second for seconds in left.values() for second in seconds]
    assert found.values[:, 0].tolist() == [second for seconds in left.values() for second in seconds]
    assert [reject.record for reject in found.rejects] == [2], "what is no reading has no time to be outside of"


def test_elements_keep_their_places() -> None:
    found = TimeRange(DECODER, at(3), None).decode(MIXED)
    assert found.elements.tolist() == [2, 3, 0, 1, 1, 2]


def test_the_newest_time_is_that_before_the_end() -> None:
    batches = [MIXED, batch(run("a", [500])), batch(b"no reading")]
    assert newest_time(batches, DECODER, None) == at(500)
    assert newest_time(batches, DECODER, at(500)) == at(10)
    assert newest_time(batches, DECODER, at(1)) is None
    assert newest_time([], DECODER, None) is None
