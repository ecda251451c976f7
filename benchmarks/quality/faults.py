"""Whether a fault is found that follows another one, and whether a lasting new level is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.quality.budget import SEED, WARMUP
from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import play_together, settings
from benchmarks.quality.synthetic import KINDS, sensor, shifted

BUDGET = 10_000
QUIET = 3_000
"""Rows in good health before the first fault."""
SIZE, SECOND_ROWS = 6.0, 300
FIRST_ROWS = (200, 3_000)
GAPS = (1_000, 2_000, 5_000, 20_000)
STEPS = (3.0, 6.0, 20.0)
CLOSE_WITHIN = 4_000
STEP_ROWS = 6_000
CLOSE_AFTER = settings(WARMUP, BUDGET).alerts.close_after


@dataclass(frozen=True, slots=True)
class Second:
    """A second fault: after how long a first one and how long a gap, in which kind, and whether both were announced."""

    kind: str
    first_rows: int
    gap: int
    first_found: bool
    found: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A lasting step: whether it was announced, and after how many rows no episode was open; None: not in time."""

    kind: str
    deviations: float
    opened: bool
    closed_after: int | None


def second_faults(first_rows: int, gap: int, numbers: Sequence[int], setup: Setup, key: str) -> list[Second]:
    """Every kind of sensor with two equal faults."""
    begin = WARMUP + QUIET
    again = begin + first_rows + gap
    sensors = {}
    for kind in KINDS:
        for number in numbers:
            values = sensor(kind, number, again + 2 * SECOND_ROWS, SEED)
            values = shifted(values, begin, first_rows, SIZE, WARMUP)
            sensors[f"{kind} {number}"] = shifted(values, again, SECOND_ROWS, SIZE, WARMUP)
    found = play_together(sensors, WARMUP, opened_model(setup.models, key), BUDGET)
    return [
        Second(
            name.rpartition(" ")[0], first_rows, gap,
            any(begin <= episode.opened < begin + first_rows for episode in episodes),
            any(again <= episode.opened < again + SECOND_ROWS for episode in episodes),
        )
        for name, episodes in found.items()
    ]  # fmt: skip


def lasting_steps(deviations: float, numbers: Sequence[int], setup: Setup, key: str) -> list[Step]:
    """Every kind of sensor with a step that stays."""
    begin = WARMUP + QUIET
    sensors = {
        f"{kind} {number}": shifted(sensor(kind, number, begin + STEP_ROWS, SEED), begin, None, deviations, WARMUP)
        for kind in KINDS
        for number in numbers
    }
    found = play_together(sensors, WARMUP, opened_model(setup.models, key), BUDGET)
    steps = []
    for name, episodes in found.items():
        first = next((e for e in episodes if e.ended >= begin and e.opened < begin + SECOND_ROWS), None)
        closed = None if first is None or not first.closed else first.ended + CLOSE_AFTER - begin + 1
        steps.append(Step(name.rpartition(" ")[0], deviations, first is not None, closed))
    return steps
