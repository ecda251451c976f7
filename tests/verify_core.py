"""The reading path end to end, on the real program: `python -m tests.verify_core`.

Runs the demo and counts its result once more; compares a backtest with it; and, with other settings for some sensors,
silence, maintenance windows and verdicts, kills the daemon with SIGKILL again and again over one input and compares
what it published with the uninterrupted run's; then the same with machines of several channels and the stream of
scores, and with sensors that change their pace. Prints every check with what was measured, and ends with a line PASS
or FAIL and exit status 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.speed.machine import Machine
from detector.simulation.cameras import CAMERA_FAULTS
from detector.streams.base import Partition
from detector.streams.checkpoint import CheckpointFile
from detector.wire.readings import Verdict
from detector.wire.verdicts import WORDS, encode_verdict
from tests.verify_channels import verify_channels
from tests.verify_relearning import verify_relearning
from tests.waiting import wait_until

STREAM: Final = "sensor-readings"
ALERTS: Final = "anomaly-alerts"
VERDICTS: Final = "anomaly-verdicts"
FAULTS: Final = 32
FOUND_AT_LEAST: Final = 30
FALSE_AT_MOST: Final = 1
JUDGED: Final = 50
"""Rows before an episode opens in which the fault may lie that opened it."""
EARLY: Final = 0.15
"""The share of kills that come while the daemon is starting."""
START_SECONDS: Final = 1.5
TURN_SECONDS: Final = 0.8
"""How long after more input a kill comes at most: about what reading, scoring and committing it takes."""
SETTINGS: Final = """
readings:
  silence_after: 2m
  alerts: {update_every: 10m, max_duration: 5h}
  overrides:
    - {match: "vibration-*", silence_after: 5m, alerts: {open_after: {n: 10, of: 10}, close_after: 40}}
    - {match: "pressure-*", alerts: {min_deviation: {absolute: 100}, critical_ratio: 1.5}}
    - {match: "temperature-[01]*", alerts: {direction: above}}
    - {match: "flow-04", silence_after: null, alerts: {false_alarms: {per: day}}}
maintenance:
  - {match: "*", from: "2026-02-27T18:00:00Z", to: "2026-02-27T19:30:00Z"}
  - {match: "[cv]*", from: "2026-02-28T21:00:00Z", to: "2026-02-28T22:36:00Z"}
  - {match: "flow-1?", from: "2026-02-28T22:00:00Z", to: "2026-02-28T22:45:00Z"}
  - {match: "*-0[1-9]", from: "2026-02-28T22:30:00Z", to: "2026-02-28T22:50:00Z"}
"""
"""Of the run that is killed: settings that the demo leaves as they are, with times in which its plant has faults."""


class Checks:
    """The table."""

    def __init__(self) -> None:
        self.passed = True

    def that(self, what: str, holds: bool, measured: str, machine: Machine | None = None) -> None:
        """Print one row. `machine`: what is measured depends on it, so that it is not judged where that was busy."""
        if not holds and machine is not None and machine.busy:
            verdict, measured = "----", f"not judged, others took {machine.taken:.0%} of the processors: {measured}"
        else:
            verdict, self.passed = "ok" if holds else "FAIL", self.passed and holds
        print(f"  {verdict:<4}  {what:<72} {measured}", flush=True)


def main() -> int:
    """Run all checks; 0 if they hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.verify_core", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how often the daemon is killed (50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other moments (0)")
    args = parser.parse_args()
    checks = Checks()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="verify-core-") as name:
        directory = Path(name)
        demo = directory / "demo"
        verify_demo(checks, demo)
        if checks.passed:
            print("\nthe backtest", flush=True)
            verify_backtest(checks, demo, directory / "backtest", of_readings(demo / "alerts.jsonl"))
            settings = directory / "settings.yaml"
            settings.write_text(SETTINGS)
            if judged := judge(checks, demo, directory, settings, args.seed):
                expected = verify_settings(checks, demo, directory, settings, judged)
                killed = directory / "killed"
                if checks.passed:
                    verify_kills(checks, demo, killed, settings, judged, expected, kills=args.kills, seed=args.seed)
        for verify, name in ((verify_channels, "channels"), (verify_relearning, "relearning")):
            verify(checks.that, detector, directory / name, kills=min(12, args.kills), seed=args.seed)
    print(f"\n{time.monotonic() - began:.0f} s")
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


def detector(*words: str | Path) -> list[str]:
    """The command line of a `detector` command."""
    return [sys.executable, "-m", "detector.cli.main", *map(str, words)]


# -- the demo ------------------------------------------------------------------------------------------------------


def verify_demo(checks: Checks, directory: Path) -> None:
    """The demo's counts are good enough, and they are what its files say."""
    print("the demo", flush=True)
    done = subprocess.run(
        detector("demo", "--dir", directory, "--plain", "--seed", "0"), capture_output=True, text=True, check=False
    )
    said = re.search(
        r"Sensors: (\d+) of (\d+) faults found, (\d+) missed, (\d+) false alarms?, median delay", done.stdout
    )
    if done.returncode or said is None:
        checks.that("`detector demo` ends with its counts", False, f"status {done.returncode}: {done.stderr[-300:]}")
        return
    found, faults, missed, false = map(int, said.groups())
    checks.that("`detector demo` ends with its counts", True, said[0].rpartition(",")[0])
    checks.that(f"at least {FOUND_AT_LEAST} of {FAULTS} faults are found", faults == FAULTS and found >= FOUND_AT_LEAST,
                f"{found} of {faults}")  # fmt: skip
    checks.that(f"at most {FALSE_AT_MOST} false alarms", false <= FALSE_AT_MOST, str(false))
    alerts = list(map(json.loads, of_readings(directory / "alerts.jsonl").splitlines()))
    labels = json.loads((directory / "plant" / "labels.json").read_bytes())
    labels = [label for label in labels if label["kind"] not in CAMERA_FAULTS]
    episodes, faulty = gather(alerts)
    told = f"{len(alerts)} alerts of {len(episodes)} episodes" + f", wrong: {faulty[:3]}" * bool(faulty)
    checks.that("every episode is opened once, closed last, its sequence without gaps", not faulty, told)
    counted = recount(episodes, labels)
    checks.that("the counts follow from alerts and labels", counted == (found, missed, false),
                "{} found, {} missed, {} false".format(*counted))  # fmt: skip
    readings = (directory / "plant" / f"{STREAM}.jsonl").read_bytes().count(b"\n")
    rate = re.search(r"(\d+) readings and \d+ frames in ([\d.]+) s", done.stdout)
    checks.that("the daemon has read all of the stream", rate is not None and int(rate[1]) == readings,
                f"{readings} readings in {rate[2] if rate else '?'} s")  # fmt: skip


def of_readings(path: Path) -> bytes:
    """The lines about sensors: those about the demo's camera are for `tests.verify_frames`."""
    lines = path.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if json.loads(line)["kind"] == "readings")


def gather(alerts: list[dict[str, Any]]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The messages of each episode, and the ids of those that do not follow one another as they should."""
    episodes: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        episodes.setdefault(alert["alert_id"], []).append(alert)
    faulty = []
    for alert_id, messages in episodes.items():
        events = [message["event"] for message in messages]
        numbered = [message["sequence"] for message in messages] == list(range(len(messages)))
        between = set(events[1:-1]) <= {"updated"} and (len(events) < 2 or events[-1] in {"updated", "closed"})
        if not numbered or events[0] != "opened" or not between:
            faulty.append(alert_id)
    return episodes, faulty


def recount(episodes: Mapping[str, list[dict[str, Any]]], labels: list[dict[str, str]]) -> tuple[int, int, int]:
    """Faults found and missed, and false alarms, straight from the definition."""
    spans = []
    for messages in episodes.values():
        last, shown = messages[-1], (messages[0].get("window") or {"timestamps": []})["timestamps"]
        begin, end = when(last["started_at"]), datetime.max.replace(tzinfo=UTC)
        if len(shown) > JUDGED:  # what a fault leaves behind when it ends is no false alarm
            begin = min(begin, datetime.fromtimestamp(shown[-JUDGED - 1] / 1000, UTC))
        if last["ended_at"]:
            end = max(when(last["ended_at"]), when(last["detected_at"]))
        spans.append((last["sensor_id"], begin, end))
    faults = [(label["sensor_id"], when(label["start"]), when(label["end"])) for label in labels]

    def meet(one: tuple[str, datetime, datetime], other: tuple[str, datetime, datetime]) -> bool:
        return one[0] == other[0] and one[1] <= other[2] and other[1] <= one[2]

    found = sum(any(meet(fault, span) for span in spans) for fault in faults)
    false = sum(not any(meet(fault, span) for fault in faults) for span in spans)
    return found, len(faults) - found, false


def when(text: str) -> datetime:
    """RFC 3339, to the microsecond."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


# -- the backtest --------------------------------------------------------------------------------------------------


def verify_backtest(
    checks: Checks, demo: Path, out: Path, published: bytes, *options: str | Path, data: Path | None = None
) -> None:
    """A backtest over the same bytes gives the same bytes."""
    model = f"readings.model={demo / 'models'}"
    words = detector("backtest", "--data", data or demo / "plant", "--set", model, "--out", out, *options)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    same = not done.returncode and (out / "alerts.jsonl").read_bytes() == published
    checks.that("its alerts are those of `run`, byte for byte", same,
                f"{len(published)} bytes" if not done.returncode else done.stderr[-300:])  # fmt: skip


# -- other settings ------------------------------------------------------------------------------------------------


def judge(checks: Checks, demo: Path, directory: Path, settings: Path, seed: int) -> bytes:
    """The plant's readings with verdicts among them, on what a run without any publishes; b"" where that fails."""
    source, out = demo / "plant" / f"{STREAM}.jsonl", directory / "unjudged.jsonl"
    done = subprocess.run(
        [*run_command(demo, source, out, settings), "--until-end"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        checks.that("a run with other settings ends", False, f"status {done.returncode}: {done.stderr[-300:]}")
        return b""
    rng = random.Random(seed)  # noqa: S311 - the same verdicts every time
    text, given = source.read_bytes(), []
    for alert in map(json.loads, of_readings(out).splitlines()):
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            at = text.find(b"\n", min(alert["source"]["last_offset"] + rng.randrange(200_000), len(text) - 2)) + 1
            verdict = Verdict(alert["sensor_id"], alert["alert_id"], rng.choice(WORDS))
            given.append((at, encode_verdict(verdict, camera=False) + b"\n"))
    given.sort()
    edges = [0, *(at for at, _ in given), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(edges)]
    return b"".join(piece + line for piece, line in zip(pieces, [*(line for _, line in given), b""], strict=True))


def verdicts_of(alerts: Path) -> bytes:
    """What acknowledges the verdicts on alerts in a file."""
    return (alerts.with_name(f"{alerts.name}.state") / f"{VERDICTS}.jsonl").read_bytes()


def verify_settings(checks: Checks, demo: Path, directory: Path, settings: Path, judged: bytes) -> tuple[bytes, bytes]:
    """What an uninterrupted run publishes with `SETTINGS` and verdicts, alerts and acknowledgements.

    A backtest gives the same.
    """
    print("\noverrides, silence, maintenance, verdicts", flush=True)
    out, source = directory / "whole.jsonl", directory / "judged.jsonl"
    source.write_bytes(judged)
    words = [*run_command(demo, source, out, settings), "--until-end"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        checks.that("a run with other settings ends", False, f"status {done.returncode}: {done.stderr[-300:]}")
        return b"", b""
    published, said = of_readings(out), verdicts_of(out)
    alerts = list(map(json.loads, published.splitlines()))
    episodes, faulty = gather(alerts)
    checks.that("every episode is opened once, closed last, its sequence without gaps", not faulty,
                f"{len(alerts)} alerts of {len(episodes)} episodes")  # fmt: skip
    silent = sum(messages[0]["reason"] == "silent" for messages in episodes.values())
    muted = sum(messages[0]["muted"] for messages in episodes.values())
    unmuted = sum(messages[0]["muted"] and not messages[-1]["muted"] for messages in episodes.values())
    both = sum(messages[0]["muted"] and messages[0]["reason"] == "silent" for messages in episodes.values())
    checks.that("some are about silence, some muted, some told after the maintenance",
                0 < silent < len(episodes) and 0 < unmuted < muted < len(episodes) and both > 0,
                f"{silent} silent, {muted} muted ({both} of them silent), {unmuted} told later")  # fmt: skip
    words_said = Counter(json.loads(line)["is"] for line in said.splitlines())
    muted_since = sum(messages[-1]["verdict"] == "expected" != messages[0]["verdict"] for messages in episodes.values())
    checks.that("verdicts took effect, of every sort, on open episodes, too",
                min(words_said[word] for word in WORDS) >= 5 and muted_since > 0,
                f"{dict(words_said)}, {muted_since} muted while open")  # fmt: skip
    verify_backtest(checks, demo, directory / "settings", published, "--config", settings, data=source)
    return published, said


def run_command(demo: Path, source: Path, alerts: Path, settings: Path) -> list[str]:
    """The command line of a run on files with `SETTINGS`."""
    return detector(
        "run", "--config", settings, "--input", source, "--output", alerts, "--log-format", "json",
        "--set", f"readings.model={demo / 'models'}", "--set", "http.listen=127.0.0.1:0",
    )  # fmt: skip


# -- the kills -----------------------------------------------------------------------------------------------------


def verify_kills(
    checks: Checks,
    demo: Path,
    directory: Path,
    settings: Path,
    text: bytes,
    expected: tuple[bytes, bytes],
    *,
    kills: int,
    seed: int,
) -> None:
    """However often the daemon is killed while it works, what it has published in the end is the same.

    The input grows from life to life, so that the kills are spread over all of it.
    """
    print("\nthe kills", flush=True)
    directory.mkdir()
    source, alerts = directory / f"{STREAM}.jsonl", directory / "alerts.jsonl"
    source.touch()
    command = run_command(demo, source, alerts, settings)
    rng = random.Random(seed)  # noqa: S311 - the same moments every time
    killed = early = undone = behind = moved = before = 0
    for life in range(kills):
        # Cuts fall anywhere, within lines, too.
        piece = text[len(text) * life // kills : len(text) * (life + 1) // kills]
        while_starting = rng.random() < EARLY
        moment = rng.uniform(0, START_SECONDS if while_starting else TURN_SECONDS)
        # The longer one leaves more that was written and is not final.
        interval = rng.choice(("50ms", "250ms"))
        words = [*command, "--set", f"streams.directory.checkpoint_interval={interval}"]
        process, said = subprocess.Popen(words, stderr=subprocess.PIPE, text=True), ""
        try:
            if while_starting:
                append(source, piece)
            else:
                said = wait_for(process, "partition_assigned")
                append(source, piece)
            time.sleep(moment)
            if life % 2 and not while_starting:  # however slow the machine is, half of the kills come after some work
                wait_until(partial(further, alerts, before))
            killed += process.poll() is None
            process.kill()
        finally:
            process.kill()
            _, log = process.communicate()
        if process.returncode != -9:
            checks.that(
                "the daemon lives until it is killed", False, f"status {process.returncode}: {(said + log)[-300:]}"
            )
            return
        early += while_starting
        final, position = committed(alerts)
        undone += alerts.exists() and alerts.stat().st_size > final
        behind += position < source.stat().st_size
        moved += position > before
        before = position
    told = f"{killed} times, {early} while starting, {behind} with input to do, {undone} with output to undo"
    told += f"; {moved} got further, at the last {before / len(text):.0%} was done"
    checks.that(f"killed {kills} times with SIGKILL", killed == kills, told)
    checks.that("it was at work between the kills", moved >= kills // 3, f"{moved} lives got further")
    last = subprocess.run([*command, "--until-end"], capture_output=True, text=True, check=False)
    checks.that("the last start goes on to the end", not last.returncode, f"status {last.returncode}")
    for what, got, wanted in zip(
        ("alerts", "verdicts"), (alerts.read_bytes(), verdicts_of(alerts)), expected, strict=True
    ):
        checks.that(f"the {what} are those of the uninterrupted run, byte for byte", got == wanted,
                    f"{len(got)} bytes of {len(wanted)}, {len(got.splitlines())} {what}")  # fmt: skip


def append(path: Path, text: bytes) -> None:
    """Add to the input."""
    with path.open("ab") as file:
        file.write(text)


def wait_for(process: subprocess.Popen[str], name: str) -> str:
    """Read the log up to an event, or to its end; returns the last line."""
    assert process.stderr is not None
    line = ""
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == name:
            break
    return line


def further(alerts: Path, before: int) -> bool:
    """Whether more was dealt with than before."""
    return committed(alerts)[1] > before


def committed(alerts: Path) -> tuple[int, int]:
    """How many bytes of the alerts are final, and up to where the input was dealt with."""
    checkpoint = CheckpointFile(alerts.with_name(f"{alerts.name}.state")).load()
    if checkpoint is None:
        return 0, 0
    known = checkpoint.partitions.get(Partition(STREAM, 0))
    return checkpoint.outputs.get(ALERTS, 0), 0 if known is None else known.start.position


if __name__ == "__main__":
    sys.exit(main())
