"""Thousands of sensors whose interval grows tenfold at once: `python -m benchmarks.speed.relearning`.

All of them learn it again in the same minutes, and the profiles of all are made on readings of one batch. The partition
pauses meanwhile, in pieces: what is measured is the longest time without a sign of life. What comes out has to be what
comes out where every message is a batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.speed.gates import Gate, gate_table, kept
from benchmarks.speed.machine import Machine
from benchmarks.speed.models import DEVIATION, MEAN, ensure_models, model_for_everyone
from benchmarks.speed.worker import PARTITION, START
from detector.config.load import Config
from detector.detection.scorer import Model
from detector.detection.signals import WINDOW
from detector.service.pipelines import make_decoder, pipeline_factory
from detector.streams.base import Batch, Record

SENSORS, SOME = 5_000, 10
"""Sensors that relearn at once; those of a run in which every message is a batch."""
SILENT_SECONDS = 1.0
"""Without a sign of life, at most."""
ROWS = 10
"""Readings a message."""
QUIET = WINDOW + 50
"""Readings at the interval of the profile, before it grows, and in good health once the new one is known."""
SLOWER = 10
FAULT_ROWS, FAULT, FAULTY = 30, 20.0, 10
"""At the end every tenth sensor has a fault: rows, deviations."""


@dataclass(slots=True)
class Run:
    """What came of readings: alerts, the state at the end, sensors that relearnt, and those of them not watched again.

    `silent`: the longest time without a sign of life, `longest`: of the batch that took longest; seconds.
    """

    alerts: list[bytes] = field(default_factory=list)
    state: bytes = b""
    relearnt: set[str] = field(default_factory=set)
    unwatched: set[str] = field(default_factory=set)
    silent: float = 0.0
    longest: float = 0.0


def main() -> int:
    """Measure, print, and compare with what is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.relearning", description=__doc__)
    parser.add_argument("--sensors", type=int, default=SENSORS)
    parser.add_argument("--models", type=Path, default=Path("var/benchmarks/models"), metavar="DIR")
    args = parser.parse_args()
    machine = Machine()
    ensure_models(args.models, ("dense",))
    model = model_for_everyone(args.models / "dense")
    many = run(model, args.sensors, args.sensors)
    together, alone = run(model, SOME, SOME), run(model, SOME, 1)
    same = (together.alerts, together.state) == (alone.alerts, alone.state)
    console = Console()
    console.print(f"The batch in which the profiles are made takes {many.longest:.1f} s; {len(many.alerts)} alerts")
    name = f"{args.sensors:,} sensors relearn"
    gates = [
        Gate(f"{name}: seconds without a sign of life", many.silent, SILENT_SECONDS, at_most=True),
        Gate(f"{name}: that did", len(many.relearnt), args.sensors, timed=False),
        Gate(f"{name}: not watched at the end", len(many.unwatched), 0, at_most=True, timed=False),
        Gate(f"{name}: alerts", len(many.alerts), args.sensors // FAULTY, timed=False),
        Gate(f"{SOME} sensors relearn: the same where every message is a batch", float(same), 1.0, timed=False),
    ]
    console.print(gate_table(gates, machine))
    return 0 if kept(gates, machine) else 1


def run(model: Model, sensors: int, at_once: int) -> Run:
    """Messages of that many sensors, so many a batch."""
    found, config = Run(), Config()
    signs: list[float] = []

    def sign() -> None:
        signs.append(time.process_time())

    decoder = make_decoder(config, sensor=None, interval=None, live=True)
    pipeline = pipeline_factory(config, model, decoder, sign)(PARTITION)
    for batch in _batches(sensors, config.readings.warmup, at_once):
        signs.clear()
        sign()
        output = pipeline.process(batch)
        sign()
        found.alerts += [alert.value for alert in output.alerts]
        for change in output.watch_changes:
            if change.reason == "relearning":
                found.relearnt.add(change.sensor_id)
            keep = found.unwatched.discard if change.reason is None else found.unwatched.add
            keep(change.sensor_id)
        found.silent = max(found.silent, *(after - before for before, after in pairwise(signs)))
        found.longest = max(found.longest, signs[-1] - signs[0])
    found.state = pipeline.snapshot()
    return found


def _batches(sensors: int, warmup: int, at_once: int) -> Iterator[Batch]:
    """All sensors by turns."""
    rng, offset = np.random.default_rng(5), 0
    rows = -(-(QUIET + warmup + QUIET + FAULT_ROWS) // ROWS) * ROWS
    row = np.arange(rows)
    seconds = START + row + (SLOWER - 1) * np.maximum(row - QUIET, 0)
    for begin in range(0, rows, ROWS):
        values = rng.normal(MEAN, DEVIATION, (sensors, ROWS))
        if begin >= rows - FAULT_ROWS:
            values[::FAULTY] += FAULT * DEVIATION
        messages = _messages(seconds[begin : begin + ROWS].tolist(), values.round(3).tolist())
        for first in range(0, sensors, at_once):
            records = [Record(offset + i, None, one) for i, one in enumerate(messages[first : first + at_once])]
            offset += len(records)
            yield Batch(PARTITION, records, offset)


def _messages(seconds: Sequence[int], values: Sequence[Sequence[float]]) -> list[bytes]:
    stamps = ",".join(map(str, seconds))
    return [
        f'{{"sensor_id":"sensor-{sensor}","timestamps":[{stamps}],"values":[{",".join(map(str, those))}]}}'.encode()
        for sensor, those in enumerate(values)
    ]


if __name__ == "__main__":
    sys.exit(main())
