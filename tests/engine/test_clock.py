"""The partition clock: the newest believable time, whatever the batches."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.detection.columns import NEVER
from detector.engine.clock import DAY, Heard, PartitionClock

AHEAD = 2 * DAY


def advance(
    clock: PartitionClock, times: list[int], records: list[int] | None = None, names: str = "", late: str = ""
) -> tuple[list[int], list[int]]:
    """The clock after each record (one a reading, unless told) and the jumps as a list by record.

    `names`: of the sensors, a character a reading; one sensor unless told. `late`: those heard within a day before.
    """
    at = np.arange(len(times)) if records is None else np.array(records, dtype=np.int64)
    count = int(at[-1]) + 1 if len(at) else 0
    heard = Heard(lambda i: names[i] if names else "a", lambda _: set(late))
    after, jumps = clock.advance(np.array(times, dtype=np.int64), at, np.arange(count), heard)
    by_record = [0] * count
    for record, jump in jumps:
        by_record[record] += jump
    return after.tolist(), by_record


def test_the_clock_is_the_largest_time_so_far() -> None:
    clock = PartitionClock()
    assert clock.now == NEVER
    assert advance(clock, [5, 3, 9, 9, 7]) == ([5, 5, 9, 9, 9], [0] * 5)
    assert advance(clock, [8, 10])[0] == [9, 10]


def test_a_record_counts_as_a_whole_and_one_without_readings_changes_nothing() -> None:
    assert advance(PartitionClock(), [5, 9, 7, 11], [0, 0, 2, 3])[0] == [9, 9, 9, 11]
    clock = PartitionClock(40)
    nothing = np.empty(0, dtype=np.int64)
    after, jumps = clock.advance(nothing, nothing, np.arange(2), Heard(lambda _: "a"))
    assert after.tolist() == [40, 40]
    assert jumps == []


def test_the_first_time_is_taken_for_what_it_is() -> None:
    assert advance(PartitionClock(), [50 * DAY])[0] == [50 * DAY]


def test_a_day_ahead_is_believed_at_once_and_more_is_not() -> None:
    clock = PartitionClock(0)
    assert advance(clock, [DAY, 2 * DAY + 1, DAY + 5])[0] == [DAY, DAY, DAY + 5]
    assert clock.ahead == 0


def test_twenty_readings_in_a_row_beyond_a_day_move_the_clock() -> None:
    clock = PartitionClock(0)
    after, jumps = advance(clock, [AHEAD + i for i in range(25)])
    assert after == [0] * 19 + [AHEAD + i for i in range(19, 25)]
    assert jumps == [0] * 19 + [AHEAD + 19] + [0] * 5


def test_one_sane_reading_starts_the_count_again() -> None:
    clock = PartitionClock(0)
    after, jumps = advance(clock, [AHEAD] * 19 + [7] + [AHEAD] * 19)
    assert after[-1] == 7
    assert not any(jumps)
    assert clock.ahead == 19


def test_so_does_a_batch_of_sane_readings() -> None:
    clock = PartitionClock(0)
    for batch in ([AHEAD] * 19, [7, 8], [AHEAD]):
        after, jumps = advance(clock, batch)
        assert not any(jumps)
    assert (after, clock.ahead) == ([8], 1)


def test_two_jumps_in_one_record_add_up() -> None:
    clock = PartitionClock(0)
    after, jumps = advance(clock, [AHEAD] * 20 + [3 * AHEAD] * 20, [0] * 40)
    assert after == [3 * AHEAD]
    assert jumps == [3 * AHEAD]


def test_one_sensor_of_several_does_not_move_the_clock_for_years() -> None:
    clock = PartitionClock(0)
    after, jumps = advance(clock, [AHEAD + i for i in range(40)], names="a" * 40, late="ab")
    assert not any(after)
    assert not any(jumps)
    # Nor where the other one was heard in the same batch.
    after, jumps = advance(PartitionClock(0), [5] + [AHEAD] * 40, names="b" + "a" * 40)
    assert after[-1] == 5


def test_two_sensors_of_several_move_the_clock() -> None:
    after, jumps = advance(PartitionClock(0), [AHEAD] * 20, names="a" * 19 + "b", late="abc")
    assert jumps == [0] * 19 + [AHEAD]
    assert after[-1] == AHEAD


def test_whoever_is_in_a_record_is_heard_when_all_of_it_has_passed() -> None:
    """So the table has it, which says who was heard in earlier batches: here in one batch, and as if in two."""
    minute, ahead = 60 * 10**9, [AHEAD] * 20
    clock, names = PartitionClock(0), "ab" + "b" * 20
    heard = Heard(lambda i: names[i], within=minute)
    _, jumps = clock.advance(
        np.array([minute, 3 * minute, *ahead]), np.array([0, 0, *range(1, 21)]), np.arange(21), heard
    )
    assert (jumps, clock.ahead) == ([], 20)
    again = PartitionClock(3 * minute)
    heard = Heard(lambda _: "b", lambda clock: set("ab") if 3 * minute > clock else set(), within=minute)
    _, jumps = again.advance(np.array(ahead), np.arange(20), np.arange(1, 21), heard)
    assert (jumps, again.ahead) == ([], 20)


def test_one_sensor_of_several_moves_the_clock_by_a_day_of_its_own() -> None:
    times = [AHEAD + i * DAY // 30 for i in range(40)]
    _, jumps = advance(PartitionClock(0), times, names="a" * 40, late="ab")
    assert jumps == [0] * 30 + [times[30]] + [0] * 9


def test_the_clock_goes_back_where_all_who_are_heard_lie_behind() -> None:
    times = [100 + i for i in range(40)]
    after, jumps = advance(PartitionClock(AHEAD), times, names="ab" * 20, late="ab")
    assert jumps == [0] * 19 + [times[19] - AHEAD] + [0] * 20
    assert after == [AHEAD] * 19 + times[19:]


def test_the_clock_does_not_go_back_while_one_of_them_is_not_heard() -> None:
    after, jumps = advance(PartitionClock(AHEAD), list(range(100)), names="ab" * 50, late="abc")
    assert (set(after), any(jumps)) == ({AHEAD}, False)
    # One at the time of the clock begins the run of the others again.
    after, jumps = advance(
        PartitionClock(AHEAD), [*range(19), AHEAD, *range(19)], names="ab" * 9 + "ac" + "ab" * 9 + "a"
    )
    assert (set(after), any(jumps)) == ({AHEAD}, False)


@given(
    st.lists(st.one_of(st.integers(0, 100), st.integers(AHEAD, AHEAD + 50), st.just(5 * DAY)), max_size=120),
    st.lists(st.integers(0, 120)),
)
def test_batches_do_not_matter(times: list[int], cuts: list[int]) -> None:
    # Long enough runs of far times, so that some are believed.
    times = [time for time in times for _ in range(1 if time < DAY else 7)]
    whole, parts = PartitionClock(), PartitionClock()
    expected = advance(whole, times)
    found: tuple[list[int], list[int]] = ([], [])
    edges = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})
    for first, last in itertools.pairwise(edges):
        after, jumps = advance(parts, times[first:last])
        found[0].extend(after)
        found[1].extend(jumps)
    assert found == expected
    found_of, expected_of = ((one.now, one.ahead, one.behind, one.behind_newest) for one in (parts, whole))
    assert found_of == expected_of
