"""A million sensors on files: what a checkpoint, a restart and a reading cost, and the memory of it all.

`python -m benchmarks.speed.many`: two processes one after the other, of which the first writes the checkpoint that the
second takes up. Some 5 GB of memory and 3 GB of disk; `--sensors 100000` is a smaller one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.speed.gates import Gate, gate_table, kept
from benchmarks.speed.machine import Machine
from benchmarks.speed.models import DEVIATION, MEAN, ensure_models, model_for_everyone
from benchmarks.speed.worker import PARTITION, START, resident
from detector.config.load import Config
from detector.detection.signals import WINDOW
from detector.engine.readings import ReadingsPipeline
from detector.service.pipelines import make_decoder, pipeline_factory
from detector.streams.aside import Aside
from detector.streams.base import Batch, Record
from detector.streams.checkpoint import Checkpoint, CheckpointFile, PartitionCheckpoint
from detector.streams.lines import Start

SENSORS = 1_000_000
MILLION = 1_000_000
PAUSE_SECONDS, RESTORE_SECONDS, SENSOR_BYTES, PEAK_GB = 2.0, 8.0, 3072, 4.5
"""At most, for a million sensors."""
SOME = 100_000
"""Readings whose cost is measured."""
MET = 20_000
"""Sensors that are met as any others; there are copies of them."""
BATCH_SENSORS = 500


def main() -> int:
    """Measure, print, and compare with what is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.many", description=__doc__)
    parser.add_argument("--sensors", type=int, default=SENSORS)
    parser.add_argument("--models", type=Path, default=Path("var/benchmarks/models"), metavar="DIR")
    parser.add_argument("--part", choices=("fill", "restore"), help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part is not None:
        part = _fill if args.part == "fill" else _restore
        sys.stdout.write(json.dumps(part(args.models, args.sensors, args.state)) + "\n")
        return 0
    machine = Machine()
    ensure_models(args.models, ("dense",))
    with tempfile.TemporaryDirectory(prefix="detector-many-") as directory:
        filled = _in_a_process("fill", args, directory)
        restored = _in_a_process("restore", args, directory)
    share = args.sensors / MILLION
    console = Console()
    console.print({"fill": filled, "restore": restored})
    many = f"{args.sensors:,} sensors"
    gates = [
        Gate(f"{many}: seconds the loop rests for a checkpoint", filled["pause"], PAUSE_SECONDS * share, at_most=True),
        Gate(f"{many}: seconds of a restore", restored["seconds"], RESTORE_SECONDS * share, at_most=True),
        Gate(f"{many}: bytes each", filled["each"], SENSOR_BYTES, at_most=True, timed=False),
        Gate(f"{many}: GB at most while it writes", filled["peak"], PEAK_GB, at_most=True, timed=False),
        Gate(f"{many}: GB at most while it restores", restored["peak"], PEAK_GB, at_most=True, timed=False),
    ]
    console.print(gate_table(gates, machine))
    return 0 if kept(gates, machine) else 1


def _in_a_process(part: str, args: argparse.Namespace, directory: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.speed.many", "--part", part, "--state", directory]
    options = ["--sensors", str(args.sensors), "--models", str(args.models)]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _pipeline(models: Path) -> ReadingsPipeline:
    config = Config().model_validate({"readings": {"sensors": {"max": 0}}})
    decoder = make_decoder(config, sensor=None, interval=None, live=True)
    return pipeline_factory(config, model_for_everyone(models / "dense"), decoder)(PARTITION)


def _fill(models: Path, sensors: int, directory: Path) -> dict[str, float]:
    pipeline = _pipeline(models)
    before = resident()
    offset = min(sensors, MET)
    for batch in _windows(offset):
        pipeline.process(batch)
    _multiply(pipeline, sensors)
    each = (resident() - before) / sensors
    rng = np.random.default_rng(1)
    batch = _readings(rng.integers(0, sensors, SOME).tolist(), offset)
    made = time.process_time()
    pipeline.process(batch)
    reading = (time.process_time() - made) / SOME
    del batch
    store, aside = CheckpointFile(directory), Aside()
    found = Checkpoint({PARTITION: PartitionCheckpoint("input", Start(offset))})
    began = time.perf_counter()
    pieces = pipeline.pieces()
    aside.begin(lambda: store.save(found, {PARTITION: pieces}))
    pause = time.perf_counter() - began
    aside.done(wait=True)
    written = time.perf_counter() - began
    return {"each": each, "reading_us": 1e6 * reading, "pause": pause, "written": written, "peak": _peak()}


def _restore(models: Path, sensors: int, directory: Path) -> dict[str, float]:
    pipeline = _pipeline(models)
    began = time.perf_counter()
    found = CheckpointFile(directory).load()
    if found is None:
        raise RuntimeError("there is no checkpoint")
    loaded = time.perf_counter() - began
    pipeline.restore(found.partitions[PARTITION].state or b"")
    seconds = time.perf_counter() - began
    if pipeline.sensors != sensors:
        raise RuntimeError(f"{pipeline.sensors} sensors came back")
    return {"loaded": loaded, "seconds": seconds, "peak": _peak()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _multiply(pipeline: ReadingsPipeline, sensors: int) -> None:
    """Add sensors up to so many: copies of those that were met, which takes seconds in place of an hour."""
    table = pipeline._table  # noqa: SLF001 - nothing else puts in sensors that never came
    met = len(table)
    for begin in range(met, sensors, BATCH_SENSORS):
        slots = np.arange(begin, min(begin + BATCH_SENSORS, sensors))
        table.extend([_name(slot) for slot in slots.tolist()])
        for column in table.columns:
            table[column.name][slots] = table[column.name][slots % met]


def _name(sensor: int) -> str:
    return f"sensor-{sensor}"


def _windows(sensors: int) -> Iterator[Batch]:
    """A window of each sensor, a message each."""
    stamps = ",".join(str(START + i) for i in range(WINDOW))
    rows = np.random.default_rng(0).normal(MEAN, DEVIATION, (BATCH_SENSORS, WINDOW)).round(3).tolist()
    tails = [f'"timestamps":[{stamps}],"values":[{",".join(map(str, row))}]}}' for row in rows]
    for first in range(0, sensors, BATCH_SENSORS):
        some = tails[: sensors - first]
        records = [Record(i, None, f'{{"sensor_id":"{_name(i)}",{tail}'.encode()) for i, tail in enumerate(some, first)]
        yield Batch(PARTITION, records, first + len(records))


def _readings(sensors: list[int], offset: int) -> Batch:
    """One reading each, the next second."""
    at = START + WINDOW
    records = [
        Record(offset + i, None, b'{"sensor_id":"%b","timestamp":%d,"value":%.3f}' % (_name(sensor).encode(), at, MEAN))
        for i, sensor in enumerate(sensors)
    ]
    return Batch(PARTITION, records, offset + len(records))


if __name__ == "__main__":
    sys.exit(main())
