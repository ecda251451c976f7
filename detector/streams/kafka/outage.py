"""While nothing can be committed: when to try again, what to tell, and when to give up."""

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

    A trouble is a broker that is `away`, or one that refuses what this process wants to commit. `on_waiting` is told
    why nothing goes on, and None when that is over. `next_attempt`: the time, by `clock`, from which on to connect
    again.
    """

    def __init__(self, limit: float, on_waiting: Callable[[str | None], None], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._on_waiting = on_waiting
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin again."""
        self.next_attempt = self._clock()
        self._attempts = 0
        self._away_since: float | None = None
        self._since: float | None = None
        self._last = self._clock()
        self._told_away = self._told = False

    def attempt_failed(self, why: str, *, away: bool = True) -> None:
        """Connecting failed: the next attempt comes later each time. Raises OperationError after the limit."""
        self._attempts += 1
        self.next_attempt = self._clock() + min(_LONGEST_PAUSE, 0.1 * 2**self._attempts)
        self.begin(why, away=away)

    def connected(self) -> None:
        """An attempt to connect was a success."""
        self._attempts = 0

    def begin(self, why: str, *, away: bool) -> None:
        """Note that nothing can be committed now. Raises OperationError after the limit."""
        now = self._clock()
        if self._since is None or now - self._last > _QUIET_SECONDS:
            self._since = now
        self._last = now
        if away and not self._told_away:
            self._told_away = True
            _log.warning("waiting for the broker: %s", why)
            self._on_waiting(why)
        elif not self._told and not self._told_away:
            self._on_waiting(why)
        self._told = True
        if now - self._since > self._limit:
            what = "the broker has been away" if away else "nothing could be committed"
            raise OperationError(
                f"{what} for {self._limit:g} s: {why}",
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
            self.begin("its group coordinator cannot be reached", away=True)

    def end(self) -> None:
        """A commit went through."""
        self._since = None
        self._tell_end()

    def _tell_end(self) -> None:
        if self._told_away:
            _log.warning("the broker is back")
        if self._told:
            self._on_waiting(None)
        self._told_away = self._told = False
