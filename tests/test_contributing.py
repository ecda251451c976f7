"""The examples of the contributing guide are tests, and they pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tutorial import blocks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "contributing.md"
EXAMPLES = dict(zip(("signal", "backend", "architecture"), blocks("python test", PAGE), strict=True))


SLOW = {"architecture"}
"""It imports TensorFlow."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in EXAMPLES])
def test_an_example_passes(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"test_{name}.py"
    path.write_text(EXAMPLES[name], encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={ROOT}", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_written_as_the_rest_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(EXAMPLES[name], encoding="utf-8")
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    done = subprocess.run(
        [*ruff, "format", "--diff", "--config", str(ROOT / "pyproject.toml"), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
