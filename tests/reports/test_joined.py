"""The rows of an episode's messages, joined."""

from __future__ import annotations

from detector.reports.joined import Window, joined, newest


def rows(*times: int, value: float = 1.0) -> Window:
    column: list[float | None] = [value] * len(times)
    return Window(list(times), column, {"a": column, "b": column}, column, [False] * len(times))


def test_each_row_is_there_once_and_the_first_message_that_has_it_counts() -> None:
    found = joined([rows(0, 10, 20), rows(10, 20, 30, value=2.0), rows(20, 30, value=3.0)])
    assert found is not None
    assert found.timestamps == [0, 10, 20, 30]
    assert found.values == [1.0, 1.0, 1.0, 2.0]
    assert found.expected == {"a": [1.0, 1.0, 1.0, 2.0], "b": [1.0, 1.0, 1.0, 2.0]}
    assert found.imputed == [False] * 4


def test_where_messages_left_rows_out_nothing_is_drawn_across() -> None:
    found = joined([rows(0, 10, 20), rows(50, 60)])
    assert found is not None
    assert found.timestamps == [0, 10, 20, 35, 50, 60]
    assert found.values == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert len(found.imputed) == 6


def test_rows_that_follow_on_at_an_uneven_pace_follow_on() -> None:
    found = joined([rows(0, 10, 20), rows(34, 40)])
    assert found is not None
    assert None not in found.values


def test_of_a_long_episode_beginning_and_end_are_kept() -> None:
    found = joined([rows(*range(50)), rows(*range(50, 100))], most=10)
    assert found is not None
    assert found.timestamps == [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]
    assert newest(found, 2).timestamps == [98, 99]


def test_without_any_rows_there_is_nothing() -> None:
    assert joined([None, rows()]) is None
