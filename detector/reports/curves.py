"""What plots are drawn from: the scored rows of every sensor, thinned out so that any recording fits into memory.

A sensor's rows are kept as they are until they are too many. Then they are put together in *points*, one for each span
of time of equal width that has rows; the width doubles whenever there are too many points again. A point keeps the
range of the values and the highest score of its span, so that nothing that stood out is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64
from detector.engine.output import ScoredRows

POINTS: Final = 800
"""A sensor's points are more than half of this and at most twice as many, where it has as many rows."""
LEAST_POINTS: Final = 150
ALL_POINTS: Final = 1_500_000
"""Of all sensors together; many sensors get fewer each."""
PENDING: Final = 500_000
"""Rows collected before they are sorted in."""
_GAP: Final = 5
"""Times the usual distance of two points that is taken for a gap."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The points (n) of one sensor with C channels, in order of time.

    `times` (n,): ns, where each span's rows begin. `low`, `high`, `expected` (n, C): range of the values, mean of what
    was expected (NaN where nothing was). `scores`, `judged`, `thresholds` (n,): the highest of each (see `ScoredRows`).
    `gaps`: indices of points that a gap lies before.
    """

    times: I64
    low: F64
    high: F64
    expected: F64
    scores: F64
    judged: F64
    thresholds: F64
    gaps: NDArray[np.intp]


class Curves:
    """Listens to pipelines (see `trace.traced`) and keeps a curve for each sensor."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._strips: dict[str, _Strip] = {}
        self._pending: list[ScoredRows] = []
        self._waiting = 0

    def __call__(self, rows: ScoredRows) -> None:
        """Take in the rows of a block."""
        self._pending.append(rows)
        self._waiting += len(rows.times)
        if self._waiting >= PENDING:
            self._sort_in()

    def worst(self) -> dict[str, float]:
        """Every sensor and the highest ratio of what was judged to its threshold."""
        self._sort_in()
        return {name: strip.worst for name, strip in self._strips.items()}

    def of(self, sensor_id: str) -> Curve | None:
        """The curve of a sensor; None if no row of it was scored."""
        self._sort_in()
        strip = self._strips.get(sensor_id)
        return None if strip is None else strip.curve()

    def _sort_in(self) -> None:
        if not self._pending:
            return
        names = [name for rows in self._pending for name in rows.ids]
        counts = np.concatenate([rows.counts for rows in self._pending])
        times = np.concatenate([rows.times for rows in self._pending])
        cells = np.concatenate([_cells(rows) for rows in self._pending])
        self._pending, self._waiting = [], 0
        known = {name: number for number, name in enumerate(dict.fromkeys(names))}
        owner = np.repeat([known[name] for name in names], counts)
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=len(known))).tolist()
        for name in known:
            if name not in self._strips:
                self._strips[name] = _Strip(self._channels)
        points = min(POINTS, max(LEAST_POINTS, ALL_POINTS // len(self._strips)))
        begin = 0
        for name, end in zip(known, ends, strict=True):
            mine = order[begin:end]
            self._strips[name].extend(times[mine], cells[mine], points)
            begin = end


def _cells(rows: ScoredRows) -> F64:
    """(N, 3 C + 4): least and greatest value, sum and count of expected, score, judged, threshold."""
    has = ~np.isnan(rows.expected[:, :1])
    columns = [
        rows.values, rows.values, np.nan_to_num(rows.expected), has,
        rows.scores[:, None], rows.judged[:, None], rows.thresholds[:, None],
    ]  # fmt: skip
    return np.concatenate(columns, axis=1)


class _Strip:
    """The points of one sensor, growing."""

    __slots__ = ("_cells", "_channels", "_times", "_width", "worst")

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._width = 1
        self._times: I64 = np.empty(0, dtype=np.int64)
        self._cells: F64 = np.empty((0, 3 * channels + 4), dtype=np.float64)
        self.worst = 0.0

    def extend(self, times: I64, cells: F64, points: int) -> None:
        self.worst = max(self.worst, float((cells[:, -2] / cells[:, -1]).max()))
        self._times = np.concatenate([self._times, times])
        self._cells = np.concatenate([self._cells, cells])
        if len(self._times) <= 2 * points:
            return
        order = np.argsort(self._times, kind="stable")  # a clock that was set back
        self._times, self._cells = self._times[order], self._cells[order]
        spans = _distinct(self._times // self._width)
        while len(spans) > points:
            self._width *= 2
            spans = _distinct(spans // 2)
        self._join()

    def _join(self) -> None:
        spans = self._times // self._width
        first = np.flatnonzero(np.concatenate([[True], spans[1:] != spans[:-1]]))
        c = self._channels
        joined = np.empty((len(first), self._cells.shape[1]), dtype=np.float64)
        for part, join in (
            (slice(0, c), np.minimum),
            (slice(c, 2 * c), np.maximum),
            (slice(2 * c, 3 * c + 1), np.add),
            (slice(3 * c + 1, None), np.maximum),
        ):
            joined[:, part] = join.reduceat(self._cells[:, part], first, axis=0)
        self._times, self._cells = self._times[first], joined

    def curve(self) -> Curve:
        order = np.argsort(self._times, kind="stable")
        self._times, self._cells = self._times[order], self._cells[order]
        if self._width > 1:
            self._join()
        c, cells = self._channels, self._cells
        count = cells[:, 3 * c : 3 * c + 1]
        expected = np.full((len(cells), c), np.nan, dtype=np.float64)
        np.divide(cells[:, 2 * c : 3 * c], count, out=expected, where=count > 0)
        steps = np.diff(self._times)
        usual = max(self._width, float(np.median(steps))) if len(steps) else 0
        return Curve(
            times=self._times,
            low=cells[:, :c],
            high=cells[:, c : 2 * c],
            expected=expected,
            scores=cells[:, -3],
            judged=cells[:, -2],
            thresholds=cells[:, -1],
            gaps=np.flatnonzero(steps > _GAP * usual) + 1,
        )


def _distinct(ascending: I64) -> I64:
    """Each number once."""
    new = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    return ascending[new]


def broken(column: NDArray[Any], gaps: NDArray[np.intp]) -> NDArray[Any]:
    """A column (n, ...) with a NaN put before each gap, so that no line is drawn across it."""
    return np.insert(column.astype(np.float64), gaps, np.nan, axis=0)
