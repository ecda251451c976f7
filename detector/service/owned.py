"""A partition of ours: all that the main loop keeps of it from the moment it is assigned until it is revoked."""

from __future__ import annotations

from dataclasses import dataclass, field

from detector.engine.partition import PartitionPipeline
from detector.service.progress import RestoreProgress


@dataclass(slots=True)
class Owned:
    """What goes when the partition goes. Positions are input positions."""

    pipeline: PartitionPipeline
    durable: int
    """The position of the last durable commit, or where the partition began."""
    restoring_since: float | None
    """Monotonic seconds; None once the state is what it was at the last commit."""
    replayed: bool = False
    """Whether a replay pipeline brings the state up to date, which the configured one then takes up."""
    progress: RestoreProgress | None = None
    """How far that is, while records are run again."""
    uncommitted: int | None = None
    """The broker's time (ms) of the newest record that no commit covers."""
    stored: int = 0
    """Bytes of all slices of its state, each as it was when it was last packed."""
    _sizes: dict[int, int] = field(default_factory=dict)  # by number of slice

    @property
    def restoring(self) -> bool:
        """Whether the state is still brought up to date."""
        return self.restoring_since is not None

    def packed(self, number: int, size: int) -> None:
        """A slice of its state is so large now."""
        self.stored += size - self._sizes.get(number, 0)
        self._sizes[number] = size

    def keep_slices(self, count: int) -> None:
        """The state has only so many slices."""
        for number in [number for number in self._sizes if number >= count]:
            self.stored -= self._sizes.pop(number)
