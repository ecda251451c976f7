"""Watching scores, and judging them again: neither changes a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.config.load import FieldsConfig, ReadingsConfig
from detector.detection.scorer import Model, ScoreBlock, score_block
from detector.detection.signals import WINDOW
from detector.engine.output import ScoredRows, traced
from detector.engine.readings import ReadingsPipeline
from detector.reports.rescoring import RecordedScores
from detector.streams.base import Record
from detector.wire.alerts import decode_alert
from detector.wire.json_readings import ReadingDecoder
from tests.plant import (
    PARTITION,
    SECOND,
    START,
    batches_of,
    healthy,
    model_of,
    per_readings,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
)

ROWS = 900
FAULT = slice(400, 470)


def model(stride: int = 1) -> Model:
    profile = profile_of(healthy(np.random.default_rng(0), 300), reconstructor(), stride=stride)
    return model_of({"pump-0": profile}, stride=stride)


def recording(gap: int = 0) -> list[Record]:
    """Two sensors, the second unknown to the model; the first has faults and, if asked for, a gap in the middle."""
    first = healthy(np.random.default_rng(1), ROWS)
    first[FAULT] += 9
    first[700:720] += 2
    readings = readings_of("pump-0", first)
    readings = readings[:300] + readings_of("pump-0", first[300:], first=START + (300 + gap) * SECOND)
    second = readings_of("pump-1", healthy(np.random.default_rng(2), ROWS))
    return records_of([list(pair) for pair in zip(readings, second, strict=True)])


def pipeline(config: ReadingsConfig, score: ScoreBlock = score_block, stride: int = 1) -> ReadingsPipeline:
    decoder = ReadingDecoder(FieldsConfig(), config.channels)
    return ReadingsPipeline(
        PARTITION, config, model(stride), decoder, dead_letters="dead-letters", alerts="alerts", score=score
    )


def alerts_of(one: ReadingsPipeline, records: list[Record], cuts: list[int]) -> list[bytes]:
    return [alert.value for batch in batches_of(records, cuts) for alert in one.process(batch).alerts]


def rows_by_sensor(told: list[ScoredRows]) -> dict[str, list[tuple[int, float, float, float, float]]]:
    found: dict[str, list[tuple[int, float, float, float, float]]] = {}
    for rows in told:
        columns = (rows.times, rows.values[:, 0], rows.expected[:, 0], rows.scores, rows.thresholds)
        cells = list(zip(*(column.tolist() for column in columns), strict=True))
        begin = 0
        for name, count in zip(rows.ids, rows.counts.tolist(), strict=True):
            found.setdefault(name, []).extend(cells[begin : begin + count])
            begin += count
    return found


def test_watching_changes_nothing_and_sees_every_row() -> None:
    told: list[ScoredRows] = []
    config, records, cuts = readings_config(false_alarms=per_readings(500)), recording(), [130, 431]
    expected = alerts_of(pipeline(config), records, cuts)
    assert expected
    assert alerts_of(pipeline(config, traced(told.append)), records, cuts) == expected
    rows = rows_by_sensor(told)
    assert [time for time, *_ in rows["pump-0"]] == [START + i * SECOND for i in range(WINDOW - 1, ROWS)]
    assert len(rows["pump-1"]) == ROWS - config.warmup


def test_what_is_watched_is_what_alerts_say() -> None:
    told: list[ScoredRows] = []
    config = readings_config()
    alerts = [decode_alert(a) for a in alerts_of(pipeline(config, traced(told.append)), recording(), [])]
    assert alerts
    by_row = {(name, time): rest for name, rows in rows_by_sensor(told).items() for time, *rest in rows}
    for alert in alerts:
        assert alert.window is not None
        assert isinstance(alert.window.values, list)
        assert isinstance(alert.window.expected, list)
        time = alert.window.timestamps[-1] * 10**6
        value, expected, score, threshold = by_row[alert.sensor_id, time]
        assert alert.window.values[-1] == pytest.approx(value, rel=1e-5)
        assert alert.window.expected[-1] == pytest.approx(expected, rel=1e-5)
        assert (
            0 < alert.score <= score * (1 + 1e-5) or alert.event != "opened"
        )  # n of m rows are as bad, the newest too
        if alert.event == "opened":
            assert alert.threshold == pytest.approx(threshold, rel=1e-5)


def test_a_stride_leaves_rows_without_an_expected_value() -> None:
    told: list[ScoredRows] = []
    alerts_of(pipeline(readings_config(), traced(told.append), stride=3), recording(), [])
    expected = [row[2] for row in rows_by_sensor(told)["pump-0"]]
    assert [i for i, value in enumerate(expected) if not np.isnan(value)] == list(range(0, len(expected), 3))


@pytest.mark.parametrize("gap", [0, 2, 4000])
@pytest.mark.parametrize("cuts", [[], [99, 100, 101, 410, 600]])
def test_scores_judged_again_lead_to_the_alerts_of_a_whole_run(gap: int, cuts: list[int]) -> None:
    records = recording(gap)
    recorded = RecordedScores()
    timers: dict[str, Any] = {"update_every": 40 * SECOND, "max_duration": 60 * SECOND, "idle_eviction": 3000 * SECOND}
    configs = [readings_config(false_alarms=per_readings(rows), **timers) for rows in (300, 900, 40_000)]
    first = pipeline(readings_config(false_alarms=per_readings(5000), **timers), recorded.record)
    others = [pipeline(config, recorded.reuse()) for config in configs]
    found: list[list[bytes]] = [[] for _ in others]
    for batch in batches_of(records, cuts):
        first.process(batch)
        for one, alerts in zip(others, found, strict=True):
            alerts += [alert.value for alert in one.process(batch).alerts]
        recorded.forget()
    assert found == [alerts_of(pipeline(config), records, cuts) for config in configs]
    assert all(found)
