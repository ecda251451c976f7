"""The real process takes another model and other settings while it runs, and a kill right after costs nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import main
from detector.config.load import load_config
from detector.service.pipelines import make_engine
from detector.streams.base import Batch, Partition, Record
from detector.times import SECOND, rfc3339
from tests.tiny import SENSORS, START, json_lines, tiny_bundle

PARTITION = Partition("sensor-readings", 0)
LINES = json_lines().splitlines(keepends=True)
FIRST = 640
"""Lines that are there at the start: the first sensor's fault has begun, and its alert is open."""


class Running:
    """A daemon that follows a file, and its log."""

    def __init__(self) -> None:
        words = ["run", "--config", "config.yaml", "--input", "in.jsonl", "--output", "out.jsonl"]
        self.process = subprocess.Popen([sys.executable, "-m", "detector", *words], stderr=subprocess.PIPE, text=True)

    def wait_for(self, *names: str) -> dict[str, Any]:
        """The fields of the next event of these names, with its name."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["event"] in names:
                return {"event": entry["event"], **entry["fields"]}
        raise AssertionError(f"it ended without {names}")

    def metric(self, port: int, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def at(second: int) -> str:
    """A time of the input."""
    return rfc3339((START + second) * SECOND)


def write_config(more: str = "", *, close_after: int = 100, silence: str = "") -> None:
    alerts = f"{silence}alerts: {{close_after: {close_after}}}"
    Path("config.yaml").write_text(
        f"readings: {{model: models, warmup: 150, {alerts}}}\nhttp: {{listen: '127.0.0.1:0'}}\n"
        f"streams: {{directory: {{checkpoint_interval: 50ms}}}}\n{more}"
    )


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Running]]:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("models"))
    write_config()
    Path("in.jsonl").write_bytes(b"".join(LINES[:FIRST]))
    running: list[Running] = []

    def begin() -> Running:
        running.append(Running())
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.communicate()


def until_done(one: Running) -> None:
    """Wait until all of the first lines are dealt with for good."""
    while not Path("out.jsonl").exists() or not Path("out.jsonl").stat().st_size:
        assert one.process.poll() is None


def published(change: Callable[[], Any], position: int) -> bytes:
    """What has to come out: the first engine up to that byte of the input, the one after `change` from there on."""
    config = load_config(Path("config.yaml"))

    def engine() -> Any:
        return make_engine(config).make_pipeline(PARTITION)

    before = engine()
    change()
    config = load_config(Path("config.yaml"))
    after = engine()
    offsets = [0]
    for line in LINES:
        offsets.append(offsets[-1] + len(line))
    at = offsets.index(position)
    records = [Record(offset, None, line.rstrip()) for offset, line in zip(offsets, LINES, strict=False)]
    messages = list(before.process(Batch(PARTITION, records[:at], position)).alerts)
    after.restore(before.snapshot())
    messages += after.process(Batch(PARTITION, records[at:], offsets[-1])).alerts
    return b"".join(message.value + b"\n" for message in messages)


def bring(begin: int, end: int = len(LINES)) -> None:
    """More of the input."""
    with Path("in.jsonl").open("ab") as file:
        file.write(b"".join(LINES[begin:end]))


def finish(begin: int = FIRST) -> bytes:
    """Bring the rest of the input, run to its end, and see what was published."""
    bring(begin)
    words = ["--input", "in.jsonl", "--output", "out.jsonl", "--until-end"]
    assert main(["run", "--config", "config.yaml", *words]) == 0
    return Path("out.jsonl").read_bytes()


@pytest.mark.parametrize("known", [SENSORS, ("other",)], ids=["that knows them", "that knows neither"])
def test_another_model_then_a_kill(started: Callable[[], Running], known: tuple[str, ...]) -> None:
    one = started()
    until_done(one)
    second = tiny_bundle(Path("models"), day=23, sensors=known)
    said = one.wait_for("reloaded", "reload_failed")
    one.process.kill()
    one.process.wait()
    assert (said["event"], said["reason"]) == ("reloaded", "current")
    assert said["models"] == {"readings": second.version}
    got = finish()
    assert main(["models", "rollback", "--dir", "models"]) == 0
    expected = published(
        lambda: main(["models", "activate", second.version, "--dir", "models"]), said["positions"]["sensor-readings:0"]
    )
    assert got == expected
    versions = [json.loads(line)["model"]["version"] for line in got.splitlines()]
    assert len(set(versions)) == 2, "alerts of either model"
    alerts = [json.loads(line) for line in got.splitlines()]
    events = [alert["event"] for alert in alerts if alert["alert_id"] == alerts[0]["alert_id"]]
    assert events == ["opened", *["updated"] * (len(events) - 2), "closed"], "one episode, whole"


@pytest.mark.parametrize("more", [100, 260], ids=["while sensors learn it", "after one has learnt it"])
def test_another_model_then_a_kill_some_readings_later(started: Callable[[], Running], more: int) -> None:
    one = started()
    port = int(one.wait_for("http_listening")["address"].rpartition(":")[2])
    until_done(one)
    second = tiny_bundle(Path("models"), day=23, sensors=("other",))
    at = one.wait_for("reloaded")["positions"]["sensor-readings:0"]
    while one.metric(port, "detector_sensors_relearning") != 2:  # as soon as the turn is over
        assert one.process.poll() is None
    # pump-1 has no episode, so 150 readings are enough for it; they come in turn.
    bring(FIRST, end := FIRST + 2 * more)
    left = 2 if more < 150 else 1
    while (
        one.metric(port, 'detector_readings_total{outcome="accepted"}') < end
        or one.metric(port, "detector_sensors_relearning") != left
    ):
        assert one.process.poll() is None
    one.process.kill()
    one.process.wait()
    got = finish(end)
    assert main(["models", "rollback", "--dir", "models"]) == 0
    assert got == published(lambda: main(["models", "activate", second.version, "--dir", "models"]), at)


def test_other_settings_then_a_kill(started: Callable[[], Running]) -> None:
    one = started()
    until_done(one)
    write_config(close_after=20)
    one.process.send_signal(signal.SIGHUP)
    said = one.wait_for("reloaded", "reload_failed")
    one.process.kill()
    one.process.wait()
    assert (said["event"], said["changed"]) == ("reloaded", ["readings.alerts.close_after"])
    got = finish()
    write_config()
    assert got == published(lambda: write_config(close_after=20), said["positions"]["sensor-readings:0"])


def test_maintenance_and_silence_then_a_kill(started: Callable[[], Running]) -> None:
    more = f"maintenance: [{{match: {SENSORS[0]}, from: {at(0)}, to: {at(340)}}}]\n"
    write_config(more)
    one = started()
    until_done(one)
    write_config(more.replace(at(340), at(370)), silence="silence_after: 10s, ")
    one.process.send_signal(signal.SIGHUP)
    said = one.wait_for("reloaded", "reload_failed")
    one.process.kill()
    one.process.wait()
    assert (said["event"], said["changed"]) == ("reloaded", ["maintenance", "readings.silence_after"])
    got = finish()
    write_config(more)
    expected = published(
        lambda: write_config(more.replace(at(340), at(370)), silence="silence_after: 10s, "),
        said["positions"]["sensor-readings:0"],
    )
    assert got == expected
    alerts = [json.loads(line) for line in got.splitlines()]
    assert alerts[0]["muted"]
    told = next(alert for alert in alerts if not alert["muted"])
    assert (told["alert_id"], told["event"]) == (alerts[0]["alert_id"], "updated")
    assert told["window"]["timestamps"][-1] == (START + 370) * 1000, "the present window counts"


def test_what_cannot_be_used_is_said_and_seen_until_it_can(started: Callable[[], Running]) -> None:
    one = started()
    port = int(one.wait_for("http_listening")["address"].rpartition(":")[2])
    one.wait_for("partition_assigned")
    write_config("log: {level: [")
    one.process.send_signal(signal.SIGHUP)
    said = one.wait_for("reloaded", "reload_failed")
    assert said["event"] == "reload_failed"
    assert "config.yaml" in said["error"]
    while one.metric(port, "detector_config_last_reload_successful") != 0:
        assert one.process.poll() is None
    write_config("streams: {}".replace("streams: {}", "rejects: {over: 500}"))
    one.process.send_signal(signal.SIGHUP)
    assert "Restart" in one.wait_for("reload_failed")["error"]
    write_config()
    one.process.send_signal(signal.SIGHUP)
    assert one.wait_for("reloaded", "reload_failed")["event"] == "reloaded"
    while one.metric(port, "detector_config_last_reload_successful") != 1:
        assert one.process.poll() is None


def test_a_storm_of_signals_while_it_reads(started: Callable[[], Running]) -> None:
    one = started()
    one.wait_for("started")
    for at in range(FIRST, len(LINES), 10):
        one.process.send_signal(signal.SIGHUP)
        with Path("in.jsonl").open("ab") as file:
            file.write(b"".join(LINES[at : at + 10]))
    one.wait_for("reloaded")
    one.process.terminate()
    one.process.communicate(timeout=30)
    assert one.process.returncode == 0
    words = ["--input", "in.jsonl", "--output", "out.jsonl", "--until-end"]
    assert main(["run", "--config", "config.yaml", *words]) == 0
    assert Path("out.jsonl").read_bytes() == published(lambda: None, sum(map(len, LINES)))


def test_a_signal_while_it_starts_is_a_reload_and_not_the_end(started: Callable[[], Running]) -> None:
    one = started()
    at_once = 1 << (signal.SIGHUP - 1)
    status = Path(f"/proc/{one.process.pid}/status")
    while not int(re.findall(r"SigBlk:\s*(\w+)", status.read_text())[0], 16) & at_once:
        assert one.process.poll() is None
    one.process.send_signal(signal.SIGHUP)
    assert one.wait_for("started", "reloading")["event"] == "started", "it came long before"
    assert one.wait_for("reloading")["reason"] == "SIGHUP"
    assert one.wait_for("reloaded", "reload_failed")["event"] == "reloaded"
    one.process.terminate()
    assert one.process.wait(timeout=30) == 0


def test_another_command_with_that_word_holds_nothing_back() -> None:
    script = (
        "import signal, sys\n"
        "from detector.__main__ import main\n"
        "sys.argv[1:] = ['models', 'list', '--dir', 'run']\n"
        "print(main(), signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n"
