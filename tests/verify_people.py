"""From alerts to people, on the real programs: `python -m tests.verify_people`.

Plays plants of 20 sensors in which one event spreads over 16 and three others have a fault of their own, and looks at
the incidents that the alerts become: how many, of whom, and whether the sensor where the event began is named first or
among those that cannot be told from it. Then the readings of one of these plants go through `detector run`, `incidents`
and `notify`, which are killed again and again, to a real Alertmanager and to a webhook: each incident has to be one
active alert there for as long as it is open, and the webhook counts what it is told twice. Prints every check with what
was measured, and ends with a line PASS or FAIL and exit status 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.quality.drive import SECOND, START, alerts_together
from detector.arrays import F64
from detector.config.load import IncidentsConfig
from detector.incidents.book import Book, Rules
from detector.incidents.groups import Groups
from detector.streams.base import Partition
from detector.streams.checkpoint import CheckpointFile
from detector.wire.alerts import Alert, encode_alert
from detector.wire.incidents import Incident, IncidentSource, decode_incident, encode_incident, read_alert
from tests.deploy.tools import tool
from tests.kafka.broker import dies_with_us, free_ports
from tests.notify.made import receiving
from tests.plant import healthy, model_of
from tests.tiny import tiny_bundle
from tests.verify_core import Checks
from tests.waiting import wait_until

SENSORS: Final = 20
SPREAD: Final = 16
SINGLE: Final = 3
ROWS: Final = 5_000
WARMUP: Final = 1_000
BUDGET: Final = 10_000_000
"""Readings for one false alarm of a sensor: what else happens in a plant is not what is looked at here."""
FIRST_AT_LEAST: Final = 0.9
EVENT_SEEN: Final = 2_150 * SENSORS
"""Readings up to where the event has been noticed."""
MOST_BYTES: Final = 500_000
"""Of the alerts of a plant, most of whose sensors are unusual at once."""
SETTLE_SECONDS: Final = 2
KILL_SECONDS: Final = 8.0
"""How long a daemon lives at most, of which its start takes some."""


@dataclass(frozen=True, slots=True)
class Played:
    """A plant, its alerts in order, the sensor where the event began, and all it came to."""

    sensors: dict[str, F64]
    alerts: list[Alert]
    origin: str
    spread: frozenset[str]

    @property
    def noticed(self) -> set[str]:
        """The sensors of the event at which an episode was opened: detection is judged elsewhere."""
        return {alert.sensor_id for alert in self.alerts} & self.spread


def main() -> int:
    """Run all checks; 0 if they hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.verify_people", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many plants (20)")
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="of each daemon (30)")
    args = parser.parse_args()
    checks = Checks()
    began = time.monotonic()
    plants = verify_incidents(checks, args.seeds)
    with tempfile.TemporaryDirectory(prefix="verify-people-") as name:
        verify_delivery(checks, Path(name), plants[0], args.kills)
    print(f"\n{time.monotonic() - began:.0f} s")
    print("PASS" if checks.passed else "FAIL")
    return 0 if checks.passed else 1


def plant(seed: int) -> Played:
    """One event that spreads from sensor to sensor, 2 to 12 s each time, and three faults of others, far from it."""
    rng = np.random.default_rng(seed)
    sensors: dict[str, F64] = {
        f"sensor-{number:02}": healthy(rng, ROWS, begin=number, level=50 + number)[:, 0] for number in range(SENSORS)
    }
    names = [str(name) for name in rng.permutation(sorted(sensors))]
    at = 2_000
    for name in names[:SPREAD]:
        sensors[name][at : at + 300] += rng.choice([-1, 1]) * rng.uniform(3, 8)
        at += int(rng.integers(2, 13))
    for number, name in enumerate(names[SPREAD : SPREAD + SINGLE]):
        at = 2_900 + 700 * number
        sensors[name][at : at + 200] += rng.choice([-1, 1]) * rng.uniform(3, 8)
    alerts = alerts_together(sensors, WARMUP, model_of(), BUDGET)
    # One sensor after the other within a batch: in a plant they come side by side.
    alerts.sort(key=lambda alert: read_alert(encode_alert(alert)).seen_at)
    return Played(sensors, alerts, names[0], frozenset(names[:SPREAD]))


def incidents_of(alerts: list[Alert]) -> tuple[list[Incident], int]:
    """The messages about incidents, and how many bytes they have."""
    config = IncidentsConfig()
    book = Book(Rules(Groups(None).of, config.within, config.update_every, config.max_duration))
    found = [
        incident
        for offset, alert in enumerate(alerts)
        for incident in book.take(
            read_alert(encode_alert(alert)), IncidentSource(stream="alerts", partition=0, offset=offset)
        )
    ]
    return found, sum(len(encode_incident(one)) for one in found)


def verify_incidents(checks: Checks, seeds: int) -> list[Played]:
    """Membership and who was first, on plants of their own."""
    print("incidents", flush=True)
    plants, four, whole, first, largest = [], 0, 0, 0, 0
    noticed = episodes = messages = size = told = told_size = ties = 0
    for seed in range(seeds):
        played = plant(seed)
        plants.append(played)
        found, of_incidents = incidents_of(played.alerts)
        closed = [one for one in found if one.event == "closed"]
        big = max(closed, key=lambda one: one.size)
        four += len(closed) == SINGLE + 1
        whole += {one.sensor_id for one in big.members} == played.noticed
        noticed += len(played.noticed)
        named = [one.sensor_id for one in big.suspects]
        first += played.origin in named
        ties += len(named)
        episodes += sum(alert.event == "opened" for alert in played.alerts)
        messages += len(played.alerts)
        bytes_of_it = sum(len(encode_alert(alert)) for alert in played.alerts)
        size, largest = size + bytes_of_it, max(largest, bytes_of_it)
        told, told_size = told + len(found), told_size + of_incidents
    checks.that("four incidents each", four == seeds, f"{four} of {seeds} plants")
    checks.that(
        "one of them has all sensors at which the event was noticed", whole == seeds,
        f"{whole} of {seeds} plants; at {noticed} of {SPREAD * seeds} sensors",
    )  # fmt: skip
    checks.that(
        f"where it began is first or tied in {FIRST_AT_LEAST:.0%}", first >= FIRST_AT_LEAST * seeds,
        f"{first} of {seeds} plants, {ties / seeds:.1f} named",
    )  # fmt: skip
    checks.that(
        "the alerts of a plant are small", largest < MOST_BYTES,
        f"at most {largest / 1000:.0f} kB, {MOST_BYTES / 1000:.0f} are allowed",
    )  # fmt: skip
    print(
        f"        a plant: {episodes / seeds:.0f} episodes, {messages / seeds:.0f} alerts, {size / seeds / 1000:.0f} kB"
        f" -> {told / seeds:.0f} messages about incidents, {told_size / seeds / 1000:.0f} kB"
    )
    return plants


def verify_delivery(checks: Checks, directory: Path, played: Played, kills: int) -> None:
    """What reaches an Alertmanager and a webhook while the detector and both small daemons are killed.

    The readings grow from kill to kill. What is over by then may be resolved; nothing else may.
    """
    print("delivery", flush=True)
    readings = list(lines_of(played.sensors))
    text, alerts, incidents = (
        directory / f"{name}.jsonl" for name in ("sensor-readings", "anomaly-alerts", "anomaly-incidents")
    )
    tiny_bundle(directory / "models", sensors=())
    with alertmanager(directory) as address, receiving() as webhook:
        (directory / "config.yaml").write_text(_configuration(directory, address, webhook.url))
        watch = Watch(address, incidents)
        append(text, readings[:EVENT_SEEN])
        daemons = {name: Daemon(name, directory) for name in ("run", "incidents", "notify")}
        wait_until(lambda: alerts.exists() and alerts.stat().st_size)
        began = time.monotonic()
        heard = wait_until(lambda: bool(webhook.heard))
        took = time.monotonic() - began
        chance = random.Random(0)  # noqa: S311
        left = readings[EVENT_SEEN:]
        for turn in range(kills):
            append(text, left[len(left) * turn // kills : len(left) * (turn + 1) // kills])
            for daemon in daemons.values():
                # Some die while they start, most while they work.
                time.sleep(chance.uniform(0.0, KILL_SECONDS))
                daemon.kill()
                watch.look()
        # Nothing more comes, and what is open then stays open.
        wait_until(lambda: position_of(directory) == text.stat().st_size)
        wait_until(lambda: _kept(incidents) == incidents_in(alerts))
        wait_until(lambda: {one for one, event in _ended(webhook.heard) if event == "closed"} >= watch.closed)
        over = wait_until(lambda: not set(watch.look()) & watch.closed)
        for daemon in daemons.values():
            daemon.stop()
        published = _kept(incidents)
        wanted = {one.incident_id: "opened" for one in published} | {
            one.incident_id: "closed" for one in published if one.event == "closed"
        }
        checks.that("an alert reaches the webhook", heard, f"{took:.1f} s, {SETTLE_SECONDS} s of them `settle`")
        checks.that("kills changed no message about incidents", published == incidents_in(alerts),
                    f"{len(published)} messages about {len(wanted)}")  # fmt: skip
        checks.that("an open incident is one active alert each time it is looked at", not watch.doubled,
                    f"{watch.looks} looks, {len(watch.seen)} incidents seen")  # fmt: skip
        still = wanted.keys() - watch.closed
        checks.that(f"none is resolved early over {kills} kills of each", not watch.lost and still <= watch.seen,
                    f"{len(watch.lost)} lost, {len(watch.seen)} of {len(wanted)} seen")  # fmt: skip
        checks.that("all that are over are resolved", over, f"{len(watch.closed)} of {len(wanted)} are over")
        last = dict(_ended(webhook.heard))
        checks.that("the webhook was told the newest of each", {one: event == "closed" for one, event in last.items()}
                    == {one: event == "closed" for one, event in wanted.items()},
                    f"{list(last.values()).count('closed')} of {len(watch.closed)} that are over")  # fmt: skip
        keys = Counter(webhook.keys)
        repeated = keys.total() - len(keys)
        checks.that("it was told little twice", repeated <= kills, f"{repeated} of {keys.total()} requests")


def lines_of(sensors: Mapping[str, F64]) -> Iterator[bytes]:
    """The readings of a plant as they come: all sensors, second by second."""
    for row in range(ROWS):
        for name, values in sensors.items():
            reading = {"sensor_id": name, "timestamp": (START // SECOND + row) * 1000, "value": float(values[row])}
            yield json.dumps(reading).encode() + b"\n"


def append(path: Path, lines: list[bytes]) -> None:
    """As a producer writes them."""
    with path.open("ab") as file:
        file.write(b"".join(lines))


def position_of(directory: Path) -> int:
    """Up to where the detector has dealt with its input."""
    checkpoint = CheckpointFile(directory / ".detector").load()
    known = None if checkpoint is None else checkpoint.partitions.get(Partition("sensor-readings", 0))
    return 0 if known is None else known.start.position


def incidents_in(alerts: Path) -> list[Incident]:
    """What a file of alerts comes to when nobody is killed."""
    config = IncidentsConfig()
    book = Book(Rules(Groups(None).of, config.within, config.update_every, config.max_duration))
    found, offset = [], 0
    for line in alerts.read_bytes().splitlines(keepends=True):
        found += book.take(read_alert(line), IncidentSource(stream="anomaly-alerts", partition=0, offset=offset))
        offset += len(line)
    return found


def _kept(incidents: Path) -> list[Incident]:
    return [decode_incident(line) for line in incidents.read_bytes().splitlines()] if incidents.exists() else []


def _ended(heard: Sequence[tuple[Any, Any, bytes]]) -> list[tuple[str, str]]:
    """The incidents a webhook was told of, each with what it was told last."""
    told = [json.loads(body) for _, _, body in list(heard)]
    return list({one["incident_id"]: one["event"] for one in told}.items())


class Watch:
    """Looks at the alerts that are active.

    `lost` are those that were and are not though nobody said that they are over, `doubled` those that were two alerts.
    """

    def __init__(self, address: str, incidents: Path) -> None:
        self._address = address
        self._incidents = incidents
        self.seen: set[str] = set()
        self.closed: set[str] = set()
        self.lost: set[str] = set()
        self.doubled: set[str] = set()
        self.looks = 0

    def look(self) -> list[str]:
        """The ids of the incidents that are active. Those that are closed by now may be gone."""
        with urllib.request.urlopen(f"{self._address}/api/v2/alerts?active=true", timeout=10) as answer:  # noqa: S310
            active = [alert["labels"]["incident_id"] for alert in json.load(answer)]
        self.closed |= {one.incident_id for one in _kept(self._incidents) if one.event == "closed"}
        self.looks += 1
        self.lost |= self.seen - set(active) - self.closed
        self.doubled |= {one for one, count in Counter(active).items() if count > 1}
        self.seen |= set(active)
        return active


class Daemon:
    """One of the small daemons; `kill` starts another in its place."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        self._process = self._start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._directory / f"{self._name}.log").open("ab") as log:
            return subprocess.Popen(
                [*dies_with_us(), sys.executable, "-m", "detector", self._name],
                cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(),
            )  # fmt: skip


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def _configuration(directory: Path, alertmanager: str, webhook: str) -> str:
    settings: dict[str, Any] = {
        "streams": {"directory": {"path": str(directory), "checkpoint_interval": "200ms"}},
        "readings": {
            "model": str(directory / "models"),
            "warmup": WARMUP,
            "alerts": {"false_alarms": {"per_sensor": 1, "per": f"{BUDGET} readings"}},
        },
        "http": {"listen": "127.0.0.1:0"},
        "incidents": {"http": "127.0.0.1:0"},
        "notify": {
            "http": "127.0.0.1:0",
            "settle": f"{SETTLE_SECONDS}s",
            "targets": [
                {"name": "alertmanager", "kind": "alertmanager", "url": alertmanager},
                {"name": "webhook", "kind": "webhook", "url": webhook},
            ],
        },
        "log": {"format": "json"},
    }
    return json.dumps(settings)


@contextmanager
def alertmanager(directory: Path) -> Iterator[str]:
    """A real one with nothing to route to; its address."""
    program = tool("prometheus-alertmanager", "Debian: prometheus-alertmanager")
    (port,) = free_ports(1)
    configuration = directory / "alertmanager.yml"
    configuration.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    with (directory / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *dies_with_us(), program, f"--config.file={configuration}", f"--storage.path={directory / 'storage'}",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=1):  # noqa: S310
                return True
        except OSError:
            return False

    try:
        if not wait_until(answers):
            raise RuntimeError((directory / "alertmanager.log").read_text())
        yield address
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
