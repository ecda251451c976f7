"""What true faults cost a sensor's hearing, and what a habit costs a person.

Sensors with equal faults go through the whole pipeline. Cameras, and events that come again fifty times, which take
millions of rows, are made-up signals: they go through score, threshold and episodes, as the frames of a camera do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from benchmarks.quality.budget import BUDGETS, WARMUP
from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import SECOND, play_together
from benchmarks.quality.results import Gate, Outcome, Table, number, percent
from benchmarks.quality.synthetic import KINDS, sensor, shifted
from benchmarks.quality.workers import Workers
from detector.arrays import F64
from detector.detection.columns import calibration_cells
from detector.detection.kernel.cells import CLOSED, OPENED, rules_for
from detector.detection.kernel.choice import choose
from detector.detection.profile import calibrate
from detector.detection.table import camera_table

SEED: Final = 73
SEEDS: Final = 60
FAULTS, QUIET = 5, 3_000
"""Equal faults, and rows in good health before and after each."""
SIZE, CAMERA_SIZE = 10.0, 30.0
"""Of a fault: deviations of a sensor, times the usual signal of a camera."""
FAULT_ROWS: Final = {"sensors": (60, 200), "cameras": (30, 200)}
"""Short faults, and longer ones, which teach the adaptive scale, too."""
LONG: Final = 200
PERIOD: Final = 20
"""Rows of an oscillation's period."""
EVENTS, EVENT_SIZE = 50, 10.0
EVENTS_A_BUDGET: Final = 4

Form = Literal["step", "noise", "oscillation"]
"""Of a fault: only a step moves the level, of which a rule of its own tells (drifting.py). Of the others what they cost
is shown, and no gate."""

Watched = Literal["sensor", "camera"]
"""Whose prefix and n of m a made-up signal has."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rows of the prefix, n of m, rows that close an episode, rows of an event."""

    prefix: int
    open_after: tuple[int, int]
    close_after: int
    rows: int


RULES: Final[dict[Watched, Rules]] = {
    "sensor": Rules(WARMUP, (10, 10), 100, 30),
    "camera": Rules(500, (3, 5), 20, 30),
}


def sensors_found(form: Form, budget: int, rows: int, seeds: int, setup: Setup, key: str) -> list[list[bool]]:
    """Of each sensor, which of its faults lay in an episode."""
    kinds = list(KINDS)
    step = rows + QUIET
    begins = [WARMUP + QUIET + i * step for i in range(FAULTS)]
    sensors = {}
    for i in range(seeds):
        values = sensor(kinds[i % len(kinds)], i // len(kinds), begins[-1] + step, SEED)
        for begin in begins:
            values = _disturbed(form, values, begin, rows)
        sensors[f"{kinds[i % len(kinds)]} {i // len(kinds)}"] = values
    found = play_together(sensors, WARMUP, opened_model(setup.models, key), budget)
    spans = [[(episode.opened, episode.ended) for episode in episodes] for episodes in found.values()]
    return [_found(one, begins, rows) for one in spans]


def _disturbed(form: Form, values: F64, begin: int, rows: int) -> F64:
    """The values (L,) with a fault in `rows` rows from row `begin` on."""
    if form == "step":
        return shifted(values, begin, rows, SIZE, WARMUP)
    waves = np.sin(2 * np.pi * np.arange(rows) / PERIOD)
    moved = np.random.default_rng([SEED, begin]).normal(size=rows) if form == "noise" else waves
    out = values.copy()
    out[begin : begin + rows] += SIZE * values[:WARMUP].std() * moved
    return out


def cameras_found(budget: int, rows: int, seeds: int) -> list[list[bool]]:
    """The same of cameras, whose frames in a fault have thirty times the signal."""
    rules = RULES["camera"]
    step = rows + QUIET
    begins = [QUIET + i * step for i in range(FAULTS)]
    found = []
    for seed in range(seeds):
        signal = _healthy(seed, rules.prefix + begins[-1] + step)
        for begin in begins:
            signal[rules.prefix + begin :][:rows] *= CAMERA_SIZE
        found.append(_found(judged(signal, rules, budget), begins, rows))
    return found


def habit(watched: Watched, budget: int, seed: int) -> tuple[float, int]:
    """Alarms asked and observed where one harmless event comes again, at a strength that varies a little."""
    rules, rng = RULES[watched], np.random.default_rng([SEED, seed])
    step = budget // EVENTS_A_BUDGET
    signal = _healthy(seed, rules.prefix + EVENTS * step)
    for i in range(EVENTS):
        signal[rules.prefix + i * step + step // 2 :][: rules.rows] *= EVENT_SIZE * np.exp(rng.normal(0, 0.1))
    return EVENTS / EVENTS_A_BUDGET, len(judged(signal, rules, budget))


def judged(signal: F64, rules: Rules, budget: int) -> list[tuple[int, int]]:
    """The first and last row, after the prefix, of the episodes of one signal (L,)."""
    calibration = calibrate(np.arange(rules.prefix) * SECOND, signal[None, : rules.prefix], rules.open_after)[0]
    table = camera_table((1, 1), rules.open_after[1])
    slot = table.add("camera")
    table.set(slot, calibration_cells(calibration, float(budget)))
    records, live = table.records(np.array([slot])), signal[rules.prefix :].copy()
    first, nothing, kernel = np.array([0, len(live)]), np.empty((0, len(live))), choose().kernel
    asked = rules_for(1, rules.open_after, rules.close_after)
    eligible = kernel.score(records, asked, first, nothing, live, nothing.T, None).eligible
    events = kernel.judge(records, asked, first, eligible, np.arange(len(live)), None)[2]
    opened = events["row"][events["kind"] == OPENED].tolist()
    ended = events["ended"][events["kind"] == CLOSED].tolist()
    return list(itertools.zip_longest(opened, ended, fillvalue=len(live) - 1))


def _healthy(seed: int, rows: int) -> F64:
    """A signal as that of frames: around 1, never negative, each row like the ones before."""
    noise = np.random.default_rng([SEED, seed]).normal(size=rows + 9)
    running = np.cumsum(noise)
    smooth = np.concatenate([running[9:10], running[10:] - running[:-10]]) / np.sqrt(10)
    return np.ascontiguousarray(np.exp(0.25 * smooth))


def _found(spans: Sequence[tuple[int, int]], begins: Sequence[int], rows: int) -> list[bool]:
    return [any(opened < begin + rows and ended >= begin for opened, ended in spans) for begin in begins]


def outcome(workers: Workers, setup: Setup, key: str, *, quick: bool) -> Outcome:
    """Run it all, in parallel."""
    seeds, asked = (15, BUDGETS[:3]) if quick else (SEEDS, BUDGETS)
    result = Outcome("hearing")
    lines = []
    kinds: list[tuple[Form, int]] = [("step", rows) for rows in FAULT_ROWS["sensors"]]
    kinds += [(form, LONG) for form in get_args(Form) if form != "step"]
    sensors = [(form, b, rows, seeds, setup, key) for form, rows in kinds for b in asked]
    found = workers.run("equal faults, sensors", sensors_found, sensors)
    cameras = [(b, rows, seeds) for rows in FAULT_ROWS["cameras"] for b in asked]
    found += workers.run("equal faults, cameras", cameras_found, cameras)
    runs = [("sensors" if form == "step" else f"sensors, {form}", rows, b) for form, b, rows, *_ in sensors]
    runs += [("cameras", rows, b) for b, rows, _ in cameras]
    for (name, rows, b), faults in zip(runs, found, strict=True):
        shares = np.mean(faults, axis=0).tolist()
        lines.append((f"{name}, {rows} rows", f"1 in {b}", *map(percent, shares)))
        result.numbers[f"{name}, {rows} rows, {b}"] = shares
        if name in FAULT_ROWS:
            gate = f"hearing 1 in {b}, {name}, {rows} rows: fifth fault found"
            result.gates.append(Gate.at_least(gate, shares[-1], 0.95, 1.0))
    title = f"Equal faults of {SIZE:g} deviations (cameras: {CAMERA_SIZE:g} times the usual signal), found"
    columns = ("", "budget", *(f"fault {i + 1}" for i in range(FAULTS)))
    result.tables.append(Table(f"{title} ({seeds} of each)", columns, lines))
    habits: list[tuple[Watched, int, int]] = [
        (watched, b, seed) for watched in RULES for b in reversed(asked) for seed in range(seeds)
    ]
    alarms = dict(zip(habits, workers.run("habits", habit, habits), strict=True))
    lines = []
    for watched in RULES:
        for b in asked:
            those = [alarms[watched, b, seed] for seed in range(seeds)]
            allowed, seen = sum(a for a, _ in those), sum(s for _, s in those)
            lines.append(
                (watched, f"1 in {b}", number(allowed / seeds, 1), number(seen / seeds, 1), number(seen / allowed, 2))
            )
            result.numbers[f"habit, {watched} {b}"] = {"asked": allowed, "observed": seen}
            name = f"hearing 1 in {b}, {watched}: observed / asked where one event comes {EVENTS} times"
            result.gates.append(Gate.at_most(name, seen / allowed, 1.5, 1.2))
    title = f"One harmless event {EVENTS} times, {EVENTS_A_BUDGET} times in a budget: alarms"
    result.tables.append(Table(title, ("rules of a", "budget", "asked", "observed", "ratio"), lines))
    return result
