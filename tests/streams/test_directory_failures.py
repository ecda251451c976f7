"""What the directory backend does when something fails: lock, rights, disk, kill."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from detector.errors import OperationError, UserError
from detector.streams.base import Assigned, Batch, Event
from detector.streams.checkpoint import CheckpointFile
from tests.streams.files import (
    OUTPUT,
    READINGS,
    Open,
    alert,
    commit_all,
    read_all,
)


def test_a_second_process_is_refused(tmp_path: Path, source: Path, opened: Open) -> None:
    first = opened()
    with pytest.raises(OperationError, match=rf"process {os.getpid()} \({tmp_path}/\.detector\)"):
        opened()
    with pytest.raises(OperationError, match="another detector works here"):
        opened(fresh=True)
    first.close()
    opened()


def test_a_failed_start_leaves_the_lock(tmp_path: Path, source: Path, opened: Open) -> None:
    output = tmp_path / f"{OUTPUT}.jsonl"
    output.write_bytes(b"x")
    with pytest.raises(UserError):
        opened()
    output.unlink()
    opened()


@pytest.mark.parametrize("number", [13, 30])
def test_a_directory_that_may_not_be_written_is_named(
    tmp_path: Path, source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(UserError, match=rf"cannot write to the directory: {os.strerror(number)} \({tmp_path}/\.detec"):
        opened()


def test_a_file_where_a_directory_should_be_is_named(tmp_path: Path, source: Path, opened: Open) -> None:
    with pytest.raises(UserError, match="Not a directory"):
        opened(state_dir=source / "state")


def test_a_full_disk_leaves_no_half_line(
    tmp_path: Path, source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = opened(checkpoint_interval=1e9)
    streams.write(alert(b"first"))
    streams.commit({}, lambda _: b"")
    real, left = os.write, [3]

    def write(fd: int, data: memoryview) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return real(fd, data[: left.pop()])

    output = tmp_path / f"{OUTPUT}.jsonl"
    streams.write(alert(b"second"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OperationError, match=rf"cannot write the output: No space left.*{output.name}.*Make room"):
            streams.commit({}, lambda _: b"")
    assert output.read_bytes() == b"first\n"
    assert streams.commit({}, lambda _: b"", final=True)  # nothing was lost, nothing is doubled
    assert output.read_bytes() == b"first\nsecond\n"


def test_a_failing_disk_keeps_the_last_checkpoint(
    tmp_path: Path, source: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = opened(max_records=4)
    _, batch = streams.poll(0.0)
    assert isinstance(batch, Batch)
    streams.write(alert(b"1"))
    commit_all(streams, [batch], b"old")
    streams.write(alert(b"2"))

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OperationError, match="Input/output error"):
            commit_all(streams, read_all(streams), b"new")
    streams.close()
    streams = opened()
    assert streams.poll(0.0)[0] == Assigned(READINGS, batch.next_offset, b"old")
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b"1\n"


_LIMITED = """
import resource, sys
from pathlib import Path
from detector.errors import OperationError
from detector.streams.base import Message
from detector.streams.directory import DirectoryStreams

place = Path(sys.argv[1])
streams = DirectoryStreams({}, {"alerts": place / "alerts.jsonl"}, place / "state", 0.0)
streams.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    while True:
        streams.write([Message("alerts", None, b"x" * 300)])
        streams.commit({}, lambda partition: b"")
except OperationError as error:
    print(error)
"""


def test_a_real_limit_on_file_sizes(tmp_path: Path, opened: Open) -> None:
    command = [sys.executable, "-c", _LIMITED, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.startswith("cannot write the output: File too large")
    assert (tmp_path / "alerts.jsonl").read_bytes() == (b"x" * 300 + b"\n") * 3


_WORKER = """
import hashlib, sys
from pathlib import Path
from detector.streams.base import Assigned, Batch, Message
from detector.streams.directory import DirectoryStreams

place = Path(sys.argv[1])
chain, positions = {}, {}
streams = DirectoryStreams(
    {"in": place / "in.csv"}, {"out": place / "out.jsonl"}, place / "state", 0.0, max_records=37, max_bytes=4096,
    until_end=True,
)
streams.open()
while not streams.at_end():
    for event in streams.poll(1.0):
        if isinstance(event, Assigned):
            chain[event.partition] = event.state or b""
        elif isinstance(event, Batch):
            for number, record in enumerate(event.records):
                text = b"%s %s %d" % (chain[event.partition], record.value, event.row + number)
                chain[event.partition] = hashlib.sha256(text).hexdigest().encode()
                streams.write([Message("out", None, chain[event.partition])])
            positions[event.partition] = event.next_offset
    print("commit?", flush=True)
    sys.stdin.readline()
    streams.commit(positions, chain.__getitem__)
streams.commit(positions, chain.__getitem__, final=True)
streams.close()
"""


def _work(place: Path, turns: int | None, spin: int = 0) -> bool:
    """Run the worker, killed within (or just after) that commit; whether it came to its end instead."""
    command = [sys.executable, "-c", _WORKER, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for turn, _ in enumerate(process.stdout, 1):
            process.stdin.write(b"\n")
            if turn == turns:
                for _ in range(spin):  # a commit takes some 100 us to some ms
                    pass
                process.kill()
                break
        return process.wait() == 0


@pytest.mark.slow
def test_a_killed_worker_leaves_the_same_output(tmp_path: Path) -> None:
    data = b"timestamp,value\n" + b"".join(b"%d,%d\n" % (row, row * row % 97) for row in range(3000))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for place in (whole, killed):
        place.mkdir()
        (place / "in.csv").write_bytes(data)
    assert _work(whole, None)
    moments = random.Random(7)  # noqa: S311
    for _ in range(12):
        assert not _work(killed, moments.randint(1, 6), moments.randrange(100_000))
    assert _work(killed, None)
    output = (whole / "out.jsonl").read_bytes()
    assert output.count(b"\n") == 3000
    assert (killed / "out.jsonl").read_bytes() == output


def test_the_first_start_can_be_killed_too(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened(checkpoint_interval=1e9)
    streams.write(alert(b"1"))
    streams.commit({}, lambda _: b"")
    streams.close()
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b"1\n"
    assert CheckpointFile(tmp_path / ".detector").load() is not None
    events: Sequence[Event] = opened().poll(0.0)
    assert events[0] == Assigned(READINGS, 0)
    assert (tmp_path / f"{OUTPUT}.jsonl").read_bytes() == b""


@pytest.mark.parametrize("name", ["lock", "checkpoint", "checkpoint.tmp", "output", "dangling output"])
def test_a_planted_link_is_not_written_through(tmp_path: Path, source: Path, opened: Open, name: str) -> None:
    output = tmp_path / f"{OUTPUT}.jsonl"
    victim = tmp_path / "victim"
    if name != "dangling output":
        victim.write_bytes(b"precious")
    state = tmp_path / ".detector"
    state.mkdir()
    link = output if name.endswith("output") else state / name
    link.symlink_to(victim)
    for fresh in (False, True):
        if name == "checkpoint" and fresh:
            break  # which does not read it, and replaces the link
        with pytest.raises(UserError, match=rf"this is a symbolic link, which is not written through \({link}\)"):
            opened(fresh=fresh)
    assert link.is_symlink()
    assert not victim.exists() if name == "dangling output" else victim.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["lock", "checkpoint", "checkpoint.tmp"])
def test_what_is_no_file_is_not_taken_for_one(tmp_path: Path, source: Path, opened: Open, name: str) -> None:
    state = tmp_path / ".detector"
    state.mkdir()
    (state / name).mkdir()
    with pytest.raises(UserError, match=r"this is a directory|Is a directory"):
        opened()
    (state / name).rmdir()
    os.mkfifo(state / name)
    if name == "checkpoint.tmp":
        opened()
        return
    with pytest.raises(UserError, match="this is no regular file"):
        opened()


def test_a_link_that_is_planted_while_it_runs_is_not_written_through(
    tmp_path: Path, source: Path, opened: Open
) -> None:
    streams = opened()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".detector" / "checkpoint.tmp").symlink_to(victim)
    with pytest.raises(UserError, match=r"this is a symbolic link.*checkpoint\.tmp"):
        commit_all(streams, read_all(streams))
    assert victim.read_bytes() == b"precious"


def test_what_a_killed_process_left_of_a_checkpoint_is_written_anew(tmp_path: Path, source: Path, opened: Open) -> None:
    opened().close()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".detector" / "checkpoint.tmp").hardlink_to(victim)
    streams = opened()
    assert commit_all(streams, read_all(streams))
    assert victim.read_bytes() == b"precious"
