"""The command lines that containers are started with."""

from __future__ import annotations

from collections.abc import Sequence

from detector.cli import main as command_line


def parses(words: Sequence[str]) -> None:
    """A command and its options are ones that `detector` has. Raises SystemExit where they are not."""
    command_line._parse(list(words))  # noqa: SLF001 (running them needs a broker; tests/kafka does that)
