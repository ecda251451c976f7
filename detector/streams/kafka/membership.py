"""This process as a member of the group: what the coordinator gives and takes, and whether it is well."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata, MemberState

from detector.errors import OperationError

REJOIN_SECONDS: Final = 3.0
"""A rebalance that takes longer without a rejoin being asked for is a lost one: ask for it."""
GIVE_UP_SECONDS: Final = 30.0


class Change(Enum):
    """What happened to partitions."""

    ASSIGNED = auto()
    REVOKED = auto()
    LOST = auto()


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # untyped base
    """Notes what the coordinator says; its methods run on the client's own thread, within a poll.

    Before partitions are given back, `before_revoke` is called, to commit what was done with them while they are still
    ours. New partitions are paused at once, at a position that asks for nothing: what the group committed for them is
    found out by the restore.
    """

    def __init__(self, consumer: KafkaConsumer, before_revoke: Callable[[], None]) -> None:
        self._consumer = consumer
        self._before_revoke = before_revoke
        self._lock = threading.Lock()
        self._changes: list[tuple[Change, list[TopicPartition]]] = []
        self.closing = False

    def taken(self) -> list[tuple[Change, list[TopicPartition]]]:
        """What happened since the last call, in order."""
        with self._lock:
            changes, self._changes = self._changes, []
            return changes

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if not self.closing:
            self._before_revoke()
            self._note(Change.REVOKED, revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        tps = sorted(assigned)
        hold(self._consumer, tps)
        self._note(Change.ASSIGNED, tps)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        if not self.closing:
            self._note(Change.LOST, lost)

    @property
    def given_up(self) -> bool:
        """Whether partitions were lost and nobody has taken notice yet."""
        with self._lock:
            return any(change is Change.LOST for change, _ in self._changes)

    def _note(self, change: Change, tps: Iterable[TopicPartition]) -> None:
        with self._lock:
            self._changes.append((change, sorted(tps)))


def hold(consumer: KafkaConsumer, tps: Iterable[TopicPartition]) -> None:
    """Fetch nothing for these partitions until they are restored."""
    for tp in tps:
        consumer.pause(tp)
        # A position of any kind keeps the client from asking for the committed one, for which every poll would wait.
        consumer.seek(tp, 0)


def release(consumer: KafkaConsumer, tp: TopicPartition, position: int) -> None:
    """Fetch a partition that was held, from this position on."""
    consumer.seek(tp, position)
    # What had been fetched of it when it was held, kafka-python 3.0.12 gives back only at a time that may never come,
    # and as long as it keeps that it fetches no more.
    fetcher = consumer._fetcher  # noqa: SLF001  there is no public way
    for kept in (fetcher._paused_completed_fetches, fetcher._paused_partition_records):  # noqa: SLF001
        kept.pop(tp, None)
    consumer.resume(tp)


def is_member(group: ConsumerGroupMetadata) -> bool:
    """Whether the group knows this member, as far as the client has heard."""
    return bool(group.generation_id >= 0 and group.member_id)


def still_member(consumer: KafkaConsumer, listener: Listener) -> bool:
    """Whether what is assigned is still ours; if not, it is lost here and now. On the client's thread."""
    if is_member(consumer.group_metadata()):
        return True
    if lost := consumer.assignment():
        # The client says so itself only if it knows before it prepares to rejoin; later it would keep them.
        listener.on_partitions_lost(lost)
        consumer._subscription.assign_from_subscribed([])  # noqa: SLF001  as the client does it then
    return False


class Watch:
    """Looks after the member's state: a short poll during a rebalance can leave it joining for ever."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._asked = 0.0

    def look(self, consumer: KafkaConsumer) -> bool:
        """Whether the member is joined. Raises OperationError if it has not been for too long though it could be."""
        if consumer.group_metadata().state == MemberState.STABLE:
            self._since = None
            return True
        now = self._clock()
        coordinator = _coordinator(consumer)
        if self._since is None or coordinator.coordinator_unknown():
            self._since = self._asked = now  # without a coordinator there is nothing to join
            return False
        if now - self._since > GIVE_UP_SECONDS and not coordinator.need_rejoin():
            raise OperationError(
                f"this member has not become part of its group for {GIVE_UP_SECONDS:g} s",
                where="streams.kafka",
                todo="Start it again; if it comes again, look after the broker's group coordinator",
            )
        if now - self._asked > REJOIN_SECONDS and not coordinator.need_rejoin():
            self._asked = now
            coordinator.request_rejoin()
        return False


def broker_away(consumer: KafkaConsumer) -> bool:
    """Whether the group's coordinator is out of reach."""
    unknown: bool = _coordinator(consumer).coordinator_unknown()
    return unknown


def at_work(consumer: KafkaConsumer) -> None:
    """What came of the last poll is still worked on, and gets on: that is no reason to leave the group."""
    _coordinator(consumer).heartbeat.poll()


def _coordinator(consumer: KafkaConsumer) -> Any:
    # No public way asks for a rejoin, sees that the coordinator is away, or is alive without a poll.
    return consumer._coordinator  # noqa: SLF001
