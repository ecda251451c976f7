"""Budgets and whether they were kept, as a table."""

from __future__ import annotations

from typing import NamedTuple

from rich.table import Table


class Gate(NamedTuple):
    """A budget: `value` has to be at least (or at most) `limit`."""

    what: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def kept(self) -> bool:
        """Whether the budget was kept."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def gate_table(gates: list[Gate]) -> Table:
    """One row a gate."""
    table = Table(title="Budgets", title_justify="left", title_style="bold")
    table.add_column("what")
    for name in ("measured", "budget", ""):
        table.add_column(name, justify="right")
    for gate in gates:
        sign = "<=" if gate.at_most else ">="
        table.add_row(gate.what, f"{gate.value:.3g}", f"{sign} {gate.limit:g}", "ok" if gate.kept else "MISSED")
    return table
