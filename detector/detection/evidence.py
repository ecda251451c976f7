"""What the rows of a window say of a fault: since when, until when, in which channels, and of what kind it is.

Pure functions of one sensor's newest 100 rows. z (100, C) are scaled values, `errors` (100, C) the squared errors of
the autoencoder, *usual* (C,) the mean of these before the fault.

An *innovation* is what a short forecast of a value misses: a linear one from the channel's last four values, and from
what the other channels have at the same row, fitted on the window's older rows. Where a fault begins, innovations grow:
the likeliest such row is the onset (a change point of variance, by the likelihood ratio). The kind is what explains the
innovations since: an outlier or a step and their echo in the forecast (Chen and Liu, 1993), more noise, another cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from detector.arrays import F64

Fault = Literal["stuck", "level-shift", "spike", "drift", "noise", "oscillation", "relation", "unusual"]

OLDER: Final = 20
"""What was usual is known from at least this many rows before the onset."""
NEWEST: Final = 10
"""The newest rows: their mean says what is the case now."""
UNUSUAL: Final = 3.0
"""The mean square of some rows is unusual at this many times what it usually is, and at so small a part of it."""
_LAGS: Final = 4
_FITTED: Final = 60
"""Rows that forecasts are fitted on while no onset is known."""
_RIDGE: Final = 1e-2
_TINY: Final = 1e-9
_SPIKE_ROWS: Final = 4
_EXPLAINS: Final = 0.5
"""An outlier, a step or a cycle that has this share of all that is unusual is what happened."""
_SURE: Final = 20.0
"""... if it is worth this many times the variance of an innovation."""
_JUMP: Final = 3.5
"""Standard deviations of an innovation that is a jump."""
_OFF: Final = 0.8
"""A window whose mean lies this many deviations of the sensor away from its usual level has drifted there."""
_OTHER_CYCLE: Final = 1.35
_LINES: Final = 512


class Onset(NamedTuple):
    """The row at which something began, and by how much that is likelier than that nothing did (ln, twice)."""

    row: int
    gain: float


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of fault a channel has. `size` is in scaled units, or a factor; `partner`: a channel, -1: none.

    stuck: since which `row`, at which `level`. level-shift, spike, drift: how far off. noise: how many times as strong.
    oscillation: how many times as wide; `period`, `usual_period` in rows, 0: not known. relation: to which channel.
    """

    name: Fault
    row: int | None = None
    size: float = 0.0
    level: float = 0.0
    period: float = 0.0
    usual_period: float = 0.0
    partner: int = -1

    @property
    def plain(self) -> bool:
        """Whether more rows could not tell it better."""
        return self.name in ("stuck", "level-shift", "spike", "relation")


def find_onset(z: F64, last: int) -> Onset:
    """When the fault began that was detected at row `last`: a row from `OLDER` to `last`, which is at least `OLDER`.

    >>> z = np.random.default_rng(0).normal(size=(100, 1))
    >>> z[80:] += 8
    >>> abs(find_onset(z, 95).row - 80) <= 2
    True
    """
    rows = min(_FITTED, max(last, _FITTED // 2))
    for _ in range(2):
        squares = np.square(innovations(z, rows))
        found = _change_point(squares, last)
        if found.row >= rows:
            break
        rows = max(found.row, _FITTED // 2)
    return found


def innovations(z: F64, rows: int, *, together: bool = True) -> F64:
    """What a short forecast fitted on the first `rows` misses of z (100, C); 0 in the first rows, which have none.

    `together`: a forecast of one channel knows the present values of the others.
    """
    out = np.zeros_like(z)
    for channel in range(z.shape[1]):
        own = z[:, channel]
        others = np.delete(z, channel, axis=1)[_LAGS:] if together else np.empty((len(z) - _LAGS, 0))
        known = np.column_stack([_lagged(own), others, np.ones(len(z) - _LAGS)])
        out[_LAGS:, channel] = own[_LAGS:] - known @ _fit(known[: rows - _LAGS], own[_LAGS:rows])
    return out


def _lagged(x: F64) -> F64:
    return np.column_stack([x[_LAGS - 1 - back : len(x) - 1 - back] for back in range(_LAGS)])


def _fit(known: F64, wanted: F64) -> F64:
    """Coefficients of a ridge regression."""
    rows, width = known.shape
    return np.linalg.solve(known.T @ known / rows + _RIDGE * np.eye(width), known.T @ wanted / rows)


def _change_point(squares: F64, last: int) -> Onset:
    """Where the mean of the squares (100, C) of some channel likeliest rises, `OLDER` <= row <= last."""
    squares = squares[_LAGS:]
    n, first, stop = len(squares), OLDER - _LAGS, max(last, OLDER) - _LAGS + 1
    total = np.concatenate([np.zeros((1, squares.shape[1])), np.cumsum(squares, axis=0)])
    cuts = np.arange(first, stop)[:, None]
    floor = 1e-3 * total[-1] / n + _TINY
    before, after = total[first:stop] / cuts + floor, (total[-1] - total[first:stop]) / (n - cuts) + floor
    gain = n * np.log(total[-1] / n + floor) - cuts * np.log(before) - (n - cuts) * np.log(after)
    best = np.where(after > before, gain, 0.0).max(axis=1)
    row = int(best.argmax())
    return Onset(first + row + _LAGS, float(best[row]))


def usual_errors(errors: F64, row: int) -> F64:
    """The mean errors (C,) of the rows before a fault that began at `row`."""
    return np.asarray(errors[: max(row, OLDER)].mean(axis=0) + _TINY)


def shares(errors: F64, usual: F64, row: int) -> F64:
    """Each channel's part (C,) of what is unusual since `row`: of the errors beyond the usual ones; the sum is 1.

    Errors are in units of each channel's own scale already. In units of the usual errors a channel that is hardly ever
    wrong would be blamed for a fault of another one that it goes together with.

    >>> shares(np.array([[1.0, 9.0]] * 90 + [[9.0, 9.0]] * 10), np.array([1.0, 9.0]), 90)
    array([1., 0.])
    """
    now = errors[min(row, len(errors) - NEWEST) :].mean(axis=0)
    unusual = np.maximum(now - usual, 0.0)
    parts = unusual if unusual.any() else now / usual + _TINY
    return np.asarray(parts / parts.sum())


def last_unusual(errors: F64, usual: F64) -> int | None:
    """The last row of the window whose own error is unusual, where the newest are not; None: none is."""
    times = errors / usual
    if times[-OLDER:].mean(axis=0).max() > UNUSUAL:
        return len(times) - 1
    end = len(times) + _LAGS - _change_point(_padded(times[::-1]), len(times) + _LAGS - NEWEST).row
    return end - 1 if end >= NEWEST and times[:end].mean(axis=0).max() > UNUSUAL else None


def _padded(squares: F64) -> F64:
    return np.concatenate([np.zeros((_LAGS, squares.shape[1])), squares])


def last_of_run(x: F64) -> int | None:
    """The last row of the newest run of at least `NEWEST` equal values; None: there is none."""
    edges = np.concatenate([[-1], np.flatnonzero(np.diff(x)), [len(x) - 1]])
    long = np.flatnonzero(np.diff(edges) >= NEWEST)
    return int(edges[long[-1] + 1]) if len(long) else None


def kind_of(z: F64, channel: int, row: int, ridge: F64) -> Kind:
    """What sort of fault a channel has since `row`. `ridge` (99,): the channel's forecast, which knows its usual cycle.

    The rules are tried in this order; the first that holds is what is said.
    """
    x = z[:, channel]
    if (since := _stuck_since(x)) is not None:
        return Kind("stuck", row=since, level=float(x[-1]))
    begin = min(max(row, OLDER), len(x) - NEWEST)  # an onset at the very end leaves no row to look at
    centre = float(x[:begin].mean())
    known = _lagged(x - centre)
    lags = _fit(known[: begin - _LAGS], x[_LAGS:begin] - centre)
    innovation = _whitened(lags, x - centre)
    variance = float(np.square(innovation[_LAGS:begin]).mean()) + _TINY
    since_then = innovation[begin:]
    excess = float(since_then @ since_then) + _TINY
    plain = _outlier_or_step(lags, since_then, variance, excess) if begin >= 2 * OLDER else None
    if plain is not None and plain.name == "level-shift" and not _steady(z, channel, begin):
        return Kind("relation", partner=_partner(z[:begin], channel))
    if plain is not None:
        return plain
    times = excess / len(since_then) / variance
    if z.shape[1] > 1 and _apart(z, channel, begin) > max(UNUSUAL, _EXPLAINS * times):
        return Kind("relation", partner=_partner(z[:begin], channel))
    recent = x[-max(len(since_then), 2 * NEWEST) :]
    line = _strongest_line(since_then)
    sure = _EXPLAINS if len(since_then) > 2 * NEWEST else (1 + _EXPLAINS) / 2
    if times > 2 * UNUSUAL:
        if line.share > sure:
            wide = float(recent.std() / (x[:begin].std() + _TINY))
            return Kind("oscillation", size=wide, period=_strongest_line(recent).period)
        return Kind("noise", size=float(np.sqrt(times)))
    if abs(off := float(x.mean())) > _OFF:
        return Kind("drift", size=float(x[-OLDER:].mean()) if off * x[-OLDER:].mean() > 0 else off)
    if times > UNUSUAL and line.share <= _EXPLAINS / 2:
        return Kind("noise", size=float(np.sqrt(times)))
    if times < 1 / UNUSUAL:
        return Kind("noise", size=float(np.sqrt(times)))
    if (cycle := _other_cycle(x, ridge)) is not None:
        return cycle
    return Kind("unusual")


def _stuck_since(x: F64) -> int | None:
    """The first row of the equal values at the end, if they are many, more than ever, and nothing jumped there."""
    changes = np.flatnonzero(np.diff(x))
    since = int(changes[-1]) + 1 if len(changes) else 0
    run = len(x) - since
    before = np.diff(np.concatenate([[-1], changes]))
    if run < NEWEST or (len(before) and run <= 2 * before.max()):
        return None
    if since >= OLDER:
        innovation = innovations(x[:, None], since, together=False)[:, 0]
        usual = np.sqrt(np.square(innovation[_LAGS:since]).mean()) + _TINY
        if abs(innovation[since]) > _JUMP * usual:
            return None
    return since


def _whitened(lags: F64, x: F64) -> F64:
    """x less its forecast, as if it had been 0 before."""
    longer = np.concatenate([np.zeros(_LAGS), x])
    return np.asarray(x - _lagged(longer) @ lags)


def _outlier_or_step(lags: F64, innovation: F64, variance: float, excess: float) -> Kind | None:
    """The one of both that explains the innovations since the onset, of this variance before and sum of squares."""
    rows = np.arange(len(innovation))
    best, size, name = 0.0, 0.0, "spike"
    for width in (*range(1, _SPIKE_ROWS + 1), len(rows)):
        echo = _whitened(lags, (rows < width).astype(np.float64))
        power, along = float(echo @ echo), float(echo @ innovation)
        if along * along > best * power:
            best, size = along * along / power, along / power
            name = "level-shift" if width == len(rows) else "spike"
    if best < _SURE * variance or best < _EXPLAINS * excess:
        return None
    if np.abs(innovation[:3]).max() < _JUMP * np.sqrt(variance):
        return None
    return Kind("spike" if name == "spike" else "level-shift", size=size)


def _apart(z: F64, channel: int, begin: int) -> float:
    """How many times as bad as before a forecast is that knows the other channels."""
    squares = np.square(innovations(z, begin)[:, channel])
    return float(squares[begin:].mean() / (squares[_LAGS:begin].mean() + _TINY))


def _steady(z: F64, channel: int, begin: int) -> bool:
    """Whether a channel that went with the others still does, but for an offset; also where it never did."""
    others = np.column_stack([np.delete(z, channel, axis=1), np.ones(len(z))])
    if others.shape[1] == 1:
        return True
    x = z[:, channel]
    apart = x - others @ _fit(others[:begin], x[:begin])
    if apart[:begin].var() > (1 - _EXPLAINS) * x[:begin].var():
        return True
    since_then = apart[begin:]
    return bool(since_then.mean() ** 2 > _EXPLAINS * np.square(since_then).mean())


def _partner(z: F64, channel: int) -> int:
    """The channel that this one went with, as far as these rows say."""
    centred = z - z.mean(axis=0)
    like = np.abs(centred[:, channel] @ centred) / (np.sqrt(np.square(centred).sum(axis=0)) + _TINY)
    like[channel] = -1.0
    return int(like.argmax())


class _Line(NamedTuple):
    """The strongest cycle of some rows: its share of their variance, and its period in rows."""

    share: float
    period: float


def _strongest_line(x: F64) -> _Line:
    if len(x) < 2 * _LAGS:
        return _Line(0.0, 0.0)
    tapered = (x - x.mean()) * np.hanning(len(x) + 2)[1:-1]
    power = np.square(np.abs(np.fft.rfft(tapered, _LINES)))
    power[: _LINES // 100] = 0.0
    at, width = int(power.argmax()), _LINES // len(x)
    share = power[max(at - width, 0) : at + width + 1].sum() / max(float(power.sum()), _TINY)
    return _Line(float(share), _LINES / max(at, 1))


def _other_cycle(x: F64, ridge: F64) -> Kind | None:
    """The cycle of the window, where it is another than the one that the sensor's forecast knows."""
    line = _strongest_line(x[-2 * len(x) // 3 :])
    response = np.fft.rfft(np.concatenate([[1.0], -ridge[::-1]]), _LINES)
    spectrum = 1.0 / (np.square(np.abs(response)) + _TINY)
    spectrum[: _LINES // 100] = 0.0
    usual = _LINES / max(int(spectrum.argmax()), 1)
    other = max(line.period / usual, usual / max(line.period, 1.0)) if line.period else 1.0
    if line.share < _EXPLAINS or other < _OTHER_CYCLE:
        return None
    return Kind("oscillation", size=float(x.std()), period=line.period, usual_period=usual)
