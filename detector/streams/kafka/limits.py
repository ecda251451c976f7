"""Calls that may never return, on a thread of their own, with a limit.

The client's transactional calls wait without one, and after a broker's restart for ever, because the request itself is
lost. A call that passes its limit is left behind with its thread; whatever it worked on must not be used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

_TICK: Final = 1.0
"""Seconds between two signs of life while a call is waited for."""


class TimeLimitError(Exception):
    """A call did not return within its limit; it may still be at work."""


class Caller:
    """Runs one call at a time. `tick` is called about once a second while the caller waits."""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self._tick = tick
        self._jobs: SimpleQueue[_Job | None] | None = None

    def call(self, what: str, limit: float, function: Callable[[], T]) -> T:
        """Return what `function` returns or raise what it raises; TimeLimitError naming `what` after `limit` s."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=_work, args=(self._jobs,), name="kafka-calls", daemon=True).start()
        job = _Job(function)
        self._jobs.put(job)
        left = limit
        while not job.done.wait(min(left, _TICK)):
            left -= _TICK
            if left <= 0:
                self.close()  # that thread is lost: it ends when the call does, if ever
                raise TimeLimitError(f"{what} did not return within {limit:g} s")
            self._tick()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def close(self) -> None:
        """Let the thread end."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


class _Job:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.result = job.function()
        except BaseException as error:
            job.error = error
        job.done.set()
        del job  # an idle thread shall not hold on to what the last call worked on
