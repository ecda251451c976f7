"""Alerts against labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.reports.scoreboard import EpisodeSpan, Label, Scoreboard, by_kind, episodes_of, read_labels, score
from tests.reports.made import NOON, SECOND, alert, at


def span(start: int, end: int | None, *, sensor: str = "pump-7", detected: int | None = None) -> EpisodeSpan:
    return EpisodeSpan(
        sensor_id=sensor,
        started=NOON + start * SECOND,
        detected=NOON + (start if detected is None else detected) * SECOND,
        ended=None if end is None else NOON + end * SECOND,
        severity="warning",
        peak=1.0,
        close_reason=None,
    )


def label(start: int, end: int, *, sensor: str = "pump-7", kind: str = "spike") -> Label:
    return Label(sensor, at(start), at(end), kind)


def test_the_messages_of_an_episode_are_one_episode() -> None:
    found = episodes_of(
        [
            alert(),
            alert(alert_id="b", sensor_id="pump-8", started_at=at(5)),
            alert("updated", sequence=1, severity="critical", peak_score=4.0),
            alert("closed", sequence=2, severity="critical", peak_score=5.0, ended_at=at(60), close_reason="gap"),
        ]
    )
    assert found == [
        EpisodeSpan("pump-7", NOON, NOON + 10 * SECOND, NOON + 60 * SECOND, "critical", 5.0, "gap", "a"),
        EpisodeSpan("pump-8", NOON + 5 * SECOND, NOON + 10 * SECOND, None, "warning", 2.5, None, "b"),
    ]


@pytest.mark.parametrize(
    ("episode", "hit"),
    [
        (span(0, 99), False),
        (span(0, 100), True),
        (span(120, 130), True),
        (span(200, 300), True),
        (span(201, 300), False),
        (span(0, None), True),
        (span(201, None), False),
        (span(0, 1000), True),
        (span(120, 130, sensor="pump-8"), False),
    ],
)
def test_an_overlap_is_a_hit_ends_included(episode: EpisodeSpan, hit: bool) -> None:
    board = score([episode], [label(100, 200)])
    assert (len(board.found), len(board.missed), len(board.false_alarms)) == ((1, 0, 0) if hit else (0, 1, 1))


def test_the_delay_is_that_of_the_first_notice() -> None:
    board = score([span(150, 160), span(90, 140, detected=130)], [label(100, 200)])
    assert [delay for _, delay in board.found] == [30 * SECOND]
    assert score([span(50, 140, detected=90)], [label(100, 200)]).median_delay == 0
    assert board.false_alarms == []


def test_one_episode_may_be_two_faults() -> None:
    board = score([span(100, 400)], [label(100, 200), label(300, 350)])
    assert (len(board.found), board.median_delay) == (2, 0)


def test_without_anything_there_is_nothing() -> None:
    board = score([], [])
    assert (board.found, board.missed, board.false_alarms, board.median_delay) == ([], [], [], None)


def test_kinds_are_counted() -> None:
    board = Scoreboard(
        found=[(label(0, 1), 0), (label(0, 1, kind="drift"), 0), (label(0, 1), 0)],
        missed=[label(0, 1), label(0, 1, kind="dropout")],
    )
    assert list(by_kind(board).items()) == [("drift", (1, 1)), ("dropout", (0, 1)), ("spike", (2, 3))]


def test_labels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"sensor_id": "a", "start": at(0), "end": at(9), "kind": "spike"},
                                {"sensor_id": "b", "start": at(0), "end": at(0)}]))  # fmt: skip
    first, second = read_labels(path)
    assert first.interval == (NOON, NOON + 9 * SECOND)
    assert (second.sensor_id, second.kind) == ("b", "fault")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "these are no labels: Input data was truncated"),
        ("{}", "these are no labels: Expected `array`, got `object`"),
        ('[{"sensor_id": "a"}]', "these are no labels: Object missing required field `start`"),
        ('[{"sensor_id": "a", "start": "x", "end": "y"}]', "these are no labels: "),
        (
            f'[{{"sensor_id": "a", "start": "{at(1)}", "end": "{at(0)}"}}]',
            "these are no labels: the label of a ends before",
        ),
        (
            f'[{{"sensor_id": "a", "start": "{at(0)}", "end": "{at(1)}", "x": 1}}]',
            "these are no labels: Object contains",
        ),
    ],
)
def test_what_is_no_label_is_refused(content: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        read_labels(path)
    assert str(refused.value).startswith(line)
    assert f"({path}). Expected [{{" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the labels: No such file or directory"):
        read_labels(tmp_path / "labels.json")


def test_what_is_muted_or_about_silence_is_no_false_alarm() -> None:
    found = episodes_of(
        [
            alert(),
            alert(alert_id="b", muted=True),
            alert(alert_id="c", reason="silent", channels={}),
            alert(alert_id="d", muted=True),
            alert("updated", alert_id="d", sequence=1),
        ]
    )
    assert [episode.alert_id for episode in score(found, []).false_alarms] == ["a", "d"]
    labelled = score(found, [label(0, 5)])
    assert (len(labelled.found), labelled.false_alarms) == (1, [])
