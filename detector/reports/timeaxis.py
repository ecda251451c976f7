"""The time axis of every plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def show_times(axes: Axes) -> None:
    """Put dates and times below the axes, however long a span they show.

    With matplotlib's own least number of ticks there are spans, some five hours or days, for which it finds no interval
    that leaves few enough, and warns.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
