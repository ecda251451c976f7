"""One alert as a picture: what was seen, what was expected, where they differ, and the score against its threshold."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from detector.arrays import F32, F64
from detector.reports.joined import Window, joined, newest
from detector.reports.timeaxis import show_times
from detector.times import parse_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Save = Callable[[], bytes]

SEEN, EXPECTED, ERROR, QUIET = "#1f4e79", "#d9822b", "#7a3e9d", "#6b7280"
SEVERITY: Final = {"warning": "#c77700", "critical": "#c02626"}
SHOWN_CHANNELS: Final = 6
DPI: Final = 130
LOWEST_SCORE: Final = 0.05
"""Lower ones are drawn here: far below any threshold."""
WINDOW: Final = 100
"""Rows of the window that is judged."""
_SECOND: Final = 10**9
_MILLISECOND: Final = 10**6


class What(msgspec.Struct):
    """What seems to be wrong."""

    kind: str
    text: str


class Model(msgspec.Struct):
    """The model that scored."""

    name: str
    version: str


class Source(msgspec.Struct):
    """Where the record that caused the message is found."""

    stream: str
    partition: int
    last_offset: int


class ShownAlert(msgspec.Struct, kw_only=True):
    """The part of an alert message that is drawn; what other versions add to one is ignored."""

    alert_id: str
    sequence: int
    event: str
    kind: str
    reason: str
    close_reason: str | None = None
    muted: bool = False
    sensor_id: str
    severity: str
    started_at: str
    detected_at: str
    ended_at: str | None = None
    score: float
    peak_score: float
    threshold: float
    window: Window | None = None
    heatmap: str | None = None
    frame: dict[str, float] = {}
    channels: dict[str, float] = {}
    what: What | None = None
    region: tuple[int, int, int, int] | None = None
    model: Model
    source: Source


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is to be seen of a frame's alert, each as (h, w) in [0, 1]; None where it is not to be had.

    `missing` says why something is.
    """

    heat: F32
    frame: F32 | None = None
    reconstruction: F32 | None = None
    missing: str = ""


def draw_readings(messages: Sequence[ShownAlert], shown: ShownAlert, *, whole: bool) -> bytes:
    """The PNG of one message about readings: values, expected, errors; the scores of all `messages` of the episode.

    `whole`: the rows of all messages, else the last `WINDOW` up to the one shown. Raises ValueError where there are
    none.
    """
    until = len(messages) if whole else list(messages).index(shown) + 1
    window = joined(message.window for message in messages[:until])
    if window is None:
        raise ValueError("the messages have no window")
    window = window if whole else newest(window, WINDOW)
    channels = list(_by_channel(window.values))[:SHOWN_CHANNELS]
    heights = [1.5] * len(channels) + [0.9, 1.2]
    times = np.array(window.timestamps, dtype=np.int64) / 86_400e3
    with _figure(10, sum(heights) + 1.1) as (figure, save):
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        axes: list[Axes] = []
        for number, channel in enumerate(channels):
            one = figure.add_subplot(grid[number], sharex=axes[0] if axes else None)
            values = _numbers(_by_channel(window.values)[channel])
            one.plot(times, values, color=SEEN, linewidth=1.3, label="value")
            one.plot(times, _numbers(_by_channel(window.expected)[channel]), color=EXPECTED, lw=1.3, label="expected")
            imputed = np.array(window.imputed or [False] * len(times))
            if imputed.any():
                one.plot(times[imputed], values[imputed], "o", mfc="white", color=SEEN, ms=3.5, label="filled in")
            share = f", {100 * shown.channels[channel]:.0f} % of what is unusual" if channel in shown.channels else ""
            one.set_title(f"{channel}{share}" if len(shown.channels) > 1 else channel, parse_math=False)
            axes.append(one)
        axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, frameon=False, borderpad=0)
        error = figure.add_subplot(grid[len(channels)], sharex=axes[0])
        for channel in channels:
            line = error.fill_between if len(channels) == 1 else error.plot
            errors = _numbers(_by_channel(window.errors)[channel])
            line(times, errors, **({"color": ERROR, "alpha": 0.75, "lw": 0} if len(channels) == 1 else {"lw": 1.1}))
        if len(channels) > 1:
            place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98)}
            named = error.legend(error.lines, channels, **place, ncols=4, frameon=False, borderpad=0)
            for text in named.get_texts():
                text.set_parse_math(False)
        error.set_title("squared error, scaled units")
        error.set_ylim(bottom=0)
        axes.append(error)
        for one in axes:
            _shade(one, shown, float(times[0]), float(times[-1]))
            one.margins(x=0.01)
            one.grid(True, axis="y", lw=0.4, alpha=0.6)
            one.tick_params(labelbottom=one is error)
        show_times(error)
        _scores(figure.add_subplot(grid[-1]), messages, shown)
        _head(figure, shown)
        figure.align_ylabels()
        return save()


def draw_frame(messages: Sequence[ShownAlert], shown: ShownAlert, pictures: Pictures) -> bytes:
    """The PNG of one message about a frame: the frame, its reconstruction, where they differ, and the scores."""
    with _figure(10, 5.6) as (figure, save):
        grid = figure.add_gridspec(2, 3, height_ratios=(3.4, 1.0))
        panels: list[tuple[str, F32 | None]] = [
            ("frame", pictures.frame),
            ("what the model makes of it", pictures.reconstruction),
        ]
        for column, (title, picture) in enumerate(panels):
            one = figure.add_subplot(grid[0, column])
            one.set_title(title)
            if picture is None:
                one.text(0.5, 0.5, "not at hand", ha="center", va="center", color=QUIET, transform=one.transAxes)
                one.set_facecolor("#f3f4f6")
                one.set_aspect("equal")
            else:
                one.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            _bare(one)
        one = figure.add_subplot(grid[0, 2])
        one.set_title("where it is unusual")
        extent: Any = None
        if pictures.frame is not None:
            h, w = pictures.frame.shape
            extent = (-0.5, w - 0.5, h - 0.5, -0.5)
            one.imshow(pictures.frame, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        heat = pictures.heat / max(float(pictures.heat.max()), 1 / 255)
        shade = np.clip(0.25 + heat * 1.2, 0, 0.85) if pictures.frame is not None else None
        one.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=shade, extent=extent, interpolation="bilinear")
        if shown.region is not None and pictures.frame is not None:
            _box(one, shown.region)
        _bare(one)
        _scores(figure.add_subplot(grid[1, :]), messages, shown)
        _head(figure, shown)
        if pictures.missing:
            figure.supxlabel(pictures.missing, fontsize=7.5, color=QUIET, parse_math=False)
        return save()


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Save]]:
    # Here, because nothing but this needs it, and it takes half a second.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.family": "sans-serif", "font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False,
        "axes.titlesize": 9, "axes.titlelocation": "left", "axes.edgecolor": "#9ca3af", "axes.linewidth": 0.8,
        "xtick.major.size": 2.5, "ytick.major.size": 2.5, "timezone": "UTC", "axes.formatter.useoffset": False,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)

        def save() -> bytes:
            out = io.BytesIO()
            figure.savefig(out, format="png", metadata={"Software": None})
            return out.getvalue()

        yield figure, save


def _head(figure: Figure, shown: ShownAlert) -> None:
    """Two lines: which sensor and how bad; when, and by which model."""
    ended = f", ended {_short(shown.ended_at)}" if shown.ended_at else ""
    closed = f" ({shown.close_reason})" if shown.close_reason else ""
    first = f"{shown.sensor_id}: {shown.severity}, {shown.event}{closed}{', muted' * shown.muted}"
    told = f"{shown.what.text}   ·   " if shown.what else ""
    times = f"began {_short(shown.started_at)}, detected {_short(shown.detected_at)}{ended}"
    second = f"{told}{times}   ·   {shown.model.version}"
    figure.suptitle(
        f"{first}\n", x=0.012, ha="left", fontsize=12, fontweight="bold", color=SEVERITY.get(shown.severity, SEEN),
        parse_math=False,
    )  # fmt: skip
    top = 1 - 0.34 / figure.get_figheight()
    figure.text(0.012, top, second, ha="left", va="top", fontsize=8.5, color=QUIET, parse_math=False)


def _scores(one: Axes, messages: Sequence[ShownAlert], shown: ShownAlert) -> None:
    """Newest score, peak and threshold of every message of the episode, on a logarithmic scale."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    steps = np.arange(len(messages))
    one.set_yscale("log")
    one.plot(steps, [_above_zero(m.peak_score) for m in messages], "-", color=QUIET, lw=1, label="peak")
    one.plot(steps, [_above_zero(m.score) for m in messages], "o-", color=SEEN, lw=1.2, ms=4, label="score")
    one.axhline(shown.threshold, color=SEVERITY["critical"], lw=1.2, label="threshold")
    at = list(messages).index(shown)
    one.plot([at], [_above_zero(shown.score)], "o", ms=9, mfc="none", color=SEVERITY.get(shown.severity, SEEN))
    names = [m.event for m in messages]
    crowded = len(messages) > 12
    labels = [name if not crowded or name != "updated" else "" for name in names]
    one.set_xticks(steps, labels)
    one.set_xlim(-0.5, max(len(messages) - 0.5, 0.5))
    low = min([shown.threshold, *(_above_zero(m.score) for m in messages)])
    high = max([shown.threshold, *(_above_zero(m.peak_score) for m in messages)])
    one.set_ylim(low / 1.6, high * 1.8)
    one.yaxis.set_major_locator(LogLocator(numticks=4))
    one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    one.yaxis.set_minor_formatter(NullFormatter())
    one.tick_params(which="minor", left=False)
    one.grid(True, axis="y", lw=0.4, alpha=0.6)
    one.set_title(
        f"score {shown.score:.3g}, peak {shown.peak_score:.3g}, threshold {shown.threshold:.3g} "
        "(1: as bad as the worst of training); messages of this alert"
    )
    one.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _shade(one: Axes, shown: ShownAlert, first: float, last: float) -> None:
    """Where the anomaly is taken to have begun and ended, and a line where it was noticed."""
    colour = SEVERITY.get(shown.severity, SEEN)
    begin, detected = _days(shown.started_at), _days(shown.detected_at)
    end = _days(shown.ended_at) if shown.ended_at else last
    begin, end = max(begin, first), min(end, last)
    if begin <= end:
        one.axvspan(begin, end, color=colour, alpha=0.12, lw=0)
    if first <= detected <= last:
        one.axvline(detected, color=colour, lw=1)


def _box(one: Axes, region: tuple[int, int, int, int]) -> None:
    """A frame around what is unusual: x, y, width and height in pixels."""
    x, y, width, height = region
    left, right, top, bottom = x - 0.5, x + width - 0.5, y - 0.5, y + height - 0.5
    one.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="white", lw=1.2)


def _bare(one: Axes) -> None:
    one.set_xticks([])
    one.set_yticks([])
    for spine in one.spines.values():
        spine.set_visible(True)


def _by_channel(part: list[float | None] | Mapping[str, list[float | None]]) -> Mapping[str, list[float | None]]:
    return {"value": part} if isinstance(part, list) else part


def _numbers(column: Sequence[float | None]) -> F64:
    return np.array([math.nan if number is None else number for number in column], dtype=np.float64)


def _days(time: str) -> float:
    """What matplotlib takes for a date: days since 1970."""
    return parse_time(time) / (86_400 * _SECOND)


def _short(time: str) -> str:
    return time.replace("T", " ").removesuffix("Z")


def _above_zero(score: float) -> float:
    return max(score, LOWEST_SCORE)
