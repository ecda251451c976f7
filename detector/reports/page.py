"""The page of a backtest: one HTML file that needs nothing else, the worst sensors first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from detector import __version__
from detector.reports.backtest import BacktestResult, SensorSum, unwatched_lines, worst_first
from detector.reports.curves import Curves
from detector.reports.joined import Window, joined
from detector.reports.plots import SHOWN_CHANNELS, Picture, draw
from detector.reports.scoreboard import EpisodeSpan, Label, by_kind, of_kind
from detector.reports.text import duration
from detector.times import rfc3339
from detector.wire.alerts import decode_alert

if TYPE_CHECKING:
    from jinja2 import Environment

    from detector.config.load import Config
    from detector.wire.alerts import AlertWindow

PLOTS: Final = 30
"""Sensors drawn; a page with many more takes long to open."""
ROWS: Final = 200
"""Sensors, missed labels and false alarms listed; of the others the number is told."""
SENSOR_ROWS: Final = 12
"""Episodes listed below a picture."""


@dataclass(frozen=True, slots=True)
class About:
    """What the page says of how it came about. `data`: where the readings came from. `settings`: YAML."""

    data: str
    model: str
    channels: Sequence[str]
    settings: str


@dataclass(frozen=True, slots=True)
class _Sensor:
    name: str
    sum: SensorSum | None
    worst: float | None
    missed: int
    svg: str | None

    @property
    def episodes(self) -> list[EpisodeSpan]:
        return self.sum.episodes if self.sum is not None else []

    @property
    def shown(self) -> list[EpisodeSpan]:
        """The worst of them, in order of time."""
        worst = sorted(self.episodes, key=lambda episode: -episode.peak)[:SENSOR_ROWS]
        return sorted(worst, key=lambda episode: episode.detected)

    @property
    def more(self) -> int:
        return len(self.episodes) - len(self.shown)


def page(result: BacktestResult, curves: Curves, about: About) -> str:
    """The page as HTML. Everything that came from a stream or a file is escaped."""
    sums = worst_first(result)
    drawn = _drawn(result, sums, curves, about.channels)
    board = result.board
    return (
        environment()
        .get_template("backtest.html")
        .render(
            result=result,
            about=about,
            version=__version__,
            sums=sums[:ROWS],
            more_sums=max(0, len(sums) - ROWS),
            board=board,
            kinds={} if board is None else by_kind(board),
            delays={} if board is None else {kind: of_kind(board, kind).median_delay for kind in by_kind(board)},
            missed=[] if board is None else board.missed[:ROWS],
            more_missed=0 if board is None else max(0, len(board.missed) - ROWS),
            false_alarms=[] if board is None else board.false_alarms[:ROWS],
            more_false_alarms=0 if board is None else max(0, len(board.false_alarms) - ROWS),
            sensors=drawn,
            undrawn=max(0, result.sensors - len(drawn)),
            unwatched=unwatched_lines(result),
            more_channels=max(0, len(about.channels) - SHOWN_CHANNELS),
            anchors={sensor.name: f"s{number}" for number, sensor in enumerate(drawn)},
        )
    )


def environment() -> Environment:
    """What renders the templates of pages."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("detector.reports", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(time=_time, duration=duration, number=_number)
    return made


def _drawn(result: BacktestResult, sums: list[SensorSum], curves: Curves, channels: Sequence[str]) -> list[_Sensor]:
    """Sensors with episodes, worst first; then those with a label that was missed; then the others by their scores."""
    by_name = {one.sensor_id: one for one in sums}
    worst = curves.worst()
    missed: dict[str, int] = {}
    for label in result.board.missed if result.board is not None else ():
        missed[label.sensor_id] = missed.get(label.sensor_id, 0) + 1
    others = sorted(worst, key=lambda name: (-worst[name], name))
    order = list(dict.fromkeys([*by_name, *(name for name in missed if name in worst), *others]))[:PLOTS]
    windows = _windows(result.alerts, {name: by_name[name].worst for name in order if name in by_name})
    by_label: dict[str, list[Label]] = {}
    for label in result.labels:
        by_label.setdefault(label.sensor_id, []).append(label)
    found = []
    for name in order:
        curve, one = curves.of(name), by_name.get(name)
        episodes = one.episodes if one is not None else []
        svg = None
        if curve is not None:
            until = result.last if result.last is not None else int(curve.times[-1])
            svg = draw(Picture(curve, channels, episodes, by_label.get(name, []), until, windows.get(name)))
        found.append(_Sensor(name, one, worst.get(name), missed.get(name, 0), svg))
    return found


def _windows(alerts: Iterable[bytes], episodes: Mapping[str, EpisodeSpan]) -> dict[str, Window]:
    """The rows that the messages of these episodes show, by sensor."""
    wanted = {episode.alert_id: name for name, episode in episodes.items()}
    shown: dict[str, list[AlertWindow | None]] = {}
    for data in alerts:
        alert = decode_alert(data)
        if alert.alert_id in wanted:
            shown.setdefault(wanted[alert.alert_id], []).append(alert.window)
    return {name: window for name, rows in shown.items() if (window := joined(rows)) is not None}


def settings_text(config: Config) -> str:
    """The settings that results rest on, as YAML. None of them names or holds a secret: those are of connections."""
    import yaml

    settings = config.model_dump(mode="json", by_alias=True, include={"readings", "maintenance"})
    text: str = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    return text


def _time(ns: int | None) -> str:
    """A time to the second, for people."""
    return "-" if ns is None else rfc3339(ns - ns % 10**9).replace("T", " ").replace("Z", "")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
