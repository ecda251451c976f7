"""The topics as they are found at the start, on a real broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from detector.errors import UserError
from detector.streams.base import Assigned, Event
from tests.kafka.broker import Cluster
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_faults import wait_until


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka, partitions=2)
    yield plant
    plant.close()


def refusal(plant: Plant, *, create_topics: bool = False) -> str:
    with contextlib.closing(plant.streams(create_topics=create_topics)) as streams, pytest.raises(UserError) as refused:
        streams.open()
    return str(refused.value)


def grow(plant: Plant, topic: str, partitions: int) -> None:
    with plant.cluster.admin() as admin:
        admin.create_partitions({topic: partitions})
    wait_until(lambda: partitions_of(plant, topic) == partitions, "the broker shows them")


def partitions_of(plant: Plant, topic: str) -> int:
    with plant.cluster.admin() as admin:
        (described,) = admin.describe_topics([topic])
    return len(described["partitions"])


def policy_of(plant: Plant, topic: str) -> str:
    with plant.cluster.admin() as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return str(found["topic"][topic]["cleanup.policy"]["value"])


def delete(plant: Plant, *topics: str) -> None:
    with plant.cluster.admin() as admin:
        admin.delete_topics(list(topics))
        wait_until(lambda: not {*topics} & {*admin.list_topics()}, "the broker no longer shows them")


def test_partitions_added_to_the_input_are_explained(plant: Plant) -> None:
    grow(plant, plant.input, 4)
    said = refusal(plant)
    assert f"{plant.input} has 4 partitions and its state topic {plant.state} 2: partitions were added to it" in said
    assert f"Add partitions to {plant.state}, or set streams.kafka.create_topics: true" in said
    assert "Sensors whose key goes elsewhere now begin there with nothing" in said


def test_the_state_topic_grows_with_its_input_where_that_is_allowed(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    grow(plant, plant.input, 4)
    events: list[Event] = []
    with contextlib.closing(plant.streams(create_topics=True)) as streams:
        streams.open()
        for _ in range(int(PATIENCE)):
            events += streams.poll(1.0)
            if len(events) >= 4:
                break
    assert {event.partition.number for event in events if isinstance(event, Assigned)} == {0, 1, 2, 3}
    assert partitions_of(plant, plant.state) == 4
    assert f"{plant.input} has 4 partitions now, had 2" in caplog.text


@pytest.mark.parametrize("create_topics", [False, True])
def test_an_input_made_anew_with_fewer_partitions_is_explained(plant: Plant, create_topics: bool) -> None:
    grow(plant, plant.state, 3)
    said = refusal(plant, create_topics=create_topics)
    assert f"{plant.input} has 2 partitions and its state topic {plant.state} 3: it was recreated with fewer" in said
    assert f"Delete {plant.state} and the group's offsets, or use another group_id" in said


def test_missing_topics_are_named(plant: Plant) -> None:
    delete(plant, plant.state, plant.alerts)
    said = refusal(plant)
    assert f"the broker has no topic {plant.state}, {plant.alerts}" in said
    assert "create_topics: true" in said


def test_missing_topics_are_made_where_that_is_allowed(plant: Plant) -> None:
    delete(plant, plant.input, plant.state, plant.alerts, plant.dead_letters)
    with contextlib.closing(plant.streams(create_topics=True)) as streams:
        streams.open()
    # The broker's own number of partitions for what it is left to choose, and as many for the state.
    assert partitions_of(plant, plant.state) == partitions_of(plant, plant.input)
    assert policy_of(plant, plant.state) == "compact"
    assert policy_of(plant, plant.input) == "delete"


@pytest.mark.parametrize("create_topics", [False, True])
@pytest.mark.parametrize(("topic", "needed"), [("input", "delete"), ("state", "compact")])
def test_a_wrong_cleanup_policy_is_refused(kafka: Cluster, create_topics: bool, topic: str, needed: str) -> None:
    plant = Plant(kafka, partitions=1)
    wrong = "compact" if needed == "delete" else "delete"
    name = kafka.create_topic(kafka.unique("wrong"), 1, {"cleanup.policy": wrong})
    setattr(plant, topic, name)
    said = refusal(plant, create_topics=create_topics)
    plant.close()
    assert f"the topic {name} has cleanup.policy {wrong} and needs {needed}" in said
    assert f"cleanup.policy={needed}" in said
