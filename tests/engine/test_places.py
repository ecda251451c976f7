"""How many sensors a partition knows, and who makes way for a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.config.settings import ReadingsConfig, SensorsConfig
from detector.engine import places
from detector.engine.places import unpack_log
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Batch, Message
from tests import plant
from tests.plant import SECOND, START, healthy, profile_of, readings_config, reconstructor
from tests.reference_rules import Reading


def config(most: int) -> ReadingsConfig:
    return readings_config().model_copy(update={"sensors": SensorsConfig(max=most)})


def said(text: str) -> list[list[Reading]]:
    """A record a character; characters in brackets are one record."""
    groups: list[list[str]] = []
    for part in text.replace("]", "[").split("["):
        groups += [list(part)] if f"[{part}]" in text else [[one] for one in part]
    return [
        [Reading(name, START + second * SECOND, (50.0 + second % 7,)) for name in names]
        for second, names in enumerate(groups)
        if names
    ]


def pipeline_of(most: int, known: str) -> ReadingsPipeline:
    reconstruct = reconstructor()
    profiles = {name: profile_of(healthy(np.random.default_rng(0), 300), reconstruct) for name in known}
    return plant.pipeline_of(config(most), plant.model_of(profiles))


def run(text: str, most: int, cuts: Sequence[int] = (), known: str = "") -> tuple[ReadingsPipeline, list[Message]]:
    pipeline = pipeline_of(most, known)
    letters = []
    for batch in plant.batches_of(plant.records_of(said(text)), cuts):
        letters += pipeline.process(batch).dead_letters
    return pipeline, letters


def reasons(letters: Sequence[Message]) -> list[tuple[str, str | None]]:
    headers = [{name: value.decode() for name, value in letter.headers} for letter in letters]
    return [(one["detector.reason"], one.get("detector.elements")) for one in headers]


def test_who_was_heard_least_recently_makes_way() -> None:
    assert set(run("abcab" + "d", 3)[0].sensor_ids) == {"a", "b", "d"}
    assert set(run("abcab" + "cd", 3)[0].sensor_ids) == {"b", "c", "d"}


def test_slow_sensors_keep_their_place_while_there_is_room() -> None:
    assert set(run("s" + "abab" * 30, 3)[0].sensor_ids) == {"s", "a", "b"}


def test_who_has_a_profile_keeps_its_place_and_new_ones_are_refused() -> None:
    pipeline, letters = run("abXabY", 2, known="ab")
    assert set(pipeline.sensor_ids) == {"a", "b"}
    assert reasons(letters) == [("too_many_sensors", None)] * 2


def test_of_a_message_in_part_the_others_count() -> None:
    pipeline, letters = run("ab[aXbY]", 2, known="ab")
    assert reasons(letters) == [("too_many_sensors", "1,3")]
    assert set(pipeline.sensor_ids) == {"a", "b"}


def test_nobody_of_the_same_message_makes_way() -> None:
    pipeline, letters = run("[abc]", 2)
    assert set(pipeline.sensor_ids) == {"a", "b"}
    assert reasons(letters) == [("too_many_sensors", "2")]


def test_refused_sensors_are_no_reason_to_stop() -> None:
    pipeline = plant.pipeline_of(
        config(1), plant.model_of({"a": profile_of(healthy(np.random.default_rng(0), 300), reconstructor())})
    )
    records = plant.records_of(said("aXYZ"))
    output = pipeline.process(Batch(plant.PARTITION, records, plant.offset_of(4)))
    assert output.rejected == {"too_many_sensors": 3}
    assert output.refused == []


def test_no_limit() -> None:
    assert run("abcdefgh", 0)[0].sensors == 8


@given(
    st.text("abcdefg", min_size=1, max_size=60),
    st.integers(1, 5),
    st.lists(st.integers(1, 59), max_size=6),
    st.sampled_from(["", "a", "ab"]),
)
def test_batches_do_not_matter(text: str, most: int, cuts: list[int], known: str) -> None:
    one, letters = run(text, most, known=known)
    other, other_letters = run(text, most, sorted(set(cuts)), known=known)
    assert set(one.sensor_ids) == set(other.sensor_ids)
    assert reasons(letters) == reasons(other_letters)
    assert one.sensors <= most


def check_replay(
    text: str, most: int, cuts: list[int], known: str = "", few_rows: bool = False, stop: int = 1000,
    renewed: Callable[[], bool] = lambda: False,
) -> None:  # fmt: skip
    """After a kill behind `stop` batches, with slices of different ages, everything goes on as it would have."""
    records = plant.records_of(said(text))
    batches = list(plant.batches_of(records, [cut for cut in cuts if cut < len(records)]))
    with mock.patch.object(places, "WARM_UP_BYTES", 16 * 4 if few_rows else places.WARM_UP_BYTES):
        whole, pipeline = plant.of_different_ages(lambda: pipeline_of(most, known), batches[:stop], 1, renewed)
        again = [record for record in records if pipeline.position <= record.offset < whole.position]
        plant.play(pipeline, again, range(0, len(again), 3))
        for batch in batches[stop:]:
            assert pipeline.process(batch).rejected == whole.process(batch).rejected
    assert plant.state_of(pipeline, config(most)) == plant.state_of(whole, config(most))


@settings(max_examples=60)
@given(
    st.text("abcdefg[]", min_size=2, max_size=60).filter(said),
    st.integers(1, 5),
    st.lists(st.integers(1, 59), max_size=6, unique=True).map(sorted),
    st.sampled_from(["", "a", "ab", "cg"]),
    st.booleans(),
    st.integers(1, 7),
    st.data(),
)
def test_records_that_are_run_again_find_the_places_they_had(
    text: str, most: int, cuts: list[int], known: str, few_rows: bool, stop: int, data: st.DataObject
) -> None:
    check_replay(text, most, cuts, known, few_rows, stop, lambda: data.draw(st.booleans()))


def test_who_makes_way_is_told() -> None:
    check_replay("abacde", 4, [1])


def test_so_is_who_makes_way_for_the_rows_of_others() -> None:
    renewed = iter([False, True, False, False, True, False, True, True, False])
    check_replay("badadbcb", 0, [1, 3, 7], few_rows=True, renewed=lambda: next(renewed))


def test_a_log_that_nobody_takes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_EVENTS", 3)
    pipeline = pipeline_of(1, "")
    plant.play(pipeline, plant.records_of(said("abcdefg")))
    assert len(unpack_log(dict(pipeline.journal())["\0log " + str(pipeline.position)] or b"")) == 3


def test_a_state_with_more_sensors_is_taken_up_whole() -> None:
    before, _ = run("abcd", 0)
    pipeline = plant.pipeline_of(config(2), plant.model_of())
    pipeline.restore(before.snapshot())
    assert set(pipeline.sensor_ids) == set("abcd")


def test_warm_ups_hold_a_bounded_number_of_rows_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WARM_UP_BYTES", 16 * 100)
    found = []
    for cuts in ([], [17, 60], list(range(1, 130))):
        pipeline, _ = run("a" * 60 + "b" * 30 + "c" * 40, 0, cuts)
        found.append((set(pipeline.sensor_ids), pipeline.snapshot()))
    assert found[0][0] == {"b", "c"}
    assert all(one == other for one, other in pairwise(found))
