"""Sensors that change their pace, over kills: a part of `python -m tests.verify_core`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from detector.times import parse_time
from tests.verify_channels import That, verify_killed

SEED: Final = 6
ROWS, STEADY, FAULT, WARMUP = 1400, 500, 1300, 300
"""Readings of each sensor; those that come every second; the first of a fault; those that make a profile."""
START: Final = 1_790_000_000
PACES: Final = {"tenfold": 10.0, "double": 2.0, "half": 0.5, "steady": 1.0}
"""Seconds between readings, later on."""
CHANGED: Final = {"tenfold", "double", "half", "bursts", "alternating"}


def verify_relearning(
    that: That, detector: Callable[..., list[str]], directory: Path, *, kills: int, seed: int
) -> None:
    """`that` takes a check, whether it holds and what was measured; `detector` makes the command line of a command."""
    print("\nsensors that change their pace", flush=True)
    directory.mkdir()
    text = "".join(lines()).encode()
    source = directory / "all.jsonl"
    source.write_bytes(text)
    settings = {
        "readings.model": str(directory / "models"),
        "readings.warmup": str(WARMUP),
        "readings.silence_after": "null",
        "readings.alerts.false_alarms": "{per: 2000 readings}",
        "http.listen": "127.0.0.1:0",
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    train = detector("train", "--data", source, "--rows", str(STEADY), "--set", "training={epochs: 3}", *sets)
    run = detector("run", "--input", source, "--output", directory / "whole.jsonl", "--log-format", "json", *sets)
    for command in (train, [*run, "--until-end"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            that(f"`detector {command[3]}` takes sensors that change their pace", False, done.stderr[-300:])
            return
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    relearnt = {one["fields"]["sensor_id"] for one in said if one["fields"].get("reason") == "relearning"}
    that("those that changed their pace relearn", relearnt == CHANGED, ", ".join(sorted(relearnt)))
    faults = {name: stamps[FAULT] for name, stamps in times().items()}
    alerts = map(json.loads, (directory / "whole.jsonl").read_bytes().splitlines())
    found = {
        alert["sensor_id"]
        for alert in alerts
        if alert["event"] == "opened" and parse_time(alert["detected_at"]) >= faults[alert["sensor_id"]] * 1e9
    }
    that("a fault after that is told of all", found == set(faults), ", ".join(sorted(found)))

    verify_killed(that, detector, directory, text, sets, kills=kills, seed=seed)


def times() -> dict[str, list[float]]:
    """When the readings of each sensor come, epoch s."""
    later = np.arange(1, ROWS - STEADY + 1)
    paces = {name: later * pace for name, pace in PACES.items()}
    paces["bursts"] = later + later // 60 * 600.0
    paces["alternating"] = np.cumsum(np.where(later // 200 % 2, 1.0, 10.0))
    return {name: (START + np.r_[np.arange(STEADY), STEADY - 1 + late]).tolist() for name, late in paces.items()}


def lines() -> list[str]:
    """The readings of all sensors in the order of time, a line each."""
    rng = np.random.default_rng(SEED)
    readings = []
    for name, stamps in times().items():
        values = 50 + 3 * np.sin(np.arange(ROWS) / 4) + rng.normal(0, 0.4, ROWS)
        values[FAULT:] += 30
        readings += [(stamp, name, value) for stamp, value in zip(stamps, values.round(3).tolist(), strict=True)]
    return [
        json.dumps({"sensor_id": name, "timestamp": stamp, "value": value}) + "\n"
        for stamp, name, value in sorted(readings)
    ]
