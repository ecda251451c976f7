"""The state of the pipelines as the backend stores it, and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from detector.engine.partition import PartitionPipeline
from detector.streams.base import Partition

_WHOLE: Final = -1
"""In the place of a slice's number: the state of a partition in one piece."""


class PackedStates:
    """A `RollingSnapshot` of `pipelines`. `tell` is told the size of all that is stored, in bytes, when it changes.

    Of every slice that is its size when it was last packed; what was not packed since the partition was assigned does
    not count, so that on Kafka the sum is whole after one `state.snapshot_interval`.
    """

    def __init__(
        self, pipelines: Mapping[Partition, PartitionPipeline], tell: Callable[[float], object] = lambda _: None
    ) -> None:
        self._pipelines = pipelines
        self._tell = tell
        self._sizes: dict[Partition, dict[int, int]] = {}
        self._total = 0

    def __call__(self, partition: Partition) -> bytes:
        pipeline = self._pipelines[partition]
        # A state in one piece needs none, and sensors that nobody asks of would be remembered for ever.
        pipeline.journal()
        return self._packed(partition, _WHOLE, pipeline.snapshot())

    def slices(self, partition: Partition) -> int:
        count = self._pipelines[partition].slices()
        sizes = self._sizes.get(partition, {})
        for number in [number for number in sizes if number >= count]:
            self._resize(sizes, number, 0)
        return count

    def pack_slice(self, partition: Partition, number: int) -> bytes:
        return self._packed(partition, number, self._pipelines[partition].pack_slice(number))

    def renewed(self, partition: Partition) -> bool:
        return self._pipelines[partition].renewed()

    def journal(self, partition: Partition) -> Sequence[tuple[str, bytes | None]]:
        return self._pipelines[partition].journal()

    def gone(self, partition: Partition) -> None:
        """Another process stores the partition's state from now on, or this one does so anew."""
        self._total -= sum(self._sizes.pop(partition, {}).values())
        self._tell(self._total)

    def _packed(self, partition: Partition, number: int, data: bytes) -> bytes:
        self._resize(self._sizes.setdefault(partition, {}), number, len(data))
        return data

    def _resize(self, sizes: dict[int, int], number: int, size: int) -> None:
        self._total += size - sizes.pop(number, 0)
        if size:
            sizes[number] = size
        self._tell(self._total)
