"""The real process as a supervisor has it: what systemd hears on its socket, and a log that nobody reads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tiny import json_lines, tiny_bundle


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "models")
    (tmp_path / "in.jsonl").write_bytes(json_lines())
    return tmp_path


def command(*arguments: str) -> list[str]:
    words = ["run", "--input", "in.jsonl", "--output", "out.jsonl", "--log-format", "json"]
    settings = ["--set", "http.listen=127.0.0.1:0", "--set", "readings.model=models"]
    return [sys.executable, "-m", "detector.cli.main", *words, *settings, *arguments]


@contextmanager
def supervised(
    place: Path, *arguments: str, watchdog: float
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A daemon whose supervisor listens and wants a sign of life every `watchdog` seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place / "notify"))
        listening.settimeout(30)
        told = {"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": str(round(watchdog * 1e6))}
        process = subprocess.Popen(
            command(*arguments), cwd=place, env={**os.environ, **told}, stderr=subprocess.DEVNULL
        )
        try:
            yield process, listening
        finally:
            process.kill()
            process.wait()


def test_systemd_hears_of_the_start_of_life_and_of_the_stop(place: Path) -> None:
    with supervised(place, watchdog=0.2) as (process, listening):
        heard = [listening.recv(200).decode()]
        assert heard == ["READY=1\nSTATUS=no partition is assigned yet"]
        while heard.count("WATCHDOG=1") < 3:
            heard.append(listening.recv(200).decode())
        assert "STATUS=reading 1 partition" in heard
        process.send_signal(signal.SIGTERM)
        while not heard[-1].startswith("STOPPING=1"):
            heard.append(listening.recv(200).decode())
        assert process.wait(timeout=20) == 0


def test_nobody_reads_the_log(place: Path) -> None:
    with subprocess.Popen(command(), cwd=place, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "partition_assigned":
                break
        process.stderr.close()
        with (place / "in.jsonl").open("a") as file:
            file.write("no reading\n" * 5)  # a line of the log, into the broken pipe
        letters = place / "out.jsonl.state" / "detector-dead-letters.jsonl"
        while not letters.exists() or letters.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_nobody_hears_of_an_error_either(place: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command("--until-end"), cwd=place, stderr=writing, check=False)
    failed = subprocess.run(command("--set", "readings.model=gone"), cwd=place, stderr=writing, check=False)
    os.close(writing)
    assert (done.returncode, failed.returncode) == (0, 2)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_a_daemon_runs_without_standard_streams(place: Path, closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command("--until-end")], cwd=place, check=False)
    assert done.returncode == 0
    assert (place / "out.jsonl").exists()


def test_the_log_shows_nothing_of_what_was_read(place: Path) -> None:
    payloads = [
        "never shown as text",
        '{"sensor_id": "pump-0", "timestamp": "never shown as a time", "value": 1}',
        '{"sensor_id": "pump-0", "timestamp": 1790000900, "value": "never shown as a value"}',
        '{"sensor_id": "pump-0", "timestamp": 1790000901, "never shown as a key": 1}',
        '{"sensor_id": "never shown\\u001b as an id", "timestamp": 1790000901, "value": 1}',
    ]
    with (place / "in.jsonl").open("a") as file:
        file.write("\n".join(payloads) + "\n")
    words = command("--until-end", "--log-level", "info")
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "readings_rejected" in done.stderr
    assert "never shown" not in done.stderr
