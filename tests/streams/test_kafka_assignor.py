from __future__ import annotations

from typing import Any

from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, MemberState

from detector.streams.kafka.assignor import Assignor
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
