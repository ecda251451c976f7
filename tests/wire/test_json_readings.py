from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.config.load import FieldsConfig
from detector.errors import UserError
from detector.streams.base import Batch, LongLine, Partition, Record
from detector.times import EARLIEST, LATEST, parse_time
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import REASONS, Readings, Reject
from detector.wire.schemas import schema

STREAM = Partition("sensor-readings", 0)
MS = 1_795_341_600_000
NS = MS * 10**6
SECOND = 10**9


def batch(
    values: Sequence[bytes | None],
    *,
    key: bytes | None = None,
    timestamp: int | None = None,
    header: bytes | None = None,
    row: int = 0,
) -> Batch:
    records = [Record(offset, key, value, timestamp) for offset, value in enumerate(values)]
    return Batch(STREAM, records, len(records), header, row)


def decoder(*channels: str, **options: Any) -> ReadingDecoder:
    return ReadingDecoder(FieldsConfig(), channels or ("value",), **options)


def decode(*documents: object, key: bytes | None = None, channels: tuple[str, ...] = ()) -> Readings:
    readings = decoder(*channels).decode(batch([json.dumps(document).encode() for document in documents], key=key))
    assert_sound(readings, len(documents), len(channels) or 1)
    return readings


def assert_sound(readings: Readings, records: int, channels: int) -> None:
    """What holds for every result, whatever came in."""
    count = len(readings)
    assert readings.times.shape == readings.elements.shape == (count,)
    assert readings.values.shape == (count, channels)
    assert readings.values.flags.c_contiguous
    assert readings.values.dtype == np.float64
    for column in (readings.counts, readings.records, readings.elements, readings.times):
        assert column.dtype == np.int64
    assert len(readings.ids) == len(readings.counts) == len(readings.records)
    assert (readings.counts > 0).all()
    assert readings.counts.sum() == count
    assert not np.isinf(readings.values).any()
    assert ((readings.times >= EARLIEST) & (readings.times < LATEST)).all()
    assert (np.diff(readings.records) >= 0).all()
    assert all(0 < len(sensor) <= 256 for sensor in readings.ids)
    owners = np.repeat(readings.records, readings.counts)
    assert (np.diff(readings.elements)[np.diff(owners) == 0] > 0).all()
    rejected = [reject.record for reject in readings.rejects]
    assert rejected == sorted(set(rejected))
    assert all(0 <= record < records for record in rejected)
    for reject in readings.rejects:
        assert reject.reason in REASONS
        assert reject.message
        assert "\n" not in reject.message
        accepted = set(readings.elements[owners == reject.record].tolist())
        if reject.elements is None:
            assert not accepted
        else:
            assert accepted
            assert reject.elements == sorted(set(reject.elements))
            assert not accepted & set(reject.elements)


def rows(readings: Readings) -> list[tuple[int, int, str, int, tuple[float | None, ...]]]:
    """(record, element, sensor, time, values) of every reading; None for NaN, so that rows compare."""
    ids = [sensor for sensor, count in zip(readings.ids, readings.counts, strict=True) for _ in range(count)]
    owners = np.repeat(readings.records, readings.counts).tolist()
    values = [tuple(None if math.isnan(value) else value for value in row) for row in readings.values.tolist()]
    return list(zip(owners, readings.elements.tolist(), ids, readings.times.tolist(), values, strict=True))


class TestForms:
    def test_one_reading(self) -> None:
        readings = decode({"sensor_id": "pump-7", "timestamp": "2026-11-22T10:00:00.125Z", "value": 71.3})
        assert rows(readings) == [(0, 0, "pump-7", NS + 125_000_000, (71.3,))]

    def test_lists(self) -> None:
        readings = decode({"sensor_id": "pump-7", "timestamps": [MS / 1000, MS / 1000 + 1], "values": [71.3, None]})
        assert rows(readings) == [(0, 0, "pump-7", NS, (71.3,)), (0, 1, "pump-7", NS + SECOND, (None,))]
        assert readings.ids == ["pump-7"]

    def test_several_channels(self) -> None:
        readings = decode(
            {"sensor_id": "a", "timestamp": MS, "values": {"pressure": 2.1, "temperature": None}},
            {"sensor_id": "b", "timestamps": [MS, MS + 1], "values": {"temperature": [1, 2], "pressure": [3, None]}},
            channels=("temperature", "pressure"),
        )
        assert rows(readings) == [
            (0, 0, "a", NS, (None, 2.1)),
            (1, 0, "b", NS, (1.0, 3.0)),
            (1, 1, "b", NS + 10**6, (2.0, None)),
        ]

    def test_one_channel_by_name(self) -> None:
        readings = decode({"sensor_id": "a", "timestamp": MS, "values": {"value": 1}})
        assert rows(readings) == [(0, 0, "a", NS, (1.0,))]

    def test_an_array_of_readings_is_runs_of_sensors(self) -> None:
        readings = decode(
            [{"sensor_id": sensor, "timestamp": MS + index, "value": index} for index, sensor in enumerate("aab")],
            [{"sensor_id": "b", "timestamp": MS, "values": {"value": 3}}],
        )
        assert readings.ids == ["a", "b", "b"]
        assert readings.counts.tolist() == [2, 1, 1]
        assert readings.records.tolist() == [0, 0, 1]
        assert readings.elements.tolist() == [0, 1, 2, 0]

    def test_the_key_names_the_sensor_where_the_message_does_not(self) -> None:
        readings = decode(
            {"timestamp": MS, "value": 1},
            {"sensor_id": None, "timestamp": MS, "value": 1},
            {"timestamps": [MS], "values": [1]},
            [{"timestamp": MS, "value": 1}, {"sensor_id": "own", "timestamp": MS, "value": 1}],
            key="pümp".encode(),
        )
        assert readings.ids == ["pümp", "pümp", "pümp", "pümp", "own"]

    def test_other_keys_are_ignored(self) -> None:
        assert len(decode({"sensor_id": "a", "timestamp": MS, "value": 1, "unit": {"of": ["°C"]}})) == 1

    def test_mapped_names(self) -> None:
        mapped = ReadingDecoder(FieldsConfig(sensor_id="id", timestamp="t", value="temp"), ("value",))
        readings = mapped.decode(
            batch(
                [
                    b'{"id": "a", "t": 1795341600, "temp": 1, "value": "other"}',
                    b'{"id": "b", "ts": [1795341600], "temps": [2]}',
                ]
            )
        )
        assert rows(readings) == [(0, 0, "a", NS, (1.0,)), (1, 0, "b", NS, (2.0,))]

    def test_a_byte_order_mark_does_no_harm(self) -> None:
        line = b'\xef\xbb\xbf{"sensor_id": "a", "timestamp": 1795341600, "value": 1}'
        assert rows(decoder().decode(batch([line]))) == [(0, 0, "a", NS, (1.0,))]

    def test_no_records(self) -> None:
        assert_sound(decoder().decode(batch([])), 0, 1)
        assert_sound(decoder("a", "b").decode(batch([])), 0, 2)
        assert_sound(decoder(default_sensor="a").decode(batch([], header=b"timestamp,value")), 0, 1)


ELSEWHERE = {"internal", "too_many_sensors"}
"""Reasons that the engine finds."""
OK_READING = {"sensor_id": "a", "timestamp": MS, "value": 1.0}


class TestRejects:
    @pytest.mark.parametrize(
        ("value", "reason", "message"),
        [
            (None, "empty", "no value"),
            (b"", "empty", "no value"),
            (b" \t", "empty", "no value"),
            (b"[]", "empty", "no readings"),
            (b"{", "malformed", "not JSON"),
            (b"\xff{}", "malformed", "not UTF-8"),
            (b"[" * 100_000, "malformed", "nested"),
            (b"1" * 5_000, "malformed", "too long"),
            (b"7", "malformed", "expected an object, got a number"),
            (b"[7]", "malformed", "expected an object"),
            (b'{"sensor_id": "a", "value": 1}', "malformed", "`timestamp` is missing"),
            (b'{"sensor_id": "a", "timestamp": 1795341600}', "malformed", "`value` is missing"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": 1, "values": [1]}', "malformed", "both"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "timestamps": [1], "values": [1]}', "malformed", "both"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "values": [1]}', "malformed", "no object of channels"),
            (b'{"sensor_id": "a", "timestamps": [1795341600]}', "malformed", "no lists"),
            (b'{"sensor_id": "a", "timestamps": 1795341600, "values": [1]}', "malformed", "no lists"),
            (b'{"sensor_id": "a", "timestamps": [1795341600], "values": {"value": 1}}', "malformed", "no list"),
            (b'[{"sensor_id": "a", "timestamps": [1795341600], "values": [1]}]', "malformed", "inside a list"),
            (b'{"timestamp": 1795341600, "value": 1}', "missing_sensor_id", "no key"),
            (b'{"sensor_id": "", "timestamp": 1795341600, "value": 1}', "bad_sensor_id", "no sensor id"),
            (b'{"sensor_id": 7, "timestamp": 1795341600, "value": 1}', "bad_sensor_id", "a number, not text"),
            (b'{"sensor_id": "a\\u0000", "timestamp": 1795341600, "value": 1}', "bad_sensor_id", "`a?`"),
            (b'{"sensor_id": "\\ud800", "timestamp": 1795341600, "value": 1}', "bad_sensor_id", "`?`"),
            (b'{"sensor_id": "a", "timestamp": null, "value": 1}', "bad_timestamp", "null"),
            (b'{"sensor_id": "a", "timestamp": true, "value": 1}', "bad_timestamp", "a boolean"),
            (b'{"sensor_id": "a", "timestamp": "yesterday", "value": 1}', "bad_timestamp", "`yesterday`"),
            (b'{"sensor_id": "a", "timestamp": "1795341600", "value": 1}', "bad_timestamp", "`1795341600`"),
            (b'{"sensor_id": "a", "timestamp": 1e400, "value": 1}', "bad_timestamp", "Infinity"),
            (b'{"sensor_id": "a", "timestamp": 0, "value": 1}', "timestamp_out_of_range", "2000 to 2100"),
            (b'{"sensor_id": "a", "timestamp": "2100-01-01T00:00:00Z", "value": 1}', "timestamp_out_of_range", "2100"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": true}', "bad_value", "`true`"),
            (
                b'{"sensor_id": "a", "timestamp": 1795341600, "value": "1"}',
                "bad_value",
                "text, not a number; `readings.c",
            ),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": NaN}', "bad_value", "`NaN`"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": -Infinity}', "bad_value", "`-Infinity`"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": 1e999}', "bad_value", "`Infinity`"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": [1]}', "bad_value", "a list"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": 1' + b"0" * 400 + b"}", "value_out_of_range", "`1"),
            (
                b'{"sensor_id": "a", "timestamp": 1795341600, "values": {"x": 1}}',
                "channel_mismatch",
                "`x`; expected `value`",
            ),
            (b'{"sensor_id": "a", "timestamps": [1795341600], "values": {"x": [1]}}', "channel_mismatch", "`x`"),
            (b'{"sensor_id": "a", "timestamps": [1795341600], "values": [1, 2]}', "length_mismatch", "1 timestamp, "),
            (b'{"sensor_id": "a", "timestamps": [], "values": []}', "empty", "lists are empty"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": 1.0001e150}', "value_out_of_range", "1e+150"),
            (b'{"sensor_id": "a", "timestamp": 1795341600, "value": -1.797e308}', "value_out_of_range", "-1.797e+308"),
            (b'[{"sensor_id": "a", "timestamp": 1795341600, "value": 1e151}]', "value_out_of_range", "1e+151"),
            (b'{"sensor_id": "a", "verdict": {"alert_id": "x", "is": "true"}}', "bad_verdict", "none of real, false"),
            (b'{"sensor_id": "a", "verdict": {"alert_id": "x"}}', "bad_verdict", "missing required field `is`"),
            (b'{"sensor_id": "a", "verdict": {"is": "real"}}', "bad_verdict", "missing required field `alert_id`"),
            (b'{"sensor_id": "a", "verdict": "real"}', "bad_verdict", "is text, not an object"),
            (b'{"sensor_id": "a", "verdict": {"alert_id": "x", "is": "real", "note": 1}}', "bad_verdict", "got `int`"),
            (b'{"sensor_id": "a", "verdict": {"alert_id": "\\ud800", "is": "real"}}', "bad_verdict", "utf-8"),
            (b'{"verdict": {"alert_id": "x", "is": "real"}}', "missing_sensor_id", "no `sensor_id`"),
        ],
    )
    def test_reasons(self, value: bytes | None, reason: str, message: str) -> None:
        good = json.dumps(OK_READING).encode()
        readings = decoder().decode(batch([good, value, good]))
        assert_sound(readings, 3, 1)
        assert [row[0] for row in rows(readings)] == [0, 2]
        (reject,) = readings.rejects
        assert (reject.record, reject.reason, reject.elements) == (1, reason, None)
        assert message in reject.message

    def test_every_reason_is_used(self) -> None:
        (reasons,) = (mark for mark in self.test_reasons.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
        assert {case[1] for case in reasons.args[1]} | {"timestamp_in_future", "line_too_long", *ELSEWHERE} == REASONS

    def test_of_a_batch_of_values_only_those_out_of_range_are_rejected(self) -> None:
        times = [MS, MS + 1, MS + 2, MS + 3]
        readings = decode({"sensor_id": "a", "timestamps": times, "values": [1e150, -2e200, None, -1e150]})
        assert [row[1] for row in rows(readings)] == [0, 2, 3]
        assert [(one.reason, one.elements) for one in readings.rejects] == [("value_out_of_range", [1])]

    def test_one_channel_out_of_range_rejects_the_reading(self) -> None:
        document = {"sensor_id": "a", "timestamp": MS, "values": {"t": 1.0, "p": -1e300}}
        (reject,) = decode(document, channels=("t", "p")).rejects
        assert (reject.reason, "-1e+300" in reject.message) == ("value_out_of_range", True)

    @pytest.mark.parametrize("stamp", [0, -1, 1_795_341_600, 946_684_799_999])
    def test_an_implausible_time_of_the_record_limits_no_reading(self, stamp: int) -> None:
        record = Record(0, None, json.dumps(OK_READING).encode(), stamp)
        readings = decoder(max_future=10**9).decode(Batch(Partition("r", 0), [record], 1))
        assert len(readings) == 1
        assert not readings.rejects

    @pytest.mark.parametrize("header", [None, b"sensor_id,timestamp,value"])
    def test_a_line_that_was_cut_is_no_reading_though_its_beginning_is_one(self, header: bytes | None) -> None:
        value = json.dumps(OK_READING).encode() + b" " * 100 if header is None else b"a,1795341600,71.3"
        long = LongLine(7, None, value)
        readings = decoder().decode(Batch(Partition("s", 0), [long], 5000, header, 3))
        assert_sound(readings, 1, 1)
        assert len(readings) == 0
        place = "" if header is None else "row 5: "
        message = f"{place}the line has more than 16777216 bytes"
        assert readings.rejects == [Reject(0, "line_too_long", message, None)]

    def test_one_channel_is_not_several(self) -> None:
        for document in ({"value": 1, "timestamp": MS}, {"values": [1], "timestamps": [MS]}):
            (reject,) = decode({"sensor_id": "a", **document}, channels=("t", "p")).rejects
            assert reject.reason == "channel_mismatch"
            assert "`t`, `p`" in reject.message

    def test_a_bad_element_spares_the_others(self) -> None:
        readings = decode(
            {"sensor_id": "a", "timestamps": [MS, 5, MS, "x"], "values": [True, 1, 2, 3]},
            [OK_READING, {**OK_READING, "value": "1"}, OK_READING, 7],
        )
        assert [row[:2] for row in rows(readings)] == [(0, 2), (1, 0), (1, 2)]
        first, second = readings.rejects
        assert (first.reason, first.elements) == ("bad_value", [0, 1, 3])
        assert first.message.startswith("reading 0: value `true`")
        assert (second.reason, second.elements) == ("bad_value", [1, 3])

    def test_a_key_that_is_no_text(self) -> None:
        readings = decode({"timestamp": MS, "value": 1}, {"timestamps": [MS], "values": [1]}, key=b"\xff")
        assert [reject.reason for reject in readings.rejects] == ["bad_sensor_id"] * 2

    @pytest.mark.parametrize("sensor", ["x" * 256, "a b", "a\u2028b", "泵", "\ue000"])
    def test_unusual_sensor_ids(self, sensor: str) -> None:
        assert decode({**OK_READING, "sensor_id": sensor}).ids == [sensor]
        assert decode({"timestamp": MS, "value": 1}, key=sensor.encode()).ids == [sensor]

    def test_long_sensor_ids(self) -> None:
        (reject,) = decode({**OK_READING, "sensor_id": "x" * 257}).rejects
        assert len(reject.message) < 200
        assert not decode({"timestamp": MS, "value": 1}, key=b"x" * 257).ids


class TestFuture:
    def decode(self, timestamp: int | None, *documents: object, max_future: int | None = 300 * SECOND) -> Readings:
        encoded = [json.dumps(document).encode() for document in documents]
        return decoder(max_future=max_future).decode(batch(encoded, timestamp=timestamp))

    def test_the_brokers_time_limits_a_reading(self) -> None:
        late, later = {**OK_READING, "timestamp": MS + 300_000}, {**OK_READING, "timestamp": MS + 300_001}
        readings = self.decode(MS, OK_READING, late, later)
        assert len(readings) == 2
        (reject,) = readings.rejects
        assert (reject.record, reject.reason) == (2, "timestamp_in_future")
        assert "2026-11-22T10:05:00.001Z" in reject.message

    def test_only_the_elements_beyond_it(self) -> None:
        (reject,) = self.decode(MS, {"sensor_id": "a", "timestamps": [MS, MS * 2 - MS // 2], "values": [1, 2]}).rejects
        assert (reject.reason, reject.elements) == ("timestamp_in_future", [1])

    @pytest.mark.parametrize(("timestamp", "max_future"), [(None, 0), (-1, 0), (0, None), (2**62, 0), (MS, 2**62)])
    def test_no_limit(self, timestamp: int | None, max_future: int | None) -> None:
        assert len(self.decode(timestamp, OK_READING, max_future=max_future)) == 1


class TestCsv:
    def decode(
        self, text: str, *channels: str, fields: FieldsConfig | None = None, row: int = 0, **options: Any
    ) -> Readings:
        header, *lines = text.encode().split(b"\n")
        made = ReadingDecoder(fields or FieldsConfig(), channels or ("value",), **options)
        readings = made.decode(batch(lines, header=header, row=row))
        assert_sound(readings, len(lines), len(channels) or 1)
        return readings

    def test_a_sensor_a_file(self) -> None:
        readings = self.decode("timestamp,value\n2026-11-22 10:00:00,1.5\n1795341601,-2e1\r", default_sensor="pump")
        assert rows(readings) == [(0, 0, "pump", NS, (1.5,)), (1, 0, "pump", NS + SECOND, (-20.0,))]

    def test_many_sensors_and_other_columns(self) -> None:
        readings = self.decode("note,sensor_id,value,timestamp\nx,a_1, 1 ,1795341600000\ny,b, 2,1795341600.5")
        assert rows(readings) == [(0, 0, "a_1", NS, (1.0,)), (1, 0, "b", NS + SECOND // 2, (2.0,))]

    def test_quotes_and_foreign_characters(self) -> None:
        readings = self.decode(
            'timestamp,value,sensor_id,°C\n"1795341600","1","pump, left",ä\n1795341600,2,ü,"say ""x"""'
        )
        assert [(row[2], row[4]) for row in rows(readings)] == [("pump, left", (1.0,)), ("ü", (2.0,))]

    def test_mapped_names_and_channels(self) -> None:
        fields = FieldsConfig(timestamp="time", value="temp", sensor_id="id")
        assert len(self.decode("time,temp,id\n1795341600,1,a", fields=fields)) == 1
        readings = self.decode("timestamp,p,t\n1795341600,1,", "t", "p", default_sensor="a")
        assert rows(readings) == [(0, 0, "a", NS, (None, 1.0))]
        assert len(self.decode("timestamp,t\n1795341600,1", "t", default_sensor="a")) == 1

    def test_a_byte_order_mark_and_spaces_in_the_header(self) -> None:
        assert len(self.decode("\ufefftimestamp, value\n1795341600,1", default_sensor="a")) == 1

    def test_rows_without_a_timestamp_are_counted(self) -> None:
        readings = self.decode("value\n1\n\n3", default_sensor="a", interval=SECOND, row=10)
        assert rows(readings) == [
            (0, 0, "a", EARLIEST + 10 * SECOND, (1.0,)),
            (2, 0, "a", EARLIEST + 12 * SECOND, (3.0,)),
        ]
        assert not readings.rejects

    @pytest.mark.parametrize("cell", ["", " ", "null"])
    def test_missing_values(self, cell: str) -> None:
        for quote in ("", '"'):
            readings = self.decode(
                f"timestamp,value\n1795341600,{quote}{cell}{quote}\n1795341601,1", default_sensor="a"
            )
            assert [row[4] for row in rows(readings)] == [(None,), (1.0,)]

    @pytest.mark.parametrize(
        ("line", "reason", "message"),
        [
            ("1795341600,x,a", "bad_value", "row 13: `x` is not a finite number"),
            ("1795341600,NaN,a", "bad_value", "row 13: `NaN`"),
            ("1795341600,-inf,a", "bad_value", "row 13: `-inf`"),
            ("1795341600,1e999,a", "bad_value", "row 13"),
            ("1795341600,1_000,a", "bad_value", "row 13"),
            ("1795341600,0x1,a", "bad_value", "row 13"),
            ("1795341600,\u0661,a", "bad_value", "row 13"),
            ("1795341600,true,a", "bad_value", "row 13"),
            ("1795341600,1", "malformed", "row 13: 2 cells, but the header has 3"),
            ("1795341600,3,5,a", "malformed", "row 13: 4 cells"),
            ('1795341600,"3,a', "malformed", "row 13: not CSV"),
            ("1795341600,1\r,a", "malformed", "row 13: not CSV"),
            ("1795341600,1,", "missing_sensor_id", "row 13: the cell of `sensor_id` is empty"),
            ("1795341600,1,a\x00", "bad_sensor_id", "row 13"),
            ("yesterday,1,a", "bad_timestamp", "`yesterday`"),
            (",1,a", "bad_timestamp", "``"),
            ("17953416_00,1,a", "bad_timestamp", "`17953416_00`"),
            ("nan,1,a", "bad_timestamp", ""),
            ("2026-11-31 00:00:00,1,a", "bad_timestamp", "2026-11-31"),
            ("12,1,a", "timestamp_out_of_range", "`12`"),
        ],
    )
    def test_rejects_name_the_row(self, line: str, reason: str, message: str) -> None:
        readings = self.decode(f"timestamp,value,sensor_id\n1795341600,1,a\n{line}\n1795341601,2,b", row=10)
        assert [row[0] for row in rows(readings)] == [0, 2]
        (reject,) = readings.rejects
        assert (reject.record, reject.reason, reject.elements) == (1, reason, None)
        assert message in reject.message

    def test_bytes_that_are_no_text(self) -> None:
        readings = decoder(default_sensor="a").decode(batch([b"1795341600,1", b"\xff,1"], header=b"timestamp,value"))
        assert [reject.reason for reject in readings.rejects] == ["malformed"]
        assert len(readings) == 1

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("time,value", "no column `timestamp`; the columns are time, value (sensor-readings:1). Name yours"),
            ("timestamp,temp", "no column `value`; the columns are timestamp, temp (sensor-readings:1). Name yours"),
            ("timestamp,value,value", "two columns are called `value`"),
            ("timestamp;value", "the columns are separated by `;`, not by commas (sensor-readings:1). Save the file"),
            ("timestamp\tvalue", "the columns are separated by tabs, not by commas (sensor-readings:1)."),
            ("timestamp,value", "no column `sensor_id`; the columns are timestamp, value"),
            ("", "no column `value`; the columns are none"),
            ('"timestamp', "no CSV header"),
            ("PK\x03\x04\x14", "no CSV header (sensor-readings:1). Save the file as CSV in UTF-8."),
        ],
    )
    def test_headers_that_lack_something(self, header: str, message: str) -> None:
        with pytest.raises(UserError) as caught:
            self.decode(f"{header}\n1,2")
        assert message in str(caught.value)

    def test_a_header_may_change_between_batches(self) -> None:
        made = decoder(default_sensor="a")
        for header, line in ((b"timestamp,value", b"1795341600,5"), (b"value,timestamp", b"5,1795341600")):
            assert rows(made.decode(batch([line], header=header))) == [(0, 0, "a", NS, (5.0,))]


# -- what holds for anything that may come -------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
sensors = st.sampled_from(["a", "b", "pump-7", "é"]) | st.sampled_from(["", "\x00", "x" * 257, 7, None, True, ["a"]])
moments: st.SearchStrategy[Any] = (
    st.integers(MS, MS + 10**6)
    | st.floats(MS / 1000, MS / 1000 + 1e6)
    | st.integers(NS, NS + 10**6)
    | st.sampled_from(["2026-11-22T10:00:00Z", "2026-11-22 10:00:00.5+01:00"])
    | st.sampled_from(["x", "", None, True, 5, -1, 2**70, math.inf, math.nan, 1e300, [1], {}])
)
quantities = (
    st.floats(-1e6, 1e6)
    | st.integers(-5, 5)
    | st.none()
    | st.sampled_from([math.nan, math.inf, "1", True, [1], 10**400])
)
good_sensors = st.sampled_from(["a", "b", "é"])
good_moments = st.integers(MS, MS + 10**6) | st.sampled_from(["2026-11-22T10:00:00Z", MS / 1000])
good_quantities = st.floats(-1e6, 1e6) | st.none() | st.integers(-5, 5)


def keyed(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these keys."""
    return st.fixed_dictionaries({}, optional=parts)


def messages(
    sensor: st.SearchStrategy[Any], moment: st.SearchStrategy[Any], quantity: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    single = st.fixed_dictionaries({"sensor_id": sensor, "timestamp": moment, "value": quantity})
    by_name = st.fixed_dictionaries(
        {
            "sensor_id": sensor,
            "timestamp": moment,
            "values": st.fixed_dictionaries({"value": quantity, "other": quantity}),
        }
    )
    pairs = st.lists(st.tuples(moment, quantity, quantity), max_size=5)
    lists = st.builds(
        lambda sensor, pairs: {
            "sensor_id": sensor,
            "timestamps": [pair[0] for pair in pairs],
            "values": [pair[1] for pair in pairs],
        },
        sensor,
        pairs,
    )
    lists_by_name = st.builds(
        lambda sensor, pairs: {
            "sensor_id": sensor,
            "timestamps": [pair[0] for pair in pairs],
            "values": {"value": [pair[1] for pair in pairs], "other": [pair[2] for pair in pairs]},
        },
        sensor,
        pairs,
    )
    return single | by_name | lists | lists_by_name | st.lists(single | by_name, max_size=5)


oddities = keyed(
    sensor_id=sensors,
    timestamp=moments,
    value=quantities,
    timestamps=st.lists(moments, max_size=3) | moments,
    values=st.lists(quantities, max_size=3) | keyed(value=quantities, other=st.lists(quantities)) | quantities,
)
documents = (
    messages(good_sensors, good_moments, good_quantities)
    | messages(sensors, moments, quantities)
    | oddities
    | st.lists(oddities | json_values, max_size=4)
)


class UnreadableError(Exception):
    pass


def obvious(document: Any, key: str | None, channels: tuple[str, ...]) -> dict[int, Any] | None:
    """The readings of a message by element, None for a rejected element; None for a rejected message."""

    def read(item: Any, time: Any, values: Sequence[Any]) -> tuple[str, int, tuple[float | None, ...]]:
        sensor = item.get("sensor_id")
        sensor = key if sensor is None else sensor
        if not isinstance(sensor, str) or not 0 < len(sensor) <= 256 or "\x00" in sensor:
            raise UnreadableError
        if isinstance(time, bool) or not isinstance(time, str | int | float):
            raise UnreadableError
        try:
            ns = parse_time(time)
        except ValueError:
            raise UnreadableError from None
        if not EARLIEST <= ns < LATEST:
            raise UnreadableError
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise UnreadableError
            if value is not None and not abs(value) < 1e308:
                raise UnreadableError
        return sensor, ns, tuple(None if value is None else float(value) for value in values)

    def read_single(item: Any) -> tuple[str, int, tuple[float | None, ...]]:
        if not isinstance(item, dict) or "timestamps" in item or ("value" in item) == ("values" in item):
            raise UnreadableError
        values = item["values"] if "values" in item else {"value": item["value"]}
        if "value" in item and len(channels) > 1:
            raise UnreadableError
        if not isinstance(values, dict) or ("values" in item and set(values) != set(channels)):
            raise UnreadableError
        names = channels if "values" in item else ("value",)
        return read(item, item.get("timestamp"), [values[name] for name in names])

    def read_all() -> list[Any]:
        if isinstance(document, list):
            return [lambda item=item: read_single(item) for item in document]
        if not isinstance(document, dict) or "timestamps" not in document:
            return [lambda: read_single(document)]
        times, values = document["timestamps"], document.get("values")
        if "timestamp" in document or "value" in document or not isinstance(times, list):
            raise UnreadableError
        if isinstance(values, list):
            values = {"value": values}
            if len(channels) > 1:
                raise UnreadableError
        elif not isinstance(values, dict) or set(values) != set(channels):
            raise UnreadableError
        columns = [values[name] for name in (channels if len(channels) > 1 else values)]
        if not all(isinstance(column, list) and len(column) == len(times) for column in columns):
            raise UnreadableError
        return [
            lambda time=time, row=row: read(document, time, row) for time, *row in zip(times, *columns, strict=True)
        ]

    try:
        readers = read_all()
    except UnreadableError:
        return None
    result: dict[int, Any] = {}
    for element, reader in enumerate(readers):
        try:
            result[element] = reader()
        except UnreadableError:
            result[element] = None
    return result if any(reading is not None for reading in result.values()) else None


@given(
    st.lists(documents, max_size=6) | st.lists(messages(good_sensors, good_moments, good_quantities), max_size=6),
    st.sampled_from([None, "key"]),
    st.sampled_from([("value",), ("value", "other")]),
)
@example([{"sensor_id": "a", "timestamp": MS, "value": 1.0}] * 3, None, ("value",))
@example([{"timestamp": NS + 1, "value": 10**400}, {"timestamp": 1.5, "value": 1}], "key", ("value",))
def test_every_path_agrees_with_the_obvious_one(
    batch_of: list[Any], key: str | None, channels: tuple[str, ...]
) -> None:
    encoded = [json.dumps(document).encode() for document in batch_of]
    made = decoder(*channels)
    raw_key = None if key is None else key.encode()
    readings = made.decode(batch(encoded, key=raw_key))
    assert_sound(readings, len(encoded), len(channels))
    expected = [obvious(document, key, channels) for document in batch_of]
    assert rows(readings) == [
        (record, element, *reading)
        for record, found in enumerate(expected)
        for element, reading in (found or {}).items()
        if reading is not None
    ]
    rejected = {reject.record: reject.elements for reject in readings.rejects}
    for record, found in enumerate(expected):
        if found is None:
            assert rejected.pop(record) is None
        else:
            bad = [element for element, reading in found.items() if reading is None]
            assert rejected.pop(record, []) == bad
    assert not rejected
    # The company a record is in makes no difference.
    alone = [made.decode(batch([value], key=raw_key)) for value in encoded]
    assert [row[1:] for single in alone for row in rows(single)] == [row[1:] for row in rows(readings)]
    assert [reject[1:] for single in alone for reject in single.rejects] == [reject[1:] for reject in readings.rejects]


@given(st.lists(documents, min_size=1, max_size=4))
def test_what_the_schema_accepts_has_the_shape_of_a_reading(batch_of: list[Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema("reading"))
    readings = decoder().decode(batch([json.dumps(document).encode() for document in batch_of], key=b"key"))
    shapeless = {reject.record for reject in readings.rejects if reject.reason in {"malformed", "empty"}}
    for record, document in enumerate(batch_of):
        if validator.is_valid(document):
            assert record not in shapeless
    whole = set(range(len(batch_of))) - {reject.record for reject in readings.rejects}
    assert all(validator.is_valid(batch_of[record]) for record in whole)


@given(
    st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=5),
    st.none() | st.binary(max_size=5),
    st.sampled_from([("value",), ("value", "other")]),
)
def test_no_bytes_are_more_than_a_reject(values: list[bytes], key: bytes | None, channels: tuple[str, ...]) -> None:
    readings = decoder(*channels, max_future=0).decode(batch(values, key=key, timestamp=MS))
    assert_sound(readings, len(values), len(channels))
    assert len(readings.rejects) >= len(values) - len(set(readings.records.tolist()))


@given(
    messages(good_sensors, good_moments, good_quantities).map(lambda document: json.dumps(document).encode()),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=2)), min_size=1, max_size=3),
)
def test_damaged_messages(value: bytes, cuts: list[tuple[int, bytes]]) -> None:
    for at, replacement in cuts:
        value = value[: at % (len(value) + 1)] + replacement + value[at % (len(value) + 1) + 1 :]
    assert_sound(decoder().decode(batch([value])), 1, 1)


numeric = [
    "1795341600",
    "1795341600.5",
    "1795341600125000001",
    "1.5e-3",
    " 1.5e-3",
    "1",
    "-2.5",
    "1e5",
    "-0",
    "+1",
    ".5",
    "1.",
    "01",
]
python_only = ["nan", "inf", "1_0", "0x1", "1e400"]
dated = ["2026-11-22 10:00:00", "2026-11-22T10:00:00Z"]
other = ["", " ", "null", "x", " 7 ", "a", "é", '"q"', '"1"', "\r", "\x1f"]
cells = st.sampled_from([*numeric, *python_only, *dated, *other])


@given(st.lists(st.lists(cells, min_size=3, max_size=3) | st.lists(cells, max_size=5), max_size=6))
@example([["1795341600", "1", "a"], ["1795341600", "2", "b"]])
@example([["1795341600125000001", "1", "a"], ["1795341600.5", "2", "b"]])
@example([["2026-11-22 10:00:00", "1", "a"], ["1795341600", "", "b"]])
@example([["1795341600", "1", "a"], [" 1.5e-3", "1", "b"]])
def test_csv_rows_are_read_the_same_in_any_company(table: list[list[str]]) -> None:
    lines = [",".join(row).encode() for row in table]
    header = b"timestamp,value,sensor_id"
    made = decoder()
    together = made.decode(batch(lines, header=header))
    assert_sound(together, len(lines), 1)
    # A row that holds a quote is looked at by itself, and the others with it.
    slowly = made.decode(batch([*lines, b'"1795341600",1,z'], header=header))
    assert rows(together) == rows(slowly)[: len(together)]
    assert [reject[:2] for reject in together.rejects] == [reject[:2] for reject in slowly.rejects]


def test_the_sign_of_a_zero_hangs_on_no_company() -> None:
    header, lines = b"timestamp,value,sensor_id", [b"1795341600,-0,a", b"1795341601,0,a", b"1795341602,-0.5,a"]
    for company in ([], [b'"1795341603",1,a']):
        readings = decoder().decode(batch([*lines, *company], header=header))
        assert np.signbit(readings.values[:3, 0]).tolist() == [True, False, True]


@given(st.lists(st.binary(max_size=30), max_size=5), st.sampled_from([b"timestamp,value,sensor_id", b"value"]))
def test_no_csv_is_more_than_a_reject(lines: list[bytes], header: bytes) -> None:
    made = decoder(default_sensor="a", interval=SECOND)
    assert_sound(made.decode(batch(lines, header=header)), len(lines), 1)


def test_portions_are_joined() -> None:
    many = {"sensor_id": "a", "timestamps": [MS + index for index in range(3000)], "values": [1.5] * 3000}
    readings = decode(many, {**many, "sensor_id": "b"}, {**many, "timestamps": ["x", *many["timestamps"][1:]]})
    assert readings.ids == ["a", "b", "a"]
    assert readings.counts.tolist() == [3000, 3000, 2999]
    assert readings.elements[[0, 3000, 6000, -1]].tolist() == [0, 0, 1, 2999]
    assert readings.rejects[0].elements == [0]
