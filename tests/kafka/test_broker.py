from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from tests.kafka import broker as broker_module
from tests.kafka.broker import USERS, Broker, Cluster, UnavailableError, fetch_libs, free_ports
from tests.kafka.certificates import make_certificates


@contextlib.contextmanager
def closing(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        client.close()


def write(topic: str, values: list[bytes], address: str, **settings: Any) -> None:
    with closing(KafkaProducer(bootstrap_servers=address, **{"max_block_ms": 10_000, **settings})) as producer:
        sent = [producer.send(topic, value) for value in values]
        producer.flush(10)
        for future in sent:
            future.get(10)


def read(topic: str, count: int, address: str) -> list[bytes]:
    with closing(KafkaConsumer(bootstrap_servers=address, group_id=None, consumer_timeout_ms=10_000)) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        return [record.value for _, record in zip(range(count), consumer, strict=False)]


def test_a_topic_is_made_with_its_partitions_and_settings(kafka: Cluster) -> None:
    topic = kafka.create_topic(kafka.unique("made"), 3, {"cleanup.policy": "compact"})
    with kafka.admin() as admin:
        (described,) = admin.describe_topics([topic])
        assert len(described["partitions"]) == 3
        configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert configs["topic"][topic]["cleanup.policy"]["value"] == "compact"


def test_a_topic_is_not_made_by_being_named(broker: Broker) -> None:
    with pytest.raises(KafkaError):
        write(broker.unique("unmade"), [b"x"], broker.address, max_block_ms=1000)


def test_data_and_address_survive_a_kill(broker: Broker) -> None:
    topic = broker.create_topic(broker.unique("kept"))
    write(topic, [b"before"], broker.address)
    address = broker.address
    broker.kill()
    assert broker.pid is None
    broker.start()
    assert broker.address == address
    write(topic, [b"after"], broker.address)
    assert read(topic, 2, broker.address) == [b"before", b"after"]


def test_a_paused_broker_goes_on(broker: Broker) -> None:
    topic = broker.create_topic(broker.unique("paused"))
    broker.pause()
    broker.resume()
    write(topic, [b"x"], broker.address)
    assert read(topic, 1, broker.address) == [b"x"]


def test_tls_with_a_client_certificate(broker: Broker) -> None:
    topic = broker.create_topic(broker.unique("tls"))
    pem = broker.certificates
    write(
        topic,
        [b"x"],
        broker.ssl_address,
        security_protocol="SSL",
        ssl_cafile=str(pem.authority),
        ssl_certfile=str(pem.client_certificate),
        ssl_keyfile=str(pem.client_key),
    )
    assert read(topic, 1, broker.address) == [b"x"]


def sasl(broker: Broker, user: str) -> dict[str, str]:
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.certificates.authority),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": USERS[user],
    }


def test_sasl_over_tls(broker: Broker) -> None:
    topic = broker.create_topic(broker.unique("sasl"))
    write(topic, [b"x"], broker.sasl_address, **sasl(broker, "alice"))
    assert read(topic, 1, broker.address) == [b"x"]


def test_a_guest_may_do_nothing(broker: Broker) -> None:
    topic = broker.create_topic(broker.unique("closed"))
    with pytest.raises(KafkaError):
        write(topic, [b"x"], broker.sasl_address, **sasl(broker, "guest"))


def test_a_running_broker_is_not_started_twice(broker: Broker) -> None:
    with pytest.raises(RuntimeError, match="is running"):
        broker.start()


def test_a_broker_that_cannot_start_shows_its_log(broker: Broker, tmp_path: Path) -> None:
    other = Broker(tmp_path / "other", settings={"broker.session.timeout.ms": "nonsense"})
    with pytest.raises(RuntimeError, match="nonsense"):
        other.start()
    assert other.pid is None


@pytest.mark.kafka
def test_by_hand_it_prints_its_address_and_leaves_nothing(kafka: Cluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kafka.broker"], stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as by_hand:
        assert by_hand.stdout is not None
        address = by_hand.stdout.readline().strip()
        topic = Cluster(address).create_topic("by-hand")
        write(topic, [b"x"], address)
        by_hand.terminate()
        assert by_hand.wait(30) == 0
    with pytest.raises(KafkaError):
        KafkaConsumer(bootstrap_servers=address, bootstrap_timeout_ms=500)


def test_the_broker_ends_with_the_process_that_started_it(broker: Broker, tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path; from tests.kafka.broker import Broker\n"
        f"b = Broker(Path({str(tmp_path / 'orphan')!r})); b.start(); print(b.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    pid = int(done.stdout)
    with contextlib.suppress(ProcessLookupError):  # gone, and nobody's child any more
        handle = os.pidfd_open(pid)
        try:
            ended, _, _ = select.select([handle], [], [], 10)  # readable when the process has ended
        finally:
            os.close(handle)
        assert ended


def test_only_a_secure_broker_has_certificates(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="secure"):
        _ = Broker(tmp_path).certificates


def test_free_ports_are_no_clients_ports() -> None:
    ports = free_ports(4)
    assert len(set(ports)) == 4
    assert all(port < 32_768 for port in ports)


def test_certificates_belong_together(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "certified")
    for certificate in (made.client_certificate, tmp_path / "server.pem"):
        subprocess.run(
            ["openssl", "verify", "-CAfile", str(made.authority), str(certificate)], check=True, capture_output=True
        )
    assert made.server_store.read_text().count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_without_java_or_maven_there_is_no_broker(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(broker_module, "LIBS", tmp_path)
    monkeypatch.setattr(broker_module, "JARS", tmp_path / "jars")
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    with pytest.raises(UnavailableError, match=missing):
        fetch_libs()
