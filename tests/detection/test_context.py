"""A value of other hours: who has a profile of hours, what it says, and what it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.quality.synthetic import sensor
from detector.arrays import F64, I64
from detector.detection.context import (
    CONTEXT,
    HOURS,
    LASTS,
    NONE,
    SLOW,
    Contexts,
    added,
    bins_of,
    contexts_of,
    learnt,
    off,
)
from detector.detection.hours import Hours, Local
from detector.times import SECOND
from tests.shifts import DAY, HOUR, MONDAY, Spans, shifts, two_shifts


def known(times: I64, values: F64, hours: Hours | None = None) -> Contexts:
    z = (values - values.mean()) / values.std()
    interval = int(np.median(np.diff(times)))
    return contexts_of(times, z[None], np.full((1, len(z)), True), (hours or Hours()).of(times, "press"), interval)


def every_day(day: int) -> Spans:
    return [(6, 22)]


# -- who has one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [HOUR // 6, HOUR // 2, HOUR])
@pytest.mark.parametrize("days", [14, 18, 25])
def test_shifts_of_two_weeks_are_known_by_the_week(interval: int, days: int) -> None:
    (one,) = known(*shifts(days, interval=interval))
    assert one["weekly"]
    busy = one["center"].reshape(7, HOURS) > 0
    assert busy[:5, 6:22].all()
    assert busy.sum() == 5 * 16
    assert one["half"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("first", range(7))
def test_one_day_off_in_seven_is_known_whichever_day_the_prefix_begins_on(first: int) -> None:
    def runs(day: int) -> Spans:
        return [] if day % 7 == 6 else [(5, 13)]

    times, values = shifts(18, runs, begin=MONDAY + first * DAY)
    (one,) = known(times, values)
    assert one["weekly"]


def test_the_same_every_day_is_known_by_the_day() -> None:
    for days in (2, 4, 18):
        (one,) = known(*shifts(days, every_day, interval=HOUR // 6))
        assert not one["weekly"]
        assert np.isnan(one["center"][HOURS:]).all()


@pytest.mark.parametrize("days", [0.5, 1, 1.9])
def test_less_than_two_days_say_nothing(days: float) -> None:
    assert len(known(*shifts(days, every_day, interval=HOUR // 6))) == 0


def test_weeks_are_not_known_from_less_than_two() -> None:
    for one in known(*shifts(13)):
        assert not one["weekly"]


@pytest.mark.parametrize("kind", ["white", "ar .95", "ar .999", "seasonal", "bursty", "counts", "steps"])
def test_who_goes_by_no_clock_has_none(kind: str) -> None:
    values = sensor(kind, 0, 3000, 5)
    assert len(known(MONDAY + np.arange(3000) * (HOUR // 6), values)) == 0


def test_a_prefix_that_is_all_night_has_none() -> None:
    times, values = shifts(20, every_day, interval=HOUR // 6)
    night = (times - MONDAY) % DAY < 6 * HOUR
    assert len(known(times[night], values[night])) == 0


def test_what_was_so_by_chance_is_not_so_in_the_rows_held_back() -> None:
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=18 * 24), 2)  # every hour is another
    assert len(known(MONDAY + np.arange(len(values)) * (HOUR // 2), values)) == 0


def test_rows_that_are_rarer_than_hours_say_nothing() -> None:
    assert len(known(*shifts(60, every_day, interval=2 * HOUR))) == 0
    no_times = np.empty(0, dtype=np.int64)
    assert contexts_of(no_times, np.empty((1, 0)), np.empty((1, 0), dtype=bool), Hours().of(no_times), 0) is NONE


def test_of_several_channels_those_that_go_by_the_clock() -> None:
    times, values = shifts(18)
    z = np.stack([np.random.default_rng(0).normal(size=len(times)), (values - values.mean()) / values.std()])
    there = np.full(z.shape, True)
    found = contexts_of(times, z, there, Hours().of(times), HOUR // 2)
    assert found["channel"].tolist() == [1]
    there[1, ::2] = False
    assert contexts_of(times, z, there, Hours().of(times), HOUR // 2)["channel"].tolist() == [1]


def test_days_of_the_calendar_are_not_learnt() -> None:
    from detector.config.load import CalendarConfig

    holiday = CalendarConfig.model_validate({"from": "2027-01-11", "to": "2027-01-13"})
    times, values = shifts(18, lambda day: [] if 7 <= day < 10 else two_shifts(day))
    (without,) = known(times, values)
    (one,) = known(times, values, Hours("UTC", [holiday]))
    monday = slice(6, 22)
    assert one["spread"][monday].max() < 0.3
    assert without["spread"][monday].min() > 0.7, "of its hours nothing can be said"


def test_what_the_newest_rows_do_at_other_hours_makes_the_limit_longer() -> None:
    late = {21: 3.0, 22: 3.0, 23: 3.0}
    (one,) = known(*shifts(28, lambda day: [(6 + late[day], 22)] if day in late else two_shifts(day)))
    (other,) = known(*shifts(28))
    assert other["limit"] == 3
    assert 8 < one["limit"] < 13, "nearly twice three hours"


# -- what it says ----------------------------------------------------------------------------------------------------


def test_how_far_off_rows_are() -> None:
    z, center, spread = np.array([1.0, -3.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, np.nan]), np.array([0.1, 0.1, 2.0, 1])
    assert off(z, center, spread, 0.8).tolist() == [1.25, -2.0, 0.25, 0.0]


def test_a_sum_rises_by_what_is_beyond_and_falls_fast() -> None:
    total = 0.0
    for beyond in (2.0, 2.0, 1.5, 1.0, 0.8):
        total = added(total, beyond, 9.0)
    assert total == pytest.approx(1.5)
    assert added(8.5, 2.0, 9.0) == 9.0
    assert added(4.0, 0.0, 9.0) == 0.0


# -- what it learns --------------------------------------------------------------------------------------------------


def profile(*, weekly: bool = False, center: float = 0.0, spread: float = 0.1) -> Any:
    one = np.zeros(1, dtype=CONTEXT)
    one["weekly"], one["half"], one["center"], one["spread"] = weekly, 1.0, center, spread
    return one[0]


@pytest.mark.parametrize("weekly", [False, True])
def test_what_is_usual_follows_slowly(weekly: bool) -> None:
    now = learnt(profile(weekly=weekly), 3, 0, 0.5, 0.5, teaches=True)
    assert now.center == pytest.approx(0.5 * SLOW[weekly])
    assert 0.1 < now.spread < 0.5
    assert now.streak == 0


def test_an_episode_teaches_nothing() -> None:
    assert learnt(profile(), 3, 0, 0.5, 0.5, teaches=False).center == 0.0
    unknown = learnt(profile(center=np.nan), 3, 0, 0.5, 0.5, teaches=False)
    assert unknown.center != unknown.center


@pytest.mark.parametrize("weekly", [False, True])
def test_what_lasts_is_the_usual(weekly: bool) -> None:
    streak = 0
    for turn in range(LASTS[weekly]):
        now = learnt(profile(weekly=weekly), 3, streak, -2.0, 2.0, teaches=False)
        streak = now.streak
        assert now.center == (-2.0 if turn == LASTS[weekly] - 1 else 0.0)
    assert streak == 0


def test_what_goes_from_one_side_to_the_other_does_not_last() -> None:
    streak = 0
    for mean in (2.0, -2.0) * 5:
        now = learnt(profile(), 3, streak, mean, 2.0, teaches=False)
        assert now.center == 0.0
        streak = now.streak


def test_an_hour_that_the_prefix_lacks_is_learnt_with_room() -> None:
    now = learnt(profile(center=np.nan), 3, 0, 1.5, 0.0, teaches=True)
    assert (now.center, now.spread) == (1.5, 2.0)


def test_hours_of_the_week() -> None:
    local = Local(np.array([0, 0]), np.array([5, 6]), np.array([0, 6]))
    assert bins_of(local, weekly=True).tolist() == [5, 150]
    assert bins_of(local, weekly=False).tolist() == [5, 6]
    assert SECOND * 3600 == HOUR
