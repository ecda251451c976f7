"""Whether a machine was quiet enough to measure: what others took of its processors meanwhile. Linux alone tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

BUSY: Final = 0.1
"""The share of the processors that others may take; with more, a budget of time that is missed says nothing."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


class Machine:
    """Watches the processors from its making on.

    >>> machine = Machine()
    >>> 0 <= machine.taken <= 1
    True
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._began = self._now()

    @property
    def taken(self) -> float:
        """The share of all processors that went to others since, or that another machine took (steal)."""
        now, began = self._now(), self._began
        if now.whole <= began.whole:
            return 0.0
        others = (now.busy - began.busy) - (now.own - began.own)
        return min(max(others / (now.whole - began.whole), 0.0), 1.0)

    @property
    def busy(self) -> bool:
        """Whether that was too much."""
        return self.taken > BUSY

    def _now(self) -> _Times:
        try:
            line = (self._proc / "stat").read_text().partition("\n")[0]
        except OSError:
            return _Times(0.0, 0.0, 0.0)
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already
        ticks = [int(word) for word in line.split()[1:9]]
        waiting = sum(ticks[3:5])
        return _Times(sum(ticks) / _TICK, (sum(ticks) - waiting) / _TICK, self._own() / _TICK)

    def _own(self) -> int:
        """Ticks of this process and all that came of it, those that ended and were waited for included."""
        parents, ticks = {}, {}
        for path in self._proc.glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # gone by now
                continue
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
        ours, found = {os.getpid()}, {os.getpid()}
        while found:
            found = {pid for pid, parent in parents.items() if parent in found} - ours
            ours |= found
        return sum(ticks.get(pid, 0) for pid in ours)


def spent(pid: int, proc: Path = Path("/proc")) -> float:
    """Seconds of processor time of a process, all its threads together. Raises OSError where it is gone."""
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICK


class _Times(NamedTuple):
    """Seconds of all processors together: that passed, in which they worked, in which they worked for us."""

    whole: float
    busy: float
    own: float
