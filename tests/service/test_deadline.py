"""The watch over a stop: it ends what takes too long, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading

from detector.service.deadline import ShutdownDeadline

SOON = 20.0
"""Seconds, many more than anything here takes."""


class Expiry:
    """Takes the place of the end of the process."""

    def __init__(self) -> None:
        self.happened = threading.Event()
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.happened.set()


def watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shutdown-deadline"]


def ended() -> None:
    """All watches have come to their end."""
    for thread in watches():
        thread.join(SOON)
    assert watches() == []


def test_a_stop_that_takes_too_long_expires() -> None:
    expiry = Expiry()
    ShutdownDeadline(lambda: True, 0.01, expiry).start()
    assert expiry.happened.wait(SOON)
    ended()
    assert expiry.seconds == [0.01]


def test_a_stop_in_time_does_not() -> None:
    expiry = Expiry()
    deadline = ShutdownDeadline(lambda: True, SOON, expiry)
    deadline.start()
    deadline.cancel()
    ended()
    assert expiry.seconds == []


def test_the_time_begins_with_the_stop() -> None:
    expiry, asked, looked = Expiry(), threading.Event(), threading.Semaphore(0)

    def stop() -> bool:
        looked.release()
        return asked.is_set()

    deadline = ShutdownDeadline(stop, 0.0, expiry)
    deadline.start()
    for _ in range(3):
        assert looked.acquire(timeout=SOON)
    assert not expiry.happened.is_set()
    asked.set()
    assert expiry.happened.wait(SOON)
    ended()


def test_a_process_that_ends_by_itself_is_let_go() -> None:
    expiry = Expiry()
    deadline = ShutdownDeadline(lambda: False, 0.0, expiry)
    deadline.start()
    deadline.cancel()
    ended()
    assert expiry.seconds == []


def test_the_process_ends_with_one_line_and_status_1() -> None:
    script = (
        "import threading; from detector.service.deadline import ShutdownDeadline; "
        "ShutdownDeadline(lambda: True, 0.01).start(); threading.Event().wait()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "detector: error: stopping took longer than 0.01 s (shutdown_timeout). "
        "What was not committed is done again at the next start.\n"
    )
