"""How far restores are, for people who wait for one: log lines now and then, and a gauge a partition."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from detector.service.logs import event
from detector.service.metrics import Metrics
from detector.streams.base import Partition

EVERY_SECONDS: Final = 5.0
"""Between two log lines about one partition."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Replay:
    first: int
    last: int
    told: float


class RestoreProgress:
    """The share of the records that are run again, by partition; 1 once a partition is live."""

    def __init__(self, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._gauge = metrics.restore_progress
        self._monotonic = monotonic
        self._replays: dict[Partition, _Replay] = {}

    def begin(self, partition: Partition, position: int, live_from: int) -> None:
        """Records from `position` up to `live_from` will be run again."""
        self._replays[partition] = _Replay(position, live_from, self._monotonic())
        self._set(partition, 0.0)

    def reached(self, partition: Partition, position: int) -> None:
        """Those before `position` were."""
        replay = self._replays.get(partition)
        if replay is None:
            return
        share = (position - replay.first) / (replay.last - replay.first)
        self._set(partition, share)
        now = self._monotonic()
        if now - replay.told >= EVERY_SECONDS:
            replay.told = now
            event(
                _log, logging.INFO, "restore_progress", stream=partition.stream, partition=partition.number,
                position=position, live_from=replay.last, percent=round(100 * share),
            )  # fmt: skip

    def live(self, partition: Partition) -> None:
        """The partition's state is what it was at the last commit."""
        self._replays.pop(partition, None)
        self._set(partition, 1.0)

    def gone(self, partition: Partition) -> None:
        """The partition is not ours any more."""
        self._replays.pop(partition, None)

    def _set(self, partition: Partition, share: float) -> None:
        self._gauge.labels(partition.stream, str(partition.number)).set(share)
