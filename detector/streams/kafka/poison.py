"""Finding the batch that cannot be read, and where readable records begin again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from kafka import TopicPartition

from detector.errors import DetectorError, OperationError
from detector.streams.kafka.clients import plain_consumer
from detector.streams.kafka.failures import CORRUPT, as_failure

_POLL_MS: Final = 2_000
_log = logging.getLogger(__name__)


def describe_corrupt(
    error: Exception, positions: Mapping[TopicPartition, int], settings: Mapping[str, Any]
) -> DetectorError:
    """The error that ends the process: which partition it was, at which offset, and where to go on.

    The client does not say; so each partition is read again from its position by a consumer of its own.
    """
    for tp, position in positions.items():
        try:
            corrupt = _first_corrupt(tp, position, settings)
            if corrupt is None:
                continue
            behind = _first_readable(tp, corrupt, settings)
        except Exception as trouble:
            _log.debug("looking at %s failed: %s", tp, trouble)
            continue
        return OperationError(
            f"a batch of {tp.topic} cannot be read: partition {tp.partition}, offset {corrupt} "
            f"[{type(error).__name__}: {error}]",
            where=f"{tp.topic}:{tp.partition}:{corrupt}",
            todo=f"Pass over it: detector run --skip-to {tp.topic}:{tp.partition}:{behind}",
        )
    return as_failure(error, f"read from {', '.join(sorted({tp.topic for tp in positions}))}")


def _first_corrupt(tp: TopicPartition, position: int, settings: Mapping[str, Any]) -> int | None:
    """The offset behind the last record that can be read; None if there is none that cannot."""
    consumer = plain_consumer(settings)
    try:
        consumer.assign([tp])
        consumer.seek(tp, position)
        while True:
            try:
                if not consumer.poll(timeout_ms=_POLL_MS):
                    return None
            except CORRUPT:
                return int(consumer.position(tp))
    finally:
        consumer.close(timeout_ms=1000)


def _readable(tp: TopicPartition, offset: int, settings: Mapping[str, Any]) -> bool:
    # A consumer that met a corrupt batch once is of no use any more.
    consumer = plain_consumer(settings)
    try:
        consumer.assign([tp])
        consumer.seek(tp, offset)
        consumer.poll(timeout_ms=_POLL_MS // 4)
    except CORRUPT:
        return False
    finally:
        consumer.close(timeout_ms=1000)
    return True


def _first_readable(tp: TopicPartition, corrupt: int, settings: Mapping[str, Any]) -> int:
    """The first offset behind the batch; a batch holds a few thousand records at most, so double, then halve."""
    reach = 1
    while not _readable(tp, corrupt + reach, settings) and reach < 1 << 20:
        reach *= 2
    low, high = corrupt + reach // 2, corrupt + reach
    while low + 1 < high:
        middle = (low + high) // 2
        if _readable(tp, middle, settings):
            high = middle
        else:
            low = middle
    return high
