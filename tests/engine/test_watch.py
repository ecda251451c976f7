"""Which sensors are watched, and why others are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detector.config.load import SensorsConfig
from detector.detection.watch import MISSING_ROWS
from detector.engine.readings import ReadingsPipeline
from tests.plant import (
    SECOND,
    START,
    batches_of,
    healthy,
    model_of,
    per_readings,
    pipeline_of,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
    state_of,
)
from tests.reference_rules import Reading

RNG = np.random.default_rng(7)
PROFILE = profile_of(healthy(RNG, 600), reconstructor())
MODEL = model_of({"known": PROFILE})
CUTS = [(), range(0, 5000, 7), range(5000)]


def changes(pipeline: ReadingsPipeline, readings: Sequence[Reading], cuts: Sequence[int] = ()) -> list[object]:
    """What becomes of sensors over readings, one record each: sensor and reason."""
    records = records_of([[reading] for reading in readings])
    outputs = [pipeline.process(batch) for batch in batches_of(records, cuts)]
    return [(change.sensor_id, change.reason) for output in outputs for change in output.watch_changes]


def known(rows: int, *, first: int = 0) -> list[Reading]:
    return readings_of("known", healthy(RNG, rows, begin=first), first=START + first * SECOND)


def test_a_sensor_warms_up_and_is_watched() -> None:
    pipeline = pipeline_of(readings_config(), MODEL)
    changes(pipeline, [*known(99), *readings_of("new", healthy(RNG, 149))])
    assert pipeline.unwatched["warming"] == 2
    assert pipeline.some_unwatched(1) == [("known", "warming")]
    after = pipeline_of(readings_config(), MODEL)
    assert changes(after, [*known(100), *readings_of("new", healthy(RNG, 151))]) == [("new", None), ("known", None)]
    assert not any(after.unwatched.values())


@pytest.mark.parametrize("cuts", CUTS)
def test_a_gap_is_told_and_its_end(cuts: Sequence[int]) -> None:
    pipeline = pipeline_of(readings_config(), MODEL)
    told = changes(pipeline, [*known(120), *known(100, first=200)], cuts)
    assert told == [("known", None), ("known", "gaps"), ("known", None)]


def test_readings_without_a_value_are_told() -> None:
    pipeline = pipeline_of(readings_config(), MODEL)
    nothing = [Reading("known", START + (120 + i) * SECOND, (None,)) for i in range(MISSING_ROWS)]
    assert changes(pipeline, known(120), ()) == [("known", None)]
    records = records_of([[reading] for reading in nothing])
    (batch,) = batches_of(records)
    assert [one[1] for one in pipeline.process(batch).watch_changes] == ["channel_missing"]
    assert pipeline.unwatched["channel_missing"] == 1


@pytest.mark.parametrize("cuts", CUTS)
def test_the_count_of_missing_values_does_not_depend_on_batches(cuts: Sequence[int]) -> None:
    config = readings_config()
    values = [*healthy(RNG, 120)[:, 0].tolist(), *[None] * 60, 50.0, *[None] * 99, 51.0, 52.0, *[None] * 130]
    readings = [Reading("known", START + i * SECOND, (value,)) for i, value in enumerate(values)]
    first, second = (pipeline_of(config, MODEL) for _ in range(2))
    changes(first, readings, cuts)
    changes(second, readings, range(0, 500, 13))
    assert state_of(first, config) == state_of(second, config)
    assert first.unwatched["channel_missing"] == 1


@pytest.mark.parametrize("cuts", CUTS)
def test_a_threshold_beyond_the_absurd_is_told_until_it_is_not(cuts: Sequence[int]) -> None:
    """A strict budget after a short prefix."""
    short = model_of({"known": profile_of(healthy(np.random.default_rng(1), 200), reconstructor())})
    pipeline = pipeline_of(readings_config(false_alarms=per_readings(50_000)), short)
    readings = readings_of("known", healthy(np.random.default_rng(2), 1500))
    told = changes(pipeline, readings, cuts)
    assert told[0] == ("known", "threshold")
    assert told[-1] == ("known", None)
    loose = pipeline_of(readings_config(false_alarms=per_readings(1000)), short)
    assert changes(loose, readings, cuts) == [("known", None)]


def test_sensors_without_a_place_are_told_once() -> None:
    config = readings_config().model_copy(update={"sensors": SensorsConfig(max=1)})
    pipeline = pipeline_of(config, MODEL)
    told = changes(pipeline, [*known(101), *readings_of("other", healthy(RNG, 3), first=START + 200 * SECOND)])
    assert sorted(told, key=str) == [("known", None), ("other", "capped")]
    assert pipeline.unwatched["capped"] == 1


def test_a_restart_tells_nothing_twice_and_knows_the_reasons() -> None:
    config = readings_config()
    pipeline = pipeline_of(config, MODEL)
    changes(pipeline, [*known(120), *known(20, first=200)])
    again = pipeline_of(config, MODEL)
    again.restore(pipeline.snapshot())
    assert again.unwatched == pipeline.unwatched
    assert again.unwatched["gaps"] == 1


def test_state_without_reasons_is_given_them() -> None:
    config = readings_config()
    pipeline = pipeline_of(config, MODEL)
    changes(pipeline, [*known(50), *readings_of("new", healthy(RNG, 20))])
    pipeline._table["unwatched"][:] = 0  # noqa: SLF001
    again = pipeline_of(config, MODEL)
    again.restore(pipeline.snapshot())
    assert again.unwatched["warming"] == 2
