"""The sentences of alerts: one for each kind, in the sensor's own unit."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from detector.detection.faultkind import Kind
from detector.detection.finding import Finding
from detector.detection.opened import Episode
from detector.engine.wording import clock, image, in_words, lasting, number, silent_for
from tests.plant import SECOND

BEGAN = 1_772_323_200 * SECOND + 2 * 60 * SECOND
"""Two past midnight."""
SCALE, CENTER = np.array([2.0, 0.5]), np.array([70.0, 3.0])


def episode(until: int | None = None) -> Episode:
    return Episode(
        alert_id="a", sequence=0, started_at=BEGAN, detected_at=BEGAN + 90 * SECOND, ln_threshold=0.0,
        severity="warning", opened_offset=0, update_at=None, close_at=None, muted=False, until=until, finding=None,
    )  # fmt: skip


def finding(kind: Kind, channel: int = 0) -> Finding:
    return Finding(BEGAN, 1.0, 0, 10, [1.0, 1.0], [1.0, 0.0], channel, kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind("stuck", row=3, level=1.6), "stuck at 73.2 for 1.5 min, since 00:02:00"),
        (Kind("level-shift", size=4.05), "8.1 above its usual level since 00:02:00"),
        (Kind("level-shift", size=-4.05), "8.1 below its usual level since 00:02:00"),
        (Kind("spike", size=-20), "a spike at 00:02:00: 40 below what was to be expected"),
        (Kind("drift", size=1.5), "drifting: by now 3 above its usual level"),
        (Kind("noise", size=2.62), "2.62 times as noisy as usual since 00:02:00"),
        (Kind("noise", size=0.1), "quieter than usual since 00:02:00"),
        (Kind("oscillation", size=2.6, period=9), "swings 2.6 times as wide as usual since 00:02:00"),
        (Kind("oscillation", size=1, period=9), "swings once in 9 readings, which is unusual since 00:02:00"),
        (
            Kind("oscillation", size=1, period=9, usual_period=23),
            "swings once in 9 readings, usually once in 23 since 00:02:00",
        ),
        (Kind("oscillation", size=1, usual_period=23), "no longer swings once in 23 readings since 00:02:00"),
        (
            Kind("context", row=3, level=-34.5, size=-20.0, hour=10, weekday=0),
            "idle at 1, where on a Monday at 10:00 it usually runs at 41",
        ),
        (
            Kind("context", row=3, level=-14.5, size=20.0, hour=3, weekday=6),
            "runs at 41, where on a Sunday at 03:00 it usually is idle at 1",
        ),
        (
            Kind("context", row=3, level=1.5, size=-5.0, hour=14),
            "at 73, where at 14:00 it usually is at 83",
        ),
        (Kind("unusual"), "unlike anything in training since 00:02:00"),
    ],
)
def test_every_kind_has_its_sentence(kind: Kind, text: str) -> None:
    said = in_words(finding(kind), episode(), SCALE[:1], CENTER[:1], ("value",))
    assert (said.kind, said.text) == (kind.name, text)


def test_a_value_was_stuck_until_it_moved() -> None:
    stuck = finding(Kind("stuck", row=3, level=1.6))
    over = in_words(stuck, episode(until=BEGAN + 14 * 60 * SECOND), SCALE[:1], CENTER[:1], ("value",))
    assert over.text == "stuck at 73.2 for 14 min, since 00:02:00"


def test_of_several_channels_the_one_at_fault_is_named_with_its_own_unit() -> None:
    names = ("pressure", "flow")
    shifted = in_words(finding(Kind("level-shift", size=4.0), 1), episode(), SCALE, CENTER, names)
    assert shifted.text == "flow: 2 above its usual level since 00:02:00"
    apart = in_words(finding(Kind("relation", partner=0), 1), episode(), SCALE, CENTER, names)
    assert apart.text == "flow no longer follows pressure since 00:02:00"


def test_a_silence_lasts_or_is_over() -> None:
    now = BEGAN + 3 * 3600 * SECOND
    assert silent_for(BEGAN, now, ended=True) == "no reading for 3 h, since 00:02:00"
    assert silent_for(BEGAN, now, ended=False) == "no reading since 00:02:00, while other sensors have some"


@pytest.mark.parametrize(
    ("region", "where"),
    [
        ((0, 0, 4, 4), "most of all at the upper left"),
        ((24, 24, 4, 4), "most of all at the lower right"),
        ((12, 12, 4, 4), "most of all in the middle"),
        ((0, 12, 4, 4), "most of all in the left part"),
        ((12, 0, 4, 4), "most of all in the upper part"),
        ((0, 0, 28, 28), "all over"),
    ],
)
def test_a_picture_says_where(region: tuple[int, int, int, int], where: str) -> None:
    assert image(region, (28, 28)).endswith(where)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.012345, "0.0123"), (8.1, "8.1"), (999.6, "1000"), (1000.4, "1000"), (-2.0, "-2")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (45, "45 s"), (90, "1.5 min"), (840, "14 min"), (12_600, "3.5 h"), (172_800, "2 d")],
)
def test_lengths_of_time_have_one_unit(seconds: float, text: str) -> None:
    assert lasting(int(seconds * SECOND)) == text


def test_the_time_of_the_day_has_no_fraction() -> None:
    assert clock(BEGAN + SECOND // 2) == "00:02:00"


def test_the_same_is_said_whatever_the_rest_of_the_episode() -> None:
    kind = finding(Kind("level-shift", size=4.05))
    one = in_words(kind, episode(), SCALE[:1], CENTER[:1], ("value",))
    other = in_words(kind, replace(episode(), sequence=7, severity="critical"), SCALE[:1], CENTER[:1], ("value",))
    assert one == other
