"""Inputs that are compressed, or hold lines that are blank or too long."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.streams.base import Assigned, Batch, LongLine, Record
from detector.streams.checkpoint import CheckpointFile
from tests.streams.files import (
    READINGS,
    Clock,
    Open,
    commit_all,
    read_all,
    records,
    values,
)


def test_a_compressed_file_is_read_like_its_text(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "pump.csv.gz"
    text = b"timestamp,value\n" + b"".join(b"%d,%d\n" % (row, row) for row in range(3000)) + b"3000,1"
    path.write_bytes(gzip.compress(text[:9000]) + gzip.compress(text[9000:]))
    streams = opened(path, max_records=1000, max_bytes=1000)
    first = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
    first += [event for event in streams.poll(0.0) if isinstance(event, Batch)]
    assert not streams.at_end()
    assert streams.lag()[READINGS] > 0
    commit_all(streams, first, b"state")
    streams.close()
    streams = opened(path)
    assert streams.poll(0.0)[0] == Assigned(READINGS, first[-1].next_offset, b"state")
    streams.close()
    streams = opened(path)
    rest = read_all(streams)
    assert streams.at_end()
    assert streams.lag() == {READINGS: 0}
    assert len(values(first)) + len(values(rest)) == 3001
    for batch in first + rest:
        assert batch.header == b"timestamp,value"
        for record in batch.records:
            assert record.value is not None
            assert text[record.offset :].startswith(record.value)
    assert rest[0].row == len(values(first))
    assert rest[-1].next_offset == len(text)


def test_a_compressed_file_is_waited_for(tmp_path: Path, opened: Open) -> None:
    clock = Clock()
    path = tmp_path / "pump.jsonl.gz"
    streams = opened(path, clock=clock)
    streams.poll(0.0)
    assert streams.lag() == {READINGS: 0}
    clock.meanwhile = lambda: path.write_bytes(gzip.compress(b"{}\n"))
    (batch,) = streams.poll(1.0)
    assert isinstance(batch, Batch)
    assert values([batch]) == [b"{}"]
    assert streams.at_end()


@pytest.mark.parametrize(
    ("text", "message"), [(b"{}\n", "has 3 bytes"), (b"[]\n" * 500, "content differs"), (None, "is not there any more")]
)
def test_another_compressed_file_is_named(tmp_path: Path, opened: Open, text: bytes | None, message: str) -> None:
    path = tmp_path / "pump.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" * 500))
    streams = opened(path)
    commit_all(streams, read_all(streams))
    streams.close()
    path.unlink()
    if text is not None:
        path.write_bytes(gzip.compress(text))
    with pytest.raises(UserError, match=rf"{message}.*pump\.jsonl\.gz.*--fresh"):
        opened(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("blank", [b"\n", b"\r\n"])
def test_blank_lines_are_read_piece_by_piece_and_left_behind(
    tmp_path: Path, opened: Open, blank: bytes, compressed: bool
) -> None:
    text = blank * 100_000 + b"{}\n" + blank * 100_000
    path = tmp_path / ("in.jsonl.gz" if compressed else "in.jsonl")
    path.write_bytes(gzip.compress(text) if compressed else text)
    found: list[tuple[int, bytes | None]] = []
    position = 0
    for _ in range(20):
        streams = opened(path, max_bytes=10_000, until_end=True)
        assigned, *events = [event for _ in range(60) for event in streams.poll(0.0)]
        assert isinstance(assigned, Assigned)
        assert assigned.position == position
        for batch in events:
            assert isinstance(batch, Batch)
            assert batch.next_offset - position <= 20_000
            position = batch.next_offset
            found += [(record.offset, record.value) for record in batch.records]
        streams.commit({READINGS: position}, lambda _: b"", final=True)
        at_end = streams.at_end()
        streams.close()
        if at_end:
            break
    assert found == [(100_000 * len(blank), b"{}")]
    assert position == len(text)


def test_a_compressed_file_is_gone_through_again_piece_by_piece(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" * 30_000 + b"[]\n"))
    streams = opened(path)
    commit_all(streams, read_all(streams)[:6], b"state")
    streams.close()
    streams = opened(path, max_bytes=10_000)
    assigned, *events = [event for _ in range(8) for event in streams.poll(0.0)]
    assert assigned == Assigned(READINGS, 90_000, b"state")
    assert events == [Batch(READINGS, (), 90_000, row=30_000)] * 8
    commit_all(streams, [], b"state")  # before it has come to where it goes on
    assert values(read_all(streams)) == [b"[]"]
    assert streams.at_end()


LONG = b"{" + b"x" * 500


def test_a_line_that_is_too_long_is_cut_and_the_rest_goes_on_over_kills(tmp_path: Path, opened: Open) -> None:
    text = b"{}\n" + LONG + b"\n[1]\n" + LONG + b"\r\n[2]\n" + LONG
    for name in ("in.jsonl", "in.jsonl.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        found: list[Record] = []
        within = 0
        for _ in range(200):
            streams = opened(path, max_bytes=40, max_line=100, until_end=True, state_dir=tmp_path / f"{name}.state")
            assigned, *events = [event for _ in range(60) for event in streams.poll(0.0)]
            assert isinstance(assigned, Assigned)
            batches = [event for event in events if isinstance(event, Batch)]
            batches = [batch for batch in batches if batch.next_offset > assigned.position][:4]
            found += records(batches)
            commit_all(streams, batches)
            at_end = streams.at_end()
            streams.close()
            checkpoint = CheckpointFile(tmp_path / f"{name}.state").load()
            assert checkpoint is not None
            within += checkpoint.partitions[READINGS].start.within_line
            if at_end and not batches:
                break
        assert [(type(record), record.offset) for record in found] == [
            (Record, 0), (LongLine, 3), (Record, 505), (LongLine, 509), (Record, 1012), (LongLine, 1016),
        ]  # fmt: skip
        assert all(record.value in (b"{}", b"[1]", b"[2]") or LONG.startswith(record.value or b"-") for record in found)
        assert within > 4, "some lives ended within a long line"


def test_a_long_line_that_nobody_ends_is_told_and_holds_no_memory(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b"{" + b"x" * 30_000_000))
    streams = opened(path, max_bytes=10_000, max_line=100_000)
    tracemalloc.start()
    batches = read_all(streams)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(type(record), len(record.value or b"")) for record in records(batches)] == [(LongLine, 100_000 + 10_000)]
    assert batches[-1].next_offset == 30_000_001
    assert peak < 5_000_000
