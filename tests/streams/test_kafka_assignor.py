from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from kafka.structs import ConsumerGroupMetadata, MemberState

from detector.streams.kafka.assignor import Assignor, SoleAssignor
from detector.streams.kafka.membership import Change, Listener, still_member

ASSIGNED = [TopicPartition("in", 0), TopicPartition("in", 3)]


class Client:
    """As much of a consumer as is asked for its membership."""

    def __init__(self, generation: int, member: str) -> None:
        self.group = ConsumerGroupMetadata("g", generation, member, None, MemberState.REBALANCING)
        self.assigned = set(ASSIGNED)
        self._subscription = self

    def group_metadata(self) -> ConsumerGroupMetadata:
        return self.group

    def assignment(self) -> set[TopicPartition]:
        return set(self.assigned)

    def assign_from_subscribed(self, tps: list[TopicPartition]) -> None:
        self.assigned = set(tps)


def assigned_before() -> Any:
    assignor = Assignor()
    setattr(assignor, "member_assignment", ASSIGNED)  # noqa: B010  the client's own types know only None
    return assignor


def claimed(assignor: Assignor) -> list[tuple[str, list[int]]]:
    return [(one.topic, list(one.partitions)) for one in assignor.metadata(["in"]).owned_partitions]


def test_a_member_claims_what_it_has() -> None:
    assignor = assigned_before()
    assignor.still_member = lambda: True
    assert claimed(assignor) == [("in", [0, 3])]
    assert claimed(assignor) == [("in", [0, 3])]


def test_who_has_fallen_out_claims_nothing_from_then_on() -> None:
    assignor = assigned_before()
    assert claimed(assignor) == []
    assignor.still_member = lambda: True
    assert claimed(assignor) == []


def test_what_a_member_has_lost_is_said_once() -> None:
    for generation, member in ((-1, ""), (-1, "a new id"), (5, "")):
        client: Any = Client(generation, member)
        listener = Listener(client, lambda: None)
        assert not still_member(client, listener)
        assert listener.given_up
        assert not client.assigned
        assert not still_member(client, listener)
        assert listener.taken() == [(Change.LOST, ASSIGNED)]
        assert not listener.given_up


def test_a_member_keeps_what_it_has() -> None:
    client: Any = Client(5, "its id")
    listener = Listener(client, lambda: None)
    assert still_member(client, listener)
    assert client.assigned == set(ASSIGNED)
    assert not listener.taken()


class Cluster:
    """A topic of three partitions."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1, 2} if topic == "in" else None


def sole(**claims: list[int]) -> dict[str, list[tuple[str, list[int]]]]:
    """What each member gets, where these are what they claim."""
    members: list[Any] = []
    for name, numbers in claims.items():
        assignor = SoleAssignor()
        setattr(assignor, "member_assignment", [TopicPartition("in", number) for number in numbers])  # noqa: B010
        assignor.still_member = lambda: True
        subscription = ConsumerProtocolSubscription.decode(assignor.metadata(["in"]).encode())
        members.append(SimpleNamespace(member_id=name, metadata=subscription))
    given = SoleAssignor().assign(Cluster(), members)
    return {
        name: [(topic, list(numbers)) for topic, numbers in assignment.assigned_partitions]
        for name, assignment in given.items()
    }


def test_one_member_has_all() -> None:
    assert sole(b=[], a=[], c=[]) == {"a": [("in", [0, 1, 2])], "b": [], "c": []}


def test_whoever_has_them_keeps_them_when_others_come() -> None:
    assert sole(a=[], b=[0, 1, 2]) == {"a": [], "b": [("in", [0, 1, 2])]}


def test_what_another_still_claims_waits_until_it_is_given_up() -> None:
    assert sole(a=[0], b=[1, 2]) == {"a": [], "b": [("in", [1, 2])]}
    assert sole(a=[], b=[1, 2]) == {"a": [], "b": [("in", [0, 1, 2])]}
