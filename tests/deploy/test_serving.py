"""The wheel in an environment made of the serving image's requirements: it installs, runs, and needs nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector import __version__
from detector.detection.kernel.build import SOURCES
from tests.deploy.tools import PROJECT
from tests.tiny import json_lines, tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOBODY = 54321
"""A user id that no machine knows, as some clusters give to containers."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed from, as in a clean checkout."""
    place = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(PROJECT / name, place)
    for name in ("detector", "deploy"):
        shutil.copytree(PROJECT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return place


@pytest.fixture(scope="module")
def serving(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `detector` command of `make install-serve`, which installs what the serving image has."""
    directory = tmp_path_factory.mktemp("serving") / "detector"
    command = ["make", "-C", str(source), "install-serve", f"SERVE={directory}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and os.environ.get("CI") != "true" and "connection" in done.stderr.lower():
        pytest.skip("there is no package index to be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "bin/detector"


def test_the_wheel_says_its_version(serving: Path) -> None:
    done = subprocess.run([serving, "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout
    assert list(serving.parents[1].glob(f"lib/python*/site-packages/detector-{__version__}.dist-info"))


def test_the_wheel_has_a_library_of_each_source(serving: Path) -> None:
    (record,) = serving.parents[1].glob("lib/python*/site-packages/detector-*.dist-info/RECORD")
    names = {line.split(",")[0] for line in record.read_text(encoding="utf-8").splitlines()}
    for source in SOURCES:
        name = str(source.relative_to(PROJECT))
        assert {name, name.removesuffix("c") + "so"} <= names


def test_it_is_small(serving: Path) -> None:
    said = subprocess.run(["du", "-sm", str(serving.parents[1])], capture_output=True, text=True, check=True).stdout
    assert int(said.split()[0]) < 300, said


def test_nothing_of_training_is_there(serving: Path) -> None:
    names = ["tensorflow", "keras", "onnx", "matplotlib"]
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    done = subprocess.run([serving.with_name("python"), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_daemon_finds_what_it_finds_elsewhere(serving: Path, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models")
    (tmp_path / "in.jsonl").write_bytes(json_lines())
    here = run(Path(sys.executable).with_name("detector"), tmp_path, tmp_path / "here.jsonl")
    there = run(serving, tmp_path, tmp_path / "there.jsonl")
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    alerts = (tmp_path / "there.jsonl").read_bytes()
    assert alerts == (tmp_path / "here.jsonl").read_bytes()
    events = [json.loads(line)["event"] for line in alerts.splitlines()]
    assert events == ["opened", *["updated"] * (len(events) - 2), "closed"], "the fault of the plant"


def test_training_without_tensorflow_says_so(serving: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(json_lines())
    command = [str(serving), "train", "--data", "in.jsonl", "--out", "models"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("detector: error: ")
    assert "TensorFlow" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root to become someone else")
def test_any_user_may_run_it_where_nothing_can_be_written(serving: Path, tmp_path: Path) -> None:
    # As in a container with a read-only root: readings come in and alerts go out through the pipe.
    tiny_bundle(tmp_path / "models")
    _open_to_all(tmp_path, serving.parents[1])
    command = [
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
        str(serving), "run", "--input", "-", "--output", "-", "--set", f"readings.model={tmp_path / 'models'}",
        "--set", "http.listen=127.0.0.1:0",
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, input=json_lines(), cwd="/", env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b'"opened"' in done.stdout


def test_a_missing_model_volume_is_named(serving: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(json_lines())
    done = run(serving, tmp_path, tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "models" in done.stderr.splitlines()[-1]


def test_the_tensorflow_runtime_is_not_there(serving: Path, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models")
    (tmp_path / "in.jsonl").write_bytes(json_lines())
    done = run(serving, tmp_path, tmp_path / "out.jsonl", "--set", "readings.runtime=tensorflow")
    assert done.returncode == 2
    assert "TensorFlow is not installed here (readings.runtime: tensorflow)" in done.stderr.splitlines()[-1]


def run(detector: Path, directory: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(detector), "run", "--input", "in.jsonl", "--output", str(output), "--until-end",
        "--set", "readings.model=models", "--set", "http.listen=127.0.0.1:0", *more,
    ]  # fmt: skip
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def _open_to_all(*places: Path) -> None:
    """Let everyone read what lies there, and pass through what lies above."""
    for place in places:
        for parent in place.parents:
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        for path in (place, *place.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
