"""What an alert says about an episode."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replaced

from detector.arrays import F32, F64
from detector.config.load import AlertsConfig
from detector.detection.columns import NEVER
from detector.detection.episodes import Opening
from detector.detection.opened import Episode
from detector.detection.scorer import Model
from detector.detection.signals import WINDOW
from detector.detection.tail import chance
from detector.engine.alertwriter import AlertWriter, Moment, critical_level
from detector.times import parse_time
from detector.wire.alerts import Alert, What, alert_id, decode_alert
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
            ridge=np.zeros((channels, WINDOW - 1), dtype=np.float32),
            bias=np.zeros(channels),
            still_limit=np.full(channels, 20.0),
            resolution=np.zeros(channels),
            noise_hush=np.full(channels, 2.0),
            budget=math.inf,
            score=4.25,
            offset=77,
        ),
        **changes,
    )


def episode_of(channels: int = 1, v: float = 1.0, ratio: float = 3.0) -> Episode:
    return writer_of(channels).begin(
        "pump", Opening(0, 3, 0.5, NEVER), moment_of(channels), v, AlertsConfig(critical_ratio=ratio), muted=False
    )


def alert_of(channels: int = 1, **changes: Any) -> Alert:
    moment = moment_of(channels, **changes)
    return decode_alert(writer_of(channels).opened("pump", episode_of(channels), moment, math.log(5)).value)


def broken(since: int = 80) -> F64:
    """Readings around 50 that lie 20 higher from a row on."""
    values = 50 + np.random.default_rng(5).normal(size=(WINDOW, 1))
    values[since:] += 20
    return np.asarray(values)


def begun(ended: int = NEVER, **changes: Any) -> Episode:
    return writer_of().begin("pump", Opening(0, 3, 0.5, ended), moment_of(**changes), 1.0, AlertsConfig(), muted=False)


def test_an_episode_begins_where_its_window_says() -> None:
    episode = begun(values=broken())
    assert episode.detected_at == START + 99 * SECOND
    assert episode.started_at == START + 80 * SECOND
    assert episode.alert_id == alert_id("readings", "anomaly", "pump", episode.detected_at)
    assert (episode.sequence, episode.opened_offset, episode.ln_threshold) == (0, 77, 0.5)
    assert (episode.update_at, episode.close_at) == (None, None)


@pytest.mark.parametrize(("ended", "row"), [(10, 80), (79, 80), (80, 81), (98, 99), (99, 99), (5000, 99)])
def test_but_not_before_the_last_one_ended(ended: int, row: int) -> None:
    assert begun(START + ended * SECOND, values=broken()).started_at == START + row * SECOND


def test_nor_where_a_clock_that_was_set_back_makes_it_seem_so() -> None:
    times = START + np.arange(WINDOW) * SECOND
    times[90:] -= 60 * SECOND
    ended = int(times[89])
    assert begun(ended, times=times, values=broken()).started_at == times[-1]
    assert begun(ended - 5 * SECOND, times=times, values=broken()).started_at == times[85]


def test_a_later_look_does_not_move_what_is_out_of_sight_and_says_until_when() -> None:
    writer, values = writer_of(), np.concatenate([broken(), broken(0)[:70], broken(WINDOW)])
    times = START + np.arange(len(values)) * SECOND
    episode = begun(values=values[:WINDOW])
    for newest in range(WINDOW, len(values), 20):
        rows = slice(newest - WINDOW + 1, newest + 1)
        writer.look(episode, moment_of(times=times[rows], values=values[rows]))
    assert episode.started_at == times[80]
    assert episode.until is not None
    assert abs(episode.until - times[169]) <= 3 * SECOND
    closed = decode_alert(writer.closed("pump", episode, moment_of(), 1.0, START, "recovered").value)
    assert parse_time(closed.ended_at or "") == episode.until
    assert closed.what == What("level-shift", closed.what.text if closed.what else "")
    assert closed.what.text.endswith(f"above its usual level since {closed.started_at[11:19]}")


def test_an_episode_of_a_release_that_held_nothing_of_it_keeps_its_start() -> None:
    episode = replaced(begun(values=broken()), finding=None, until=None, started_at=START)
    assert writer_of().look(episode, moment_of(values=broken(0)))
    assert episode.started_at == START
    assert episode.finding is not None


@pytest.mark.parametrize(("ratio", "v", "severity"), [(3, 1.59, "warning"), (3, 1.6, "critical"), (1, 0.5, "critical")])
def test_an_episode_is_critical_from_a_multiple_of_its_threshold_on(ratio: float, v: float, severity: str) -> None:
    episode = episode_of(v=v, ratio=ratio)
    assert episode.severity == severity
    assert critical_level(episode.ln_threshold, ratio) == pytest.approx(0.5 + math.log(ratio))


def test_the_messages_of_an_episode() -> None:
    writer, episode = writer_of(), episode_of()
    messages = [
        writer.opened("pump", episode, moment_of(), 1.45),
        writer.updated("pump", episode, moment_of(score=4.4, offset=80), 1.5),
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
    assert [one.score for one in (opened, updated, closed)] == [4.25, 4.4, 0.5]
    assert [one.peak_score for one in (opened, updated, closed)] == [
        float(f"{math.exp(peak):.6g}") for peak in (1.45, 1.5, 1.5)
    ]
    assert {one.threshold for one in (opened, updated, closed)} == {float(f"{math.exp(0.5):.6g}")}
    assert [one.source.last_offset for one in (opened, updated, closed)] == [77, 80, 99]
    assert {one.source.opened_offset for one in (opened, updated, closed)} == {77}
    assert (opened.ended_at, closed.ended_at) == (None, "2026-09-21T14:14:59Z")
    assert opened.detected_at == "2026-09-21T14:14:59Z"
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


def test_an_update_has_the_rows_since_the_last_message_and_what_ends_an_episode_has_all() -> None:
    writer, episode = writer_of(2), episode_of(2)

    def at(newest: int) -> Moment:
        return moment_of(2, times=START + np.arange(newest - WINDOW + 1, newest + 1) * SECOND)

    messages = [
        writer.opened("pump", episode, at(99), 1.0),
        *(writer.updated("pump", episode, at(newest), 1.0) for newest in (114, 114, 400)),
        writer.closed("pump", episode, at(401), 1.0, START, "recovered"),
    ]
    rows = []
    for message in messages:
        window = decode_alert(message.value).window
        assert window is not None
        for column in (window.values, window.expected, window.errors):
            assert isinstance(column, dict)
            assert {len(one) for one in column.values()} == {len(window.timestamps)} == {len(window.imputed)}
        rows.append([(time - START // 10**6) // 1000 for time in window.timestamps])
    assert rows == [
        list(range(100)), list(range(100, 115)), [], list(range(301, 401)), list(range(302, 402)),
    ]  # fmt: skip


def test_an_episode_of_a_release_that_noted_no_rows_is_told_of_with_the_whole_window() -> None:
    alert = decode_alert(writer_of().updated("pump", replaced(episode_of(), shown=None), moment_of(), 1.0).value)
    assert alert.window is not None
    assert len(alert.window.timestamps) == WINDOW


def test_several_channels_are_told_by_name_with_their_part_of_what_is_unusual() -> None:
    values = moment_of(2).values + np.random.default_rng(3).normal(size=(WINDOW, 2)) * [8, 0.5]
    values[90:, 1] += 6
    moment = moment_of(2, values=values)
    episode = writer_of(2).begin("pump", Opening(0, 3, 0.5, NEVER), moment, 1.0, AlertsConfig(), muted=False)
    alert = decode_alert(writer_of(2).opened("pump", episode, moment, math.log(5)).value)
    assert alert.window is not None
    assert isinstance(alert.window.errors, dict)
    noisy, wrong = (np.array(alert.window.errors[name], dtype=float).sum() for name in ("value", "pressure"))
    assert noisy > wrong
    assert alert.channels["pressure"] > 0.9
    assert sum(alert.channels.values()) == pytest.approx(1.0)
    assert alert.what is not None
    assert alert.what.text.startswith("pressure: ")


def test_without_any_error_channels_share_equally() -> None:
    values = np.repeat(moment_of(2).center[None], WINDOW, axis=0)
    moment = moment_of(2, values=values)
    episode = writer_of(2).begin("pump", Opening(0, 3, 0.5, NEVER), moment, 1.0, AlertsConfig(), muted=False)
    alert = decode_alert(writer_of(2).opened("pump", episode, moment, 1.0).value)
    assert alert.channels == {"value": 0.5, "pressure": 0.5}


def test_without_a_budget_nothing_is_said_of_chance() -> None:
    assert alert_of().p_value is None
    assert alert_of(budget=1000.0).p_value == pytest.approx(chance(0.5, math.log(5)), rel=1e-5)


def test_a_glitch_beyond_all_measure_is_written_as_it_came() -> None:
    values = moment_of().values.copy()
    values[50] = 1e300
    window = alert_of(values=values).window
    assert window is not None
    assert isinstance(window.values, list)
    assert isinstance(window.errors, list)
    assert (window.values[50], window.errors[50]) == (1e300, 1e8)
