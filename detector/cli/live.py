"""What the daemon does, on a terminal: how far it is, its rates, open episodes and the newest alerts, in place.

Drawn by a thread of its own from what the main loop puts on the board once a second anyway. Lines of the log appear
above it. Nothing that came from a stream can move the cursor: control characters are shown, not sent.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from detector.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from detector.service.web.status import Board, Status
    from detector.streams.base import Message

EPISODES: Final = 8
ALERTS: Final = 6
"""As many are shown at least, and more where the terminal has the lines."""
KEPT: Final = 200
HEIGHT: Final = 24
FRAMES_PER_SECOND: Final = 4
BAR: Final = 20
"""Cells of the bar; with the rates beside it the line fits into 80 columns."""
WIDTH: Final = 100
"""Of a table, where the terminal has as much."""
TERMINAL: Final = "/dev/tty"
_HEAD: Final = 3
"""Lines above the rows of a table: an empty one, its title, the names of its columns."""


@contextlib.contextmanager
def live_view(board: Board, *, asked: bool, plain: bool, alerts_on_stdout: bool) -> Iterator[None]:
    """Show the board while the block runs, if standard error is a terminal and nothing speaks against it.

    `asked`: on the terminal even if standard error goes elsewhere; UserError if there is none.
    """
    with contextlib.ExitStack() as stack:
        stream = _terminal(stack, asked=asked, plain=plain, alerts_on_stdout=alerts_on_stdout)
        if stream is not None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=stream, highlight=False, markup=False)
            view = View(board, height=lambda: console.height)
            board.hear = view.hear
            stack.callback(lambda: console.print(view.summary()))  # it stays when the view is gone
            redirect = stream is sys.stderr  # lines of the log go above the view
            live = Live(
                get_renderable=view.draw,
                console=console,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=redirect,
            )
            stack.enter_context(live)
        yield


def _terminal(stack: contextlib.ExitStack, *, asked: bool, plain: bool, alerts_on_stdout: bool) -> TextIO | None:
    """Where to draw; None: nowhere."""
    if asked:
        try:
            return stack.enter_context(open(TERMINAL, "w", encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"there is no terminal to draw on: {error.strerror}", where="--live", todo="Leave it out"
            ) from None
    crowded = alerts_on_stdout and sys.stdout.isatty()
    return None if plain or crowded or not sys.stderr.isatty() else sys.stderr


class View:
    """Draws a board. `hear` is told of alerts by the main loop; `draw` runs on another thread.

    `height` is how many lines there are.
    """

    def __init__(
        self, board: Board, clock: Callable[[], float] = time.monotonic, height: Callable[[], int] = lambda: HEIGHT
    ) -> None:
        self._board = board
        self._clock = clock
        self._height = height
        self._began = clock()
        self._lock = threading.Lock()
        self._newest: deque[bytes] = deque(maxlen=KEPT)

    def hear(self, messages: Sequence[Message]) -> None:
        """Keep the newest; they are looked at when they are drawn."""
        if messages:
            with self._lock:
                self._newest.extend(message.value for message in messages[-KEPT:])

    def draw(self) -> RenderableType:
        """The view as it is now."""
        from rich.console import Group
        from rich.constrain import Constrain

        status = self._board.status
        if status is None:
            return _text(f"starting, {self._clock() - self._began:.0f} s", "dim")
        with self._lock:
            newest = list(self._newest)
        parts: list[RenderableType] = [_progress(status), _counts(status)]
        used = len(parts)
        if status.episodes:
            parts += [_text(""), Constrain(_episodes(status), WIDTH)]
            shown = len(status.episodes[:EPISODES])
            used += _HEAD + shown + (status.open_episodes > shown)
        if newest:
            room = max(ALERTS, self._height() - used - _HEAD - 1)
            parts += [_text(""), Constrain(_alerts(list(reversed(newest))[:room]), WIDTH)]
        return Group(*parts)

    def summary(self) -> RenderableType:
        """How much it was, in a line."""
        status = self._board.status
        return _text("nothing was read", "dim") if status is None else _counts(status)


def _progress(status: Status) -> RenderableType:
    done, lag = sum(one.position for one in status.partitions), status.lag
    share = done / (done + lag) if done + lag else 1.0
    filled = round(BAR * share)
    rates = ", ".join(f"{rates[-1]:,.0f} {kind}/s" for kind, rates in status.rates.items() if rates and rates[-1])
    restoring = ", bringing state up to date" if any(one.restoring for one in status.partitions) else ""
    if not status.partitions:
        return _text("waiting for a partition", "yellow")
    unit = f"{lag:,} records" if status.setup.backend == "kafka" else f"{lag / 1e6:,.1f} MB"
    where = f"{unit} behind" if lag else "up to date"
    return _text(f"{'█' * filled}{'░' * (BAR - filled)} {share:4.0%}  {where}  {rates or '0/s'}{restoring}", "cyan")


def _counts(status: Status) -> RenderableType:
    from detector.errors import counted
    from detector.reports.text import duration

    inputs = ", ".join(f"{count:,} {kind}" for kind, count in status.inputs.items() if count) or "no readings yet"
    warming = f" ({status.warming:,} warming up)" if status.warming else ""
    ran = duration(max(0.0, status.at - status.started) * 1e9)
    return _text(
        f"{inputs}, {counted(status.sensors, 'sensor')}{warming}, {counted(status.open_episodes, 'open episode')}, "
        f"{counted(status.alerts, 'alert')}, {ran}"
    )


def _episodes(status: Status) -> RenderableType:
    from detector.reports.text import moment

    table = _table("open episodes", ("severity", "since"), ("peak", "score", "threshold"))
    for one in status.episodes[:EPISODES]:
        episode = one.view.episode
        if episode is not None:
            table.add_row(
                _clean(one.view.sensor_id), _severity(episode.severity, episode.reason, muted=episode.muted),
                moment(episode.started_at), f"{episode.peak:.3g}",
                f"{one.view.score:.3g}", f"{episode.threshold:.3g}",
            )  # fmt: skip
    more = status.open_episodes - len(status.episodes[:EPISODES])
    if more > 0:
        table.add_row(f"and {more:,} more")
    return table


def _alerts(newest: Sequence[bytes]) -> RenderableType:
    from detector.reports.text import moment
    from detector.times import MILLISECOND, parse_time
    from detector.wire.alerts import decode_alert

    table = _table("newest alerts", ("event", "severity", "at"), ("peak", "threshold"))
    for alert in map(decode_alert, newest):
        at = parse_time(alert.ended_at or alert.detected_at)
        if alert.event == "updated" and alert.window is not None and alert.window.timestamps:
            at = alert.window.timestamps[-1] * MILLISECOND
        table.add_row(
            _clean(alert.sensor_id), _text(alert.event, "green" if alert.event == "closed" else ""),
            _severity(alert.severity, alert.reason, muted=alert.muted), moment(at),
            f"{alert.peak_score:.3g}", f"{alert.threshold:.3g}",
        )  # fmt: skip
    return table


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table of sensors, whose names give way where there is no room; then columns of text, then of numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, expand=True)
    table.add_column("sensor", no_wrap=True, overflow="ellipsis", ratio=1)
    for column in left:
        table.add_column(column, no_wrap=True)
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _severity(severity: str, reason: str, *, muted: bool) -> RenderableType:
    told = f"{severity}{', silent' * (reason == 'silent')}{', muted' * muted}"
    return _text(told, "dim" if muted else _colour(severity))


def _colour(severity: str) -> str:
    return "red" if severity == "critical" else "yellow"


def _text(text: str, style: str = "") -> RenderableType:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
