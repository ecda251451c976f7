"""`python -m benchmarks.quality`: the product on labelled data, beside published rivals and a plain baseline."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.quality import images
from benchmarks.quality.benches import BENCHMARKS, Job
from benchmarks.quality.data import find_data
from benchmarks.quality.detection import Setup
from benchmarks.quality.drive import settings
from benchmarks.quality.results import Outcome, gate_table
from benchmarks.quality.workers import Workers
from detector.config.load import TrainingConfig
from detector.errors import UserError

NEEDS_DATA = {"overlap", "ranking", "nab", "machines-real"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, all of them if none is. Exit code: 0, 1 a gate missed, 2 no data."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if unknown := set(args.benchmark) - set(BENCHMARKS):
        parser.error(f"no benchmark {min(unknown)}; there are {', '.join(BENCHMARKS)}")
    chosen = list(dict.fromkeys(args.benchmark)) or list(BENCHMARKS)
    try:
        data = _data(args.data, chosen)
        chosen = available(chosen)
    except UserError as error:
        sys.stderr.write(f"benchmarks.quality: {error}\n")
        return 2
    began = time.monotonic()
    outcomes = []
    with ExitStack() as stack:
        models = Path(args.models or stack.enter_context(tempfile.TemporaryDirectory(prefix="detector-models-")))
        models.mkdir(parents=True, exist_ok=True)
        workers = stack.enter_context(Workers(args.jobs))
        setup = Setup(args.model, models, args.seed)
        job = Job(data, setup, args.shared, args.files, args.limit, args.quick, workers, args.preset is not None)
        for name in chosen:
            started = time.monotonic()
            try:
                outcome = BENCHMARKS[name](job)
            except UserError as error:
                sys.stderr.write(f"benchmarks.quality: {error}\n")
                return 2
            outcome.numbers["seconds"] = round(time.monotonic() - started, 1)
            outcomes.append(outcome)
            _print(outcome)
    gates = [gate for outcome in outcomes for gate in outcome.gates]
    sys.stdout.write(f"{gate_table(gates)}\n{time.monotonic() - began:.0f} s\n")
    if args.json:
        Path(args.json).write_text(json.dumps(_record(args, outcomes), indent=1) + "\n", encoding="utf-8")
    missed = any(gate.missed for gate in gates)
    if args.gate:
        sys.stdout.write("FAIL\n" if missed else "PASS\n")
    return int(args.gate and missed)


def _data(given: str | None, chosen: Sequence[str]) -> Path:
    try:
        return find_data(given)
    except UserError:
        if given is None and not NEEDS_DATA & set(chosen):
            return Path(os.devnull)
        raise


def available(chosen: list[str]) -> list[str]:
    """The benchmarks that can run; without the images all others. Raises UserError where there are no others."""
    if "images" not in chosen:
        return chosen
    try:
        images.require()
    except UserError as error:
        others = [name for name in chosen if name != "images"]
        if not others:
            raise
        sys.stderr.write(f"benchmarks.quality: images are skipped: {error}\n")
        return others
    return chosen


def _print(outcome: Outcome) -> None:
    for table in outcome.tables:
        sys.stdout.write(f"{table}\n")
    for note in outcome.notes:
        sys.stdout.write(f"{note}\n")
    sys.stdout.write(f"({outcome.name}: {outcome.numbers['seconds']:.0f} s)\n\n")
    sys.stdout.flush()


def _record(args: argparse.Namespace, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The result for a file: what was run, on what code, and what it came to."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", "detector", "benchmarks")),
        "arguments": {name: value for name, value in vars(args).items() if name != "json"},
        "configuration": {
            "readings": settings(1000, 10_000).model_dump(mode="json"),
            "training": TrainingConfig(seed=args.seed).model_dump(mode="json"),
        },
        "versions": {name: version(name) for name in ("numpy", "onnxruntime", "tensorflow")},
        "gates": [{**asdict(gate), "verdict": gate.verdict} for outcome in outcomes for gate in outcome.gates],
        "results": {outcome.name: outcome.numbers for outcome in outcomes},
    }


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("benchmark", nargs="*", help=f"{', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a figure does not pass")
    parser.add_argument("--data", metavar="DIR", help="labelled series ($DETECTOR_DATASETS, ../shared/datasets)")
    parser.add_argument("--files", metavar="GLOB", help="only series whose name matches")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N series of each group")
    parser.add_argument("--model", choices=("dense", "lstm"), default="dense")
    parser.add_argument("--preset", choices=("textbook",), help="images: the autoencoder of that preset, without gates")
    parser.add_argument("--shared", action="store_true", help="one model for all series of a group, not one each")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--quick", action="store_true", help="fewer synthetic rows, budgets and classes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--models", metavar="DIR", help="keep trained models here, and take them from here")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
