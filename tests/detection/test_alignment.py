"""Readings of single tags into rows of machines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.detection.alignment import MOST_PENDING, Alignment, align
from detector.detection.table import SensorTable
from detector.detection.windows import LATE_LIMIT, Arrivals

NAN = math.nan
LAST, NULL = Alignment(within=2, fill=True, max_age=60), Alignment(within=2, fill=False, max_age=60)
TAGS = "tpf"


class Row(NamedTuple):
    """What was released: time, values, which of them stand for missing ones, and by which reading."""

    time: int
    values: tuple[float, ...]
    patched: tuple[bool, ...]
    by: int
    absent: int


def rows(
    readings: Sequence[tuple[str, int, float]], how: Alignment = LAST, channels: int = 2, cuts: Sequence[int] = ()
) -> tuple[list[Row], SensorTable, int]:
    """What readings (tag, time, value) of one machine become, taken in batches that end at the cuts."""
    table = SensorTable(channels, last_scores=10)
    slot = table.add("press")
    out: list[Row] = []
    duplicates = 0
    for first, last in itertools.pairwise(sorted({0, *cuts, len(readings)})):
        part = readings[first:last]
        arrivals = Arrivals(
            np.full(len(part), slot),
            np.array([time for _, time, _ in part], dtype=np.int64),
            np.array([[value] for *_, value in part]),
            np.arange(first, last),
            np.zeros(len(part), dtype=np.int64),
        )
        found, absent, duplicate = align(table, arrivals, np.array([TAGS.index(tag) for tag, *_ in part]), how)
        duplicates += duplicate
        assert found.patched is not None
        columns = found.times, found.values, found.patched, found.records, absent
        out += [
            Row(time, tuple(values), tuple(patched), by, lacking)
            for time, values, patched, by, lacking in zip(*(column.tolist() for column in columns), strict=True)
        ]
    return out, table, duplicates


def plain(found: Sequence[Row]) -> list[tuple[int, tuple[float, ...], int]]:
    return [(row.time, row.values, row.by) for row in found]


def test_a_row_is_released_by_the_reading_that_completes_it() -> None:
    found, table, _ = rows([("t", 10, 1), ("p", 11, 2), ("p", 20, 4), ("t", 19, 3)])
    assert plain(found) == [(10, (1, 2), 1), (20, (3, 4), 3)], "the time is that of the first to come"
    assert not any(any(row.patched) for row in found)
    assert not table.aligning[0].rows


def test_or_by_the_first_one_that_is_later_by_more() -> None:
    readings = [("t", 10, 1), ("p", 10, 2), ("t", 20, 3), ("t", 22, 5), ("t", 23, 7)]
    found, *_ = rows(readings)
    assert plain(found) == [(10, (1, 2), 1), (20, (3, 2), 4)], "22 is not later than 20 + 2"
    assert found[1].patched == (False, True)
    without, *_ = rows(readings, NULL)
    assert without[1].time == 20
    assert math.isnan(without[1].values[1])
    assert without[1].patched == (False, False)


def test_a_reading_joins_the_nearest_row_that_waits_for_it() -> None:
    found, *_ = rows([("t", 10, 1), ("t", 12, 2), ("p", 12, 8)])
    assert [row.time for row in found] == [10, 12]
    assert [row.by for row in found] == [2, 2], "what is older goes before it"
    np.testing.assert_array_equal(found[1].values, [2, 8])
    tie, table, _ = rows([("t", 10, 1), ("t", 12, 2), ("p", 11, 8)])
    assert plain(tie) == [(10, (1, 8), 2)], "of equally near rows the one that began first"
    assert [row.time for row in table.aligning[0].rows] == [12]


def test_of_one_record_the_order_of_its_readings_counts() -> None:
    found, *_ = rows([("t", 10, 1), ("p", 10, 2), ("t", 10, 9), ("p", 10, 9)])
    assert plain(found) == [(10, (1, 2), 1)]


def test_repeated_readings_are_counted_and_the_first_stays() -> None:
    found, table, duplicates = rows([("t", 10, 1), ("t", 10, 5), ("p", 10, 2), ("t", 10, 7), ("p", 10, 7)])
    assert plain(found) == [(10, (1, 2), 2)]
    assert duplicates == 3
    assert not table.aligning[0].rows


def test_a_last_value_grows_too_old() -> None:
    readings = [("t", 0, 1.0), ("p", 0, 2.0), *(("t", time, 1.0) for time in range(10, 100, 10))]
    found, *_ = rows(readings)
    assert [row.patched[1] for row in found] == [False, *[True] * 6, False, False][: len(found)]
    assert [math.isnan(row.values[1]) for row in found] == [row.time > 60 for row in found]
    assert [row.absent for row in found] == list(range(len(found)))


def test_null_is_no_value_and_nothing_stands_for_it() -> None:
    found, *_ = rows([("t", 0, 1), ("p", 0, 2), ("t", 10, NAN), ("p", 10, 3), ("t", 20, 4), ("p", 20, 5)])
    assert [row.time for row in found] == [0, 10, 20]
    assert math.isnan(found[1].values[0])
    assert found[1].patched == (False, False)
    assert [row.absent for row in found] == [0, 1, 0]


def test_clocks_apart_are_bounded_and_their_channel_is_missed() -> None:
    readings = [one for time in range(0, 400) for one in (("t", time + 100, 1.0), ("p", time, 2.0))]
    found, table, _ = rows(readings)
    assert len(table.aligning[0].rows) <= 8
    newest = [row for row in found if row.time > 410]
    assert all(math.isnan(row.values[1]) for row in newest), "the last value is too old"
    assert max(row.absent for row in newest) > 100


def test_a_clock_that_jumps_ahead_leaves_few_rows_behind() -> None:
    far = [("t", 10**9 + 10 * row, 1.0) for row in range(2 * MOST_PENDING, 0, -1)]
    _, table, _ = rows([*far, ("p", 0, 1.0)], NULL)
    assert len(table.aligning[0].rows) <= MOST_PENDING + 1


def test_a_clock_that_was_set_back_is_believed_after_a_while() -> None:
    before = [one for time in range(1000, 1010) for one in (("t", time, 1.0), ("p", time, 2.0))]
    after = [one for time in range(0, 2 * LATE_LIMIT) for one in (("t", time, 3.0), ("p", time, 4.0))]
    found, table, _ = rows([*before, *after, ("t", 60, 5.0), ("t", 70, 5.0)])
    assert found[-1].patched == (False, True)
    assert found[-1].values[1] == 4.0
    assert table.aligning[0].newest == 60


@given(
    st.lists(st.tuples(st.sampled_from(TAGS), st.integers(0, 40), st.sampled_from([1.0, 2.0, NAN])), max_size=60),
    st.sampled_from([LAST, NULL]),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_how_they_are_batched_does_not_matter(
    readings: list[tuple[str, int, float]], how: Alignment, cuts: list[int]
) -> None:
    whole, one, _ = rows(readings, how, 3)
    parts, other, _ = rows(readings, how, 3, [cut for cut in cuts if cut < len(readings)])
    np.testing.assert_equal(parts, whole)
    slots = np.array([0])
    assert one.pack(slots) == other.pack(slots)
    assert sum(NAN not in row.values for row in whole) <= len(readings)
    again = SensorTable(3, last_scores=10)
    again.unpack(one.pack(slots))
    assert again.pack(slots) == one.pack(slots)


@pytest.mark.parametrize("how", [LAST, NULL])
def test_tags_that_come_together_are_the_rows_they_were(how: Alignment) -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    readings = [(tag, row * 10 + at % 2, float(values[row, at])) for row in range(50) for at, tag in enumerate(TAGS)]
    found, *_ = rows(readings, how, 3)
    np.testing.assert_array_equal([row.values for row in found], values)
    assert [row.by for row in found] == [3 * row + 2 for row in range(50)]
