"""What the main loop says of itself: whether it is alive and ready, and if not, why not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

# A reason of this name means the loop waits for something outside the process, and a restart would not help.
WAITING: Final = "waiting_for_broker"


class Health:
    """What the main loop says of itself and the HTTP threads read. Thread-safe.

    It is *ready* when no reason against it is set, and *live* while the loop has made progress within `limit` seconds
    of the monotonic `clock` or says that it waits for the broker. A new object is not ready: reason `starting`.

    >>> health = Health()
    >>> health.clear_reason("starting")
    >>> health.set_reason("assignment", "no partition is assigned")
    >>> health.ready, health.live, health.reasons
    (False, True, {'assignment': 'no partition is assigned'})
    """

    def __init__(self, *, limit: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._progress = clock()
        self._reasons = {"starting": "the process is starting"}

    def progress(self) -> None:
        """Note that the main loop has finished a turn."""
        with self._lock:
            self._progress = self._clock()

    def set_reason(self, name: str, text: str) -> None:
        """Not ready because of `name`; `text` tells a person."""
        with self._lock:
            self._reasons[name] = text

    def clear_reason(self, name: str) -> None:
        """The reason `name` is gone, if it was there."""
        with self._lock:
            self._reasons.pop(name, None)

    @property
    def reasons(self) -> dict[str, str]:
        """Why it is not ready, by name; empty when it is."""
        with self._lock:
            return dict(self._reasons)

    @property
    def ready(self) -> bool:
        with self._lock:
            return not self._reasons

    @property
    def live(self) -> bool:
        with self._lock:
            return WAITING in self._reasons or self._clock() - self._progress <= self._limit

    @property
    def idle_seconds(self) -> float:
        """How long ago the loop last made progress."""
        with self._lock:
            return self._clock() - self._progress


class Together(Health):
    """Several loops of one process, by name: live and ready when all of them are."""

    def __init__(self, parts: Mapping[str, Health]) -> None:
        super().__init__()
        self._parts = dict(parts)

    @property
    def reasons(self) -> dict[str, str]:
        return {f"{of}: {name}": text for of, part in self._parts.items() for name, text in part.reasons.items()}

    @property
    def ready(self) -> bool:
        return all(part.ready for part in self._parts.values())

    @property
    def live(self) -> bool:
        return all(part.live for part in self._parts.values())

    @property
    def idle_seconds(self) -> float:
        return max((part.idle_seconds for part in self._parts.values()), default=0.0)
