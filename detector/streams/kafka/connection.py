"""The clients of one process: its member of the group, a reader of state, and the producer of its transactions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError
from kafka.structs import ConsumerGroupMetadata

from detector.config.streams import KafkaConfig
from detector.errors import OperationError
from detector.streams.kafka.assignor import Assignor, SoleAssignor
from detector.streams.kafka.clients import (
    admin_client,
    connection_settings,
    group_consumer,
    instance_name,
    plain_consumer,
    transactional_producer,
)
from detector.streams.kafka.limits import Caller
from detector.streams.kafka.membership import Listener, Watch, is_member, still_member
from detector.streams.kafka.releases import warn_of_release
from detector.streams.kafka.security import probe, refused
from detector.streams.kafka.tail import RPC_MS, check_owners
from detector.streams.kafka.topics import check_topics
from detector.streams.kafka.transactions import Transactions

_ASK_SECONDS: Final = 8.0
_CLOSE_MS: Final = 3_000
_FENCED_TWICE_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class Connection:
    """Made by `connect`, as far as they are missing. `partitions`: of each input, as they were at the start.

    `sole`: one member of the group has all partitions. `before_revoke` is called within a poll before partitions are
    given back, `tick` while something takes long.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        state_topics: Mapping[str, str],
        outputs: Sequence[str],
        *,
        optional: Collection[str] = (),
        max_records: int,
        sole: bool = False,
        before_revoke: Callable[[], None],
        tick: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._kafka = kafka
        self._state_topics = state_topics
        self._outputs = outputs
        self._optional = optional
        self.absent: frozenset[str] = frozenset()
        """Those of the `optional` outputs that the broker does not have."""
        self._max_records = max_records
        self._sole = sole
        self._before_revoke = before_revoke
        self._clock = clock
        self.tick = tick
        self._caller = Caller(tick)
        self.instance = instance_name(kafka)
        self._fenced_at: float | None = None
        self.settings: dict[str, Any] = {}
        self.partitions: dict[str, int] = {}
        self.transactions = Transactions(self._make_producer, self._caller)
        self.consumer: KafkaConsumer | None = None
        self.reader: KafkaConsumer | None = None
        self._impatient: KafkaConsumer | None = None
        self.listener: Listener | None = None
        self.watch = Watch(clock)

    def prepare(self) -> None:
        """Read secrets; topics are looked at with the next `connect`. Raises UserError."""
        self.partitions = {}
        self._fenced_at = None
        self.settings = connection_settings(self._kafka)

    def connect(self) -> tuple[KafkaConsumer, KafkaConsumer]:
        """Connect what is not connected, a producer in any case; returns group member and reader.

        Raises UserError for what a person has to change, and errors of the client.
        """
        with refused(self._kafka):
            probe(self._kafka, self.settings)
            self.tick()
            if self.reader is None:
                self.reader = plain_consumer(self.settings)
                self.tick()
            if not self.partitions:
                with admin_client(self.settings) as admin:
                    self.partitions = check_topics(
                        admin,
                        self._state_topics,
                        self._outputs,
                        optional=self._optional,
                        create=self._kafka.create_topics,
                        new=self._kafka.new_topics,
                        owned=partial(check_owners, self.reader, self._state_topics, tick=self.tick, clock=self._clock),
                    )
                    self.absent = frozenset(self._optional) - self.partitions.keys()
                    for topic in sorted(self.absent):
                        _log.warning("there is no topic %s: nothing is written to it", topic)
                    written = [topic for topic in self._outputs if topic not in self.absent]
                    warn_of_release(admin, [*self._state_topics.values(), *written])
            self.tick()  # each of these may take some seconds where the broker hangs
            self.transactions.connect()
            if self.consumer is None:
                self.consumer = self._join()
            return self.consumer, self.reader

    def _join(self) -> KafkaConsumer:
        assignor = SoleAssignor() if self._sole else Assignor()
        consumer = group_consumer(self._kafka, self.settings, self.instance, self._max_records, assignor)
        listener = Listener(consumer, self._before_revoke)
        assignor.still_member = partial(still_member, consumer, listener)
        try:
            for topic in self._state_topics:
                # A leader that does not know the topic's partitions yet would assign none of them.
                self._caller.call(
                    "asking for the partitions", _ASK_SECONDS, partial(consumer.partitions_for_topic, topic)
                )
            consumer.subscribe(topics=list(self._state_topics), listener=listener)
        except BaseException:
            self._close_consumer(consumer)
            raise
        self.listener = listener
        self.watch = Watch(self._clock)
        return consumer

    def membership(self) -> ConsumerGroupMetadata:
        """What a commit shows to the broker. Raises CommitFailedError while this process is no member of its group."""
        if self.consumer is None or self.listener is None:
            raise CommitFailedError("there is no connection")
        # Without a generation the broker takes the offsets of a member that the group has long given up.
        group = self.consumer.group_metadata()
        # It may have come back under another id already; what it holds is then not its own any more.
        if not is_member(group) or self.listener.given_up:
            raise CommitFailedError("this process is no member of its group")
        return group

    def topic_id(self, topic: str) -> str:
        """The id of a topic as the group's member knows it; "" where the broker gives none."""
        if self.consumer is None:
            return ""
        # A recreated topic keeps its name alone. The client has no public way to ask.
        found = self.consumer._client.cluster.topic_id(topic)  # noqa: SLF001
        return "" if found is None else str(found)

    def written(self, tp: TopicPartition) -> int:
        """The end of a partition with what no transaction has committed yet. Raises errors of the client."""
        if self._impatient is None:
            self._impatient = plain_consumer(self.settings, isolation_level="read_uncommitted")
        end: int = self._impatient.end_offsets([tp], timeout_ms=RPC_MS)[tp]
        return end

    def fenced(self, error: BaseException) -> None:
        """Another producer took this one's name. Raises OperationError the second time within a minute."""
        now = self._clock()
        if self._fenced_at is not None and now - self._fenced_at < _FENCED_TWICE_SECONDS:
            raise OperationError(
                f"another process has the same instance name, {self.instance}: both take over from each other",
                where="streams.kafka.instance",
                todo="Give each process its own, in the configuration or as $DETECTOR_INSTANCE",
            ) from error
        self._fenced_at = now

    def close(self) -> None:
        """Leave the group and let go of everything. Never raises."""
        self.transactions.close()
        if self.listener is not None:
            self.listener.closing = True
        for consumer in (self.consumer, self.reader, self._impatient):
            if consumer is not None:
                self._close_consumer(consumer)
        self.consumer = self.reader = self._impatient = self.listener = None
        self._caller.close()

    def _make_producer(self) -> Any:
        return transactional_producer(self._kafka, self.settings, self.instance)

    def _close_consumer(self, consumer: KafkaConsumer) -> None:
        try:
            self._caller.call("closing a consumer", _CLOSE_MS / 1000 + 1, lambda: consumer.close(timeout_ms=_CLOSE_MS))
        except Exception as error:
            _log.debug("closing a consumer failed: %s", error)
