"""What the docstrings show is so."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

import detector

ROOT = Path(detector.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if ">>> " in path.read_text())


def test_there_are_examples() -> None:
    assert len(MODULES) > 10


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_examples_of_docstrings_hold(path: Path) -> None:
    module = importlib.import_module(".".join(("detector", *path.relative_to(ROOT).with_suffix("").parts)))
    with np.printoptions(legacy=False):
        found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed
