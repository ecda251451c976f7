"""The golden cases on a broker: uninterrupted, and from what an earlier release left behind in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.cases import CAMERAS, PLANT, Case, run
from tests.golden.compare import expect_alerts, expect_letters, since_last, without_claims
from tests.golden.states import as_ever
from tests.golden.topics import (
    KINDS,
    WHOLE_ALERTS,
    WHOLE_LETTERS,
    Entry,
    Feed,
    GoldenTopics,
    Log,
    create_input,
    drop,
    frozen_of,
    input_of,
    read,
    write,
)
from tests.kafka.broker import Cluster


@pytest.fixture(scope="module", params=[PLANT, CAMERAS], ids=[PLANT.name, CAMERAS.name])
def case(request: pytest.FixtureRequest, kafka: Cluster) -> Iterator[Case]:
    """A case whose input is in its topic."""
    case: Case = request.param
    create_input(kafka, case)
    feed = Feed(kafka, case)
    feed.until(float("inf"))
    feed.close()
    yield case
    drop(kafka, [input_of(case)])


def finish(topics: GoldenTopics, place: Path) -> str:
    """Run to the end of the input, compare all that the group has published, and return the log."""
    log = run(topics.case.lay_without_input(place), "run", *topics.options, "--until-end")
    alerts, letters = topics.published()
    expect_alerts(without_claims(since_last(as_ever(topics.case.recorded(WHOLE_ALERTS)))), since_last(as_ever(alerts)))
    expect_letters(topics.case.recorded(WHOLE_LETTERS), letters)
    return log


def test_a_run_publishes_what_was_recorded(kafka: Cluster, case: Case, tmp_path: Path) -> None:
    with GoldenTopics(kafka, case, "whole").made() as topics:
        finish(topics, tmp_path / "place")


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_is_taken_up(kafka: Cluster, case: Case, kind: str, tmp_path: Path) -> None:
    with GoldenTopics(kafka, case, kind).made() as topics:
        topics.thaw(frozen_of(case, kind))
        log = finish(topics, tmp_path / "place")
    assert ('"restored"' in log) is (kind != "stopped"), "whether records were run again"
    # What is run again differs from what was said of a sensor that relearns by now, and of a camera's onset.
    assert log.count('"replay_mismatch"') <= (kind != "stopped") * case.partitions


@pytest.mark.parametrize("offsets", [[0, 1, 3, 4], [2, 3, 6, 8, 13], []], ids=["marks", "aborted", "nothing else"])
def test_a_partition_is_written_at_its_offsets(kafka: Cluster, offsets: list[int]) -> None:
    log = Log([Entry(offset, b"%d" % offset, b"value", [("name", b"x")]) for offset in offsets], end=20)
    topic = kafka.create_topic(kafka.unique("offsets"))
    write(kafka, topic, 0, log)
    assert read(kafka, topic, 0) == log
