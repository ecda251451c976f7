"""Closed episodes: what each has taught can be taken back from the threshold, and given again."""

from __future__ import annotations

import math
from random import Random

import pytest

from detector.detection.closed import REMEMBERED, ClosedEpisode, LastEpisodes, Reservoir
from detector.detection.sensor import Sensor
from detector.detection.threshold import NOTHING, advance, begin, first_reservoir, insert_peak, spend
from tests.sensors import sensor_of


def reservoir_of(s: Sensor) -> Reservoir:
    return Reservoir(list(s.peaks), s.peaks_seen, s.credit, list(s.unlearnt))


def lived(seed: int) -> tuple[Sensor, LastEpisodes]:
    """A sensor after quiet peaks and episodes, most of them far above the tail, so that they become a habit."""
    random = Random(seed)  # noqa: S311
    s = sensor_of(**first_reservoir([-1.0 + 0.1 * i for i in range(1 + seed % 12)], 500, 400.0))
    begin(s)
    last = LastEpisodes()
    for number in range(60):
        for _ in range(random.randrange(1, 120)):
            advance(s)
        s.lesson = NOTHING
        if random.random() < 0.5:
            insert_peak(s, random.uniform(-2.0, 0.5))
            last = last.learnt(s.lesson)
        else:
            spend(s, random.choice((0.2, 3.0)) + random.uniform(0.0, 0.5))
            last = last.closed(ClosedEpisode(str(number)), s.lesson)
    return s, last


@pytest.mark.parametrize("seed", range(40))
def test_what_is_taken_back_is_the_episodes_own_and_comes_again(seed: int) -> None:
    s, last = lived(seed)
    assert len(last.episodes) == REMEMBERED
    before = reservoir_of(s)
    for at, one in enumerate(last.episodes):
        known = [*before.peaks, *last.spares]
        after, told = last, before
        after, told = last.judged(at, "real", before)
        there = one.peak in known
        assert sorted([*told.peaks, *after.spares, *([one.peak] if there else [])])[-8:] == sorted(known)[-8:]
        assert (one.aside in before.aside) == (told.aside != before.aside)
        assert told.credit >= before.credit
        again, back = after.judged(at, "false", told)
        assert (back.peaks, back.seen, sorted(back.aside)) == (before.peaks, before.seen, sorted(before.aside))
        assert back.credit == pytest.approx(before.credit)
        assert again.spares == last.spares


@pytest.mark.parametrize("seed", range(40))
def test_all_together_they_leave_what_others_have_taught(seed: int) -> None:
    s, last = lived(seed)
    told, reservoir = last, reservoir_of(s)
    for at in range(REMEMBERED):
        told, reservoir = told.judged(at, "expected", reservoir)
    for one in last.episodes:
        assert one.peak not in [*reservoir.peaks, *told.spares]
        assert one.aside not in reservoir.aside
    assert sorted(reservoir.peaks, reverse=True) == reservoir.peaks


def test_some_of_them_are_kept_aside_and_some_are_learnt() -> None:
    """Else the tests above look at half of it."""
    episodes = [one for seed in range(40) for one in lived(seed)[1].episodes]
    assert any(math.isnan(one.aside) and one.peak > 0 for one in episodes)
    assert any(not math.isnan(one.aside) for one in episodes)
