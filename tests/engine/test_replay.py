"""Records that are run again decide as they did the first time, although some of the state is newer than they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from detector.engine.readings import ReadingsPipeline
from detector.engine.slices import JUMPS_ENTRY, unpack_jumps
from detector.streams.base import Batch
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading

HOUR = 3600 * SECOND


def only(number: int) -> Callable[[], bool]:
    """For `plant.of_different_ages`: which of its questions, in their order, gets a yes."""
    questions = itertools.count()
    return lambda: next(questions) == number


def at(sensor: str, *hours: float) -> list[list[Reading]]:
    return [[Reading(sensor, START + int(hour * HOUR), (50.0 + hour % 7,))] for hour in hours]


def batches_of(groups: Sequence[Sequence[Reading]], size: int) -> list[Batch]:
    return list(plant.batches_of(plant.records_of(groups), range(size, len(groups), size)))


CONFIG = plant.readings_config(silence_after=600 * SECOND, idle_eviction=90 * 24 * HOUR)
LATER = [72 + hour / 100 for hour in range(30)]


def make() -> ReadingsPipeline:
    return plant.pipeline_of(CONFIG, plant.model_of())


AHEAD = [*at("a", 0, 0.1), *at("b", 0.1), *at("a", *range(1, 28)), *at("a", *LATER), *at("b", *LATER)]
"""Whoever is alone for a day may go ahead; then the other one is heard, too."""
BACK = [
    *at("a", *LATER), *at("b", 72, 72.1), *at("a", *(73 + hour for hour in range(27))), *at("a", *range(1, 31)),
    *at("b", *range(30, 40)),
]  # fmt: skip
"""And whoever is alone may go back."""


@pytest.mark.parametrize("groups", [AHEAD, BACK], ids=["ahead", "back"])
@pytest.mark.parametrize("newer", ["a", "b"])
def test_the_clock_jumps_where_it_did(groups: list[list[Reading]], newer: str) -> None:
    batches = batches_of(groups, 10)
    stop = len(batches) - 2
    last = 2 * (stop - 2) + "ab".index(newer)  # both were stored after the first batch
    whole, pipeline = plant.of_different_ages(make, batches[:stop], 1, only(last))
    again = [record for batch in batches[1:stop] for record in batch.records]
    assert pipeline.position <= again[0].offset
    assert plant.play(pipeline, again, range(0, len(again), 7)) == []
    assert (pipeline.restoring, pipeline.mismatches, pipeline.clock) == (False, 0, whole.clock)
    for batch in batches[stop:]:
        assert pipeline.process(batch).alerts == whole.process(batch).alerts
    assert plant.state_of(pipeline, CONFIG) == plant.state_of(whole, CONFIG)


def test_what_no_replay_needs_is_forgotten() -> None:
    pipeline = make()
    assert plant.play(pipeline, plant.records_of(AHEAD), [100]) == []
    assert [key for key, _ in pipeline.journal() if key == JUMPS_ENTRY] == [JUMPS_ENTRY]
    assert pipeline.journal() == []
    pipeline.pack_slice(0)
    assert pipeline.journal() == [(JUMPS_ENTRY, None)]


def test_a_pipeline_in_place_of_another_tells_what_that_one_did() -> None:
    first, second = make(), make()
    *before, last = batches_of([*AHEAD, *BACK[32:]], 80)
    for batch in before:
        first.process(batch)
    (told,) = [value for key, value in first.journal() if key == JUMPS_ENTRY]
    assert not second.restore(first.snapshot())
    second.process(last)
    (again,) = [value for key, value in second.journal() if key == JUMPS_ENTRY]
    assert told is not None
    assert again is not None
    jumps = unpack_jumps(again)
    assert len(jumps) == 2
    assert unpack_jumps(told).items() < jumps.items()


def test_who_is_in_the_record_with_which_a_run_begins_counts_in_any_batch() -> None:
    hours = [72 + step / 10 for step in range(10)]
    back = [[*one, *other] for one, other in zip(at("b", 73), at("a", 1), strict=True)]
    groups = [*at("a", *hours), *back, *at("a", *(1 + step / 10 for step in range(1, 24)))]
    clocks = set()
    for cuts in ([], [11], [15], range(1, len(groups))):
        pipeline = make()
        plant.play(pipeline, plant.records_of(groups), cuts)
        clocks.add(pipeline.clock)
    assert clocks == {START + int(3.3 * HOUR)}
