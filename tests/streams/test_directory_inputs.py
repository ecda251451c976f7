"""What the directory backend makes of input files: growing, changing, compressed."""

from __future__ import annotations

import gzip
import logging
import os
import tracemalloc
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.streams.base import Assigned, Batch, LongLine, Partition, Record
from detector.streams.checkpoint import CheckpointFile
from tests.streams.contract import numbered
from tests.streams.files import (
    INPUT,
    READINGS,
    Clock,
    Open,
    alert,
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


def test_an_input_that_shrank_between_runs_is_named_with_both_numbers(source: Path, opened: Open) -> None:
    streams = opened()
    commit_all(streams, read_all(streams))
    streams.close()
    size = source.stat().st_size
    os.truncate(source, 9)
    with pytest.raises(UserError, match=rf"has 9 bytes and was already read up to byte {size}.*{source.name}"):
        opened()
    source.unlink()
    with pytest.raises(UserError, match="has 0 bytes"):
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
    ("content", "message"), [(b"x" * 200, "content differs"), (b"x", "has 1 bytes"), (None, "has 0 bytes")]
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
    ("text", "message"), [(b"{}\n", "has 3 bytes"), (b"[]\n" * 500, "content differs"), (None, "has 0 bytes")]
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
