"""From readings to windows: order, lateness, duplicates, clock set-backs, gaps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.arrays import I64
from detector.config.rules import ENDLESS
from detector.detection.table import SensorTable
from detector.detection.windows import LATE_LIMIT, Arrivals, Tally, WindowRows, admit, bridge_gaps


def gaps(max_gap: int | None, max_fill: int) -> tuple[I64, I64]:
    """Rules that are the same for all sensors."""
    return np.array([ENDLESS if max_gap is None else max_gap]), np.array([max_fill])


Coming = Sequence[tuple[int, float | None]]
"""Readings as (time, value)."""


def arrivals(table: SensorTable, coming: Sequence[tuple[str, int, float | None]]) -> Arrivals:
    """Readings as (sensor, time, value), each in a record of its own; the element index is 3."""
    slots = np.array([table.slots[one] if one in table.slots else table.add(one) for one, _, _ in coming], np.intp)
    values = np.array([np.nan if value is None else value for _, _, value in coming])
    values = np.repeat(values[:, None], table.channels, axis=1) + np.arange(table.channels)
    times = np.array([time for _, time, _ in coming], dtype=np.int64)
    count = len(coming)
    return Arrivals(slots, times, values, np.arange(count), np.full(count, 3))


def take(table: SensorTable, coming: Coming, lateness: int = 0) -> tuple[list[tuple[int, float, int, bool]], Tally]:
    """Rows (time, value, record, restart) of one sensor."""
    rows, tally = admit(table, arrivals(table, [("a", time, value) for time, value in coming]), lateness)
    plain = zip(
        rows.times.tolist(), rows.values[:, 0].tolist(), rows.records.tolist(), rows.restarts.tolist(), strict=True
    )
    return list(plain), tally


def times_of(rows: list[tuple[int, float, int, bool]]) -> list[int]:
    return [time for time, _, _, _ in rows]


# -- order -----------------------------------------------------------------------------------------------------------


def test_readings_in_order_become_rows_at_once() -> None:
    table = SensorTable(1, 10)
    rows, tally = take(table, [(10, 1), (20, 2), (25, 3)])
    assert rows == [(10, 1, 0, False), (20, 2, 1, False), (25, 3, 2, False)]
    assert (tally.accepted, tally.late, tally.duplicate, tally.missing, tally.resets) == (3, 0, 0, 0, 0)
    assert table["released"][0] == table["newest"][0] == 25


def test_rows_are_grouped_by_sensor_and_keep_their_order() -> None:
    table = SensorTable(2, 10)
    coming = [("a", 1, 1), ("b", 5, 2), ("a", 2, 3), ("b", 4, 4), ("c", 9, 5), ("b", 6, 6)]
    rows, tally = admit(table, arrivals(table, coming), 0)
    groups = {
        table.name(int(slot)): rows.times[first:last].tolist()
        for slot, first, last in zip(rows.slots, rows.first, rows.last, strict=True)
    }
    assert groups == {"a": [1, 2], "b": [5, 6], "c": [9]}
    assert rows.values[:, 1].tolist() == (rows.values[:, 0] + 1).tolist()
    assert set(rows.elements.tolist()) == {3}
    assert (tally.accepted, tally.late) == (5, 1)


def test_a_repeated_time_keeps_the_first_value_and_an_earlier_one_is_late() -> None:
    table = SensorTable(1, 10)
    rows, tally = take(table, [(10, 1), (10, 2), (5, 3), (20, 4), (10, 5), (20, 6)])
    assert [(time, value) for time, value, _, _ in rows] == [(10, 1), (20, 4)]
    assert (tally.accepted, tally.duplicate, tally.late) == (2, 2, 2)


def test_a_missing_value_makes_no_row() -> None:
    table = SensorTable(2, 10)
    rows, tally = take(table, [(10, 1), (20, None), (30, 2)])
    assert times_of(rows) == [10, 30]
    assert (tally.accepted, tally.missing) == (2, 1)


def test_readings_are_held_until_the_newest_is_far_enough_ahead() -> None:
    table = SensorTable(1, 10)
    rows, _ = take(table, [(10, 1), (14, 2), (12, 3), (15, 4)], lateness=5)
    assert rows == [(10, 1, 3, False)]
    rows, tally = take(table, [(12, 9), (20, 5), (11, 6), (15, 7), (16, 8), (30, 9)], lateness=5)
    assert rows == [(12, 3, 1, False), (14, 2, 1, False), (15, 4, 1, False), (16, 8, 5, False), (20, 5, 5, False)]
    assert (tally.duplicate, tally.late, tally.accepted) == (2, 1, 3)
    assert table.held == {0: [(30, (9.0,))]}


def test_twenty_late_readings_in_a_row_restart_the_window_with_the_last_of_them() -> None:
    table = SensorTable(1, 10)
    late = [(100 + i, float(i)) for i in range(LATE_LIMIT + 2)]
    rows, tally = take(table, [(1000, 0), *late])
    assert rows[:2] == [(1000, 0, 0, False), (119, 19, 20, True)]
    assert [(time, restart) for time, _, _, restart in rows[2:]] == [(120, False), (121, False)]
    assert (tally.late, tally.resets, tally.accepted) == (19, 1, 4)


def test_an_accepted_reading_ends_the_run_of_late_ones_and_a_repeated_one_does_not() -> None:
    table = SensorTable(1, 10)
    late = [(500, 0.0)] * (LATE_LIMIT - 1)
    rows, tally = take(table, [(1000, 0), *late, (1001, 1), *late, (1001, 2), (1001, 3)])
    assert times_of(rows) == [1000, 1001]
    rows, tally = take(table, [(400, 4.0)])
    assert rows == [(400, 4, 0, True)]
    assert tally.resets == 1


def test_a_batch_in_order_ends_the_run_of_late_ones_too() -> None:
    table = SensorTable(1, 10)
    late = [(500, 0.0)] * (LATE_LIMIT - 1)
    take(table, [(1000, 0), *late])
    assert table["late_run"][0] == LATE_LIMIT - 1
    assert times_of(take(table, [(1001, 1), (1002, 2)])[0]) == [1001, 1002]
    assert times_of(take(table, late)[0]) == []


def test_a_set_back_releases_what_is_held_and_marks_the_first_row_that_comes_after() -> None:
    table = SensorTable(1, 10)
    take(table, [(1000, 1), (1003, 2), (1006, 3)], lateness=5)
    rows, tally = take(table, [(500, 0.0)] * LATE_LIMIT, lateness=5)
    assert rows == [(1003, 2, 19, False), (1006, 3, 19, False)]
    assert tally.resets == 1
    rows, _ = take(table, [(498, 7), (504, 8), (509, 9)], lateness=5)
    assert rows == [(498, 7, 1, True), (500, 0, 2, False), (504, 8, 2, False)]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=80),
    st.sampled_from([0, 3, 9]),
    st.lists(st.integers(0, 80), max_size=6),
)
def test_batches_do_not_matter_for_the_order(coming: list[tuple[int, int]], lateness: int, cuts: list[int]) -> None:
    # A time that drifts ahead, readings around it, and now and then a clock that was set back for long.
    readings: Coming = [
        (1000 * (2 - (i // 40)) + 3 * i + time, None if kind == 3 else float(i))
        for i, (time, kind) in enumerate(coming)
    ]
    whole, parts = SensorTable(1, 10), SensorTable(1, 10)
    expected, tally = take(whole, readings, lateness)
    found: list[tuple[int, float, int, bool]] = []
    sums = Tally()
    edges = sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})
    for first, last in itertools.pairwise(edges):
        rows, part = take(parts, readings[first:last], lateness)
        found += [(time, value, record + first, restart) for time, value, record, restart in rows]
        sums.add(part)
    assert found == expected
    assert sums == tally
    assert parts.held == whole.held
    for column in ("released", "newest", "late_run", "restart"):
        assert parts[column][:1].tolist() == whole[column][:1].tolist()


# -- gaps ------------------------------------------------------------------------------------------------------------


def bridged(
    times: Sequence[int], *, past: int | None = 0, median: int = 10, regular: bool = True, restarts: Sequence[int] = (),
    max_gap: int | None = None, max_fill: int = 5,
) -> tuple[list[tuple[int, float, bool]], list[int]]:  # fmt: skip
    """Rows (time, value, imputed) and the times before which the window restarts; values are times squared."""
    table = SensorTable(2, 10)
    slot = table.add("a")
    table.set(slot, {"median": median, "regular": regular})
    if past is not None:
        table.set(slot, {"filled": 1})
        table["times"][slot, -1] = past
        table["values"][slot, -1] = past**2
    count = len(times)
    at = np.array(times, dtype=np.int64)
    rows = WindowRows(
        slots=np.array([slot]), first=np.array([0]), last=np.array([count]), times=at,
        values=np.stack([at, at], axis=1).astype(float) ** 2, records=np.arange(count), elements=np.arange(count),
        restarts=np.isin(at, restarts), imputed=np.zeros(count, dtype=bool),
    )  # fmt: skip
    out = bridge_gaps(table, rows, *gaps(max_gap, max_fill))
    assert (out.first.tolist(), out.last.tolist()) == ([0], [len(out.times)])
    assert out.records[~out.imputed].tolist() == list(range(count))
    plain = zip(out.times.tolist(), out.values[:, 1].tolist(), out.imputed.tolist(), strict=True)
    return list(plain), out.times[out.restarts].tolist()


def test_a_short_gap_is_filled_on_a_straight_line() -> None:
    rows, restarts = bridged([10, 41, 50])
    assert rows == [
        (10, 100, False), (20, 100 + 1581 / 3, True), (30, 100 + 2 * 1581 / 3, True), (41, 1681, False),
        (50, 2500, False),
    ]  # fmt: skip
    assert restarts == []


@pytest.mark.parametrize(("gap", "filled"), [(14, 0), (15, 1), (24, 1), (25, 2), (64, 5)])
def test_a_gap_is_rounded_to_whole_intervals(gap: int, filled: int) -> None:
    rows, restarts = bridged([gap])
    assert sum(imputed for _, _, imputed in rows) == filled
    assert restarts == []


def test_a_long_gap_restarts_the_window_and_fills_nothing() -> None:
    rows, restarts = bridged([10, 75, 85])
    assert [time for time, _, _ in rows] == [10, 75, 85]
    assert restarts == [75]


def test_without_filling_any_gap_restarts() -> None:
    assert bridged([10, 25], max_fill=0) == ([(10, 100, False), (25, 625, False)], [25])


def test_sensors_without_a_regular_interval_are_never_filled() -> None:
    for cells in ({"regular": False}, {"median": 0}):
        rows, restarts = bridged([10, 41, 4100], **cells)
        assert len(rows) == 3
        assert restarts == []


def test_max_gap_restarts_any_sensor() -> None:
    assert bridged([10, 41, 4100], regular=False, max_gap=31)[1] == [4100]
    assert bridged([10, 41], max_gap=30)[1] == [41]


def test_before_the_first_row_of_a_window_there_is_no_gap() -> None:
    assert bridged([10_000, 10_010], past=None) == ([(10_000, 1e8, False), (10_010, 10_010.0**2, False)], [])


def test_a_restart_is_no_gap_whichever_way_the_clock_went() -> None:
    rows, restarts = bridged([10, 5000, 5010, 40, 50], restarts=[5000, 40], max_gap=100)
    assert len(rows) == 5
    assert restarts == [5000, 40]


def test_rows_of_several_sensors_are_filled_apart() -> None:
    table = SensorTable(1, 10)
    slots = np.array([table.add(name) for name in "ab"])
    table["median"][slots], table["regular"][slots] = [10, 100], True
    table["filled"][slots], table["times"][slots, -1] = 1, [0, 50]
    table["values"][slots, -1, 0] = [0, 5]
    rows = WindowRows(
        slots=slots, first=np.array([0, 2]), last=np.array([2, 3]), times=np.array([20, 30, 250]),
        values=np.array([[2.0], [3.0], [25.0]]), records=np.arange(3), elements=np.zeros(3, dtype=np.int64),
        restarts=np.zeros(3, dtype=bool), imputed=np.zeros(3, dtype=bool),
    )  # fmt: skip
    out = bridge_gaps(table, rows, *gaps(None, 5))
    assert out.times.tolist() == [10, 20, 30, 150, 250]
    assert out.values[:, 0].tolist() == [1, 2, 3, 15, 25]
    assert out.records.tolist() == [0, 0, 1, 2, 2]
    assert (out.first.tolist(), out.last.tolist()) == ([0, 3], [3, 5])
