"""While the broker cannot be worked with: when to try again, what to tell, and when to give up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from detector.errors import OperationError

_AWAY_SECONDS: Final = 1.0
"""A coordinator that is away for less is moving, not gone."""
_QUIET_SECONDS: Final = 60.0
"""Troubles further apart than this are not one outage."""
_LONGEST_PAUSE: Final = 5.0

_log = logging.getLogger(__name__)


class Outage:
    """Counts the seconds from the first trouble to the first thing that works again, at most `limit`.

    `on_waiting` is told why the broker is waited for, and None when that is over. `next_attempt`: the time, by `clock`,
    from which on to connect again.
    """

    def __init__(self, limit: float, on_waiting: Callable[[str | None], None], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._on_waiting = on_waiting
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.next_attempt = self._clock()
        self._attempts = 0
        self._away_since: float | None = None
        self._since: float | None = None
        self._last = self._clock()
        self._waits = False

    def attempt_failed(self, why: str) -> None:
        """Connecting failed: the next attempt comes later each time. Raises OperationError after the limit."""
        self._attempts += 1
        self.next_attempt = self._clock() + min(_LONGEST_PAUSE, 0.1 * 2**self._attempts)
        self.begin(why)

    def connected(self) -> None:
        """An attempt to connect was a success."""
        self._attempts = 0

    def begin(self, why: str) -> None:
        """Note that the broker cannot be worked with now. Raises OperationError after the limit."""
        now = self._clock()
        if self._since is None or now - self._last > _QUIET_SECONDS:
            self._since = now
        self._last = now
        if not self._waits:
            self._waits = True
            _log.warning("waiting for the broker: %s", why)
            self._on_waiting(why)
        if now - self._since > self._limit:
            raise OperationError(
                f"the broker has been away for {self._limit:g} s: {why}",
                where="streams.kafka.broker_outage_limit",
                todo="Look after the broker and start again: nothing is lost",
            )

    def look(self, *, away: bool, joined: bool) -> None:
        """What is seen of the coordinator: while idle nothing else fails. Raises OperationError after the limit."""
        if not away:
            self._away_since = None
            if joined:
                self._tell_end()
            return
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        elif now - self._away_since > _AWAY_SECONDS:
            self.begin("its group coordinator cannot be reached")

    def end(self) -> None:
        """A commit went through."""
        self._since = None
        self._tell_end()

    def _tell_end(self) -> None:
        if self._waits:
            self._waits = False
            _log.warning("the broker is back")
            self._on_waiting(None)
