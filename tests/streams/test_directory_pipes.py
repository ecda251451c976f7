"""The directory backend on standard input and standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from detector.errors import OperationError, UserError
from detector.streams.base import Batch, LongLine
from tests.streams.files import (
    INPUT,
    OTHER,
    OUTPUT,
    Clock,
    Open,
    Pipe,
    alert,
    commit_all,
    read_all,
    records,
    streams_in,
    values,
)


@pytest.mark.parametrize(
    ("text", "header", "count"),
    [(b'{"a": 1}\n{"a": 2}', None, 2), (b"timestamp,value\n1,2\n2,3\n3,4", b"timestamp,value", 3), (b"", None, 0)],
)
@pytest.mark.parametrize("memory", [False, True])
def test_standard_input_is_read_to_its_end(
    opened: Open, tmp_path: Path, text: bytes, header: bytes | None, count: int, memory: bool
) -> None:
    stdin: Any
    if memory:
        stdin = Pipe()
        stdin.write(text)
        stdin.seek(0)
    else:
        (tmp_path / "text").write_bytes(text)
        stdin = open(tmp_path / "text", "rb")  # noqa: SIM115 - closed below
    with stdin:
        streams = opened(inputs={INPUT: "-"}, state_dir=None, stdin=stdin, until_end=True)
        batches = read_all(streams)
        assert len(records(batches)) == count
        assert {batch.header for batch in batches} <= {header}
        assert streams.at_end()
        assert not commit_all(streams, batches)
        assert not (tmp_path / ".detector").exists()


def test_standard_input_is_never_waited_for_beyond_the_timeout(opened: Open) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stdin, open(writing, "wb", buffering=0) as producer:
        streams = opened(inputs={INPUT: "-"}, state_dir=None, stdin=stdin, until_end=True)
        producer.write(b"{}\n{}\n{")
        assert len(records(read_all(streams))) == 2
        assert streams.poll(0.0) == []
        assert not streams.at_end()
        producer.write(b"}\n")
        (batch,) = streams.poll(60.0)
        assert isinstance(batch, Batch)
        assert values([batch]) == [b"{}"]
        producer.write(b"[]")
        producer.close()
        (batch,) = streams.poll(60.0)
        assert isinstance(batch, Batch)
        assert values([batch]) == [b"[]"]
        assert streams.at_end()


def test_a_long_line_of_standard_input_is_cut(opened: Open) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stdin, open(writing, "wb", buffering=0) as producer:
        streams = opened(inputs={INPUT: "-"}, state_dir=None, stdin=stdin, until_end=True, max_line=10)
        producer.write(b"{" + b"x" * 20)
        (long,) = records(read_all(streams))
        assert long == LongLine(0, None, b"{" + b"x" * 20)
        producer.write(b"x" * 40_000)
        assert records(read_all(streams)) == []
        producer.write(b"x\n{}\n")
        assert [(record.offset, record.value) for record in records(read_all(streams))] == [(40_023, b"{}")]
        producer.close()
        assert read_all(streams) == []
        assert streams.at_end()


def test_closed_standard_input_is_said(opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        opened(inputs={INPUT: "-"}, state_dir=None)
    handle = open(os.devnull, "rb")  # noqa: SIM115
    handle.close()
    with pytest.raises(UserError, match="standard input is closed"):
        opened(inputs={INPUT: "-"}, state_dir=None, stdin=handle)


def test_standard_input_has_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint"):
        streams_in(tmp_path, inputs={INPUT: "-"})


def test_standard_output_is_flushed_at_each_commit(source: Path, opened: Open) -> None:
    stdout = Pipe()
    streams = opened(outputs={OUTPUT: "-", OTHER: "log"}, state_dir=None, stdout=stdout)
    streams.write(alert(b"1"))
    streams.commit({}, lambda _: b"")
    streams.write(alert(b"2"))
    streams.commit({}, lambda _: b"", final=True)
    assert stdout.getvalue() == b"1\n2\n"
    assert stdout.flushed == 2


def test_a_reader_of_standard_output_that_left_is_said(source: Path, opened: Open) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as stdout:
        streams = opened(outputs={OUTPUT: "-"}, state_dir=None, stdout=stdout)
        streams.write(alert(b"1"))
        with pytest.raises(OperationError, match=r"read the output has stopped \(standard output\)"):
            streams.commit({}, lambda _: b"")


def test_a_reader_that_left_is_noticed_without_anything_to_say(source: Path, opened: Open) -> None:
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as stdout:
        streams = opened(outputs={OUTPUT: "-"}, state_dir=None, stdout=stdout)
        streams.commit({}, lambda _: b"")
        os.close(reading)
        with pytest.raises(OperationError, match=r"read the output has stopped \(standard output\)"):
            streams.commit({}, lambda _: b"")


def test_a_file_as_standard_output_has_no_reader(source: Path, opened: Open, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb", buffering=0) as stdout:
        streams = opened(outputs={OUTPUT: "-"}, state_dir=None, stdout=stdout)
        streams.commit({}, lambda _: b"")
        streams.write(alert(b"1"))
        streams.commit({}, lambda _: b"")
    assert (tmp_path / "out").read_bytes() == b"1\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_said(source: Path, opened: Open) -> None:
    with open("/dev/full", "wb", buffering=0) as stdout:
        streams = opened(outputs={OUTPUT: "-"}, state_dir=None, stdout=stdout)
        streams.write(alert(b"1"))
        with pytest.raises(OperationError, match="No space left on device"):
            streams.commit({}, lambda _: b"")


def test_standard_output_is_that_of_the_process(
    source: Path, opened: Open, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    streams = opened(outputs={OUTPUT: "-"}, state_dir=None)
    streams.write(alert(b"1"))
    streams.commit({}, lambda _: b"")
    assert capfdbinary.readouterr().out == b"1\n"


class Ticking(Clock):
    """Time that passes by itself, as it does while a pipe is waited for."""

    def __call__(self) -> float:
        self.now += 0.4
        return self.now


def test_a_file_beside_standard_input_is_tailed(source: Path, opened: Open) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stdin, open(writing, "wb", buffering=0):
        streams = opened(inputs={"frames": "-", INPUT: source}, state_dir=None, stdin=stdin, clock=Ticking())
        assert len(values(read_all(streams))) == 10
        assert streams.poll(1.0) == []
        with open(source, "ab") as file:
            file.write(b"{}\n")
        assert values(read_all(streams)) == [b"{}"]
