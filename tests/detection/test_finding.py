"""What is held of a fault from one look to the next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest

from detector.arrays import F64
from detector.detection.finding import LOOK, Finding, Window, first_look, next_look, until
from detector.detection.signals import WINDOW, standardise
from tests import plant
from tests.plant import SECOND

BEGIN, DETECTED = 3000, 3009


class Looks:
    """Looks at a sensor that swings slowly and has a fault from the row `BEGIN` on, which is noticed at `DETECTED`."""

    def __init__(self, fault: Callable[[F64], None]) -> None:
        """`fault` has the values from `BEGIN` on."""
        rows, rng = np.arange(BEGIN + 200), np.random.default_rng(2)
        values = 50 + 8 * np.sin(rows / 40) + rng.normal(0, 0.6, len(rows))
        self.profile = plant.profile_of(values[:2500, None], plant.reconstructor())
        fault(values[BEGIN:])
        self._times, self._z = rows * SECOND, standardise(values[:, None], self.profile.center, self.profile.scale)

    def window(self, newest: int) -> Window:
        part = slice(newest + 1 - WINDOW, newest + 1)
        errors = np.ones((WINDOW, 1))
        profile = self.profile
        return Window(self._times[part], self._z[part], errors, profile.ridge.astype(np.float64), profile.bias)

    def said(self) -> list[Finding]:
        def look(before: Finding, newest: int) -> Finding:
            return next_look(before, self.window(newest), DETECTED * SECOND)

        first = first_look(self.window(DETECTED), 0, 10)
        return list(accumulate(range(DETECTED + LOOK // 2, DETECTED + WINDOW, LOOK // 2), look, initial=first))


def test_a_step_that_ends_is_no_step_the_other_way() -> None:
    """The way back moves as much, and is seen in more rows."""

    def shift(values: F64) -> None:
        values[:60] += 9

    looks = Looks(shift)
    said = looks.said()
    assert {one.kind.name for one in said} == {"level-shift"}
    sizes = [one.kind.size * looks.profile.scale[0] for one in said]
    assert min(sizes) > 7
    assert max(sizes) < 11


@pytest.mark.parametrize("rows", [20, 30, 45])
def test_a_step_that_was_taken_back_ended_with_its_last_row(rows: int) -> None:
    """Whatever the autoencoder makes of the windows that hold rows of it."""

    def shift(values: F64) -> None:
        values[:rows] -= 9

    looks = Looks(shift)
    said = looks.said()
    assert {one.kind.name for one in said} == {"level-shift"}
    last = (BEGIN + rows - 1) * SECOND
    assert said[0].over is None
    assert said[-1].over == pytest.approx(last, abs=SECOND)
    assert until(said[-1], looks.window(DETECTED + WINDOW)) == said[-1].over


def test_a_step_that_comes_again_is_not_over() -> None:
    def shift(values: F64) -> None:
        values[:25] -= 9
        values[60:] -= 9

    said = Looks(shift).said()
    assert any(one.over is not None for one in said)
    assert said[-1].over is None


def test_what_comes_while_the_episode_is_open_has_not_opened_it() -> None:
    """A step, and when that is over the sensor sticks for longer: the fault began with the step."""

    def both(values: F64) -> None:
        values[:25] += 9
        values[25:] = values[25]

    said = Looks(both).said()
    assert {one.kind.name for one in said} == {"level-shift"}
    assert all(one.onset <= DETECTED * SECOND for one in said)


@pytest.mark.parametrize(("level", "kind"), [(50.0, "stuck"), (80.0, "level-shift")])
def test_a_sensor_sticks_where_it_may_be_and_is_switched_off_elsewhere(level: float, kind: str) -> None:
    """Whether or not it jumped there."""

    def stick(values: F64) -> None:
        values[:] = level

    said = Looks(stick).said()
    assert {one.kind.name for one in said} == {kind}
    assert said[-1].onset == pytest.approx(BEGIN * SECOND, abs=SECOND)
