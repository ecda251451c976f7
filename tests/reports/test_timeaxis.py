"""Dates below a plot, over any span."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from detector.reports.timeaxis import show_times

MINUTE = 1 / (24 * 60)


@pytest.mark.parametrize("days", [MINUTE * 1.2**step for step in range(90)])
def test_every_span_has_its_ticks(days: float) -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    start = float(date2num(20_000))  # type: ignore[no-untyped-call]
    axes.plot([start, start + days], [0.0, 1.0])
    show_times(axes)
    figure.canvas.draw()
    assert 2 <= len([label for label in axes.get_xticklabels() if label.get_text()]) <= 12
