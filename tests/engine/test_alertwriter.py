"""What an alert says about an episode."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector.arrays import F32
from detector.detection.columns import NEVER
from detector.detection.episodes import Opening
from detector.detection.scorer import Model
from detector.detection.signals import NEWEST_FIRST, WINDOW
from detector.detection.table import Episode
from detector.engine.alertwriter import AlertWriter, Moment, critical_level
from detector.wire.alerts import Alert, alert_id, decode_alert
from tests import plant
from tests.plant import SECOND, START


def flat(windows: F32) -> F32:
    """An autoencoder that expects the usual value throughout."""
    return np.zeros_like(windows)


def writer_of(channels: int = 1) -> AlertWriter:
    model = Model("readings", "v7", "sha256:abc", "standard", 1, flat, {})
    return AlertWriter("anomaly-alerts", plant.PARTITION, model, plant.NAMES[:channels])


def moment_of(channels: int = 1, **changes: Any) -> Moment:
    """A sensor with the usual value 50 (plus the channel) and the unit 2, one unit above it in every row."""
    center = np.arange(50.0, 50.0 + channels)
    return replace(
        Moment(
            times=START + np.arange(WINDOW) * SECOND,
            values=np.repeat(center[None] + 2, WINDOW, axis=0),
            imputed=np.arange(WINDOW) % 10 == 0,
            center=center,
            scale=np.full(channels, 2.0),
            score=4.25,
            offset=77,
        ),
        **changes,
    )


def episode_of(ended: int = NEVER, v: float = 1.0, ln_threshold: float = 0.5, ratio: float = 3.0) -> Episode:
    return writer_of().begin("pump", Opening(0, 3, ln_threshold, ended), moment_of(), v, ratio, muted=False)


def alert_of(channels: int = 1, **changes: Any) -> Alert:
    moment = moment_of(channels, **changes)
    return decode_alert(writer_of(channels).opened("pump", episode_of(), moment, math.log(5)).value)


def test_an_episode_begins_fifty_rows_before_it_is_noticed() -> None:
    episode = episode_of()
    assert episode.detected_at == START + 99 * SECOND
    assert episode.started_at == START + 49 * SECOND
    assert episode.alert_id == alert_id("readings", "anomaly", "pump", episode.detected_at)
    assert (episode.sequence, episode.opened_offset, episode.ln_threshold) == (0, 77, 0.5)
    assert (episode.update_at, episode.close_at) == (None, None)


@pytest.mark.parametrize(("ended", "row"), [(10, 49), (48, 49), (49, 50), (60, 61), (98, 99), (99, 99), (5000, 99)])
def test_but_not_before_the_last_one_ended(ended: int, row: int) -> None:
    assert episode_of(ended=START + ended * SECOND).started_at == START + row * SECOND


def test_nor_where_a_clock_that_was_set_back_makes_it_seem_so() -> None:
    times = START + np.arange(WINDOW) * SECOND
    times[70:] -= 60 * SECOND
    moment = moment_of(times=times)
    ended = int(times[69])
    opening = Opening(0, 3, 0.5, ended)
    assert writer_of().begin("pump", opening, moment, 1.0, 3.0, muted=False).started_at == times[-1]
    opening = Opening(0, 3, 0.5, ended - 10 * SECOND)
    assert writer_of().begin("pump", opening, moment, 1.0, 3.0, muted=False).started_at == times[60]


@pytest.mark.parametrize(("ratio", "v", "severity"), [(3, 1.59, "warning"), (3, 1.6, "critical"), (1, 0.5, "critical")])
def test_an_episode_is_critical_from_a_multiple_of_its_threshold_on(ratio: float, v: float, severity: str) -> None:
    episode = episode_of(v=v, ratio=ratio)
    assert episode.severity == severity
    assert critical_level(episode.ln_threshold, ratio) == pytest.approx(0.5 + math.log(ratio))


def test_the_messages_of_an_episode() -> None:
    writer, episode = writer_of(), episode_of()
    messages = [
        writer.opened("pump", episode, moment_of(), 1.0),
        writer.updated("pump", episode, moment_of(score=6.0, offset=80), 1.5),
        writer.closed("pump", episode, moment_of(score=0.5, offset=99), 1.5, START + 42 * SECOND, "recovered"),
    ]
    assert {(message.stream, message.key, tuple(message.headers)) for message in messages} == {
        ("anomaly-alerts", b"pump", ())
    }
    opened, updated, closed = (decode_alert(message.value) for message in messages)
    assert [(one.sequence, one.event, one.close_reason) for one in (opened, updated, closed)] == [
        (0, "opened", None),
        (1, "updated", None),
        (2, "closed", "recovered"),
    ]
    assert [one.score for one in (opened, updated, closed)] == [4.25, 6, 0.5]
    assert [one.peak_score for one in (opened, updated, closed)] == [
        float(f"{math.exp(peak):.6g}") for peak in (1, 1.5, 1.5)
    ]
    assert {one.threshold for one in (opened, updated, closed)} == {float(f"{math.exp(0.5):.6g}")}
    assert [one.source.last_offset for one in (opened, updated, closed)] == [77, 80, 99]
    assert {one.source.opened_offset for one in (opened, updated, closed)} == {77}
    assert (opened.ended_at, closed.ended_at) == (None, "2026-09-21T14:14:02Z")
    assert (opened.started_at, opened.detected_at) == ("2026-09-21T14:14:09Z", "2026-09-21T14:14:59Z")
    assert (opened.kind, opened.reason, opened.muted, opened.p_value) == ("readings", "anomaly", False, None)
    assert (opened.model.name, opened.model.version, opened.model.digest) == ("readings", "v7", "sha256:abc")
    assert (opened.source.stream, opened.source.partition) == ("sensor-readings", 0)


def test_the_window_shows_what_came_and_what_was_expected_in_the_sensors_own_unit() -> None:
    window = alert_of().window
    assert window is not None
    assert window.timestamps == [START // 10**6 + 1000 * i for i in range(WINDOW)]
    assert window.values == [52.0] * WINDOW
    assert window.expected == [50.0] * WINDOW
    assert window.errors == [1.0] * WINDOW
    assert window.imputed == [i % 10 == 0 for i in range(WINDOW)]


def test_several_channels_are_told_by_name_with_their_share_of_the_error() -> None:
    values = moment_of(2).values.copy()
    values[-1, 1] += 6
    alert = alert_of(2, values=values)
    window = alert.window
    assert window is not None
    assert window.values == {"value": [52.0] * 100, "pressure": [53.0] * 99 + [59.0]}
    assert window.expected == {"value": [50.0] * 100, "pressure": [51.0] * 100}
    assert window.errors == {"value": [1.0] * 100, "pressure": [1.0] * 99 + [16.0]}
    heavier = 1 + 15 * NEWEST_FIRST[-1]
    assert alert.channels == {
        "value": pytest.approx(1 / (1 + heavier), rel=1e-5),
        "pressure": pytest.approx(heavier / (1 + heavier), rel=1e-5),
    }


def test_without_any_error_channels_share_equally() -> None:
    assert alert_of(2, values=np.repeat(moment_of(2).center[None], WINDOW, axis=0)).channels == {
        "value": 0.5,
        "pressure": 0.5,
    }


def test_a_glitch_beyond_all_measure_is_written_as_it_came() -> None:
    values = moment_of().values.copy()
    values[50] = 1e300
    window = alert_of(values=values).window
    assert window is not None
    assert isinstance(window.values, list)
    assert isinstance(window.errors, list)
    assert (window.values[50], window.errors[50]) == (1e300, 1e8)
