"""What is held of a fault from one look to the next."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from detector.detection.finding import LOOK, Finding, Window, first_look, next_look
from detector.detection.signals import WINDOW, standardise
from tests import plant
from tests.plant import SECOND

BEGIN, LAST, DETECTED = 3000, 60, 3009


def test_a_step_that_ends_is_no_step_the_other_way() -> None:
    """A slow swing, on it a step up for an hour: the way back moves as much, and is seen in more rows."""
    rows, rng = np.arange(BEGIN + 200), np.random.default_rng(2)
    values = (50 + 8 * np.sin(rows / 40) + rng.normal(0, 0.6, len(rows)))[:, None]
    profile = plant.profile_of(values[:2500], plant.reconstructor())
    values[BEGIN : BEGIN + LAST] += 9
    z = standardise(values, profile.center, profile.scale)

    def window(newest: int) -> Window:
        part = slice(newest + 1 - WINDOW, newest + 1)
        errors = np.ones((WINDOW, 1))
        return Window(rows[part] * SECOND, z[part], errors, profile.ridge.astype(np.float64), profile.bias)

    def look(before: Finding, newest: int) -> Finding:
        return next_look(before, window(newest), DETECTED * SECOND)

    first = first_look(window(DETECTED), 0, 10)
    said = list(accumulate(range(DETECTED + LOOK // 2, DETECTED + WINDOW, LOOK // 2), look, initial=first))
    assert {one.kind.name for one in said} == {"level-shift"}
    sizes = [one.kind.size * profile.scale[0] for one in said]
    assert min(sizes) > 7
    assert max(sizes) < 11
