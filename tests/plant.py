"""A small plant for tests: sensors and their readings, a cheap autoencoder, records, and a pipeline to feed them to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from unittest import mock

import numpy as np

from detector.arrays import F32, F64
from detector.config.load import (
    AlertsConfig,
    FalseAlarms,
    FieldsConfig,
    MaintenanceConfig,
    OpenAfter,
    OverrideConfig,
    ReadingsConfig,
    WindowConfig,
)
from detector.config.rules import RuleBook
from detector.detection.contexts import ContextTable
from detector.detection.hours import Hours
from detector.detection.profile import Profile, Reconstruct, build_profile
from detector.detection.scorer import Model, ScoreBlock, score_block
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable
from detector.detection.views import VIEWS
from detector.engine import alertwriter as alerts_module
from detector.engine import slices as snapshots
from detector.engine.readings import BuildProfile, ReadingsPipeline
from detector.engine.slices import unpack_slices
from detector.streams.base import Batch, Message, Partition, Record, pack_state, unpack_state
from detector.times import parse_time
from detector.wire.alerts import Alert, encode_alert
from detector.wire.json_readings import ReadingDecoder
from detector.wire.readings import Verdict, Word
from detector.wire.verdicts import encode_verdict
from tests.reference_rules import Event, Reading

SECOND = 10**9
START = 1_790_000_000 * SECOND
PARTITION = Partition("sensor-readings", 0)
NAMES = ("value", "pressure", "speed")


def reconstructor(channels: int = 1, seed: int = 0, hidden: int = 4) -> Reconstruct:
    """A little autoencoder whose rows do not depend on their neighbours: products summed along the last axis."""
    rng = np.random.default_rng(seed)
    width = WINDOW * channels
    down = rng.normal(0, width**-0.5, (hidden, width)).astype(np.float32)
    up = rng.normal(0, hidden**-0.5, (width, hidden)).astype(np.float32)

    def reconstruct(windows: F32) -> F32:
        flat = np.ascontiguousarray(windows).reshape(len(windows), 1, width)
        code = np.maximum((flat * down).sum(axis=-1), np.float32(0))
        out: F32 = (code[:, None, :] * up).sum(axis=-1).reshape(windows.shape)
        return out

    return reconstruct


def healthy(rng: np.random.Generator, rows: int, channels: int = 1, *, begin: int = 0, level: float = 50.0) -> F64:
    """(rows, channels) of a sensor in good health: a cycle of 23 rows and noise. `begin` is where in the cycle."""
    cycle = np.sin(2 * np.pi * (begin + np.arange(rows)) / 23)[:, None]
    return level + 3 * cycle + rng.normal(0, 0.4, (rows, channels))


def profile_of(
    values: F64,
    reconstruct: Reconstruct,
    *,
    interval: int = SECOND,
    stride: int = 1,
    open_after: tuple[int, int] = (10, 10),
    jitter: float = 0.0,
) -> Profile:
    """The profile of a prefix (L, C) with a reading every `interval` ns, give or take that share of it."""
    steps = np.random.default_rng(len(values)).uniform(-jitter, jitter, len(values))
    times = START + ((np.arange(len(values)) + steps / 2) * interval).astype(np.int64)
    return build_profile(times, values, reconstruct, stride=stride, open_after=open_after)[0]


def model_of(
    profiles: Mapping[str, Profile] | None = None, *, channels: int = 1, stride: int = 1, seed: int = 0
) -> Model:
    """A model around the little autoencoder."""
    return Model("readings", "1", "sha256:0", "standard", stride, reconstructor(channels, seed), profiles or {})


def readings_config(
    *,
    channels: int = 1,
    warmup: int = 150,
    false_alarms: FalseAlarms | None = None,
    open_after: tuple[int, int] = (10, 10),
    window: Mapping[str, Any] | None = None,
    silence_after: int | Literal["auto"] | None = None,
    idle_eviction: int | None = None,
    update_every: int | None = None,
    max_duration: int | None = None,
    overrides: Sequence[Mapping[str, Any]] = (),
    **alerts: Any,
) -> ReadingsConfig:
    """A configuration without timers and without a budget, unless asked for. Durations are ns."""
    return ReadingsConfig(
        channels=NAMES[:channels],
        warmup=warmup,
        window=WindowConfig(**(window or {})),
        silence_after=silence_after,
        idle_eviction=idle_eviction,
        overrides=tuple(OverrideConfig.model_validate(override) for override in overrides),
        alerts=AlertsConfig(
            false_alarms=false_alarms,
            open_after=OpenAfter(n=open_after[0], of=open_after[1]),
            update_every=update_every,
            max_duration=max_duration,
            **alerts,
        ),
    )


def per_readings(readings: int) -> FalseAlarms:
    """A budget of one false alarm in that many readings."""
    return FalseAlarms(per_sensor=1.0, per=f"{readings} readings")


def pipeline_of(
    config: ReadingsConfig,
    model: Model,
    score: ScoreBlock = score_block,
    maintenance: Sequence[MaintenanceConfig] = (),
    build: BuildProfile = build_profile,
) -> ReadingsPipeline:
    """A pipeline that knows nothing yet."""
    decoder = ReadingDecoder(FieldsConfig(), config.channels)
    return ReadingsPipeline(
        PARTITION, config, model, decoder,
        dead_letters="dead-letters", alerts="alerts", score=score, maintenance=maintenance, build=build,
    )  # fmt: skip


def maintenance(match: str, begin: float, end: float) -> MaintenanceConfig:
    """A window from `begin` to `end` seconds after START."""
    times = {"from": START + int(begin * SECOND), "to": START + int(end * SECOND)}
    return MaintenanceConfig.model_validate({"match": match, **times})


def readings_of(sensor: str, values: F64, *, first: int = START, interval: int = SECOND) -> list[Reading]:
    """The rows of (L, C) as readings of one sensor, one every `interval` ns."""
    return [Reading(sensor, first + i * interval, tuple(row)) for i, row in enumerate(values.tolist())]


def message(readings: Sequence[Reading]) -> bytes:
    """One message with all of the readings, in the shortest form they allow."""
    ids = {reading.sensor for reading in readings}
    if len(readings) == 1:
        return json.dumps(_single(readings[0])).encode()
    if len(ids) > 1:
        return json.dumps([_single(reading) for reading in readings]).encode()
    columns = [list(column) for column in zip(*(reading.values for reading in readings), strict=True)]
    values = columns[0] if len(columns) == 1 else dict(zip(NAMES, columns, strict=False))
    times = [reading.time for reading in readings]
    return json.dumps({"sensor_id": ids.pop(), "timestamps": times, "values": values}).encode()


def _single(reading: Reading) -> dict[str, Any]:
    at = {"sensor_id": reading.sensor, "timestamp": reading.time}
    if len(reading.values) == 1:
        return {**at, "value": reading.values[0]}
    return {**at, "values": dict(zip(NAMES, reading.values, strict=False))}


def records_of(groups: Sequence[Sequence[Reading]]) -> list[Record]:
    """One record a group."""
    return [Record(offset_of(i), None, message(group)) for i, group in enumerate(groups)]


def verdict(sensor: str, alert_id: str, word: Word, offset: int) -> Record:
    """A record that says this of an alert."""
    return Record(offset, None, encode_verdict(Verdict(sensor, alert_id, word), camera=False))


def offset_of(record: int) -> int:
    """Offsets rise in uneven steps, as byte positions do."""
    return 7 * record + record % 3


def batches_of(records: Sequence[Record], cuts: Sequence[int] = ()) -> Iterator[Batch]:
    """The records as batches that end at the cuts and at the end."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(records)}), len(records)]
    for first, last in itertools.pairwise(edges):
        if first < last:
            yield Batch(PARTITION, records[first:last], records[last - 1].offset + 1)


def play(pipeline: ReadingsPipeline, records: Sequence[Record], cuts: Sequence[int] = ()) -> list[Message]:
    """What the pipeline publishes of the records."""
    return [alert for batch in batches_of(records, cuts) for alert in pipeline.process(batch).alerts]


def of_different_ages(
    make: Callable[[], ReadingsPipeline], batches: Sequence[Batch], sensors: int, renewed: Callable[[], bool]
) -> tuple[ReadingsPipeline, ReadingsPipeline]:
    """A pipeline after the batches, and one with its state as of then, in slices of `sensors` each.

    After each batch a slice is stored again if it is `renewed`: what lies between has to be run again.
    """
    with mock.patch.object(snapshots, "SLICE_SENSORS", sensors):
        whole = make()
        slices: dict[int, bytes] = {}
        journal: dict[str, bytes] = {}
        for batch in batches:
            whole.process(batch)
            keep_journal(journal, whole)
            for number in range(whole.slices()):
                if number not in slices or renewed():
                    slices[number] = whole.pack_slice(number)
        pipeline = make()
        pipeline.restore(pack_state(list(slices.values()), journal), live_from=whole.position)
    return whole, pipeline


def keep_journal(journal: dict[str, bytes], pipeline: ReadingsPipeline) -> None:
    """Take what the pipeline has to say of open episodes into what was kept of it."""
    for sensor_id, entry in pipeline.journal():
        journal.pop(sensor_id, None)
        if entry is not None:
            journal[sensor_id] = entry


def table_of(pipeline: ReadingsPipeline, config: ReadingsConfig) -> SensorTable:
    """A copy of what the pipeline knows of its sensors, by way of its snapshot."""
    table = SensorTable(len(config.channels), RuleBook(config).most_rows)
    table.contexts = ContextTable(Hours(config.timezone))
    unpack_slices(table, unpack_state(pipeline.snapshot())[0])
    return table


def state_of(pipeline: ReadingsPipeline, config: ReadingsConfig) -> dict[str, Any]:
    """Everything the pipeline knows, to the bit, by sensor; independent of slots and of how the state came about."""
    table = table_of(pipeline, config)
    state: dict[str, Any] = {"clock": pipeline.clock, "position": pipeline.position, "resumed": table.resumed}
    for sensor, slot in table.slots.items():
        collected = [readings.get(slot) for readings in (table.warming, table.relearning)]
        state[sensor] = {
            "cells": {c.name: table[c.name][slot].tobytes() for c in table.columns if c.name != "known"},
            "held": repr(table.held.get(slot)),
            "episode": table.episodes.get(slot),
            "collected": [one and (one.times.tobytes(), one.values.tobytes()) for one in collected],
            "hours": table.contexts.of(slot).tobytes(),
            "silence": table.silences.get(slot),
            "aligning": repr(table.aligning.get(slot)),
            "patches": None if slot not in table.patches else table.patches[slot].tobytes(),
            "called": table.called.get(slot),
            "last episodes": repr(table.last_episodes.get(slot)),  # NaN is what it is
        }
    return state


def numbers_of(pipeline: ReadingsPipeline, config: ReadingsConfig) -> dict[str, dict[str, list[float]]]:
    """What the reference calls the numbers of its sensors."""
    table, book = table_of(pipeline, config), RuleBook(config)
    names = ["score", "prediction", "level", "relation", "held_error", "recent", "mean", "variance", "count"]
    names += ["filled", "pending"]
    found: dict[str, dict[str, list[float]]] = {}
    for sensor, slot in table.slots.items():
        found[sensor] = {}
        limited = book.of(sensor).alerts.false_alarms is not None
        for name in [*names, *(["credit", "rows", "peaks"] if limited else [])] if table["live"][slot] else ():
            cells = np.atleast_1d(table[name][slot]).astype(float)
            if name in ("mean", "variance") and table.channels > 1:
                cells = cells[:VIEWS]
            if name == "peaks":
                cells = cells - table["forgotten"][slot]
            if name == "recent":  # as wide as the largest m; what a smaller one leaves out does not count
                cells = cells[len(cells) - (book.of(sensor).open_after[1] - 1) :]
            found[sensor][name] = cells[np.isfinite(cells)].tolist()
    return found


@contextmanager
def unrounded() -> Iterator[dict[tuple[str, int], Alert]]:
    """Collects the alerts that are encoded meanwhile as they are before rounding, by (alert id, sequence)."""
    written: dict[tuple[str, int], Alert] = {}

    def note(alert: Alert) -> bytes:
        written[alert.alert_id, alert.sequence] = alert
        return encode_alert(alert)

    with mock.patch.object(alerts_module, "encode_alert", note):
        yield written


def event_of(alert: Alert) -> Event:
    """What an alert says, in the reference's words."""
    window = alert.window
    assert (window is None) == (alert.reason == "silent")
    parts: tuple[Any, ...] = (window.values, window.expected, window.errors) if window else ((), (), ())
    columns = [_by_channel(part) for part in parts]
    values = tuple(tuple(None if value != value else value for value in one) for one in columns[0])
    return Event(
        alert_id=alert.alert_id,
        reason=alert.reason,
        sequence=alert.sequence,
        event=alert.event,
        close_reason=alert.close_reason,
        severity=alert.severity,
        sensor=alert.sensor_id,
        started_at=parse_time(alert.started_at),
        detected_at=parse_time(alert.detected_at),
        ended_at=None if alert.ended_at is None else parse_time(alert.ended_at),
        score=alert.score,
        peak=alert.peak_score,
        threshold=alert.threshold,
        opened_offset=alert.source.opened_offset,
        last_offset=alert.source.last_offset,
        stamps=tuple(window.timestamps) if window else (),
        imputed=tuple(window.imputed) if window else (),
        values=values,
        expected=columns[1],
        errors=columns[2],
        shares=tuple(alert.channels.values()),
        muted=alert.muted,
    )


def _by_channel(part: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, part.values() if isinstance(part, dict) else [part] if isinstance(part, list) else ()))
