"""Programs from outside the project that some tests look with; `.ci/tools` gets them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


def found(name: str) -> str | None:
    """Where a program is: on the path, or unpacked beside the environment."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.prefix) / "tools" / "usr" / "bin"))


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where the program is missing."""
    return pytest.mark.skipif(found(name) is None, reason=f"{name} is not installed (.ci/tools)")
