"""What is configured and would have no effect is refused, by name."""

from __future__ import annotations

import numpy as np
import pytest

from detector.config.load import load_config
from detector.errors import UserError
from detector.service.supported import impatient, refuse_unsupported, unmatched
from tests.plant import SECOND, healthy, profile_of, reconstructor


def test_the_defaults_are_supported() -> None:
    refuse_unsupported(load_config(None, []))


def test_what_only_tests_can_use_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        refuse_unsupported(load_config(None, ["streams.backend=memory"]))
    assert str(refused.value) == (
        "nothing can be read from memory but by tests (streams.backend: memory). Set it to directory or kafka."
    )


def test_a_daemon_without_work_is_refused() -> None:
    with pytest.raises(UserError, match=r"nothing is enabled \(readings\.enabled\)"):
        refuse_unsupported(load_config(None, ["readings.enabled=false"]))


def test_patterns_that_no_known_sensor_matches_are_told() -> None:
    config = load_config(
        None, ['readings.overrides=[{match: "pump-*", enabled: true}, {match: "pump-1", enabled: false}]']
    )
    assert list(unmatched(config, ["pump-1", "fan"])) == [("readings.overrides[1]", "pump-1", 2)]
    assert [key for key, *_ in unmatched(config, ["fan"])] == ["readings.overrides[0]", "readings.overrides[1]"]
    assert list(unmatched(config, [])) == []


def test_so_are_those_of_the_calendar() -> None:
    days = 'from: "2026-12-24", to: "2026-12-26"'
    config = load_config(None, [f'calendar=[{{match: "pump-*", {days}}}, {{match: "fan-*", {days}}}, {{{days}}}]'])
    assert list(unmatched(config, ["pump-1", "pump-2"])) == [("calendar[1]", "fan-*", 2)]


def test_so_are_those_of_maintenance_among_sensors_and_cameras() -> None:
    times = 'from: "2026-12-24T00:00:00Z", to: "2026-12-27T00:00:00Z"'
    config = load_config(None, [f'maintenance=[{{match: "pump-*", {times}}}, {{match: "door", {times}}}]'])
    assert list(unmatched(config, ["pump-1"], ["door"])) == []
    assert list(unmatched(config, ["pump-1", "pump-2"])) == [("maintenance[1]", "door", 2)]
    assert list(unmatched(config, [], ["door"])) == [("maintenance[0]", "pump-*", 1)]
    with_cameras = config.model_copy(update={"frames": config.frames.model_copy(update={"enabled": True})})
    assert list(unmatched(with_cameras, ["pump-1"])) == [], "it may be the name of a camera"
    assert list(unmatched(config, [])) == []


def test_sensors_that_would_be_silent_all_the_time_are_told() -> None:
    config = load_config(None, ["readings.silence_after=5s", 'readings.overrides=[{match: "b", silence_after: null}]'])
    rng = np.random.default_rng(1)
    seconds = {"a": 1, "b": 60, "c": 3, "d": 60}
    profiles = {
        name: profile_of(healthy(rng, 300), reconstructor(), interval=interval * SECOND)
        for name, interval in seconds.items()
    }
    assert impatient(config, profiles) == ["c", "d"]
    assert impatient(load_config(None, []), profiles) == []
