"""Inputs that are cut, replaced or rewritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.streams.base import Assigned, Batch
from tests.streams.contract import numbered
from tests.streams.files import (
    READINGS,
    Open,
    alert,
    commit_all,
    read_all,
    records,
    values,
)


def test_an_input_that_shrank_between_runs_is_named_with_both_numbers(source: Path, opened: Open) -> None:
    streams = opened()
    commit_all(streams, read_all(streams))
    streams.close()
    size = source.stat().st_size
    os.truncate(source, 9)
    with pytest.raises(UserError, match=rf"has 9 bytes and was already read up to byte {size}.*{source.name}"):
        opened()
    source.unlink()
    with pytest.raises(UserError, match=rf"is not there any more, and was already read up to byte {size} "):
        opened()


@pytest.mark.parametrize("until_end", [False, True])
def test_an_input_that_shrinks_while_it_is_read_is_named(source: Path, opened: Open, until_end: bool) -> None:
    streams = opened(max_bytes=30, until_end=until_end)
    streams.poll(0.0)
    os.truncate(source, 5)
    with pytest.raises(UserError, match=r"has 5 bytes.*already read up to byte 30"):
        read_all(streams)


def test_an_input_cut_where_it_was_read_to_does_not_reach_its_end(source: Path, opened: Open) -> None:
    streams = opened(max_bytes=30, until_end=True)
    streams.poll(0.0)
    os.truncate(source, 30)
    with pytest.raises(UserError, match=r"was cut from 90 to 30 bytes while it was read"):
        read_all(streams)


@pytest.mark.parametrize("where", [0, 28_800])
def test_another_file_under_the_name_is_seen_between_runs(
    tmp_path: Path, source: Path, opened: Open, where: int
) -> None:
    lines = numbered(1000, 5000)
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    streams = opened()
    batches = read_all(streams)
    index = 2500 if where else 100
    streams.commit({READINGS: records(batches)[index].offset}, lambda _: b"", final=True)
    streams.close()
    changed = bytearray(source.read_bytes())
    changed[where + 6] ^= 1
    source.write_bytes(changed)
    with pytest.raises(UserError, match=r"content differs before that byte.*--fresh"):
        opened()


def rewritten(source: Path, text: bytes) -> None:
    """The same file, with other content."""
    with open(source, "r+b") as file:
        file.truncate(0)
        file.write(text)


def lines_of(values: list[bytes]) -> bytes:
    return b"".join(value + b"\n" for value in values)


OTHERS = {
    "grown beyond the position": lines_of(numbered(5000, 3000)),
    "of the same size": lines_of(numbered(1000, 10)).replace(b"1", b"2"),
    "the same but for the beginning": b"[]" + lines_of(numbered(1000, 2000))[2:],
    "the same but for what was read last": lines_of([*numbered(1000, 999), b'{"n": 1998}', *numbered(2000, 10)]),
    "sparse up to where its writer was": bytes(12_000) + lines_of(numbered(5000, 10)),
}


@pytest.mark.parametrize("until_end", [False, True])
@pytest.mark.parametrize("unread", [0, 5], ids=["all was read", "some was not"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_that_was_written_anew_between_two_looks_is_seen(
    source: Path, opened: Open, other: str, unread: int, until_end: bool
) -> None:
    if other == "of the same size":
        source.write_bytes(lines_of(numbered(1000, 10)))
        chunk = source.stat().st_size - 10 * unread
    else:
        source.write_bytes(lines_of(numbered(1000, 1000 + unread)))
        chunk = 12_000
    streams = opened(max_bytes=chunk, until_end=until_end)
    assert len(values([event for event in streams.poll(0.0) if isinstance(event, Batch)])) > 4
    rewritten(source, OTHERS[other])
    if until_end and not unread:
        assert read_all(streams) == []  # all that was there was read
    else:
        with pytest.raises(UserError, match=r"content differs before that byte|was cut or replaced"):
            read_all(streams)


def test_what_is_written_anew_between_a_read_and_its_commit_is_not_taken_for_what_was_read(
    tmp_path: Path, source: Path, opened: Open
) -> None:
    streams = opened(max_records=4)
    first = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
    commit_all(streams, first, b"state")
    second = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
    before = source.read_bytes()
    rewritten(source, lines_of(numbered(5000, 20)))
    streams.write(alert(b"1"))
    with pytest.raises(UserError, match="content differs before that byte"):
        commit_all(streams, second, b"new state")
    streams.close()
    with pytest.raises(UserError, match="content differs before that byte"):
        opened()
    # What was before it, put back before it, is a remedy that loses nothing.
    rewritten(source, before + lines_of(numbered(5000, 20)))
    streams = opened()
    assert streams.poll(0.0)[0] == Assigned(READINGS, first[0].next_offset, b"state")
    streams.close()
    streams = opened()
    assert values(read_all(streams)) == numbered(0, 10)[4:] + numbered(5000, 20)
    assert (tmp_path / "anomaly-alerts.jsonl").read_bytes() == b""


def test_a_rotated_file_is_read_to_its_end_before_the_new_one_is_refused(
    tmp_path: Path, source: Path, opened: Open
) -> None:
    streams = opened(max_bytes=30)
    first = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
    old = source.rename(tmp_path / "old")
    source.write_bytes(lines_of(numbered(10, 5)))
    with open(old, "ab") as file:
        file.write(lines_of([b"[]"]))
    found = values(first)

    def go_on() -> None:
        while True:
            batches = [event for event in streams.poll(0.0) if isinstance(event, Batch)]
            commit_all(streams, batches)
            found.extend(values(batches))

    with pytest.raises(UserError, match=r"cut or replaced.*what is new behind what was read"):
        go_on()
    streams.close()
    assert found == [*numbered(0, 10), b"[]"]
    source.write_bytes(old.read_bytes() + source.read_bytes())
    assert values(read_all(opened())) == numbered(10, 5)


def test_another_input_needs_another_output(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    commit_all(streams, read_all(streams))
    streams.close()
    other = tmp_path / "other.jsonl"
    other.write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=rf"checkpoint is that of the input {source.name} .*other.jsonl"):
        opened(other)


def test_a_file_replaced_by_its_continuation_goes_on(tmp_path: Path, source: Path, opened: Open) -> None:
    streams = opened()
    read_all(streams)
    new = tmp_path / "new"
    new.write_bytes(source.read_bytes() + b"{}\n")
    new.replace(source)
    assert values(read_all(streams)) == [b"{}"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"x" * 200, "content differs"), (b"x", "has 1 byte and"), (None, "is not there any more")]
)
def test_a_file_replaced_by_another_is_named(
    tmp_path: Path, source: Path, opened: Open, content: bytes | None, message: str
) -> None:
    streams = opened()
    read_all(streams)
    source.unlink()
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError, match=message):
        streams.poll(0.0)
