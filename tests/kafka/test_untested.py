"""A machine without a broker skips these tests; continuous integration must not pass like that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kafka.conftest import ADDRESS

ROOT = Path(__file__).parents[2]
ON_ANY = "tests/kafka/test_topics.py::test_missing_topics_are_named"
ON_OUR_OWN = "tests/kafka/test_faults.py::test_the_broker_may_be_killed"


def run(test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", ADDRESS)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("ci", [False, True])
def test_without_java(ci: bool, tmp_path: Path) -> None:
    done = run(ON_ANY, PATH=str(tmp_path), **({"CI": "true"} if ci else {}))
    assert done.returncode == (1 if ci else 0), done.stdout
    assert ("1 error" if ci else "1 skipped") in done.stdout
    assert "there is no `java` to run the broker with" in done.stdout


@pytest.mark.parametrize("ci", [False, True])
def test_a_broker_that_must_not_be_killed(ci: bool) -> None:
    done = run(ON_OUR_OWN, **{ADDRESS: "localhost:1"}, **({"CI": "true"} if ci else {}))
    assert done.returncode == (1 if ci else 0), done.stdout
    assert ("1 error" if ci else "1 skipped") in done.stdout
