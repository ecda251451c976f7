"""What `backtest` and `tune` of one CSV file with a million rows take: seconds of processor time, whole commands."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.speed.gates import Gate
from benchmarks.speed.models import DEVIATION, MEAN
from benchmarks.speed.worker import START

ROWS: Final = 1_000_000
SECONDS: Final = {"backtest": 6.0, "tune": 10.0}
"""At most."""


def recording_gates(models: Path) -> list[Gate]:
    """Both commands over the same file."""
    with tempfile.TemporaryDirectory(prefix="detector-bench-") as directory:
        file = Path(directory) / "pump.csv"
        values = np.random.default_rng(3).normal(MEAN, DEVIATION, ROWS).round(4).tolist()
        rows = "".join(f"{START + at},{value}\n" for at, value in enumerate(values))
        file.write_text(f"timestamp,value\n{rows}")
        return [
            Gate(f"{command}: processor seconds of a million rows", _seconds(command, file, models), most, at_most=True)
            for command, most in SECONDS.items()
        ]


def _seconds(command: str, file: Path, models: Path) -> float:
    options = ["--data", str(file), "--set", f"readings.model={(models / 'dense').resolve()}"]
    before = _of_children()
    subprocess.run(
        [sys.executable, "-m", "detector.cli.main", command, *options],
        check=True, stdout=subprocess.DEVNULL, cwd=file.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
