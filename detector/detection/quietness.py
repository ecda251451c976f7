"""Noise that dies down: the rule of evidence beside the score, from how calm a prefix is at its calmest.

A filter that was left on, a sensor half dead or a process that froze makes every signal smaller: nothing is wrong but
that less happens. This rule looks at how well a channel is forecast. Two averages follow its squared errors: a *quick*
one over some 150 rows, and a *slow* one that sinks after it within some 1 000 and rises again within some 16 000. The
*hush* is how many times smaller the quick one is than what is usual: the mean of the prefix, or the slow average where
that is less, so that a calm that lasts, or comes again every night, becomes usual. It is compared with the largest one
of the prefix, with room, and the more of it the shorter the prefix is. Below that limit the rule says nothing.

A value that sticks is another rule's business (see stillness.py): a run that is too long leaves both averages alone.

The function of a `Sensor` is a twin of that in recurrences.c; see sensor.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, Bools
from detector.detection.sensor import Sensor, larger, smaller

QUICK_RATE: Final = 2 / (150 + 1)
SINKING_RATE: Final = 2 / (1000 + 1)
RISING_RATE: Final = 2 / (16000 + 1)
MOST: Final = 20.0
"""What a hush is worth at most, as a value that sticks; see `stillness.MOST`."""
LARGEST: Final = 2.0
"""Errors count no more than this many times the usual: a jump now and then does not make a channel loud."""
SILENCE: Final = 1e-12
"""An average of squared errors, in scaled units, is never less."""
FEWEST: Final = 400
"""Forecasts that a prefix has at least, if it is to say how calm the channel may be."""
_WILD: Final = 3.0
"""Medians: what is usual is the mean of errors that are limited to this."""
_ROOM: Final = 1.5
_SHORT: Final = 1000.0
"""Rows. A prefix of this length gives twice the room that a very long one gives."""
_LEAST: Final = math.log(2.0)
"""Errors that are not even twice as small as usual are nothing that a person sees."""
_NEWEST: Final = 40
"""Rows that say how calm a channel is now."""
_SURE: Final = 10.0
_HABIT: Final = 4.0
"""A channel that may become quieter than exp(-4) of what is usual has nothing to say: such calms are its habit."""


class Calm(NamedTuple):
    """A channel that is calmer than usual since a row of its window; `size`: the share of its noise that is left."""

    channel: int
    row: int
    size: float


class Noise(NamedTuple):
    """What a prefix says of the squared errors of forecasts, by channel (C,).

    `usual`: their mean, large ones limited; `hush`: how many times smaller than usual is too calm,
    infinity: there is no limit. `quick`, `slow`: the averages at the prefix's end.
    """

    usual: F64
    hush: F64
    quick: F64
    slow: F64


def noise_of(errors: F64, there: Bools) -> Noise:
    """By the squared errors (C, n) of a prefix's forecasts, of which those that are `there` (C, n) count.

    There is no limit where they are few, for a channel that is forecast exactly most of the time, and for one that is
    often calm.

    >>> errors = np.random.default_rng(0).normal(size=(1, 4000)) ** 2
    >>> noise_of(errors, np.full((1, 4000), True)).hush.round(1)
    array([2.])
    """
    return Noise(*np.array([_of_channel(column[kept]) for column, kept in zip(errors, there, strict=True)]).T.copy())


def _of_channel(errors: F64) -> tuple[float, float, float, float]:
    median = float(np.median(errors)) if len(errors) else 0.0
    if len(errors) < FEWEST or median <= SILENCE:
        return 1.0, math.inf, 1.0, 1.0
    usual = float(np.minimum(errors, _WILD * median).mean())
    quick = slow = usual
    calmest = 1.0
    for error in np.minimum(errors, LARGEST * usual).tolist():
        quick, slow = _moved(quick, slow, error)
        calmest = max(calmest, min(slow, usual) / max(quick, SILENCE))
    limit = _ROOM * (1 + _SHORT / len(errors)) * math.log(calmest)
    return usual, math.exp(max(limit, _LEAST)) if limit <= _HABIT else math.inf, quick, slow


def _moved(quick: float, slow: float, error: float) -> tuple[float, float]:
    """The two averages after an error."""
    quick += QUICK_RATE * (error - quick)
    return quick, slow + (SINKING_RATE if quick < slow else RISING_RATE) * (quick - slow)


def quiet(s: Sensor, errors: Sequence[float], values: Sequence[float], inside: bool) -> float:
    """What the hush of a row of C squared errors and values is worth; 0: it is not too calm.

    NaN is what a channel lacks: it counts for nothing. In a maintenance window (`inside`) a hush that is too calm does
    not become usual.
    """
    most = 0.0
    for i, error in enumerate(errors):
        if error != error or values[i] != values[i] or s.noise_hush[i] == math.inf:
            continue
        if s.still_rows[i] >= s.still_limit[i]:
            continue
        quick = s.noise_quick[i] + QUICK_RATE * (smaller(error, LARGEST * s.noise_usual[i]) - s.noise_quick[i])
        s.noise_quick[i] = quick
        least, usual = larger(quick, SILENCE), smaller(s.noise_slow[i], s.noise_usual[i])
        calm = usual >= s.noise_hush[i] * least
        if calm:
            limits = math.log(usual / least) / math.log(s.noise_hush[i])
            most = larger(smaller(limits * limits, MOST), most)
        if not (inside and calm):
            s.noise_slow[i] += (SINKING_RATE if quick < s.noise_slow[i] else RISING_RATE) * (quick - s.noise_slow[i])
    return most


def calmest(white: F64, asked: Bools) -> Calm:
    """The calmest of the channels that are `asked` (C,), by what rows leave open of those after them (100, C).

    It is calm since the row at which the mean of its squares likeliest fell; since before them, if none is likely.

    >>> white = np.random.default_rng(0).normal(size=(100, 2))
    >>> white[60:, 1] *= 0.1
    >>> calmest(white, np.array([True, True]))[:2]
    (1, 60)
    """
    squares, rows = np.square(white), len(white)
    now = np.where(asked, squares[-_NEWEST:].mean(axis=0), np.inf)
    channel = int(now.argmin())
    cuts = np.arange(_NEWEST // 4, rows - _NEWEST // 4 + 1)
    total = np.cumsum(squares[:, channel]) + SILENCE
    before, after = total[cuts - 1] / cuts, (total[-1] - total[cuts - 1] + SILENCE) / (rows - cuts)
    gain = rows * math.log(total[-1] / rows) - cuts * np.log(before) - (rows - cuts) * np.log(after)
    gain[after >= before] = 0.0
    best = int(gain.argmax())
    row = int(cuts[best]) if gain[best] > _SURE else 0
    return Calm(channel, row, min(math.sqrt(float(now[channel])), 1.0))
