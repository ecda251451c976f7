"""Observed against asked."""

from __future__ import annotations

import numpy as np
import pytest

from detector.engine.budget import BudgetAccount, note_call
from detector.engine.clock import DAY
from tests import plant
from tests.plant import SECOND


def test_a_ratio_needs_something_that_is_allowed() -> None:
    account = BudgetAccount()
    assert account.ratio is None
    account.add(1, 0.5)
    account.add(1, 0.5)
    assert account.ratio == pytest.approx(2.0)


def test_calls_of_more_than_a_day_ago_are_forgotten() -> None:
    called: dict[int, tuple[int, ...]] = {}
    for clock in (0, DAY // 2, DAY, DAY + 1):
        note_call(called, 7, clock)
    assert called == {7: (DAY // 2, DAY, DAY + 1)}


@pytest.mark.parametrize("edges", [(), range(650, 2400, 37)])
@pytest.mark.parametrize("restarts", [False, True])
def test_the_account_is_the_same_in_pieces_and_over_restarts(edges: range | tuple[()], restarts: bool) -> None:
    values = plant.healthy(np.random.default_rng(2), 2400)
    for begin in (900, 1600):
        values[begin : begin + 60] += 60
    config = plant.readings_config(false_alarms=plant.per_readings(5000), warmup=600)
    records = plant.records_of([[reading] for reading in plant.readings_of("a", values)])
    pipeline = plant.pipeline_of(config, plant.model_of())
    for batch in plant.batches_of(records, edges):
        if restarts:
            stored, pipeline = pipeline.snapshot(), plant.pipeline_of(config, plant.model_of())
            pipeline.restore(stored)
        pipeline.process(batch)
    account = pipeline.budget_account
    assert account.opened == 2
    assert account.allowed == pytest.approx(DAY / SECOND / 5000)


def test_what_was_opened_more_than_a_day_ago_does_not_count() -> None:
    values = plant.healthy(np.random.default_rng(2), 2400)
    values[900:960] += 60
    config = plant.readings_config(false_alarms=plant.per_readings(5000), warmup=600)
    readings = plant.readings_of("a", values, interval=60 * SECOND)
    pipeline = plant.pipeline_of(config, plant.model_of())
    seen = []
    for batch in plant.batches_of(plant.records_of([[reading] for reading in readings]), [1200]):
        pipeline.process(batch)
        seen.append(pipeline.budget_account.opened)
    assert seen == [1, 0]
