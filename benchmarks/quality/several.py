"""Sensors of several channels: whether the worst of many signals keeps the budget, and what is found together."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from benchmarks.quality.budget import COLUMNS, REAL_LEAST, SEED, WARMUP, Observed, cells, pool
from benchmarks.quality.detection import Setup, opened_model
from benchmarks.quality.drive import alerts_together, play_together, row_of
from benchmarks.quality.machines import CHANNELS, FAULTS, faulty, machine
from benchmarks.quality.modelling import ModelStore
from benchmarks.quality.results import Gate, Outcome, Table, number
from benchmarks.quality.synthetic import KINDS, sensor
from benchmarks.quality.workers import Workers
from detector.arrays import F64
from detector.times import parse_time
from detector.wire.alerts import Alert

Group = Literal["machines", "unrelated", "one by one"]
"""Channels that one load drives, channels of three kinds that have nothing to do with each other, and the channels of
machines as sensors of their own."""
GROUPS: Final[tuple[Group, ...]] = ("machines", "unrelated", "one by one")
COMPARED: Final[tuple[Group, ...]] = ("machines", "one by one")
BUDGETS: Final = (1_000, 3_000, 10_000)
FAULT_BUDGET: Final = 10_000
QUIET: Final = 3_000
"""Rows in good health before a fault."""
FAULT_ROWS: Final = 400
AFTER: Final = 600


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one channel: after how many rows it was announced inside it, and as whose; None: it was not."""

    kind: str
    channel: str
    delay: int | None
    blamed: str | None


def sensors_of(group: Group, count: int, rows: int, seed: int = SEED) -> dict[str, F64]:
    """Sensors without faults: (L, 3) by name, or (L,) one by one."""
    if group == "unrelated":
        kinds = list(KINDS)
        return {
            f"unrelated {n}": np.stack(
                [sensor(kinds[(3 * n + c) % len(kinds)], n, rows, seed) for c in range(3)], axis=1
            )
            for n in range(count)
        }
    return _laid(group, {f"machine {number}": machine(number, rows, seed) for number in range(count)})


def _laid(group: Group, sensors: Mapping[str, F64]) -> dict[str, F64]:
    if group != "one by one":
        return dict(sensors)
    return {
        f"{name}/{CHANNELS[c]}": np.ascontiguousarray(values[:, c])
        for name, values in sensors.items()
        for c in range(3)
    }


def model(group: Group, count: int, setup: Setup) -> str:
    """One model for all sensors of a group."""
    return ModelStore(setup.models).make(sensors_of(group, count, WARMUP), setup.kind, setup.seed)


def false_alarms(group: Group, count: int, rows: int, budget: int, setup: Setup, key: str) -> list[Observed]:
    """False alarms of healthy sensors. One by one, each channel is asked for a third of the alarms."""
    asked = budget * 3 if group == "one by one" else budget
    found = play_together(sensors_of(group, count, WARMUP + rows), WARMUP, opened_model(setup.models, key), asked)
    return [Observed(group, name, budget, rows / asked, len(episodes)) for name, episodes in found.items()]


def faults(group: Group, kind: str, count: int, setup: Setup, key: str) -> list[Fault]:
    """One kind of fault in each channel of each machine."""
    begin = WARMUP + QUIET
    span = slice(begin, begin + FAULT_ROWS)
    asked = FAULT_BUDGET * 3 if group == "one by one" else FAULT_BUDGET
    found = []
    for channel, name in enumerate(CHANNELS):
        sensors = {
            f"machine {number}": faulty(number, span.stop + AFTER, SEED, kind, channel, span) for number in range(count)
        }
        alerts = alerts_together(_laid(group, sensors), WARMUP, opened_model(setup.models, key), asked)
        opened = [alert for alert in alerts if alert.event == "opened"]
        found += [
            _fault(kind, name, [a for a in opened if a.sensor_id.partition("/")[0] == one], span) for one in sensors
        ]
    return found


def _fault(kind: str, channel: str, opened: Sequence[Alert], span: slice) -> Fault:
    """The first alert inside the fault, of one machine."""
    rows = sorted((row_of(parse_time(alert.detected_at)), place) for place, alert in enumerate(opened))
    inside = next(((row, opened[place]) for row, place in rows if span.start <= row < span.stop), None)
    if inside is None:
        return Fault(kind, channel, None, None)
    row, alert = inside
    whose = alert.sensor_id.partition("/")[2]
    if not whose:
        shares = dict(zip(CHANNELS, alert.channels.values(), strict=True))
        whose = max(shares, key=lambda name: shares[name])
    return Fault(kind, channel, row - span.start, whose)


def outcome(workers: Workers, setup: Setup, *, quick: bool) -> Outcome:
    """Run it all, in parallel."""
    count, rows = (6, 20_000) if quick else (20, 100_000)
    asked = BUDGETS[:2] if quick else BUDGETS
    keys = dict(zip(GROUPS, workers.run("models", model, [(group, count, setup) for group in GROUPS]), strict=True))
    runs = [(group, count, rows, b, setup, keys[group]) for group in GROUPS for b in asked]
    observed = list(itertools.chain(*workers.run("false alarms", false_alarms, runs)))
    pairs = [(group, kind) for group in COMPARED for kind in FAULTS]
    found = workers.run("faults", faults, [(group, kind, count, setup, keys[group]) for group, kind in pairs])

    result = Outcome("channels")
    lines = []
    for group, b in itertools.product(GROUPS, asked):
        pooled = pool([o for o in observed if o.group == group and o.budget == b])
        lines.append((group, f"1 in {b}", *cells(pooled)))
        result.numbers[f"{group} {b}"] = {"asked": pooled.expected, "observed": pooled.alarms}
        if group != "one by one":
            ratio = pooled.ratio if pooled.expected >= REAL_LEAST else None
            result.gates.append(Gate.at_most(f"channels: {group}, 1 in {b}: observed / asked", ratio, 1.5, 1.2))
    title = f"Three channels: observed / asked without faults ({count} sensors x {rows} rows)"
    result.tables.append(Table(title, COLUMNS, lines))
    told = []
    for (group, kind), those in zip(pairs, found, strict=True):
        delays = [one.delay for one in those if one.delay is not None]
        blamed = sum(one.blamed == one.channel for one in those)
        median = number(statistics.median(delays), 0) if delays else "-"
        told.append((kind, group, f"{len(delays)} of {len(those)}", median, str(blamed)))
        result.numbers[f"{kind}, {group}"] = {"faults": len(those), "found": len(delays), "blamed": blamed}
        if group == "machines":
            result.gates.append(Gate.at_least(f"channels: {kind} found", len(delays) / len(those), 0.8, 0.95))
    title = f"Faults of {FAULT_ROWS} rows in one of three channels (budget 1 in {FAULT_BUDGET})"
    columns = ("fault of one channel", "", "found", "median rows", "right channel named")
    result.tables.append(Table(title, columns, told))
    return result
