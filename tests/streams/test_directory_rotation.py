"""An output that is renamed, removed or cut while it is written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.errors import OperationError, UserError
from detector.streams.base import Assigned, Batch
from detector.streams.checkpoint import CheckpointFile
from detector.streams.directory import DirectoryStreams
from tests.streams.files import INPUT, OUTPUT, READINGS, Clock, Open, alert, commit_all, final_lines, read_all


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / f"{OUTPUT}.jsonl"


def say(streams: DirectoryStreams, *lines: bytes) -> bool:
    """Publish lines, in a commit that has no other reason to be durable."""
    for line in lines:
        streams.write(alert(line))
    return streams.commit({}, lambda _: b"")


def rotated(output: Path) -> Path:
    return output.rename(output.with_name("rotated"))


def rotated_and_created(output: Path) -> Path:
    moved = rotated(output)
    output.touch()
    return moved


@pytest.mark.parametrize("rotate", [rotated, rotated_and_created])
@pytest.mark.parametrize("idle", [True, False])
def test_a_renamed_output_goes_on_in_a_new_file(
    source: Path,
    output: Path,
    opened: Open,
    rotate: Callable[[Path], Path],
    idle: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    streams = opened(checkpoint_interval=1e9)
    say(streams, b"1")
    assert commit_all(streams, [])
    assert not say(streams, b"2")
    moved = rotate(output)
    if idle:
        assert say(streams), "it is made durable at once"
    assert say(streams, b"3") == (not idle)
    assert moved.read_bytes() == b"1\n2\n"
    assert output.read_bytes() == b"3\n"
    assert f"{output} was renamed or removed while it was written to; a new file of that name goes on" in caplog.text
    streams.close()
    opened()
    assert moved.read_bytes() == b"1\n2\n"
    assert output.read_bytes() == (b"" if idle else b"3\n")


def test_a_removed_output_goes_on_in_a_new_file(source: Path, output: Path, opened: Open) -> None:
    streams = opened(checkpoint_interval=1e9)
    say(streams, b"1")
    commit_all(streams, [])
    output.unlink()
    assert say(streams, b"2")
    assert output.read_bytes() == b"2\n"


def test_a_cut_output_goes_on_where_it_ends(
    source: Path, output: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    streams = opened(checkpoint_interval=1e9)
    say(streams, b"1", b"2", b"3")
    commit_all(streams, [])
    for size, left in ((4, b"1\n2\n"), (0, b"")):
        os.truncate(output, size)
        assert say(streams, b"4" * 30)
        assert output.read_bytes() == left + b"4" * 30 + b"\n"
        assert f"{output} was cut to {size} bytes while it was written to" in caplog.text
        assert not say(streams)
    streams.close()
    opened()
    assert output.read_bytes() == b"4" * 30 + b"\n"


def test_an_output_cut_within_a_line_is_refused(source: Path, output: Path, opened: Open) -> None:
    streams = opened()
    say(streams, b"12345")
    os.truncate(output, 3)
    with pytest.raises(UserError, match=rf"was cut to 3 bytes, within a line, while it was written to \({output}\)"):
        say(streams, b"6")
    assert output.read_bytes() == b"123"


def test_a_file_that_took_an_output_s_place_is_not_written_to(source: Path, output: Path, opened: Open) -> None:
    streams = opened()
    say(streams, b"1")
    rotated(output)
    output.write_bytes(b"somebody's\n")
    with pytest.raises(UserError, match="was replaced by a file with something in it while it was written to"):
        say(streams, b"2")
    output.unlink()
    output.mkdir()
    with pytest.raises(UserError, match="this is a directory"):
        say(streams, b"2")


def test_an_output_without_a_checkpoint_is_looked_after_too(source: Path, output: Path, opened: Open) -> None:
    streams = opened(state_dir=None)
    say(streams, b"1")
    moved = rotated(output)
    assert not say(streams, b"2")
    assert (moved.read_bytes(), output.read_bytes()) == (b"1\n", b"2\n")


@pytest.mark.parametrize(("step", "done"), [("fsync", 0), ("fsync", 1), ("fsync", 3), ("fsync", 4), ("replace", 0)])
def test_a_kill_while_an_output_moves_is_told_and_mended_by_putting_it_back(
    tmp_path: Path, source: Path, output: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, step: str, done: int
) -> None:
    """Lines beyond the last checkpoint are in the old file; those of the new one have no checkpoint yet."""
    streams = opened(max_records=4, checkpoint_interval=1e9)

    def turn(line: bytes, *, final: bool = False) -> bool:
        batches = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
        streams.write(alert(line))
        positions = {batch.partition: batch.next_offset for batch in batches}
        return streams.commit(positions, lambda _: b"state of " + line, final=final)

    assert turn(b"first", final=True)
    checkpoint = CheckpointFile(tmp_path / ".detector").load()
    assert not turn(b"not final")
    moved = rotated(output)
    calls = []

    def fail(*_: object) -> None:
        calls.append(step)
        if len(calls) > done:
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OperationError, match="Input/output error"):
            turn(b"third" * 10)
    streams.close()
    with pytest.raises(UserError, match=r"were written to it|content differs"):
        opened()
    moved.replace(output)
    streams = opened()
    assert CheckpointFile(tmp_path / ".detector").load() == checkpoint
    assert output.read_bytes() == b"first\n"
    assert isinstance(streams.poll(0.0)[0], Assigned)


def test_another_file_in_an_output_s_place_is_not_cut_back(source: Path, output: Path, opened: Open) -> None:
    streams = opened()
    say(streams, b"1" * 5000)
    commit_all(streams, [])
    streams.close()
    for other in (b"1" * 4999 + b"2\n", b"2" * 6000):
        output.write_bytes(other)
        with pytest.raises(UserError, match=r"is not the file that 5001 bytes were written to: its content differs"):
            opened()
        assert output.read_bytes() == other
    opened(fresh=True)
    assert output.read_bytes() == b""


def test_a_checkpoint_that_knows_nothing_of_endings_is_believed(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    say(streams, b"1")
    commit_all(streams, [])
    streams.close()
    file = CheckpointFile(tmp_path / ".detector")
    checkpoint = file.load()
    assert checkpoint is not None
    assert checkpoint.endings
    file.save(type(checkpoint)(checkpoint.partitions, checkpoint.outputs))
    streams = opened()
    assert final_lines(tmp_path / f"{OUTPUT}.jsonl", tmp_path / ".detector", OUTPUT) == [b"1"]


def test_every_line_is_there_once_whatever_is_rotated_and_killed(tmp_path: Path, source: Path, output: Path) -> None:
    clock = Clock()
    lines = [b"%d" % number for number in range(200)]
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    pieces: list[Path] = []
    for life in range(100):
        streams = DirectoryStreams(
            {INPUT: source}, {OUTPUT: output}, tmp_path / ".detector", 1.0, clock, 3, sleep=clock.sleep
        )
        streams.open()
        positions = {}
        for turn in range(5):
            for event in streams.poll(0.0):
                if isinstance(event, Batch):
                    for record in event.records:
                        streams.write(alert(record.value or b""))
                    positions[event.partition] = event.next_offset
            streams.commit(positions, lambda _: b"")
            clock.now += 0.4
            if (life + turn) % 7 == 0 and turn < 4:  # a kill before it is seen asks for a person
                pieces.append(output.rename(tmp_path / f"rotated-{len(pieces)}"))
        done = streams.at_end()
        streams.close()  # what was not final is undone
        if done:
            break
    streams = DirectoryStreams({INPUT: source}, {OUTPUT: output}, tmp_path / ".detector", 0.0, clock)
    streams.open()
    for batch in read_all(streams):
        for record in batch.records:
            streams.write(alert(record.value or b""))
        streams.commit({READINGS: batch.next_offset}, lambda _: b"", final=True)
    streams.close()
    assert len(pieces) > 5
    assert b"".join(piece.read_bytes() for piece in [*pieces, output]).split() == lines
