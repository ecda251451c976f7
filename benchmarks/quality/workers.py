"""Work in parallel: long-lived processes, each with one thread of TensorFlow, and progress on standard error."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


class Workers:
    """Processes that are started when they are first needed. A context manager."""

    def __init__(self, jobs: int) -> None:
        # TensorFlow does not survive a fork.
        self._pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, title: str, work: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> list[T]:
        """`work(*task)` for every task, the first ones first; results in the order of the tasks."""
        began = time.monotonic()
        futures = {self._pool.submit(work, *task): i for i, task in enumerate(tasks)}
        results: dict[int, T] = {}
        columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = sys.stderr.isatty()
        bars = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not shown)
        with bars:
            bar = bars.add_task(title, total=len(tasks))
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bars.advance(bar)
        if not shown:
            sys.stderr.write(f"{title}: {len(tasks)} pieces in {time.monotonic() - began:.0f} s\n")
            sys.stderr.flush()
        return [results[i] for i in range(len(tasks))]
