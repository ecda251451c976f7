"""Makes the frozen states: what a release leaves behind that is stopped, or killed, in the middle of an input.

Only from a checkout of the release they are to be of: `python -m tests.golden.make states|kafka-states`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.golden.cases import ALERTS, CAMERAS, LETTERS, PLANT, Case, Json, command, environment, tar, unpacked
from tests.golden.topics import (
    Feed,
    GoldenTopics,
    create_input,
    keep,
    wait_until,
)
from tests.kafka.broker import Broker, dies_with_us

PLACES: Final = {PLANT: (2_295_000, 3_520_000, 3_575_000), CAMERAS: (1_680_000, 1_930_000, 1_955_000)}
"""Bytes of the input: stopped at the first place; killed between the others. Several episodes are open at each."""
DIRECTORY_KINDS: Final = ("stopped", "killed")
QUIET_SECONDS: Final = 3.0

RELEARNT: Final = "flow-04"
"""Its readings come in disorder, and with their gaps no window becomes complete: it relearns, as it once did not."""
BEGAN: Final = frozenset(
    ("count-05", "count-10", "flow-09", "pressure-02", "temperature-01", "temperature-06", "vibration-03")
)
"""The averages of their first windows, or of those after a gap, began at one error in that release; now at its mean."""


DRIFTED: Final = "vibration-08"
"""Its fault is a slow move, too, of which that release's state knows nothing: now its peak is higher."""


def as_ever(alerts: Sequence[Json]) -> list[Json]:
    """The alerts without those of the sensor that relearns, those of windows that began otherwise, and a slow move."""
    return [alert for alert in alerts if alert["sensor_id"] not in {RELEARNT, DRIFTED, *BEGAN}]


def make_states(directory: Path) -> None:
    """Of the directory backend: checkpoint, and outputs so far."""
    for case in PLACES:
        for kind in DIRECTORY_KINDS:
            place = case.lay_without_input(directory / f"{case.name}-{kind}")
            (_stopped if kind == "stopped" else _killed)(case, place)
            tar(case.data / f"directory-{kind}.tar.gz", place, [ALERTS, LETTERS, ".detector"])


def _stopped(case: Case, place: Path) -> None:
    """What there is of the input is processed, and then SIGTERM comes."""
    text = unpacked(case.data / f"{case.input}.gz")
    (place / case.input).write_bytes(text[: PLACES[case][0]])
    with _daemon(place) as process:
        _until_quiet(place / ".detector" / "checkpoint")
        _stop(process, signal.SIGTERM)


def _killed(case: Case, place: Path) -> None:
    """SIGKILL comes when alerts were written since the last checkpoint."""
    text = unpacked(case.data / f"{case.input}.gz")
    _, begin, end = PLACES[case]
    (place / case.input).write_bytes(text[:begin])
    checkpoint, alerts = place / ".detector" / "checkpoint", place / ALERTS
    with _daemon(place, "--set", "streams.directory.checkpoint_interval=3s") as process:
        _until_quiet(checkpoint)
        before = alerts.stat().st_size
        with (place / case.input).open("ab", buffering=0) as file:
            step = (end - begin) // 10
            for first in range(begin, end, step):
                file.write(text[first : min(first + step, end)])
                time.sleep(0.1)
        _stop(process, signal.SIGKILL)
    more = alerts.read_bytes()[before:].count(b"\n")
    sys.stdout.write(f"{case.name}: {more} alerts after the place the daemon was quiet at\n")


def make_kafka_states(directory: Path) -> None:
    """Of the Kafka backend: committed offsets, state and outputs so far."""
    with Broker(directory / "broker") as broker:
        for case, (first, begin, end) in PLACES.items():
            place = case.lay_without_input(directory / case.name)
            create_input(broker, case)
            feed = Feed(broker, case)
            never = ("--set", "state.snapshot_interval=1h")
            with (
                GoldenTopics(broker, case, "early").made() as topics,
                _daemon(place, *topics.options, *never) as process,
            ):
                feed.until(first)
                _until_committed(topics, feed)
                _stop(process, signal.SIGKILL)
                keep(case, "early", topics.freeze())
            with GoldenTopics(broker, case, "stopped").made() as topics, _daemon(place, *topics.options) as process:
                _until_committed(topics, feed)
                _stop(process, signal.SIGTERM)
                keep(case, "stopped", topics.freeze())
            with GoldenTopics(broker, case, "killed").made() as topics, _daemon(place, *topics.options) as process:
                feed.until(begin)
                _until_committed(topics, feed)
                feed.until(end, pause=6.0 / feed.records_until(end))
                _stop(process, signal.SIGKILL)
                keep(case, "killed", topics.freeze())
            feed.close()


@contextmanager
def _daemon(place: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(
            [*dies_with_us(), *command("run", *words)],
            cwd=place, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _stop(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    process.send_signal(number)
    status = process.wait(60)
    if status != (0 if number == signal.SIGTERM else -number):
        raise RuntimeError(f"the daemon ended with {status}")


def _until_quiet(checkpoint: Path) -> None:
    """Return when there is a checkpoint that has not changed for a while: all was processed."""
    wait_until(checkpoint.exists, "no checkpoint")
    while time.time() - checkpoint.stat().st_mtime < QUIET_SECONDS + 1:
        threading.Event().wait(0.1)


def _until_committed(topics: GoldenTopics, feed: Feed) -> None:
    wait_until(lambda: sum(offset for offset, _ in topics.committed().values()) == feed.sent, "all is committed")
