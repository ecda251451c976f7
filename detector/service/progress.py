"""How far a restore is, for people who wait for it: log lines now and then, and a gauge."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from detector.service.logs import event
from detector.service.metrics import Metrics
from detector.streams.base import Partition

EVERY_SECONDS: Final = 5.0
"""Between two log lines about one partition."""

_log = logging.getLogger(__name__)


class RestoreProgress:
    """The share that was run again of a partition's records from `position` up to `live_from`."""

    def __init__(
        self, partition: Partition, position: int, live_from: int, metrics: Metrics, monotonic: Callable[[], float]
    ) -> None:
        self._partition = partition
        self._first = position
        self._last = live_from
        self._share = metrics.restore_progress.labels(*partition)
        self._share.set(0.0)
        self._monotonic = monotonic
        self._told = monotonic()

    def reached(self, position: int) -> None:
        """Records before `position` were run again."""
        share = (position - self._first) / (self._last - self._first)
        self._share.set(share)
        now = self._monotonic()
        if now - self._told >= EVERY_SECONDS:
            self._told = now
            event(
                _log, logging.INFO, "restore_progress",
                stream=self._partition.stream, partition=self._partition.number,
                position=position, live_from=self._last, percent=round(100 * share),
            )  # fmt: skip
