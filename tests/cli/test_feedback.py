"""`detector feedback`: a verdict goes to where the alert came from; what was real makes labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from detector.reports.scoreboard import read_labels
from detector.streams import appending
from detector.streams.base import Message, Partition
from detector.wire.readings import Verdict, Word
from detector.wire.verdicts import acknowledgement
from tests.cli.test_alerts import message

READING = '{"sensor_id": "pump-1", "timestamp": "2026-03-01T10:00:00Z", "value": 1.5}\n'


def alert(number: int, sequence: int = 0, event: str = "opened", **changes: Any) -> dict[str, Any]:
    source = {"stream": "sensor-readings", "partition": 0, "opened_offset": 12, "last_offset": 40}
    return message(number, sequence, event, **{"source": source, **changes})


def said(number: int, word: Word) -> Message:
    one = alert(number)
    verdict = Verdict(one["sensor_id"], one["alert_id"], word)
    return acknowledgement("anomaly-verdicts", verdict, Partition("sensor-readings", 0), 99)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of streams with alerts, which is the configured one."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "var" / "data"
    data.mkdir(parents=True)
    what = {"kind": "stuck", "text": "stuck at 73.2"}
    messages = [
        alert(1),
        alert(1, 1, "closed", ended_at="2026-03-01T10:14:00Z", what=what),
        alert(2),
        alert(3, kind="frames", sensor_id="door", source={"stream": "image-frames", "partition": 0}),
    ]
    (data / "anomaly-alerts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in messages), encoding="utf-8")
    (data / "sensor-readings.jsonl").write_text(READING, encoding="utf-8")
    (data / "image-frames.jsonl").touch()
    return data


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refused(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    assert main(["feedback", *words]) == status
    error = capsys.readouterr().err
    assert error.startswith("detector: error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("wrong", ["{}", '{"x": ' + "[" * 50_000, json.dumps({**alert(9), "source": {"partition": 1}})])
def test_what_is_no_alert_or_no_verdict_among_others_is_passed_over(
    place: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    for stream, more in (("anomaly-alerts", ""), ("anomaly-verdicts", said(2, "real").value.decode() + "\n")):
        path = place / f"{stream}.jsonl"
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{wrong}\n{known}{more}", encoding="utf-8")
    assert main(["feedback", "00000001", "real"]) == 0
    assert "1 of 5 records are passed over, the first: " in capsys.readouterr().err
    assert main(["feedback", "export", "-o", str(place / "labels.json")]) == 0
    assert "1 of 2 records are passed over, the first: " in capsys.readouterr().err
    assert [label.sensor_id for label in read_labels(place / "labels.json")] == ["pump-2"]


def test_a_verdict_is_a_line_of_the_stream_the_alert_came_from(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["feedback", "00000001", "real", "--note", "bearing", "--by", "Ann"]) == 0
    reading, verdict = lines(place / "sensor-readings.jsonl")
    assert reading == json.loads(READING)
    body = {"alert_id": alert(1)["alert_id"], "is": "real", "by": "Ann", "note": "bearing"}
    assert verdict == {"sensor_id": "pump-1", "verdict": body}
    assert f"pump-1, alert {alert(1)['alert_id']}: real" in capsys.readouterr().out


def test_of_a_camera_it_goes_to_the_frames(place: Path) -> None:
    assert main(["feedback", alert(3)["alert_id"], "expected", "--by", "Ann"]) == 0
    (verdict,) = lines(place / "image-frames.jsonl")
    assert verdict["camera_id"] == "door"
    assert lines(place / "sensor-readings.jsonl") == [json.loads(READING)]


def test_alerts_in_a_file_and_their_input_elsewhere(place: Path) -> None:
    elsewhere = place.parent / "out" / "alerts.jsonl"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((place / "anomaly-alerts.jsonl").read_bytes())
    source = place / "sensor-readings.jsonl"
    for given in (source, place):
        words = ["feedback", "00000001", "false", "--data", str(elsewhere), "--input", str(given)]
        assert main(words) == 0
    assert [one["verdict"]["is"] for one in lines(source)[1:]] == ["false", "false"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0000", "real"], "may be any of"),
        (["ffff", "real"], "there is no alert `ffff`"),
        (["00000001"], "nothing is said of the alert"),
        (["00000001", "true"], "invalid choice"),
        (["00000001", "real", "--note", "x" * 2001], "give 1 to 2000"),
        (["export", "real"], "takes no verdict"),
        (["00000001", "real", "--input", "nowhere"], "is not here"),
        (["00000001", "real", "--data", "nowhere"], "cannot read the alerts"),
    ],
)
def test_what_cannot_be_said_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says in refused(capsys, 2, *words)
    assert lines(place / "sensor-readings.jsonl") == [json.loads(READING)]


def test_a_csv_file_cannot_carry_a_verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "sensor-readings.jsonl").rename(place / "sensor-readings.csv")
    (place / "sensor-readings.csv").write_text("timestamp,value\n", encoding="utf-8")
    assert "a CSV file cannot carry a verdict" in refused(capsys, 2, "00000001", "real")


def test_a_line_without_its_end_is_left_alone(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "PATIENCE", 0.0)
    (place / "sensor-readings.jsonl").write_text(READING + '{"sensor', encoding="utf-8")
    assert "its last line has no end" in refused(capsys, 1, "00000001", "real")
    assert (place / "sensor-readings.jsonl").read_text(encoding="utf-8") == READING + '{"sensor'


def test_what_was_real_makes_labels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [said(1, "false"), said(2, "real"), said(3, "expected"), said(1, "real")]
    (place / "anomaly-verdicts.jsonl").write_bytes(b"".join(one.value + b"\n" for one in given) + b'{"schema": 1,')
    assert main(["feedback", "export"]) == 0
    assert capsys.readouterr().out == "labels.json: 2 labels\n"
    one, two = read_labels(Path("labels.json"))
    assert (one.sensor_id, one.start, one.end) == ("pump-1", "2026-03-01T10:00:00Z", "2026-03-01T10:14:00Z")
    assert (one.kind, one.word) == ("stuck", "real")
    assert (two.sensor_id, two.end, two.kind) == ("pump-2", "2026-03-02T10:01:00Z", "fault")


def test_the_list_of_alerts_shows_the_last_verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [said(1, "false"), said(2, "expected"), said(1, "real")]
    (place / "anomaly-verdicts.jsonl").write_bytes(b"".join(one.value + b"\n" for one in given))
    for where in (place, place / "anomaly-alerts.jsonl"):
        assert main(["alerts", str(where), "--json"]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["verdict"] for one in found] == ["real", "expected", None]
