"""The directory backend: the contract, its outputs, and when commits are durable."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.streams.base import Assigned, Batch, Message, Partition, Streams
from tests.streams.contract import Harness, StreamsContract, numbered
from tests.streams.files import (
    INPUT,
    OTHER,
    OUTPUT,
    READINGS,
    Clock,
    Open,
    alert,
    commit_all,
    final_lines,
    read_all,
    streams_in,
    values,
)


class DirectoryHarness(Harness):
    def __init__(self, directory: Path, header: bytes = b"") -> None:
        self._directory = directory
        self._path = directory / (f"{INPUT}.csv" if header else f"{INPUT}.jsonl")
        self._path.write_bytes(header)

    def append(self, number: int, values: Sequence[bytes]) -> None:
        with open(self._path, "ab") as file:
            file.writelines(value + b"\n" for value in values)

    def connect(self, *, max_records: int = 5000, durable: bool = True) -> Streams:
        streams = streams_in(
            self._directory,
            self._path,
            outputs={stream: self._directory / f"{stream}.jsonl" for stream in (OUTPUT, OTHER)},
            max_records=max_records,
            checkpoint_interval=0.0 if durable else 1e9,
        )
        streams.open()
        return streams

    def crash(self, streams: Streams) -> None:
        streams.close()  # what close does beyond letting go of files would be seen by the test of the kill

    def published(self, stream: str) -> list[bytes]:
        return final_lines(self._directory / f"{stream}.jsonl", self._directory / ".detector", stream)


class TestDirectoryStreams(StreamsContract):
    @pytest.fixture(params=[b"", b"n\n"], ids=["jsonl", "csv"])
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> DirectoryHarness:
        return DirectoryHarness(tmp_path, request.param)


def test_each_commit_is_seen_by_who_tails_the_output(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened(checkpoint_interval=1e9)
    output = tmp_path / f"{OUTPUT}.jsonl"
    streams.write(alert(b"1"))
    assert output.read_bytes() == b""
    assert not streams.commit({}, lambda _: b"")
    assert output.read_bytes() == b"1\n"


def test_encoders_make_the_line(tmp_path: Path, source: Path, opened: Open) -> None:
    def encode(message: Message) -> bytes:
        return json.dumps({"key": str(message.key), "headers": len(message.headers)}).encode()

    streams = opened(encoders={OUTPUT: encode})
    streams.write([Message(OUTPUT, b"k", b"\x00\n", [("a", b"b")])])
    streams.commit({}, lambda _: b"")
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b'{"key": "b\'k\'", "headers": 1}\n'


def test_an_output_may_be_the_log(source: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    streams = opened(outputs={OUTPUT: "log"})
    streams.write(alert(b'{"reason": "x"}'))
    assert not caplog.records
    streams.commit({}, lambda _: b"")
    assert [record.getMessage() for record in caplog.records] == [f'{OUTPUT}: {{"reason": "x"}}']


def test_an_output_of_unknown_origin_is_not_touched(tmp_path: Path, source: Path, opened: Open) -> None:
    output = tmp_path / f"{OUTPUT}.jsonl"
    output.write_bytes(b"precious\n")
    for options in ({}, {"state_dir": None}):
        with pytest.raises(UserError, match=r"the output exists.*alerts\.jsonl\).*--fresh"):
            opened(**options)
        assert output.read_bytes() == b"precious\n"
    streams = opened(fresh=True)
    assert output.read_bytes() == b""
    assert values(read_all(streams)) == numbered(0, 10)


def test_fresh_starts_over(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    streams.write(alert(b"1"))
    commit_all(streams, read_all(streams), b"state")
    streams.close()
    streams = opened(fresh=True)
    assert streams.poll(0.0)[0] == Assigned(READINGS, 0)
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b""
    streams.write(alert(b"2"))
    commit_all(streams, [])
    streams.close()
    streams.open()  # only the first start is fresh
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b"2\n"


def test_an_output_that_was_cut_is_named(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    streams.write(alert(b"123"))
    commit_all(streams, [])
    streams.close()
    output = tmp_path / f"{OUTPUT}.jsonl"
    output.write_bytes(b"12")
    with pytest.raises(UserError, match=rf"has 2 bytes, and 4 were written to it.*{output.name}"):
        opened()
    output.unlink()
    with pytest.raises(UserError, match="has 0 bytes, and 4 were written"):
        opened()


def test_nothing_is_cut_back_if_an_input_is_wrong(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    commit_all(streams, read_all(streams))
    streams.close()
    output = tmp_path / f"{OUTPUT}.jsonl"
    output.write_bytes(b"beyond the checkpoint\n")
    source.write_bytes(b"")
    with pytest.raises(UserError, match="the input has 0 bytes"):
        opened()
    assert output.read_bytes() == b"beyond the checkpoint\n"


def test_an_output_may_join_later(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    streams.write(alert(b"1"))
    commit_all(streams, read_all(streams), b"state")
    streams.close()
    outputs = {stream: tmp_path / f"{stream}.jsonl" for stream in (OUTPUT, "scores")}
    streams = opened(outputs=outputs, checkpoint_interval=1e9)
    streams.write([Message("scores", None, b"s")])
    streams.commit({}, lambda _: b"")
    assert outputs["scores"].read_bytes() == b"s\n"
    streams.close()  # before any durable commit
    streams = opened(outputs=outputs)
    assert outputs["scores"].read_bytes() == b""
    assert streams.poll(0.0)[0] == Assigned(READINGS, source.stat().st_size, b"state")


def test_streams_that_are_left_out_for_a_while_keep_their_place(tmp_path: Path, source: Path, opened: Open) -> None:
    frames = tmp_path / "frames.jsonl"
    frames.write_bytes(b"{}\n")
    inputs = {INPUT: source, "frames": frames}
    outputs = {stream: tmp_path / f"{stream}.jsonl" for stream in (OUTPUT, "scores")}
    streams = opened(inputs=inputs, outputs=outputs)
    streams.write([Message("scores", None, b"s")])
    commit_all(streams, read_all(streams), b"state")
    streams.close()
    streams = opened()
    commit_all(streams, [])
    streams.close()
    streams = opened(inputs=inputs, outputs=outputs)
    assert Assigned(Partition("frames", 0), 3, b"state") in streams.poll(0.0)
    assert outputs["scores"].read_bytes() == b"s\n"


@pytest.mark.parametrize("link", [False, True])
def test_no_file_is_read_and_written(tmp_path: Path, source: Path, opened: Open, link: bool) -> None:
    output = source
    if link:
        output = tmp_path / "link.jsonl"
        output.hardlink_to(source)
    before = source.read_bytes()
    with pytest.raises(UserError, match="is an output and another stream"):
        opened(outputs={OUTPUT: output}, fresh=True)
    with pytest.raises(UserError, match="is an output and another stream"):
        opened(outputs={OUTPUT: tmp_path / "x", OTHER: tmp_path / "x"})
    assert source.read_bytes() == before


def test_durable_commits_keep_their_distance(tmp_path: Path, source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock, checkpoint_interval=1.0)

    def commit() -> bool:
        streams.write(alert(b"1"))
        return streams.commit({}, lambda _: b"")

    assert not commit()
    clock.now += 0.9
    assert not commit()
    clock.now += 0.2
    assert commit()
    assert not commit()
    clock.now += 1.1
    assert commit()
    clock.now += 1.1
    assert not streams.commit({}, lambda _: b"")  # made all the same at the last one


def test_nothing_new_is_not_made_durable_again(tmp_path: Path, source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock, checkpoint_interval=1.0)
    positions = {batch.partition: batch.next_offset for batch in read_all(streams)}
    clock.now += 2.0
    assert streams.commit(positions, lambda _: b"")
    clock.now += 2.0
    assert not streams.commit(positions, lambda _: b"")
    assert streams.commit(positions, lambda _: b"", final=True)


def test_a_large_state_is_stored_less_often(tmp_path: Path, source: Path, opened: Open) -> None:
    clock = Clock()
    streams = opened(clock=clock, checkpoint_interval=1.0, max_records=1)

    def snapshot(_: Partition) -> bytes:
        clock.now += 2.0
        return b"large"

    def commit(*, final: bool = False) -> bool:
        batches = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
        return streams.commit({batch.partition: batch.next_offset for batch in batches}, snapshot, final=final)

    clock.now += 1.1
    assert commit()
    clock.now += 19.0
    assert not commit()
    clock.now += 1.1
    assert commit()
    assert commit(final=True)


def test_outputs_are_durable_before_the_checkpoint_that_names_them(
    tmp_path: Path, source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = opened()
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        fsync(fd)
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")

    def note_replace(old: Path, new: Path) -> None:
        rename(old, new)
        done.append(f"replace {new.name}")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    streams.write(alert(b"1"))
    assert commit_all(streams, read_all(streams))
    assert done == [f"fsync {OUTPUT}.jsonl", "fsync checkpoint.tmp", "replace checkpoint", "fsync .detector"]
