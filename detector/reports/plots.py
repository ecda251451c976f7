"""One sensor as a picture: values and what was expected, score and threshold, episodes and labels.

SVG drawn by matplotlib. Its colours are CSS variables of the page it is put into (`COLOURS`), so that one picture
serves a light and a dark page; its text takes the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from detector.arrays import F64, I64
from detector.reports.curves import Curve, broken
from detector.reports.joined import Window
from detector.reports.scoreboard import EpisodeSpan, Label
from detector.reports.timeaxis import show_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is drawn in these colours, which nothing else has, is given the page's own instead.
COLOURS: Final = {
    "value": "#010101",
    "expected": "#010102",
    "score": "#010103",
    "judged": "#010104",
    "threshold": "#010105",
    "warning": "#010106",
    "critical": "#010107",
    "label": "#010108",
    "text": "#010109",
    "rule": "#01010a",
    "paper": "#01010b",
}
_C: Final = COLOURS
WIDTH: Final = 10.4
PANEL: Final = 1.55
"""Width of a picture, height of a panel: inches, of 72 units in the SVG."""
SHOWN_CHANNELS: Final = 6
SHADE: Final = 0.22
"""How dense the shade of an episode is."""
_MS: Final = 10**6
_LOWEST_SCORE: Final = 0.05
_LONG_NUMBER: Final = re.compile(r"(\d+\.\d)\d+")


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn of one sensor. `until`: where an episode that is still open ends, ns. `window`: a close-up."""

    curve: Curve
    channels: Sequence[str]
    episodes: Sequence[EpisodeSpan]
    labels: Sequence[Label]
    until: int
    window: Window | None = None


def draw(picture: Picture) -> str:
    """The picture as an SVG element. None of its text came from a stream: the names of sensors are the page's."""
    # Here, because nothing but a report needs it, and it takes half a second.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    channels = list(picture.channels)[:SHOWN_CHANNELS]
    panels = len(channels) + 1
    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "detector", "font.family": "sans-serif", "font.size": 8,
        "text.color": _C["text"], "axes.labelcolor": _C["text"], "xtick.color": _C["text"], "ytick.color": _C["text"],
        "axes.edgecolor": _C["rule"], "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 8, "axes.titlelocation": "left", "axes.titlepad": 4, "axes.linewidth": 0.8,
        "xtick.major.size": 2.5, "ytick.major.size": 2.5, "path.simplify_threshold": 0.4, "timezone": "UTC",
        "axes.unicode_minus": True, "axes.formatter.useoffset": False,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, PANEL * panels + 0.25), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.add_gridspec(panels, 2, width_ratios=(3.6, 1))
        columns = slice(None) if picture.window is None else 0
        axes = _over_time(figure, grid, columns, picture, channels)
        if picture.window is not None:
            _close_up(figure, grid, picture, picture.window, channels)
        figure.align_ylabels(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_a_page(text.getvalue())


def _over_time(figure: Any, grid: Any, columns: Any, picture: Picture, channels: Sequence[str]) -> list[Axes]:
    curve = picture.curve
    times = _dates(curve.times)
    x = broken(times, curve.gaps)
    axes: list[Axes] = []
    for number, channel in enumerate(channels):
        one = figure.add_subplot(grid[number, columns], sharex=axes[0] if axes else None)
        low, high = broken(curve.low[:, number], curve.gaps), broken(curve.high[:, number], curve.gaps)
        one.fill_between(x, low, high, color=_C["value"], alpha=0.45, linewidth=0)
        one.plot(x, (low + high) / 2, color=_C["value"], linewidth=0.9, solid_joinstyle="round")
        known = ~np.isnan(curve.expected[:, number])
        position = np.searchsorted(np.flatnonzero(known), curve.gaps)
        one.plot(
            broken(times[known], position), broken(curve.expected[known, number], position),
            color=_C["expected"], linewidth=0.9,
        )  # fmt: skip
        one.set_title(channel, parse_math=False)
        one.margins(x=0.005, y=0.08)
        _limits_of_values(one, curve, number)
        axes.append(one)
    score = figure.add_subplot(grid[len(channels), columns], sharex=axes[0])
    score.set_yscale("log")
    for column, colour, width in (
        (curve.scores, "score", 0.8),
        (curve.judged, "judged", 1.1),
        (curve.thresholds, "threshold", 1.1),
    ):
        score.plot(x, broken(np.maximum(column, _LOWEST_SCORE), curve.gaps), color=_C[colour], linewidth=width)
    score.set_title("score and threshold")
    score.set_ylim(_LOWEST_SCORE, max(2.0, 1.5 * float(curve.scores.max()), 1.5 * float(curve.thresholds.max())))
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    score.yaxis.set_major_locator(LogLocator(numticks=5))
    score.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    score.yaxis.set_minor_formatter(NullFormatter())
    axes.append(score)
    for one in axes:
        _mark(one, picture, top=one is not score)
        one.grid(True, axis="y", color=_C["rule"], linewidth=0.4, alpha=0.6)
        if one is not score:
            one.tick_params(labelbottom=False)
    show_times(score)
    return axes


def _limits_of_values(one: Axes, curve: Curve, channel: int) -> None:
    """A spike far outside may not flatten everything else: it is cut off where it is 20 times as far as the rest."""
    low, high = curve.low[:, channel], curve.high[:, channel]
    bottom, top = float(np.percentile(low, 1)), float(np.percentile(high, 99))
    room = max(top - bottom, 1e-9)
    least, greatest = max(float(low.min()), bottom - 20 * room), min(float(high.max()), top + 20 * room)
    if least > low.min() or greatest < high.max():
        one.set_ylim(least, greatest)


def _mark(one: Axes, picture: Picture, *, top: bool) -> None:
    """Shade episodes, draw a line where each was noticed, and put labels as bars along the top."""
    for episode in picture.episodes:
        colour = _C[episode.severity if episode.severity in _C else "warning"]
        end = picture.until if episode.ended is None else episode.ended
        one.axvspan(*_dates(np.array([episode.started, max(end, episode.started)])), color=colour, alpha=SHADE, lw=0.8)
        one.axvline(float(_dates(np.array([episode.detected]))[0]), color=colour, linewidth=0.9)
    for label in picture.labels if top else ():
        begin, end = _dates(np.array(label.interval))
        one.axvspan(begin, end, ymin=0.955, ymax=1.0, color=_C["label"], lw=1.2)


def _close_up(figure: Any, grid: Any, picture: Picture, window: Window, channels: Sequence[str]) -> None:
    """The rows around the worst episode that its alerts show, shaded as those over time are."""
    seconds = (np.array(window.timestamps) - window.timestamps[-1]) / 1e3
    spans = [
        (begin, end, _C[one.severity if one.severity in _C else "warning"])
        for one in picture.episodes
        for begin, end in [_seconds_within(one, picture.until, window)]
        if begin <= end
    ]
    unit, size = next(((u, s) for u, s in (("d", 86400), ("h", 3600), ("min", 60)) if -seconds[0] >= 2 * s), ("s", 1))
    for number, channel in enumerate(channels):
        one = figure.add_subplot(grid[:, 1] if len(channels) == 1 else grid[number, 1])
        values, expected = (
            np.array(part if isinstance(part, list) else part[channel], dtype=np.float64)
            for part in (window.values, window.expected)
        )
        one.plot(seconds / size, values, color=_C["value"], linewidth=1.0)
        one.plot(seconds / size, expected, color=_C["expected"], linewidth=1.0)
        for begin, end, colour in spans:
            one.axvspan(begin / size, end / size, color=colour, alpha=SHADE, lw=0.8)
        one.set_title(f"the worst episode, {unit}")
        one.margins(x=0.02, y=0.08)
        one.grid(True, axis="y", color=_C["rule"], linewidth=0.4, alpha=0.6)


def _seconds_within(episode: EpisodeSpan, until: int, window: Window) -> tuple[float, float]:
    """From when to when an episode lies in a window, in seconds from its last row; ending before it begins: nowhere."""
    end = until if episode.ended is None else max(episode.ended, episode.started)
    last = window.timestamps[-1] * _MS
    begin = max(episode.started, window.timestamps[0] * _MS)
    return (begin - last) / 1e9, (min(end, last) - last) / 1e9


def _dates(times: I64) -> F64:
    """What matplotlib takes for dates: days since 1970."""
    return times / 86_400e9


def _for_a_page(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = _LONG_NUMBER.sub(r"\1", svg)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*" (.*?)width="[^"]*"', r"<svg \1\2", svg, count=1)
    svg = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", svg)
