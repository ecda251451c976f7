"""What systemd is told, and that nothing happens without it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.service.systemd import Notifier


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def test_states_arrive(supervisor: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": supervisor.getsockname(), "WATCHDOG_USEC": "30000000"})
    notifier.ready("reading")
    notifier.status("catching up")
    notifier.alive()
    notifier.stopping()
    assert [supervisor.recv(100) for _ in range(4)] == [
        b"READY=1\nSTATUS=reading",
        b"STATUS=catching up",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=",
    ]


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses a free abstract name
        listening.settimeout(5)
        name = listening.getsockname()
        Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).ready()
        assert listening.recv(100).startswith(b"READY=1")


def test_nothing_happens_without_systemd() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.stopping()
    notifier.alive()
    assert notifier.watchdog_interval is None


def test_a_supervisor_that_went_away_is_no_error(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "42"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit_and_only_when_it_means_us(
    environ: dict[str, str], interval: float | None
) -> None:
    assert Notifier(environ, pid=42).watchdog_interval == interval


def test_no_watchdog_is_not_fed(supervisor: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": supervisor.getsockname()})
    notifier.alive()
    notifier.status("last")
    assert supervisor.recv(100) == b"STATUS=last"
