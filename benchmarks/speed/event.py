"""A plant-wide event: `python -m benchmarks.speed.event`.

Every sensor gets a fault, all of them within some 90 rows, as in `benchmarks.speed.kafka`; but in memory, and each has
a forecast of its own. What is measured is what an alert costs over all its messages: the processor time of the event
beyond that of the same readings without a fault.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.speed.gates import Gate, gate_table, kept
from benchmarks.speed.machine import Machine
from benchmarks.speed.models import DEVIATION, MEAN, ensure_models, model_for_everyone
from benchmarks.speed.worker import PARTITION, START
from detector.config.load import Config
from detector.detection.profile import Profile
from detector.detection.scorer import Model
from detector.detection.signals import WINDOW
from detector.service.pipelines import make_decoder, pipeline_factory
from detector.streams.base import Batch, Record

SENSORS, TICKS = 1000, 120
"""Sensors; readings of each after its window is full."""
FAULT, LEAST = 10, 30
"""Deviations; rows that a fault has at least before the end."""
COST = 4.0
"""Processor time of an alert in ms, at most: at 50 new alerts a second a fifth of one core."""


def main() -> int:
    """Measure, print, and compare with what is asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.event", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("var/benchmarks/models"), metavar="DIR")
    args = parser.parse_args()
    machine = Machine()
    ensure_models(args.models, ("dense",))
    model = model_for_everyone(args.models / "dense")
    model = replace(model, profiles=_own_forecasts(model))
    _, usual = run(model, fault=0.0)
    alerts, event = run(model, fault=FAULT * DEVIATION)
    console = Console()
    console.print(f"{usual:.1f} s without faults, {event:.1f} s with {alerts} alerts")
    gates = [
        Gate("Sensors that alert", alerts, SENSORS, timed=False),
        Gate("Cost of an alert in ms", (event - usual) / max(alerts, 1) * 1e3, COST, at_most=True),
    ]
    console.print(gate_table(gates, machine))
    return 0 if kept(gates, machine) else 1


def run(model: Model, fault: float) -> tuple[int, float]:
    """How many alerts are opened, and the seconds of processor time."""
    config = Config()
    pipeline = pipeline_factory(config, model, make_decoder(config, sensor=None, interval=None, live=True))(PARTITION)
    opened, took = 0, 0.0
    for batch in list(_batches(fault)):
        begin = time.process_time()
        output = pipeline.process(batch)
        took += time.process_time() - begin
        opened += sum(b'"sequence":0,' in alert.value for alert in output.alerts)
    return opened, took


def _batches(fault: float) -> Iterator[Batch]:
    """One tick of all sensors is a batch."""
    rng, sensors, offset = np.random.default_rng(1), np.arange(SENSORS), 0
    for tick in range(WINDOW + TICKS):
        values = rng.normal(MEAN, DEVIATION, SENSORS)
        values[sensors % (TICKS - LEAST) + WINDOW <= tick] += fault
        records = [
            Record(
                offset + i, None, b'{"sensor_id":"sensor-%d","timestamp":%d,"value":%.3f}' % (i, START + tick, value)
            )
            for i, value in enumerate(values.tolist())
        ]
        offset += SENSORS
        yield Batch(PARTITION, records, offset)


def _own_forecasts(model: Model) -> dict[str, Profile]:
    """One profile, and a forecast of its own for each sensor."""
    rng, profile = np.random.default_rng(2), model.profiles["any"]
    shape = profile.ridge.shape
    return {
        f"sensor-{sensor}": replace(profile, ridge=profile.ridge + rng.normal(0, 0.005, shape).astype(np.float32))
        for sensor in range(SENSORS)
    }


if __name__ == "__main__":
    sys.exit(main())
