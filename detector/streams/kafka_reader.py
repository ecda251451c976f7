"""A Kafka topic as a recording: what training and backtests read, without joining the consumer group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from detector.config.streams import KafkaConfig
from detector.errors import DetectorError, OperationError, UserError
from detector.streams.base import Batch, Partition
from detector.streams.kafka.clients import admin_client, connection_settings, plain_consumer
from detector.streams.kafka.security import probe, refused

MAX_RECORDS: Final = 5000
STALLED_SECONDS: Final = 60.0
"""How long the broker may hand out nothing of what it said it has."""
_POLL_MS: Final = 500
_MS: Final = 1_000_000
_UNKNOWN_TOPIC, _NOT_ALLOWED = UnknownTopicOrPartitionError.errno, TopicAuthorizationFailedError.errno


@contextlib.contextmanager
def told_by_name(config: KafkaConfig, topic: str) -> Iterator[None]:
    """Turn the client's errors into ours, which name the topic or the brokers and say what to do."""
    try:
        yield
    except DetectorError:
        raise
    except TopicAuthorizationFailedError as error:
        raise not_allowed(topic) from error
    except UnknownTopicOrPartitionError as error:
        raise no_such_topic(config, topic) from error
    except (KafkaTimeoutError, KafkaConnectionError) as error:
        raise OperationError(
            f"no Kafka broker answers: {_words(error)}",
            where=_servers(config),
            todo="Start it, or correct streams.kafka: bootstrap_servers, security_protocol, user and password",
        ) from error
    except (KafkaError, OSError) as error:
        raise OperationError(
            f"topic {topic} cannot be used: {_words(error)}", where=_servers(config), todo="Look at the broker's log"
        ) from error


@contextlib.contextmanager
def admin_of(config: KafkaConfig, settings: Mapping[str, Any]) -> Iterator[KafkaAdminClient]:
    """An admin client, once a broker has answered and let us in: the client itself would only tell of a timeout.

    Raises UserError for what is wrong with credentials, KafkaConnectionError where nobody answers.
    """
    with refused(config):
        probe(config, settings)
        with admin_client(settings) as admin:
            yield admin


def no_such_topic(config: KafkaConfig, topic: str) -> UserError:
    """What is said of a topic that is not there."""
    return UserError(
        f"there is no topic {topic}",
        where=_servers(config),
        todo="Create it, or correct the name that the configuration gives it, or streams.kafka.bootstrap_servers",
    )


def not_allowed(topic: str) -> UserError:
    """What is said where the broker refuses a topic."""
    return UserError(f"no rights to topic {topic}", where="streams.kafka", todo="Grant them, or use another user")


def partitions_of(admin: KafkaAdminClient, config: KafkaConfig, topic: str) -> int | None:
    """How many partitions a topic has; None if there is no such topic. Raises UserError without rights to it."""
    (described,) = admin.describe_topics([topic])
    if described["error_code"] == _NOT_ALLOWED:
        raise not_allowed(topic)
    if described["error_code"] == _UNKNOWN_TOPIC:
        return None
    return len(described["partitions"])


class TopicReader:
    """A topic from its earliest retained record to its end as of `open`; may be read several times.

    Records of open transactions and of those after them are beyond that end. Use as a context manager. With
    `may_lack` a topic that is not there is one without records.
    """

    def __init__(self, config: KafkaConfig, topic: str, *, may_lack: bool = False) -> None:
        self.topic = topic
        self._may_lack = may_lack
        self._config = config
        self._consumer: Any = None
        self._ends: dict[TopicPartition, int] = {}
        self._newest: int | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def partitions(self) -> list[Partition]:
        """The partitions in the order in which they are read."""
        return [Partition(self.topic, tp.partition) for tp in self._ends]

    def open(self) -> None:
        """Connect and remember where the topic ends now. Raises UserError, OperationError."""
        settings = connection_settings(self._config)
        with told_by_name(self._config, self.topic):
            with admin_of(self._config, settings) as admin:
                count = partitions_of(admin, self._config, self.topic)
                if count is None and self._may_lack:
                    return
                if count is None:
                    raise no_such_topic(self._config, self.topic)
                partitions = [TopicPartition(self.topic, number) for number in range(count)]
                newest = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.MAX_TIMESTAMP))
            stamps = [found.timestamp for found in newest.values() if found.offset >= 0]
            self._newest = max(stamps, default=None)
            # Retention may overtake a reader: it goes on with what is left.
            self._consumer = plain_consumer(settings, MAX_RECORDS, auto_offset_reset="earliest")
            self._ends = dict(sorted(self._consumer.end_offsets(partitions).items()))

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=1000)
            self._consumer = None

    def read(self, after: int | None = None) -> Iterator[Batch]:
        """All batches, partition by partition, in the order of offsets.

        `after`: not the records before the first one that the broker dates at this time or later (ns). Raises
        UserError without rights to read, OperationError if the broker goes away or a record cannot be unpacked.
        """
        for tp, end in self._ends.items():
            with told_by_name(self._config, self.topic):
                self._consumer.assign([tp])
                self._seek(tp, after, end)
            yield from self._batches(tp, end)

    def start_of(
        self,
        since: int,
        until: int | None,
        max_future: int,
        newest_in: Callable[[Iterable[Batch]], int | None],
    ) -> tuple[int | None, int | None]:
        """The time of the oldest reading wanted (ns), and an `after` for `read` that misses none that young.

        Wanted is what is at most `since` ns older than the newest reading before `until`, as `newest_in` finds it in
        batches. No reading is later than its record's broker time + `max_future`, so a recent topic need not be read
        from the beginning to find it.
        """
        if self._newest is None:
            return None, None
        latest = self._newest * _MS + max_future
        latest = latest if until is None else min(latest, until)
        safe = latest - since - max_future
        newest = newest_in(self.read(safe - max_future))
        if newest is None or newest < safe:  # written long after its time: a newer one may be anywhere
            newest = newest_in(self.read())
        return (None, None) if newest is None else (newest - since, newest - since - max_future)

    def _seek(self, tp: TopicPartition, after: int | None, end: int) -> None:
        if after is None:
            self._consumer.seek_to_beginning(tp)
            return
        found = self._consumer.offsets_for_times({tp: max(0, after // _MS)})[tp]
        self._consumer.seek(tp, end if found is None else found.offset)

    def _batches(self, tp: TopicPartition, end: int) -> Iterator[Batch]:
        partition = Partition(self.topic, tp.partition)
        heard = time.monotonic()
        position = self._position(tp)
        # By position, not by the last record: the end may lie behind marks of transactions.
        while position < end:
            records = self._poll(tp, position)
            before, position = position, self._position(tp)
            records = [record for record in records if record.offset < end]
            if records:
                yield Batch(partition, records, min(position, end))
            if records or position > before:
                heard = time.monotonic()
            elif time.monotonic() - heard > STALLED_SECONDS:
                raise OperationError(
                    f"topic {self.topic} partition {tp.partition} gave nothing for {STALLED_SECONDS:g} s, "
                    f"at offset {position} of {end}",
                    where=_servers(self._config),
                    todo="See that its broker is up, and try again",
                )

    def _position(self, tp: TopicPartition) -> int:
        with told_by_name(self._config, self.topic):
            return int(self._consumer.position(tp, timeout_ms=int(STALLED_SECONDS * 1000)))

    def _poll(self, tp: TopicPartition, position: int) -> list[Any]:
        try:
            found: dict[TopicPartition, list[Any]] = self._consumer.poll(_POLL_MS)
        except TopicAuthorizationFailedError as error:
            raise not_allowed(self.topic) from error
        except Exception as error:  # whatever unpacking may raise; the client cannot go on behind it
            raise OperationError(
                f"topic {self.topic} partition {tp.partition} cannot be read from offset {position}: {_words(error)}",
                where=_servers(self._config),
                todo="If the batch there is corrupt, delete the records up to it (kafka-delete-records.sh)",
            ) from error
        return found.get(tp, [])


def follow_topic(config: KafkaConfig, topic: str, after: int, over: Callable[[], bool]) -> Iterator[bytes]:
    """The values of a topic from the first record that the broker dates at `after` (ns) or later, as they come.

    Ends when `over` says so, and where there is no such topic. Partitions added meanwhile are not read. Raises
    UserError, OperationError.
    """
    settings = connection_settings(config)
    with told_by_name(config, topic):
        with admin_of(config, settings) as admin:
            count = partitions_of(admin, config, topic)
        if count is None:
            return
        consumer = plain_consumer(settings, MAX_RECORDS, auto_offset_reset="latest")
        try:
            partitions = [TopicPartition(topic, number) for number in range(count)]
            consumer.assign(partitions)
            for tp, found in consumer.offsets_for_times(dict.fromkeys(partitions, max(0, after // _MS))).items():
                if found is None:
                    consumer.seek_to_end(tp)
                else:
                    consumer.seek(tp, found.offset)
            while not over():
                for records in consumer.poll(_POLL_MS).values():
                    yield from (record.value for record in records if record.value is not None)
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)


def _servers(config: KafkaConfig) -> str:
    return ", ".join(config.bootstrap_servers)


def _words(error: BaseException) -> str:
    # The client's own errors begin with their name.
    return str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}"
