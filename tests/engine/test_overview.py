"""What may be looked at while a pipeline runs is what its alerts say, and looking changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.detection.scorer import Model
from detector.engine.overview import Overview, SensorView
from detector.engine.readings import ReadingsPipeline
from detector.streams.base import Record
from detector.times import parse_time
from detector.wire.alerts import decode_alert
from tests import cameras, plant
from tests.plant import SECOND, START

ROWS = 300
FAULTY = {"b": 30.0, "d": 60.0}
NAMES = ("a", "b", "c", "d")
CONFIG = plant.readings_config(false_alarms=plant.per_readings(2000))


@pytest.fixture(scope="module")
def model() -> Model:
    profile = plant.profile_of(plant.healthy(np.random.default_rng(1), 900), plant.reconstructor())
    return plant.model_of(dict.fromkeys(NAMES, profile))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    columns = {}
    for seed, name in enumerate(NAMES):
        columns[name] = plant.healthy(np.random.default_rng(10 + seed), ROWS)
        columns[name][200:] += FAULTY.get(name, 0.0)
    readings = [plant.readings_of(name, values) for name, values in columns.items()]
    return plant.records_of([list(group) for group in zip(*readings, strict=True)])


@pytest.fixture
def pipeline(model: Model, records: list[Record]) -> ReadingsPipeline:
    one = plant.pipeline_of(CONFIG, model)
    plant.play(one, records)
    return one


def names(views: tuple[SensorView, ...]) -> list[str]:
    return [view.sensor_id for view in views]


def test_the_worst_come_first_and_no_more_than_asked_for(pipeline: ReadingsPipeline) -> None:
    seen = pipeline.overview(["c", "never seen", "a"], 2)
    assert names(seen.named) == ["c", "a"]
    assert names(seen.worst) == ["d", "b"]
    assert names(seen.episodes) == ["d", "b"]
    scores = [view.score for view in pipeline.overview([], 10).worst]
    assert len(scores) == len(NAMES)
    assert scores == sorted(scores, reverse=True)
    assert names(pipeline.overview([], 1).episodes) == ["d"]


def test_an_episode_is_shown_as_its_alert_told_it(model: Model, records: list[Record]) -> None:
    one = plant.pipeline_of(CONFIG, model)
    opened = {a.sensor_id: a for a in map(decode_alert, (m.value for m in plant.play(one, records))) if not a.sequence}
    for view in one.overview([], 5).episodes:
        alert, episode = opened[view.sensor_id], view.episode
        assert episode is not None
        assert episode.alert_id == alert.alert_id
        assert episode.what is not None
        assert episode.what.text
        assert episode.threshold == pytest.approx(alert.threshold, rel=1e-5)
        assert episode.peak >= alert.peak_score * (1 - 1e-5)
        assert view.times[-1] == START + (ROWS - 1) * SECOND


def test_what_is_expected_is_what_the_alert_of_that_row_expects(model: Model, records: list[Record]) -> None:
    one = plant.pipeline_of(CONFIG, model)
    until = 0
    for until in range(200, ROWS):
        alerts = plant.play(one, records[:200] if until == 200 else records[until - 1 : until])
        if alerts:
            break
    alert = decode_alert(alerts[0].value)
    (view,) = one.overview([alert.sensor_id], 0).named
    assert alert.window is not None
    assert view.expected is not None
    assert view.values[:, 0] == pytest.approx(alert.window.values, rel=1e-5)
    assert view.expected[:, 0] == pytest.approx(alert.window.expected, rel=1e-5)
    assert view.score >= alert.score * (1 - 1e-5)


def test_a_sensor_that_warms_up_or_fills_its_window_is_shown_as_far_as_it_is_known(model: Model) -> None:
    one = plant.pipeline_of(CONFIG, model)
    values = plant.healthy(np.random.default_rng(5), 40)
    readings = [plant.readings_of(name, values) for name in ("a", "new")]
    plant.play(one, plant.records_of([list(group) for group in zip(*readings, strict=True)]))
    seen = one.overview(["a", "new"], 5)
    filling, warming = seen.named
    assert filling.values[:, 0] == pytest.approx(values[:, 0])
    assert (filling.expected, warming.expected) == (None, None)
    assert math.isnan(warming.score)
    assert math.isnan(warming.threshold)
    assert filling.threshold > 0
    assert (seen.worst, seen.episodes) == ((), ())


def test_looking_changes_nothing(pipeline: ReadingsPipeline, model: Model, records: list[Record]) -> None:
    before = plant.state_of(pipeline, CONFIG)
    seen = pipeline.overview(NAMES, 3)
    assert plant.state_of(pipeline, CONFIG) == before
    values = seen.named[1].values.copy()
    plant.play(pipeline, plant.records_of([plant.readings_of("b", values[:5] + 99, first=START + ROWS * SECOND)]))
    assert (seen.named[1].values == values).all(), "what was seen stays as it was"


def test_cameras_are_shown_by_their_scores_and_the_heat_map_of_the_alert() -> None:
    config, model = cameras.frames_config(), cameras.model_of("door", "gate")
    frames = {"door": cameras.watched(30, seed=5, faults=[(20, 30)]), "gate": cameras.watched(30, seed=6)}
    records = cameras.records_of(frames | {"new": cameras.watched(30, seed=7)})
    one = cameras.pipeline_of(config, model)
    assert one.overview(["door"], 5) == Overview()
    until = 1 + next(i for i, _ in enumerate(records) if cameras.play(one, records[i : i + 1]))
    (alert,) = (decode_alert(m.value) for m in cameras.play(cameras.pipeline_of(config, model), records[:until]))
    seen = one.overview(["door"], 5)
    assert (seen.named, names(seen.worst), names(seen.episodes)) == ((), ["door", "gate"], ["door"])
    (view,) = seen.episodes
    assert view.episode is not None
    assert (view.episode.alert_id, view.heatmap) == (alert.alert_id, alert.heatmap)
    assert view.score >= alert.score * (1 - 1e-5)
    assert view.times.tolist() == [parse_time(alert.detected_at)]
    assert (len(view.values), view.expected, seen.worst[1].heatmap) == (0, None, None)
    assert names(one.overview([], 1).worst) == ["door"]
