"""SIGTERM and SIGINT: the first one asks the main loop to stop, the second one ends the process at once.

SIGHUP, which asks for a reload, is counted.

A handler does nothing but set a flag. It never raises: an exception out of nowhere could leave a half-made commit,
and the loop looks at the flag once a turn anyway.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)

# The status a shell reports for a program ended by the keyboard.
FORCED: Final = 130


class StopSignals:
    """A context manager that catches `STOPPING` and SIGHUP for as long as it is entered; for the main thread only.

    `force` ends the process on the second signal and must not return in production.
    """

    def __init__(self, force: Callable[[int], object] = os._exit) -> None:
        self._force = force
        self._received: signal.Signals | None = None
        self._ended = False
        self.hangups = 0
        """How often SIGHUP came."""
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def stop(self) -> bool:
        """Whether the loop was asked to stop."""
        return self._received is not None or self._ended

    def end(self) -> None:
        """Something in the process wants it to end, as a signal would."""
        self._ended = True

    @property
    def received(self) -> str | None:
        """The name of the first signal, such as `SIGTERM`, or None."""
        return None if self._received is None else self._received.name

    def __enter__(self) -> Self:
        for number in STOPPING:
            self._previous[number] = signal.signal(number, self._handle)
        self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        # From the start of the process on it was held back (`detector.__main__`).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._force(FORCED)
        self._received = signal.Signals(number)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self.hangups += 1
