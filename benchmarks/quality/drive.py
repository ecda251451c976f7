"""Series through the product's own pipeline, row by row from the first, and what it said about them.

A row is a row: row r has the timestamp r seconds after `START`, nothing depends on time otherwise. Readings come to the
pipeline decoded, which saves writing and parsing millions of messages; everything behind the decoder is the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.modelling import channel_names
from detector.arrays import F64
from detector.config.load import AlertsConfig, FalseAlarms, ReadingsConfig, WindowConfig
from detector.detection.profile import MIN_ROWS
from detector.detection.scorer import Model
from detector.engine.readings import ReadingsPipeline
from detector.reports.scoreboard import EpisodeSpan, episodes_of
from detector.streams.base import Batch, Partition, Record
from detector.wire.alerts import Alert, decode_alert
from detector.wire.readings import Readings

SECOND = 10**9
START = 1_600_000_000 * SECOND
READINGS_AT_ONCE = 65_536
ROWS_AT_ONCE = 8_192
_PARTITION = Partition("sensor-readings", 0)


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert episode in rows: the first of those that opened it, or where it is said to begin if that is earlier;
    the row that opened it; the last row of it."""

    started: int
    opened: int
    ended: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Played:
    """What became of one series. `scores` (L,): 0 where a row has none; empty where several sensors ran together."""

    scores: F64
    episodes: tuple[Episode, ...]
    live_rows: int


def settings(warmup: int, budget: int | None, channels: tuple[str, ...] = ("value",)) -> ReadingsConfig:
    """The default configuration, but for what concerns time, with a budget of one false alarm in that many readings."""
    allowed = None if budget is None else FalseAlarms(per_sensor=1.0, per=f"{budget} readings")
    return ReadingsConfig(
        channels=channels,
        warmup=warmup,
        window=WindowConfig(max_gap=None, max_fill=0),
        idle_eviction=None,
        alerts=AlertsConfig(false_alarms=allowed, update_every=None, max_duration=None),
    )


def play(values: F64, train_rows: int, model: Model, budget: int | None) -> Played:
    """One sensor's series (L,) or (L, C) from row 0.

    Rows with a value that is not finite are not sent, and take no row of the pipeline.
    """
    rows = np.flatnonzero(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    warmup = max(int(np.searchsorted(rows, train_rows)), MIN_ROWS)
    alerts, scored = _run({"s": values[rows]}, settings(warmup, budget, channel_names(values)), model)
    scores = np.zeros(len(values))
    scores[rows[len(rows) - len(scored) :]] = scored
    episodes = tuple(_in_rows(span, rows) for span in episodes_of(alerts))
    return Played(scores, episodes, max(len(rows) - warmup, 0))


def play_together(
    sensors: Mapping[str, F64], warmup: int, model: Model, budget: int | None
) -> dict[str, tuple[Episode, ...]]:
    """Several sensors side by side through one pipeline, each with its own rows (L,) or (L, C); their episodes."""
    told = episodes_of(alerts_together(sensors, warmup, model, budget))
    found: dict[str, list[Episode]] = {name: [] for name in sensors}
    for span in told:
        found[span.sensor_id].append(_in_rows(span, np.arange(len(sensors[span.sensor_id]))))
    return {name: tuple(episodes) for name, episodes in found.items()}


def alerts_together(sensors: Mapping[str, F64], warmup: int, model: Model, budget: int | None) -> list[Alert]:
    """The same, and what was published."""
    channels = channel_names(next(iter(sensors.values())))
    return _run(sensors, settings(warmup, budget, channels), model)[0]


def row_of(time: int) -> int:
    """The row of a time (ns)."""
    return (time - START) // SECOND


def _run(sensors: Mapping[str, F64], config: ReadingsConfig, model: Model) -> tuple[list[Alert], F64]:
    """Feed all rows; returns the alerts and the scores as they came."""
    decoder = _Served()
    pipeline = ReadingsPipeline(_PARTITION, config, model, decoder, dead_letters="dead-letters", alerts="alerts")
    longest = max(len(values) for values in sensors.values())
    step = max(1, min(ROWS_AT_ONCE, READINGS_AT_ONCE // len(sensors)))
    alerts: list[Alert] = []
    scores: list[F64] = []
    for number, begin in enumerate(range(0, longest, step)):
        decoder.next = _readings(sensors, begin, begin + step)
        output = pipeline.process(Batch(_PARTITION, [Record(number, None, b"")], number + 1))
        if output.tally.accepted != len(decoder.next):
            raise AssertionError(f"{len(decoder.next)} readings sent, {output.tally.accepted} taken")
        alerts += [decode_alert(message.value) for message in output.alerts]
        scores += output.scores
    return alerts, np.concatenate([*scores, np.empty(0)])


def _readings(sensors: Mapping[str, F64], begin: int, end: int) -> Readings:
    parts = [(name, values[begin:end]) for name, values in sensors.items() if len(values) > begin]
    counts = np.array([len(part) for _, part in parts], dtype=np.int64)
    elements = np.concatenate([np.arange(count) for count in counts])
    return Readings(
        ids=[name for name, _ in parts],
        counts=counts,
        records=np.zeros(len(parts), dtype=np.int64),
        elements=np.arange(len(elements)),
        times=START + (begin + elements) * SECOND,
        values=np.concatenate([part.reshape(len(part), -1) for _, part in parts]),
        rejects=[],
    )


class _Served:
    """A decoder for records that were decoded before."""

    def __init__(self) -> None:
        self.next: Readings | None = None

    def decode(self, batch: Batch) -> Readings:
        """The readings of the batch at hand."""
        if self.next is None:
            raise AssertionError(f"nothing was laid out for {batch.partition}")
        return self.next


def _in_rows(span: EpisodeSpan, rows: NDArray[np.intp]) -> Episode:
    """`rows`: the series' row of each row that was sent."""

    def row(time: int) -> int:
        return int(rows[row_of(time)])

    started = span.started if span.judged_from is None else min(span.started, span.judged_from)
    ended = len(rows) - 1 if span.ended is None else row_of(max(span.ended, span.detected))
    return Episode(row(started), row(span.detected), int(rows[ended]), span.ended is not None)
