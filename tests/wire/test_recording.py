"""Recorded data, and a part of it: whole readings go or stay, whatever message they came in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from detector.config.load import FieldsConfig
from detector.errors import UserError
from detector.streams.base import Batch, Partition, Record
from detector.wire.json_readings import ReadingDecoder
from detector.wire.recording import TimeRange, newest_time, read_recording
from tests.plant import PARTITION

SECOND = 10**9
DECODER = ReadingDecoder(FieldsConfig(), ("value",))
BASE = 1_790_000_000
"""Seconds since the epoch; times in these tests are seconds after it."""


def test_a_file_is_read_to_its_end_with_the_positions_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_bytes(b"timestamp,value\n" + b"".join(b"%d,1.5\n" % row for row in range(7000)) + b"7000,2.5")
    batches = list(read_recording(path, "sensor-readings"))
    data = path.read_bytes()
    assert {batch.partition for batch in batches} == {Partition("sensor-readings", 0)}
    assert {batch.header for batch in batches} == {b"timestamp,value"}
    row = 0
    for batch in batches:
        assert batch.row == row
        row += len(batch.records)
        for record in batch.records:
            assert record.value is not None
            assert data[record.offset : record.offset + len(record.value)] == record.value
    assert row == 7001
    assert batches[-1].next_offset == len(data)


@pytest.mark.parametrize("name", ["sensor-readings.jsonl", "sensor-readings.jsonl.gz"])
def test_a_directory_of_streams_and_a_compressed_file_give_the_same(tmp_path: Path, name: str) -> None:
    data = b'{"a": 1}\n\n{"a": 2}\n'
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (batch,) = read_recording(tmp_path, "sensor-readings")
    assert [(record.offset, record.value) for record in batch.records] == [(0, b'{"a": 1}'), (10, b'{"a": 2}')]
    assert batch.header is None


@pytest.mark.parametrize("content", [b"", b"timestamp,value\n", b"timestamp,value", b"\n\n"])
def test_a_file_without_rows_gives_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.csv"
    path.write_bytes(content)
    assert list(read_recording(path, "s")) == []


def test_a_missing_file_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_recording(tmp_path / "x.csv", "s")
    with pytest.raises(UserError, match="no file of the stream s"):
        read_recording(tmp_path, "s")


def test_a_damaged_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"t,v\n" + b"1,2\n" * 1000)[:-12])
    with pytest.raises(UserError, match=r"damaged or incomplete.*x\.csv\.gz"):
        list(read_recording(path, "s"))
    path.write_bytes(b"this is no gzip file")
    with pytest.raises(UserError, match="damaged or incomplete"):
        list(read_recording(path, "s"))


def test_a_reader_that_stops_early_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n" * 20000)
    batches = read_recording(path, "s")
    assert len(next(batches).records) == 5000
    del batches  # an open file would be a ResourceWarning, an error in tests


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
