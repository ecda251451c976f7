"""The demo: the commands a user would type, run one after the other, and their result against the labels."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from detector.errors import OperationError, UserError, counted
from detector.reports.scoreboard import Scoreboard, by_kind, episodes_of, of_kind, read_labels, score
from detector.reports.text import describe, duration, moment, span
from detector.simulation.cameras import CAMERA_FAULTS
from detector.wire.alerts import Alert, decode_alert
from detector.wire.incidents import decode_incident

SENSORS: Final = 20
ROWS: Final = 10_000
TRAINING_ROWS: Final = 4_000
FRAMES: Final = 2_500
TRAINING_FRAMES: Final = 1_000
QUICK: Final = ("--epochs", "20", "--set", "training.batch_size=32")
"""A camera of the demo needs no more: some 600 steps, on small batches."""
FOLLOW_SECONDS: Final = 0.2
INCIDENTS_SHOWN: Final = 3
MARK: Final = ".demo"
"""A file of this name says that the directory is a demo's own."""


class Demo:
    """Runs everything below `directory`; `plain` prints lines without colour.

    `sensors`, `rows` (of each) and `training_rows` (of each, from its start) are the size of the plant, beside which
    one camera takes `frames` frames; `epochs` None leaves the training of the sensors' model as configured.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        plain: bool,
        sensors: int = SENSORS,
        rows: int = ROWS,
        training_rows: int = TRAINING_ROWS,
        epochs: int | None = None,
        frames: int = FRAMES,
    ) -> None:
        self._frames = frames
        self._directory = directory
        self._sensors = sensors
        self._rows = rows
        self._training_rows = training_rows
        self._epochs = epochs
        self._seed = seed
        self._console = Console(no_color=plain or None, highlight=False, markup=False, soft_wrap=True)
        self._plain = plain
        self._live = not plain and self._console.is_terminal and _has_terminal()
        self._shown: dict[str, str] = {}

    def run(self) -> int:
        """Simulate, train, run, report."""
        began = time.monotonic()
        plant, models, eyes = (self._directory / name for name in ("plant", "models", "frame-models"))
        alerts = self._directory / "alerts.jsonl"
        self._make_room(plant)
        seed = "--seed", str(self._seed)
        self._say(f"1/5  A plant of {self._sensors} sensors and a camera, with faults in the later part")
        self._command("simulate", "--out", str(plant), "--sensors", str(self._sensors), "--rows", str(self._rows),
                      "--cameras", "1", "--frames", str(self._frames), *seed)  # fmt: skip
        self._say(f"2/5  A model of what is normal, from the first {self._training_rows} readings of each sensor")
        self._command("train", "--data", str(plant), "--rows", str(self._training_rows), "--out", str(models),
                      "--name", "demo", *seed,
                      *(() if self._epochs is None else ("--epochs", str(self._epochs))))  # fmt: skip
        seen = min(TRAINING_FRAMES, self._frames * 2 // 5)
        self._say(f"3/5  A model of what the camera sees, from its first {seen} frames")
        self._command("train", "--model", "conv", "--data", str(plant), "--rows", str(seen), "--out", str(eyes),
                      "--name", "demo", *seed, *QUICK)  # fmt: skip
        self._say("4/5  The daemon reads both streams")
        counts, seconds = self._daemon(plant, models, eyes, alerts)
        self._say("5/5  The same readings once more, as a page")
        report = self._directory / "report"
        self._command("backtest", "--data", str(plant), "--labels", str(plant / "labels.json"), "--out", str(report),
                      "--set", f"readings.model={models}", quiet=True)  # fmt: skip
        self._report(alerts, plant / "labels.json", counts, seconds, time.monotonic() - began)
        self._console.print(f"\nWhat was found and what was missed, with pictures: {report / 'report.html'}")
        return 0

    def _make_room(self, plant: Path) -> None:
        """Remove the plant of an earlier demo; what another put there stays, and is in the way."""
        mark = self._directory / MARK
        try:
            if plant.exists():
                if not mark.exists():
                    raise UserError(
                        "there is already something here, and not by a demo",
                        where=str(plant),
                        todo="Choose another --dir",
                    )
                shutil.rmtree(plant)
            self._directory.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise UserError(
                f"cannot write here: {error.strerror}", where=str(self._directory), todo="Choose another --dir"
            ) from error

    def _command(self, *words: str, quiet: bool = False) -> None:
        """Run it; `quiet`: what it prints is seen only where it fails."""
        self._show(*words)
        done = subprocess.run(_argv(*words), capture_output=quiet, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.stderr.write(done.stderr or "")
            raise OperationError(f"`detector {words[0]}` failed with status {done.returncode}", todo="See above")

    def _daemon(self, plant: Path, models: Path, eyes: Path, alerts: Path) -> tuple[tuple[int, int], float]:
        """Run the daemon, printing its alerts as they come. Returns readings, frames, and the seconds they took."""
        words = ("run", "--input", str(plant), "--output", str(alerts), "--until-end", "--fresh",
                 "--set", f"readings.model={models}", "--set", f"frames.model={eyes}",
                 "--set", "frames.enabled=true", "--set", "http.listen=127.0.0.1:0",
                 "--with", "incidents", "--set", "incidents.http=127.0.0.1:0")  # fmt: skip
        words += ("--log-format", "json", *(("--live",) if self._live else ()))
        self._show(*words)
        alerts.unlink(missing_ok=True)  # of an earlier demo; what lies there from now on is this one's
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(_argv(*words), stderr=log)  # noqa: S603
            try:
                if self._live:
                    process.wait()
                else:
                    self._follow(process, alerts)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            log.seek(0)
            lines = log.read().splitlines()
        if process.returncode:
            raise OperationError(
                f"`detector run` failed with status {process.returncode}: {lines[-1] if lines else 'no output'}",
                todo="Run the command above by itself",
            )
        stopped = next(line for line in map(json.loads, reversed(lines)) if line["event"] == "stopped")
        fields = stopped["fields"]
        return (int(fields["readings"]), int(fields["frames"])), float(fields["seconds"])

    def _follow(self, process: subprocess.Popen[bytes], path: Path) -> None:
        position, rest = 0, b""
        while True:
            ended = process.poll() is not None
            if path.exists():
                with path.open("rb") as file:
                    file.seek(position)
                    data = file.read()
                position += len(data)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._alert(decode_alert(line))
            if ended:
                return
            time.sleep(FOLLOW_SECONDS)

    def _alert(self, alert: Alert) -> None:
        colour = {"opened": "yellow", "updated": "red", "closed": "green"}[alert.event]
        if alert.event == "updated" and self._shown.get(alert.alert_id) == alert.severity:
            return  # a reminder of an episode that goes on; only a rise is notifies here
        self._shown[alert.alert_id] = alert.severity
        self._console.print(f"     {describe(alert)}", style=colour)

    def _report(self, alerts: Path, labels: Path, counts: tuple[int, int], seconds: float, total: float) -> None:
        told = [decode_alert(line) for line in alerts.read_bytes().splitlines()]
        known = read_labels(labels)
        board = score(
            episodes_of(alert for alert in told if alert.kind == "readings"),
            [label for label in known if label.kind not in CAMERA_FAULTS],
        )
        seen = score(
            episodes_of(alert for alert in told if alert.kind == "frames"),
            [label for label in known if label.kind in CAMERA_FAULTS],
        )
        print_board(self._console, board, "Faults of sensors by kind")
        print_board(self._console, seen, "What the camera saw, by kind")
        self._console.print(f"\nSensors: {_summary(board)}\nCamera:  {_summary(seen)}")
        self._tell_incidents(alerts.with_name("anomaly-incidents.jsonl"))
        readings, frames = counts
        rate = readings / seconds if seconds else 0.0
        self._console.print(
            f"{readings} readings and {frames} frames in {seconds:.1f} s: {rate:,.0f} readings/s beside the camera.\n"
            f"The demo took {total:.0f} s.\n"
            f"Alerts: {alerts}   labels: {labels}\n"
        )
        program = _program()
        self._console.print(
            "Your own CSV, with the columns timestamp and value (and sensor_id if need be):\n"
            f"  {program} train --data YOUR.csv --rows 2000\n"
            f"  {program} run --input YOUR.csv --output alerts.jsonl --until-end"
        )

    def _tell_incidents(self, path: Path) -> None:
        """What the episodes come to for whoever is told: how many incidents, and the largest of them."""
        newest = {one.incident_id: one for one in map(decode_incident, path.read_bytes().splitlines())}
        largest = sorted(newest.values(), key=lambda one: one.size, reverse=True)[:INCIDENTS_SHOWN]
        episodes = sum(one.size for one in newest.values())
        self._console.print(f"Incidents: {len(newest)}, of {counted(episodes, 'episode')} ({path})")
        for one in largest:
            self._console.print(f"  {one.title}")

    def _say(self, text: str) -> None:
        self._console.print(f"\n{text}", style="bold")

    def _show(self, *words: str) -> None:
        self._console.print(f"     $ {shlex.join([_program(), *words])}", style="dim")


def _summary(board: Scoreboard) -> str:
    """How well it went, in a line."""
    delay = duration(board.median_delay) if board.median_delay is not None else "-"
    return (
        f"{len(board.found)} of {len(board.found) + len(board.missed)} faults found, {len(board.missed)} missed, "
        f"{counted(len(board.false_alarms), 'false alarm')}, median delay {delay}."
    )


def print_board(console: Console, board: Scoreboard, title: str = "Faults by kind") -> None:
    """Faults by kind, and the false alarms."""
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold")
    for column, justify in (("kind", "left"), ("found", "right"), ("of", "right"), ("median delay", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for kind, (found, total) in by_kind(board).items():
        median = of_kind(board, kind).median_delay
        delay = duration(median) if median is not None else "-"
        table.add_row(kind, str(found), str(total), delay)
    console.print(table)
    for label in board.missed:
        console.print(f"  missed       {label.sensor_id}  {label.kind}  {span(*label.interval)}")
    for episode in board.false_alarms:
        at = moment(episode.detected)
        console.print(f"  false alarm  {episode.sensor_id}  peak score {episode.peak:.3g}  {at}")


def _has_terminal() -> bool:
    """Whether there is a terminal for the daemon's live view, which stays one if standard output goes elsewhere."""
    try:
        with open("/dev/tty", "w"):
            return True
    except OSError:
        return False


def _argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "detector.cli.main", *words]


def _program() -> str:
    """How this program was called, as a person would type it again."""
    name = Path(sys.argv[0])
    if name.name != "detector":
        return "detector"
    relative = os.path.relpath(name)
    return relative if len(relative) < len(str(name)) else str(name)
