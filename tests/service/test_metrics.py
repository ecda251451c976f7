"""The catalogue of metrics: names, series that start at 0, and adding many observations at once."""

from __future__ import annotations

import math
import re
import subprocess
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from detector import __version__
from detector.engine.overview import SensorView
from detector.service.metrics import (
    EVENTS,
    FRAME_OUTCOMES,
    KINDS,
    READING_OUTCOMES,
    REJECT_REASONS,
    SEVERITIES,
    STAGES,
    Metrics,
    observe_many,
)
from detector.wire.readings import REASONS
from detector.wire.verdicts import WORDS
from tests.deploy.tools import tool

# What dashboards, rules and people hold on to.
NAMES = {
    "detector_event_latency_seconds",
    "detector_commit_latency_seconds",
    "detector_scoring_seconds",
    "detector_batch_records",
    "detector_commit_seconds",
    "detector_restore_seconds",
    "detector_restore_progress_ratio",
    "detector_snapshot_bytes",
    "detector_reconstruction_error",
    "detector_score",
    "detector_windows_scored_total",
    "detector_alerts_total",
    "detector_muted_alerts_total",
    "detector_verdicts_total",
    "detector_open_episodes",
    "detector_budget_opened",
    "detector_budget_allowed",
    "detector_false_alarm_budget_ratio",
    "detector_readings_total",
    "detector_frames_total",
    "detector_rejects_total",
    "detector_sensors",
    "detector_sensors_warming",
    "detector_sensors_relearning",
    "detector_sensors_unwatched",
    "detector_clock_resets_total",
    "detector_last_event_timestamp_seconds",
    "detector_lag_records",
    "detector_ready",
    "detector_loop_last_progress_timestamp_seconds",
    "detector_model_info",
    "detector_config_last_reload_successful",
    "detector_errors_total",
    "detector_replay_mismatch_total",
    "detector_build_info",
    "detector_sensor_value",
    "detector_sensor_expected",
    "detector_sensor_score",
    "detector_sensor_threshold",
}


def view(
    sensor_id: str, *, value: float = 1.0, expected: float | None = 2.0, score: float = 0.5, threshold: float = 1.0
) -> SensorView:
    """A sensor with a window of two rows."""
    rows = None if expected is None else np.array([[0.0], [expected]])
    return SensorView(sensor_id, score, threshold, np.array([0, 1]), np.array([[0.0], [value]]), rows, None)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, sensors=["pump-7"])


def family_names(registry: CollectorRegistry) -> set[str]:
    suffix = {"counter": "_total", "info": "_info"}
    return {
        family.name + suffix.get(family.type, "")
        for family in registry.collect()
        if family.name.startswith("detector_")
    }


def test_the_names_are_the_pinned_ones(metrics: Metrics) -> None:
    assert family_names(metrics.registry) == NAMES


def test_every_metric_explains_itself_in_base_units(metrics: Metrics) -> None:
    for family in metrics.registry.collect():
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)$", family.name)


def test_every_series_of_every_counter_starts_at_zero(metrics: Metrics) -> None:
    sets = {
        "kind": KINDS,
        "event": EVENTS,
        "severity": SEVERITIES,
        "stage": STAGES,
        "reason": REJECT_REASONS,
        "is": WORDS,
    }
    outcomes = {"detector_readings_total": READING_OUTCOMES, "detector_frames_total": FRAME_OUTCOMES}
    counters = [one for one in metrics.described if one.type == "counter"]
    assert {"detector_rejects_total", "detector_alerts_total"} <= {one.name for one in counters}
    for counter in counters:
        values = [outcomes[counter.name] if label == "outcome" else sets[label] for label in counter.labels]
        expected = {(counter.name, *labels): 0.0 for labels in product(*values)}
        (family,) = metrics.registry.restricted_registry([counter.name]).collect()
        begun = {(one.name, *(one.labels[label] for label in counter.labels)): one.value for one in family.samples}
        assert begun == expected


def test_every_reason_of_the_decoders_is_counted(metrics: Metrics) -> None:
    assert set(metrics.rejects) == REASONS | {"damaged", "too_many_bytes", "too_many_pixels", "shape_mismatch"}
    metrics.rejects["malformed"].inc(5)
    assert metrics.registry.get_sample_value("detector_rejects_total", {"reason": "malformed"}) == 5


def test_no_created_series_and_no_sensor_label_but_for_named_sensors(metrics: Metrics) -> None:
    metrics.watch([view("pump-7"), view("pump-8")])
    text = generate_latest(metrics.registry).decode()
    assert "_created" not in text
    labelled = {line.partition("{")[0] for line in text.splitlines() if "sensor_id=" in line}
    assert labelled == {f"detector_sensor_{name}" for name in ("value", "expected", "score", "threshold")}


def test_process_and_python_are_there(metrics: Metrics) -> None:
    names = {family.name for family in metrics.registry.collect()}
    assert {"process_resident_memory_bytes", "python_info", "python_gc_collections"} <= names


def test_model_and_build(metrics: Metrics) -> None:
    value = metrics.registry.get_sample_value
    metrics.model("readings", name="dense", version="1", digest="aa")
    metrics.model("readings", name="dense", version="2", digest="bb")
    new = {"kind": "readings", "name": "dense", "version": "2", "digest": "bb"}
    assert value("detector_model_info", new) == 1
    assert value("detector_model_info", {**new, "version": "1", "digest": "aa"}) is None
    family = next(f for f in metrics.registry.collect() if f.name == "detector_build")
    assert family.samples[0].labels["version"] == __version__


def test_a_partition_that_went_takes_its_series_along(metrics: Metrics) -> None:
    labels = {"stream": "sensor-readings", "partition": "1"}
    metrics.lag.labels(**labels).set(3)
    metrics.last_event_timestamp.labels(**labels).set(1.5)
    metrics.partition_gone("sensor-readings", 1)
    metrics.partition_gone("sensor-readings", 2)
    assert metrics.registry.get_sample_value("detector_lag_records", labels) is None
    assert metrics.registry.get_sample_value("detector_last_event_timestamp_seconds", labels) is None


def shown(metrics: Metrics, sensor_id: str) -> list[float | None]:
    return [
        metrics.registry.get_sample_value(f"detector_sensor_{name}", {"sensor_id": sensor_id})
        for name in ("value", "expected", "score", "threshold")
    ]


def test_a_sensor_named_in_the_configuration_has_series_while_it_is_there(metrics: Metrics) -> None:
    assert shown(metrics, "pump-7") == [None] * 4
    metrics.watch([view("pump-7", value=71.5, expected=70.0, score=0.4, threshold=1.5), view("pump-8")])
    assert shown(metrics, "pump-7") == [71.5, 70.0, 0.4, 1.5]
    assert shown(metrics, "pump-8") == [None] * 4, "it was not asked for"
    metrics.watch([view("pump-7", value=72.5, expected=None, score=math.nan, threshold=math.inf)])
    assert shown(metrics, "pump-7") == [72.5, None, None, None]
    metrics.watch([])
    assert shown(metrics, "pump-7") == [None] * 4


def test_the_exposition_parses(metrics: Metrics) -> None:
    encode, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    families = text_string_to_metric_families(encode(metrics.registry).decode())  # type: ignore[no-untyped-call]
    assert "detector_score" in {family.name for family in families}


def _samples(histogram: Histogram) -> list[tuple[str, dict[str, str], float]]:
    samples = [sample for family in histogram.collect() for sample in family.samples]
    # When a histogram was made is no matter of what it observed.
    return [(s.name, s.labels, s.value) for s in samples if not s.name.endswith("_created")]


@given(
    arrays.arrays(
        np.float64,
        st.integers(0, 40),
        elements=st.one_of(
            st.sampled_from([0.0, 1.0, 2.0, 10.0, math.nan, math.inf, -math.inf]),
            # Multiples of an eighth have exact sums, in whatever order they are added.
            st.integers(-800, 8_000).map(lambda eighths: eighths / 8),
        ),
    )
)
def test_many_at_once_equal_one_by_one(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    one_by_one = Histogram("h", "d", buckets=(1.0, 2.0, 10.0), registry=None)
    many = Histogram("h", "d", buckets=(1.0, 2.0, 10.0), registry=None)
    finite = [float(value) for value in values if math.isfinite(value)]
    for value in finite:
        one_by_one.observe(value)
    assert observe_many(many, values) == values.size - len(finite)
    assert _samples(many) == _samples(one_by_one)


def test_many_at_once_takes_a_labelled_child_and_any_shape() -> None:
    registry = CollectorRegistry()
    family = Histogram("h", "d", ["kind"], buckets=(1.0,), registry=registry)
    child = family.labels("readings")
    assert observe_many(child, np.array([[0.5, 1.5], [np.nan, 1.0]], dtype=np.float32)) == 1
    assert registry.get_sample_value("h_count", {"kind": "readings"}) == 3
    assert registry.get_sample_value("h_bucket", {"kind": "readings", "le": "1.0"}) == 2
    assert registry.get_sample_value("h_sum", {"kind": "readings"}) == 3.0


def test_prometheus_has_nothing_to_complain_of(metrics: Metrics) -> None:
    metrics.model("readings", name="dense", version="1", digest="aa")
    metrics.lag.labels("sensor-readings", "0").set(3)
    metrics.last_event_timestamp.labels("sensor-readings", "0").set(1.5)
    metrics.watch([view("pump-7")])
    words = [tool("promtool", "Debian: prometheus"), "check", "metrics"]
    done = subprocess.run(words, input=generate_latest(metrics.registry), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_is_described_is_what_is_exported(metrics: Metrics) -> None:
    assert {one.name for one in metrics.described} == family_names(metrics.registry) == NAMES
    for one in metrics.described:
        assert (one.type == "histogram") == bool(one.buckets)
        assert (one.type == "counter") == one.name.endswith("_total")
