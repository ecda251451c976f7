"""What the main loop keeps of each partition while it is ours, and their state as the backend stores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from detector.engine.partition import PartitionPipeline
from detector.service.observer import RestoreProgress
from detector.streams.base import Partition, joined

_WHOLE: Final = -1
"""In the place of a slice's number: the state of a partition in one piece."""


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
    handed: int = -1
    """The position behind the last batch that the pipeline was given."""
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
        """The state has only this many slices."""
        for number in [number for number in self._sizes if number >= count]:
            self.stored -= self._sizes.pop(number)


class PackedStates:
    """A `RollingSnapshot` of what is owned. `tell` is told the size of all that is stored, in bytes, when it changes.

    Of every slice that is its size when it was last packed; what was not packed since the partition was assigned does
    not count, so that on Kafka the sum is whole after one `state.snapshot_interval`.
    """

    def __init__(self, owned: Mapping[Partition, Owned], tell: Callable[[float], object] = lambda _: None) -> None:
        self._owned = owned
        self._tell = tell

    def __call__(self, partition: Partition) -> bytes:
        pipeline = self._owned[partition].pipeline
        # A state in one piece needs none, and sensors that nobody asks of would be remembered for ever.
        pipeline.journal()
        return self._packed(partition, _WHOLE, joined(pipeline.pieces()))

    def pieces(self, partition: Partition) -> Iterator[bytes | memoryview]:
        pipeline = self._owned[partition].pipeline
        pipeline.journal()
        # A copy of this process may take the pieces, which then are not counted in this one.
        self._owned[partition].packed(_WHOLE, pipeline.snapshot_bytes)
        self.tell()
        return self._counted(partition, pipeline.pieces())

    def _counted(self, partition: Partition, pieces: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        size = 0
        for piece in pieces:
            size += len(piece)
            yield piece
        self._owned[partition].packed(_WHOLE, size)
        self.tell()

    def slices(self, partition: Partition) -> int:
        owned = self._owned[partition]
        count = owned.pipeline.slices()
        owned.keep_slices(count)
        self.tell()
        return count

    def pack_slice(self, partition: Partition, number: int) -> bytes:
        return self._packed(partition, number, self._owned[partition].pipeline.pack_slice(number))

    def renewed(self, partition: Partition) -> bool:
        return self._owned[partition].pipeline.renewed()

    def journal(self, partition: Partition) -> Sequence[tuple[str, bytes | None]]:
        return self._owned[partition].pipeline.journal()

    def tell(self) -> None:
        """Tell the size again: a partition has come or gone."""
        self._tell(sum(owned.stored for owned in self._owned.values()))

    def _packed(self, partition: Partition, number: int, data: bytes) -> bytes:
        self._owned[partition].packed(number, len(data))
        self.tell()
        return data
