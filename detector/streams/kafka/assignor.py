"""Which partitions a member says it has when it asks to join its group.

The client's cooperative assignor claims whatever the last assignment gave. A process that froze after it had begun to
rejoin comes back under a new id without having been told that the group gave it up: it would claim what others have
had since, be left in possession, and go on from where it was. Here a member that has fallen out claims nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor


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
