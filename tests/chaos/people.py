"""People who look at the alerts and say what they were, while everything around them falls over."""

from __future__ import annotations

import random
import threading
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from detector.wire.readings import Verdict
from detector.wire.verdicts import WORDS, encode_verdict
from tests.chaos.load import close

SHARE = 0.3
"""Of the alerts that are answered; some of these answers come late, on what is forgotten by then."""
_LATE = 200


class People:
    """A thread that reads what is committed of the alerts and writes verdicts to the partitions they came from.

    What gets lost or doubled on the way does not matter: the inputs are what the daemons are measured by.
    """

    def __init__(self, address: str, alerts: str, seed: int) -> None:
        self.said = 0
        self._address = address
        self._alerts = alerts
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="people", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Say no more; returns when everything is said or given up."""
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        consumer: Any = None
        producer: Any = None
        later: list[dict[str, Any]] = []
        while not self._stop.is_set():
            try:
                if consumer is None:
                    consumer = KafkaConsumer(
                        self._alerts, bootstrap_servers=self._address, group_id="people", auto_offset_reset="earliest",
                        isolation_level="read_committed",
                    )  # fmt: skip
                    producer = KafkaProducer(bootstrap_servers=self._address, linger_ms=20, max_block_ms=5000)
                for records in consumer.poll(timeout_ms=500).values():
                    later += [msgspec.json.decode(record.value) for record in records if record.value]
                self._answer(producer, later)
            except KafkaError:
                close(producer)
                if consumer is not None:
                    consumer.close(autocommit=False)
                consumer = producer = None
                self._stop.wait(0.5)
        close(producer)
        if consumer is not None:
            consumer.close(autocommit=False)

    def _answer(self, producer: Any, alerts: list[dict[str, Any]]) -> None:
        """Say something of some alerts, mostly of the newest, and pass over the others."""
        while alerts and (len(alerts) > _LATE or self._random.random() < 0.9):
            alert = alerts.pop(0 if len(alerts) > _LATE else -1)
            if self._random.random() > SHARE:
                continue
            verdict = Verdict(alert["sensor_id"], alert["alert_id"], self._random.choice(WORDS))
            value = encode_verdict(verdict, camera=alert["kind"] == "frames")
            source = alert["source"]
            producer.send(source["stream"], value, verdict.sensor_id.encode(), None, source["partition"])
            self.said += 1
