"""Which partitions a member says it has when it asks to join its group.

The client's cooperative assignor claims whatever the last assignment gave. A process that froze after it had begun to
rejoin comes back under a new id without having been told that the group gave it up: it would claim what others have
had since, be left in possession, and go on from where it was. Here a member that has fallen out claims nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment


class Assignor(CooperativeStickyAssignor):  # type: ignore[misc]  # untyped base
    """The cooperative assignor for one consumer. `still_member` is asked before every request to join."""

    def __init__(self) -> None:
        super().__init__()
        self.still_member: Callable[[], bool] = lambda: False

    def metadata(self, topics: Collection[str]) -> Any:
        """What the request to join says of this member."""
        if not self.still_member():
            self.member_assignment = None
        return super().metadata(topics)


class SoleAssignor(Assignor):
    """One member has all partitions, the others stand by: whoever has the most of them, else the first by id.

    Partitions that another member still claims wait until it has given them up, as with the cooperative assignor.
    """

    name = "detector-sole"

    def assign(self, cluster: Any, members: Collection[Any]) -> dict[str, Any]:
        """What each member gets, by its id."""
        claims = {member.member_id: self.parse_member_metadata(member.metadata) for member in members}
        owner = max(sorted(claims), key=lambda member: len(claims[member].partitions))
        elsewhere = {tp for member, claim in claims.items() if member != owner for tp in claim.partitions}
        given = {
            topic: [
                number
                for number in sorted(cluster.partitions_for_topic(topic) or ())
                if (topic, number) not in elsewhere
            ]
            for topic in sorted({topic for claim in claims.values() for topic in claim.subscription})
        }
        everything = [(topic, numbers) for topic, numbers in given.items() if numbers]
        return {
            member: ConsumerProtocolAssignment(self.version, everything if member == owner else [], b"")
            for member in claims
        }
