from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from detector.streams.base import Streams
from tests.kafka.broker import Cluster
from tests.kafka.plant import Joined, Plant
from tests.streams.contract import Harness, StreamsContract


class KafkaHarness(Harness):
    partitions = 2
    poll_timeout = 0.3
    polls = 60

    def __init__(self, cluster: Cluster) -> None:
        self.plant = Plant(cluster)

    def append(self, number: int, values: Sequence[bytes]) -> None:
        self.plant.append(number, values)

    def connect(self, *, max_records: int = 5000, durable: bool = True) -> Streams:
        never: dict[str, Any] = {} if durable else {"commit_interval": 10**15, "commit_max_records": 10**9}
        streams = Joined(self.plant, self.plant.streams(options={"max_records": max_records}, **never))
        streams.open()
        return streams

    def crash(self, streams: Streams) -> None:
        streams.close()

    def published(self, stream: str) -> list[bytes]:
        return [record.value for record in self.plant.read(self.plant.topic(stream))]


class TestKafkaStreams(StreamsContract):
    @pytest.fixture
    def harness(self, kafka: Cluster) -> Iterator[Harness]:
        harness = KafkaHarness(kafka)
        yield harness
        harness.plant.close()
