"""Topics of one test on a broker, what is written to them, and what a reader sees that reads only what is committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from detector.config.settings import StateConfig
from detector.config.streams import KafkaConfig
from detector.streams.base import Assigned, Deferred, Event, Message, Partition, Snapshot, nothing_deferred
from detector.streams.kafka.streams import KafkaStreams
from tests.kafka.broker import Cluster
from tests.streams.contract import INPUT, OTHER_OUTPUT, OUTPUT

PATIENCE = 30.0
"""Seconds after which what should happen on a busy machine is missed."""


class Plant:
    """An input of some partitions, outputs and a state topic, all with names of their own, and one consumer group."""

    def __init__(self, cluster: Cluster, partitions: int = 2) -> None:
        self.cluster = cluster
        self.partitions = partitions
        self.group = cluster.unique("g")
        self.input, self.alerts, self.dead_letters, self.verdicts = map(
            cluster.unique, ("in", "alerts", "dead", "verdicts")
        )
        self.state = f"{self.group}-readings-state"
        outputs = self.alerts, self.dead_letters, self.verdicts
        cluster.create_topics(
            {self.input: (partitions, {}), self.state: (partitions, {"cleanup.policy": "compact"})}
            | dict.fromkeys(outputs, (1, {}))
        )
        self._producer: KafkaProducer | None = None

    def topic(self, stream: str) -> str:
        """The topic behind a stream's name in the contract."""
        return {INPUT: self.input, OUTPUT: self.alerts, OTHER_OUTPUT: self.dead_letters}[stream]

    def append(self, number: int, values: Sequence[bytes | None], **more: Any) -> None:
        """Write records to a partition of the input."""
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self.cluster.address)
        sent = [self._producer.send(self.input, value, key=b"k", partition=number, **more) for value in values]
        self._producer.flush(PATIENCE)
        for future in sent:
            future.get(PATIENCE)

    def read(self, topic: str, partition: int = 0) -> list[Any]:
        """The records of a partition that are committed."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.cluster.address,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=10_000,
        )
        try:
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            consumer.seek_to_beginning(tp)
            end = consumer.end_offsets([tp])[tp]
            records: list[Any] = []
            while consumer.position(tp) < end:
                for found in consumer.poll(timeout_ms=200).values():
                    records += found
            return records
        finally:
            consumer.close()

    def settings(self, **more: Any) -> KafkaConfig:
        """The configuration of one process."""
        settings: dict[str, Any] = {
            "bootstrap_servers": (self.cluster.address,),
            "group_id": self.group,
            "instance": "one",
            "session_timeout": 6 * 10**9,
            "commit_interval": 1,
        }
        return KafkaConfig(**(settings | more))

    def streams(self, *, state: Mapping[str, Any] | None = None, options: Any = None, **more: Any) -> KafkaStreams:
        """A connection that is not open yet."""
        return KafkaStreams(
            self.settings(**more),
            StateConfig(**(state or {})),
            state_topics={self.input: self.state},
            outputs=[self.alerts, self.dead_letters],
            **(options or {}),
        )

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(5)


class Joined:
    """Streams under the contract's names, which are assigned all partitions before the first poll returns."""

    def __init__(self, plant: Plant, streams: KafkaStreams) -> None:
        self._plant = plant
        self._streams = streams
        self._events: list[Event] = []

    def open(self) -> None:
        self._streams.open()
        self._events = []
        while sum(isinstance(event, Assigned) for event in self._events) < self._plant.partitions:
            self._events += self._streams.poll(PATIENCE)

    def poll(self, timeout: float) -> Sequence[Event]:
        events, self._events = self._events, []
        return [self._renamed(event) for event in events or self._streams.poll(timeout)]

    def write(self, messages: Sequence[Message]) -> None:
        self._streams.write(self._to_topics(messages))

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        return self._streams.commit(
            {Partition(self._plant.input, partition.number): position for partition, position in positions.items()},
            lambda partition: snapshot(Partition(INPUT, partition.number)),
            final=final,
            deferred=lambda: self._to_topics(deferred()),
        )

    def at_end(self) -> bool:
        return not self._events and self._streams.at_end()

    @property
    def settled(self) -> bool:
        return self._streams.settled

    @property
    def repeatable(self) -> bool:
        return self._streams.repeatable

    def roll_back(self) -> None:
        self._streams.roll_back()

    def lag(self) -> Mapping[Partition, int]:
        return {Partition(INPUT, partition.number): lag for partition, lag in self._streams.lag().items()}

    def close(self) -> None:
        self._streams.close()

    def _to_topics(self, messages: Sequence[Message]) -> list[Message]:
        return [message._replace(stream=self._plant.topic(message.stream)) for message in messages]

    @staticmethod
    def _renamed(event: Any) -> Event:
        partition = Partition(INPUT, event.partition.number)
        fields = {name: getattr(event, name) for name in event.__slots__} | {"partition": partition}
        renamed: Event = type(event)(**fields)
        return renamed
