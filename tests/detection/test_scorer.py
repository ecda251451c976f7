"""A block of rows through all stages: the recipe's own numbers, and no bit that depends on a neighbour."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from detector.arrays import F32, F64
from detector.config.load import ReadingsConfig
from detector.config.rules import RuleBook
from detector.detection.block import Block
from detector.detection.episodes import Opening
from detector.detection.scorer import Model, Scored, score_block
from detector.detection.table import SensorTable
from detector.detection.windows import WindowRows
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Aside

CONFIG = plant.readings_config(false_alarms=plant.per_readings(3000), warmup=2000)


def rows_of(series: dict[int, F64], first: int) -> WindowRows:
    """Rows (L, C) of some slots, one a second from row `first` on."""
    lengths = np.array([len(values) for values in series.values()], dtype=np.intp)
    last = np.cumsum(lengths)
    count = int(lengths.sum())
    steps = np.concatenate([np.arange(length) for length in lengths])
    return WindowRows(
        slots=np.array(list(series), dtype=np.intp), first=last - lengths, last=last,
        times=START + (first + steps) * SECOND, values=np.concatenate(list(series.values())), records=np.arange(count),
        elements=np.zeros(count, dtype=np.int64), restarts=np.zeros(count, dtype=bool),
        imputed=np.zeros(count, dtype=bool),
    )  # fmt: skip


def score(
    table: SensorTable, model: Model, series: dict[int, F64], first: int, config: ReadingsConfig = CONFIG
) -> tuple[Block, Scored]:
    rows = rows_of(series, first)
    block = Block(table, rows, np.arange(len(series)), rows.first, rows.last)
    scored = score_block(table, block, model, RuleBook(config))
    table.put_records(block.slots, scored.records)
    block.store(table, np.arange(len(rows.times)))
    return block, scored


def table_after(config: ReadingsConfig, model: Model, series: dict[str, F64]) -> SensorTable:
    """What is known of sensors after these rows."""
    pipeline = plant.pipeline_of(config, model)
    plant.play(pipeline, plant.records_of([plant.readings_of(name, values) for name, values in series.items()]))
    return plant.table_of(pipeline, config)


# -- the recipe ------------------------------------------------------------------------------------------------------


def recipe() -> ModuleType:
    datasets = os.environ.get("DETECTOR_DATASETS")
    shared = Path(datasets).parent if datasets else Path(__file__).parents[3] / "shared"
    path = shared / "recipe_reference.py"
    if not path.is_file():
        pytest.skip("the recipe's reference is not at hand: set DETECTOR_DATASETS to the datasets beside it")
    spec = importlib.util.spec_from_file_location("recipe_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def take_pace(reference: ModuleType, budget: int) -> None:
    """Let the recipe's threshold aim, cap, spend and learn from episodes as docs/detection.md has it."""
    loose = min(budget / 10_000, 1.0)
    free, speed = 3 * loose**0.25, 0.07 * loose**-0.75
    at_most = 3 + 1 / 0.07
    for name, value in (("CREDIT_FREE", free), ("FLOOR_SPEED", speed), ("FLOOR_MIN", -(at_most - free) * speed)):
        setattr(reference, name, value)
    plain = reference.Threshold.level

    def level(threshold: Any) -> Any:
        setattr(reference, "AIM", 1 + 2 * math.sqrt(min(3 * threshold.rows / budget, 1.0)))  # noqa: B010
        setattr(reference, "YOUNG_CAP", math.log(3 * budget / threshold.rows))  # noqa: B010
        return plain(threshold)

    def before_row(threshold: Any) -> Any:
        threshold.row = getattr(threshold, "row", 0) + 1
        lift = 0.4 * max(-min(threshold.credit + 1 / budget, at_most), 0.0)
        return advanced(threshold) - max(lift - math.log(2), 0.0)

    def closed(threshold: Any, peak: float) -> None:
        return_level, scale = threshold.level()
        threshold.aside = getattr(threshold, "aside", None) or Aside(5.0 * budget)
        tail = return_level + 1.5 * scale * min(threshold.rows / budget, 1.0)
        for one in [peak] if peak <= tail else threshold.aside.add(threshold.row, peak):
            threshold._insert(one)  # noqa: SLF001
        threshold.credit = max(threshold.credit - 1.0, -4.0)

    advanced = reference.Threshold.before_row
    reference.Threshold.level, reference.Threshold.before_row, reference.Threshold.closed = level, before_row, closed


def faulty() -> F64:
    """Twelve thousand rows of a cycle with faults: shifts, spikes, noise. None lasts.

    The plain recipe has nothing for long faults, so there it and the product part.
    """
    rng = np.random.default_rng(11)
    t = np.arange(12_000)
    x = 20 + 5 * np.sin(2 * np.pi * t / 61) + rng.normal(0, 0.4, len(t))
    x[4000:4060] += 12
    x[5500:5520] -= 20
    x[7000:7003] += 60
    x[8000:8080] += rng.normal(0, 4, 80)
    x[9900:9950] = x[9900]
    x[11_000:11_060] += 12
    return x[:, None]


@pytest.mark.parametrize(("budget", "open_after", "close_after"), [(3000, (10, 10), 100), (500, (3, 5), 30)])
def test_scores_thresholds_and_episodes_are_the_recipes(
    budget: int, open_after: tuple[int, int], close_after: int
) -> None:
    reference = recipe()
    take_pace(reference, budget)
    x = faulty()
    reconstruct = plant.reconstructor()

    def alone(window: F64) -> F64:
        return reconstruct(window.astype(np.float32)[None, :, None])[0, :, 0].astype(np.float64)

    sensor = reference.Sensor(x[:2000, 0], alone, budget, open_after, close_after)
    steps = [sensor.step(value) for value in x[2000:, 0]]
    expected = [(row, *step[2]) for row, step in enumerate(steps, start=2000) if step[2]]
    assert len(expected) >= 8

    config = plant.readings_config(
        false_alarms=plant.per_readings(budget), warmup=2000, open_after=open_after, close_after=close_after
    )
    model = plant.model_of()
    table = table_after(config, model, {"a": x[:2000]})
    found, ln_thresholds = [], []
    for first in range(2000, 12_000, 777):
        _block, scored = score(table, model, {0: x[first : first + 777]}, first, config)
        found.append(scored.u)
        ln_thresholds.append(scored.limits)
    np.testing.assert_allclose(np.concatenate(found), [u for u, _, _ in steps], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.concatenate(ln_thresholds), [limit for _, limit, _ in steps], atol=1e-4)

    pipeline = plant.pipeline_of(config, model)
    with plant.unrounded() as written:
        plant.play(pipeline, plant.records_of([[reading] for reading in plant.readings_of("a", x)]), [3000, 7001])
    episodes = []
    for event in map(plant.event_of, written.values()):
        if event.event == "opened":
            episodes.append((row_of(event.detected_at), "opened"))
            assert event.started_at <= event.detected_at
        elif event.ended_at is not None:
            episodes.append((event.last_offset, "closed"))
    closing = {plant.offset_of(row): row for row in range(len(x))}
    # Where a fault began and ended is estimated from its windows, in another way than the recipe's.
    assert [(closing[at] if what == "closed" else at, what) for at, what in episodes] == [one[:2] for one in expected]


def row_of(time: int) -> int:
    return (time - START) // SECOND


# -- the bit rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[40] * 33, [1 + 7 * i % 61 for i in range(33)]])
@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (2, 3)])
def test_a_sensor_has_the_same_bits_alone_and_among_others(channels: int, stride: int, lengths: Sequence[int]) -> None:
    config = plant.readings_config(
        channels=channels, false_alarms=plant.per_readings(400), window={"stride": stride}, close_after=5
    )
    rng = np.random.default_rng(stride)
    prefixes = {f"s{i}": plant.healthy(rng, 150 + 10 * i, channels) for i in range(33)}
    reconstruct = plant.reconstructor(channels)
    model = plant.model_of(
        {name: plant.profile_of(prefix, reconstruct, stride=stride) for name, prefix in prefixes.items()},
        channels=channels,
        stride=stride,
    )
    table = table_after(config, model, {name: plant.healthy(rng, 105, channels) for name in prefixes})
    packed = table.pack(table.occupied())
    series = {table.slots[f"s{i}"]: plant.healthy(rng, length, channels) for i, length in enumerate(lengths)}
    for values in series.values():
        values[len(values) // 2 :] += 6
    block, scored = score(table, model, series, 105, config)
    assert any(isinstance(transition, Opening) for transition in scored.transitions)

    place = {int(slot): i for i, slot in enumerate(block.slots)}
    alone = SensorTable(channels, 10)
    alone.unpack(packed)
    for slot, values in series.items():
        _, own = score(alone, model, {slot: values}, 105, config)
        for ours, others in ((own.u, scored.u), (own.v, scored.v), (own.limits, scored.limits)):
            assert ours.tobytes() == others[block.first[place[slot]] : block.first[place[slot] + 1]].tobytes()
    for column in table.columns:
        if column.name != "offset":
            assert table[column.name][:33].tobytes() == alone[column.name][:33].tobytes(), column.name


def test_between_strides_the_last_reconstruction_error_is_held() -> None:
    calls = []

    def reconstruct(windows: F32) -> F32:
        calls.append(len(windows))
        return windows * np.float32(0.5)

    config = plant.readings_config(window={"stride": 3})
    values = plant.healthy(np.random.default_rng(0), 400)
    model = plant.model_of({"a": plant.profile_of(values, reconstruct, stride=3)}, stride=3)
    model = Model(model.name, model.version, model.digest, model.scaler, 3, reconstruct, model.profiles)
    table = table_after(config, model, {"a": values[:99]})
    calls.clear()
    errors = []
    for first, last in ((99, 103), (103, 104), (104, 113)):
        errors += score(table, model, {0: values[first:last]}, first, config)[1].errors.tolist()
    assert sum(calls) == 5
    assert [error == earlier for earlier, error in itertools.pairwise(errors)] == [i % 3 != 0 for i in range(1, 14)]
