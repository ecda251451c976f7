"""What other budgets would have cost, and which one is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest

from detector.arrays import F64, I64
from detector.config.load import FalseAlarms, FieldsConfig
from detector.detection.profile import build_profile
from detector.detection.scorer import ScoreBlock, score_block
from detector.engine.alertwriter import AlertWriter
from detector.engine.budget import BudgetAccount
from detector.engine.readings import BuildProfile, MakeWriter, ReadingsPipeline
from detector.reports import rescoring
from detector.reports.backtest import BacktestResult, Replay
from detector.reports.scoreboard import EpisodeSpan
from detector.reports.tuning import Cost, MakePipeline, added, budget, chance_of, choose, costs_of, noise_of, spoken
from detector.streams.base import Batch, Partition
from detector.wire.alerts import decode_alert, encode_alert
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import Decoder, Readings
from tests import plant
from tests.plant import SECOND, START
from tests.reference_rules import Reading
from tests.shifts import shifts

MINUTE, DAY = 60 * SECOND, 86_400 * SECOND
BUDGETS = tuple(budget(text) for text in ("4/day", "1/day", "1/week"))
TWO = tuple(budget(text) for text in ("1/week", "1/month"))
MODEL = plant.model_of()


def faulty(rows: int, seed: int = 0) -> F64:
    values = plant.healthy(np.random.default_rng(seed), rows)
    for at in range(1000, rows, 700):
        values[at : at + 40] += 1.0 + at % 5
    return values


def shifted(values: F64, *, rows: int, gap: int) -> list[Reading]:
    """A reading a minute, with a stop of `gap` ns after every few rows."""
    return [
        Reading("press [1]", START + i * MINUTE + i // rows * gap, tuple(row)) for i, row in enumerate(values.tolist())
    ]


PLAIN: Mapping[str, Any] = {"update_every": 15 * MINUTE, "warmup": 300, "close_after": 30}
SHIFTS: Mapping[str, Any] = {"warmup": 18 * 48, "open_after": (3, 3), "timezone": "UTC"}
"""Readings every half hour, by whose hours a sensor goes."""


def maker(decoder: Decoder, settings: Mapping[str, Any] = PLAIN) -> MakePipeline:
    told = {name: value for name, value in settings.items() if name != "timezone"}

    def make(
        partition: Partition, asked: FalseAlarms, score: ScoreBlock, writer: MakeWriter, build: BuildProfile
    ) -> ReadingsPipeline:
        config = plant.readings_config(false_alarms=asked, **told)
        config = config.model_copy(update={"timezone": settings.get("timezone")})
        return ReadingsPipeline(
            partition, config, MODEL, decoder, dead_letters="dead", alerts="alerts", score=score,
            writer=writer, build=build,
        )  # fmt: skip

    return make


def costs(
    readings: Sequence[Reading],
    budgets: Sequence[FalseAlarms] = BUDGETS,
    settings: Mapping[str, Any] = PLAIN,
    *,
    pictured: bool = False,
) -> list[Cost]:
    records = plant.records_of([[one] for one in readings])
    batches = plant.batches_of(records, range(700, len(records), 700))
    decoder = ReadingDecoder(FieldsConfig(), ("value",))
    return costs_of(batches, decoder, partial(maker, settings=settings), budgets, pictured=pictured)


def test_together_budgets_cost_what_each_costs_by_itself() -> None:
    readings = sorted(
        shifted(faulty(1900), rows=900, gap=3 * 3600 * SECOND)
        + [one._replace(sensor="other") for one in shifted(faulty(1100, 1), rows=10_000, gap=0)],
        key=lambda one: one.time,
    )
    found = same_as_by_themselves(readings, pictured=True)
    assert sum(len(cost.result.episodes) for cost in found) > 5


def same_as_by_themselves(
    readings: Sequence[Reading],
    budgets: Sequence[FalseAlarms] = BUDGETS,
    settings: Mapping[str, Any] = PLAIN,
    *,
    pictured: bool = False,
) -> list[Cost]:
    """What budgets cost together, which is what each of them does; with `pictured` their messages, too."""
    together = costs(readings, budgets, settings, pictured=pictured)
    for cost in together:
        alone = by_itself(readings, cost.budget, settings)
        found = [one for one in alone.episodes if one.counts]
        # Rows that opened an episode are in its message, which has none unless it is for a picture.
        assert cost.result.episodes == (found if pictured else [replace(one, judged_from=None) for one in found])
        assert astuple(cost.result.budget) == astuple(alone.budget)
        assert (cost.result.watched, cost.result.readings) == (alone.watched, alone.readings)
        if pictured:
            assert list(map(shown, cost.result.alerts)) == list(map(shown, alone.alerts))
    return together


def shown(message: bytes) -> bytes:
    """What a picture, and a line of text, is made of: all of a message, but for the rows of an update."""
    alert = decode_alert(message)
    return message if alert.event != "updated" else encode_alert(msgspec.structs.replace(alert, window=None))


def test_hours_are_learnt_as_each_budget_has_its_episodes() -> None:
    """What lay in an episode teaches nothing of the hours, so what is told of them later hangs on the budget."""
    rng = np.random.default_rng(2)
    times, values = shifts(60, seed=2)
    for day in range(19, 60):
        if rng.random() < 0.6:
            at = 48 * day + 2 * int(rng.integers(6, 20))
            values[at : at + 8] += rng.uniform(-8.0, 4.0)
    readings = [Reading("press", time, (value,)) for time, value in zip(times.tolist(), values.tolist(), strict=True)]
    found = [one.what or "" for cost in same_as_by_themselves(readings, TWO, SHIFTS) for one in cost.result.episodes]
    assert any("where on a" in what for what in found)


def test_a_batch_is_decoded_once() -> None:
    class Counting(ReadingDecoder):
        decoded = 0

        def decode(self, batch: Batch) -> Readings:
            self.decoded += 1
            return super().decode(batch)

    decoder = Counting(FieldsConfig(), ("value",))
    records = plant.records_of([[one] for one in shifted(faulty(40), rows=40, gap=0)])
    costs_of(plant.batches_of(records, [10, 30]), decoder, maker, BUDGETS)
    assert decoder.decoded == 3


def test_a_profile_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def counted(times: I64, *arguments: Any, **how: Any) -> Any:
        built.append(len(times))
        return build_profile(times, *arguments, **how)

    monkeypatch.setattr(rescoring, "build_profile", counted)
    assert [cost.result.warming for cost in costs(shifted(faulty(320), rows=320, gap=0))] == [0] * len(BUDGETS)
    assert built == [300]


def by_itself(readings: Sequence[Reading], asked: FalseAlarms, settings: Mapping[str, Any] = PLAIN) -> BacktestResult:
    make = partial(maker, settings=settings)(ReadingDecoder(FieldsConfig(), ("value",)))
    records = plant.records_of([[one] for one in readings])
    replay = Replay(lambda partition: make(partition, asked, score_block, AlertWriter, build_profile))
    for batch in plant.batches_of(records, range(700, len(records), 700)):
        replay.take(batch)
    return replay.finish()


def test_time_without_readings_is_no_quiet_time() -> None:
    values = faulty(2600)
    whole, stopped, shifts = (
        costs(shifted(values, rows=rows, gap=gap))
        for rows, gap in ((20_000, 0), (1500, 60 * DAY), (480, 16 * 3600 * SECOND))
    )
    asked = budget("6/day")
    choices = [choose(found, asked) for found in (whole, stopped, shifts)]
    assert None not in choices
    assert len({spoken(one.cost.budget) for one in choices if one is not None}) == 1
    for found in (stopped, shifts):
        assert found[0].watched == pytest.approx(whole[0].watched, rel=0.25), "but for windows that begin again"
        assert [cost.known for cost in found] == [cost.known for cost in whole]


# -- which one is recommended ----------------------------------------------------------------------------------------


def cost(text: str, peaks: Sequence[float], allowed: float, *, first: int = 0) -> Cost:
    """A budget with episodes of these peaks, an hour apart, over eight weeks of one sensor."""
    episodes = [
        EpisodeSpan(
            "pump", at * 3600 * SECOND, at * 3600 * SECOND, at * 3600 * SECOND + MINUTE, "warning", peak, "recovered"
        )
        for at, peak in enumerate(peaks, start=first)
    ]
    result = BacktestResult(
        episodes=episodes, sensors=1, first=0, last=56 * DAY, watched=56 * DAY, budget=BudgetAccount(0, allowed)
    )
    return Cost(budget(text), result)


def test_a_budget_that_adds_noise_is_not_recommended() -> None:
    faults = [9.0, 12.0]
    found = [
        cost("2/week", [*faults, *[0.6] * 8], 16.0), cost("1/week", [*faults, 0.5, 0.7], 8.0),
        cost("2/month", faults, 4.0), cost("1/month", faults, 2.0),
    ]  # fmt: skip
    choice = choose(found, budget("5/week"))
    assert choice is not None
    assert spoken(choice.cost.budget) == "1/month"
    assert [(spoken(one.budget), len(one.episodes)) for one in choice.unclear] == [
        ("2/month", 0), ("1/week", 2), ("2/week", 8),
    ]  # fmt: skip


@pytest.mark.parametrize("extra", [[8.0], [0.6] * 14])
def test_one_that_adds_what_is_clear_or_many_is(extra: list[float]) -> None:
    faults = [9.0, 12.0]
    found = [cost("1/week", [*faults, *extra, *[0.4] * 4], 8.0), cost("1/month", faults, 2.0)]
    choice = choose(found, budget("5/week"))
    assert choice is not None
    assert (spoken(choice.cost.budget), choice.unclear) == ("1/week", [])


def test_what_a_stricter_budget_has_in_part_is_not_added() -> None:
    loose, strict = cost("1/week", [3.0, 3.0, 3.0], 8.0), cost("1/month", [3.0], 2.0, first=1)
    more = added(loose, strict, noise_of(loose))
    assert [one.detected // (3600 * SECOND) for one in more.episodes] == [0, 2]
    assert (more.by_chance, more.clear) == (6.0, 0), "as bad as most of its episodes"


def test_how_likely_so_many_are() -> None:
    assert chance_of(1, 0.0) == 0.0
    assert chance_of(3, 3.0) == pytest.approx(0.5768, abs=1e-4)
