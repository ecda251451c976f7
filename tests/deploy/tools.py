"""The tools that judge what lies in `deploy/`, where they are to be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"


def tool(name: str, where: str) -> str:
    """The path of a program; the test is skipped where it is missing, and failed where it has to be there."""
    beside = Path(sys.executable).parent
    places = [beside, beside.parent / "tools/usr/bin", *map(Path, os.get_exec_path()), _go_bin()]
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    if found is not None:
        return found
    _missing(f"{name} is missing ({where})")


def module(name: str, version: str) -> Path:
    """Where Go keeps the sources of a module that `.ci/tools` fetched; skipped or failed as `tool` does."""
    home = Path(os.environ.get("GOPATH", Path.home() / "go"))
    place = Path(os.environ.get("GOMODCACHE", home / "pkg" / "mod")) / f"{name}@{version}"
    if not place.is_dir():
        _missing(f"{name} is missing (.ci/tools)")
    return place


def said(*command: str | Path) -> str:
    """What a program that has to succeed prints."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _go_bin() -> Path:
    return Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin"
