"""One transaction at a time on a producer that is thrown away at the first doubt.

A producer is never used again after an error, an abort or a call that did not return: the client carries offsets of an
aborted transaction over into the next one, and after some errors reports a commit that the broker aborted. The next
one has the same transactional id, and its initialisation ends whatever the last one left in doubt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer, TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from detector.streams.kafka.limits import Caller, TimeLimitError

# Seconds. Sending waits for metadata (10 s at most); the others are what a healthy broker does in a few ms.
_CONNECT: Final = 20.0
_SEND: Final = 12.0
_STEP: Final = 8.0
_ABORT: Final = 5.0
_CLOSE: Final = 3.0

_log = logging.getLogger(__name__)


class Outgoing(NamedTuple):
    """One record to write. `partition` None: chosen by the key; `timestamp` (ms) None: now."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int | None = None


Offsets = Mapping[TopicPartition, OffsetAndMetadata]


class Transactions:
    """Makes producers with `make` and runs transactions on them. Calls wait on the caller's thread, with limits."""

    def __init__(self, make: Callable[[], KafkaProducer], caller: Caller) -> None:
        self._make = make
        self._caller = caller
        self._producer: KafkaProducer | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a producer that nothing speaks against."""
        return self._producer is not None

    def connect(self) -> None:
        """Make a producer and end what the last one left open. Raises errors of the client, TimeLimitError."""
        self._producer = None
        made: list[KafkaProducer] = []
        try:
            self._caller.call("connecting the producer", _CONNECT, lambda: made.append(self._make()))
            self._caller.call("init_transactions", _STEP, made[0].init_transactions)
        except BaseException:
            for producer in made:
                self._close(producer)
            raise
        self._producer = made[0]

    def run(
        self, records: Sequence[Outgoing], group: ConsumerGroupMetadata, offsets_for: Callable[[Sequence[int]], Offsets]
    ) -> None:
        """Commit the records, and the offsets that `offsets_for` gives when it is told the records' own.

        Raises errors of the client or TimeLimitError; then nothing was committed or that is in doubt, and there is no
        producer any more.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            raise ValueError("no producer")
        begun = hung = False
        try:
            producer.begin_transaction()
            begun = True
            futures: list[Any] = self._caller.call("sending", _SEND, lambda: _send(producer, records))
            self._caller.call("flush", _STEP + 1, lambda: producer.flush(_STEP))
            # The client commits a transaction although records of it were given up: each one is asked.
            written = [future.get(timeout=0).offset for future in futures]
            offsets = offsets_for(written)
            self._caller.call("send_offsets", _STEP, lambda: producer.send_offsets_to_transaction(offsets, group))
            self._caller.call("commit_transaction", _STEP, producer.commit_transaction)
        except BaseException as error:
            hung = isinstance(error, TimeLimitError)
            if begun and not hung:
                self._abort(producer)
            self._close(producer)
            raise
        self._producer = producer

    def close(self) -> None:
        """Let go of the producer. Never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._close(producer)

    def _abort(self, producer: KafkaProducer) -> None:
        # Once, so that readers need not wait for the transaction to time out; a new producer does it, too.
        try:
            self._caller.call("abort_transaction", _ABORT, producer.abort_transaction)
        except Exception as error:
            _log.debug("abort_transaction failed: %s", error)

    def _close(self, producer: KafkaProducer) -> None:
        try:
            self._caller.call("closing the producer", _CLOSE, lambda: producer.close(1))
        except Exception as error:
            _log.debug("closing the producer failed: %s", error)
            _force_close(producer)


def _send(producer: KafkaProducer, records: Sequence[Outgoing]) -> list[Any]:
    return [
        producer.send(
            one.topic, one.value, one.key, one.headers, partition=one.partition, timestamp_ms=one.timestamp
        )
        for one in records
    ]  # fmt: skip


def _force_close(producer: KafkaProducer) -> None:
    # `close` raises when records are left, before it stops its thread; there is no public way to stop that.
    sender = getattr(producer, "_sender", None)
    if sender is not None:
        sender.force_close()
