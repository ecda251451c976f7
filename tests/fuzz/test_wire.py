"""No record can stop the decoders: of whatever comes there are readings, or a reject with a known reason."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.config.load import FieldsConfig
from detector.config.settings import LimitsConfig
from detector.streams.base import Batch, Partition, Record
from detector.streams.kafka.clients import MAX_RECORD_BYTES
from detector.wire.alerts import dead_letter, dead_letter_line
from detector.wire.frames import Frame, FrameDecoder, NoFrame
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import MAX_VALUE, REASONS, FrameReason, Reject
from tests.fuzz.budget import examples
from tests.pictures import grey, jpeg, png, smooth

PARTITION = Partition("sensor-readings", 0)
NS_OF = 1_795_341_600_000

wild_floats = st.floats() | st.sampled_from([1e150, 1.0001e150, -1e151, 1.797e308, 5e-324, -0.0])
wild_numbers = wild_floats | st.integers(-(2**70), 2**70) | st.sampled_from([10**400, -(10**300), 1795341600])
scalars = (
    st.none() | st.booleans() | wild_numbers | st.text(max_size=12) | st.sampled_from(["\ud800", "a\x00", "x" * 300])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["sensor_id", "timestamp", "timestamps", "value", "values", "t", "p", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)
times = st.sampled_from(
    [1795341600, "2026-11-22T10:00:00Z", "2016-12-31T23:59:60Z", "NaT", "now", "2026-11-22", 0, "", None, "9" * 5000]
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "sensor_id": scalars | st.just("pump-7"),
        "timestamp": times | wild_numbers,
        "value": wild_numbers | st.none(),
        "timestamps": st.lists(times | wild_numbers, max_size=4),
        "values": st.lists(wild_numbers | st.none(), max_size=4) | st.dictionaries(st.sampled_from("tp"), wild_numbers),
    },
)


def written(document: Any) -> bytes:
    """A document as JSON, halves of characters and numbers that are none included."""
    try:
        return json.dumps(document).encode(errors="surrogatepass")
    except ValueError:  # Python writes no integers of thousands of digits
        return b'{"sensor_id": "a", "timestamp": 1795341600, "value": ' + b"9" * 5000 + b"}"


mutations = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)


def mutated(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for at, byte in changes:
        if changed:
            changed[at % len(changed)] = byte
    return bytes(changed)


json_values = st.builds(mutated, (documents | nearly | st.lists(nearly, max_size=4)).map(written), mutations)
csv_cells = st.sampled_from(
    [
        "1795341600",
        "2026-11-22T10:00:00Z",
        "1.5",
        "-1e300",
        "1e400",
        "",
        "null",
        "\x1c",
        "\x1f1",
        '"',
        "9" * 5000,
        "é",
        "a",
    ]
) | st.text(max_size=5)
csv_values = st.lists(csv_cells, max_size=4).map(lambda cells: ",".join(cells).encode(errors="surrogatepass"))
LONG_NUMBER = b'{"sensor_id": "a", "timestamp": 1795341600, "value": -' + b"9" * 5000 + b"}"
values = (
    json_values
    | st.binary(max_size=60)
    | st.none()
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 5_000, LONG_NUMBER, LONG_NUMBER.replace(b"1795341600", b"9" * 5000)])
)
keys = st.none() | st.binary(max_size=20) | st.just(b"pump-7") | st.just(b"k" * 40_000)
stamps = st.none() | st.sampled_from([-1, 0, 1_795_341_600, NS_OF, 2**62])
names = st.text(max_size=10) | st.sampled_from(["detector.reason", "timestamp", "shape", "dtype", "content-type"])
texts = st.none() | st.binary(max_size=30) | st.sampled_from([b"9" * 5000, b"28,28", b"uint8", b"x" * 70_000])
headers = st.lists(st.tuples(names, texts), max_size=5)


def fits(record: Record, reject: Reject) -> None:
    letter = dead_letter("dead", PARTITION, record, reject)
    parts = [letter.key or b"", letter.value, *(text for _, text in letter.headers)]
    names_too = sum(len(name.encode(errors="surrogatepass")) + 16 for name, _ in letter.headers)
    assert sum(map(len, parts)) + names_too < MAX_RECORD_BYTES - 10_000
    json.loads(dead_letter_line(letter))


def check(decoder: ReadingDecoder, batch: Batch, channels: int) -> None:
    readings = decoder.decode(batch)
    assert readings.values.shape == (len(readings.times), channels)
    assert (np.isnan(readings.values) | (np.abs(readings.values) <= MAX_VALUE)).all()
    for reject in readings.rejects:
        assert reject.reason in REASONS
        assert reject.message
        fits(batch.records[reject.record], reject)


def decoder(channels: tuple[str, ...], **options: Any) -> ReadingDecoder:
    return ReadingDecoder(FieldsConfig(), channels, **options)


@examples(400)
@given(
    st.lists(st.tuples(values, keys, stamps, headers), min_size=1, max_size=4),
    st.sampled_from([("value",), ("t", "p")]),
    st.none() | st.just(10**9),
)
def test_json_readings(parts: list[tuple[Any, ...]], channels: tuple[str, ...], max_future: int | None) -> None:
    records = [Record(at, key, value, stamp, found) for at, (value, key, stamp, found) in enumerate(parts)]
    check(decoder(channels, max_future=max_future), Batch(PARTITION, records, len(records)), len(channels))


@examples(300)
@given(
    st.lists(csv_values | st.binary(max_size=40), min_size=1, max_size=6),
    st.sampled_from([b"timestamp,value", b"value", b"timestamp,sensor_id,value", b"value,timestamp,other,sensor_id"]),
)
def test_csv_rows(rows: list[bytes], header: bytes) -> None:
    records = [Record(at, None, row) for at, row in enumerate(rows)]
    batch = Batch(PARTITION, records, len(records), header, 0)
    check(decoder(("value",), default_sensor="a", interval=10**9), batch, 1)


PICTURES = [png(grey()), jpeg(smooth()), jpeg(smooth(), progressive=True), png(np.zeros((28, 28, 4), dtype=np.uint8))]
pictures = st.builds(mutated, st.sampled_from(PICTURES), mutations) | st.builds(
    lambda data, end: data[:end], st.sampled_from(PICTURES), st.integers(0, 900)
)
lines = st.fixed_dictionaries(
    {"value_base64": st.sampled_from(["", "iVBORw0KGgo=", "%", 7])},
    optional={"camera_id": scalars, "timestamp": times | wild_numbers, "shape": scalars, "dtype": scalars},
).map(written)


@examples(300)
@given(pictures | lines | st.binary(max_size=900) | st.none(), keys, stamps, headers)
def test_frames(
    value: bytes | None, key: bytes | None, stamp: int | None, found: list[tuple[str, bytes | None]]
) -> None:
    record = Record(0, key, value, stamp, found)
    result = FrameDecoder((28, 28), LimitsConfig(), max_future=10**9).decode(record)
    if isinstance(result, Frame):
        assert result.pixels.shape == (28, 28)
        assert np.isfinite(result.pixels).all()
    elif isinstance(result, NoFrame):
        assert result.reason in REASONS | set(get_args(FrameReason))
        fits(record, Reject(0, result.reason, result.message, None))
