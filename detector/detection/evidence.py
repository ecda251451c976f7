"""What the rows of a window say of a fault: since when, until when, and in which channels.

Pure functions of one sensor's newest 100 rows. z (100, C) are scaled values, `errors` (100, C) the squared errors of
the autoencoder, *usual* (C,) the mean of these before the fault.

An *innovation* is what a short forecast of a value misses: a linear one from the channel's last four values, and from
what the other channels have at the same row, fitted on the window's older rows. Where a fault begins, innovations grow:
the likeliest such row is the onset (a change point of variance, by the likelihood ratio).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, I64

OLDER: Final = 20
"""What was usual is known from at least this many rows before the onset."""
NEWEST: Final = 10
"""The newest rows: their mean says what is the case now."""
UNUSUAL: Final = 3.0
"""The mean square of some rows is unusual at this many times what it usually is, and at so small a part of it."""
LAGS: Final = 4
"""A short forecast knows this many rows before."""
_FITTED: Final = 60
"""Rows that forecasts are fitted on while no onset is known."""
_RIDGE: Final = 1e-2
_TINY: Final = 1e-9


class Onset(NamedTuple):
    """The row at which something began, and by how much that is likelier than that nothing did (ln, twice)."""

    row: int
    gain: float


def find_onset(z: F64, last: int) -> Onset:
    """When the fault began that was detected at row `last`: a row from `OLDER` to `last`, which is at least `OLDER`.

    >>> z = np.random.default_rng(0).normal(size=(100, 1))
    >>> z[80:] += 8
    >>> abs(find_onset(z, 95).row - 80) <= 2
    True
    """
    rows, known = min(_FITTED, max(last, _FITTED // 2)), [_known(z, channel) for channel in range(z.shape[1])]
    for _ in range(2):
        missed = [_missed(z[:, channel], of, rows) for channel, of in enumerate(known)]
        squares = np.square(np.column_stack(missed))
        found = _change_point(squares, last)
        if found.row >= rows:
            break
        rows = max(found.row, _FITTED // 2)
    return found


def innovations(z: F64, channel: int, rows: int) -> F64:
    """What a short forecast of a channel, fitted on the first `rows`, misses (100,); 0 in the first rows."""
    return _missed(z[:, channel], _known(z, channel), rows)


def _known(z: F64, channel: int) -> F64:
    """What the forecast knows of each row from `LAGS` on: the channel before it, the others at it, a constant."""
    stop = len(z)
    before = [z[LAGS - 1 - back : stop - 1 - back, channel] for back in range(LAGS)]
    others = [z[LAGS:, other] for other in range(z.shape[1]) if other != channel]
    return np.column_stack([*before, *others, np.ones(stop - LAGS)])


def _missed(x: F64, known: F64, rows: int) -> F64:
    out = np.zeros_like(x)
    out[LAGS:] = x[LAGS:] - known @ fit(known[: rows - LAGS], x[LAGS:rows])
    return out


def fit(known: F64, wanted: F64) -> F64:
    """Coefficients of a ridge regression."""
    rows, width = known.shape
    return np.linalg.solve(known.T @ known / rows + _RIDGE * np.eye(width), known.T @ wanted / rows)


def _change_point(squares: F64, last: int) -> Onset:
    """Where the mean of the squares (100, C) of some channel likeliest rises, `OLDER` <= row <= last."""
    squares = squares[LAGS:]
    n, first, stop = len(squares), OLDER - LAGS, max(last, OLDER) - LAGS + 1
    total = np.concatenate([np.zeros((1, squares.shape[1])), np.cumsum(squares, axis=0)])
    cuts = np.arange(first, stop)[:, None]
    floor = 1e-3 * total[-1] / n + _TINY
    before, after = total[first:stop] / cuts + floor, (total[-1] - total[first:stop]) / (n - cuts) + floor
    gain = n * np.log(total[-1] / n + floor) - cuts * np.log(before) - (n - cuts) * np.log(after)
    best = np.where(after > before, gain, 0.0).max(axis=1)
    row = int(best.argmax())
    return Onset(first + row + LAGS, float(best[row]))


def usual_errors(errors: F64, row: int) -> F64:
    """The mean errors (C,) of the rows before a fault that seems to have begun at `row`.

    It may have begun earlier, in some channels: what counts is the least of these rows, or of the oldest ones.
    """
    oldest, before = errors[:OLDER].mean(axis=0), errors[: max(row, OLDER)].mean(axis=0)
    return np.asarray(np.minimum(oldest, before) + _TINY)


def shares(errors: F64, usual: F64, row: int) -> F64:
    """Each channel's part (C,) of what is unusual since `row`; the sum is 1.

    Counted is the error beyond the usual one, over the root of the usual one. Over the usual one itself, a channel that
    is hardly ever wrong would be blamed for a fault of another one that it goes together with; over nothing, a channel
    that is nothing but noise for what noise does.

    >>> shares(np.array([[1.0, 9.0]] * 90 + [[9.0, 9.0]] * 10), np.array([1.0, 9.0]), 90)
    array([1., 0.])
    """
    now = errors[min(row, len(errors) - NEWEST) :].mean(axis=0)
    unusual = np.maximum(now - usual, 0.0) / np.sqrt(usual)
    parts = unusual if unusual.any() else now / usual + _TINY
    return np.asarray(parts / parts.sum())


def last_unusual(errors: F64, usual: F64) -> int | None:
    """The last row of the window whose own error is unusual, where the newest are not; None: none is."""
    times = errors / usual
    if times[-OLDER:].mean(axis=0).max() > UNUSUAL:
        return len(times) - 1
    end = len(times) + LAGS - _change_point(_padded(times[::-1]), len(times) + LAGS - NEWEST).row
    return end - 1 if end >= NEWEST and times[:end].mean(axis=0).max() > UNUSUAL else None


def _padded(squares: F64) -> F64:
    return np.concatenate([np.zeros((LAGS, squares.shape[1])), squares])


class Run(NamedTuple):
    """Rows of equal values."""

    first: int
    last: int


def longest_run(x: F64) -> Run | None:
    """The longest run of equal values, if it has `NEWEST` rows and is twice as long as any other one.

    >>> longest_run(np.array([1.0, 2.0, 2.0] + [5.0] * 12 + [3.0]))
    Run(first=3, last=14)
    """
    edges = _edges(x)
    runs = np.diff(edges)
    longest = int(runs.argmax())
    others = np.delete(runs, longest)
    if runs[longest] < NEWEST or runs[longest] <= 2 * others.max(initial=0):
        return None
    return Run(int(edges[longest]) + 1, int(edges[longest + 1]))


def last_of_run(x: F64) -> int | None:
    """The last row of the newest run of at least `NEWEST` equal values; None: there is none."""
    edges = _edges(x)
    long = np.flatnonzero(np.diff(edges) >= NEWEST)
    return int(edges[long[-1] + 1]) if len(long) else None


def _edges(x: F64) -> I64:
    """The last row of each run of equal values, after a -1."""
    return np.concatenate([[-1], np.flatnonzero(np.diff(x)), [len(x) - 1]])
