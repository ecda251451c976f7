"""What the main loop asks of the pipeline of a partition, whatever flows through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from detector.engine.output import Output
from detector.engine.overview import Overview
from detector.engine.slices import Provenance
from detector.streams.base import Batch, Partition
from detector.wire.alerts import Kind


class PartitionPipeline(Protocol):
    """The state and the path of one partition. Methods are called from one thread; results rest on records alone."""

    @property
    def kind(self) -> Kind:
        """What flows through it."""
        ...

    @property
    def partition(self) -> Partition: ...

    @property
    def provenance(self) -> Provenance:
        """What results rest on beside the records."""
        ...

    @property
    def position(self) -> int:
        """Records before it are dealt with, and what they led to has been returned."""
        ...

    @property
    def pending(self) -> bool:
        """Whether records beyond `position` were taken in and wait for `advance`; never while `restoring`."""
        ...

    @property
    def restoring(self) -> bool:
        """Whether records that were dealt with before are run again to bring the state up to date."""
        ...

    @property
    def mismatches(self) -> int:
        """Episodes whose replayed state differed from the journal."""
        ...

    @property
    def sensors(self) -> int: ...

    @property
    def warming(self) -> int:
        """Sensors without a profile yet."""
        ...

    @property
    def relearning(self) -> int:
        """Sensors that go by a profile made with another model, until this one has seen enough of them."""
        ...

    @property
    def open_episodes(self) -> int: ...

    @property
    def muted_episodes(self) -> int:
        """How many of the open episodes are muted."""
        ...

    @property
    def clock(self) -> int | None:
        """The partition clock, ns; None before anything was accepted."""
        ...

    def overview(self, sensor_ids: Sequence[str], count: int) -> Overview:
        """The sensors named, and the `count` worst, as they stand."""
        ...

    def begin(self, position: int, live_from: int | None = None) -> None:
        """Start with nothing at `position`; records before `live_from` lead to no output."""

    def restore(self, data: bytes, live_from: int | None = None, position: int | None = None) -> bool:
        """Take up what was stored; returns whether it was made with another model. Raises StateError."""
        ...

    def process(self, batch: Batch) -> Output:
        """Take in a batch that follows the last one, and return what can be said by now.

        May wait where more is pending than memory should hold.
        """
        ...

    def advance(self) -> Output:
        """What has become ready of what is pending. Does not wait."""
        ...

    def snapshot(self) -> bytes:
        """Everything a later process needs to carry on from `position`."""
        ...

    def slices(self) -> int:
        """How many slices the state has."""
        ...

    def pack_slice(self, number: int) -> bytes:
        """One slice of the state as of `position`."""
        ...

    def renewed(self) -> bool:
        """Whether slices stored so far are of another provenance; says so once."""
        ...

    def journal(self) -> Sequence[tuple[str, bytes | None]]:
        """The open episodes (None: none) of each sensor of which one changed since the last call."""
        ...


MakePipeline = Callable[[Partition], PartitionPipeline]
MakeReplay = Callable[[Partition, Provenance], PartitionPipeline]


def by_stream(makers: Mapping[str, MakePipeline]) -> MakePipeline:
    """Makes the pipelines of several streams."""
    return lambda partition: makers[partition.stream](partition)


def replays_by_stream(makers: Mapping[str, MakeReplay]) -> MakeReplay:
    """Makes the pipelines of several streams that run records again."""
    return lambda partition, provenance: makers[partition.stream](partition, provenance)
