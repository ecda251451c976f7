"""`detector run`: readings in, alerts out, and every input it cannot use in one line."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from detector.models.bundle.versions import activate
from detector.service.systemd import Pulse
from detector.streams.files import DirectoryLock
from tests.tiny import ROWS, SENSORS, START, csv_lines, json_lines, tiny_bundle

OPTIONS = ("--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models", "--log-format", "json")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("models"))
    Path("in.jsonl").write_bytes(json_lines())


def run(*arguments: str, source: str = "in.jsonl", output: str = "out.jsonl") -> int:
    """One run to the end of its input."""
    return main(["run", "--input", source, "--output", output, "--until-end", *OPTIONS, *arguments])


def refused(capfd: pytest.CaptureFixture[str], status: int, *arguments: str, **places: str) -> str:
    """The one line of the error, after the log; nothing on standard output."""
    assert run(*arguments, **places) == status
    captured = capfd.readouterr()
    assert captured.out == ""
    *log, line = captured.err.splitlines()
    assert all(entry.startswith("{") for entry in log)
    assert line.startswith("detector: error: ")
    return line.removeprefix("detector: error: ")


def alerts(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def dead_letters(state: str = "out.jsonl.state") -> list[dict[str, Any]]:
    return alerts(f"{state}/detector-dead-letters.jsonl")


def logged(capfd: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Fields of the log's events by name; every line of standard error is JSON."""
    return {line["event"]: line["fields"] for line in map(json.loads, capfd.readouterr().err.splitlines())}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What is published of `json_lines`."""
    directory = tmp_path_factory.mktemp("expected")
    tiny_bundle(directory / "models")
    (directory / "in.jsonl").write_bytes(json_lines())
    output = directory / "out.jsonl"
    model = f"readings.model={directory / 'models'}"
    assert run("--set", model, source=str(directory / "in.jsonl"), output=str(output)) == 0
    return output.read_bytes()


# -- what works ----------------------------------------------------------------------------------------------------


def test_a_file_leads_to_a_file_of_alerts(expected: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert Path("out.jsonl").read_bytes() == expected
    opened, *_, closed = alerts()
    assert (opened["event"], opened["sensor_id"], opened["source"]["stream"]) == ("opened", "pump-0", "sensor-readings")
    assert (closed["event"], closed["close_reason"]) == ("closed", "recovered")
    events = logged(capfd)
    life = ["http_listening", "model_loaded", "started", "partition_assigned", "draining", "stopped"]
    assert [name for name in events if name in life] == life
    assert events["stopped"]["readings"] == ROWS * len(SENSORS)
    assert events["stopped"]["alerts"] == len(alerts())


@pytest.mark.parametrize("name", ["pump-0.csv", "pump-0.csv.gz"])
def test_a_csv_file_without_a_sensor_column_is_the_sensor_of_its_name(name: str) -> None:
    content = csv_lines()
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert run(source=name) == 0
    assert {alert["sensor_id"] for alert in alerts()} == {"pump-0"}
    assert run("--sensor", "pump-1", source=name, output="other.jsonl") == 0
    assert {alert["sensor_id"] for alert in alerts("other.jsonl")} == {"pump-1"}


def test_rows_without_timestamps_are_an_interval_apart() -> None:
    rows = [line.partition(b",")[2] for line in csv_lines().splitlines()]
    Path("pump-0.csv").write_bytes(b"\n".join(rows) + b"\n")
    assert run("--interval", "1s", source="pump-0.csv") == 0
    assert alerts()[0]["detected_at"].startswith("2000-01-01T00:0")


@pytest.mark.parametrize("form", ["json", "text"])
def test_files_may_have_names_that_are_no_utf_8(expected: bytes, form: str) -> None:
    names = [os.fsdecode(name) for name in (b"p\xfcmp.csv", b"d\xefr", b"al\xe4rm.jsonl")]
    source, directory, output = names
    Path(directory).mkdir()
    Path(source).write_bytes(csv_lines() + b"nonsense\n")
    Path("in.jsonl").rename(f"{directory}/sensor-readings.jsonl")

    def told(*words: str) -> list[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "detector", "run", "--until-end", *OPTIONS, "--log-format", form, *words],
            capture_output=True,
            check=False,
        )
        assert done.returncode in (0, 2), done.stderr
        assert b"internal error" not in done.stderr
        assert b"Traceback" not in done.stderr
        return done.stderr.splitlines()

    for _ in range(2):
        told("--input", source, "--output", output)
    assert {alert["sensor_id"] for alert in alerts(output)} == set()
    (letter,) = dead_letters(f"{output}.state")
    assert letter["message"].startswith("row 802: ")
    told("--input", source, "--output", "-")
    told("--input", directory, "--output", directory)
    assert Path(directory, "anomaly-alerts.jsonl").read_bytes() == expected
    lines = told("--input", f"{directory}/sensor-readings.jsonl", "--output", output)
    assert lines[-1].startswith(b"detector: error: the checkpoint is that of the input p\\xfcmp.csv (d\\udcefr/")
    assert told("--input", "\udcfc", "--output", output)[-1] == (
        b"detector: error: the input does not exist (\\udcfc). Name an existing file or directory."
    )


def test_a_directory_of_streams_and_the_configured_one(expected: bytes) -> None:
    Path("plant").mkdir()
    Path("in.jsonl").rename("plant/sensor-readings.jsonl")
    assert run(source="plant", output="made/here/") == 0
    assert Path("made/here/anomaly-alerts.jsonl").read_bytes() == expected
    assert main(["run", "--until-end", "--set", "streams.directory.path=plant", *OPTIONS]) == 0
    assert Path("plant/anomaly-alerts.jsonl").read_bytes() == expected


def test_an_empty_file_ends_at_its_end() -> None:
    Path("empty.csv").touch()
    assert run(source="empty.csv") == 0
    assert alerts() == []


def test_a_second_run_goes_on_where_the_first_ended(expected: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    content = Path("in.jsonl").read_bytes()
    middle = content.index(b"\n", len(content) // 2) + 1
    Path("in.jsonl").write_bytes(content[:middle])
    assert run() == 0
    assert 0 < Path("out.jsonl").stat().st_size < len(expected)
    Path("in.jsonl").write_bytes(content)
    capfd.readouterr()
    assert run() == 0
    assert Path("out.jsonl").read_bytes() == expected
    events = logged(capfd)
    assert events["partition_assigned"]["position"] == middle
    assert events["stopped"]["readings"] == content[middle:].count(b"\n")


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_blank_lines_cost_time_and_nothing_else(
    expected: bytes, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = json_lines().splitlines(keepends=True)
    blank = b"\n" * 3_000_000
    text = blank + first + blank + b"".join(rest) + blank
    Path(name).write_bytes(gzip.compress(text, 1) if name.endswith(".gz") else text)
    turns: list[float] = []
    pulse = Pulse.__call__

    def counted(one: Pulse) -> None:
        turns.append(0.0)
        pulse(one)

    monkeypatch.setattr(Pulse, "__call__", counted)
    assert run(source=name) == 0
    assert len(turns) > len(text) / 2**20, "the loop turns at least once a chunk"
    assert alerts()[0]["source"]["opened_offset"] > 2 * len(blank)
    assert [strip_source(line) for line in Path("out.jsonl").read_bytes().splitlines()] == [
        strip_source(line) for line in expected.splitlines()
    ]
    capfd.readouterr()
    assert run(source=name) == 0
    assert logged(capfd)["partition_assigned"]["position"] == len(text)


def test_a_line_of_17_megabytes_is_a_dead_letter(expected: bytes) -> None:
    first, *rest = json_lines().splitlines(keepends=True)
    Path("in.jsonl").write_bytes(first + b'{"sensor_id": "' + b"x" * 17_000_000 + b'"}\n' + b"".join(rest))
    assert run() == 0
    (letter,) = dead_letters()
    assert (letter["reason"], letter["offset"], letter["truncated"]) == ("line_too_long", len(first), True)
    assert base64.b64decode(letter["value_base64"]) == (b'{"sensor_id": "' + b"x" * 900_000)[:900_000]
    assert [strip_source(line) for line in Path("out.jsonl").read_bytes().splitlines()] == [
        strip_source(line) for line in expected.splitlines()
    ]
    assert alerts()[0]["source"]["opened_offset"] > 17_000_000


def strip_source(line: bytes) -> dict[str, Any]:
    """An alert without the offsets it came from."""
    alert: dict[str, Any] = json.loads(line)
    del alert["source"]
    return alert


def test_scores_lie_beside_the_alerts(expected: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--set", "output.scores=anomaly-scores") == 0
    assert Path("out.jsonl").read_bytes() == expected
    scores = alerts("out.jsonl.state/anomaly-scores.jsonl")
    told = {sensor: sum(len(one["scores"]) for one in scores if one["sensor_id"] == sensor) for sensor in SENSORS}
    assert told == dict.fromkeys(SENSORS, ROWS - 99)
    capfd.readouterr()
    with Path("in.jsonl").open("rb") as source:
        piped = subprocess.run(
            [sys.executable, "-m", "detector.cli.main", "run", "--input", "-", "--output", "piped.jsonl",
             "--set", "output.scores=anomaly-scores", *OPTIONS],
            stdin=source, capture_output=True, check=False,
        )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    beside = alerts("piped.jsonl.state/anomaly-scores.jsonl")
    assert sum(len(one["scores"]) for one in beside) == len(SENSORS) * (ROWS - 99)
    line = refused(capfd, 2, "--set", "output.scores=anomaly-scores", output="-")
    assert line.startswith("the scores (anomaly-scores) have no place beside alerts on standard output (--output -).")


def test_fresh_starts_over(expected: bytes) -> None:
    assert run() == 0
    assert run("--fresh") == 0
    assert Path("out.jsonl").read_bytes() == expected


def test_nulls_are_missing_values(capfd: pytest.CaptureFixture[str]) -> None:
    lines = Path("in.jsonl").read_bytes().splitlines(keepends=True)
    lines[20] = b'{"sensor_id":"pump-0","timestamp":%d,"value":null}\n' % (START + 10)
    Path("in.jsonl").write_bytes(b"".join(lines))
    assert run() == 0
    assert dead_letters() == []
    assert logged(capfd)["stopped"]["readings"] == ROWS * len(SENSORS)


@pytest.mark.parametrize("cell", [b"NaN", b'"71.3"', b"true", b"1e999", b"[1]"])
def test_what_is_no_number_goes_to_the_dead_letters(cell: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    line = b'{"sensor_id":"pump-0","timestamp":%d,"value":%b}' % (START - 1, cell)
    Path("in.jsonl").write_bytes(line + b"\n" + json_lines(120))
    assert run() == 0
    (letter,) = dead_letters()
    assert (letter["reason"], letter["offset"]) == ("bad_value", 0)
    assert base64.b64decode(letter["value_base64"]) == line
    assert logged(capfd)["readings_rejected"] == {"records": 1, "reasons": {"bad_value": 1}}


def test_other_channels_than_the_models_go_to_the_dead_letters(capfd: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(Path("models"), channels=("t", "p"), day=23)
    good = {"sensor_id": "pump-0", "timestamp": START, "values": {"p": 1, "t": 2}}

    def lists(**values: list[float]) -> dict[str, Any]:
        return {"sensor_id": "pump-0", "timestamps": [START + 10, START + 11], "values": values}

    refused = {
        "one value": {"sensor_id": "pump-0", "timestamp": START + 1, "value": 1},
        "missing": {**good, "values": {"t": 1}},
        "one more": {**good, "values": {"t": 1, "p": 2, "x": 3}},
        "another": {**good, "values": {"t": 1, "q": 2}},
        "none": {**good, "values": {}},
        "one list": {"sensor_id": "pump-0", "timestamps": [START + 2], "values": [1]},
        "lists missing": lists(t=[1, 2]),
        "lists more": lists(t=[1, 2], p=[1, 2], x=[1, 2]),
        "in an array": [{**good, "timestamp": START + 3}, {**good, "values": {"t": 1}}, {**good, "value": 1}],
    }
    partly = {**lists(t=[1, 2], p=[1, 2]), "values": {"t": [1, None], "p": [True, 2]}}
    lines = [good, *refused.values(), partly, lists(t=[1, 2], p=[3, 4])]
    Path("in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("--set", "readings.channels=[t, p]", "--set", "rejects.max_share=1") == 0
    letters = dead_letters()
    assert [(letter["reason"], letter["elements"]) for letter in letters] == [
        *[("channel_mismatch", None)] * 8, ("channel_mismatch", "1-2"), ("bad_value", "0"),
    ]  # fmt: skip
    assert [json.loads(base64.b64decode(letter["value_base64"])) for letter in letters] == [*refused.values(), partly]
    assert letters[2]["message"] == "channels `t`, `p`, `x`; expected `t`, `p`"
    counted = logged(capfd)["readings_rejected"]
    assert counted == {"records": 10, "reasons": {"channel_mismatch": 10, "bad_value": 1}}


def test_a_cell_that_is_no_number_is_told_with_its_row() -> None:
    Path("pump-0.csv").write_bytes(csv_lines(5) + b"1790000100,cold\n")
    assert run(source="pump-0.csv") == 0
    assert [letter["message"] for letter in dead_letters()] == ["row 7: `cold` is not a finite number"]


def test_a_model_that_was_trained_meanwhile_is_taken_up(capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    first = logged(capfd)["model_loaded"]["version"]
    second = tiny_bundle(Path("models"), day=23)
    with Path("in.jsonl").open("ab") as file:
        file.write(b'{"sensor_id":"pump-0","timestamp":%d,"value":50}\n' % (START + ROWS))
    assert run() == 0
    events = logged(capfd)
    assert events["model_loaded"]["version"] == second.version != first
    assert "model_changed_since_last_run" in events
    activate(Path("models"), first)


# -- pipes ---------------------------------------------------------------------------------------------------------


def test_standard_output_has_nothing_but_alerts(expected: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(output="-") == 0
    assert capfd.readouterr().out.encode() == expected
    assert not list(Path().glob("*.state"))


def test_a_pipe_in_and_a_pipe_out_without_tensorflow(expected: bytes) -> None:
    script = (
        "import sys; from detector.cli.main import main; status = main(sys.argv[1:]); "
        "loaded = {'tensorflow', 'keras', 'onnx', 'tf2onnx', 'kafka'} & set(sys.modules); "
        "sys.exit(f'imported {loaded}' if loaded else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "--input", "-", "--output", "-", *OPTIONS],
        input=json_lines() + b"no reading\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
    events = [json.loads(line) for line in done.stderr.splitlines()]
    letters = [event for event in events if "detector-dead-letters" in json.dumps(event)]
    assert len(letters) == 1


@pytest.mark.parametrize("more", [["--until-end"], ["--input", "quiet.jsonl"]], ids=["while it speaks", "in silence"])
def test_a_reader_that_leaves_ends_the_run(more: list[str]) -> None:
    Path("quiet.jsonl").write_bytes(json_lines(5))
    process = start("--output", "-", *more, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert log.splitlines()[-1].startswith("detector: error: whoever read the output has stopped")


# -- what stops it before it starts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--set", "readings.warmup=1e3"), "expected a whole number, but `1e3` is written (--set readings.warmup)."),
        (("--set", "readings.enabled=no"), "expected true or false, but `no` is written (--set readings.enabled)."),
        (("--set", "shutdown_timeout=12:30"), "expected a duration such as 250ms, 10s, 5m, 12h or 7d, but `12:30`"),
        (("--set", "readings.window.strid=2"), "unknown key `strid` (--set readings.window.strid). Perhaps str"),
        (("--set", "readings={warmup: &a 200}"), "anchors and aliases are not allowed (--set readings)."),
        (("--interval", "5x"), "argument --interval: `5x` is not a duration such as 250ms, 10s, 5m, 12h or 7d."),
        (("--interval", "0s"), "argument --interval: `0s` is no time"),
        (("--sensor", ""), "argument --sensor: this is no sensor id"),
        (("--sensor", "a\nb"), "argument --sensor: this is no sensor id"),
        (("--input", ""), "argument --input: this is empty"),
        (("--output", ""), "argument --output: this is empty"),
        (("--input", "nowhere.csv"), "the input does not exist (nowhere.csv)."),
        (("--input", "models"), "the directory has no file of the stream sensor-readings (models)."),
        (("--output", "in.jsonl", "--fresh"), "this file is an output and another stream, too (in.jsonl)."),
        (("--output", "/dev/full"), "this is no regular file (/dev/full)."),
        (("--set", "readings.model=none"), "there is no trained model (none). Run `detector train --data FILE --out "),
        (("--set", "readings.channels=[a, b]"), "the model takes windows of shape (100, 1), this configuration makes "),
        (("--set", "readings.window.stride=2"), "the model's profiles were built with stride 1"),
        (
            ("--set", "streams.backend=memory"),
            "nothing can be read from memory but by tests (streams.backend: memory)",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments: Sequence[str], line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert refused(capfd, 2, *arguments).startswith(line)
    assert not list(Path().glob("out*")), "nothing is written before everything is known to be right"
    assert Path("in.jsonl").read_bytes() == json_lines()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("readings: {warmup: 200, warmup: 300}", "the key is given twice"),
        ("readings: &r {warmup: 200}", "anchors and aliases are not allowed"),
        ("readings:\n  warmup: 1e3", "expected a whole number, but `1e3` is written"),
        ("readings:\n  enabled: no", "expected true or false, but `no` is written"),
        ("readings:\n  idle_eviction: 12:30", "expected a duration"),
        ("reading: {}", "unknown key `reading`"),
        ("readings: [", "not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_place(text: str, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(text + "\n")
    told = refused(capfd, 2)
    assert line in told
    assert "config.yaml:" in told


def test_a_changed_byte_in_the_model_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    (model,) = Path("models").glob("*/model.onnx")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    assert refused(capfd, 2).startswith("model.onnx is not what was written: its SHA-256 differs from the manifest's")
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.jsonl.gz", "in.txt"])
@pytest.mark.parametrize("follow", [False, True])
def test_lines_that_end_with_carriage_returns_alone_are_refused(
    name: str, follow: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (csv_lines() if name.endswith(("csv", "txt")) else json_lines(300)).replace(b"\n", b"\r")
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    words = ["run", "--input", name, "--output", "out.jsonl", *OPTIONS]
    assert main(words if follow else [*words, "--until-end"]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"detector: error: the lines of the input end with carriage returns alone ({name}). "
        "Let them end with line feeds, as `tr '\\r' '\\n'` does."
    )


def test_windows_line_ends_are_line_ends(expected: bytes) -> None:
    Path("in.jsonl").write_bytes(json_lines().replace(b"\n", b"\r\n"))
    assert run() == 0
    assert [strip_source(line) for line in Path("out.jsonl").read_bytes().splitlines()] == [
        strip_source(line) for line in expected.splitlines()
    ]


def test_a_file_without_the_columns_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    Path("in.csv").write_text("a,b\n1,2\n")
    assert refused(capfd, 2, source="in.csv").startswith("no column `value`; the columns are a, b (")


def test_an_output_without_a_checkpoint_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl").write_text("somebody's\n")
    assert refused(capfd, 2).startswith("the output exists, and there is no checkpoint that says up to where it is")
    assert Path("out.jsonl").read_text() == "somebody's\n"


def test_a_directory_it_may_not_write(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert refused(capfd, 2, output="out/alerts.jsonl") == (
        "cannot write to the directory: Permission denied (out/alerts.jsonl.state). "
        "Give the detector that right, or another path."
    )


def test_a_second_daemon_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl.state").mkdir()
    lock = DirectoryLock(Path("out.jsonl.state"))
    lock.acquire()
    told = refused(capfd, 1)
    lock.release()
    assert told == (
        f"another detector works here, process {os.getpid()} (out.jsonl.state). "
        "Stop it first, or give this one another place."
    )
    assert run() == 0


def test_a_port_in_use_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        told = refused(capfd, 1, "--set", f"http.listen={address}")
    assert told.startswith(f"cannot listen on {address}: Address already in use (http.listen).")
    assert not Path("out.jsonl").exists()


# -- what stops it while it runs -----------------------------------------------------------------------------------


def test_an_input_that_shrank_is_told(expected: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    Path("in.jsonl").write_bytes(json_lines(10))
    capfd.readouterr()
    told = refused(capfd, 2)
    assert told.startswith(f"the input has {len(json_lines(10))} bytes and was already read up to byte ")
    assert "(in.jsonl). Put the file back, with what is new behind what was read, or start over with --fresh." in told
    Path("in.jsonl").write_bytes(json_lines())
    assert run() == 0
    assert Path("out.jsonl").read_bytes() == expected


def test_a_file_of_something_else_stops_it_with_nothing_written(capfd: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_bytes(b"127.0.0.1 - - GET /\n" * 200)
    told = refused(capfd, 1)
    assert told.startswith(
        "200 of the last 200 records were rejected, more than the allowed share of 0.5; one of them:"
    )
    assert dead_letters() == []
    assert alerts() == []


def test_a_full_disk_loses_nothing(expected: bytes) -> None:
    limit = (
        "import resource, sys; from detector.cli.main import main; "
        "limit, most = resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1]; "
        "resource.setrlimit(limit, (6000, most)); status = main(sys.argv[1:]); "
        "resource.setrlimit(limit, (most, most)); sys.exit(status)"  # whoever measures coverage writes files, too
    )
    words = ["run", "--input", "in.jsonl", "--output", "out.jsonl", "--until-end", *OPTIONS]
    done = subprocess.run([sys.executable, "-c", limit, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "detector: error: cannot write the output: File too large (out.jsonl). "
        "Make room and start again: work goes on where it was committed last."
    )
    left = Path("out.jsonl").read_bytes()
    assert expected.startswith(left)
    assert left == b"" or left.endswith(b"\n")
    assert run() == 0
    assert Path("out.jsonl").read_bytes() == expected


def test_a_full_disk_behind_standard_output_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.dup(1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        status = run(output="-")
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(full)
    assert status == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("detector: error: cannot write: No space left on device (standard output).")


# -- signals -------------------------------------------------------------------------------------------------------


def start(*arguments: str, stdout: int | None = None) -> subprocess.Popen[str]:
    """A daemon that goes on until it is stopped, unless told otherwise."""
    words = ["run", "--input", "in.jsonl", *OPTIONS, "--set", "streams.directory.checkpoint_interval=50ms", *arguments]
    if "--output" not in arguments:
        words += ["--output", "out.jsonl"]
    return subprocess.Popen(
        [sys.executable, "-m", "detector.cli.main", *words], stdout=stdout, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts daemons that are gone when the test is."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        processes.append(start(*arguments))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == event:
            fields: dict[str, Any] = entry["fields"]
            return fields
    raise AssertionError(f"it ended without {event}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(
    number: signal.Signals, started: Callable[..., subprocess.Popen[str]], expected: bytes
) -> None:
    process = started()
    wait_for(process, "partition_assigned")
    process.send_signal(number)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert [event for event in events if not event.startswith("sensor_")] == ["draining", "stopped"]
    assert run() == 0
    assert Path("out.jsonl").read_bytes() == expected


def test_it_waits_for_an_input_that_is_empty_or_not_there_yet(
    started: Callable[..., subprocess.Popen[str]], expected: bytes
) -> None:
    Path("in.jsonl").write_bytes(b"")
    process = started()
    wait_for(process, "partition_assigned")
    with Path("in.jsonl").open("ab") as file:
        file.write(json_lines())
    while Path("out.jsonl").stat().st_size < len(expected):
        assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=20) == 0
    assert Path("out.jsonl").read_bytes() == expected


def test_it_goes_on_after_a_kill(started: Callable[..., subprocess.Popen[str]], expected: bytes) -> None:
    process = started()
    while not Path("out.jsonl").exists() or not Path("out.jsonl").stat().st_size:
        assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert run() == 0
    assert Path("out.jsonl").read_bytes() == expected


def test_a_second_signal_ends_it_at_once(started: Callable[..., subprocess.Popen[str]]) -> None:
    os.mkfifo("pipe")
    script = (
        "import sys, os; from detector.service import daemon; "
        "daemon.Daemon._drain = lambda self: open('pipe').read(); "  # a stop that hangs until somebody writes
        "from detector.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", "--input", "in.jsonl", "--output", "out.jsonl", *OPTIONS]
    with subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, "partition_assigned")
        process.terminate()
        with Path("pipe").open("wb"):  # opens when the stop has begun to hang
            process.terminate()
            assert process.wait(timeout=20) == 130


def test_a_stop_that_hangs_ends_at_its_deadline() -> None:
    os.mkfifo("pipe")
    script = (
        "import sys, os; from detector.service import daemon; daemon.Daemon._drain = lambda self: open('pipe').read(); "
        "from detector.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["run", "--input", "in.jsonl", "--output", "out.jsonl", *OPTIONS, "--set", "shutdown_timeout=100ms"]
    with subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, "partition_assigned")
        process.terminate()
        _, log = process.communicate(timeout=20)
        assert process.returncode == 1
        assert log.splitlines()[-1] == (
            "detector: error: stopping took longer than 0.1 s (shutdown_timeout). "
            "What was not committed is done again at the next start."
        )


def test_a_file_whose_sensors_run_backwards_is_refused_and_nothing_is_published(
    capfd: pytest.CaptureFixture[str],
) -> None:
    Path("newest-first.jsonl").write_bytes(b"\n".join(reversed(json_lines().splitlines())) + b"\n")
    line = refused(capfd, 2, source="newest-first.jsonl")
    assert line.startswith("the readings of pump-")
    assert "run backwards in time (newest-first.jsonl). Sort the readings of each sensor by time" in line
    assert not Path("out.jsonl").exists() or not Path("out.jsonl").read_bytes()


def test_at_the_end_it_says_what_is_not_watched(capfd: pytest.CaptureFixture[str]) -> None:
    known = json_lines().splitlines()
    extra = [json.dumps({"sensor_id": "new", "timestamp": START + i, "value": 1.0}).encode() for i in range(5)]
    Path("more.jsonl").write_bytes(b"\n".join([*known, *extra]) + b"\n")
    assert run(source="more.jsonl") == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    told = {line["fields"]["reason"]: line["fields"] for line in lines if line["event"] == "unwatched_at_end"}
    assert told["warming"] == {"reason": "warming", "sensors": 1, "sensor_ids": ["new"]}
    assert told["threshold"]["sensor_ids"] == list(SENSORS), "a week is much for a bundle of so few rows"
