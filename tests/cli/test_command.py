"""Which command is asked for, and signals to a process that has just been started."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from detector.cli import check, rekey
from detector.cli.command import find_command
from detector.cli.main import main
from tests.tiny import json_lines, tiny_bundle

WORDS = ("--input", "in.jsonl", "--output", "out.jsonl", "--set", "http.listen=127.0.0.1:0", "--log-format", "json")
Moment = Callable[[int], bool]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("run", "run"),
        ("--set a=run -c run --config=x models run", "models"),
        ("--log-level debug run --help", "run"),
        ("--version", None),
        ("--set", None),
        ("", None),
    ],
)
def test_the_command_is_the_first_word_that_belongs_to_no_option(words: str, command: str | None) -> None:
    assert find_command(words.split()) == command


def caught(number: signal.Signals) -> Moment:
    def moment(pid: int) -> bool:
        status = Path(f"/proc/{pid}/status").read_text()
        return bool(int(re.findall(r"SigCgt:\s*(\w+)", status)[0], 16) & (1 << (number - 1)))

    return moment


def mapped(library: str) -> Moment:
    return lambda pid: library in Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    tiny_bundle(tmp_path / "models")
    (tmp_path / "in.jsonl").write_bytes(json_lines())
    words = [sys.executable, "-m", "detector", "run", *WORDS, "--set", "readings.model=models"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "moment",
    [caught(signal.SIGTERM), mapped("pydantic_core"), caught(signal.SIGHUP), mapped("multiarray"), mapped("onnx")],
    ids=["first line", "configuration", "handlers of the daemon", "numpy", "model"],
)
def test_a_signal_while_it_starts_is_a_clean_end(
    begun: subprocess.Popen[str], moment: Moment, number: signal.Signals
) -> None:
    while not (caught(signal.SIGTERM)(begun.pid) and moment(begun.pid)):
        assert begun.poll() is None
    begun.send_signal(number)
    _, log = begun.communicate(timeout=60)
    assert begun.returncode == 0
    assert all(json.loads(line)["level"] == "info" for line in log.splitlines())


@pytest.mark.parametrize("module", ["detector.cli.main", "detector.errors", "detector.cli.models"])
def test_the_keyboard_while_a_command_is_imported_leaves_no_traceback(module: str) -> None:
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where the tests run, it may be ignored
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == '{module}': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from detector.__main__ import main\n"
        "sys.argv[1:] = ['models', 'list']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("module", "level"), [(check, logging.CRITICAL), (rekey, logging.WARNING)])
def test_the_kafka_client_complains_in_daemons_only(
    module: ModuleType, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run(_: object) -> int:
        seen.append(logging.getLogger("kafka").level)
        return 0

    monkeypatch.setattr(module, "run", run)
    words = {check: ["check"], rekey: ["rekey", "--key", "{machine}", "--from", "a", "--to", "b"]}[module]
    assert main(words) == 0
    assert main([*words, "--log-level", "debug"]) == 0
    assert seen == [level, logging.WARNING]
