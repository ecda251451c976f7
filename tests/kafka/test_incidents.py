"""`detector incidents` on a broker: one active member, others that stand by, and a state that may be lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from kafka import KafkaProducer

from detector.wire.incidents import Incident, decode_incident
from tests.incidents.made import alert_id, encoded
from tests.kafka.broker import Cluster, dies_with_us
from tests.kafka.plant import Plant
from tests.kafka.test_faults import wait_until

PARTITIONS = 3
SENSORS = [f"p-{number}" for number in range(9)]


class Alerts(Plant):
    """A topic of alerts for an input, and a topic of incidents."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, PARTITIONS)
        self.incidents = cluster.create_topic(cluster.unique("incidents"))

    def say(self, event: str, sensors: Sequence[str] = SENSORS, **fields: object) -> None:
        """An alert of each sensor, in its partition."""
        producer = KafkaProducer(bootstrap_servers=self.cluster.address)
        for sensor in sensors:
            number = SENSORS.index(sensor)
            value = encoded(sensor, float(number), event, **fields)
            producer.send(self.input, value, key=sensor.encode(), partition=number % PARTITIONS)
        producer.flush()
        producer.close()

    def told(self) -> list[Incident]:
        return [decode_incident(record.value) for record in self.read(self.incidents)]


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Alerts]:
    plant = Alerts(kafka)
    yield plant
    plant.close()


def started(plant: Alerts, name: str, log: Path, *, group: str | None = None) -> subprocess.Popen[bytes]:
    settings = {
        "streams.backend": "kafka",
        "streams.kafka.bootstrap_servers": f"['{plant.cluster.address}']",
        "streams.kafka.group_id": group or plant.group,
        "streams.kafka.session_timeout": "6s",
        "streams.kafka.create_topics": "true",
        "incidents.input": plant.input,
        "incidents.output": plant.incidents,
        "incidents.http": '"127.0.0.1:0"',
        "output.dead_letters": plant.dead_letters,
        "log.format": "json",
    }
    options = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*dies_with_us(), sys.executable, "-m", "detector", "incidents", *options],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"DETECTOR_INSTANCE": name},
        )  # fmt: skip


def test_one_is_active_another_takes_over_and_a_lost_state_is_made_again(plant: Alerts, tmp_path: Path) -> None:
    logs = {name: tmp_path / name for name in ("one", "two", "three")}
    processes = {"one": started(plant, "one", logs["one"])}
    try:
        wait_until(lambda: "partitions_assigned" in logs["one"].read_text(), "the first is at work")
        processes["two"] = started(plant, "two", logs["two"])
        plant.say("opened", SENSORS[:6])
        wait_until(lambda: any(one.size >= 4 for one in plant.told()), "the first incident has grown")
        wait_until(lambda: "following" in logs["two"].read_text(), "the second stands by")
        assert "partitions_assigned" not in logs["two"].read_text()
        processes["one"].kill()
        plant.say("opened", SENSORS[6:])
        plant.say("closed", seen=40)
        wait_until(lambda: any(one.event == "closed" for one in plant.told()), "the second has taken over")
        assert "partitions_assigned" in logs["two"].read_text()
        before = plant.told()
        processes["two"].send_signal(signal.SIGTERM)
        assert processes["two"].wait(60) == 0
        # Another group knows neither offsets nor state, and begins where the topic does.
        processes["three"] = started(plant, "three", logs["three"], group=f"{plant.group}-other")
        wait_until(lambda: "incidents_rebuilt" in logs["three"].read_text(), "the state was made again")
        plant.say("opened", SENSORS[:1], episode="again")
        wait_until(lambda: len(plant.told()) > len(before), "it goes on with what is new")
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    events: dict[str, list[str]] = {}
    for one in plant.told():
        events.setdefault(one.incident_id, []).append(one.event)
    assert all(found.count("opened") == 1 and found[0] == "opened" for found in events.values()), events
    assert all(found.count("closed") <= 1 for found in events.values()), events
    members = {member.alert_id for one in plant.told() for member in one.members}
    assert members == {*(alert_id(sensor) for sensor in SENSORS), alert_id("again")}
