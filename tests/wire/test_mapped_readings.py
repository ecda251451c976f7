"""Messages of other tools: parts that are looked up where the configuration says they stand."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.config.fields import places_of
from detector.config.load import FieldsConfig, ReadingsConfig, load_config
from detector.streams.base import Batch, Partition, Record
from detector.wire.documents import number_in
from detector.wire.json_readings import PlainJson, ReadingDecoder
from detector.wire.mapped_readings import MappedJson
from detector.wire.readings import Readings

S = 1_795_341_600
NS = S * 1_000_000_000
# As Telegraf 1.32 writes them: `data_format = "json"`, one metric a message, and batches with `use_batch_format`.
TELEGRAF = {
    "fields": {"temperature": 71.3, "pressure": 2},
    "name": "modbus",
    "tags": {"host": "edge-1", "machine": "pump-7"},
    "timestamp": S,
}
TELEGRAF_MQTT = {
    "fields": {"value": 71.3},
    "name": "mqtt_consumer",
    "tags": {"host": "edge-1", "topic": "plant/pump-7"},
    "timestamp": S,
}
TELEGRAF_OPCUA = {
    "fields": {"Quality": "OK (0x0)", "value": 71.3},
    "name": "opcua",
    "tags": {"host": "edge-1", "id": "ns=3;s=Pump7"},
    "timestamp": S,
}
ROW = {"sensor_id": "pump-7", "timestamp": S * 1000, "value": 71.3}
# As the JSON converter of Kafka Connect writes it, with `schemas.enable` and without.
CONNECT = {
    "schema": {"type": "struct", "fields": [{"type": "string", "field": "sensor_id"}], "optional": False},
    "payload": ROW,
}
DEBEZIUM = {
    "before": None, "after": ROW, "op": "c", "ts_ms": S * 1000 + 5,
    "source": {"connector": "postgresql", "ts_ms": S * 1000, "table": "readings"},
}  # fmt: skip


def fields(**parts: Any) -> FieldsConfig:
    return FieldsConfig.model_validate_json(json.dumps(parts))


def decode(
    document: object,
    *channels: str,
    key: bytes | None = None,
    coerce: bool = False,
    **parts: Any,
) -> Readings:
    decoder = ReadingDecoder(fields(**parts), channels or ("value",), coerce=coerce)
    assert isinstance(decoder.json, MappedJson)
    record = Record(7, key, document if isinstance(document, bytes) else json.dumps(document).encode())
    return decoder.decode(Batch(Partition("readings", 0), [record], 8))


def rows(readings: Readings) -> list[tuple[str, int, tuple[float, ...]]]:
    owners = [
        sensor for sensor, count in zip(readings.ids, readings.counts.tolist(), strict=True) for _ in range(count)
    ]
    return [
        (owner, time, tuple(row))
        for owner, time, row in zip(owners, readings.times.tolist(), readings.values.tolist(), strict=True)
    ]


def why(readings: Readings) -> tuple[str, str]:
    assert not len(readings)
    (reject,) = readings.rejects
    return reject.reason, reject.message


def test_the_plain_form_keeps_its_decoder() -> None:
    assert type(ReadingDecoder(FieldsConfig(), ("value",)).json) is PlainJson
    assert type(ReadingDecoder(fields(sensor_id="id", timestamp="t", value="temp"), ("value",)).json) is PlainJson
    assert ReadingsConfig().fields.is_plain
    assert not ReadingsConfig().coerce


class TestPaths:
    def test_into_the_message(self) -> None:
        found = decode(TELEGRAF, sensor_id="tags.host", value="fields.temperature")
        assert rows(found) == [("edge-1", NS, (71.3,))]

    def test_a_json_pointer_reaches_odd_names(self) -> None:
        document = {"a.b": {"x/y": "pump"}, "": {"~": S}, "value": 1}
        assert rows(decode(document, sensor_id="/a.b/x~1y", timestamp="//~0")) == [("pump", NS, (1.0,))]

    def test_a_key_written_like_the_path_comes_first(self) -> None:
        document = {"sensor_id": "a", "timestamp": S, "temp.C": 5, "temp": {"C": 6}}
        assert rows(decode(document, value="temp.C")) == [("a", NS, (5.0,))]
        del document["temp.C"]
        assert rows(decode(document, value="temp.C")) == [("a", NS, (6.0,))]

    def test_of_candidates_the_first_that_is_there_counts(self) -> None:
        sources: dict[str, Any] = {
            "sensor_id": ["tags.sensor", "tags.machine", "tags.host"],
            "value": ["fields.x", "fields.pressure"],
        }
        assert rows(decode(TELEGRAF, **sources)) == [("pump-7", NS, (2.0,))]
        both = {"sensor_id": "a", "timestamp": S, "x": 1, "y": 2}
        assert rows(decode(both, value=["x", "y"])) == [("a", NS, (1.0,))]
        assert rows(decode({**both, "x": None}, value=["x", "y"])) == [("a", NS, (2.0,))]

    def test_null_is_a_missing_value_where_no_candidate_has_one(self) -> None:
        found = decode({"sensor_id": "a", "timestamp": S, "x": None}, value=["x", "y"])
        assert str(found.values.tolist()) == "[[nan]]"

    def test_a_constant(self) -> None:
        assert decode(TELEGRAF, sensor_id={"constant": "oven"}, value="fields.pressure").ids == ["oven"]
        candidates = ["tags.oven", {"constant": "oven"}]
        assert decode(TELEGRAF, sensor_id=candidates, value="fields.pressure").ids == ["oven"]

    def test_an_id_of_parts(self) -> None:
        document = {"site": "north", "machine": {"no": 7}, "timestamp": S, "value": 1}
        assert decode(document, sensor_id="{site}/{machine.no}").ids == ["north/7"]
        assert decode({**document, "site": None}, key=b"k", sensor_id="{site}/{machine.no}").ids == ["k"]
        reason, message = why(decode({**document, "site": 1.5}, sensor_id="{site}-{machine.no}"))
        assert reason == "bad_sensor_id"
        assert "`site`, a part of the sensor id" in message

    def test_a_path_into_a_list_is_said(self) -> None:
        reason, message = why(decode({"sensor_id": "a", "timestamp": S, "v": [{"x": 1}]}, value="v.x"))
        assert (reason, message) == ("malformed", "`v.x` leads into a list")

    def test_what_is_there_instead_is_said(self) -> None:
        reason, message = why(decode({"sensor_id": "a", "time": S, "value": 1}, timestamp=["at", "header.at"]))
        assert reason == "malformed"
        assert message == "`at` or `header.at` is missing; there is `sensor_id`, `time`, `value`"

    def test_channels(self) -> None:
        for value in (
            "fields.{channel}",
            {"temperature": "fields.temperature", "pressure": ["p", "fields.pressure"]},
            "fields",
        ):
            found = decode(TELEGRAF, "temperature", "pressure", sensor_id="tags.machine", value=value)
            assert rows(found) == [("pump-7", NS, (71.3, 2.0))]
        reason, message = why(decode(TELEGRAF, "temperature", "flow", value="fields.{channel}", sensor_id="tags.host"))
        assert reason == "channel_mismatch"
        assert message.startswith("`fields.flow` is missing")

    def test_lists_under_paths(self) -> None:
        document = {"id": "a", "d": {"t": [S, S + 1, "x"], "v": [1, 2, 3]}}
        found = decode(document, sensor_id="id", timestamp="d.t", value="d.v")
        assert rows(found) == [("a", NS, (1.0,)), ("a", NS + 10**9, (2.0,))]
        assert [(one.reason, one.elements) for one in found.rejects] == [("bad_timestamp", [2])]
        assert rows(decode({"id": "a", "d": {"ts": [S], "vs": [1]}}, sensor_id="id", timestamp="d.t", value="d.v"))


class TestTimes:
    @pytest.mark.parametrize(
        ("time", "written"),
        [
            ({"format": "day-first", "zone": "Europe/Berlin"}, "22.11.2026 11:00:00"),
            ({"format": "month-first"}, "11/22/2026 10:00 AM"),
            ({"format": "iso", "zone": "Asia/Tokyo"}, "2026-11-22T19:00"),
            ({"zone": "Asia/Tokyo"}, "2026-11-22 19:00:00"),
            ({"zone": "Asia/Tokyo"}, S * 1000),
            ({"format": "epoch_ms"}, S * 1000),
            ({"format": "epoch_s"}, f"{S}"),
            ({"format": "%Y%m%d-%H%M"}, "20261122-1000"),
        ],
    )
    def test_formats(self, time: dict[str, str], written: object) -> None:
        found = decode({"sensor_id": "a", "ts": written, "value": 1}, timestamp={"path": "ts", **time})
        assert rows(found) == [("a", NS, (1.0,))]

    def test_another_format_is_rejected(self) -> None:
        time = {"path": "ts", "format": "day-first"}
        reason, message = why(decode({"sensor_id": "a", "ts": "2026-11-22", "value": 1}, timestamp=time))
        assert (reason, message) == ("bad_timestamp", "timestamp `2026-11-22` is not written as day, month, year")
        assert (
            why(decode({"sensor_id": "a", "ts": "1.1.1970", "value": 1}, timestamp=time))[0] == "timestamp_out_of_range"
        )
        # As nanoseconds this would be read as microseconds of today.
        time["format"] = "epoch_us"
        early = {"sensor_id": "a", "ts": 1_795_341_600_000, "value": 1}
        assert why(decode(early, timestamp=time))[0] == "timestamp_out_of_range"

    def test_the_records_own_time(self) -> None:
        assert rows(of_record({"sensor_id": "a", "value": 1, "timestamp": "no matter"})) == [("a", NS, (1.0,))]

    def test_readings_of_one_sensor_in_one_record_would_have_one_time(self) -> None:
        found = of_record(
            [{"sensor_id": "a", "value": 1}, {"sensor_id": "b", "value": 2}, {"sensor_id": "a", "value": 3}]
        )
        assert rows(found) == [("a", NS, (1.0,)), ("b", NS, (2.0,))]
        assert [(one.reason, one.elements) for one in found.rejects] == [("bad_timestamp", [2])]
        assert why(of_record({"sensor_id": "a", "values": [1, 2]}))[0] == "malformed"

    @pytest.mark.parametrize("stamp", [None, -1])
    def test_a_record_without_a_time(self, stamp: int | None) -> None:
        assert why(of_record({"sensor_id": "a", "value": 1}, stamp))[0] == "bad_timestamp"


def of_record(document: object, stamp: int | None = S * 1000) -> Readings:
    decoder = ReadingDecoder(fields(timestamp="record"), ("value",))
    return decoder.decode(Batch(Partition("r", 0), [Record(0, None, json.dumps(document).encode(), stamp)], 1))


class TestPresets:
    def test_telegraf(self) -> None:
        assert rows(decode(TELEGRAF, "temperature", preset="telegraf")) == [("pump-7", NS, (71.3,))]
        assert rows(decode(TELEGRAF_MQTT, preset="telegraf")) == [("plant/pump-7", NS, (71.3,))]
        assert rows(decode(TELEGRAF_OPCUA, preset="telegraf")) == [("ns=3;s=Pump7", NS, (71.3,))]
        assert decode(TELEGRAF_MQTT, preset="telegraf", sensor_id="{name}:{tags.topic}").ids == [
            "mqtt_consumer:plant/pump-7"
        ]

    def test_a_batch_of_telegraf(self) -> None:
        broken = {**TELEGRAF_MQTT, "fields": {"value": "high"}}
        found = decode({"metrics": [TELEGRAF_MQTT, broken, TELEGRAF_OPCUA]}, preset="telegraf")
        assert [row[0] for row in rows(found)] == ["plant/pump-7", "ns=3;s=Pump7"]
        assert [(one.reason, one.elements) for one in found.rejects] == [("bad_value", [1])]

    @pytest.mark.parametrize("document", [CONNECT, DEBEZIUM, {"payload": DEBEZIUM, "schema": {}}, ROW])
    def test_connect(self, document: object) -> None:
        assert rows(decode(document, preset="connect")) == [("pump-7", NS, (71.3,))]

    def test_connect_with_other_columns(self) -> None:
        after = {"machine": 7, "ts": S * 1_000_000, "temp": 71.3}
        parts: dict[str, Any] = {"sensor_id": "pump-{machine}", "timestamp": "ts", "value": "temp"}
        assert rows(decode({**DEBEZIUM, "after": after}, preset="connect", **parts)) == [("pump-7", NS, (71.3,))]
        del after["ts"]
        found = decode({**DEBEZIUM, "after": after}, preset="connect", **parts | {"timestamp": ["ts", "source.ts_ms"]})
        assert rows(found) == [("pump-7", NS, (71.3,))]

    def test_a_row_that_was_deleted_is_no_reading(self) -> None:
        assert (
            why(decode({**DEBEZIUM, "before": ROW, "after": None, "op": "d"}, preset="connect"))[0]
            == "missing_sensor_id"
        )


class TestCoerce:
    def test_numbers_in_strings(self) -> None:
        document = {"sensor_id": 7, "timestamp": f"{S}", "value": " 71.3"}
        assert rows(decode(document, coerce=True)) == [("7", NS, (71.3,))]
        series = {"sensor_id": "a", "timestamps": [S], "values": ["1e1"]}
        assert rows(decode(series, coerce=True)) == [("a", NS, (10.0,))]
        assert rows(decode({"sensor_id": "a", "timestamp": "2026-11-22T10:00:00Z", "value": 1}, coerce=True))

    @pytest.mark.parametrize("value", ["", "NA", "NaN", "1_0", "0x1", "true", "1,5", "\u0661", "inf", "1e999", True])
    def test_what_is_no_number_in_a_string(self, value: object) -> None:
        assert why(decode({"sensor_id": "a", "timestamp": S, "value": value}, coerce=True))[0] == "bad_value"

    def test_without_it_they_are_rejected(self) -> None:
        document = {"id": 7, "timestamp": S, "value": "71.3"}
        assert why(decode(document, sensor_id=["id"]))[0] == "bad_sensor_id"
        assert why(decode({**document, "id": "a"}, sensor_id=["id"]))[0] == "bad_value"

    @given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
    def test_a_number_is_read_back(self, number: float) -> None:
        assert number_in(json.dumps(number)) == number


BAD = [
    *(b"", b"{", b"7", b"[]", b"[7]", b"\xff", b"[" * 10_000),
    *(b'{"metrics": []}', b'{"metrics": 5}', b'{"metrics": [[]]}', b'{"tags": [], "fields": 5}'),
    b'{"tags": {"host": "a"}, "timestamp": 1795341600, "fields": {"value": NaN}}',
]


@pytest.mark.parametrize("value", BAD)
def test_anything_else_is_one_reject(value: bytes) -> None:
    why(decode(value, preset="telegraf"))


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([S, "pump", "1.5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metrics", "tags", "host", "fields", "value", "timestamp"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.lists(documents, max_size=6))
def test_any_message_is_readings_or_a_reject_and_batches_do_not_matter(found: list[object]) -> None:
    decoder = ReadingDecoder(fields(preset="telegraf"), ("value",), coerce=True)
    records = [Record(i, None, json.dumps(one).encode()) for i, one in enumerate(found)]
    together = decoder.decode(Batch(Partition("r", 0), records, len(records)))
    alone = [decoder.decode(Batch(Partition("r", 0), [record], 0)) for record in records]
    assert [row for one in alone for row in rows(one)] == rows(together)
    assert [one.reason for part in alone for one in part.rejects] == [one.reason for one in together.rejects]
    assert {*together.records.tolist(), *(one.record for one in together.rejects)} == set(range(len(found)))


def test_the_recipe_for_telegraf_reads_what_its_page_shows() -> None:
    root = Path(__file__).parents[2]
    readings = load_config(root / "deploy" / "telegraf" / "config.yaml").readings
    page = (root / "docs" / "telegraf.md").read_text(encoding="utf-8")
    (message,) = re.findall(r"^    (\{.*?\}$)", page, re.MULTILINE | re.DOTALL)
    decoder = ReadingDecoder(readings.fields, readings.channels)
    found = decoder.decode(Batch(Partition("r", 0), [Record(0, None, message.encode(), None)], 1))
    assert rows(found) == [("plant/pump-7/temperature", NS + 125_000_000, (71.3,))]


@pytest.mark.parametrize("name", ["mqtt", "opcua"])
def test_the_recipe_keys_records_by_the_tag_that_names_the_sensor(name: str) -> None:
    text = (Path(__file__).parents[2] / "deploy" / "telegraf" / f"{name}.conf").read_text(encoding="utf-8")
    (output,) = tomllib.loads(text)["outputs"]["kafka"]
    assert f"tags.{output['routing_tag']}" in places_of(FieldsConfig(preset="telegraf").sensor_id)
    assert (output["data_format"], output["json_timestamp_units"]) == ("json", "1ms")
