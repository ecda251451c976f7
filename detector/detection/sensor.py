"""One sensor's cells as plain Python numbers, for the rules of a row to be read, and to run where nothing is compiled.

The rules are functions of a `Sensor`, each beside the constants it needs: scale.py, faultmemory.py, deviation.py,
threshold.py and episodes.py. They do what recurrences.c does, in the same order, on the same 64 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detector.detection.kernel.cells import ARRAYS, FIELDS, Cells

NAMES = (*FIELDS, *ARRAYS)


class Sensor:
    """The cells of a sensor by name (see columns.py), its rule (see `kernel.cells.RULE`), and what follows from them.

    What follows: `channels`; `per_row`, `free`, `speed` of the budget; `base`, `excess`, `weight`, `ratio`, `forget` of
    the reservoir; `lesson`: see `threshold.Lesson`.
    """

    __slots__ = (
        *NAMES, "n", "m", "close_after", "deviates", "direction", "absolute", "relative",
        "channels", "per_row", "free", "speed", "base", "excess", "weight", "ratio", "forget", "lesson",
    )  # fmt: skip

    worst_zz: float
    held_error: float
    count: float
    score: float
    budget: float
    horizon: float
    rows: float
    credit: float
    peaks: list[float]
    forgotten: float
    pending: float
    peak: float
    close_level: float
    completions: int
    peaks_seen: int
    loud_time: int
    ended: int
    quiet: int
    unlearnt_rows: int
    unlearnt_age: list[int]
    unlearnt: list[float]
    high: int
    cold: int
    kept_rows: int
    calm: int
    peaks_kept: int
    pending_age: int
    kept: bool
    open: bool
    muted: bool
    hold: bool
    excused: bool
    worst: list[float]
    mean: list[float]
    variance: list[float]
    prediction: list[float]
    level: list[float]
    center: list[float]
    scale: list[float]
    usual: list[float]
    lean: list[float]
    still_value: list[float]
    drift_quick: list[float]
    drift_slow: list[float]
    drift_mean: list[float]
    drift_variance: list[float]
    noise_quick: list[float]
    noise_slow: list[float]
    recent: list[float]
    relation: list[float]
    typical: list[float]
    components: list[list[float]]
    kept_mean: list[float]
    kept_variance: list[float]
    still_rows: list[float]
    still_limit: list[float]
    resolution: list[float]
    drift_worst: list[float]
    drift_worst_zz: list[float]
    noise_usual: list[float]
    noise_hush: list[float]
    n: int
    m: int
    close_after: int
    deviates: bool
    direction: float
    absolute: float
    relative: float
    channels: int
    per_row: float
    free: float
    speed: float
    base: float
    excess: float
    weight: float
    ratio: float
    forget: float
    lesson: Any

    def take_rule(self, rule: Any) -> None:
        """Go by a rule of the dtype `RULE`."""
        self.n, self.m, self.close_after, deviates, self.direction, self.absolute, self.relative = rule.item()
        self.deviates = bool(deviates)


def load(cells: Cells) -> list[Sensor]:
    """The sensors of some records (n,)."""
    sensors = [Sensor() for _ in range(len(cells))]
    for name in NAMES:
        for sensor, value in zip(sensors, cells[name].tolist(), strict=True):
            setattr(sensor, name, value)
    for sensor in sensors:
        sensor.channels = len(sensor.level)
    return sensors


def store(sensors: list[Sensor], cells: Cells) -> None:
    """Write them back into their records."""
    for name in NAMES:
        cells[name] = np.array([getattr(sensor, name) for sensor in sensors], dtype=cells.dtype[name].base)


def larger(a: float, b: float) -> float:
    """The larger of two numbers; what is no number, if there is one."""
    return a if a >= b or a != a else b


def smaller(a: float, b: float) -> float:
    """The smaller of two numbers; what is no number, if there is one."""
    return a if a <= b or a != a else b


def within(x: float, limit: float) -> float:
    """x, limited to +-limit."""
    return -limit if x < -limit else limit if x > limit else x


def moved(average: float, x: float, begun: float, rate: float) -> float:
    """A moving average after x; where there is none yet (NaN), it starts at `begun`."""
    now = average if average == average else begun
    return now + rate * (x - now)
