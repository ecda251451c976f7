"""The state of the pipelines as the backend stores it, and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from detector.service.owned import Owned
from detector.streams.base import Partition

_WHOLE: Final = -1
"""In the place of a slice's number: the state of a partition in one piece."""


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
        return self._packed(partition, _WHOLE, pipeline.snapshot())

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
