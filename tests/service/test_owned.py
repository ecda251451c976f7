"""How large what is stored is, in one piece and in slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from detector.service.owned import Owned, PackedStates
from detector.streams.base import Partition, RollingSnapshot, joined
from tests import plant
from tests.reference_rules import Reading

ONE, OTHER = Partition("sensor-readings", 0), Partition("sensor-readings", 1)


class Sized:
    """A pipeline whose slices are as large as it is told."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)

    def slices(self) -> int:
        return len(self.sizes)

    def pack_slice(self, number: int) -> bytes:
        return bytes(self.sizes[number])

    def pieces(self) -> Iterator[bytes]:
        return map(bytes, self.sizes)

    def journal(self) -> list[tuple[str, bytes | None]]:
        return []


def owned(pipeline: Any) -> Owned:
    return Owned(pipeline, durable=0, restoring_since=None)


def made(**pipelines: Any) -> tuple[dict[Partition, Owned], PackedStates, list[float]]:
    partitions = {ONE: owned(pipelines["one"]), OTHER: owned(pipelines["other"])}
    told: list[float] = []
    return partitions, PackedStates(partitions, told.append), told


def test_slices_count_as_they_were_last_packed() -> None:
    one = Sized(10, 20)
    partitions, states, told = made(one=one, other=Sized(5))
    assert isinstance(states, RollingSnapshot)
    states.pack_slice(ONE, 0)
    states.pack_slice(OTHER, 0)
    assert told[-1] == 15
    states.pack_slice(ONE, 1)
    assert told[-1] == 35
    one.sizes[0] = 12
    assert states.pack_slice(ONE, 0) == bytes(12)
    assert told[-1] == 37
    del one.sizes[1]
    assert states.slices(ONE) == 1
    assert told[-1] == 17
    del partitions[ONE]
    states.tell()
    assert told[-1] == 5


def test_in_one_piece_it_is_that_of_all_partitions() -> None:
    partitions, states, told = made(one=Sized(10, 20), other=Sized(5))
    assert (states(ONE), states(OTHER), states(ONE)) == (bytes(30), bytes(5), bytes(30))
    assert told[-1] == 35
    partitions[ONE] = owned(Sized(10, 20))
    states.tell()
    assert told[-1] == 5, "until it is packed again"


def test_in_pieces_it_is_told_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = plant.pipeline_of(plant.readings_config(warmup=1000), plant.model_of())
    plant.play(pipeline, plant.records_of([[Reading(f"s{i}", plant.START, (1.0,))] for i in range(500)]))
    told: list[float] = []
    pieces = PackedStates({ONE: owned(pipeline)}, told.append).pieces(ONE)
    (before,) = told
    assert joined(pieces) == pipeline.snapshot()
    assert told[-1] == len(pipeline.snapshot())
    assert 0.3 * told[-1] < before < told[-1]


def test_sensors_that_are_forgotten_leave_nothing_behind() -> None:
    """Each has a silent episode and is evicted: no one asks for the journal where the state is stored in one piece."""
    config = plant.readings_config(warmup=1000, silence_after=2 * plant.SECOND, idle_eviction=5 * plant.SECOND)
    pipeline = plant.pipeline_of(config, plant.model_of())
    states = PackedStates({ONE: owned(pipeline)})
    readings = [
        [Reading(sensor, plant.START + second * plant.SECOND, (1.0,))]
        for second in range(60)
        for sensor in ("stays", f"visitor-{second // 4}")
    ]
    assert plant.play(pipeline, plant.records_of(readings))
    states(ONE)
    assert pipeline.journal() == []
