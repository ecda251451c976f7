"""Telling systemd how we are (`Type=notify`), or nobody at all when it did not start us."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from detector.service.health import Health

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends states such as `READY=1` to the socket systemd names in the environment.

    Without `NOTIFY_SOCKET` every method does nothing. No method raises or waits: a supervisor that does not listen
    is no reason to stop working.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace, whose names begin with a zero byte.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_interval = _watchdog_interval(environ, os.getpid() if pid is None else pid)

    def ready(self, status: str = "") -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str = "") -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog; called by the main loop itself, at least every `watchdog_interval` seconds."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(state.encode(), self._address)
        except OSError:
            return


class Pulse:
    """Called by the main loop between turns and between pieces of long work: shows that it is alive.

    `health` hears of it each time, the watchdog as often as it wants to.
    """

    def __init__(self, health: Health, notifier: Notifier, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._health = health
        self._notifier = notifier
        self._monotonic = monotonic
        self._fed = monotonic()

    def __call__(self) -> None:
        self._health.progress()
        now = self._monotonic()
        interval = self._notifier.watchdog_interval
        if interval is not None and now - self._fed >= interval / 2:
            self._notifier.alive()
            self._fed = now


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how often (s) the watchdog wants to be fed, half its limit; None when it does not watch this process."""
    limit = environ.get("WATCHDOG_USEC", "")
    if not limit.isdigit() or int(limit) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(limit) / _MICROSECONDS / 2
