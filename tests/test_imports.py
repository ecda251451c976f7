"""What a command costs before it does anything: it imports what it needs and no more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "keras", "onnxruntime", "onnx", "tf2onnx", "kafka", "numpy", "pydantic", "prometheus_client")

SCRIPT = """
import json, sys
from detector.cli.main import main
status = main(sys.argv[1:])
print("\\n" + json.dumps([status, sorted(name for name in sys.modules if "." not in name)]))
"""


def imported_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    return set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [("simulate", "--out", "-", "--sensors", "1", "--rows", "1"), ("schema", "reading"), ("schema", "alert")],
)
def test_commands_without_a_model_import_no_model_library(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments).isdisjoint({"tensorflow", "keras", "onnxruntime", "onnx", "tf2onnx", "kafka"})


@pytest.mark.parametrize("module", ["detector.service.metrics", "detector.service.web.server", "detector.service.logs"])
def test_the_service_imports_no_training_library(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()).isdisjoint({"tensorflow", "keras", "tf2onnx"})
