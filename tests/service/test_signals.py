"""Signals set a flag; the second one forces the end; what was installed before comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from detector.service.signals import FORCED, StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_only_sets_the_flag(number: signal.Signals) -> None:
    forced: list[int] = []
    with StopSignals(forced.append) as signals:
        assert (signals.stop, signals.received) == (False, None)
        os.kill(os.getpid(), number)
        assert (signals.stop, signals.received) == (True, number.name)
    assert forced == []


def test_the_second_signal_forces() -> None:
    forced: list[int] = []
    with StopSignals(forced.append) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.stop
    assert forced == [FORCED]


def test_a_hang_up_that_was_held_back_counts() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    # To this thread: another one of the test run might let it through.
    signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
    with StopSignals() as signals:
        assert signals.hangups == 1
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.hangups == 2
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_real_process_ends_with_130_at_the_second_signal() -> None:
    script = (
        "import os, signal\n"
        "from detector.service.signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(signals.stop, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('not reached')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (FORCED, "True\n", "")
