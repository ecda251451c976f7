"""Inputs that another process of ours writes: read up to what its checkpoint says is final."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Protocol

import pytest

from detector.errors import UserError
from detector.streams.directory import DirectoryStreams
from tests.streams.files import OUTPUT, Open, alert, commit_all, read_all, values


class Writer(Protocol):
    def __call__(self, *, fresh: bool = False) -> DirectoryStreams: ...


class Reader(Protocol):
    def __call__(self, *, until_end: bool = False) -> DirectoryStreams: ...


@pytest.fixture
def writer(opened: Open) -> Writer:
    """Opens the streams of a process that writes the alerts and reads nothing."""

    def make(*, fresh: bool = False) -> DirectoryStreams:
        return opened(inputs={}, fresh=fresh)

    return make


@pytest.fixture
def reader(tmp_path: Path, opened: Open) -> Reader:
    """Opens those of a process that reads them."""
    file = tmp_path / f"{OUTPUT}.jsonl"

    def make(*, until_end: bool = False) -> DirectoryStreams:
        return opened(
            inputs={OUTPUT: file}, outputs={}, state_dir=tmp_path / ".reader", until_end=until_end,
            finals={OUTPUT: [tmp_path / f"{file.name}.state", tmp_path / ".detector"]},
        )  # fmt: skip

    return make


def say(streams: DirectoryStreams, *texts: bytes, durable: bool = True) -> None:
    streams.write([message for text in texts for message in alert(text)])
    streams.commit({}, lambda _: b"", final=durable)


def test_lines_beyond_the_checkpoint_wait_for_it(tmp_path: Path, writer: Writer, reader: Reader) -> None:
    written, read = writer(), reader()
    say(written, b"1", b"2")
    with (tmp_path / f"{OUTPUT}.jsonl").open("ab") as file:
        file.write(b"3\n")  # as a process leaves it that dies before its checkpoint
    assert values(read_all(read)) == [b"1", b"2"]
    assert read.lag() == {(OUTPUT, 0): 0}
    written.close()
    again = writer()  # cut back
    assert values(read_all(read)) == []
    say(again, b"3", b"4")
    assert values(read_all(read)) == [b"3", b"4"]


def test_until_end_is_the_end_of_what_is_final(tmp_path: Path, writer: Writer, reader: Reader) -> None:
    say(writer(), b"1", b"2")
    with (tmp_path / f"{OUTPUT}.jsonl").open("ab") as file:
        file.write(b"3\n")
    read = reader(until_end=True)
    assert values(read_all(read)) == [b"1", b"2"]
    assert read.at_end()


def test_without_a_checkpoint_all_of_it_counts(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / f"{OUTPUT}.jsonl").write_bytes(b"1\n2\n")
    assert values(read_all(reader())) == [b"1", b"2"]


def test_a_writer_that_starts_over_is_waited_for_until_it_is_as_far_again(
    writer: Writer, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    written, read = writer(), reader()
    say(written, b"1", b"2")
    commit_all(read, read_all(read))
    written.close()
    again = writer(fresh=True)
    assert values(read_all(read)) == []
    assert caplog.text.count("waiting until its writer is as far again") == 1
    say(again, b"1")
    assert values(read_all(read)) == []
    say(again, b"2", b"3")
    assert values(read_all(read)) == [b"3"]


def test_so_is_it_where_the_reader_starts_meanwhile(writer: Writer, reader: Reader) -> None:
    written, read = writer(), reader()
    say(written, b"1", b"2")
    commit_all(read, read_all(read))
    read.close()
    written.close()
    again = writer(fresh=True)
    say(again, b"1")
    read = reader()
    assert values(read_all(read)) == []
    say(again, b"2", b"3")
    assert values(read_all(read)) == [b"3"]


def test_other_bytes_than_those_read_are_refused(writer: Writer, reader: Reader) -> None:
    written, read = writer(), reader()
    say(written, b"1", b"2")
    commit_all(read, read_all(read))
    written.close()
    say(writer(fresh=True), b"1", b"7", b"8")
    with pytest.raises(UserError, match="its content differs"):
        read_all(read)


def test_a_damaged_checkpoint_of_the_writer_is_told(tmp_path: Path, writer: Writer, reader: Reader) -> None:
    say(writer(), b"1")
    (tmp_path / ".detector" / "checkpoint").write_bytes(b"detector checkpoint 7\n")
    with pytest.raises(UserError, match="damaged"):
        reader()


def test_a_compressed_file_is_read_as_one(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / f"{OUTPUT}.jsonl.gz"
    file.write_bytes(gzip.compress(b"1\n2\n"))
    read = opened(inputs={OUTPUT: file}, outputs={}, finals={OUTPUT: [tmp_path / ".detector"]})
    assert values(read_all(read)) == [b"1", b"2"]
