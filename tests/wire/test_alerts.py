from __future__ import annotations

import base64
import json
import math
import uuid
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.cli import schema as command
from detector.cli.main import main
from detector.streams.base import LongLine, Partition, Record
from detector.times import EARLIEST, LATEST, rfc3339
from detector.wire.alerts import (
    Alert,
    AlertModel,
    AlertSource,
    AlertWindow,
    alert_id,
    dead_letter,
    dead_letter_line,
    decode_alert,
    encode_alert,
)
from detector.wire.readings import REASONS, Reject
from detector.wire.schemas import NAMES, schema

PARTITION = Partition("sensor-readings", 3)
REJECT = Reject(0, "bad_value", "reading 1: value `true` is neither a finite number nor null", [0, 2, 3, 4])


def validate(document: bytes, name: str) -> None:
    described = schema(name)
    validator = jsonschema.Draft202012Validator
    validator.check_schema(described)
    validator(described, format_checker=validator.FORMAT_CHECKER).validate(json.loads(document))


def alert(**changes: Any) -> Alert:
    parts: dict[str, Any] = {
        "alert_id": alert_id("readings", "anomaly", "pump-7", EARLIEST),
        "sequence": 0,
        "event": "opened",
        "kind": "readings",
        "reason": "anomaly",
        "sensor_id": "pump-7",
        "severity": "warning",
        "started_at": rfc3339(EARLIEST),
        "detected_at": rfc3339(EARLIEST),
        "score": 4.2,
        "peak_score": 4.2,
        "threshold": 1.0,
        "window": AlertWindow(
            timestamps=[1, 2], values=[1.0, None], expected=[1.0, 2.0], errors=[0.0, 1.0], imputed=[False, True]
        ),
        "channels": {"value": 1.0},
        "model": AlertModel(name="readings", version="1", digest="0" * 64),
        "source": AlertSource(stream="sensor-readings", partition=0, opened_offset=12, last_offset=40),
    }
    return Alert(**(parts | changes))


times = st.integers(EARLIEST, LATEST - 1).map(rfc3339)
finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.none() | st.floats(), max_size=5)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
columns = rows | st.dictionaries(names, rows, max_size=3)
offsets = st.integers(0, 2**63 - 1)
alerts = st.builds(
    Alert,
    alert_id=st.uuids().map(str),
    sequence=offsets,
    event=st.sampled_from(["opened", "updated", "closed"]),
    kind=st.sampled_from(["readings", "frames"]),
    reason=st.sampled_from(["anomaly", "silent"]),
    close_reason=st.sampled_from([None, "recovered", "gap", "evicted", "max_duration"]),
    muted=st.booleans(),
    sensor_id=names,
    severity=st.sampled_from(["warning", "critical"]),
    started_at=times,
    detected_at=times,
    ended_at=st.none() | times,
    score=finite,
    peak_score=finite,
    threshold=finite,
    p_value=st.none() | st.floats(0, 1),
    window=st.none()
    | st.builds(
        AlertWindow,
        timestamps=st.lists(st.integers(-(2**53), 2**53), max_size=5),
        values=columns,
        expected=columns,
        errors=columns,
        imputed=st.lists(st.booleans(), max_size=5),
    ),
    channels=st.dictionaries(names, finite, max_size=3),
    model=st.builds(AlertModel, name=names, version=names, digest=names),
    source=st.builds(AlertSource, stream=names, partition=offsets, opened_offset=offsets, last_offset=offsets),
)


@given(alerts)
def test_every_alert_validates_and_reads_back(written: Alert) -> None:
    encoded = encode_alert(written)
    assert b"\n" not in encoded
    validate(encoded, "alert")
    read = decode_alert(encoded)
    assert encode_alert(read) == encoded
    assert read.alert_id == written.alert_id
    assert math.isclose(read.score, written.score, rel_tol=5e-6)


def test_the_keys_of_an_alert_and_their_order() -> None:
    encoded = json.loads(encode_alert(alert()))
    assert list(encoded) == [
        "schema", "alert_id", "sequence", "event", "kind", "reason", "close_reason", "muted", "sensor_id", "severity",
        "started_at", "detected_at", "ended_at", "score", "peak_score", "threshold", "p_value", "what", "verdict",
        "window", "channels", "model", "source",
    ]  # fmt: skip
    assert list(encoded["window"]) == ["timestamps", "values", "expected", "errors", "imputed"]
    assert list(encoded["source"]) == ["stream", "partition", "opened_offset", "last_offset"]
    assert encoded["schema"] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(1 / 3, "0.333333"), (101_325.123, "101325.0"), (1.23456789e-7, "1.23457e-7"), (2.0, "2.0"), (-0.1 - 0.2, "-0.3")],
)
def test_floats_have_six_significant_digits(value: float, text: str) -> None:
    window = AlertWindow(timestamps=[], values=[value], expected={"a": [value]}, errors=[math.nan], imputed=[])
    encoded = encode_alert(alert(score=value, channels={"a": value}, window=window)).decode()
    for part in (
        f'"score":{text},',
        f'"values":[{text}]',
        f'"expected":{{"a":[{text}]}}',
        f'"channels":{{"a":{text}}}',
    ):
        assert part in encoded
    assert '"errors":[null]' in encoded


@pytest.mark.parametrize(
    "change", [{"score": math.nan}, {"peak_score": math.inf}, {"threshold": -math.inf}, {"channels": {"a": math.nan}}]
)
def test_scores_must_be_numbers(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an alert of pump-7"):
        encode_alert(alert(**change))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"muted":false', '"muted":0'),
        ('"muted":false', '"muted":false,"extra":1'),
        ('"event":"opened"', '"event":"reopened"'),
        ('"schema":1', '"schema":2'),
        ('"sequence":0', '"sequence":-1'),
        ('"source":{', '"source":{"more":1,'),
        ("}", ""),
    ],
)
def test_what_is_no_alert(old: str, new: str) -> None:
    encoded = encode_alert(alert()).decode()
    with pytest.raises(ValueError):  # noqa: PT011  (msgspec's errors are ValueErrors of many words)
        decode_alert(encoded.replace(old, new, 1).encode())


def test_an_episode_has_one_name_for_ever() -> None:
    name = alert_id("readings", "anomaly", "pump-7", 1_795_341_600_000_000_000)
    assert name == "08beab21-2bf8-5c7f-b137-3ad551c2c5f1"
    assert uuid.UUID(name).version == 5
    others = {
        alert_id("readings", "silent", "pump-7", 1_795_341_600_000_000_000),
        alert_id("frames", "anomaly", "pump-7", 1_795_341_600_000_000_000),
        alert_id("readings", "anomaly", "pump-8", 1_795_341_600_000_000_000),
        alert_id("readings", "anomaly", "pump-7", 1_795_341_600_000_000_001),
    }
    assert len(others | {name}) == 5


class TestDeadLetters:
    def test_keep_the_record_and_say_what_was_wrong(self) -> None:
        record = Record(12, b"pump-7", b'{"bad"', 1_795_341_600_000, [("trace", b"1")])
        message = dead_letter("detector-dead-letters", PARTITION, record, REJECT)
        assert (message.stream, message.key, message.value) == ("detector-dead-letters", b"pump-7", b'{"bad"')
        assert list(message.headers) == [
            ("trace", b"1"),
            ("detector.reason", b"bad_value"),
            ("detector.message", REJECT.message.encode()),
            ("detector.topic", b"sensor-readings"),
            ("detector.partition", b"3"),
            ("detector.offset", b"12"),
            ("detector.timestamp", b"1795341600000"),
            ("detector.truncated", b"false"),
            ("detector.elements", b"0,2-4"),
        ]

    def test_as_a_line(self) -> None:
        message = dead_letter("dead", PARTITION, Record(12, b"\xffp", b"\x00\xff"), REJECT)
        line = dead_letter_line(message)
        validate(line, "dead-letter")
        assert json.loads(line) == {
            "reason": "bad_value",
            "message": REJECT.message,
            "elements": "0,2-4",
            "stream": "sensor-readings",
            "partition": 3,
            "offset": 12,
            "timestamp": None,
            "truncated": False,
            "key": "\\xffp",
            "value_base64": "AP8=",
        }

    def test_of_large_records_are_cut(self) -> None:
        kept = dead_letter("dead", PARTITION, Record(0, None, b"x" * 900_000), REJECT)
        cut = dead_letter("dead", PARTITION, Record(0, None, b"x" * 900_001), REJECT)
        assert len(kept.value) == len(cut.value) == 900_000
        assert (dict(kept.headers)["detector.truncated"], dict(cut.headers)["detector.truncated"]) == (
            b"false",
            b"true",
        )
        assert json.loads(dead_letter_line(cut))["truncated"] is True

    def test_always_fit_into_a_record_of_a_topic(self) -> None:
        headers = [("a" * 300, b"x" * 300), *((f"h{i}", b"y" * 50) for i in range(20_000)), ("z", b"1")]
        for key, value in ((None, b"v" * 2_000_000), (b"k" * 900_000, b"v"), (b"k" * 500_000, b"v" * 500_000)):
            letter = dead_letter("dead", PARTITION, Record(0, key, value, None, headers), REJECT)
            size = len(letter.key or b"") + len(letter.value) + sum(len(n) + len(v) + 16 for n, v in letter.headers)
            assert size < 1_000_000
            assert dict(letter.headers)["detector.truncated"] == b"true"
            assert dict(letter.headers)["detector.reason"] == b"bad_value"
            validate(dead_letter_line(letter), "dead-letter")

    def test_a_header_that_alone_is_too_large_is_cut(self) -> None:
        record = Record(0, None, b"v", None, [("small", b"1"), ("large", b"x" * 100_000), ("later", b"2")])
        headers = dict(dead_letter("dead", PARTITION, record, REJECT).headers)
        assert headers["small"] == b"1"
        assert 60_000 < len(headers["large"]) < 65_536
        assert "later" not in headers

    def test_a_header_without_a_value_gets_an_empty_one(self) -> None:
        letter = dead_letter("dead", PARTITION, Record(0, None, b"v", None, [("trace", None)]), REJECT)
        assert letter.headers[0] == ("trace", b"")
        assert dict(letter.headers)["detector.truncated"] == b"false"

    def test_of_a_tombstone_have_no_value(self) -> None:
        letter = dead_letter("dead", PARTITION, Record(0, b"k", None), REJECT)
        assert letter.null
        assert json.loads(dead_letter_line(letter))["value_base64"] is None
        assert not dead_letter("dead", PARTITION, Record(0, b"k", b""), REJECT).null

    def test_of_lines_that_are_too_long_say_that_they_are_cut(self) -> None:
        reject = Reject(0, "line_too_long", "the line has more than 16777216 bytes", None)
        line = dead_letter_line(dead_letter("dead", PARTITION, LongLine(3, None, b"{"), reject))
        validate(line, "dead-letter")
        found = json.loads(line)
        assert (found["reason"], found["offset"], found["truncated"]) == ("line_too_long", 3, True)

    def test_rejected_again_have_the_newest_reason_only(self) -> None:
        first = dead_letter("dead", PARTITION, Record(1, None, b"x", None, [("mine", b"1")]), REJECT)
        again = Record(5, None, first.value, None, first.headers)
        second = dead_letter("dead", Partition("retry", 0), again, Reject(0, "empty", "no value", None))
        headers = dict(second.headers)
        assert len(headers) == len(second.headers)
        assert headers["detector.topic"] == b"retry"
        assert headers["mine"] == b"1"
        assert "detector.elements" not in headers

    def test_with_many_bad_elements_stay_short(self) -> None:
        reject = REJECT._replace(elements=list(range(0, 100_000, 2)))
        text = dict(dead_letter("dead", PARTITION, Record(0, None, b"x"), reject).headers)["detector.elements"].decode()
        assert text.startswith("0,2,4,")
        assert text.endswith(",198,…")

    @given(
        key=st.none() | st.binary(max_size=9),
        value=st.none() | st.binary(max_size=99),
        timestamp=st.none() | st.integers(-1, 2**62),
        reason=st.sampled_from(sorted(REASONS)),
        text=st.text(st.characters(codec="utf-8"), max_size=20),
        elements=st.none() | st.sets(st.integers(0, 30)).map(sorted),
    )
    def test_validate_whatever_was_rejected(
        self, key: Any, value: Any, timestamp: Any, reason: Any, text: str, elements: Any
    ) -> None:
        record = Record(7, key, value, timestamp)
        line = dead_letter_line(dead_letter("dead", PARTITION, record, Reject(0, reason, text, elements)))
        validate(line, "dead-letter")
        read = json.loads(line)
        found = read["value_base64"]
        assert (None if found is None else base64.b64decode(found)) == value
        assert (read["reason"], read["message"], read["timestamp"]) == (reason, text, timestamp)


class TestSchemas:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_printed(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["schema", name]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads(json.dumps(schema(name)))
        jsonschema.Draft202012Validator.check_schema(printed)
        assert printed["description"]
        assert command.NEEDS_CONFIG is False

    def test_of_another_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["schema", "nope"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1

    def test_describe_every_field_of_an_alert(self) -> None:
        described = schema("alert")
        assert set(described["properties"]) == set(Alert.__struct_fields__)
        assert set(described["required"]) == set(Alert.__struct_fields__) - {"window", "heatmap", "frame", "region"}
        for name, field in described["properties"].items():
            assert "description" in field or "$ref" in field, name

    def test_refuse_what_is_no_alert(self) -> None:
        with pytest.raises(jsonschema.ValidationError):
            validate(msgspec.json.encode({"schema": 1}), "alert")
        with pytest.raises(jsonschema.ValidationError):
            validate(encode_alert(alert()).replace(b'"warning"', b'"dire"'), "alert")
