"""Machines of three channels over kills, with the stream of scores: a part of `python -m tests.verify_core`."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.quality.machines import CHANNELS, faulty, machine

SEED: Final = 5
MACHINES: Final = 4
ROWS: Final = 3000
TRAINED: Final = 2000
FAULTS: Final = {0: ("shift", "pressure", slice(2300, 2600)), 1: ("foreign", "flow", slice(2400, 2800))}
START: Final = 1_790_000_000
TURN_SECONDS: Final = 0.4
"""How long after more input a kill comes at most."""
That = Callable[[str, bool, str], None]


def verify_channels(that: That, detector: Callable[..., list[str]], directory: Path, *, kills: int, seed: int) -> None:
    """`that` takes a check, whether it holds and what was measured; `detector` makes the command line of a command."""
    print("\nseveral channels", flush=True)
    directory.mkdir()
    text = "".join(lines()).encode()
    source = directory / "all.jsonl"
    source.write_bytes(text)
    settings = {
        "readings.channels": f"[{', '.join(CHANNELS)}]",
        "readings.model": str(directory / "models"),
        "readings.alerts.false_alarms": "{per: 10000 readings}",
        "output.scores": "anomaly-scores",
        "http.listen": "127.0.0.1:0",
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    chosen = ["--rows", TRAINED, "--set", "training={epochs: 5, min_steps: 600}"]
    train = detector("train", "--data", source, *chosen, *sets)
    whole = detector("run", "--input", source, "--output", directory / "whole.jsonl", "--until-end", *sets)
    for command in (train, whole):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            that(f"`detector {command[3]}` takes three channels", False, done.stderr[-300:])
            return
    found = blamed(directory / "whole.jsonl")
    expected = {f"m-{number}": channel for number, (_, channel, _) in FAULTS.items()}
    that("faults of one channel, and of the relation alone, are found and named", found == expected, str(found))

    alerts = verify_killed(that, detector, directory, text, sets, kills=kills, seed=seed)
    told, all_rows = (series(path) for path in (alerts, directory / "whole.jsonl"))
    rows = sum(map(len, told.values()))
    that("every scored row is published once, and is what it was", told == all_rows and rows > 0,
         f"{rows} rows of {len(told)} machines")  # fmt: skip


def lines() -> list[str]:
    """The readings of all machines in the order of time, a line each."""
    values = []
    for number in range(MACHINES):
        kind, channel, span = FAULTS.get(number, ("", "", slice(0)))
        made = faulty(number, ROWS, SEED, kind, CHANNELS.index(channel), span) if kind else machine(number, ROWS, SEED)
        values.append(made.round(3).tolist())
    return [
        json.dumps(
            {
                "sensor_id": f"m-{number}",
                "timestamp": START + row,
                "values": dict(zip(CHANNELS, made[row], strict=True)),
            }
        )
        + "\n"
        for row in range(ROWS)
        for number, made in enumerate(values)
    ]


def blamed(alerts: Path) -> dict[str, str]:
    """Of each machine with a fault, the channel with the largest share in the first alert inside it."""
    found: dict[str, str] = {}
    for alert in map(json.loads, alerts.read_bytes().splitlines()):
        number = int(alert["sensor_id"].removeprefix("m-"))
        if alert["event"] == "opened" and number in FAULTS:
            row = datetime.fromisoformat(alert["detected_at"]).timestamp() - START
            span = FAULTS[number][2]
            if span.start <= row < span.stop:
                found.setdefault(alert["sensor_id"], max(alert["channels"], key=alert["channels"].__getitem__))
    return found


def verify_killed(
    that: That,
    detector: Callable[..., list[str]],
    directory: Path,
    text: bytes,
    sets: Sequence[str],
    *,
    kills: int,
    seed: int,
) -> Path:
    """A run over readings that grow, killed again and again, publishes what lies in `whole.jsonl`; its alerts."""
    growing, alerts = directory / "growing.jsonl", directory / "alerts.jsonl"
    growing.touch()
    command = detector("run", "--input", growing, "--output", alerts, "--log-format", "json", *sets)
    killed = kill_again_and_again(command, growing, text, kills, random.Random(seed))  # noqa: S311 - the same moments
    last = subprocess.run([*command, "--until-end"], capture_output=True, text=True, check=False)
    that(f"killed {kills} times with SIGKILL, it goes on to the end", killed == kills and not last.returncode,
         f"{killed} times, then status {last.returncode}")  # fmt: skip
    got, wanted = alerts.read_bytes(), (directory / "whole.jsonl").read_bytes()
    that("the alerts are those of the uninterrupted run, byte for byte", got == wanted,
         f"{len(got)} bytes of {len(wanted)}, {len(got.splitlines())} alerts")  # fmt: skip
    return alerts


def kill_again_and_again(command: Sequence[str], source: Path, text: bytes, kills: int, rng: random.Random) -> int:
    """Let the input grow from life to life; returns how many lives ended by a kill."""
    killed = 0
    for life in range(kills):
        with source.open("ab") as file:
            file.write(text[len(text) * life // kills : len(text) * (life + 1) // kills])
        interval = f"streams.directory.checkpoint_interval={rng.choice(('50ms', '250ms'))}"
        process = subprocess.Popen([*command, "--set", interval], stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b'"partition_assigned"' in line:
                    break
            time.sleep(rng.uniform(0, TURN_SECONDS))
        finally:
            process.kill()
            process.communicate()
        killed += process.returncode == -9
    return killed


def series(alerts: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What the scores beside a file of alerts say of every machine, one message after the other."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for line in (alerts.with_name(f"{alerts.name}.state") / "anomaly-scores.jsonl").read_bytes().splitlines():
        said = json.loads(line)
        columns = [said["timestamps"], said["scores"], said["thresholds"]]
        columns += [*said["values"].values(), *said["expected"].values()]
        found.setdefault(said["sensor_id"], []).extend(zip(*columns, strict=True))
    return found
