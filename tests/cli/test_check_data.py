"""`detector check --data`: what is understood of some records, and the lines that would mend the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.cli.main import main
from detector.config.load import load_config
from detector.reports.understood import look_at, mending
from detector.streams.base import Batch, Partition, Record
from detector.wire.json_readings import ReadingDecoder

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
    seen = look_at([Batch(Partition("r", 0), records, 1)], ReadingDecoder(readings.fields, readings.channels), 1)
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
