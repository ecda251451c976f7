"""Cameras end to end, on the real program: `python -m tests.verify_frames`.

Measures one-class AUROC on Fashion-MNIST (the package dataset-fashion-mnist, which has to be there); runs sensors and
cameras in one daemon, counts what the cameras found, kills the daemon with SIGKILL again and again and compares what
it published with the uninterrupted run's; and measures frames a second. Prints every check with what was measured,
and ends with a line PASS or FAIL and exit status 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.speed.frames import CAMERAS, FORMS, GATES, ensure_frame_model, measure_frames
from benchmarks.speed.machine import Machine
from detector.simulation.cameras import CAMERA_FAULTS
from detector.streams.base import Partition
from detector.streams.checkpoint import CheckpointFile
from tests.verify_core import EARLY, START_SECONDS, Checks, append, detector, gather, recount
from tests.waiting import wait_until

STREAMS: Final = ("sensor-readings", "image-frames")
ALERTS, LETTERS = "anomaly-alerts.jsonl", "detector-dead-letters.jsonl"
SENSORS, SEEN, ROWS = 4, 3, 4000
FOUND_AT_LEAST: Final = 0.65
"""The share of the cameras' faults."""
BUDGET: Final = "4h"
"""A camera may raise a false alarm so often: each has a fault every few hours, and with one a week its threshold would
rise until that is kept."""
FALSE_AT_MOST: Final = 2
TURN_SECONDS: Final = 0.5
"""How long after more input a kill comes at most: about what decoding, scoring and committing it takes."""
BROKEN: Final = (
    {"camera_id": "camera-01", "timestamp": "2026-02-28T12:00:00Z", "value_base64": "dGV4dA=="},
    {"timestamp": "2026-02-28T12:00:00Z", "value_base64": ""},
)
"""Lines that are no frames: text in place of a picture, and one that names no camera."""


def main() -> int:
    """Run all checks; 0 if they hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.verify_frames", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="how often the daemon is killed (30)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other moments (0)")
    parser.add_argument("--without-auroc", action="store_true", help="leave out what takes ten minutes")
    args = parser.parse_args()
    checks = Checks()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="verify-frames-") as name:
        directory = Path(name)
        whole = directory / "whole"
        if verify_plant(checks, directory, whole):
            verify_kills(checks, directory, whole, directory / "killed", kills=args.kills, seed=args.seed)
        verify_speed(checks, directory / "benchmark")
        if not args.without_auroc:
            verify_auroc(checks, directory / "images.json")
    print(f"\n{time.monotonic() - began:.0f} s")
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


def run(directory: Path, streams: Path, *more: str) -> list[str]:
    """`detector run` of both paths over a directory of streams."""
    settings = [
        f"streams.directory.path={streams}", f"readings.model={directory / 'readings'}", "frames.enabled=true",
        f"frames.model={directory / 'frames'}", f"frames.alerts.false_alarms.per={BUDGET}", "http.listen=127.0.0.1:0",
        *more,
    ]  # fmt: skip
    return detector("run", "--log-format", "json", *(word for one in settings for word in ("--set", one)))


# -- both paths in one daemon --------------------------------------------------------------------------------------


def verify_plant(checks: Checks, directory: Path, whole: Path) -> bool:
    """A plant of sensors and cameras is watched by one daemon; whether there is something to compare with."""
    print("sensors and cameras in one daemon", flush=True)
    plant = directory / "plant"
    commands = [
        detector("simulate", "--out", plant, "--sensors", str(SENSORS), "--cameras", str(SEEN), "--rows", str(ROWS)),
        detector("train", "--data", plant / "sensor-readings.jsonl", "--rows", str(ROWS // 4),
                 "--set", "training={epochs: 3, min_steps: 600}", "--out", directory / "readings"),
        detector("train", "--model", "conv", "--data", plant / "image-frames.jsonl", "--rows", str(ROWS // 4),
                 "--set", "training={epochs: 3, min_steps: 600}", "--out", directory / "frames"),
    ]  # fmt: skip
    whole.mkdir()
    for command in [*commands, [*run(directory, whole), "--until-end"]]:
        if command[3] == "run":
            for stream in STREAMS:
                shutil.copyfile(plant / f"{stream}.jsonl", whole / f"{stream}.jsonl")
            spoil(whole / "image-frames.jsonl")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            checks.that(f"`detector {command[3]}`", False, f"status {done.returncode}: {done.stderr[-300:]}")
            return False
    lines = by_kind(whole / ALERTS)
    episodes, faulty = gather(list(map(json.loads, lines["frames"])))
    told = f"{len(lines['frames'])} alerts of {len(episodes)} episodes, {len(lines['readings'])} alerts of sensors"
    checks.that("every episode is opened once, closed last, its sequence without gaps", not faulty, told)
    labels = json.loads((plant / "labels.json").read_bytes())
    labels = [label for label in labels if label["kind"] in CAMERA_FAULTS]
    found, missed, false = recount(episodes, labels)
    checks.that(
        f"at least {FOUND_AT_LEAST:.0%} of the cameras' faults are found, at most {FALSE_AT_MOST} false alarms",
        found >= FOUND_AT_LEAST * len(labels) and false <= FALSE_AT_MOST,
        f"{found} of {found + missed}, {false} false",
    )
    reasons = [json.loads(line)["reason"] for line in (whole / LETTERS).read_bytes().splitlines()]
    checks.that("what is no frame is a dead letter", len(reasons) == len(BROKEN), ", ".join(reasons))
    return True


def spoil(path: Path) -> None:
    """Put the broken lines among the others."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(BROKEN, start=1):
        lines.insert(len(lines) * number // (len(BROKEN) + 1), json.dumps(line).encode() + b"\n")
    path.write_bytes(b"".join(lines))


def by_kind(path: Path) -> dict[str, list[bytes]]:
    """The published lines of each kind: between the two there is no order."""
    lines = path.read_bytes().splitlines()
    return {kind: [line for line in lines if json.loads(line)["kind"] == kind] for kind in ("readings", "frames")}


# -- the kills -----------------------------------------------------------------------------------------------------


def verify_kills(checks: Checks, directory: Path, whole: Path, killed: Path, *, kills: int, seed: int) -> None:
    """However often the daemon is killed, what both paths have published in the end is the same."""
    print("\nthe kills", flush=True)
    killed.mkdir()
    texts = {stream: (whole / f"{stream}.jsonl").read_bytes() for stream in STREAMS}
    for stream in STREAMS:
        (killed / f"{stream}.jsonl").touch()
    rng = random.Random(seed)  # noqa: S311 - the same moments every time
    counts = dict.fromkeys(("killed", "starting", "undone", *STREAMS), 0)
    before = dict.fromkeys(STREAMS, 0)
    for life in range(kills):
        starting = rng.random() < EARLY
        moment = rng.uniform(0, START_SECONDS if starting else TURN_SECONDS)
        interval = f"streams.directory.checkpoint_interval={rng.choice(('50ms', '250ms'))}"
        process = subprocess.Popen(run(directory, killed, interval), stderr=subprocess.PIPE, text=True)
        try:
            if not starting:
                until_assigned(process, len(STREAMS))
            for stream, text in texts.items():
                # Cuts fall anywhere, within lines, too.
                piece = text[len(text) * life // kills : len(text) * (life + 1) // kills]
                append(killed / f"{stream}.jsonl", piece)
            time.sleep(moment)
            if life % 2 and not starting:
                wait_until(partial(further, killed, before))
            counts["killed"] += process.poll() is None
        finally:
            process.kill()
            _, log = process.communicate()
        if process.returncode != -9:
            checks.that("the daemon lives until it is killed", False, f"status {process.returncode}: {log[-300:]}")
            return
        counts["starting"] += starting
        final, positions = committed(killed)
        alerts = killed / ALERTS
        counts["undone"] += alerts.exists() and alerts.stat().st_size > final
        for stream in STREAMS:
            counts[stream] += positions[stream] > before[stream]
        before = positions
    told = "{killed} times, {starting} while starting, {undone} with output to undo".format(**counts)
    told += "; got further: " + ", ".join(f"{stream} {counts[stream]}" for stream in STREAMS)
    checks.that(f"killed {kills} times with SIGKILL", counts["killed"] == kills, told)
    moved = all(counts[stream] >= kills // 3 for stream in STREAMS)
    checks.that("both paths were at work between the kills", moved, f"at least {kills // 3} lives each")
    last = subprocess.run([*run(directory, killed), "--until-end"], capture_output=True, text=True, check=False)
    checks.that("the last start goes on to the end", not last.returncode, f"status {last.returncode}")
    expected, got = by_kind(whole / ALERTS), by_kind(killed / ALERTS)
    for kind, lines in expected.items():
        checks.that(f"the alerts of {kind} are those of the uninterrupted run, byte for byte", got[kind] == lines,
                    f"{len(got[kind])} of {len(lines)}")  # fmt: skip
    letters = (killed / LETTERS).read_bytes() == (whole / LETTERS).read_bytes()
    checks.that("so are the dead letters", letters, f"{(killed / LETTERS).stat().st_size} bytes")


def further(streams: Path, before: Mapping[str, int]) -> bool:
    """Whether more was dealt with of each stream than before."""
    _, positions = committed(streams)
    return all(positions[stream] > before[stream] for stream in STREAMS)


def until_assigned(process: subprocess.Popen[str], partitions: int) -> None:
    """Read the log until this many partitions are assigned, or to its end."""
    assert process.stderr is not None
    for line in process.stderr:
        partitions -= line.startswith("{") and json.loads(line)["event"] == "partition_assigned"
        if not partitions:
            return


def committed(streams: Path) -> tuple[int, dict[str, int]]:
    """How many bytes of the alerts are final, and up to where each input was dealt with."""
    checkpoint = CheckpointFile(streams / ".detector").load()
    if checkpoint is None:
        return 0, dict.fromkeys(STREAMS, 0)
    known = {stream: checkpoint.partitions.get(Partition(stream, 0)) for stream in STREAMS}
    positions = {stream: one.start.position if one else 0 for stream, one in known.items()}
    return checkpoint.outputs.get(ALERTS.removesuffix(".jsonl"), 0), positions


# -- speed and quality ---------------------------------------------------------------------------------------------


def verify_speed(checks: Checks, models: Path) -> None:
    """Frames a second through the pipeline, beside bare decoding and bare ONNX Runtime."""
    print("\nframes a second on one processor, beside bare decoding and bare ONNX Runtime", flush=True)
    models.mkdir()
    ensure_frame_model(models)
    machine = Machine()
    for cameras in CAMERAS:
        for form in FORMS:
            found = measure_frames(models, form, cameras)
            share = found["rate"] / found["bare"]
            told = f"{found['rate']:,.0f} of {found['bare']:,.0f}: {share:.2f}"
            limit = GATES.get((form, cameras))
            wanted = f", at least {limit:g} of bare" if limit else ""
            checks.that(
                f"{form}, {cameras} camera{'s' * (cameras > 1)}{wanted}", not limit or share >= limit, told, machine
            )


def verify_auroc(checks: Checks, result: Path) -> None:
    """The benchmark's gates on Fashion-MNIST."""
    print("\none-class AUROC on Fashion-MNIST, some ten minutes", flush=True)
    words = [sys.executable, "-m", "benchmarks.quality", "images", "--gate", "--json", str(result)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not result.exists():
        checks.that("the benchmark runs", False, done.stderr.strip()[-300:])
        return
    print(done.stdout, flush=True)
    gates: Sequence[dict[str, Any]] = json.loads(result.read_bytes())["gates"]
    for gate in gates:
        passed = gate["verdict"] in ("passed", "aim reached")
        checks.that(gate["name"], passed, f"{gate['value']:.2f}, {gate['verdict']}")


if __name__ == "__main__":
    sys.exit(main())
