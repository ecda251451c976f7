"""Which command is asked for. Nothing is imported for it: `detector.__main__` wants to know before all else."""

from __future__ import annotations

from collections.abc import Sequence

DAEMONS = frozenset(("run", "incidents", "notify", "rekey"))
"""The commands that stay."""


def find_command(argv: Sequence[str]) -> str | None:
    """Return the first argument that is no global option and no value of one."""
    arguments = iter(argv)
    for argument in arguments:
        if argument in {"-c", "--config", "--set", "--log-level", "--log-format"}:
            next(arguments, None)
        elif not argument.startswith("-"):
            return argument
    return None
