"""What the directory backend makes of input files that grow."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.streams.base import Assigned, Batch, Partition
from tests.streams.contract import numbered
from tests.streams.files import (
    INPUT,
    READINGS,
    Clock,
    Open,
    commit_all,
    read_all,
    records,
    values,
)


def test_poll_returns_at_once_when_there_is_something(source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock)
    assert len(streams.poll(60.0)) == 2
    assert clock.slept == []


def test_poll_waits_in_small_steps_until_something_comes(source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock)
    read_all(streams)
    began = clock.now

    def append() -> None:
        if clock.now >= began + 1.0:
            with open(source, "ab") as file:
                file.write(b"{}\n")

    clock.meanwhile = append
    (batch,) = streams.poll(60.0)
    assert isinstance(batch, Batch)
    assert values([batch]) == [b"{}"]
    assert clock.now - began < 1.1
    assert max(clock.slept) <= 0.05


def test_poll_gives_up_at_the_timeout(source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock)
    read_all(streams)
    began = clock.now
    assert streams.poll(0.5) == []
    assert clock.now - began == pytest.approx(0.5)


def test_poll_at_the_end_does_not_wait(source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock, until_end=True)
    read_all(streams)
    assert streams.poll(60.0) == []
    assert clock.slept == []


def test_an_input_that_does_not_exist_yet_is_waited_for(
    tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    streams = opened(clock=clock)
    assert streams.poll(0.0) == [Assigned(READINGS, 0)]
    assert streams.at_end()
    assert streams.lag() == {READINGS: 0}
    clock.meanwhile = lambda: (tmp_path / f"{INPUT}.jsonl").write_bytes(b"{}\n")
    (batch,) = streams.poll(1.0)
    assert isinstance(batch, Batch)
    assert values([batch]) == [b"{}"]
    assert f"waiting for the input {tmp_path}" in caplog.text


def test_a_line_that_is_still_written_waits_for_its_end(source: Path, opened: Open) -> None:
    with open(source, "ab") as file:
        file.write(b'{"n": 1')
    streams = opened()
    assert values(read_all(streams)) == numbered(0, 10)
    assert streams.at_end()
    assert streams.lag() == {READINGS: 7}
    with open(source, "ab") as file:
        file.write(b"0}\n{")
    assert values(read_all(streams)) == [b'{"n": 10}']


def test_until_end_takes_a_last_line_without_a_line_end(source: Path, opened: Open) -> None:
    with open(source, "ab") as file:
        file.write(b'{"n": 10}')
    streams = opened(until_end=True)
    batches = read_all(streams)
    assert values(batches) == numbered(0, 11)
    assert batches[-1].next_offset == source.stat().st_size
    assert streams.at_end()
    commit_all(streams, batches)
    streams.close()
    with open(source, "ab") as file:
        file.write(b'\n{"n": 11}\n')
    assert values(read_all(opened(until_end=True))) == [b'{"n": 11}']


@pytest.mark.parametrize(
    ("appended", "told"), [(b"60\n3,1\n", True), (b"\n3,1\n", False), (b"\r\n3,1\n", False), (b"", False)]
)
def test_that_a_line_went_on_after_it_was_read_is_told(
    tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture, appended: bytes, told: bool
) -> None:
    source = tmp_path / f"{INPUT}.csv"
    source.write_bytes(b"time,value\n1,73.25\n2,73.")
    streams = opened(source, until_end=True)
    batches = read_all(streams)
    commit_all(streams, batches)
    streams.close()
    with open(source, "ab") as file:
        file.write(appended)
    opened(source, until_end=True)
    assert any("was read when only that much of it was there" in one for one in caplog.messages) == told


def test_until_end_leaves_what_is_appended_later(source: Path, opened: Open) -> None:
    streams = opened(until_end=True)
    with open(source, "ab") as file:
        file.write(b"{}\n")
    assert values(read_all(streams)) == numbered(0, 10)
    assert streams.at_end()
    assert streams.lag() == {READINGS: 0}


def test_until_end_reads_a_line_begun_before_the_end_as_a_whole(source: Path, opened: Open) -> None:
    with open(source, "ab") as file:
        file.write(b'{"n": 1')
    streams = opened(until_end=True, max_bytes=16)
    with open(source, "ab") as file:
        file.write(b"0" * 40 + b"}\n{}\n")
    batches = read_all(streams)
    assert values(batches) == [*numbered(0, 10), b'{"n": 1' + b"0" * 40 + b"}"]
    assert batches[-1].next_offset == source.stat().st_size - 3


def test_until_end_of_an_empty_or_missing_input_is_there_at_once(tmp_path: Path, opened: Open) -> None:
    streams = opened(until_end=True)
    assert streams.poll(60.0) == [Assigned(READINGS, 0)]
    assert streams.at_end()
    streams.close()
    (tmp_path / f"{INPUT}.jsonl").touch()
    streams = opened(until_end=True)
    streams.poll(60.0)
    assert streams.at_end()


def test_a_csv_has_its_header_and_rows_after_a_restart_too(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "pump.csv"
    path.write_bytes(b"\xef\xbb\xbftimestamp,value\r\n1,2\r\n\r\n2,3\r\n3,4\r\n")
    streams = opened(path, max_records=3)
    _, first = streams.poll(0.0)
    assert isinstance(first, Batch)
    assert (first.header, first.row, values([first])) == (b"timestamp,value", 0, [b"1,2", b"2,3"])
    assert [record.offset for record in first.records] == [20, 27]
    commit_all(streams, [first])
    streams.close()
    (rest,) = read_all(opened(path, max_records=2))
    assert (rest.header, rest.row, values([rest])) == (b"timestamp,value", 2, [b"3,4"])
    assert rest.records[0].offset == 32


def test_any_chunk_gives_the_same_records(source: Path, opened: Open, tmp_path: Path) -> None:
    whole = records(read_all(opened()))
    for number, chunk in enumerate((1, 3, 10, 11)):
        streams = opened(max_bytes=chunk, max_records=3, state_dir=tmp_path / str(number), outputs={})
        assert records(read_all(streams)) == whole


def test_two_inputs_share_a_poll(tmp_path: Path, opened: Open) -> None:
    names = ["a", "b"]
    for name in names:
        (tmp_path / f"{name}.jsonl").write_bytes(b"{}\n" * 100)
    streams = opened(inputs={name: tmp_path / f"{name}.jsonl" for name in names}, max_records=10)
    seen = {Partition(name, 0): 0 for name in names}
    for _ in range(10):
        events = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
        assert sum(len(event.records) for event in events) <= 10
        for event in events:
            seen[event.partition] += len(event.records)
        commit_all(streams, events)
    assert min(seen.values()) > 30


def test_rights_and_kinds_of_inputs(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(UserError, match="this is a directory"):
        opened(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(UserError, match="no regular file"):
        opened(fifo)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_input_that_may_not_be_read(source: Path, opened: Open) -> None:
    source.chmod(0)
    with pytest.raises(UserError, match="cannot read the input: Permission denied"):
        opened()
