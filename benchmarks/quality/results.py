"""What a benchmark comes to: tables for people, gates, and numbers for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure with the range in which it passes and the range that is aimed at."""

    name: str
    value: float | None
    passes: tuple[float, float]
    aim: tuple[float, float] | None

    @classmethod
    def at_least(cls, name: str, value: float | None, passes: float, aim: float | None) -> Gate:
        """A figure that should be high."""
        return cls(name, value, (passes, math.inf), None if aim is None else (aim, math.inf))

    @classmethod
    def at_most(cls, name: str, value: float | None, passes: float, aim: float | None) -> Gate:
        """A figure that should be low."""
        return cls(name, value, (-math.inf, passes), None if aim is None else (-math.inf, aim))

    @property
    def missed(self) -> bool:
        """Whether it was measured and does not pass."""
        return self.value is not None and not self.passes[0] <= self.value <= self.passes[1]

    @property
    def verdict(self) -> str:
        """`missed`, `passed`, `aim reached` or `not measured`."""
        if self.value is None:
            return "not measured"
        if self.missed:
            return "missed"
        return "aim reached" if self.aim and self.aim[0] <= self.value <= self.aim[1] else "passed"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column is aligned left, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        cells = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
        return "\n".join([self.title, "-" * len(self.title), *lines, ""])


@dataclass(slots=True)
class Outcome:
    """One benchmark's result."""

    name: str
    tables: list[Table] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def gate_table(gates: Sequence[Gate]) -> Table:
    """All gates with value, pass, aim and verdict."""
    rows = [
        (gate.name, number(gate.value), _range(gate.passes), _range(gate.aim) if gate.aim else "", gate.verdict)
        for gate in gates
    ]
    return Table("Gates", ("gate", "value", "to pass", "aim", "verdict"), rows)


def number(value: float | None, digits: int = 3) -> str:
    """A number as text; None is a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def _range(limits: tuple[float, float]) -> str:
    low, high = limits
    if math.isinf(high):
        return f">= {low:g}"
    return f"<= {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"
