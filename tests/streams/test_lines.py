from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from detector.errors import UserError
from detector.streams.base import Batch, LongLine, Partition, Record
from detector.streams.lines import LineCutter, Start

P = Partition("s", 0)


def cut(
    text: bytes, *, csv: bool | None = False, sizes: Iterator[int] | None = None, limit: int = 1000, end: bool = True
) -> tuple[list[Batch], LineCutter]:
    cutter = LineCutter(P, "file", csv=csv)
    batches: list[Batch] = []
    at = 0
    while at < len(text):
        size = next(sizes) if sizes else len(text)
        cutter.feed(text[at : at + size])
        at += size
        batches += drain(cutter, limit)
    if end:
        cutter.finish()
        batches += drain(cutter, limit)
    return batches, cutter


def drain(cutter: LineCutter, limit: int) -> list[Batch]:
    batches = []
    while cutter.pending:
        batch = cutter.take(limit) or cutter.passed()
        assert batch.next_offset == cutter.reached.position
        batches.append(batch)
    return batches


def obvious(text: bytes, csv: bool) -> tuple[list[Record], bytes | None]:
    """The same by the slow way: line by line."""
    records, header, offset = [], None, 0
    if text.startswith(b"\xef\xbb\xbf"):
        offset, text = 3, text[3:]
    for line in text.splitlines(keepends=True) if b"\r" not in text else _lines(text):
        value = line.removesuffix(b"\n").removesuffix(b"\r")
        if value and csv and header is None:
            header = value
        elif value:
            records.append(Record(offset, None, value))
        offset += len(line)
    return records, header


def only_bare_returns(text: bytes) -> bool:
    """Whether the text is one line, with carriage returns within, which is refused."""
    *before, last = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return set(before) <= {b"", b"\r"} and b"\r" in last.rstrip(b"\r")


def _lines(text: bytes) -> list[bytes]:
    pieces = text.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + pieces[-1:]


texts = st.lists(st.sampled_from([b"a", b"{}", b"1,2", b"\n", b"\r\n", b"\n\n", b"\r", b"\xef\xbb\xbf", b" "])).map(
    b"".join
)


@given(text=texts, bom=st.booleans(), csv=st.booleans(), sizes=st.lists(st.integers(1, 5)), limit=st.integers(1, 4))
def test_any_pieces_give_the_same_records(text: bytes, bom: bool, csv: bool, sizes: list[int], limit: int) -> None:
    text = b"\xef\xbb\xbf" * bom + text
    assume(not only_bare_returns(text))
    expected, header = obvious(text, csv)
    batches, cutter = cut(text, csv=csv, sizes=iter([*sizes, *[len(text)] * (len(text) + 1)]), limit=limit)
    records = [record for batch in batches for record in batch.records]
    assert records == [record for record in expected if record.value]
    assert all(type(record) is Record for record in records)
    assert cutter.position == len(text)
    assert not cutter.incomplete
    row = 0
    for batch in batches:
        assert batch.row == row
        assert batch.header == header or not batch.records
        assert len(batch.records) <= limit
        row += len(batch.records)
    assert not batches or batches[-1].next_offset == len(text)


@given(text=texts, csv=st.booleans(), limit=st.integers(1, 4))
def test_reading_can_go_on_behind_any_batch(text: bytes, csv: bool, limit: int) -> None:
    assume(not only_bare_returns(text))
    batches, _ = cut(text, csv=csv, sizes=iter([7] * len(text)), limit=limit)
    for number, batch in enumerate(batches):
        start = Start(batch.next_offset, batch.row + len(batch.records), batch.header)
        cutter = LineCutter(P, "file", csv=csv, start=start)
        cutter.feed(text[batch.next_offset :])
        rest = drain(cutter, limit)
        cutter.finish()
        rest += drain(cutter, limit)
        again = [(record, b.header) for b in rest for record in b.records]
        assert again == [(record, b.header) for b in batches[number + 1 :] for record in b.records]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (b'{"a": 1}\n{"a": 2}\n', None),
        (b'[{"a": 1}]\n[]\n', None),
        (b'\n  {"a": 1}\n{}\n', None),
        (b"timestamp,value\n1,2\n2,3\n", b"timestamp,value"),
        (b'\xef\xbb\xbf"t","v"\r\n1,2\r\n2,3\r\n', b'"t","v"'),
    ],
)
def test_the_first_line_tells_csv_from_json(text: bytes, header: bytes | None) -> None:
    batches, _ = cut(text, csv=None)
    assert [batch.header for batch in batches] == [header]
    assert len(batches[0].records) == 2


def test_an_incomplete_line_waits() -> None:
    batches, cutter = cut(b"{}\n{", end=False)
    assert [record.value for record in batches[0].records] == [b"{}"]
    assert batches[0].next_offset == 3
    assert cutter.incomplete
    assert cutter.position == 3
    cutter.feed(b"}\n")
    batch = cutter.take(10)
    assert batch is not None
    assert batch.records == [Record(3, None, b"{}")]
    assert (batch.next_offset, batch.row) == (6, 1)


def test_a_last_line_without_a_line_end_ends_where_the_text_does() -> None:
    batches, _ = cut(b"{}\n{}")
    assert [batch.next_offset for batch in batches] == [3, 5]


def test_a_header_alone_gives_nothing() -> None:
    batches, cutter = cut(b"timestamp,value", csv=True)
    assert batches == [Batch(P, (), 15, b"timestamp,value")]
    assert cutter.reached == Start(15, 0, b"timestamp,value")


@pytest.mark.parametrize("rest", [b"timestamp,value\n1,2\n", b'{"a": 1}\n'])
def test_blank_lines_before_the_head_are_passed_and_it_is_still_the_head(rest: bytes) -> None:
    blank = b"\xef\xbb\xbf" + b"\n" * 100 + b"\r\n" * 100
    (passed,), cutter = cut(blank, csv=None)
    assert passed == Batch(P, (), 303)
    again = LineCutter(P, "file", csv=None, start=cutter.reached)
    again.feed(rest)
    (batch,) = drain(again, 10)
    header = rest.splitlines()[0] if rest.startswith(b"t") else None
    assert (batch.header, batch.row, len(batch.records)) == (header, 0, 1)
    assert batch.records[0].offset == 303 + (0 if header is None else 16)


@given(
    lines=st.lists(st.tuples(st.sampled_from([0, 2, 9, 10, 11, 30, 100]), st.sampled_from([b"\n", b"\r\n"]))),
    bom=st.booleans(),
    unended=st.sampled_from([0, 2, 11, 30]),
    sizes=st.lists(st.integers(1, 15)),
    limit=st.integers(1, 4),
    data=st.data(),
)
def test_of_a_line_that_is_too_long_the_beginning_comes_whatever_the_pieces(
    lines: list[tuple[int, bytes]],
    bom: bool,
    unended: int,
    sizes: list[int],
    limit: int,
    data: st.DataObject,
) -> None:
    text = b"\xef\xbb\xbf" * bom + b"".join(b"x" * length + end for length, end in lines) + b"x" * unended
    expected, _ = obvious(text, csv=False)
    cutter = LineCutter(P, "file", csv=False, max_line=10)
    found: list[Record] = []
    fed = 0
    for size in [*sizes, *[15] * len(text)]:
        if size < 15 and data.draw(st.booleans()):  # a new process goes on behind what was handed out
            cutter = LineCutter(P, "file", csv=False, max_line=10, start=cutter.reached)
            fed = cutter.position
        if fed == len(text):
            break
        cutter.feed(text[fed : fed + size])
        fed += len(text[fed : fed + size])
        for batch in drain(cutter, limit):
            assert len(batch.records) == 1 or not any(isinstance(record, LongLine) for record in batch.records)
            assert batch.row == len(found)
            found += batch.records
    cutter.finish()
    found += [record for batch in drain(cutter, limit) for record in batch.records]
    assert [record.offset for record in found] == [record.offset for record in expected]
    for record, whole in zip(found, expected, strict=True):
        assert record.value is not None
        assert whole.value is not None
        raw = text[whole.offset :].partition(b"\n")[0]
        bom_too = 3 if whole.offset == 3 and bom else 0
        assert isinstance(record, LongLine) == (len(raw) + bom_too > 10)
        if isinstance(record, LongLine):
            assert whole.value.startswith(record.value.removesuffix(b"\r"))
            assert len(record.value) > 7
        else:
            assert record.value == whole.value
    assert cutter.reached.position == len(text)


def test_the_rest_of_a_long_line_is_skipped_as_it_comes() -> None:
    cutter = LineCutter(P, "file", csv=False, max_line=10)
    cutter.feed(b"{}\n" + b"x" * 11)
    first, long = drain(cutter, 10)
    assert [record.value for record in first.records] == [b"{}"]
    assert long == Batch(P, [LongLine(3, None, b"x" * 11)], 14, None, 1)
    assert cutter.reached == Start(14, 2, None, within_line=True)
    assert not cutter.incomplete
    for position in (114, 214):
        cutter.feed(b"x" * 100)
        assert drain(cutter, 10) == [Batch(P, (), position, None, 2)]
    cutter.feed(b"x\n[]\n")
    assert drain(cutter, 10) == [Batch(P, [Record(216, None, b"[]")], 219, None, 2)]
    assert cutter.reached == Start(219, 3)


@pytest.mark.parametrize("csv", [True, False, None])
@pytest.mark.parametrize("text", [b"a,b\r1,2\r", b'\r\n{"a": 1}\r{"a": 2}', b"\xef\xbb\xbfa\rb", b"{\r" + b"x" * 100])
def test_lines_that_end_with_carriage_returns_alone_are_refused(csv: bool | None, text: bytes) -> None:
    told = r"the lines of the input end with carriage returns alone \(input\)\. Let them end with line feeds, as `tr "
    waiting = LineCutter(P, "input", csv=csv, max_line=50)
    waiting.feed(text)
    ended = LineCutter(P, "input", csv=csv, max_line=50)
    ended.feed(text)
    ended.finish()
    with pytest.raises(UserError, match=told):
        waiting.refuse_bare_returns() if waiting.incomplete else drain(waiting, 10)
    for _ in range(2):
        with pytest.raises(UserError, match=told):
            drain(ended, 10)


@pytest.mark.parametrize("text", [b"a\r\nb\rc", b"a\r\rb\nc", b"{}\r", b"{}\r\r", b"a\r\r\n"])
def test_other_carriage_returns_are_part_of_their_line(text: bytes) -> None:
    for at in range(len(text)):
        cutter = LineCutter(P, "input", csv=False)
        cutter.feed(text[: at + 1])
        if b"\n" in text[: at + 1] or at + 1 == len(text):
            drain(cutter, 10)
            cutter.refuse_bare_returns()
    batches, _ = cut(text)
    values = [record.value for batch in batches for record in batch.records]
    assert values == [line.removesuffix(b"\r") for line in text.split(b"\n") if line]


@pytest.mark.parametrize("csv", [True, None])
def test_a_header_that_is_too_long_is_none(csv: bool | None) -> None:
    cutter = LineCutter(P, "input", csv=csv, max_line=10)
    cutter.feed(b"\n" + b"x" * 11)
    for _ in range(2):
        with pytest.raises(UserError, match=r"first line is longer than 10 bytes, which is no CSV header \(input:1\)"):
            cutter.take(10)


def test_a_first_line_of_json_may_be_too_long() -> None:
    cutter = LineCutter(P, "input", csv=None, max_line=10)
    cutter.feed(b" {" + b"x" * 11 + b"\n{}\n")
    assert [type(batch.records[0]) for batch in drain(cutter, 10)] == [LongLine, Record]
    again = LineCutter(P, "input", csv=None, start=cutter.reached)
    again.feed(b"1,2\n")
    assert drain(again, 10) == [Batch(P, [Record(17, None, b"1,2")], 21, None, 2)]


def test_a_long_line_that_is_not_too_long_is_taken() -> None:
    cutter = LineCutter(P, "f", csv=False, max_line=10)
    cutter.feed(b"x" * 8)
    cutter.feed(b"xx\n{}\n")
    batch = cutter.take(10)
    assert batch is not None
    assert [record.value for record in batch.records] == [b"x" * 10, b"{}"]
