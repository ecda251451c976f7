"""Filling a Kafka topic from a command: no transaction, no group, every record acknowledged."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from kafka import KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaTimeoutError, TopicAlreadyExistsError

from detector.config.streams import KafkaConfig
from detector.errors import UserError, counted
from detector.streams.base import Partition
from detector.streams.kafka.clients import connection_settings
from detector.streams.kafka_reader import admin_of, no_such_topic, partitions_of, told_by_name

_IN_FLIGHT: Final = 20_000
"""Records sent and not looked at again yet."""
_TIMEOUT: Final = 60.0


def ensure_topic(config: KafkaConfig, topic: str) -> None:
    """See that the topic is there; create it, as the broker does by default, if the configuration allows that.

    Raises UserError, OperationError.
    """
    with told_by_name(config, topic), admin_of(config, connection_settings(config)) as admin:
        if partitions_of(admin, config, topic) is not None:
            return
        if not config.create_topics:
            raise no_such_topic(config, topic)
        with contextlib.suppress(TopicAlreadyExistsError):
            admin.create_topics([NewTopic(topic)])
        admin.wait_for_topics([topic])


def append_record(config: KafkaConfig, partition: Partition, key: bytes, value: bytes) -> None:
    """Append one record to this very partition, and return when the broker has it. Raises UserError, OperationError."""
    topic = partition.stream
    with told_by_name(config, topic), admin_of(config, connection_settings(config)) as admin:
        count = partitions_of(admin, config, topic)
        if count is None:
            raise no_such_topic(config, topic)
        if partition.number >= count:
            raise UserError(
                f"the topic {topic} has {counted(count, 'partition')}, and {partition.number} is none of them",
                where="streams.kafka",
                todo="Name the cluster that the alert comes from",
            )
        producer = KafkaProducer(**connection_settings(config), acks="all", max_block_ms=int(_TIMEOUT * 1000))
        try:
            producer.send(topic, value, key=key, partition=partition.number).get(_TIMEOUT)
        finally:
            with contextlib.suppress(KafkaTimeoutError):
                producer.close(1)


def fill_topic(config: KafkaConfig, topic: str, records: Iterable[tuple[bytes, bytes]], *, live: bool) -> None:
    """Append (key, value) records and return when the broker has all of them. `live`: each goes at once.

    Raises UserError, OperationError; what was sent before stays.
    """
    with told_by_name(config, topic):
        producer = KafkaProducer(
            **connection_settings(config),
            acks="all",
            linger_ms=0 if live else 50,
            batch_size=256 << 10,
            compression_type="lz4",
            max_block_ms=int(_TIMEOUT * 1000),
        )
        try:
            sent: deque[Any] = deque()
            for key, value in records:
                sent.append(producer.send(topic, value, key=key))
                if len(sent) > _IN_FLIGHT:
                    sent.popleft().get(_TIMEOUT)
            producer.flush(_TIMEOUT)
            for future in sent:
                future.get(_TIMEOUT)
        finally:
            with contextlib.suppress(KafkaTimeoutError):  # what is left in it was reported above
                producer.close(1)
