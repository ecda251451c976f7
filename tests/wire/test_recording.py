from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.streams.base import Partition
from detector.wire.recording import read_recording


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
