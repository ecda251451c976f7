"""Readings scanned by scan.c: what it takes comes to what the typed decoder makes of it; the rest it leaves."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detector.config.fields import FieldsConfig
from detector.detection.kernel.build import SCAN_SOURCE, build, compilers
from detector.detection.kernel.choice import INTERPRETED, VARIABLE
from detector.detection.kernel.compiled import opened
from detector.service.kernel import plain_library
from detector.streams.base import Batch, Partition, Record
from detector.wire import plain
from detector.wire.json_readings import ReadingDecoder
from detector.wire.plain import PlainScanner
from detector.wire.readings import Readings

KEYS = ("sensor_id", "timestamp", "value")
LINE = b'{"sensor_id":"pump-7","timestamp":1795341600,"value":71.3}'


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library, as this machine's compiler makes it."""
    if not any(compilers()):
        pytest.skip("there is no C compiler")
    return opened(build(tmp_path_factory.mktemp("scan") / "scan.so", SCAN_SOURCE), SCAN_SOURCE)


def records(lines: list[bytes | None]) -> list[Record]:
    return [Record(i, b"key", line) for i, line in enumerate(lines)]


def said(readings: Readings) -> tuple[object, ...]:
    arrays = readings.counts, readings.records, readings.elements, readings.times, readings.values
    return readings.ids, *(array.tobytes() for array in arrays), readings.rejects


def check(library: ctypes.CDLL, lines: list[bytes | None], fields: FieldsConfig | None = None) -> bool:
    """Both ways say the same; whether the scanner took it."""
    fields = fields or FieldsConfig()
    batch = Batch(Partition("sensor-readings", 0), records(lines), len(lines))
    alone = ReadingDecoder(fields, ("value",)).decode(batch)
    assert said(ReadingDecoder(fields, ("value",), plain=library).decode(batch)) == said(alone)
    found = PlainScanner(library, (str(fields.sensor_id), str(fields.timestamp), str(fields.value)))(batch.records)
    if found is not None and not alone.rejects:
        assert found.ids == alone.ids
        assert found.values.tobytes() == alone.values.tobytes()
    return found is not None


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        b' { "value" : -0.5e-3 ,\t"timestamp" : 1795341600.25 , "sensor_id" : "pump 7" } \r',
        b'{"sensor_id":"a","timestamp":"2026-11-22T10:00:00.125Z","value":null}',
        b'{"sensor_id":"a","timestamp":1795341600125,"value":0}',
        b'{"sensor_id":"a","timestamp":1795341600,"value":0.30000000000000004}',
        b'{"sensor_id":"a","timestamp":1795341600,"value":9007199254740993.0}',
        b'{"sensor_id":"a","timestamp":1795341600,"value":1e-320}',
        b'{"sensor_id":"a","timestamp":1795341600,"value":1.7976931348623157e308}',  # out of range, as all find
        b'{"sensor_id":"a","timestamp":12,"value":1}',
        b'{"sensor_id":"a","timestamp":"noon","value":1}',
        b'{"sensor_id":"' + b"a" * 256 + b'","timestamp":1795341600,"value":1}',
    ],
)
def test_plain_lines_are_taken(library: ctypes.CDLL, line: bytes) -> None:
    assert check(library, [line] * 3)


@pytest.mark.parametrize(
    "line",
    [
        None,
        b"",
        b"{}",
        LINE[:-1],
        LINE + b"}",
        LINE + b"\0",
        LINE + b"\n" + LINE,
        LINE.replace(b",", b",\n"),
        b"[" + LINE + b"]",
        LINE.replace(b"71.3", b"071.3"),
        LINE.replace(b"71.3", b"71."),
        LINE.replace(b"71.3", b".3"),
        LINE.replace(b"71.3", b"+71.3"),
        LINE.replace(b"71.3", b"71.3e"),
        LINE.replace(b"71.3", b"1e400"),
        LINE.replace(b"71.3", b"-0"),
        LINE.replace(b"71.3", b"NaN"),
        LINE.replace(b"71.3", b"nullx"),
        LINE.replace(b"71.3", b"true"),
        LINE.replace(b"71.3", b'"71.3"'),
        LINE.replace(b"71.3", b"1" * 400),
        LINE.replace(b"1795341600", b"null"),
        LINE.replace(b"1795341600", b"9" * 19),
        LINE.replace(b"pump-7", b""),
        LINE.replace(b"pump-7", b"a" * 257),
        LINE.replace(b"pump-7", rb"pump\t7"),
        LINE.replace(b"pump-7", b"pump\t7"),
        LINE.replace(b"pump-7", "püp".encode()),
        LINE.replace(b"pump-7", b"\xff"),
        LINE.replace(b'"sensor_id"', b'"value"'),
        LINE.replace(b'"sensor_id"', b'"sensor"'),
        LINE.replace(b'"sensor_id":"pump-7",', b""),
        LINE.replace(b"{", b'{"unit":"bar",'),
        LINE.replace(b"}", b',"value":1}'),
        LINE.replace(b"}", b",}"),
    ],
)
def test_all_else_is_left_to_the_decoder(library: ctypes.CDLL, line: bytes | None) -> None:
    for lines in ([line], [LINE, line], [line, LINE]):
        assert not check(library, lines)


def test_times_of_two_kinds_are_left(library: ctypes.CDLL) -> None:
    assert not check(library, [LINE, LINE.replace(b"1795341600", b"1795341600.0")])
    assert not check(library, [LINE, LINE.replace(b"1795341600", b'"2026-11-22T10:00:00Z"')])


def test_a_record_that_two_lines_make_is_none(library: ctypes.CDLL) -> None:
    """Halves that would be a line together, and two lines that would make up for them."""
    assert not check(library, [LINE + b"\n" + LINE, b""])
    assert not check(library, [LINE[:30], LINE[30:]])


def test_other_keys_and_one_that_begins_another(library: ctypes.CDLL) -> None:
    fields = FieldsConfig.model_validate({"sensor_id": "t", "timestamp": "ts", "value": "tsv"})
    assert check(library, [b'{"tsv":1,"t":"a","ts":1795341600}'], fields)
    odd = FieldsConfig.model_validate({"sensor_id": "größe", "timestamp": "ts", "value": "v"})
    assert check(library, ['{"größe":"a","ts":1795341600,"v":1}'.encode()], odd)


@pytest.mark.parametrize("end", [b"", b" ", b"?"])
def test_portions_are_put_together(library: ctypes.CDLL, end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "PORTION", 3)
    lines: list[bytes | None] = [LINE.replace(b"71.3", b"%d" % i).replace(b"pump-7", b"p%d" % i) for i in range(7)]
    lines[5] = (lines[5] or b"") + end
    assert check(library, lines) == (end != b"?")


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.from_regex(r"-?[0-9]{1,22}(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["null", "0", "-0.0", "1e22", "1e23", "9007199254740993", "123456789012345678", "2.5e-324", ""]),
)
times = (
    numbers | st.just("1795341600") | st.sampled_from(['"2026-11-22T10:00:00Z"', '"2026-11-22 10:00"', "1.7953416e9"])
)
names = st.text(st.characters(max_codepoint=130), max_size=8).map(lambda text: f'"{text}"') | st.just('"pump"')
parts = st.permutations(range(3)).flatmap(
    lambda order: st.tuples(names, times, numbers, st.sampled_from(["", " ", "\r", "\n"])).map(
        lambda found: "{" + ("," + found[3]).join(f'"{KEYS[i]}":{found[3]}{found[i]}' for i in order) + "}"
    )
)


@settings(max_examples=150)
@given(st.lists(parts, min_size=1, max_size=3), st.integers(0, 200), st.sampled_from([None, *b'"{}:,\n\\0e.-\0 ']))
@example(['{"sensor_id":"pump","timestamp":1795341600,"value":8.41}'], 0, None)
def test_it_agrees_with_the_decoder(library: ctypes.CDLL, lines: list[str], at: int, byte: int | None) -> None:
    found: list[bytes | None] = [line.encode() for line in lines]
    if byte is not None:
        first = bytearray(found[0] or b"")
        first[at % len(first)] = byte
        found[0] = bytes(first)
    check(library, found)


@settings(max_examples=100)
@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150))
@example(5e-324)
@example(1e23)
def test_every_number_is_read_as_python_reads_it(library: ctypes.CDLL, value: float) -> None:
    found = PlainScanner(library, KEYS)(records([b'{"sensor_id":"a","timestamp":1,"value":%r}' % value]))
    if math.copysign(1, value) < 0 and value == 0:
        assert found is None  # minus nothing is left to the decoder
    else:
        assert found is not None
        assert np.array([value]).tobytes() == found.values.tobytes()


def test_nothing_is_scanned_where_nothing_compiled_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, INTERPRETED)
    assert plain_library.__wrapped__() is None
