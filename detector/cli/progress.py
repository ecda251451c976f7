"""How far training is, on standard error: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from detector.models.training.loop import Progress

Announcement = tuple[Callable[[Progress], None], Callable[[int], None]]
"""What training and the building of profiles tell their progress to."""

_LINES: Final = 10
"""Lines of a whole training where no bar can be drawn."""


@contextlib.contextmanager
def training_progress(sensors: int) -> Iterator[Announcement]:
    """Show the progress of a training and of building the profiles of this many sensors while the block runs."""
    if not sys.stderr.isatty():
        yield Lines(), lambda _: None
        return
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, TextColumn("{task.fields[note]}"), console=Console(file=sys.stderr)) as bars:
        training = bars.add_task("training", total=None, note="")
        profiles = bars.add_task("profiles", total=sensors, note="", start=False)

        def trained(now: Progress) -> None:
            tail = f", held back {now.tail:.4f}" if now.tail is not None else ""
            bars.update(training, total=now.planned, completed=now.steps, note=f"error {now.loss:.4f}{tail}")

        def profiled(done: int) -> None:
            bars.start_task(profiles)
            bars.update(profiles, completed=done)

        yield trained, profiled


class Lines:
    """Writes a line at every tenth of the way."""

    def __init__(self) -> None:
        self._announcements = 0

    def __call__(self, now: Progress) -> None:
        tenth = _LINES * now.steps // now.planned
        if tenth > self._announcements:
            self._announcements = tenth
            sys.stderr.write(f"training: step {now.steps} of {now.planned}, error {now.loss:.4f}\n")
            sys.stderr.flush()
