"""What has to be there before the first record: a broker, and topics as they have to be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from prometheus_client import CollectorRegistry

from detector.config.load import load_config
from detector.config.settings import StateConfig
from detector.config.streams import NewTopicsConfig
from detector.errors import OperationError, UserError
from detector.service.assemble import RunOptions, make_kafka_streams
from detector.service.daemon import Daemon
from detector.service.health import Health
from detector.service.metrics import Metrics
from detector.service.rejects import RejectGuard
from detector.streams.base import Partition
from detector.streams.kafka.streams import KafkaStreams
from tests.engines import engine_making
from tests.kafka.broker import Cluster, free_ports
from tests.kafka.plant import Plant
from tests.kafka.test_faults import until_assigned


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka, 2)
    yield plant
    plant.close()


def test_a_broker_that_is_not_there_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    kafka = f"{{bootstrap_servers: ['127.0.0.1:{port}'], broker_outage_limit: 1s}}"
    config = load_config(None, ["streams.backend=kafka", f"streams.kafka={kafka}"])
    health = Health()
    reasons: list[dict[str, str]] = []
    streams = make_kafka_streams(config, RunOptions(), health=health, pulse=lambda: None)

    def stop() -> bool:
        reasons.append(health.reasons)
        return False

    daemon = Daemon(
        streams, engine_making(lambda _: pytest.fail("nothing can be assigned")),
        metrics=Metrics(CollectorRegistry()), health=health, guard=RejectGuard(0.5, 1000), stop=stop,
    )  # fmt: skip
    with pytest.raises(OperationError, match="the broker has been away for 1 s: cannot reach the broker") as away:
        daemon.run()
    assert away.value.exit_code == 1
    assert "broker_outage_limit" in str(away.value)
    assert len(reasons) > 5, "it keeps turning"
    assert all("cannot reach the broker" in found["waiting_for_broker"] for found in reasons)
    assert not health.ready
    assert health.live
    assert "waiting for the broker" in caplog.text


def lacking(plant: Plant, **settings: Any) -> KafkaStreams:
    """Like those of the plant, but under names that the broker does not know."""
    return KafkaStreams(
        plant.settings(**settings),
        StateConfig(),
        state_topics={plant.input: f"{plant.group}-new-state"},
        outputs=[f"{plant.group}-new-alerts", plant.dead_letters],
    )


def refusal(streams: KafkaStreams) -> str:
    with contextlib.closing(streams), pytest.raises(UserError) as refused:
        streams.open()
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_topics_that_are_missing_are_named(plant: Plant) -> None:
    said = refusal(lacking(plant))
    assert f"the broker has no topic {plant.group}-new-state, {plant.group}-new-alerts" in said
    assert plant.dead_letters not in said
    assert "create_topics: true" in said


def test_topics_that_are_missing_are_made_if_that_is_allowed(plant: Plant) -> None:
    with contextlib.closing(lacking(plant, create_topics=True)) as streams:
        streams.open()
    state, alerts = f"{plant.group}-new-state", f"{plant.group}-new-alerts"
    with plant.cluster.admin() as admin:
        described = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics([state, alerts])}
        resource = ConfigResource(ConfigResourceType.TOPIC, state, ["cleanup.policy"])
        settings = admin.describe_configs([resource], config_filter="all")["topic"][state]
    assert described[state] == plant.partitions
    assert described[alerts] > 0
    assert settings["cleanup.policy"]["value"] == "compact"


def test_new_topics_are_like_the_configuration_says(plant: Plant) -> None:
    new = NewTopicsConfig(
        partitions=4,
        replication=1,
        settings={"min.insync.replicas": "1", "retention.ms": "3600000"},
        state_settings={"segment.bytes": "2097152", "retention.ms": "-1"},
    )
    names = {name: f"{plant.group}-made-{name}" for name in ("input", "state", "alerts")}
    streams = KafkaStreams(
        plant.settings(create_topics=True, new_topics=new),
        StateConfig(),
        state_topics={names["input"]: names["state"]},
        outputs=[names["alerts"]],
    )
    with contextlib.closing(streams):
        streams.open()
    keys = ["cleanup.policy", "segment.bytes", "retention.ms", "min.insync.replicas"]
    with plant.cluster.admin() as admin:
        described = admin.describe_topics(list(names.values()))
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, keys) for name in names.values()]
        found = admin.describe_configs(resources, config_filter="all")["topic"]
    settings = {what: {key: found[name][key]["value"] for key in keys} for what, name in names.items()}
    assert {topic["name"]: len(topic["partitions"]) for topic in described} == dict.fromkeys(names.values(), 4)
    assert settings["input"] == settings["alerts"]
    assert list(settings["input"].values()) == ["delete", "1073741824", "3600000", "1"]
    assert list(settings["state"].values()) == ["compact", "2097152", "-1", "1"]


@pytest.mark.parametrize(
    "new",
    [
        {"replication": 3},
        {"settings": {"retention.ms": "soon"}},
        {"settings": {"no.such.setting": "1"}},
        {"state_settings": {"segment.bytes": "1"}},
    ],
)
def test_topics_the_broker_does_not_make(plant: Plant, new: dict[str, Any]) -> None:
    said = refusal(lacking(plant, create_topics=True, new_topics=NewTopicsConfig(**new)))
    assert f"the broker does not create the topics {plant.group}-new-" in said
    assert "(streams.kafka.new_topics)" in said


def test_the_policy_of_new_topics_is_no_choice() -> None:
    with pytest.raises(UserError, match=r"cleanup.policy in settings is no choice"):
        load_config(None, ["streams.kafka.new_topics.settings={cleanup.policy: delete}"])


@pytest.mark.parametrize("which", ["input", "state"])
def test_topics_that_lose_what_is_needed_are_refused(plant: Plant, which: str) -> None:
    wrong = {"input": "compact", "state": "delete"}[which]
    topic = plant.cluster.create_topic(plant.cluster.unique("wrong"), plant.partitions, {"cleanup.policy": wrong})
    source, state = (topic, plant.state) if which == "input" else (plant.input, topic)
    streams = KafkaStreams(plant.settings(), StateConfig(), state_topics={source: state}, outputs=[plant.alerts])
    said = refusal(streams)
    assert f"the topic {topic} has cleanup.policy {wrong} and needs" in said
    assert f"--alter --topic {topic}" in said


def test_more_partitions_than_state(plant: Plant) -> None:
    small = plant.cluster.create_topic(plant.cluster.unique("small"), 1, {"cleanup.policy": "compact"})
    streams = KafkaStreams(plant.settings(), StateConfig(), state_topics={plant.input: small}, outputs=[plant.alerts])
    said = refusal(streams)
    assert f"{plant.input} has 2 partitions and its state topic {small} 1: partitions were added" in said


@pytest.mark.parametrize(
    ("ours", "brokers"),
    [("transaction_timeout", "transaction.max.timeout.ms"), ("session_timeout", "group.max.session.timeout.ms")],
)
def test_a_timeout_that_the_broker_does_not_allow_is_named(plant: Plant, ours: str, brokers: str) -> None:
    settings: dict[str, Any] = {ours: 2 * 3600 * 10**9}
    with pytest.raises(UserError, match="the broker does not allow") as refused:
        started(plant.streams(**settings))
    assert refused.value.exit_code == 2
    assert f"streams.kafka.{ours}" in str(refused.value)
    assert brokers in str(refused.value)


def test_a_partition_to_skip_in_that_is_not_there_is_named(plant: Plant) -> None:
    streams = plant.streams(options={"skip_to": {Partition(plant.input, 0): 0, Partition(plant.input, 2): 1}})
    assert f"there is no partition 2 of {plant.input}, which has 2 (--skip-to)" in refusal(streams)


@pytest.mark.parametrize("create", [False, True])
def test_state_is_not_written_over(plant: Plant, create: bool) -> None:
    plant.alerts = plant.state
    said = refusal(plant.streams(create_topics=create))
    assert f"the topic {plant.state} is to be written to, and has the state of {plant.input}" in said


def started(streams: KafkaStreams) -> None:
    """Join the group and get all partitions."""
    with contextlib.closing(streams):
        streams.open()
        until_assigned(streams)
