"""A large state is written by a copy of the process, while this one goes on; in memory it is there once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.errors import OperationError
from detector.streams import checkpoint
from detector.streams.aside import Aside
from detector.streams.base import Assigned, Partition, joined, let_go, state_pieces, unpack_state
from detector.streams.checkpoint import Checkpoint, CheckpointFile, PartitionCheckpoint
from detector.streams.directory import DirectoryStreams
from tests.streams.files import OUTPUT, Open, alert, read_all


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LARGE", 0)


def wait(streams: DirectoryStreams) -> None:
    while not streams.settled:
        pass


def commit(streams: DirectoryStreams, state: bytes) -> None:
    positions = {batch.partition: batch.next_offset for batch in read_all(streams)}
    assert streams.commit(positions, lambda _: state)


def state_of(streams: DirectoryStreams) -> bytes:
    (assigned,) = (event for event in streams.poll(0.0) if isinstance(event, Assigned))
    return bytes(assigned.state or b"")


def test_it_is_durable_once_it_is_settled(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    streams.write(alert(b"1"))
    commit(streams, b"state")
    wait(streams)
    streams.close()
    streams.open()
    assert state_of(streams) == b"state"
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b"1\n"


def test_what_a_kill_cuts_short_never_was(
    tmp_path: Path, source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = opened()
    with monkeypatch.context() as slow:
        slow.setattr(CheckpointFile, "save", lambda *_: signal.pause())
        streams.write(alert(b"1"))
        commit(streams, b"state")
        assert not streams.settled
        streams.close()
    streams.open()
    assert state_of(streams) == b""
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b""


def test_at_the_end_it_is_waited_for(source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = opened()
    with monkeypatch.context() as slow:
        slow.setattr(CheckpointFile, "save", lambda *_: signal.pause())
        commit(streams, b"older")
    streams.commit({}, lambda _: b"newer", final=True)
    assert streams.settled
    streams.close()
    streams.open()
    assert state_of(streams) == b"newer"


def test_what_goes_wrong_is_told(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    shutil.rmtree(tmp_path / ".detector")
    commit(streams, b"state")
    with pytest.raises(OperationError, match=r"cannot write the checkpoint: No such file"):
        wait(streams)


def test_a_copy_that_fails_otherwise_is_told_with_its_traceback() -> None:
    aside = Aside()
    aside.begin(lambda: print(1 // 0))
    with pytest.raises(OperationError, match="ZeroDivisionError"):
        aside.done(wait=True)
    aside.begin(lambda: signal.raise_signal(signal.SIGKILL))
    with pytest.raises(OperationError, match="status -9"):
        aside.done(wait=True)
    assert aside.idle


def test_it_lies_in_its_file_until_it_is_taken_up(tmp_path: Path) -> None:
    slices = [bytes([i]) * 70_000 for i in range(5)]

    def pieces() -> Iterator[bytes | memoryview]:
        return state_pieces(slices, len(slices), {"a": b"b"})

    file, at = CheckpointFile(tmp_path), Partition("a", 0)
    file.save(Checkpoint({at: PartitionCheckpoint("a.csv")}), {at: pieces()})
    assert file.large
    loaded = file.load()
    assert loaded is not None
    state = loaded.partitions[at].state
    assert isinstance(state, memoryview)
    assert state == joined(pieces())
    for found, one in zip(unpack_state(state)[0], slices, strict=True):
        assert found == one
        let_go(found)
        assert found == one, "it is read again"


def test_without_memory_for_a_copy_it_is_written_at_once(
    source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fork() -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    streams = opened()
    monkeypatch.setattr(os, "fork", fork)
    commit(streams, b"state")
    assert streams.settled
    assert "Cannot allocate memory" in caplog.text
    streams.close()
    streams.open()
    assert state_of(streams) == b"state"
