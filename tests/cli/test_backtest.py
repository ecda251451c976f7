"""`detector backtest`: the alerts of `run`, summed up."""

from __future__ import annotations

import errno
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from detector.cli.replaying import replay_progress
from detector.streams.base import Batch, Partition, Record
from detector.times import rfc3339
from tests.tiny import FAULT, ROWS, SECOND, START, csv_lines, json_lines, tiny_bundle

OPTIONS = ("--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())
    Path("pump-0.csv").write_bytes(csv_lines())


def backtest(*arguments: str, data: str = "in.jsonl") -> int:
    return main(["backtest", "--data", data, *OPTIONS, *arguments])


def told(capsys: pytest.CaptureFixture[str], *arguments: str, data: str = "in.jsonl") -> dict[str, Any]:
    """What it says with `--json`."""
    assert backtest("--json", *arguments, data=data) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, data: str = "in.jsonl") -> str:
    assert backtest(*arguments, data=data) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("detector: error: ")
    return captured.err.removeprefix("detector: error: ").strip()


def time(row: float) -> str:
    return rfc3339(int((START + row) * SECOND))


def write_labels() -> None:
    labels = [
        {"sensor_id": "pump-0", "start": time(FAULT[0]), "end": time(FAULT[1]), "kind": "level-shift"},
        {"sensor_id": "pump-1", "start": time(10), "end": time(20), "kind": "spike"},
    ]
    Path("labels.json").write_text(json.dumps(labels))


@pytest.mark.parametrize("data", ["in.jsonl", "pump-0.csv", "plant"])
def test_its_alerts_are_those_of_run(data: str) -> None:
    if data == "plant":
        Path("plant").mkdir()
        Path("in.jsonl").rename("plant/sensor-readings.jsonl")
    assert backtest("--out", "report", data=data) == 0
    assert main(["run", "--input", data, "--output", "out.jsonl", "--until-end", *OPTIONS]) == 0
    published = Path("out.jsonl").read_bytes()
    assert published
    assert Path("report/alerts.jsonl").read_bytes() == published
    assert sorted(path.name for path in Path("report").iterdir()) == ["alerts.jsonl", "report.html"]


@pytest.mark.parametrize(
    "left_out", [(200, 400), (350, 370), (0, 700)], ids=["over its begin", "within it", "all but the ends"]
)
def test_a_recording_with_a_gap_in_the_middle(left_out: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = csv_lines().splitlines()
    kept = [row for number, row in enumerate(rows) if number < 40 or not left_out[0] <= number < left_out[1]]
    Path("pump-0.csv").write_bytes(b"\n".join([header, *kept]) + b"\n")
    result = told(capsys, "--out", "report", data="pump-0.csv")
    assert (result["readings"]["accepted"], result["from"], result["to"]) == (len(kept), time(0), time(ROWS - 1))
    assert main(["run", "--input", "pump-0.csv", "--output", "out.jsonl", "--until-end", *OPTIONS]) == 0
    published = Path("out.jsonl").read_bytes()
    assert Path("report/alerts.jsonl").read_bytes() == published
    closed = [alert["close_reason"] for alert in map(json.loads, published.splitlines()) if alert["event"] == "closed"]
    assert ("gap" in closed) == (left_out == (350, 370))
    assert Path("report/report.html").read_text().count("<svg") == 1
    assert main(["tune", "--data", "pump-0.csv", *OPTIONS]) == 0


def test_it_says_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    write_labels()
    assert backtest("--labels", "labels.json", "--out", "report") == 0
    captured = capsys.readouterr()
    lines = [line.replace("│", " ").split() for line in captured.out.splitlines()]
    assert ["level-shift", "1", "1"] in [line[:3] for line in lines]
    assert ["spike", "0", "1", "-"] in lines
    assert f"  missed       pump-1  spike  {time(10)} .. {time(20)[11:]}" in captured.out.splitlines()
    assert f"2 sensors (0 still warming up), readings: {2 * ROWS} accepted; 1 episode," in captured.out
    assert captured.out.endswith("Alerts: report/alerts.jsonl   report: report/report.html\n")
    assert f"{time(0)} .. {time(ROWS - 1)} (13 min)" in captured.out.splitlines()
    assert captured.err == ""


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    write_labels()
    result = told(capsys, "--labels", "labels.json")
    labels = result.pop("labels")
    assert 0 < labels.pop("median_delay_seconds") < 60
    assert labels == {"found": 1, "missed": 1, "false_alarms": 0, "outside": 0}
    assert (result["from"], result["to"]) == (time(0), time(ROWS - 1))
    assert result["readings"]["accepted"] == result["records"] == 2 * ROWS
    assert (result["sensors"], result["sensors_warming"], result["episodes"]) == (2, 0, 1)
    assert result["windows_scored"] == 2 * (ROWS - 99)


def test_what_is_muted_or_about_silence_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("in.jsonl").read_bytes().splitlines(keepends=True)
    # From the 400th second on the second sensor is not heard.
    Path("in.jsonl").write_bytes(b"".join(line for i, line in enumerate(lines) if i < 800 or i % 2 == 0))
    window = f'maintenance=[{{match: "pump-0", from: "{time(FAULT[0])}", to: "{time(ROWS)}"}}]'
    options = ("--set", window, "--set", "readings.silence_after=1m")
    result = told(capsys, *options)
    assert (result["episodes"], result["muted"], result["silent"]) == (2, 1, 1)
    assert backtest(*options) == 0
    assert "2 episodes (1 muted, 1 about silence), the budget" in capsys.readouterr().out
    write_labels()
    labels = told(capsys, *options, "--labels", "labels.json")["labels"]
    assert (labels["found"], labels["false_alarms"]) == (1, 0)


def test_only_a_part_of_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "--until", time(200))["readings"]["accepted"] == 2 * 200
    assert told(capsys, "--since", "99s")["readings"]["accepted"] == 2 * 100
    assert told(capsys, "--since", "99s", "--until", time(200))["readings"]["accepted"] == 2 * 100
    assert told(capsys, "--until", time(FAULT[0]))["episodes"] == 0


def test_whose_readings_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, data="pump-0.csv")["sensors_warming"] == 0
    assert told(capsys, "--sensor", "unknown", data="pump-0.csv")["sensors_warming"] == 1


def test_nothing_is_known_of_a_clock(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.partition(b",")[2] for line in csv_lines().splitlines()]
    Path("pump-0.csv").write_bytes(b"\n".join(rows))
    assert refused(capsys, data="pump-0.csv").startswith("no column `timestamp`; the columns are value (")
    assert told(capsys, "--interval", "1s", data="pump-0.csv")["episodes"] == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--labels", "nowhere.json"), "cannot read the labels: No such file or directory (nowhere.json)."),
        (("--labels", "pump-0.csv"), "these are no labels: JSON is malformed"),
        (("--since", "5x"), "argument --since: `5x` is not a duration such as 250ms, 10s, 5m, 12h or 7d."),
        (("--since", "0s"), "argument --since: `0s` is no time"),
        (("--until", "yesterday"), "argument --until: `yesterday`: expected RFC 3339"),
        (("--until", "2000-01-02T00:00:00Z"), "no reading lies in the time asked for (in.jsonl)."),
        (("--sensor", ""), "argument --sensor: this is no sensor id"),
        (("--interval", "1"), "argument --interval: `1` is not a duration"),
        (("--data", ""), "argument --data: this is empty"),
        (("--data", "nowhere.csv"), "the input does not exist (nowhere.csv)."),
        (("--out", "pump-0.csv"), "cannot write alerts.jsonl: File exists (pump-0.csv)."),
        (("--set", "readings.model=none"), "there is no trained model (none)."),
        (
            ("--set", "readings.enabled=false", "--set", "frames.enabled=true"),
            "`backtest` replays readings, and they are switched off (readings.enabled). Set it to true; frames",
        ),
        (("--set", "readings.channels=[a, b]"), "the model takes windows of shape (100, 1), this configuration makes"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *arguments).startswith(line)


def test_a_full_disk_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert backtest("--out", "report") == 1
    assert capsys.readouterr().err == (
        "detector: error: cannot write alerts.jsonl: No space left on device (report). "
        "Make room, or name another --out.\n"
    )
    assert list(Path("report").iterdir()) == []


def test_the_report_shows_sensors_labels_and_settings() -> None:
    write_labels()
    assert backtest("--labels", "labels.json", "--out", "report") == 0
    html = Path("report/report.html").read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</html>")
    for text in ("Backtest of in.jsonl", "pump-0", "level-shift", "1 of 2", "model: models", "<svg"):
        assert text in html


def test_labels_that_do_not_fit_are_put_aside(capsys: pytest.CaptureFixture[str]) -> None:
    write_labels()
    labels = json.loads(Path("labels.json").read_text())
    labels.append({"sensor_id": "pump-9", "start": time(10), "end": time(20)})
    labels.append({"sensor_id": "pump-0", "start": time(-90), "end": time(-80)})
    Path("labels.json").write_text(json.dumps(labels))
    assert backtest("--labels", "labels.json", "--json") == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)["labels"]
    assert (told["found"], told["missed"], told["outside"]) == (1, 1, 2)
    assert captured.err == (
        "detector: warning: 2 of 4 labels are of no watched sensor and time in the recording; "
        f"the first: pump-9 {time(10)} .. {time(20)} (labels.json)\n"
    )


def test_so_are_labels_of_sensors_that_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    write_labels()
    labels = json.loads(Path("labels.json").read_text())
    assert {label["sensor_id"] for label in labels} == {"pump-0", "pump-1"}
    assert backtest("--labels", "labels.json", "--json", "--set", "readings.sensors.exclude=[pump-1]") == 0
    told = json.loads(capsys.readouterr().out)["labels"]
    assert told["found"] + told["missed"] == sum(label["sensor_id"] == "pump-0" for label in labels)
    assert told["outside"] == sum(label["sensor_id"] == "pump-1" for label in labels)


def test_labels_of_another_recording_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.json").write_text(json.dumps([{"sensor_id": "pump-9", "start": time(10), "end": time(20)}]))
    assert refused(capsys, "--labels", "labels.json", "--out", "report") == (
        f"all 1 labels are of no watched sensor and time in the recording; the first: pump-9 {time(10)} .. {time(20)} "
        "(labels.json). Give the labels of this recording."
    )
    assert not Path("report").exists()


def test_no_labels_at_all_is_a_label_file_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.json").write_text("[]")
    labels = told(capsys, "--labels", "labels.json")["labels"]
    assert (labels["found"], labels["missed"], labels["false_alarms"]) == (0, 0, 1)


@pytest.mark.parametrize("content", ["", "timestamp,value\n"])
def test_a_recording_of_nothing_is_refused(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.csv").write_text(content)
    assert refused(capsys, data="empty.csv").startswith("the recording has no readings (empty.csv).")


def test_a_recording_of_something_else_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.csv").write_text("timestamp,value\n1790000000,warm\n1790000001,cold\n1790000002,3\n")
    assert refused(capsys, data="words.csv") == (
        "2 of 3 records are no readings; the first: row 2: `warm` is not a finite number (words.csv). "
        "Correct them, or name their parts in readings.fields."
    )


@pytest.mark.parametrize("kind", ["newest-first", "one-sensor", "shuffled"])
def test_what_is_not_in_the_order_of_time_is_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("in.jsonl").read_bytes().splitlines()
    if kind == "one-sensor":
        backwards = iter([line for line in reversed(lines) if b"pump-1" in line])
        lines = [next(backwards) if b"pump-1" in line else line for line in lines]
    elif kind == "newest-first":
        lines.reverse()
    else:
        random.Random(4).shuffle(lines)  # noqa: S311
    Path("other.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    line = refused(capsys, data="other.jsonl")
    assert "(other.jsonl). Sort the readings of each sensor by time, oldest first" in line
    assert ("run backwards in time" in line) or kind == "shuffled"


def test_a_terminal_is_shown_how_far_a_replay_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the end is known or not; the batches are the same ones."""
    batches = [Batch(Partition("sensor-readings", 0), [Record(i, None, b"")], i + 1) for i in range(8)]
    for end in (8, None):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with replay_progress(batches, end) as shown:
            assert list(shown) == batches
        assert "replaying" in terminal.getvalue()
        assert "8 records" in terminal.getvalue()
        assert ("100%" in terminal.getvalue()) == (end is not None)


def test_elsewhere_nothing_is_shown_of_a_replay(capsys: pytest.CaptureFixture[str]) -> None:
    with replay_progress([], 8) as shown:
        assert list(shown) == []
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
