"""Readings and frames a second, whole recordings, and memory, without a broker: `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.speed.frames import CAMERAS, FORMS, GATES, ensure_frame_model, measure_frames
from benchmarks.speed.gates import Gate, gate_table, kept
from benchmarks.speed.machine import Machine
from benchmarks.speed.models import KINDS, ensure_models
from benchmarks.speed.recordings import recording_gates

SENSORS = (1, 1_000, 10_000, 100_000)
TICKS = {
    "dense": {1: 5_000, 1_000: 50, 10_000: 5, 100_000: 1},
    "lstm": {1: 2_000, 1_000: 10, 10_000: 1, 100_000: 1},
}
LARGEST, SMALL = 100_000, 1_000
MICROSECONDS = {1: 1.5, 1_000: 1.0, 10_000: 1.1}
"""Of processor time a reading at most, dense, by the number of sensors."""
EACH, EACH_TICKS, EACH_MICROSECONDS = 100, 1_000, 0.40
"""The same of 1 000 sensors with 100 readings a message."""
BASE_MB, SENSOR_BYTES, READY_SECONDS, LSTM_SHARE = 150, 3 * 1024, 2.0, 1.5
_MB = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a budget was missed."""
    args = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    began, machine = time.monotonic(), Machine()
    ensure_models(args.models)
    table = Table(title="One partition, one thread, stride 1", title_justify="left", title_style="bold")
    for column in ("model", "sensors", "readings/s", "CPU µs a reading", "of bare ONNX Runtime", "memory MB"):
        table.add_column(column, justify="left" if column == "model" else "right")
    gates: list[Gate] = []
    for kind in args.kinds:
        memory: dict[int, float] = {}
        bare = measure("bare", args.models, kind)
        table.add_row(kind, f"bare, batch {bare['batch']:.0f}", f"{bare['rate']:,.0f}", "", "1", "")
        for sensors in args.sensors:
            size = {"sensors": sensors, "ticks": TICKS[kind][sensors], "batch": int(bare["batch"])}
            found = measure("pipeline", args.models, kind, **size)
            memory[sensors] = found["rss"]
            share = found["rate"] / found["bare"]
            table.add_row(
                kind, f"{sensors:,}", f"{found['rate']:,.0f}", f"{found['cpu']:.2f}", f"{share:.2g}",
                f"{found['rss'] / _MB:.0f}",
            )  # fmt: skip
            if kind == "dense" and sensors in MICROSECONDS:
                what = f"dense: microseconds of processor time a reading, {sensors:,} sensors"
                gates.append(Gate(what, found["cpu"], MICROSECONDS[sensors], at_most=True))
            if kind == "lstm" and sensors == SMALL:
                gates.append(Gate("lstm windows/s of bare ONNX Runtime, 1 000 sensors", share, LSTM_SHARE))
        if kind == "dense" and SMALL in args.sensors:
            size = {"sensors": SMALL, "ticks": EACH_TICKS, "batch": int(bare["batch"]), "each": EACH}
            found = measure("pipeline", args.models, kind, **size)
            share = found["rate"] / found["bare"]
            table.add_row(
                kind, f"{SMALL:,}, {EACH} a message", f"{found['rate']:,.0f}", f"{found['cpu']:.2f}", f"{share:.2g}", ""
            )
            what = f"dense: microseconds of processor time a reading, {SMALL:,} sensors, {EACH} a message"
            gates.append(Gate(what, found["cpu"], EACH_MICROSECONDS, at_most=True))
        if memory.keys() >= {SMALL, LARGEST}:
            each = (memory[LARGEST] - memory[SMALL]) / (LARGEST - SMALL)
            gates.append(Gate(f"{kind}: bytes a sensor", each, SENSOR_BYTES, at_most=True, timed=False))
            base = (memory[SMALL] - SMALL * each) / _MB
            gates.append(Gate(f"{kind}: MB of the process without sensors", base, BASE_MB, at_most=True, timed=False))
        if kind == "dense" and SMALL in args.sensors:
            found = measure("scores", args.models, kind, sensors=SMALL, ticks=TICKS[kind][SMALL])
            share = found["rate"] / found["bare"]
            console.print(f"With output.scores, {SMALL:,} sensors: {share:.2g} of the readings/s without")
        table.add_section()
    ensure_frame_model(args.models)
    frames = Table(title="Frames, one processor for decoding and scoring", title_justify="left", title_style="bold")
    for column in ("frames", "cameras", "frames/s", "bare decoding and ONNX Runtime", "share"):
        frames.add_column(column, justify="left" if column == "frames" else "right")
    for cameras in CAMERAS:
        for form in FORMS:
            found = measure_frames(args.models, form, cameras)
            share = found["rate"] / found["bare"]
            frames.add_row(form, str(cameras), f"{found['rate']:,.0f}", f"{found['bare']:,.0f}", f"{share:.2g}")
            if (form, cameras) in GATES:
                gates.append(Gate(f"{form} frames/s of bare, {cameras} cameras", share, GATES[form, cameras]))
    if "dense" in args.kinds:
        gates += recording_gates(args.models)
    ready = min(start_and_stop(args.models / "dense") for _ in range(2))
    gates.append(Gate("seconds to start, find nothing and stop, on directory", ready, READY_SECONDS, at_most=True))
    console.print(table)
    console.print(frames)
    console.print(gate_table(gates, machine))
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if kept(gates, machine) else 1


def measure(what: str, models: Path, kind: str, **numbers: int) -> dict[str, float]:
    """One measurement in a fresh process."""
    options = [part for name, number in numbers.items() for part in (f"--{name}", str(number))]
    command = [sys.executable, "-m", "benchmarks.speed.worker", what, "--models", str(models), "--kind", kind]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True, env=_one_thread())
    result: dict[str, float] = json.loads(done.stdout)
    return result


def start_and_stop(model: Path) -> float:
    """Seconds from the start of `detector run` over an empty input to its end: an upper bound of when it is ready."""
    with tempfile.TemporaryDirectory(prefix="detector-bench-") as directory:
        data = Path(directory)
        (data / "sensor-readings.jsonl").touch()
        settings = {
            "streams.directory.path": str(data),
            "readings.model": str(model.resolve()),
            "http.listen": "127.0.0.1:0",
        }
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "detector.cli.main", "run", "--until-end", *options],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return time.monotonic() - began


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--sensors", nargs="+", type=int, choices=SENSORS, default=list(SENSORS), metavar="N")
    parser.add_argument(
        "--models", type=Path, default=Path("var/benchmarks/models"), metavar="DIR", help="trained once, then kept"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
