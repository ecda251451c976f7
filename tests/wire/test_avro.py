"""Avro readings through the mapping."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastavro")

from detector.config.load import FieldsConfig
from detector.errors import OperationError
from detector.streams.base import Batch, Partition, Record
from detector.streams.schemas import Schema
from detector.wire.avro import AvroDocuments
from detector.wire.documents import Rejected
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import Readings
from detector.wire.rekeying import Rekeying
from tests.registry import READING, framed

NESTED = {
    "type": "record", "name": "Metric",
    "fields": [
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "fields", "type": {"type": "record", "name": "F", "fields": [
            {"name": "value", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        ]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "raw", "type": "bytes"},
    ],
}  # fmt: skip
SCHEMAS = {
    1: Schema("AVRO", READING),
    2: Schema("AVRO", NESTED),
    3: Schema("PROTOBUF", 'syntax = "proto3";'),
    4: Schema("AVRO", {"type": "nothing"}),
    5: Schema(
        "AVRO", {"type": "record", "name": "Outer", "fields": [{"name": "reading", "type": "Reading"}]}, (READING,)
    ),
    6: Schema("AVRO", "not even JSON"),
}  # fmt: skip
NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
MS = int(NOON.timestamp()) * 1000


def decoded(
    *values: bytes | None, fields: dict[str, Any] | None = None, channels: tuple[str, ...] = ("value",)
) -> Readings:
    decoder = ReadingDecoder(FieldsConfig.model_validate(fields or {}), channels, documents=AvroDocuments(SCHEMAS.get))
    records = [Record(offset, None, value) for offset, value in enumerate(values)]
    return decoder.decode(Batch(Partition("in", 0), records, len(records)))


def reading(value: float | None = 1.5) -> bytes:
    return framed(1, READING, {"sensor_id": "pump", "timestamp": NOON, "value": value})


def test_readings_json_and_verdicts_may_be_mixed() -> None:
    found = decoded(reading(), b'{"sensor_id": "pump", "timestamp": 1795341600125, "value": 2}', reading(None))
    assert found.ids == ["pump", "pump", "pump"]
    assert found.times[0] == MS * 10**6
    assert found.values[:2, 0].tolist() == [1.5, 2.0]
    assert found.values[2, 0] != found.values[2, 0]


def test_a_mapping_looks_into_avro_as_into_json() -> None:
    metric = {"tags": {"host": "edge-1"}, "fields": {"value": Decimal("71.25")}, "at": NOON, "raw": b"\xff"}
    value = framed(2, NESTED, metric)
    found = decoded(value, fields={"sensor_id": "{tags.host}", "timestamp": "at", "value": "fields.value"})
    assert (found.ids, found.values.tolist(), found.times.tolist()) == (["edge-1"], [[71.25]], [MS * 10**6])
    (reject,) = decoded(value, fields={"sensor_id": "tags.host", "timestamp": "at", "value": "raw"}).rejects
    assert reject.reason == "bad_value"


def test_schemas_may_refer_to_others() -> None:
    schema = {"type": "record", "name": "Outer", "fields": [{"name": "reading", "type": READING}]}
    document = {"reading": {"sensor_id": "pump", "timestamp": NOON, "value": 3.0}}
    found = decoded(framed(5, schema, document), fields={"reading": "reading"})
    assert (found.ids, found.values.tolist()) == (["pump"], [[3.0]])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"\0\0\0\0\x2a\0", "the registry does not know the schema 42"),
        (b"\0\0\0", "the number of a schema is cut off"),
        (b"\0\0\0\0\3abc", "the schema 3 is PROTOBUF, not Avro"),
        (b"\0\0\0\0\4abc", "the schema 4 cannot be used"),
        (b"\0\0\0\0\6abc", "the schema 6 cannot be used"),
        (reading()[:-3], "not Avro of schema 1"),
        (reading() + b"x", "something follows the record"),
        (b"\0\0\0\0\1" + b"\xff" * 12, "not Avro of schema 1"),
        (framed(1, READING, {"sensor_id": "a", "timestamp": NOON, "value": float("nan")}), "neither a finite number"),
        (b"?", "not JSON"),
    ],
)
def test_what_is_no_reading_is_rejected_with_its_schema(value: bytes, told: str) -> None:
    found = decoded(value, reading())
    assert [one.record for one in found.rejects] == [0]
    assert told in found.rejects[0].message
    assert found.rejects[0].reason in ("malformed", "bad_value")
    assert found.ids == ["pump"]


@given(st.binary(max_size=40), st.sampled_from([1, 2, 5]))
def test_no_bytes_are_more_than_a_reject(data: bytes, number: int) -> None:
    found = decoded(b"\0" + number.to_bytes(4, "big") + data)
    assert len(found) + len(found.rejects) == 1


def test_each_schema_is_asked_for_once_and_a_registry_that_is_away_is_no_reject() -> None:
    asked: list[int] = []

    def schema(number: int) -> Schema | None:
        asked.append(number)
        if number == 9:
            raise OperationError("it is down")
        return SCHEMAS.get(number)

    documents = AvroDocuments(schema)
    for _ in range(3):
        documents(reading())
        with pytest.raises(Rejected):
            documents(b"\0\0\0\0\x2a\0")
        with pytest.raises(OperationError):
            documents(b"\0\0\0\0\x09\0")
    assert asked == [1, 42, 9, 9, 9]


def test_a_key_may_be_built_of_avro() -> None:
    documents = AvroDocuments(SCHEMAS.get)
    assert Rekeying(FieldsConfig(), "{sensor_id}", documents=documents).key(Record(0, None, reading())) == b"pump"


def node(name: str, *types: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{i}", "type": one} for i, one in enumerate(types)]}


DEEP: Any = "long"
for _level in range(100):
    DEEP = {"type": "array", "items": DEEP}
MANY: Any = node("M0")
for _level in range(1, 40):
    MANY = node(f"M{_level}", MANY, f"M{_level - 1}")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (node("N", "long", ["null", "N"]), "N contains itself"),
        (node("A", {"type": "array", "items": node("B", {"type": "map", "values": "A"})}), "A contains itself"),
        (node("N", {"type": "array", "items": "null"}), "takes no bytes"),
        (node("N", {"type": "array", "items": node("Empty", "null", "null")}), "takes no bytes"),
        (node("N", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "takes no bytes"),
        (node("N", DEEP), "more than 64 levels"),
        (MANY, "more than 10000 values"),
        (node("N", *[node(f"W{i}", *["null"] * 200) for i in range(60)]), "more than 10000 values"),
    ],
)
def test_a_schema_that_sets_no_bounds_is_not_used(schema: Any, why: str) -> None:
    """A message of twelve bytes may ask for two thousand million values, or for more levels than there is stack."""
    documents = AvroDocuments({1: Schema("AVRO", schema)}.get)
    for value in (b"\0\0\0\0\1\x80\xd0\xac\xf3\x0e\0", b"\0\0\0\0\1" + b"\2\2" * 200_000 + b"\0\0"):
        with pytest.raises(Rejected, match=why):
            documents(value)


def test_what_is_wrong_is_said_in_the_same_words_each_time() -> None:
    """A record that is run again leads to the same dead letter."""
    documents = AvroDocuments({1: Schema("AVRO", node("N", "double"))}.get)
    with pytest.raises(Rejected, match="cannot read double") as one:
        documents(b"\0\0\0\0\1\1")
    assert "0x" not in one.value.message
