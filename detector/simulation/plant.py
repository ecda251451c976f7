"""A simulated plant: sensors as an engineer knows them, with faults that are labelled. numpy only, seeded.

A healthy sensor is a level, a machine cycle whose period wobbles, the course of the day, a slow drift, and noise that
is partly white and partly correlated; sizes are in units of the noise. Sensors differ in physical kind, scale (a
pressure near 101 325, a vibration near 4) and sampling interval (1 s to 60 s). The first part of every sensor is free
of faults, to train on. All sensors end at the same moment, so the slow ones begin earlier.

The same arguments give the same bytes.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np

from detector.arrays import F64, I64

FAULTS: Final = ("spike", "stuck-at", "level-shift", "drift", "frequency-change", "dropout")

# More would not fit the memory of an ordinary machine.
MAX_READINGS: Final = 50_000_000

_SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND
# When the plant's last reading is taken: 2026-03-01T00:00:00Z.
_END: Final = 1_772_323_200 * _SECOND
# With 5 kinds this gives 20 different combinations.
_INTERVALS: Final = (1, 5, 10, 60)
# Rows of an ordinary sensor in which one fault is put; the rest of them is for the detector to calm down.
_ROWS_PER_FAULT: Final = 2_500
_LEAST_ROWS_FOR_A_FAULT: Final = 400
# Duration in rows, and size in units of the noise.
_DURATIONS: Final = {
    "spike": (1, 4),
    "stuck-at": (150, 500),
    "level-shift": (150, 700),
    "drift": (400, 1000),
    "frequency-change": (300, 700),
    "dropout": (40, 300),
}
_SIZES: Final = {"spike": (8.0, 20.0), "level-shift": (6.0, 14.0), "drift": (8.0, 18.0)}


class Kind(NamedTuple):
    """What a kind of sensor measures. `noise` is in `unit`, the amplitudes are in units of the noise."""

    name: str
    unit: str
    level: float
    noise: float
    cycle: float
    daily: float
    decimals: int
    counts: bool = False


KINDS: Final = (
    Kind("temperature", "°C", 68.0, 0.25, 6.0, 3.0, 2),
    Kind("pressure", "Pa", 101_325.0, 45.0, 4.0, 2.0, 1),
    Kind("vibration", "mm/s", 4.2, 0.12, 3.0, 1.0, 3),
    Kind("flow", "m3/h", 120.0, 1.4, 5.0, 2.0, 2),
    Kind("count", "1", 60.0, math.sqrt(60.0), 2.5, 1.0, 0, counts=True),
)


class Label(NamedTuple):
    """One fault: the first and the last affected (or missing) reading, ns since the epoch."""

    sensor_id: str
    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Series:
    """One sensor's readings: `times` (n,) int64 ns, strictly increasing, and `values` (n,) float64.

    `n` is below the number of rows asked for by what dropouts took. The first `healthy_rows` have no fault.
    """

    sensor_id: str
    kind: Kind
    interval: int
    times: I64
    values: F64
    healthy_rows: int


@dataclass(frozen=True, slots=True)
class Plant:
    """Everything that was simulated; `labels` are in the order of their start."""

    series: tuple[Series, ...]
    labels: tuple[Label, ...]

    @property
    def readings(self) -> int:
        return sum(one.times.size for one in self.series)


class FieldNames(NamedTuple):
    """What the parts of a reading are called in its JSON."""

    sensor_id: str = "sensor_id"
    timestamp: str = "timestamp"
    value: str = "value"


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: str
    start: int
    stop: int


@dataclass(slots=True)
class _Plan:
    faults: list[_Fault] = field(default_factory=list)


def simulate(*, sensors: int, rows: int, seed: int, faults: Sequence[str] = FAULTS) -> Plant:
    """Simulate `rows` sampling instants of each of `sensors` sensors.

    `faults` are names of FAULTS; every fifth sensor has none, the others get the kinds in turn. Adding rows or sensors
    changes the plant; only equal arguments give equal plants. Raises ValueError for arguments out of range.

    >>> plant = simulate(sensors=2, rows=1000, seed=1)
    >>> list(lines(plant)) == list(lines(simulate(sensors=2, rows=1000, seed=1)))
    True
    """
    if sensors < 1 or rows < 1:
        raise ValueError("a plant needs at least one sensor and one row")
    if sensors * rows > MAX_READINGS:
        raise ValueError(f"{sensors} sensors of {rows} rows are more than {MAX_READINGS} readings")
    if unknown := [name for name in faults if name not in FAULTS]:
        raise ValueError(f"unknown fault `{unknown[0]}`; known are {', '.join(FAULTS)}")
    if seed < 0:
        raise ValueError("a seed is not negative")
    plans = _plan(sensors, rows, faults, np.random.default_rng([seed, 0]))
    width = max(2, len(str(sensors)))
    series: list[Series] = []
    labels: list[Label] = []
    for index, plan in enumerate(plans):
        kind = KINDS[index % len(KINDS)]
        name = f"{kind.name}-{index + 1:0{width}d}"
        interval = _INTERVALS[index % len(_INTERVALS)] * _SECOND
        one, marks = _sensor(name, kind, interval, rows, plan, np.random.default_rng([seed, 1, index]))
        series.append(one)
        labels += marks
    labels.sort(key=lambda label: (label.start, label.sensor_id))
    return Plant(tuple(series), tuple(labels))


def healthy_rows(rows: int) -> int:
    """How many rows at the start of a sensor have no fault: 40 %, and 2 000 where that leaves half for faults."""
    return max(rows * 2 // 5, min(2_000, rows // 2))


def _plan(sensors: int, rows: int, faults: Sequence[str], rng: np.random.Generator) -> list[_Plan]:
    """Choose which sensor gets which fault when. Kinds take turns, so each comes up equally often."""
    plans = [_Plan() for _ in range(sensors)]
    healthy = healthy_rows(rows)
    room = rows - healthy
    if not faults or room < _LEAST_ROWS_FOR_A_FAULT:
        return plans
    slots = max(1, room // _ROWS_PER_FAULT)
    length = room // slots
    turn = itertools.cycle(faults)
    faulty = rng.permutation(sensors)[sensors // 5 :]
    for slot in range(slots):
        for index in faulty:
            kind = next(turn)
            low, high = _DURATIONS[kind]
            duration = min(int(rng.integers(low, high)), length * 2 // 5)
            # Time to settle before it, and after it before the next one.
            start = healthy + slot * length + int(rng.integers(length // 10, length * 9 // 10 - duration))
            plans[index].faults.append(_Fault(kind, start, start + duration))
    return plans


def _sensor(
    name: str, kind: Kind, interval: int, rows: int, plan: _Plan, rng: np.random.Generator
) -> tuple[Series, list[Label]]:
    """Simulate one sensor; its random numbers are its own."""
    jitter = rng.integers(-interval // 100, interval // 100 + 1, rows) // _MILLISECOND * _MILLISECOND
    offset = int(rng.integers(0, interval // _MILLISECOND)) * _MILLISECOND
    times = _END - offset - np.arange(rows - 1, -1, -1, dtype=np.int64) * interval + jitter
    scale = kind.noise * float(rng.uniform(0.8, 1.25))
    level = kind.level * float(rng.uniform(0.97, 1.03))
    course = _cycle(rows, plan, rng) * kind.cycle + _slow(times, kind, rng)
    if kind.counts:
        values = rng.poisson(np.maximum(level + scale * course, 0.0)).astype(np.float64)
    else:
        values = level + scale * (course + _noise(rows, rng))
    for fault in plan.faults:
        _apply(fault, values, scale, rng)
    values = np.maximum(values, 0.0).round(kind.decimals)
    missing = np.zeros(rows, dtype=np.bool_)
    for fault in plan.faults:
        missing[fault.start : fault.stop] |= fault.kind == "dropout"
    labels = [Label(name, int(times[f.start]), int(times[f.stop - 1]), f.kind) for f in plan.faults]
    return Series(name, kind, interval, times[~missing], values[~missing], healthy_rows(rows)), labels


def _cycle(rows: int, plan: _Plan, rng: np.random.Generator) -> F64:
    """The machine's cycle, about 1 high: a wave that is no pure sine, with a wandering phase."""
    step = np.full(rows, 2.0 * math.pi / float(rng.uniform(25.0, 90.0)), dtype=np.float64)
    step += rng.normal(0.0, 0.01, rows)
    for fault in plan.faults:
        if fault.kind == "frequency-change":
            fast = bool(rng.integers(0, 2))
            step[fault.start : fault.stop] *= rng.uniform(2.0, 3.5) if fast else rng.uniform(0.2, 0.4)
    phase = np.cumsum(step) + rng.uniform(0.0, 2.0 * math.pi)
    wave: F64 = np.sin(phase) + 0.3 * np.sin(2.0 * phase + 1.0)
    return wave


def _slow(times: I64, kind: Kind, rng: np.random.Generator) -> F64:
    """The course of the day and a drift that adds up to about half the noise over the whole time."""
    phase = rng.uniform(0.0, 2.0 * math.pi)
    daily = kind.daily * np.sin((times % _DAY) * (2.0 * math.pi / _DAY) + phase)
    wander = np.cumsum(rng.normal(0.0, 0.5 / math.sqrt(times.size), times.size))
    return np.asarray(daily + wander, dtype=np.float64)


def _noise(rows: int, rng: np.random.Generator) -> F64:
    """Noise of variance 1: three quarters white, one quarter correlated over some ten rows."""
    memory = 0.9
    shocks = rng.normal(0.0, math.sqrt(1.0 - memory**2), rows).tolist()
    slow = np.fromiter(itertools.accumulate(shocks, lambda state, shock: memory * state + shock), np.float64, rows)
    return np.asarray(math.sqrt(0.75) * rng.normal(0.0, 1.0, rows) + math.sqrt(0.25) * slow, dtype=np.float64)


def _apply(fault: _Fault, values: F64, scale: float, rng: np.random.Generator) -> None:
    """Put the fault into `values`, in place. A change of frequency and a dropout are made elsewhere."""
    span = slice(fault.start, fault.stop)
    if fault.kind == "stuck-at":
        values[span] = values[fault.start]
        return
    if fault.kind not in _SIZES:
        return
    size = scale * float(rng.uniform(*_SIZES[fault.kind])) * float(rng.choice((-1.0, 1.0)))
    duration = fault.stop - fault.start
    # A drift grows from nothing until someone recalibrates the sensor; the others are there at once.
    values[span] += size * np.arange(1, duration + 1) / duration if fault.kind == "drift" else size


def lines(plant: Plant, names: FieldNames = FieldNames()) -> Iterator[bytes]:  # noqa: B008 (an immutable tuple)
    """Yield every reading as a JSON line, all sensors together in the order of time, as a broker would deliver them."""
    times = np.concatenate([one.times for one in plant.series])
    values = np.concatenate([one.values for one in plant.series])
    owners = np.repeat(np.arange(len(plant.series)), [one.times.size for one in plant.series])
    order = np.lexsort((owners, times))
    owner_key, time_key, value_key = (json.dumps(name) for name in names)
    heads = [f'{{{owner_key}: "{one.sensor_id}", {time_key}: "' for one in plant.series]
    middle = f'Z", {value_key}: '
    whole = [one.kind.decimals == 0 for one in plant.series]
    for start in range(0, order.size, 20_000):
        part = order[start : start + 20_000]
        stamps = np.datetime_as_string(times[part].view("datetime64[ns]"), unit="ms").tolist()
        for owner, stamp, value in zip(owners[part].tolist(), stamps, values[part].tolist(), strict=True):
            yield f"{heads[owner]}{stamp}{middle}{int(value) if whole[owner] else value}}}\n".encode()


def told_live(plant: Plant, rate: float, now: int, *, since: int = 0) -> Plant:
    """The plant with its line `since` taken at `now`, ns, at a speed at which `rate` lines a second follow on average.

    Intervals stay as regular as they were, those of what lies before as well; labels move along.

    >>> plant = told_live(simulate(sensors=1, rows=101, seed=0), 10.0, 10**18)
    >>> times = plant.series[0].times
    >>> int(times[0]), round(int(times[-1] - times[0]) / 1e9, 2)
    (1000000000000000000, 10.0)
    """
    times = _in_order(plant)
    begin = int(times[min(since, times.size - 1)])
    span, follow = int(times[-1]) - begin, times.size - 1 - since
    slower = follow / rate * _SECOND / span if span else 1.0

    def moved(instants: I64) -> I64:
        out: I64 = now + np.rint((instants - begin) * slower).astype(np.int64)
        return out

    series = tuple(
        replace(one, times=moved(one.times), interval=max(round(one.interval * slower), 1)) for one in plant.series
    )
    ends = moved(np.array([[label.start, label.end] for label in plant.labels], dtype=np.int64).reshape(-1, 2)).tolist()
    labels = tuple(label._replace(start=a, end=b) for label, (a, b) in zip(plant.labels, ends, strict=True))
    return Plant(series, labels)


def due(plant: Plant, since: int = 0) -> F64:
    """When each of the `lines` from `since` on is taken: seconds after that one."""
    times = _in_order(plant)[since:]
    return np.asarray((times - times[:1]) / _SECOND)


def _in_order(plant: Plant) -> I64:
    return np.sort(np.concatenate([one.times for one in plant.series]))


def lines_of_history(plant: Plant) -> int:
    """How many of the `lines` hold the part without faults of every sensor; slow sensors may be beyond theirs."""
    end = max(int(one.times[min(one.healthy_rows, one.times.size - 1)]) for one in plant.series)
    return sum(int(np.searchsorted(one.times, end)) for one in plant.series)


def paced(
    items: Iterable[bytes],
    due: Iterable[float],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[bytes]:
    """Yield each of the `items` when it is due, in seconds from now: never early by more than 10 ms, catching up when
    the taker was slow.
    """
    started = clock()
    for item, second in zip(items, due, strict=True):
        ahead = second - (clock() - started)
        if ahead > 0.01:
            sleep(ahead)
        yield item
