"""Several channels in one window: whose fault it is, and what becomes of one channel alone."""

from __future__ import annotations

import numpy as np
import pytest

from detector.arrays import F64
from detector.wire.alerts import Alert, decode_alert
from tests import plant
from tests.plant import NAMES

WARMUP, ROWS = 1000, 700
FAULT = slice(WARMUP + 300, WARMUP + 380)


def told(values: F64) -> list[Alert]:
    """The alerts of one sensor that begins with its warm-up."""
    channels = values.shape[1]
    config = plant.readings_config(channels=channels, warmup=WARMUP, false_alarms=plant.per_readings(20_000))
    pipeline = plant.pipeline_of(config, plant.model_of(channels=channels))
    records = plant.records_of([[reading] for reading in plant.readings_of("a", values)])
    return [decode_alert(message.value) for message in plant.play(pipeline, records)]


@pytest.mark.parametrize(("channels", "broken"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_the_fault_of_one_channel_is_found_and_is_its_own(channels: int, broken: int) -> None:
    values = plant.healthy(np.random.default_rng(5), WARMUP + ROWS, channels)
    assert told(values) == []
    values[FAULT, broken] += 12
    opened, *_, closed = told(values)
    assert (opened.event, closed.event, closed.close_reason) == ("opened", "closed", "recovered")
    window = opened.window
    assert window is not None
    assert list(opened.channels) == list(NAMES[:channels])
    assert sum(opened.channels.values()) == pytest.approx(1, abs=1e-5)
    assert max(opened.channels, key=lambda name: opened.channels[name]) == NAMES[broken]
    assert opened.channels[NAMES[broken]] > 0.5
    for part in (window.values, window.expected, window.errors):
        assert isinstance(part, dict)
        assert {name: len(column) for name, column in part.items()} == dict.fromkeys(NAMES[:channels], 100)


def test_one_channel_is_what_it_was_before_there_were_several() -> None:
    values = plant.healthy(np.random.default_rng(7), WARMUP + ROWS)
    values[FAULT] += 3
    values[-100:] += 9
    found = told(values)
    assert [(one.event, one.detected_at[11:19]) for one in found] == [
        ("opened", "14:35:09"), ("updated", "14:35:09"), ("closed", "14:35:09"), ("opened", "14:40:09"),
        ("updated", "14:40:09"),
    ]  # fmt: skip
    # Highest scores that 10 rows held, thresholds: the first fault is no lesson for the second.
    numbers = [number for one in found for number in (one.peak_score, one.threshold)]
    assert all(one.score <= one.peak_score for one in found)
    assert numbers == pytest.approx(
        [
            1.91168, 1.44999, 5.31706, 1.44999, 19.3814, 1.44999, 4.02484, 1.88482, 7.45241, 1.88482,
        ], rel=1e-5,
    )  # fmt: skip
    assert all(one.channels == {"value": 1.0} and isinstance(one.window.values, list) for one in found if one.window)
