"""The picture of a sensor in a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from detector.reports.curves import Curve
from detector.reports.joined import Window
from detector.reports.plots import Picture, draw
from detector.reports.scoreboard import EpisodeSpan

SECOND = 10**9
START = 1_790_000_000


def episode(started: int, ended: int | None, severity: str = "warning") -> EpisodeSpan:
    end = None if ended is None else (START + ended) * SECOND
    return EpisodeSpan("pump", (START + started) * SECOND, (START + started + 9) * SECOND, end, severity, 2.0, None)


@pytest.mark.parametrize(
    ("one", "expected"),
    [(episode(340, 360), (-59, -39)), (episode(250, 420), (-99, 0)), (episode(380, None), (-19, 0))],
    ids=["within", "beyond", "open"],
)
def test_the_close_up_shades_the_episode_from_its_onset_to_its_end(
    one: EpisodeSpan, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shaded: list[tuple[int, int]] = []

    def noted(_: Axes, begin: float, end: float, **__: Any) -> None:
        if begin <= 0:  # over time it is days since 1970
            shaded.append((round(begin), round(end)))

    monkeypatch.setattr(Axes, "axvspan", noted)
    times = (START + np.arange(500)) * SECOND
    flat = np.ones((500, 1))
    curve = Curve(times, flat, flat, flat, flat[:, 0], flat[:, 0], flat[:, 0], np.empty(0, dtype=np.intp))
    rows: list[float | None] = [1.0] * 100
    window = Window([1000 * (START + second) for second in range(300, 400)], rows, rows, rows)
    far = episode(10, 30, "critical")
    draw(Picture(curve, ("value",), [far, one], [], (START + 500) * SECOND, window))
    assert shaded == [expected]
