"""Budgets and whether they were kept, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rich.table import Table

from benchmarks.speed.machine import Machine

Verdict = Literal["ok", "MISSED", "not judged"]


class Gate(NamedTuple):
    """A budget: `value` has to be at least (or at most) `limit`. `timed`: it depends on what else the machine does."""

    what: str
    value: float
    limit: float
    at_most: bool = False
    timed: bool = True

    def verdict(self, machine: Machine) -> Verdict:
        """Whether the budget was kept; what a busy machine misses is not judged."""
        if self.value <= self.limit if self.at_most else self.value >= self.limit:
            return "ok"
        return "not judged" if self.timed and machine.busy else "MISSED"


def gate_table(gates: Sequence[Gate], machine: Machine) -> Table:
    """One row a gate."""
    table = Table(title="Budgets", title_justify="left", title_style="bold")
    table.caption = f"Other processes took {machine.taken:.0%} of the processors meanwhile."
    table.caption_justify = "left"
    table.add_column("what")
    for name in ("measured", "budget", ""):
        table.add_column(name, justify="right")
    for gate in gates:
        sign = "<=" if gate.at_most else ">="
        table.add_row(gate.what, f"{gate.value:.3g}", f"{sign} {gate.limit:g}", gate.verdict(machine))
    return table


def kept(gates: Sequence[Gate], machine: Machine) -> bool:
    """Whether no budget was missed."""
    return all(gate.verdict(machine) != "MISSED" for gate in gates)
