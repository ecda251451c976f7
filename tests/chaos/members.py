"""The daemons under fire: `detector run`, `incidents` and `rekey` as processes that are killed, stopped and started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.kafka.broker import dies_with_us

STOP_SECONDS = 90.0
ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """A process that ended: which, with what status, and the last line of its log."""

    name: str
    status: int
    last_line: str


class Member:
    """One place in the group, with one process after another in it."""

    def __init__(
        self,
        name: str,
        config: Path,
        directory: Path,
        options: Sequence[str] = (),
        *,
        command: Sequence[str] = ("run",),
    ) -> None:
        self.name = name
        self._command = list(command)
        self.log = directory / f"{name}.log"
        self._config = config
        self._options = list(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def listening(self) -> bool:
        """Whether the process handles signals its own way: before that, any of them ends it."""
        if not self.log.exists():
            return False
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return b'"event":"model_loaded"' in log.read()

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self._process is not None and self._process.poll() is None

    def start(self, *options: str) -> None:
        """Start a process; `options` are those of `tests.chaos.daemon`."""
        if self.running:
            raise RuntimeError(f"{self.name} is running")
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *dies_with_us(), sys.executable, "-m", "tests.chaos.daemon", *self._options, *options, "--",
                    *self._command, "--config", str(self._config), "--log-format", "json",
                ],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "DETECTOR_INSTANCE": self.name},
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM; returns the exit status, that of SIGKILL if the process does not end."""
        self.terminate()
        return self.wait(STOP_SECONDS)

    def wait(self, seconds: float) -> int:
        """Wait for the process to end by itself and return its exit status; kill it when the time is over."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def reload(self) -> None:
        """SIGHUP: read the configuration again."""
        self._signal(signal.SIGHUP)

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def ended(self) -> Ended | None:
        """How the last process ended; None while it runs."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        lines = self.log.read_text(errors="replace").splitlines()
        return Ended(self.name, status, lines[-1] if lines else "")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
