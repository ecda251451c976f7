"""`detector check --data`: what is understood of some records, and the lines that would mend the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.cli.main import main
from detector.config import yamltext
from detector.config.load import ReadingsConfig, load_config
from detector.reports.understood import look_at, mending
from detector.streams.base import Batch, Partition, Record
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import Readings

S = 1_795_341_600


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def check(*arguments: str, data: str = "in.jsonl") -> int:
    return main(["check", "--data", data, *arguments])


def write(*documents: object) -> None:
    Path("in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))


def test_what_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    good = [{"sensor_id": f"pump-{i % 2}", "timestamp": S + i, "value": None if i == 4 else i} for i in range(20)]
    write(*good, {"sensor_id": "pump-1", "timestamp": S, "value": "high"}, {"sensor_id": "pump-1"})
    assert check() == 0  # without a model or a configuration
    table = [line.split("│") for line in capsys.readouterr().out.splitlines()]
    (pump,) = (row for row in table if len(row) > 1 and row[1].strip() == "pump-0")
    assert [cell.strip() for cell in pump[1:-1]] == [
        "pump-0", "10", "1", "2026-11-22T10:00:00Z", "2 s", "0 .. 18",
    ]  # fmt: skip
    assert any(len(row) > 1 and row[4].strip() == "2026-11-22T10:00:18Z" for row in table)
    lines = [row[0] for row in table if len(row) == 1]
    assert not any("the time of another" in line for line in lines)
    assert "22 records: 20 readings of 2 sensors, 2 records rejected" in lines
    assert "times that name no zone are UTC" in lines
    assert any(line.split() == ["rejected", "malformed", "1", "`timestamp`", "is", "missing"] for line in lines)
    assert any(line.startswith("rejected  bad_value") for line in lines)


def test_times_that_repeat_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    write(*({"sensor_id": "a", "timestamp": S + 60 * (i // 6), "value": i} for i in range(600)))
    assert check() == 0
    out = capsys.readouterr().out
    assert "500 readings with the time of another of that sensor: the first of each time counts" in out
    assert " 1 min " in out  # the interval is that of the readings that count


def test_a_comment_above_the_header_is_told_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.csv").write_text("# exported by a historian\ntime,value\n2026-11-22 10:00:00,1\n")
    assert check(data="in.csv") == 2
    assert "the first line is a comment: # exported by a historian (in.csv:1). Remove" in capsys.readouterr().err


def test_a_thousand_records_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    write(*({"sensor_id": "a", "timestamp": S + i, "value": i} for i in range(1500)))
    assert check() == 0
    assert "1,000 records: 1,000 readings of 1 sensor, 0 records rejected" in capsys.readouterr().out


@pytest.mark.parametrize(
    "document",
    [
        {"fields": {"temperature": 71.3}, "name": "modbus", "tags": {"host": "edge", "machine": "m"}, "timestamp": S},
        {"metrics": [{"fields": {"value": 1}, "name": "mqtt", "tags": {"topic": "t"}, "timestamp": S}]},
        {"schema": {}, "payload": {"sensor_id": "a", "timestamp": S, "value": 1}},
        {"before": None, "after": {"machine": "a", "ts": S * 1000, "temp": 1.5}, "op": "c", "ts_ms": S * 1000},
        {"sensor_id": "a", "timestamp": f"{S}", "value": "71.3"},
        {"device": {"id": 7}, "time": "22.11.2026 10:00:00", "reading": "71.3"},
        {"d.e": {"sensor": "a"}, "datetime": "2026-11-22T10:00", "v": 1},
    ],
)
def test_the_lines_it_prints_mend_what_was_rejected(document: object, capsys: pytest.CaptureFixture[str]) -> None:
    write(document, document)
    assert check() == 2
    out = capsys.readouterr().out
    assert "would mend 2 of 2 of these:\n" in out
    mended = "".join(line.removeprefix("    ") + "\n" for line in out.splitlines() if line.startswith("    "))
    Path("config.yaml").write_text(mended)
    assert check() == 0
    assert "0 records rejected" in capsys.readouterr().out


def test_a_message_without_a_time_has_that_of_its_record_on_kafka() -> None:
    readings = load_config(None).readings
    records = [Record(0, b"pump", b'{"value": 1}', S * 1000)]
    seen = look_at([Batch(Partition("r", 0), records, 1)], ReadingDecoder(readings.fields, readings.channels), readings)
    found = mending(seen, readings, has_times=True)
    assert found is not None
    assert list(found.lines()) == ["readings:", "  fields: {timestamp: record}"]
    assert mending(seen, readings, has_times=False) is None


def test_of_csv_it_says_what_was_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pump.csv").write_text("Zeit;Wert\n22.11.2026 10:00;1,5\n23.11.2026 10:00;NA\n")
    assert check("--zone", "Europe/Berlin", data="pump.csv") == 0
    out = capsys.readouterr().out
    assert (
        "CSV: semicolons between columns; a comma in numbers; time in `Zeit` (day, month, year, Europe/Berlin)" in out
    )
    assert "times that name no zone are Europe/Berlin" in out
    assert "2026-11-22T09:00:00Z" in out
    Path("pump.csv").write_text("Zeit;Wert\n02.11.2026 10:00;1,5\n")
    assert check(data="pump.csv") == 2
    assert "may be 2026-11-02 (day first) or 2026-02-11 (month first)" in capsys.readouterr().err


def test_nothing_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    write()
    assert check() == 2
    assert "there are no records here (in.jsonl)" in capsys.readouterr().err
    write("words", 7, [])
    assert check() == 2
    assert "no settings were found that would mend these" in capsys.readouterr().out


def mended(*documents: object, key: bytes | None = None, settings: tuple[str, ...] = ()) -> list[str] | None:
    """The lines that would mend records of the topic; None: there are none."""
    readings = load_config(None, settings).readings
    records = [Record(i, key, json.dumps(one).encode(), S * 1000) for i, one in enumerate(documents)]
    decoder = ReadingDecoder(readings.fields, readings.channels, coerce=readings.coerce)
    seen = look_at([Batch(Partition("r", 0), records, len(records))], decoder, readings)
    found = mending(seen, readings, has_times=True)
    return None if found is None else list(found.lines())


@pytest.mark.parametrize("key", [None, b"pump"])
def test_the_number_of_a_sensor_is_never_the_value(key: bytes | None) -> None:
    comma = {"sensor_id": 1, "timestamp": S, "value": "71,3"}
    assert mended(comma, comma, key=key) is None
    named = {"id": 1, "ts": S, "v": "71,3"}
    assert mended(named, key=key, settings=("readings.fields={sensor_id: id, timestamp: ts, value: v}",)) is None
    lines = mended({"device": 7, "timestamp": S, "flag": True}, key=key)
    assert lines is None
    lines = mended({"device": "a", "id": 7, "timestamp": S, "created_at": S, "temperature": 71.3}, key=key)
    assert lines is not None
    assert "value: temperature}" in lines[-1]
    assert mended({"sensor_id": "a", "timestamp": S, "seq": 5, "temp": "71,3"}) is None  # nor is what counts
    assert mended({"unit": 7, "timestamp": S, "x": None}, settings=("readings.fields.sensor_id=unit",)) is None


def test_what_was_configured_and_stands_there_is_kept() -> None:
    """So the zone of a time is not lost, and no id built of parts becomes one of the parts."""
    fields = 'readings.fields={sensor_id: "{site}/{machine}", timestamp: {path: t, format: day-first, zone: UTC}}'
    lines = mended({"site": "a", "machine": "b", "t": "22.11.2026 10:00", "v": 1}, settings=(fields,))
    assert lines == [
        "readings:",
        '  fields: {sensor_id: "{site}/{machine}", timestamp: {path: t, format: day-first, zone: UTC}, value: v}',
    ]


ODD = st.sampled_from(
    ["", " ", ".", "..", "a.b", "/", "~", "~1", "{", "}", "{}", "{channel}", "[0]", "\"", "'", "\\", "\0", "\n", "7",
     "-", "null", "true", "k" * 300, "Sensor_ID", "sensor_id", "timestamp", "value", "values", "record", "v", "id",
     "ts", "payload", "after", "metrics", "fields", "tags", "\ud800", "\U0001f600"]
)  # fmt: skip
KEY = ODD | st.text(max_size=5)
LEAF: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 7, -1.5, 10**30, S, S * 1000, 1e300, "", "71,3", "71.3", "1", "x", "22.11.2026 10:00", []]
)
DOCUMENT = st.dictionaries(
    KEY, st.recursive(LEAF, lambda inner: st.dictionaries(KEY, inner, max_size=3), max_leaves=5), max_size=5
)


@given(st.lists(DOCUMENT, min_size=1, max_size=3), st.sampled_from([None, b"pump", b"\xff"]))
@example([{"sensor_id": 1, "timestamp": S, "value": "71,3"}], None)
@example([{"payload": None, "after": None}], None)
@example([{"": {"": 1}, "ts": S, "k" * 300: 3}], None)
@example([{"id": 10**400, "ts": 10**400, "v": 10**400}], None)
def test_whatever_the_keys_of_a_message_the_lines_mend_it_or_there_are_none(
    documents: list[dict[str, object]], key: bytes | None
) -> None:
    lines = mended(*documents, key=key)
    if lines is not None:
        readings = yamltext.parse("\n".join(lines)).value["readings"]
        mapped = ReadingsConfig.model_validate_json(json.dumps(readings))
        records = [Record(i, key, json.dumps(one).encode(), S * 1000) for i, one in enumerate(documents)]
        decoder = ReadingDecoder(mapped.fields, mapped.channels, coerce=mapped.coerce)
        assert len(decoder.decode(Batch(Partition("r", 0), records, len(records))))


class Fragile:
    """A decoder that fails at some records, as one of nested documents may."""

    def __init__(self) -> None:
        readings = load_config(None).readings
        self._decoder = ReadingDecoder(readings.fields, readings.channels)

    def decode(self, batch: Batch) -> Readings:
        if any(record.value == b"deep" for record in batch.records):
            raise RecursionError("maximum recursion depth exceeded")
        return self._decoder.decode(batch)


def test_a_record_at_which_the_decoder_fails_is_rejected_and_the_others_are_read() -> None:
    good = json.dumps({"sensor_id": "a", "timestamp": S, "value": 1}).encode()
    records = [Record(i, None, b"deep" if i in (3, 7) else good) for i in range(9)]
    seen = look_at([Batch(Partition("r", 0), records, 9)], Fragile(), load_config(None).readings)
    assert (seen.records, seen.readings, dict(seen.rejects)) == (9, 7, {"internal": 2})
    assert "RecursionError: maximum recursion depth exceeded" in seen.examples["internal"]
    assert seen.rejected == [records[3], records[7]]


MACHINES = (
    "readings.channels=[t, p]",
    "readings.machines=[{id: press-1, channels: {t: l1/t, p: l1/p}}, {id: press-2, channels: {t: l2/t, p: l2/p}}]",
)


def with_machines() -> list[str]:
    return [part for setting in MACHINES for part in ("--set", setting)]


def test_tags_are_read_as_rows_of_their_machines(capsys: pytest.CaptureFixture[str]) -> None:
    tags = [
        {"sensor_id": f"l{m}/{tag}", "timestamp": S + 10 * i + late, "value": base + i}
        for i in range(20)
        for m in (1, 2)
        for tag, base, late in (("t", 60, 0), ("p", 5, 0.4))
        if not (m == 2 and tag == "p" and 5 <= i < 18)  # longer than `max_age` of its last value
    ]
    again = {"sensor_id": "l1/p", "timestamp": S + 190.4, "value": 24}
    others = [{"sensor_id": "other/z", "timestamp": S + i, "value": 1} for i in range(3)]
    write(*tags, again, *others, {"sensor_id": "l1/t", "timestamp": S + 200, "value": 80})
    assert check(*with_machines()) == 0
    out = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["press-1", "20", "0", "2026-11-22T10:00:00Z", "10 s", "60 .. 79", "5 .. 24"] in table
    assert ["press-2", "20", "7", "2026-11-22T10:00:00Z", "10 s", "60 .. 79", "5 .. 24"] in table
    assert len([row for row in table if row[0]]) == 2
    assert "72 records: 69 readings of 2 machines, 0 records rejected" in out
    assert "1 row at the end without some of the tags" in out
    assert "3 readings of tags of no machine, which are left out: other/z\n" in out
    assert "1 reading with the time of another of that tag" in out


def test_where_every_tag_is_in_no_machine_nothing_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    write(*({"sensor_id": f"x{i}", "timestamp": S + i, "value": 1} for i in range(7)))
    assert check(*with_machines()) == 2
    assert "7 readings of tags of no machine, which are left out: x0, x1, x2, x3, x4, 2 more" in capsys.readouterr().out


def test_times_that_go_backwards_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [0, 1, 2, 5, 3, 4, 6]
    write(*({"sensor_id": sensor, "timestamp": S + i, "value": i} for i in steps for sensor in ("a", "b")))
    assert check() == 0
    assert "4 readings of 2 sensors, such as a, after later ones: they are dropped as late" in capsys.readouterr().out
    assert check("--set", "readings.window.allowed_lateness=2s") == 0
    assert "after later ones" not in capsys.readouterr().out


def test_where_no_date_tells_which_order_it_has_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    both = [{"id": "a", "t": f"03/{day:02d}/2026 10:00", "v": 1} for day in (4, 5)]
    write(*both)
    assert check() == 2
    out = capsys.readouterr().out
    assert "format: day-first}" in out
    assert "none of their dates tells whether the day or the month comes first" in out
    for proof, form in (("03/25/2026 10:00", "month-first"), ("25/03/2026 10:00", "day-first")):
        write(*both, {"id": "a", "t": proof, "v": 1})
        assert check() == 2
        out = capsys.readouterr().out
        assert f"format: {form}}}" in out
        assert "3 of 3" in out
        assert "none of their dates" not in out


def test_the_settings_of_a_sensor_are_said_beside_its_readings(capsys: pytest.CaptureFixture[str]) -> None:
    write({"sensor_id": "a", "timestamp": S, "value": 1})
    assert check("--sensor", "a") == 0
    out = capsys.readouterr().out
    assert "a: watched\n" in out
    assert "no reading of" not in out
    assert check("--sensor", "nope", "--set", "readings.sensors.exclude=[nope]") == 0
    out = capsys.readouterr().out
    assert "no reading of nope is among them\nnope: not watched, readings.sensors leaves it out" in out
