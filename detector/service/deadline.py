"""A stop that hangs (a disk that does not answer, a broker that is gone) must not hang for ever."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable

CHECK_SECONDS = 0.1


class ShutdownDeadline:
    """Once `stop()` is true the process has `seconds` to end by itself; then `expire` ends it.

    Runs on a thread of its own, because what it guards against is a main thread that waits. `cancel` ends the watch.
    """

    def __init__(self, stop: Callable[[], bool], seconds: float, expire: Callable[[float], None] | None = None) -> None:
        self._stop = stop
        self._seconds = seconds
        self._expire = expire or _exit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shutdown-deadline", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def cancel(self) -> None:
        """The process ends in time."""
        self._done.set()

    def _watch(self) -> None:
        while not self._stop():
            if self._done.wait(CHECK_SECONDS):
                return
        if not self._done.wait(self._seconds):
            self._expire(self._seconds)


def _exit(seconds: float) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(
            f"detector: error: stopping took longer than {seconds:g} s (shutdown_timeout). "
            "What was not committed is done again at the next start.\n"
        )
        sys.stderr.flush()
    os._exit(1)
