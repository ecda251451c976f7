"""Faults put into recorded readings: what is told of them is what a run over such readings would tell."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest

from detector.arrays import F64
from detector.config.load import FalseAlarms, ReadingsConfig
from detector.config.rules import RuleBook
from detector.detection.scorer import ScoreBlock
from detector.engine.readings import ReadingsPipeline
from detector.reports.proving import STEPS, Kind, Proved, Told, prove
from detector.reports.sampled import Recorded, sample
from detector.reports.trials import CALM, Followed, follow, run_on
from detector.simulation.faults import Healthy
from detector.streams.base import Batch, Partition, Record
from detector.wire.readings import Decoder, Readings
from tests.plant import SECOND, START, healthy, model_of, readings_config

WITHIN = 200
BUDGET = FalseAlarms(per_sensor=1.0, per="10000 readings")


@pytest.fixture
def _few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One size of each kind in two places, for what does not turn on them."""
    monkeypatch.setattr("detector.reports.proving.PLACES", 2)
    monkeypatch.setattr("detector.reports.proving.STEPS", (16.0,))
    monkeypatch.setattr("detector.reports.proving.DRIFTS", (32.0,))


def recorded(values: F64, name: str = "pump") -> Recorded:
    return Recorded(name, START + np.arange(len(values)) * SECOND, values)


def quiet(rows: int = 1600, channels: int = 1) -> Recorded:
    return recorded(healthy(np.random.default_rng(8), rows, channels))


class Maker:
    """Makes pipelines of one configuration."""

    def __init__(self, config: ReadingsConfig | None = None, channels: int = 1) -> None:
        self.config = config or readings_config(channels=channels, warmup=400, false_alarms=BUDGET)
        self._model = model_of(channels=channels)

    def __call__(self, decoder: Decoder, score: ScoreBlock, *, silence: bool) -> ReadingsPipeline:
        config = self.config if silence else self.config.model_copy(update={"silence_after": None})
        partition = Partition("sensor-readings", 0)
        return ReadingsPipeline(
            partition, config, self._model, decoder, dead_letters="dead", alerts="alerts", score=score
        )


def proved(
    one: Recorded, maker: Maker | None = None, *, other: str | None = None, examples: bool = False
) -> list[Proved]:
    maker = maker or Maker(channels=one.values.shape[1])
    rules = RuleBook(maker.config).of(one.sensor_id)
    names = maker.config.channels
    return list(prove(maker, one, names, rules, other=other, within=WITHIN, examples=examples))


@functools.cache
def of_quiet() -> Proved:
    """The quiet sensor, against another one, with silence on."""
    maker = Maker(readings_config(warmup=400, false_alarms=BUDGET, silence_after=90 * SECOND))
    (line,) = proved(quiet(), maker, other="fan", examples=True)
    return line


def told(line: Proved, kind: Kind) -> Told:
    found = line.found[kind]
    assert isinstance(found, Told), found
    return found


@functools.cache
def followed() -> Followed:
    """A sensor that reads too high from row 1200 to row 1300."""
    values = quiet().values.copy()
    values[1200:1300] += 10
    return follow(Maker(), recorded(values))


def test_a_trial_with_the_readings_as_they_are_tells_what_the_recording_told() -> None:
    whole = followed()
    assert [1150 <= first <= 1210 for first, _ in whole.episodes] == [True]
    for copy in (whole.copies[0], whole.before(1200)):
        assert copy is not None
        alerts = run_on(Maker(), copy, whole.recorded, len(whole.recorded))
        assert [alert.event for alert in alerts][:1] == ["opened"]
        assert len({alert.alert_id for alert in alerts}) == 1


def test_places_lie_where_the_recording_is_quiet() -> None:
    whole = followed()
    ((first, last),) = whole.episodes
    places = whole.placements(WITHIN, 5)
    assert len(places) == 5
    assert all(copy.row + WITHIN <= first or copy.row > last + CALM for copy in places)
    assert all(400 <= copy.row <= len(whole.recorded) - WITHIN for copy in places)
    assert len(whole.placements(1_500, 5)) == 0


def test_the_smallest_step_is_told_by_a_run_over_the_whole_recording_and_the_next_smaller_is_not() -> None:
    one, line = quiet(), of_quiet()
    step = told(line, "step")
    assert step.spreads in STEPS
    assert line.places == 5
    rungs = [STEPS[STEPS.index(step.spreads) - 1], step.spreads]
    counts = []
    for spreads in rungs:
        found = 0
        for number, copy in enumerate(follow(Maker(), one).placements(WITHIN, 5)):
            values = one.values.copy()
            side = -1 if number % 2 else 1
            values[copy.row : copy.row + WITHIN] += side * spreads * line.spread
            stop = copy.row + WITHIN
            faulty = Recorded(one.sensor_id, one.times[:stop], values[:stop])
            found += bool(follow(Maker(), faulty, copies=1).episodes)
        counts.append(found)
    assert counts[0] < 4 <= counts[1]


def test_what_sticks_drifts_or_is_silent_is_told_after_a_time_of_its_own() -> None:
    line = of_quiet()
    stuck, silent, drift = told(line, "stuck"), told(line, "dropout"), told(line, "drift")
    assert stuck.spreads is None
    assert 0 < stuck.rows <= WITHIN and stuck.time == (stuck.rows - 1) * SECOND  # noqa: PT018
    assert silent.time == 90 * SECOND
    assert drift.spreads is not None
    assert line.blind is None
    assert line.spread == pytest.approx(float(Healthy.of(quiet().values).spread[0]))


def test_an_example_shows_what_was_before_the_fault_and_the_episode() -> None:
    example = told(of_quiet(), "step").example
    assert example is not None
    begin, end = example.fault
    assert example.curve.times[0] < begin < example.curve.times[-1] <= end
    assert [begin <= span.detected <= end for span in example.episodes] == [True]
    assert told(of_quiet(), "dropout").example is None


@pytest.mark.usefixtures("_few_sizes")
@pytest.mark.parametrize(("silence", "other", "why"), [(None, "fan", "off"), (90 * SECOND, None, "alone")])
def test_why_silence_is_not_told(silence: int | None, other: str | None, why: str) -> None:
    maker = Maker(readings_config(warmup=400, false_alarms=BUDGET, silence_after=silence))
    (line,) = proved(quiet(1000), maker, other=other)
    assert line.found["dropout"] == why


@pytest.mark.usefixtures("_few_sizes")
def test_a_value_that_never_moves_cannot_stick() -> None:
    (line,) = proved(recorded(np.full((1000, 1), 7.0)))
    assert line.found["stuck"] == "no meaning"
    assert isinstance(line.found["step"], Told)


@pytest.mark.usefixtures("_few_sizes")
def test_why_a_sensor_is_as_good_as_unwatched() -> None:
    (short,) = proved(recorded(quiet().values[:300]))
    assert short.blind == "it is still warming up (warming)"
    assert short.found == {}
    deaf = readings_config(warmup=400, false_alarms=BUDGET, min_deviation={"absolute": 1e6})
    (line,) = proved(quiet(1000), Maker(deaf))
    assert line.blind is not None
    assert line.blind.startswith("not even a step of 16 times its usual spread is told")
    assert line.blind.endswith("alerts.min_deviation leaves small ones out")


@pytest.mark.usefixtures("_few_sizes")
def test_only_a_side_that_is_asked_for_counts() -> None:
    config = readings_config(warmup=400, false_alarms=BUDGET, direction="below")
    (line,) = proved(quiet(1000), Maker(config))
    assert told(line, "step").rows < WITHIN


@pytest.mark.usefixtures("_few_sizes")
def test_every_channel_is_tried_alone() -> None:
    one = quiet(1000, channels=2)
    one.values[:, 1] *= 10
    lines = proved(one, other="fan")
    assert [line.channel for line in lines] == ["value", "pressure"]
    assert lines[1].spread == pytest.approx(10 * lines[0].spread, rel=0.2)
    assert all(told(line, "step") for line in lines)


def batches(ids: Sequence[str], rows: int = 3) -> list[Batch]:
    return [Batch(Partition("in", 0), [Record(0, None, name.encode())], 1) for _ in range(rows) for name in ids]


class Names:
    """A decoder of records that are names of sensors: one reading each, a second apart."""

    def __init__(self) -> None:
        self._time = START

    def decode(self, batch: Batch) -> Readings:
        name = (batch.records[0].value or b"").decode()
        self._time += SECOND
        one = np.ones(1, dtype=np.int64)
        return Readings([name], one, 0 * one, 0 * one, np.array([self._time]), np.ones((1, 1)), [])


def test_a_sample_rests_on_the_names_alone_and_has_all_readings_of_those_chosen() -> None:
    ids = [f"pump-{number}" for number in range(40)]
    shuffled = [ids[i] for i in np.random.default_rng(4).permutation(40)]
    chosen = [sample(batches(order), Names(), lambda _: True, most=5) for order in (ids, shuffled)]
    assert list(chosen[0].sensors) == list(chosen[1].sensors)
    assert len(chosen[0].sensors) == 5
    assert all(len(one) == 3 for one in chosen[0].sensors.values())
    assert chosen[0].known == set(ids)
    assert chosen[0].another("pump-0") == "pump-1"


def test_sensors_that_are_not_watched_or_not_wanted_are_left_out() -> None:
    ids = ["fan-1", "pump-1", "pump-2"]
    found = sample(batches(ids), Names(), lambda name: name != "pump-2", most=None, wanted=lambda name: "pump" in name)
    assert list(found.sensors) == ["pump-1"]
    assert (found.known, found.excluded) == ({"fan-1", "pump-1"}, 3)


def test_of_very_many_readings_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.reports.sampled.LEAST_OF_ONE", 5)
    monkeypatch.setattr("detector.reports.sampled.MOST_OF_ONE", 5)
    found = sample(batches(["pump"], 14), Names(), lambda _: True, most=None)
    assert found.cut
    assert 5 <= len(found.sensors["pump"]) <= 10
    assert int(found.sensors["pump"].times[-1]) == START + 14 * SECOND
