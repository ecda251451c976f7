"""The daemon on a real broker, beside its limits and its rivals: `python -m benchmarks.speed.kafka`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.speed.daemons import Group, TooShortError
from benchmarks.speed.gates import Gate, gate_table, kept
from benchmarks.speed.latency import RATE, latencies
from benchmarks.speed.machine import Machine
from benchmarks.speed.models import bundle_for, ensure_models
from benchmarks.speed.topics import PARTITIONS, SENSORS, Filled, fill_batched, fill_single, name_of
from tests.kafka.broker import Broker, UnavailableError

QUIX = ("quixstreams==3.28.1", "onnxruntime>=1.32,<1.33", "numpy>=2.1,<2.5")
COMMIT_SECONDS = 0.1
P99_SECONDS = 0.18
BATCHED_ROUNDS = 150
"""Messages of 100 readings of each sensor: some seconds of them."""
_NO_SLICES = {"state__snapshot_interval": "365d"}
_FEW_COMMITS = {"streams__kafka__commit_interval": "1s"}
_SCORES = {"output__scores": "bench-scores"}
_LIMITS = {"single": "bare poll, one reading a message", "batched": "bare poll and decode, 100 readings a message"}


class Bench:
    """Everything measured so far, in readings a second, by name."""

    def __init__(self, broker: Broker, models: Path, directory: Path, console: Console, quick: bool) -> None:
        self.rates: dict[str, float] = {}
        self.costs: dict[str, float] = {}
        """Microseconds of processor time a reading."""
        self.ratios: dict[str, list[float]] = {}
        """Of the processor time of a limit and of what was measured next to it, each time."""
        self.notes: list[str] = []
        self._broker = broker
        self._models = models
        self._directory = directory
        self._console = console
        self._seconds = 5.0 if quick else 12.0
        for topic in ("single", "batched", "live"):
            broker.create_topic(topic, PARTITIONS)
        broker.create_topic("rival-out", 1)
        self.single = fill_single(broker.address, "single", 700)
        self.batched = fill_batched(broker.address, "batched", BATCHED_ROUNDS)

    def rival(self, what: str, rival: str, filled: Filled, *, seconds: float | None = None) -> None:
        """Measure a rival in a fresh process."""
        model = next(path for path in (self._models / "dense").iterdir() if path.is_dir())
        done = subprocess.run(
            [
                sys.executable, "-m", "benchmarks.speed.rivals", rival, "--address", self._broker.address,
                "--topic", filled.name, "--model", str(model), "--skip", str(filled.filling),
                "--limit", str(filled.messages), "--seconds", str(seconds or self._seconds),
            ],
            check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._note(what, json.loads(done.stdout), filled)

    def daemon(self, what: str, kind: str, filled: Filled, count: int = 1, **settings: str) -> None:
        """Measure daemons."""
        group = Group(self._broker, self._bundle(kind), filled.name, self._directory, **settings)
        try:
            self.rates[what], self.costs[what] = group.speed(filled, count, self._seconds)
        except TooShortError as error:
            self.notes.append(f"{what}: over after {error}, too short for a rate, left out.")
            return
        self._tell(what)

    def pair(self, limit: str, rival: str, what: str, filled: Filled, rounds: int) -> None:
        """Measure the dense daemon right after its limit, several times: a busy machine is so to both."""
        rates: dict[str, list[float]] = {limit: [], what: []}
        costs: dict[str, list[float]] = {limit: [], what: []}
        for _ in range(rounds):
            for name in rates:
                self.rates.pop(name, None)
            self.rival(limit, rival, filled)
            self.daemon(what, "dense", filled)
            if what in self.rates:
                self.ratios.setdefault(what, []).append(self.costs[limit] / self.costs[what])
            for name in rates.keys() & self.rates.keys():
                rates[name].append(self.rates[name])
                costs[name].append(self.costs[name])
        self.rates |= {name: float(np.median(found)) for name, found in rates.items() if found}
        self.costs |= {name: float(np.median(found)) for name, found in costs.items() if found}

    def quix(self, what: str, environment: Path) -> None:
        """Measure Quix Streams in its own environment, made if need be; a note where that cannot be."""
        python = environment / "bin" / "python"
        try:
            if not (environment / "ready").exists():
                venv.create(environment, with_pip=True, clear=True)
                subprocess.run([python, "-m", "pip", "install", "-q", *QUIX], check=True, capture_output=True)
                (environment / "ready").touch()
        except (OSError, subprocess.CalledProcessError) as error:
            self.notes.append(f"Quix Streams cannot be installed ({error}) and is left out.")
            return
        model = next(path for path in (self._models / "dense").iterdir() if path.is_dir())
        copy = self._directory / "quix.onnx"
        copy.write_bytes((model / "model.onnx").read_bytes())
        job = Path(__file__).with_name("quix_job.py")
        command = [python, job, self._broker.address, self.single.name, copy, self.single.filling, self.single.messages]
        done = subprocess.run([*map(str, command), str(self._seconds)], capture_output=True, text=True)
        if done.returncode:
            self.notes.append(f"Quix Streams failed and is left out: {done.stderr.strip().splitlines()[-1:]}")
            return
        self._note(what, json.loads(done.stdout.splitlines()[-1]), self.single)

    def latency(self) -> tuple[float, float, int]:
        """p50 and p99 in seconds, and of how many alerts."""
        group = Group(self._broker, self._bundle("dense"), "live", self._directory)
        found = latencies(group, self._broker.address, "live")
        if not len(found):
            self.notes.append("No alert came through: no latency.")
            return float("inf"), float("inf"), 0
        return float(np.quantile(found, 0.5)), float(np.quantile(found, 0.99)), len(found)

    def _bundle(self, kind: str) -> Path:
        target = self._directory / f"{kind}-for-all"
        if not target.exists():
            bundle_for(self._models / kind, target, [name_of(sensor) for sensor in range(SENSORS)])
        return target

    def _note(self, what: str, result: dict[str, float], filled: Filled) -> None:
        readings = result["messages"] * filled.readings_per_message
        self.rates[what] = readings / max(result["seconds"], 1e-9)
        if "cpu" in result:
            self.costs[what] = 1e6 * result["cpu"] / max(readings, 1)
        self._tell(what)

    def _tell(self, what: str) -> None:
        cost = f", {self.costs[what]:.2f} µs of processor time each" if what in self.costs else ""
        self._console.print(f"{what}: {self.rates[what]:,.0f} readings/s{cost}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a budget was missed."""
    args = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    began, machine = time.monotonic(), Machine()
    ensure_models(args.models)
    with tempfile.TemporaryDirectory(prefix="detector-bench-") as name:
        directory = Path(name)
        try:
            with Broker(directory / "broker", lasting=True) as broker:
                bench = Bench(broker, args.models, directory, console, args.quick)
                measure(bench, args)
                p50, p99, count = bench.latency()
        except UnavailableError as error:
            console.print(f"No Kafka broker: {error}.")
            return 1
    gates = gates_of(bench.rates, p99, bench.ratios)
    console.print(rate_table(bench.rates, bench.costs))
    console.print(
        f"Produce to visible alert at {RATE} readings/s: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms ({count})"
    )
    for note in bench.notes:
        console.print(note)
    console.print(gate_table(gates, machine))
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if kept(gates, machine) else 1


def measure(bench: Bench, args: argparse.Namespace) -> None:
    """Every row of the table: what the budgets rest on first, and of the rest as much as there is time for."""
    began = time.monotonic()
    single, batched = bench.single, bench.batched
    rounds = 2 if args.quick else 3
    bench.pair(_LIMITS["single"], "poll", "daemon, dense", single, rounds)
    bench.pair(_LIMITS["batched"], "decode", "daemon, dense, 100 readings a message", batched, rounds)
    bench.rival("loop with ONNX Runtime", "onnx", single)
    if not args.without_tensorflow:
        bench.rival("loop with model.predict", "predict", single, seconds=5)
    if not args.without_quix:
        bench.quix("Quix Streams, exactly once", args.quix_environment)
    rest: list[tuple[str, Callable[[str], None]]] = [
        ("transactions that score nothing", lambda what: bench.rival(what, "transactional", single)),
        ("daemon, dense, no slices of state", lambda what: bench.daemon(what, "dense", single, 1, **_NO_SLICES)),
        ("daemon, dense, commits every 1 s", lambda what: bench.daemon(what, "dense", single, 1, **_FEW_COMMITS)),
        ("daemon, dense, with scores", lambda what: bench.daemon(what, "dense", single, 1, **_SCORES)),
        ("daemon, lstm", lambda what: bench.daemon(what, "lstm", single)),
        ("daemon, dense, 2 processes", lambda what: bench.daemon(what, "dense", single, 2)),
        ("daemon, lstm, 2 processes", lambda what: bench.daemon(what, "lstm", single, 2)),
        ("bare poll, 100 readings a message", lambda what: bench.rival(what, "poll", batched)),
        (
            "daemon, dense, 100 readings a message, 2 processes",
            lambda what: bench.daemon(what, "dense", batched, 2),
        ),
        (
            "daemon, dense, 100 readings a message, with scores",
            lambda what: bench.daemon(what, "dense", batched, 1, **_SCORES),
        ),
    ]
    for what, run in rest:
        if time.monotonic() - began > args.minutes * 60:
            bench.notes.append(f"{what}: no time left.")
            continue
        run(what)


def gates_of(rates: dict[str, float], p99: float, paired: Mapping[str, Sequence[float]]) -> list[Gate]:
    """The budgets; one of which a side is missing is missed: what was not measured was not kept.

    `paired`: ratios, by processor time, of those that were measured next to their limit, of which the median counts.
    """
    dense = "daemon, dense"
    ratios = [
        ("dense of bare poll", dense, _LIMITS["single"], 0.75),
        (
            "dense of poll and decode, 100 readings a message",
            f"{dense}, 100 readings a message",
            _LIMITS["batched"],
            0.35,
        ),
        ("dense against the loop with model.predict", dense, "loop with model.predict", 1000),
        ("dense against the loop with ONNX Runtime", dense, "loop with ONNX Runtime", 4),
        ("dense against Quix Streams", dense, "Quix Streams, exactly once", 4),
    ]
    unmeasured = float("nan")
    gates = [
        Gate(
            what,
            float(np.median(paired[one]))
            if one in paired and two in _LIMITS.values()
            else rates.get(one, unmeasured) / rates.get(two, unmeasured),
            limit,
        )
        for what, one, two, limit in ratios
    ]
    return [*gates, Gate("p99 in s", p99, P99_SECONDS, at_most=True)]


def rate_table(rates: dict[str, float], costs: dict[str, float]) -> Table:
    """Readings a second and processor time a reading, and each one's part of its limit by the former."""
    table = Table(title="1 000 sensors, stride 1, one broker", title_justify="left", title_style="bold")
    table.add_column("what")
    for column in ("readings/s", "of the limit", "CPU µs a reading"):
        table.add_column(column, justify="right")
    for what, rate in rates.items():
        limit = rates[_LIMITS["batched" if "100 readings" in what else "single"]]
        table.add_row(what, f"{rate:,.0f}", f"{rate / limit:.2g}", f"{costs[what]:.2f}" if what in costs else "")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.kafka", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter measurements")
    parser.add_argument(
        "--minutes", type=float, default=6.0, metavar="N", help="begin nothing after that which no budget rests on"
    )
    parser.add_argument("--without-quix", action="store_true")
    parser.add_argument("--without-tensorflow", action="store_true", help="not the loop with model.predict")
    base = Path("var/benchmarks")
    parser.add_argument("--models", type=Path, default=base / "models", metavar="DIR", help="trained once, then kept")
    parser.add_argument("--quix-environment", type=Path, default=base / "quix", metavar="DIR", help="made once")
    return parser


if __name__ == "__main__":
    sys.exit(main())
