"""Who took the processors while something was measured, and what that means for a budget that was missed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.speed.gates import Gate, kept
from benchmarks.speed.machine import Machine

TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    told(tmp_path, others=0, own=0, whole=0)
    return tmp_path


def told(proc: Path, *, others: int, own: int, whole: int) -> None:
    """What the kernel says: seconds of processors that other processes had, a child of ours and ours; all of them."""
    idle = whole - others - own
    line = "cpu " + " ".join(str(n * TICK) for n in (own, 0, others // 2, idle // 2, idle - idle // 2, 0, 0))
    (proc / "stat").write_text(f"{line} {(others - others // 2) * TICK} 0 0\ncpu0 1 2 3\n")
    process(proc, os.getpid(), 1, own // 2)
    process(proc, 10**7, os.getpid(), own - own // 2)
    process(proc, 10**7 + 1, 1, others)


def process(proc: Path, pid: int, parent: int, seconds: int) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = " ".join(["S", str(parent), *["0"] * 9, *[str(seconds * TICK), "0", "0", "0"]])
    (proc / str(pid) / "stat").write_text(f"{pid} (a) name) {fields}\n")


def test_what_we_and_our_children_take_is_ours(proc: Path) -> None:
    machine = Machine(proc)
    told(proc, others=0, own=150, whole=200)
    assert machine.taken == 0
    assert not machine.busy


def test_what_others_take_and_steal_is_theirs(proc: Path) -> None:
    machine = Machine(proc)
    told(proc, others=50, own=100, whole=200)
    assert machine.taken == pytest.approx(0.25)
    assert machine.busy


def test_where_nothing_is_told_the_machine_counts_as_quiet(tmp_path: Path) -> None:
    assert Machine(tmp_path).taken == 0


def test_a_budget_that_is_missed_on_a_busy_machine_is_not_judged(proc: Path) -> None:
    quiet, busy = Machine(proc), Machine(proc)
    missed, reached = Gate("rate", 0.5, 0.8), Gate("rate", 0.8, 0.8)
    memory = Gate("bytes", 9, 8, at_most=True, timed=False)
    assert [gate.verdict(quiet) for gate in (missed, reached, memory)] == ["MISSED", "ok", "MISSED"]
    told(proc, others=50, own=100, whole=200)
    assert [gate.verdict(busy) for gate in (missed, reached, memory)] == ["not judged", "ok", "MISSED"]
    assert kept([missed, reached], busy)
    assert not kept([missed, memory], busy)
