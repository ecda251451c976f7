"""What alerts claim, held against faults whose bounds, channel and kind are known.

Three plants: the one that `detector simulate` makes, sensors of the other synthetic kinds, and machines of four
channels of which three are linked. Each sensor has one fault; only faults that are found are judged.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import alerts_together, row_of
from benchmarks.quality.machines import linked_machine
from benchmarks.quality.modelling import ModelStore
from benchmarks.quality.results import Gate, Outcome, Table, number, percent
from benchmarks.quality.synthetic import sensor
from benchmarks.quality.workers import Workers
from detector.arrays import F64
from detector.simulation.plant import simulate
from detector.times import parse_time
from detector.wire.alerts import Alert

Plant = Literal["simulated", "synthetic", "machines"]
PLANTS: Final[tuple[Plant, ...]] = ("simulated", "synthetic", "machines")
SEEDS: Final = (101, 102, 103, 104)
WARMUP: Final = 2_000
BUDGET: Final = 10_000
LATE: Final = 60
"""Rows after the end of a fault in which it still counts as found: a spike is over when it is noticed."""
SENSORS: Final[dict[Plant, int]] = {"simulated": 30, "synthetic": 28, "machines": 16}
SIMULATED: Final = {
    "spike": "spike", "stuck-at": "stuck", "level-shift": "level-shift", "drift": "drift",
    "frequency-change": "oscillation",
}  # fmt: skip
"""The kind an alert should name, by the kind of `detector simulate`."""
KINDS: Final = ("white", "ar .5", "ar .95", "seasonal", "daily", "counts", "steps")
FAULTS: Final = ("stuck", "level-shift", "spike", "drift", "noise", "oscillation")
LINKED: Final = {"foreign": "relation", "inverted": "relation", "shift": "level-shift", "stuck": "stuck"}


@dataclass(frozen=True, slots=True)
class Planted:
    """One sensor (L,) or (L, C) with one fault: its first and last row, its kind, and whose it is of the channels."""

    name: str
    values: F64
    first: int
    last: int
    kind: str
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """The claims of one episode: errors in rows at the opening and in the last message, and what was named right.

    `ended` None: the episode was still open, or closed while the fault lasted.
    """

    kind: str
    named_first: str
    named_last: str
    started_first: int
    started_last: int
    ended: int | None
    channel_opened: bool | None
    channel_at_peak: bool | None


def planted(plant: Plant, seed: int) -> list[Planted]:
    """The sensors of a plant."""
    return {"simulated": _simulated, "synthetic": _synthetic, "machines": _machines}[plant](seed)


def _simulated(seed: int) -> list[Planted]:
    made = simulate(sensors=SENSORS["simulated"], rows=6_000, seed=seed, faults=tuple(SIMULATED))
    by_id = {one.sensor_id: one for one in made.series}
    found: dict[str, Planted] = {}
    for label in made.labels:
        one = by_id[label.sensor_id]
        first, last = np.searchsorted(one.times, (label.start, label.end)).tolist()
        found.setdefault(label.sensor_id, Planted(label.sensor_id, one.values, first, last, SIMULATED[label.kind]))
    return list(found.values())


def _synthetic(seed: int) -> list[Planted]:
    rng = np.random.default_rng([seed, 1])
    made = []
    for i in range(SENSORS["synthetic"]):
        kind, fault = KINDS[i % len(KINDS)], FAULTS[(i + i // len(KINDS)) % len(FAULTS)]
        values = sensor(kind, i, 6_500, seed)
        first = int(rng.integers(4_000, 4_800))
        rows = int(rng.integers(1, 5) if fault == "spike" else rng.integers(150, 600))
        span, size = slice(first, first + rows), float(values[:WARMUP].std())
        side, step = float(rng.choice((-1.0, 1.0))), np.arange(rows)
        if fault == "stuck":
            values[span] = values[first]
        else:
            values[span] += (
                size
                * {
                    "level-shift": side * rng.uniform(3, 6),
                    "spike": side * rng.uniform(8, 20),
                    "drift": side * rng.uniform(4, 8) * step / rows,
                    "noise": rng.uniform(1.5, 3) * rng.normal(size=rows),
                    "oscillation": rng.uniform(2, 3.5) * np.sin(2 * np.pi * step / rng.uniform(8, 20)),
                }[fault]
            )
        made.append(Planted(f"{kind} {i}", values, first, first + rows - 1, fault))
    return made


def _machines(seed: int) -> list[Planted]:
    rng = np.random.default_rng([seed, 2])
    made = []
    for i, fault in zip(range(SENSORS["machines"]), itertools.cycle(LINKED), strict=False):
        first, rows, channel = int(rng.integers(4_000, 4_500)), int(rng.integers(250, 500)), int(rng.integers(3))
        span = slice(first, first + rows)
        values = linked_machine(i, 6_000, seed)
        level, swing = values[:WARMUP, channel].mean(), values[:WARMUP, channel].std()
        if fault == "foreign":
            values[span, channel] = linked_machine(i + 1_000, 6_000, seed)[span, channel]
        elif fault == "inverted":
            values[span, channel] = 2 * level - values[span, channel]
        elif fault == "shift":
            values[span, channel] += 2 * swing * rng.choice((-1.0, 1.0))
        else:
            values[span, channel] = values[first, channel]
        made.append(Planted(f"machine {i}", values, first, first + rows - 1, LINKED[fault], channel))
    return made


def claims(plant: Plant, seed: int, setup: Setup) -> tuple[int, list[Judged]]:
    """How many faults there are, and what is claimed of those that are found."""
    sensors = planted(plant, seed)
    key = ModelStore(setup.models).make({one.name: one.values[:WARMUP] for one in sensors}, setup.kind, setup.seed)
    values = {one.name: one.values for one in sensors}
    alerts = alerts_together(values, WARMUP, opened_model(setup.models, key), BUDGET)
    judged = []
    for one in sensors:
        messages = [alert for alert in alerts if alert.sensor_id == one.name]
        inside = (
            alert for alert in messages
            if alert.event == "opened" and one.first <= _row(alert.detected_at) <= one.last + LATE
        )  # fmt: skip
        if opened := next(inside, None):
            judged.append(_judge(one, [alert for alert in messages if alert.alert_id == opened.alert_id]))
    return len(sensors), judged


def _judge(fault: Planted, messages: Sequence[Alert]) -> Judged:
    opened, last = messages[0], messages[-1]
    peak = max(messages, key=lambda alert: alert.score)
    ended = None
    if last.window is not None and last.ended_at and row_of(last.window.timestamps[-1] * 10**6) > fault.last:
        ended = _row(last.ended_at) - fault.last
    return Judged(
        fault.kind, _kind(opened), _kind(last), _row(opened.started_at) - fault.first,
        _row(last.started_at) - fault.first, ended, _blames(opened, fault), _blames(peak, fault),
    )  # fmt: skip


def _row(time: str) -> int:
    return row_of(parse_time(time))


def _kind(alert: Alert) -> str:
    return "none" if alert.what is None else alert.what.kind


def _blames(alert: Alert, fault: Planted) -> bool | None:
    """Whether the channel with the largest share is the one at fault; None: there is but one."""
    if fault.channel is None:
        return None
    return max(alert.channels, key=lambda name: alert.channels[name]) == f"c{fault.channel}"


def outcome(workers: Workers, setup: Setup, *, quick: bool) -> Outcome:
    """Run all plants, in parallel."""
    seeds = SEEDS[:1] if quick else SEEDS
    tasks = [(plant, seed, setup) for plant in PLANTS for seed in seeds]
    found = dict(zip(((plant, seed) for plant, seed, _ in tasks), workers.run("claims", claims, tasks), strict=True))
    result = Outcome("alerts")
    lines, confusions = [], []
    for plant in PLANTS:
        judged = [one for seed in seeds for one in found[plant, seed][1]]
        total = sum(found[plant, seed][0] for seed in seeds)
        first = statistics.median(abs(one.started_first) for one in judged)
        last = statistics.median(abs(one.started_last) for one in judged)
        ended = [abs(one.ended) for one in judged if one.ended is not None]
        at_opening = statistics.mean(one.named_first == one.kind for one in judged)
        named = statistics.mean(one.named_last == one.kind for one in judged)
        wrong = [one for one in judged if one.named_last not in (one.kind, "unusual")]
        lines.append((
            plant, f"{len(judged)} of {total}", number(first, 0), number(last, 0),
            number(statistics.median(ended), 0), percent(at_opening), percent(named), percent(len(wrong) / len(judged)),
        ))  # fmt: skip
        result.numbers[plant] = {
            "faults": total, "found": len(judged), "started, opened": first, "started, last": last,
            "ended": statistics.median(ended), "kind, opened": at_opening, "kind, last": named,
        }  # fmt: skip
        result.gates += [
            Gate.at_most(f"alerts: {plant}: rows off, started_at at opening", first, 10, 5),
            Gate.at_most(f"alerts: {plant}: rows off, started_at in the last message", last, 5, 2),
            Gate.at_most(f"alerts: {plant}: rows off, ended_at", statistics.median(ended), 15, 8),
            Gate.at_least(f"alerts: {plant}: right kind", named, 0.85, 0.9),
        ]
        confusions += [
            (plant, kind, str(len(those)), ", ".join(
                f"{name} {sum(one.named_last == name for one in those)}"
                for name in sorted({one.named_last for one in those})
            ))
            for kind in sorted({one.kind for one in judged}) if (those := [one for one in judged if one.kind == kind])
        ]  # fmt: skip
    columns = ("", "found", "started, opened", "started, last", "ended", "kind, opened", "kind, last", "wrong kind")
    title = f"What alerts claim: median rows off, right kind named (budget 1 in {BUDGET}, {len(seeds)} seeds)"
    result.tables.append(Table(title, columns, lines))
    result.tables.append(Table("Kinds by what the last message names", ("", "fault", "found", "named"), confusions))
    machines = [one for seed in seeds for one in found["machines", seed][1]]
    for when, right in (
        ("opened", [one.channel_opened for one in machines]),
        ("at the peak", [one.channel_at_peak for one in machines]),
    ):
        share = sum(map(bool, right)) / len(right)
        result.numbers[f"channel, {when}"] = share
        result.notes.append(
            f"machines: the channel at fault is named first in {sum(map(bool, right))} of {len(right)}, {when}"
        )
        result.gates.append(Gate.at_least(f"alerts: right channel, {when}", share, 15 / 16, None))
    return result
