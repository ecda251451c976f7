"""What sort of fault a channel has: the form that explains what its window has beyond the usual.

Forms are an outlier of a few rows, a step, a slope and a cycle. Each is whitened as the window is (see `usual`) and
fitted by least squares, at every row at which it may have begun; the *gain* of a form is how much smaller it makes the
sum of squares, in units of the usual one: twice the logarithm of a likelihood ratio. A form is what happened if it is
sure and has most of the *excess*, what the sum of squares is beyond the usual. What has excess and no form is noise. A
channel that does as usual by itself, but no longer as the others let expect, has lost its relation to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from detector.arrays import F64
from detector.detection.evidence import LAGS, NEWEST, OLDER, UNUSUAL, fit, innovations, longest_run
from detector.detection.signals import WINDOW
from detector.detection.usual import PROMINENT, Usual, sums, usual_of

Fault = Literal["stuck", "level-shift", "spike", "drift", "noise", "oscillation", "relation", "context", "unusual"]

_SURE: Final = 25.0
_EXPLAINS: Final = 0.5
"""A form that has this share of the excess is what happened."""
_CLEARER: Final = 10.0
"""A step gains this much more than a slope, and what may take more shapes than what may take few, or it was none."""
_JUMP: Final = 4.0
"""Standard deviations of a row that nothing before it let expect."""
_WITHIN: Final = 2.0
"""Deviations of the sensor from its usual level within which a value is one of those that it has."""
_SPIKE_ROWS: Final = 4
_AROUND: Final = 5
"""The onset may be wrong by this many rows; a form has to have begun this many rows before the end."""
_SLOPE_ROWS: Final = 30
_NOISY: Final = 2.0
_QUIET: Final = 1 / 9
_GONE: Final = 1 / 16
"""The usual cycle is gone where it has this share of its power."""
_LIKE_ITSELF: Final = 3.0
"""Rows that lie this many times as far from what they let expect of each other are a channel's usual ones."""
_STEADY: Final = 0.9
_OFF: Final = 0.8
"""A window whose mean lies this many deviations of the sensor away from its usual level has drifted there."""
_TINY: Final = 1e-9
_FREQUENCIES: Final = np.arange(3, 128) / 256
_ANGLES: Final = 2 * np.pi * np.outer(np.arange(WINDOW), _FREQUENCIES)
_EVEN: Final = np.cos(_ANGLES)
_ODD: Final = np.sin(_ANGLES)


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of fault a channel has. `size` is in scaled units, or a factor; `partner`: a channel, -1: none.

    stuck: since which `row`, at which `level`. level-shift, spike, drift: how far off; `last`: the last row of a step
    that was taken back, -1: it is there. noise: how many times as strong.
    oscillation: how many times as wide; `period`, `usual_period` in rows, 0: not known. relation: to which channel.
    context: at which `level`, how far off what is usual at this `hour` of the day, or of this `weekday`, -1: of any.
    """

    name: Fault
    row: int | None = None
    size: float = 0.0
    level: float = 0.0
    period: float = 0.0
    usual_period: float = 0.0
    partner: int = -1
    hour: int = -1
    weekday: int = -1
    last: int = -1


class _Form(NamedTuple):
    """What may have happened, from which row on. `size`: how far off in scaled units, or rows of a cycle.

    over: a step that was taken back, `last` being its last row.
    """

    gain: float
    name: Literal["level-shift", "over", "spike", "drift", "oscillation"]
    row: int
    size: float
    last: int = -1


def kind_of(z: F64, channel: int, row: int, ridge: F64, level: float) -> Kind:
    """What sort of fault a channel of the window z (100, C) has since about a row.

    `ridge` (99,), `level`: the channel's forecast, and where it usually lies.
    """
    x, usual = z[:, channel] - level, usual_of(ridge)
    white = usual.whiten @ x
    begin = min(max(row, 0), len(x) - NEWEST)  # an onset at the very end leaves no row to look at
    run = longest_run(x) if ridge.any() else None  # what never moved is not stuck
    if run is not None and run.last >= begin - _AROUND and not _leaves(x, white, run.first):
        return Kind("stuck", row=run.first, level=float(z[run.first, channel]))
    variance = _variance(white, begin)
    white /= math.sqrt(variance)
    after = x[begin:]
    times = float(np.square(white[begin:]).mean())
    if len(after) >= OLDER and run is None and usual.calm(after[-2 * OLDER :]) < _QUIET * variance:
        return Kind("noise", size=min(math.sqrt(times), math.sqrt(_QUIET)))
    if z.shape[1] > 1 and _like_itself(usual, after) < _LIKE_ITSELF * variance and _apart(z, channel, begin, times):
        return Kind("relation", partner=_partner(z[: max(begin, OLDER)], channel))
    cycling = usual.cycling(after)
    gone = cycling is not None and cycling < _GONE * min(1.0, float(x.var()))
    form = _likeliest(usual, white, begin)
    if form.gain > _SURE and form.gain > _EXPLAINS * _excess(white, begin, form):
        stepped = form.name in ("level-shift", "over")
        if gone and (form.name == "drift" or (stepped and 2 * usual.cycle <= len(after))):
            return _without_its_cycle(x, begin, usual)
        return _said(form, x, begin, math.sqrt(variance))
    if gone:
        return _without_its_cycle(x, begin, usual)
    if times > _NOISY and times - 1 > _AROUND * math.sqrt(2 / len(after)):
        return Kind("noise", size=math.sqrt(times))
    if abs(x.mean()) > _OFF:
        return _said(_Form(0.0, "drift", 0, 0.0), x, begin, 1.0)
    return Kind("unusual")


def _variance(white: F64, begin: int) -> float:
    """The usual mean square of whitened rows: of those before the onset; few of them are joined by what the profile
    lets expect, which is 1, or less where no row of the window is as lively.
    """
    before = white[1:begin]
    if begin >= OLDER:
        return float(np.square(before).mean()) + _TINY
    expected = min(1.0, float(np.square(white[1:]).mean()))
    return (float(before @ before) + OLDER * expected) / (begin + OLDER) + _TINY


def _leaves(x: F64, white: F64, row: int) -> bool:
    """Whether with a row the channel jumps to where it never is: then it is switched off, say, and does not stick.

    That nothing before the row let expect it is not known of the first rows of a window.
    """
    if row < OLDER or abs(x[row]) <= _WITHIN:
        return False
    return bool(abs(white[row]) > _JUMP * math.sqrt(float(np.square(white[1:row]).mean()) + _TINY))


def _likeliest(usual: Usual, white: F64, begin: int) -> _Form:
    """The form that gains most. A slope resembles a step, so a step has to be clearer. So has what may take more
    shapes: over few rows a cycle of any length and phase resembles whatever there is.
    """
    best = {form.name: form for form in sorted(_forms(usual, white, begin))}
    flexible = best.pop("over"), best.pop("oscillation")
    plain = max(best.values()).gain
    best |= {form.name: form for form in flexible if form.gain >= plain + _CLEARER}
    if best["level-shift"].gain < best["drift"].gain + _CLEARER:
        del best["level-shift"]
    return max(best.values())


def _forms(usual: Usual, white: F64, begin: int) -> Iterator[_Form]:
    """The best of each form, whitened alike. A slope may have begun before the window, the others about `begin`."""
    first = max(begin - _AROUND, 1)
    steps, since = sums(usual.whiten[first:, first:]), white[first:]  # a step is 0 before it begins
    step = _best("level-shift", steps[:, :-_AROUND], since, first)
    yield step
    yield _over(steps, since, first, step.row - first)
    for width in range(1, _SPIKE_ROWS + 1):
        yield _best("spike", steps[:, : -_AROUND - width] - steps[:, width:-_AROUND], since, first)
    along = sums(sums(white @ usual.whiten))[:-_SLOPE_ROWS]
    yield _clearest("drift", along, usual.slopes[:-_SLOPE_ROWS], 0)
    yield _Form(float(np.square(white @ usual.straight).sum()) - 1, "drift", 0, 0.0)
    yield _cycle(usual, white[begin:], begin)


def _over(steps: F64, white: F64, first: int, step: int) -> _Form:
    """The best step that was taken back, of whitened steps (n, n): it is over by now.

    It began about the onset, or about the best `step`.
    """
    rows = np.arange(len(white))
    begins = np.flatnonzero((rows <= 2 * _AROUND) | (np.abs(rows - step) <= _AROUND))
    along, power = white @ steps, np.square(steps).sum(axis=0)
    both = power[begins, None] + power - 2 * steps[:, begins].T @ steps
    there = (rows - begins[:, None] > _SPIKE_ROWS) & (rows < len(white) - _AROUND)
    parts = along[begins, None] - along
    gains = np.where(there, parts * parts / (both + _TINY), 0.0)
    at, end = divmod(int(gains.argmax()), len(white))
    size = float(parts[at, end] / (both[at, end] + _TINY))
    return _Form(float(gains[at, end]), "over", first + int(begins[at]), size, first + end - 1)


def _best(name: Literal["level-shift", "spike"], forms: F64, white: F64, first: int) -> _Form:
    """The best of whitened forms (k, n), one for each row from `first` on."""
    return _clearest(name, white @ forms, np.square(forms).sum(axis=0), first)


def _clearest(name: Literal["level-shift", "spike", "drift"], along: F64, power: F64, first: int) -> _Form:
    """The best of n forms: the window's part along each, and the form's own sum of squares."""
    gains = along * along / (power + _TINY)
    at = int(gains.argmax())
    return _Form(float(gains[at]), name, first + at, float(along[at] / (power[at] + _TINY)))


def _cycle(usual: Usual, white: F64, begin: int) -> _Form:
    """The best cycle in the whitened rows since `begin`, beside a change of the usual one: it may go on, or be gone."""
    rows = len(white)
    whiten, fits = usual.whiten[begin:, begin:], int(np.searchsorted(_FREQUENCIES * rows, 2))
    even, odd, rest = whiten @ _EVEN[:rows, fits:], whiten @ _ODD[:rows, fits:], white
    changes = 0
    if usual.share >= PROMINENT:
        angle = 2 * np.pi * np.arange(rows) / usual.cycle
        changed = np.linalg.qr(whiten @ np.column_stack([np.cos(angle), np.sin(angle)]))[0]
        even, odd, rest = (of - changed @ (changed.T @ of) for of in (even, odd, rest))
        changes = changed.shape[1]
    ee, oo, eo = np.square(even).sum(axis=0), np.square(odd).sum(axis=0), (even * odd).sum(axis=0)
    e, o = rest @ even, rest @ odd
    gains = (oo * e * e - 2 * eo * e * o + ee * o * o) / (ee * oo - eo * eo + _TINY)
    at = int(gains.argmax())
    gain = float(gains[at] + white @ white - rest @ rest) - 1 - changes
    return _Form(gain, "oscillation", begin, 1 / float(_FREQUENCIES[fits + at]))


def _excess(white: F64, begin: int, form: _Form) -> float:
    """What a form has to explain: the sum of squares since it began, beyond the usual."""
    since = white[0 if form.name == "drift" else min(form.row, begin) :]
    return float(since @ since) - len(since)


def _said(form: _Form, x: F64, begin: int, unit: float) -> Kind:
    if form.name == "oscillation":
        before = float(x[:begin].std()) if begin >= OLDER else 1.0
        return Kind("oscillation", size=float(x[begin:].std()) / (before + _TINY), period=form.size)
    if form.name == "drift":
        mean, now = float(x.mean()), float(x[-OLDER:].mean())
        return Kind("drift", size=now if mean * now > 0 else mean)
    return Kind("spike" if form.name == "spike" else "level-shift", size=form.size * unit, last=form.last)


def _without_its_cycle(x: F64, begin: int, usual: Usual) -> Kind:
    """A sensor that does not swing as it used to. Which cycle it has now is said if it has one."""
    return Kind("oscillation", size=float(x.std()), period=_cycle_of(x[begin:]), usual_period=usual.cycle)


def _cycle_of(x: F64) -> float:
    """Rows of the one cycle that has most of the variance of x; 0: none has, or it does not fit in twice."""
    power = np.square(np.abs(np.fft.rfft((x - x.mean()) * np.hanning(len(x) + 2)[1:-1])))
    at = int(power.argmax())
    alone = power[max(at - 1, 0) : at + 2].sum() > _EXPLAINS * power.sum()
    return len(x) / at if alone and at >= 2 else 0.0


def _like_itself(usual: Usual, x: F64) -> float:
    """How far rows x lie, squared, from what they let expect of each other, whatever was before them."""
    return float(np.square(usual.whiten[: len(x), : len(x)] @ x).mean())


def _apart(z: F64, channel: int, begin: int, times: float) -> bool:
    """Whether a forecast that knows the other channels has become worse by far more than one that does not (`times`),
    and that is not because the channel lies elsewhere, or drifts there.
    """
    known, new = max(begin, OLDER), min(max(begin, OLDER) + _AROUND, len(z) - NEWEST // 2)
    squares = np.square(innovations(z, channel, known))
    worse = float(squares[new:].mean() / (squares[LAGS:known].mean() + _TINY))
    if worse <= UNUSUAL * max(times, 1.0):
        return False
    others, x = np.column_stack([np.delete(z, channel, axis=1), np.ones(len(z))]), z[:, channel]
    off = (x - others @ fit(others[:known], x[:known]))[new:]
    line = np.column_stack([np.ones(len(off)), np.arange(len(off))])
    rest = off - line @ np.linalg.lstsq(line, off, rcond=None)[0]
    return bool(np.square(rest).sum() > (1 - _STEADY) * np.square(off).sum())


def _partner(z: F64, channel: int) -> int:
    """The channel that this one went with, as far as these rows say."""
    centred = z - z.mean(axis=0)
    like = np.abs(centred[:, channel] @ centred) / (np.sqrt(np.square(centred).sum(axis=0)) + _TINY)
    like[channel] = -1.0
    return int(like.argmax())
