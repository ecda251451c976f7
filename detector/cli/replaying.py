"""How far the replay of a recording is, on standard error: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from detector.streams.base import Batch


@contextlib.contextmanager
def replay_progress(batches: Iterable[Batch], end: int | None) -> Iterator[Iterator[Batch]]:
    """The batches, shown as they are taken while the block runs; `end`: where the last one ends, None: not known."""
    if not sys.stderr.isatty():
        yield iter(batches)
        return
    columns = (TextColumn("replaying"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TextColumn("{task.fields[records]:,} records"), console=console, transient=True) as bar:
        task = bar.add_task("", total=end, records=0)

        def shown() -> Iterator[Batch]:
            records = 0
            for batch in batches:
                yield batch
                records += len(batch.records)
                bar.update(task, completed=None if end is None else batch.next_offset, records=records)

        yield shown()


@contextlib.contextmanager
def sensors_progress(doing: str, sensors: int) -> Iterator[Callable[[], None]]:
    """Show how many of the sensors are done while the block runs; gives what to call after each of them."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=sensors)
        yield lambda: bar.update(task, advance=1)
