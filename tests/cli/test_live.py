"""The live view: what it says, and where it is not drawn."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from detector.cli import live
from detector.cli.live import View, live_view
from detector.engine.overview import EpisodeView, SensorView
from detector.errors import UserError
from detector.service.web.status import Board, PartitionStatus, Sensor, Setup, Status
from detector.streams.base import Message, Partition
from detector.wire.alerts import encode_alert
from tests.reports.made import NOON, SECOND, alert, at

PARTITION = Partition("sensor-readings", 0)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def status(**changes: Any) -> Status:
    settings: dict[str, Any] = {
        "at": 90.0,
        "started": 0.0,
        "setup": Setup(backend="kafka"),
        "partitions": (PartitionStatus("sensor-readings", 0, "readings", 750, 250, 12, 2, 1, NOON, False),),
        "inputs": {"readings": 75_000, "frames": 0},
        "rates": {"readings": (1.0, 1234.4), "frames": (0.0,)},
        "alerts": 7,
        **changes,
    }
    return Status(**settings)


def sensor(name: str) -> Sensor:
    episode = EpisodeView("a", "critical", NOON, NOON + SECOND, 1.25, 9.5)
    empty = np.empty(0, dtype=np.int64)
    return Sensor("readings", PARTITION, SensorView(name, 3.5, 1.5, empty, np.empty((0, 1)), None, episode))


def drawn(view: View, width: int = 110) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, markup=False, highlight=False).print(view.draw())
    return [line.rstrip() for line in text.getvalue().splitlines()]


def view_of(now: Status | None) -> View:
    board = Board()
    board.status = now
    return View(board, clock=lambda: 0.0)


def test_how_far_it_is_and_how_fast() -> None:
    bar, counts = drawn(view_of(status()))
    assert bar == f"{'█' * 15}{'░' * 5}  75%  250 records behind  1,234 readings/s"
    assert counts == "75,000 readings, 12 sensors (2 warming up), 1 open episode, 7 alerts, 1.5 min"


def test_at_the_end_it_is_up_to_date() -> None:
    done = PartitionStatus("sensor-readings", 0, "readings", 10, 0, 1, 0, 0, NOON, False)
    bar, _ = drawn(view_of(status(partitions=(done,), rates={})))
    assert bar == f"{'█' * 20} 100%  up to date  0/s"


@pytest.mark.parametrize(("now", "line"), [(None, "starting, 0 s"), (status(partitions=()), "waiting for a partition")])
def test_before_there_is_anything(now: Status | None, line: str) -> None:
    assert drawn(view_of(now))[0] == line


def test_open_episodes_and_the_newest_alerts() -> None:
    episodes = tuple(sensor(f"pump-{number}") for number in range(live.EPISODES + 3))
    view = view_of(status(episodes=episodes))
    view.hear([])
    for number in range(live.ALERTS + 2):
        view.hear([Message("alerts", b"", encode_alert(alert(sensor_id=f"valve-{number}")))])
    lines = drawn(view)
    assert lines[4].split() == ["sensor", "severity", "since", "peak", "score", "threshold"]
    assert lines[5].split() == ["pump-0", "critical", "2026-09-21T14:13:20Z", "9.5", "3.5", "1.25"]
    head, *newest = [line.split() for line in lines[lines.index("newest alerts") + 1 :]]
    assert head == ["sensor", "event", "severity", "at", "peak", "threshold"]
    assert newest[0] == [f"valve-{live.ALERTS + 1}", "opened", "warning", at(10), "2.5", "1.25"]
    assert [words[0] for words in newest] == [f"valve-{n}" for n in range(live.ALERTS + 1, 0, -1)]  # lines of 24


@pytest.mark.parametrize(("height", "shown"), [(10, live.ALERTS), (40, 34), (1000, live.KEPT)])
def test_as_many_alerts_as_there_are_lines_for(height: int, shown: int) -> None:
    board = Board()
    board.status = status(partitions=())
    view = View(board, lambda: 0.0, lambda: height)
    for number in range(live.KEPT + 10):
        view.hear([Message("alerts", b"", encode_alert(alert(sensor_id=f"valve-{number}")))])
    lines = drawn(view)
    newest = lines[lines.index("newest alerts") + 2 :]
    assert len(newest) == shown
    assert height < 20 or len(lines) <= height - 1
    assert newest[0].startswith(f"valve-{live.KEPT + 9}")


def test_eighty_columns_are_enough() -> None:
    busy = status(
        episodes=(sensor("a/very/long/name/of/a/pump" * 3),),
        rates={"readings": (36_090.0,), "frames": (593.4,)},
        partitions=(PartitionStatus("sensor-readings", 0, "readings", 1, 3_600_000, 12, 2, 1, NOON, False),),
        setup=Setup(backend="directory"),
    )
    view = view_of(busy)
    view.hear([Message("alerts", b"", encode_alert(alert(sensor_id="a/very/long/name/of/a/valve" * 3, muted=True)))])
    lines = drawn(view, width=80)
    assert lines[0].endswith("36,090 readings/s, 593 frames/s")
    assert lines[5].split()[1:] == ["critical", "2026-09-21T14:13:20Z", "9.5", "3.5", "1.25"]
    assert lines[-1].split()[1:] == ["opened", "warning,", "muted", at(10), "2.5", "1.25"]


def test_a_sensor_cannot_move_the_cursor() -> None:
    view = view_of(status(episodes=(sensor("a\x9b2Jb[red]"),)))
    view.hear([Message("alerts", b"", encode_alert(alert(sensor_id="c\x1b[2J")))])
    text = "\n".join(drawn(view))
    assert "\x9b" not in text
    assert "\x1b" not in text
    assert "a\\x9b2Jb[red]" in text
    assert "c\\x1b[2J" in text


def test_on_a_terminal_it_is_drawn_and_lines_of_the_log_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    board = Board()
    board.status = status()
    with live_view(board, asked=False, plain=False, alerts_on_stdout=False):
        assert sys.stderr is not terminal
        sys.stderr.write("a line of the log\n")
        sys.stderr.flush()
    assert sys.stderr is terminal
    text = terminal.getvalue()
    assert "a line of the log" in text
    assert "250 records behind" in text
    assert text.rstrip().endswith("75,000 readings, 12 sensors (2 warming up), 1 open episode, 7 alerts, 1.5 min")


@pytest.mark.parametrize(
    ("terminal", "plain", "alerts_on_stdout"), [(False, False, False), (True, True, False), (True, False, True)]
)
def test_elsewhere_nothing_is_drawn(
    terminal: bool, plain: bool, alerts_on_stdout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    board = Board()
    before = board.hear
    with live_view(board, asked=False, plain=plain, alerts_on_stdout=alerts_on_stdout):
        assert sys.stderr is stream
        assert board.hear is before
    assert stream.getvalue() == ""


def test_asked_for_without_a_terminal_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TERMINAL", "/nowhere/tty")
    expected = "there is no terminal to draw on: No such file"
    with pytest.raises(UserError, match=expected), live_view(Board(), asked=True, plain=False, alerts_on_stdout=False):
        pass
