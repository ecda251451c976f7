"""Files of any bytes, read in any pieces, over any kills: each line comes out once, as readings or as a reject."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.config.load import FieldsConfig
from detector.errors import UserError
from detector.streams.base import Assigned, Batch, LongLine, Message, Record
from detector.streams.directory import DirectoryStreams
from detector.wire.json_readings import ReadingDecoder
from tests.streams.files import INPUT, OUTPUT, READINGS, Clock

EXAMPLES: Final = 250
MAX_LINE: Final = 64
MEMORY: Final = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - a disk would be synced all the time
MARK: Final = b"\xef\xbb\xbf"
FIRST: Final = {"jsonl": b'{"sensor_id":"a","timestamp":1795341600,"value":1}', "csv": b"timestamp,value,sensor_id"}
"""A first line in which no carriage return stands: without a line end it would be refused."""
LINES: Final = [
    b"", b"\r", b" ", b"\0", b"\0\0\0", b"\rx", b"x\ry", b"{}", b"[]", b"{", b'"', b",", b",,", b'a,"b', b"\xff\xfe",
    MARK, FIRST["jsonl"], FIRST["csv"], b'{"timestamp":1795341600,"value":1}', b"null", b"1795341600,1.5,a",
    b"1795341600,,a", b"1795341600,1e999,a", b"x" * (MAX_LINE - 1), b"x" * MAX_LINE, b"{" + b"x" * MAX_LINE,
    b"\r" * (MAX_LINE + 1), b"\0" * 1000, FIRST["jsonl"] + b" " * 300, b"1795341600,1.5,a" + b" " * 300,
]  # fmt: skip

blank = st.sampled_from([b"", b"\n", b"\r\n", b"\n" * 500])
line = st.one_of(st.sampled_from(LINES), st.binary(max_size=80).map(lambda drawn: drawn.replace(b"\n", b"")))
lines = st.lists(st.tuples(line, st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n\n\n"])).map(b"".join), max_size=30)
rest = st.tuples(lines, line).map(lambda drawn: b"".join(drawn[0]) + drawn[1])
step = st.one_of(
    st.tuples(st.just("grow"), st.integers(1, 200)),
    st.tuples(st.just("poll"), st.integers(1, 5)),
    st.tuples(st.just("deal"), st.integers(1, 4)),
    st.tuples(st.just("commit"), st.booleans()),
    st.tuples(st.just("kill"), st.just(0)),
)


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def published(number: int, record: Record) -> bytes:
    """A line that says all of a record: which one, where, and what it is."""
    value = record.value or b""
    if isinstance(record, LongLine):
        value = b"the beginning of " + value[: MAX_LINE - len(MARK)]
    return b"%d %d %s" % (number, record.offset, value.hex().encode())


def expected(text: bytes, *, csv: bool) -> list[bytes]:
    """What is published of a text, by the slow way: its lines, one by one."""
    found: list[bytes] = []
    offset, header_is_to_come = 0, csv
    for raw in text.split(b"\n"):
        mark = len(MARK) if offset == 0 and raw.startswith(MARK) else 0
        value = raw[mark:].removesuffix(b"\r")
        if value and not header_is_to_come:
            kind = LongLine if len(raw) > MAX_LINE else Record
            found.append(published(len(found), kind(offset + mark, None, value)))
        header_is_to_come = header_is_to_come and not value
        offset += len(raw) + 1
    return found


class Reader:
    """Lives of one consumer, which publishes a line for each record and counts them in its state.

    It may commit up to any record that it was handed out.
    """

    def __init__(self, directory: Path, name: str, *, chunk: int, limit: int) -> None:
        self.path = directory / name
        self.output = directory / "out.jsonl"
        self._chunk, self._limit = chunk, limit
        self._clock = Clock()
        self._decoder = ReadingDecoder(FieldsConfig(), ("value",))
        self.live(until_end=False)

    def live(self, *, until_end: bool) -> None:
        self.streams = DirectoryStreams(
            {INPUT: self.path}, {OUTPUT: self.output}, self.output.with_name("state"), 1.0, self._clock,
            max_records=self._limit, max_bytes=self._chunk, max_line=MAX_LINE, until_end=until_end,
            sleep=self._clock.sleep,
        )  # fmt: skip
        self.streams.open()
        self.position: int | None = None  # behind what was dealt with
        self._count = self._rows = 0  # records that were dealt with, and handed out
        self._pending: deque[tuple[Record | None, int]] = deque()  # and the position behind each

    def kill(self, *, until_end: bool = False) -> None:
        self.streams.close()
        self.live(until_end=until_end)

    def poll(self) -> None:
        for event in self.streams.poll(0.0):
            if isinstance(event, Assigned):
                self.position = event.position
                self._count = self._rows = int(event.state or b"0")
            elif isinstance(event, Batch):
                self._take(event)

    def deal(self, most: int | None = None) -> None:
        for _ in range(len(self._pending) if most is None else min(most, len(self._pending))):
            record, self.position = self._pending.popleft()
            if record is not None:
                self.streams.write([Message(OUTPUT, None, published(self._count, record))])
                self._count += 1

    def commit(self, *, final: bool) -> None:
        self._clock.now += 0.1
        if self.position is not None:
            self.streams.commit({READINGS: self.position}, lambda _: b"%d" % self._count, final=final)

    def _take(self, batch: Batch) -> None:
        assert batch.row == self._rows
        ends = [*(record.offset for record in batch.records[1:]), batch.next_offset]
        records: Sequence[Record | None] = batch.records or [None]
        self._pending.extend(zip(records, ends, strict=True))
        self._rows += len(batch.records)
        self._count_each(batch)

    def _count_each(self, batch: Batch) -> None:
        """Every record is readings, or is rejected and counted; rows that are blank are neither."""
        readings = self._decoder.decode(batch)
        met = {*readings.records.tolist(), *(reject.record for reject in readings.rejects)}
        for number, record in enumerate(batch.records):
            blank = batch.header is not None and not (record.value or b"").decode("latin-1").strip()
            assert number in met or blank
        long = [reject.reason == "line_too_long" for reject in readings.rejects]
        assert long == [True] if batch.records and isinstance(batch.records[0], LongLine) else not any(long)


@bounded(EXAMPLES)
@given(
    kind=st.sampled_from(["jsonl", "csv"]),
    compressed=st.booleans(),
    mark=st.booleans(),
    before=blank,
    first_end=st.sampled_from([b"\n", b"\r\n"]),
    rest=rest,
    chunk=st.sampled_from([1, 3, 17, 64, 65, 200, 5000]),
    limit=st.integers(1, 6),
    steps=st.lists(step, max_size=30),
    kills=st.sets(st.integers(0, 80), max_size=6),
)
def test_every_line_of_a_file_comes_out_once(
    kind: str,
    compressed: bool,
    mark: bool,
    before: bytes,
    first_end: bytes,
    rest: bytes,
    chunk: int,
    limit: int,
    steps: list[tuple[str, int]],
    kills: set[int],
) -> None:
    text = MARK * mark + before + FIRST[kind] + first_end + rest
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name) / (f"in.{kind}.gz" if compressed else f"in.{kind}")
        path.write_bytes(gzip.compress(text, 1) if compressed else b"")
        grown = len(text) if compressed else 0
        reader = Reader(Path(name), path.name, chunk=chunk, limit=limit)
        for what, amount in steps:
            match what:
                case "grow" if grown < len(text):
                    with path.open("ab") as file:
                        file.write(text[grown : grown + amount])
                    grown += amount
                case "poll":
                    for _ in range(amount):
                        reader.poll()
                case "deal":
                    reader.deal(amount)
                case "commit":
                    reader.commit(final=bool(amount))
                case "kill":
                    reader.kill()
        if not compressed:
            path.write_bytes(text)
        reader.kill(until_end=True)
        for turn in range(10 * len(text) + 100):
            reader.poll()
            reader.deal()
            reader.commit(final=turn in kills and turn % 2 == 0)
            if turn in kills:
                reader.kill(until_end=True)
            elif reader.streams.at_end():
                break
        assert reader.position == len(text)
        reader.commit(final=True)
        reader.streams.close()
        assert reader.output.read_bytes().splitlines() == expected(text, csv=kind == "csv")


@bounded(EXAMPLES)
@given(mark=st.booleans(), before=blank, rest=rest, sizes=st.lists(st.integers(1, 300), max_size=10))
def test_every_line_of_a_pipe_comes_out_once(mark: bool, before: bytes, rest: bytes, sizes: list[int]) -> None:
    text = MARK * mark + before + FIRST["jsonl"] + b"\n" + rest
    found: list[bytes] = []
    reading, writing = os.pipe()
    with open(reading, "rb") as stdin, open(writing, "wb", buffering=0) as producer:
        streams = DirectoryStreams({INPUT: "-"}, {}, None, 1.0, until_end=True, stdin=stdin, max_line=MAX_LINE)
        streams.open()
        ends = [end for end in accumulate(sizes) if end < len(text)]
        for begin, end in pairwise([0, *ends, len(text)]):
            producer.write(text[begin:end])
            if end == len(text):
                producer.close()
            while events := streams.poll(0.0):
                for event in events:
                    for record in event.records if isinstance(event, Batch) else ():
                        found.append(published(len(found), record))
        assert streams.at_end()
        streams.close()
    assert found == expected(text, csv=False)


@bounded(EXAMPLES)
@given(
    rest=rest,
    other=rest,
    chunk=st.sampled_from([1, 17, 200, 5000]),
    polls=st.integers(1, 5),
    until_end=st.booleans(),
)
def test_a_file_that_is_written_anew_loses_nothing_without_a_word(
    rest: bytes, other: bytes, chunk: int, polls: int, until_end: bool
) -> None:
    """What was read stays read; another text in its place is refused, whatever its length."""
    first = FIRST["jsonl"] + b"\n"
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name) / "in.jsonl"
        path.write_bytes(first + rest)
        reader = Reader(Path(name), path.name, chunk=chunk, limit=100)
        for _ in range(polls):
            reader.poll()
        reader.deal()
        reader.commit(final=True)
        before = reader.output.read_bytes().splitlines()
        assert before == expected(first + rest, csv=False)[: len(before)]
        path.write_bytes(b"[" + first[1:] + other)
        refused = False
        try:
            if until_end:
                reader.kill(until_end=True)
            for _ in range(20_000):
                reader.poll()
                reader.deal()
                reader.commit(final=False)
                if until_end and reader.streams.at_end():
                    break
        except UserError:
            refused = True
        reader.streams.close()
        after = reader.output.read_bytes().splitlines()
        if refused:
            assert after == expected(first + rest, csv=False)[: len(after)]
            assert after[: len(before)] == before
        else:
            assert until_end, "the life that read of the one text reads nothing of the other"
            assert before == [], "nor does one that follows it"
            assert after == expected(b"[" + first[1:] + other, csv=False)
