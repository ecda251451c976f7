"""The rows that the messages of one episode show, joined: `updated` has only those since the last message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, Protocol, TypeVar

import msgspec

ROWS: Final = 2_000
"""Of a longer episode the first half and the last half are kept."""
_APART: Final = 1.5
"""Steps between two rows of two messages from which on something lies between that no message showed."""
_T = TypeVar("_T")
Column = list[float | None] | dict[str, list[float | None]]


class Window(msgspec.Struct):
    """Rows as a message shows them: times (ms), one list a quantity, or an object of one list a channel."""

    timestamps: list[int]
    values: Column
    expected: Column
    errors: Column
    imputed: list[bool] = []


class Rows(Protocol):
    """What is joined."""

    @property
    def timestamps(self) -> list[int]: ...
    @property
    def values(self) -> Column: ...
    @property
    def expected(self) -> Column: ...
    @property
    def errors(self) -> Column: ...
    @property
    def imputed(self) -> list[bool]: ...


def joined(messages: Iterable[Rows | None], most: int = ROWS) -> Window | None:
    """The rows of an episode's messages, in the order of their sequence, each row once; None where no message has any.

    Where messages leave rows out between them stands a row without values, so that no line is drawn across.

    >>> first = Window([0, 10, 20], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [0.0, 1.0, 4.0])
    >>> then, last = Window([30], [4.0], [1.0], [9.0]), Window([90, 100], [5.0, 5.0], [1.0, 1.0], [16.0, 16.0])
    >>> both = joined([first, then, None, last])
    >>> both.timestamps, both.values
    ([0, 10, 20, 30, 60, 90, 100], [1.0, 2.0, 3.0, 4.0, None, 5.0, 5.0])
    """
    found: Window | None = None
    for rows in messages:
        if rows is None or not rows.timestamps:
            continue
        if found is None:
            imputed = rows.imputed or [False] * len(rows.timestamps)
            found = Window(rows.timestamps, rows.values, rows.expected, rows.errors, imputed)
        else:
            found = _behind(found, rows)
    return None if found is None else _cut(found, most)


def newest(rows: Window, count: int) -> Window:
    """The last rows of a window."""
    return _picked(rows, [slice(-count, None)])


def _behind(known: Window, rows: Rows) -> Window:
    """The rows that are newer than those known behind them."""
    last = known.timestamps[-1]
    first = next((at for at, time in enumerate(rows.timestamps) if time > last), len(rows.timestamps))
    times = rows.timestamps[first:]
    if not times:
        return known
    steps = sorted(after - before for before, after in pairwise(known.timestamps))
    usual = steps[len(steps) // 2] if steps else times[0] - last
    missing = [(last + times[0]) // 2] if not first and times[0] - last > _APART * usual else []
    nothing: list[float | None] = [None] * len(missing)

    def column(before: Column, after: Column) -> Column:
        if isinstance(before, dict) and isinstance(after, dict):
            return {name: [*column_, *nothing, *after.get(name, [])[first:]] for name, column_ in before.items()}
        if isinstance(before, list) and isinstance(after, list):
            return [*before, *nothing, *after[first:]]
        return before

    return Window(
        [*known.timestamps, *missing, *times],
        column(known.values, rows.values),
        column(known.expected, rows.expected),
        column(known.errors, rows.errors),
        [*known.imputed, *([False] * len(missing)), *(rows.imputed or [False] * len(rows.timestamps))[first:]],
    )


def _cut(rows: Window, most: int) -> Window:
    half = most // 2
    return rows if len(rows.timestamps) <= most else _picked(rows, [slice(half), slice(-half, None)])


def _picked(rows: Window, parts: Sequence[slice]) -> Window:
    def some(column: Sequence[_T]) -> list[_T]:
        return [one for part in parts for one in column[part]]

    def of(column: Column) -> Column:
        return {name: some(one) for name, one in column.items()} if isinstance(column, dict) else some(column)

    return Window(some(rows.timestamps), of(rows.values), of(rows.expected), of(rows.errors), some(rows.imputed))
