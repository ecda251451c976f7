"""The loop of the small daemons: read what the detector, or another of them, has published, work on it, commit.

Where all partitions are one piece of work with one state, they come and go together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from detector.errors import StopAskedError
from detector.service.daemon import POLL_SECONDS
from detector.service.health import Health
from detector.service.logs import event
from detector.service.systemd import Notifier
from detector.streams.base import Assigned, Batch, Message, Partition, Revoked, Streams

_log = logging.getLogger(__name__)

BRIEFLY: Final = 0.01
"""How long an idle turn waits where there is work beside the records."""


class Work(Protocol):
    """What is done with the records. Methods are called from one thread."""

    def begin(self, assigned: Mapping[Partition, Assigned]) -> None:
        """These partitions are ours from here on, with what was stored for them. Raises `DetectorError`."""

    def lose(self) -> None:
        """No partition is ours any more."""

    def take(self, batch: Batch) -> Sequence[Message]:
        """Work on records; what is to be written. Raises `DetectorError`."""

    def turn(self, *, ending: bool) -> Sequence[Message]:
        """Work beside the records, once a turn; `ending`: nothing more will come."""

    @property
    def positions(self) -> Mapping[Partition, int]:
        """How far the records are dealt with, of each partition that is ours, perhaps also of some that were."""

    @property
    def busy(self) -> bool:
        """Whether `turn` has work at hand."""

    @property
    def waiting(self) -> bool:
        """Whether `turn` will have work, so that it is not the end yet."""

    def snapshot(self, partition: Partition) -> bytes:
        """What to store for a partition of the commit."""


class Follower:
    """Drives `streams` and `work` until `stop()` says so, or with `until_end` until all is done that was there.

    `pulse` is called once a turn, and `turned` with how much there is still to read.
    """

    def __init__(
        self,
        streams: Streams,
        work: Work,
        *,
        name: str,
        health: Health,
        stop: Callable[[], bool],
        until_end: bool = False,
        notifier: Notifier | None = None,
        pulse: Callable[[], None] = lambda: None,
        turned: Callable[[Mapping[Partition, int]], None] = lambda _: None,
    ) -> None:
        self._streams = streams
        self._work = work
        self._name = name
        self._health = health
        self._stop = stop
        self._until_end = until_end
        self._notifier = notifier or Notifier({})
        self._pulse = pulse
        self._turned = turned
        self._ours: set[Partition] = set()

    def run(self) -> None:
        """Open, turn until the end, commit. Raises DetectorError for what a person must know."""
        try:
            self._streams.open()
            self._health.clear_reason("starting")
            self._unassigned()
            event(_log, logging.INFO, "following", work=self._name)
            self._notifier.ready("no partition is assigned yet")
            with suppress(StopAskedError):
                while not self._stop() and self._turn():
                    pass
            self._notifier.stopping()
            self._health.set_reason("stopping", "the process is stopping")
            self._streams.commit(self._positions(), self._work.snapshot, final=True)
        finally:
            self._streams.close()
            event(_log, logging.INFO, "followed", work=self._name)

    def _turn(self) -> bool:
        """One turn of the loop; False when there is no more to do."""
        happened = self._streams.poll(BRIEFLY if self._work.busy else POLL_SECONDS)
        assigned = {one.partition: one for one in happened if isinstance(one, Assigned)}
        for one in happened:
            if isinstance(one, Revoked):
                self._revoke(one.partition)
        if assigned:
            self._assign(assigned)
        for one in happened:
            if isinstance(one, Batch) and one.partition in self._ours:
                self._streams.write(self._work.take(one))
        ended = self._until_end and not happened and self._streams.at_end()
        if self._ours:
            self._streams.write(self._work.turn(ending=ended))
        self._streams.commit(self._positions(), self._work.snapshot)
        self._turned(self._streams.lag())
        self._pulse()
        return not ended or bool(self._ours and self._work.waiting)

    def _positions(self) -> dict[Partition, int]:
        return {of: position for of, position in self._work.positions.items() if of in self._ours}

    def _assign(self, assigned: Mapping[Partition, Assigned]) -> None:
        self._work.begin(assigned)
        self._ours |= set(assigned)
        self._health.clear_reason("unassigned")
        event(
            _log, logging.INFO, "partitions_assigned",
            work=self._name, positions={f"{of.stream}:{of.number}": one.position for of, one in assigned.items()},
        )  # fmt: skip
        self._notifier.status("at work")

    def _revoke(self, partition: Partition) -> None:
        if partition not in self._ours:
            return
        self._ours.remove(partition)
        if not self._ours:
            self._work.lose()
            self._unassigned()
            event(_log, logging.INFO, "partitions_revoked", work=self._name)

    def _unassigned(self) -> None:
        self._health.set_reason("unassigned", "no partition is assigned; another process may be at work")
