"""A catalogue of faults that a person sees in the plot, to put into recorded or made-up values. numpy only, seeded.

Every fault comes in three sizes: 1 small, 2 middle, 3 large. What a size comes to is in `SIZES`, in units of the
healthy sensor itself (`Healthy`): its robust spread, the spread of its steps, its period, its day. Faults that are told
by how long they last, such as a value that sticks, take a share of the length they are given.

A fault that has no meaning for a sensor, such as a missing cycle where there is none, raises `MeaninglessError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64

SIZES: Final[dict[str, tuple[float, float, float]]] = {
    "stuck": (0.25, 0.5, 1.0),
    "offset": (1.5, 3.0, 6.0),
    "drift": (2.0, 4.0, 8.0),
    "gain": (1.5, 2.0, 3.0),
    "spike": (6.0, 10.0, 20.0),
    "noise up": (1.0, 2.0, 4.0),
    "noise down": (0.5, 0.25, 0.1),
    "frequency": (1.25, 1.6, 2.5),
    "clipping": (1.0, 0.5, 0.0),
    "quantisation": (0.5, 1.0, 2.0),
    "delay": (0.1, 0.25, 0.5),
    "missing cycle": (1.0, 2.0, 4.0),
    "repeated segment": (0.25, 0.5, 1.0),
    "dropout": (0.25, 0.5, 1.0),
    "night run": (0.25, 0.5, 1.0),
    "day off": (0.25, 0.5, 1.0),
    "relation broken": (0.5, 0.75, 1.0),
    "swapped channels": (0.5, 0.75, 1.0),
}
"""What sizes 1, 2 and 3 come to: see `put` for the units."""
FAULTS: Final = tuple(SIZES)

_SPIKE_ROWS: Final = 3
_SEGMENT_ROWS: Final = 50
_LEAST_CYCLE: Final = 4
_SURE: Final = 0.3
"""Autocorrelation from which on a lag is a period."""
_DELAY_ROWS: Final = 100.0
"""In place of a period where there is none."""
_NORMAL_IQR: Final = 1.349
_NORMAL_RANGE: Final = 3.29


class MeaninglessError(ValueError):
    """The sensor has not what the fault would change. Says what it lacks."""


@dataclass(frozen=True, slots=True)
class Healthy:
    """What a sensor with C channels is like in good health.

    `center`, `spread`, `noise` (C,): median, robust deviation of the values, and of their steps from row to row over
    the root of 2, each in the unit of the values. `period`: rows of the cycle of each channel; None: there is none.
    `day`: rows of a day, where the values repeat daily.

    >>> wave = np.sin(2 * np.pi * np.arange(1000) / 40)[:, None]
    >>> Healthy.of(wave).period
    (40,)
    """

    center: F64
    spread: F64
    noise: F64
    period: tuple[int | None, ...]
    day: int | None = None

    @classmethod
    def of(cls, values: F64, day: int | None = None) -> Healthy:
        """From healthy rows (n, C), NaN where missing. `day`: the rows of one, which counts where values go by it."""
        columns = [column[np.isfinite(column)] for column in values.T]
        repeats = day is not None and any(_repeats(column, day) for column in columns)
        return cls(
            center=np.array([np.median(column) if len(column) else 0.0 for column in columns]),
            spread=np.array([_spread(column) for column in columns]),
            noise=np.array([_spread(np.diff(column)) / math.sqrt(2) for column in columns]),
            period=tuple(_period(column) for column in columns),
            day=day if repeats else None,
        )


class Injected(NamedTuple):
    """Values (n, C) with a fault, NaN where missing, and the rows concerned: `first` .. `stop` - 1."""

    values: F64
    first: int
    stop: int


@dataclass(slots=True)
class _Case:
    """One fault to be made: `values` may be written to, `before` may not."""

    values: F64
    before: F64
    channel: int
    first: int
    rows: int
    amount: float
    sided: bool
    healthy: Healthy
    rng: np.random.Generator

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + self.rows)

    @property
    def own(self) -> F64:
        """The channel's column, to write to."""
        return self.values[:, self.channel]

    @property
    def center(self) -> float:
        return float(self.healthy.center[self.channel])

    @property
    def spread(self) -> float:
        return float(self.healthy.spread[self.channel])

    @property
    def noise(self) -> float:
        return float(self.healthy.noise[self.channel])

    @property
    def period(self) -> int | None:
        return self.healthy.period[self.channel]

    def part(self) -> int:
        """Rows of a fault whose size is its length."""
        return max(1, round(self.rows * self.amount))

    def added(self) -> float:
        """What is added, in the unit of the values: upwards or downwards, unless that was chosen."""
        side = 1.0 if self.sided else float(self.rng.choice((-1.0, 1.0)))
        return side * self.amount * self.spread

    def need_period(self) -> int:
        if self.period is None:
            raise MeaninglessError("it has no cycle")
        return self.period

    def other(self) -> int:
        """Another channel."""
        channels: int = self.values.shape[1]
        if channels < 2:
            raise MeaninglessError("it has one channel")
        return (self.channel + 1 + int(self.rng.integers(channels - 1))) % channels


def put(
    fault: str,
    values: F64,
    first: int,
    rows: int,
    size: int,
    healthy: Healthy,
    rng: np.random.Generator,
    *,
    channel: int = 0,
    amount: float | None = None,
) -> Injected:
    """Put a fault of a size 1, 2 or 3 into one channel of healthy values (n, C) from row `first` on, for `rows` rows.

    `amount` goes before the size: spreads that are added (`offset`, `spike`; of `drift` those at its end; a negative
    amount goes down, while a size goes either way), a factor (`gain`, `frequency`), units of the noise that are added
    (`noise up`) or the share that is left of it (`noise down`), spreads above the median (`clipping`), spreads in a
    step (`quantisation`), the share of a period (`delay`), cycles (`missing cycle`), the share of what is foreign in
    what is read (`relation broken`, `swapped channels`), of a night or a day (`night run`, `day off`), of `rows` (the
    others).

    Raises MeaninglessError where the fault has no meaning for the sensor, changes nothing, or does not fit before the
    end of the values; KeyError for an unknown fault.

    >>> flat, rng = np.zeros((10, 1)), np.random.default_rng(0)
    >>> one = Healthy(np.zeros(1), np.ones(1), np.ones(1), (None,))
    >>> put("offset", flat, 6, 3, 2, one, rng, amount=3.0).values[:, 0].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 0.0]
    """
    make = _MAKERS[fault]
    sided = amount is not None
    amount = SIZES[fault][size - 1] if amount is None else amount
    case = _Case(values.copy(), values, channel, first, rows, amount, sided, healthy, rng)
    begin, stop = make(case)
    if not 0 <= begin < stop <= len(values):
        raise MeaninglessError("its rows end before the fault does")
    same = (case.values == values) | (np.isnan(case.values) & np.isnan(values))
    if same.all():
        raise MeaninglessError("it changes nothing here")
    return Injected(case.values, begin, stop)


# -- of one channel --------------------------------------------------------------------------------------------------


def _stuck(case: _Case) -> tuple[int, int]:
    stop = case.first + case.part()
    case.own[case.first : stop] = case.before[max(case.first - 1, 0), case.channel]
    return case.first, stop


def _offset(case: _Case) -> tuple[int, int]:
    case.own[case.span] += case.added()
    return case.first, case.first + case.rows


def _drift(case: _Case) -> tuple[int, int]:
    case.own[case.span] += case.added() * _ramp(case)
    return case.first, case.first + case.rows


def _gain(case: _Case) -> tuple[int, int]:
    case.own[case.span] = case.center + case.amount * (case.own[case.span] - case.center)
    return case.first, case.first + case.rows


def _spike(case: _Case) -> tuple[int, int]:
    rows = min(case.rows, int(case.rng.integers(1, _SPIKE_ROWS + 1)))
    case.own[case.first : case.first + rows] += case.added()
    return case.first, case.first + rows


def _noise_up(case: _Case) -> tuple[int, int]:
    case.own[case.span] += case.rng.normal(0.0, case.amount * case.noise, len(case.own[case.span]))
    return case.first, case.first + case.rows


def _noise_down(case: _Case) -> tuple[int, int]:
    """What lies around a running mean of 21 rows shrinks towards it."""
    half = 10
    padded = np.pad(case.own[case.span], half, mode="reflect") if case.rows > half else case.own[case.span]
    if case.rows > half:
        mean = np.convolve(padded, np.ones(2 * half + 1) / (2 * half + 1), mode="valid")
        case.own[case.span] = mean + case.amount * (case.own[case.span] - mean)
    return case.first, case.first + case.rows


def _frequency(case: _Case) -> tuple[int, int]:
    """The course goes faster; what it reaches then is what comes later, or came before, at its own pace."""
    period = case.need_period()
    at = case.first + np.floor(np.arange(case.rows) * case.amount).astype(np.int64)
    # Back by whole periods where the values end.
    over = np.maximum(at - (len(case.before) - 1), 0)
    at -= -(-over // period) * period
    if at.min(initial=0) < 0:
        raise MeaninglessError("its rows end before the fault does")
    case.own[case.span] = case.before[at, case.channel]
    return case.first, case.first + case.rows


def _clipping(case: _Case) -> tuple[int, int]:
    case.own[case.span] = np.minimum(case.own[case.span], case.center + case.amount * case.spread)
    return case.first, case.first + case.rows


def _quantisation(case: _Case) -> tuple[int, int]:
    step = case.amount * case.spread
    case.own[case.span] = case.center + np.round((case.own[case.span] - case.center) / step) * step
    return case.first, case.first + case.rows


def _missing_cycle(case: _Case) -> tuple[int, int]:
    """Some cycles do not happen: the values stay where they are, with their noise."""
    stop = case.first + round(case.need_period() * case.amount)
    rows = max(min(stop, len(case.own)) - case.first, 0)
    level = float(case.before[max(case.first - 1, 0), case.channel])
    case.own[case.first : stop] = level + case.rng.normal(0.0, case.noise, rows)
    return case.first, stop


def _repeated(case: _Case) -> tuple[int, int]:
    """A piece of what was just read comes again and again."""
    length = min(max(case.period or 0, _SEGMENT_ROWS), case.first)
    if not length:
        raise MeaninglessError("there is nothing before it to repeat")
    stop = case.first + case.part()
    piece = case.before[case.first - length : case.first, case.channel]
    rows = max(min(stop, len(case.own)) - case.first, 0)
    case.own[case.first : stop] = np.resize(piece, rows)
    return case.first, stop


def _dropout(case: _Case) -> tuple[int, int]:
    stop = case.first + case.part()
    case.own[case.first : stop] = np.nan
    return case.first, stop


# -- of the day ------------------------------------------------------------------------------------------------------


def _night_run(case: _Case) -> tuple[int, int]:
    return _against_the_clock(case, busy=False)


def _day_off(case: _Case) -> tuple[int, int]:
    return _against_the_clock(case, busy=True)


def _against_the_clock(case: _Case, *, busy: bool) -> tuple[int, int]:
    """The next time of the day that is usually `busy` looks like the other one did last."""
    day = case.healthy.day
    if day is None:
        raise MeaninglessError("it has no day")
    column = case.before[:, case.channel]
    usual = np.array([np.nanmedian(column[phase : case.first : day]) for phase in range(day)])
    low, high = float(np.nanmin(usual)), float(np.nanmax(usual))
    active = usual > (low + high) / 2
    phases = active[np.arange(len(column)) % day]
    if phases.all() or not phases.any():
        raise MeaninglessError("it has no day")
    wanted = np.flatnonzero((phases == busy)[case.first :]) + case.first
    fresh = wanted[np.concatenate([[False], np.diff(wanted) > 1])] if len(wanted) else wanted
    if not len(fresh):
        raise MeaninglessError("its rows end before the fault does")
    begin = int(fresh[0])
    rest = np.flatnonzero(phases[begin:] != busy)
    length = int(rest[0]) if len(rest) else len(column) - begin
    stop = begin + max(1, round(length * case.amount))
    # The last rows that looked like the other, of a day on which the machine ran.
    others = np.flatnonzero((phases[: case.first] != busy) & ((column[: case.first] > (low + high) / 2) != busy))
    if not len(others):
        raise MeaninglessError("it has no day")
    case.own[begin:stop] = np.resize(column[others[-length:]], stop - begin)
    return begin, stop


# -- of several channels ---------------------------------------------------------------------------------------------


def _delay(case: _Case) -> tuple[int, int]:
    """The channel lags behind the others."""
    case.other()
    lag = max(1, round(case.amount * (case.period or _DELAY_ROWS)))
    if lag > case.first:
        raise MeaninglessError("there is nothing before it to repeat")
    case.own[case.span] = case.before[case.first - lag : case.first - lag + case.rows, case.channel]
    return case.first, case.first + case.rows


def _relation(case: _Case) -> tuple[int, int]:
    """The channel reads what it read at another time: healthy by itself, and foreign to the others."""
    case.other()
    if case.first < 2:
        raise MeaninglessError("there is nothing before it to repeat")
    room = max(case.first - case.rows, 1)
    begin = int(case.rng.integers(room))
    foreign = np.resize(case.before[begin : case.first, case.channel], len(case.own[case.span]))
    case.own[case.span] += case.amount * (foreign - case.own[case.span])
    return case.first, case.first + case.rows


def _swapped(case: _Case) -> tuple[int, int]:
    """Two channels read each other, each in its own unit."""
    other, healthy = case.other(), case.healthy
    for one, its in ((case.channel, other), (other, case.channel)):
        read = (case.before[case.span, its] - healthy.center[its]) / healthy.spread[its]
        foreign = healthy.center[one] + healthy.spread[one] * read
        case.values[case.span, one] += case.amount * (foreign - case.values[case.span, one])
    return case.first, case.first + case.rows


_MAKERS: Final[dict[str, Callable[[_Case], tuple[int, int]]]] = {
    "stuck": _stuck,
    "offset": _offset,
    "drift": _drift,
    "gain": _gain,
    "spike": _spike,
    "noise up": _noise_up,
    "noise down": _noise_down,
    "frequency": _frequency,
    "clipping": _clipping,
    "quantisation": _quantisation,
    "delay": _delay,
    "missing cycle": _missing_cycle,
    "repeated segment": _repeated,
    "dropout": _dropout,
    "night run": _night_run,
    "day off": _day_off,
    "relation broken": _relation,
    "swapped channels": _swapped,
}


# -- what a sensor is like -------------------------------------------------------------------------------------------


def _ramp(case: _Case) -> F64:
    ramp: F64 = np.arange(1, len(case.own[case.span]) + 1) / case.rows
    return ramp


def _spread(values: F64) -> float:
    """The robust deviation; of what hardly ever moves a plain one; 1 of what never does."""
    if not len(values):
        return 1.0
    low, first, third, high = np.quantile(values, (0.05, 0.25, 0.75, 0.95)).tolist()
    found = ((third - first) / _NORMAL_IQR, (high - low) / _NORMAL_RANGE, float(np.std(values)))
    return next((one for one in found if one > 0 and math.isfinite(one)), 1.0)


def _correlation(values: F64) -> F64:
    """The autocorrelation of values (n,) at lags 0 .. n - 1, of each against what remains."""
    centred = values - values.mean()
    power = np.abs(np.fft.rfft(centred, 2 * len(values))) ** 2
    together = np.fft.irfft(power)[: len(values)]
    out: F64 = together / together[0] * len(values) / np.arange(len(values), 0, -1)
    return out


def _period(values: F64) -> int | None:
    """The lag of the first high peak of the autocorrelation beyond its first fall below 0."""
    if len(values) < 4 * _LEAST_CYCLE or np.ptp(values) == 0:
        return None
    correlation = _correlation(values)[: len(values) // 3]
    below = np.flatnonzero(correlation < 0)
    if not len(below):
        return None
    rest = correlation[below[0] :]
    best = float(rest.max())
    if best < _SURE:
        return None
    # The first that is nearly as high: multiples of a period are as good.
    near = below[0] + np.flatnonzero(rest >= 0.9 * best)
    run = near[: int(np.argmax(np.diff(near, append=len(values)) > 1)) + 1]
    lag = int(run[np.argmax(correlation[run])])
    return lag if lag >= _LEAST_CYCLE else None


def _repeats(values: F64, day: int) -> bool:
    if len(values) < 2 * day or np.ptp(values) == 0:
        return False
    return bool(_correlation(values)[day] >= _SURE)
