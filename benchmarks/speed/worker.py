"""One measurement in a process of its own; prints a JSON line. Started by `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What a serving process has in its memory beside the pipeline.
from benchmarks.speed.models import DEVIATION, MEAN, model_for_everyone
from detector.arrays import F32
from detector.cli.main import COLLECT
from detector.config.load import Config
from detector.detection.signals import WINDOW
from detector.engine.scorestream import ScoreStream
from detector.models.bundle.bundles import load_bundle
from detector.models.runtime.onnx import CHUNK, OnnxRuntime
from detector.service.pipelines import make_decoder, pipeline_factory
from detector.streams.base import Batch, Partition, Record

BATCH = 5000
FILL_SENSORS = 500
"""Sensors whose windows are filled by one batch."""
START = 1_790_000_000
PARTITION = Partition("sensor-readings", 0)
BARE_SIZES = {"dense": (256, 1000, 4000), "lstm": (16, 32, 64, 128)}
BARE_SECONDS = 1.0
ROUNDS = 3
MOST_IN_ALARM = 0.02
"""Share of sensors with an open episode beyond which the profile does not fit the load."""
MANY = 100_000
"""Sensors from which on one round is long enough."""


def pipeline_speed(models: Path, kind: str, sensors: int, ticks: int, batch: int, each: int) -> dict[str, float]:
    """Readings a second of full windows at stride 1, `each` readings a message, and the memory after that.

    `cpu`: microseconds of processor time a reading. `bare`: windows a second of ONNX Runtime alone in batches of
    `batch`, measured in turns with the former, so that both have the same share of a machine that others use, too.
    """
    config = Config()
    model = model_for_everyone(models / kind)
    decoder = make_decoder(config, sensor=None, interval=None, live=True)
    pipeline = pipeline_factory(config, model, decoder)(PARTITION)
    rng = np.random.default_rng(0)
    offset = 0
    for first in range(0, sensors, FILL_SENSORS):
        values = rng.normal(MEAN, DEVIATION, (min(FILL_SENSORS, sensors - first), WINDOW))
        records = [_several(first + i, row, offset + i) for i, row in enumerate(values.round(3).tolist())]
        offset += len(records)
        pipeline.process(Batch(PARTITION, records, offset))
    session, windows = _bare(models, kind, batch)
    rates, cpu, bare = [], [], []
    for number in range(ROUNDS if sensors < MANY else 1):
        seconds = spent = accepted = 0.0
        for taken in _live(rng, sensors, START + WINDOW + number * ticks, ticks, offset, each):
            offset = taken.next_offset
            began, before = time.perf_counter(), time.process_time()
            accepted += pipeline.process(taken).tally.accepted
            seconds += time.perf_counter() - began
            spent += time.process_time() - before
        rates.append(accepted / seconds)
        cpu.append(1e6 * spent / accepted)
        bare.append(_runs_a_second(session, windows, BARE_SECONDS / 2) * batch)
    if pipeline.open_episodes > max(1, sensors * MOST_IN_ALARM):
        raise RuntimeError(f"{pipeline.open_episodes} of {sensors} sensors are in an alarm: this is no normal load")
    return {"rate": max(rates), "cpu": min(cpu), "bare": max(bare), "rss": resident(), "sensors": pipeline.sensors}


def scores_speed(models: Path, kind: str, sensors: int, ticks: int) -> dict[str, float]:
    """Readings a second of processor time with the stream of scores, and as `bare` without it, measured in turns."""
    config = Config()
    model = model_for_everyone(models / kind)
    decoder = make_decoder(config, sensor=None, interval=None, live=True)
    stream = ScoreStream("scores", config.readings.channels)
    pipelines = [pipeline_factory(config, model, decoder, keep_rows=keep)(PARTITION) for keep in (True, False)]
    rates: list[list[float]] = [[], []]
    rng, begin, scored = np.random.default_rng(0), 0, 0
    for number in range(1 + ROUNDS):
        rows = ticks if number else WINDOW  # the first round fills the windows
        batches = list(_live(rng, sensors, START + begin, rows, begin * sensors))
        begin += rows
        for pipeline, found in zip(pipelines, rates, strict=True):
            began = time.process_time()
            for batch in batches:
                output = pipeline.process(batch)
                stream.add(PARTITION, output.rows)
                stream.take()
                scored += sum(map(len, output.scores))
            found.append(sensors * rows / (time.process_time() - began))
    if scored != 2 * sensors * (1 + ROUNDS * ticks):
        raise RuntimeError(f"{scored} rows were scored: not every window was full")
    return {"rate": max(rates[0][1:]), "bare": max(rates[1][1:])}


def _several(sensor: int, values: list[float], offset: int, start: int = START) -> Record:
    stamps = ",".join(str(start + i) for i in range(len(values)))
    body = f'{{"sensor_id":"sensor-{sensor}","timestamps":[{stamps}],"values":[{",".join(map(str, values))}]}}'
    return Record(offset, None, body.encode())


def _live(
    rng: np.random.Generator, sensors: int, start: int, ticks: int, offset: int, each: int = 1
) -> Iterator[Batch]:
    """`ticks` readings of every sensor, in batches of as many records as a daemon takes, of at most 5 000 readings."""
    records: list[Record] = []
    for tick in range(0, ticks, each):
        rows = rng.normal(MEAN, DEVIATION, (sensors, min(each, ticks - tick))).round(3).tolist()
        for sensor, values in enumerate(rows):
            if each == 1:
                body = b'{"sensor_id":"sensor-%d","timestamp":%d,"value":%.3f}' % (sensor, start + tick, values[0])
                record = Record(offset, None, body)
            else:
                record = _several(sensor, values, offset, start + tick)
            records.append(record)
            offset += 1
            if len(records) * each >= BATCH:
                yield Batch(PARTITION, records, offset)
                records = []
    if records:
        yield Batch(PARTITION, records, offset)


def bare_speed(models: Path, kind: str) -> dict[str, float]:
    """Windows a second of ONNX Runtime alone, one thread, at its best batch size."""
    rates = {}
    for size in sorted({*BARE_SIZES[kind], CHUNK[kind]}):
        session, windows = _bare(models, kind, size)
        rates[size] = size * _runs_a_second(session, windows, BARE_SECONDS)
    best = max(rates, key=lambda size: rates[size])
    return {"rate": rates[best], "batch": best}


def _bare(models: Path, kind: str, batch: int) -> tuple[Any, dict[str, F32]]:
    """The same session as in the product, without what is built around it, and what to feed it."""
    session = OnnxRuntime.load(load_bundle(models / kind).path / "model.onnx", kind)._session  # noqa: SLF001
    windows = np.random.default_rng(0).normal(size=(batch, WINDOW, 1)).astype(np.float32)
    return session, {session.get_inputs()[0].name: windows}


def _runs_a_second(session: Any, feed: dict[str, F32], seconds: float) -> float:
    session.run(None, feed)
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session.run(None, feed)
        runs += 1
    return runs / (time.perf_counter() - began)


def resident() -> float:
    """This process's resident memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) * 1024
    raise OSError("the kernel does not say how much memory is resident")


def main() -> int:
    """Measure one thing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.worker")
    parser.add_argument("what", choices=("pipeline", "bare", "scores"))
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--sensors", type=int, default=1)
    parser.add_argument("--ticks", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1)
    args = parser.parse_args()
    gc.set_threshold(*COLLECT)
    if args.what == "bare":
        result = bare_speed(args.models, args.kind)
    elif args.what == "scores":
        result = scores_speed(args.models, args.kind, args.sensors, args.ticks)
    else:
        result = pipeline_speed(args.models, args.kind, args.sensors, args.ticks, args.batch, args.each)
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow was imported: memory and speed are not those of a serving process")
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
