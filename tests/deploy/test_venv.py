"""`make install` on a machine that is not ready for it: one line that says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, PROJECT


def made(directory: Path, *, python: str = sys.executable, megabytes: int = 1) -> subprocess.CompletedProcess[str]:
    words = [str(DEPLOY / "venv.sh"), python, str(directory), str(megabytes)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def refused(directory: Path, *, python: str = sys.executable, megabytes: int = 1) -> str:
    done = made(directory, python=python, megabytes=megabytes)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("detector: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_not_there_or_too_old(tmp_path: Path) -> None:
    assert "not there, or older than Python 3.11" in refused(tmp_path / "venv", python=str(tmp_path / "none"))
    old = program(tmp_path / "old", "exit 1")
    assert "make install PYTHON=python3.11" in refused(tmp_path / "venv", python=old)


def test_a_python_without_venv(tmp_path: Path) -> None:
    text = f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac'
    assert "apt-get install python3-venv" in refused(tmp_path / "venv", python=program(tmp_path / "bare", text))


def test_no_room(tmp_path: Path) -> None:
    assert "Make room" in refused(tmp_path / "venv", megabytes=10**9)
    assert not (tmp_path / "venv").exists()


def test_something_else_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    assert "is no virtual environment" in refused(tmp_path / "notes")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    assert "is gone, or older than 3.11" in refused(tmp_path / "venv")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be made" in refused(tmp_path / "venv")


@pytest.mark.slow
def test_half_an_installation_is_mended(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    assert made(tmp_path / "venv").returncode == 0
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True, check=False).returncode == 0
    assert made(tmp_path / "venv", megabytes=10**9).returncode == 0, "what is there needs no room"


@pytest.mark.slow
def test_without_a_network_the_last_line_says_what_to_do(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_FIND_LINKS": str(tmp_path)}
    done = subprocess.run(
        ["make", "-C", str(PROJECT), "install-serve", f"SERVE={tmp_path / 'venv'}", f"PYTHON={sys.executable}"],
        env=os.environ | nowhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2  # make's own
    # within `make test` this make is an inner one and calls itself make[1]
    said = [line for line in done.stderr.splitlines() if not re.match(r"make(\[\d+\])?: ", line)]
    assert said[-1].startswith("detector: error: pip could not install everything")
    assert said[-1].endswith("Run this again when that is mended.")


def test_a_broker_without_java_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kafka.broker"],
        cwd=PROJECT, env=os.environ | {"PATH": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert "install a Java runtime, 17 or newer" in done.stderr
