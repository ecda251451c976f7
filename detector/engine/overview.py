"""What a person may look at while a pipeline runs: some sensors as they stand between two batches. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.arrays import F32, F64, I64
from detector.detection import signals
from detector.detection.columns import NEVER
from detector.detection.opened import Episode, Silence
from detector.detection.profile import Reconstruct
from detector.detection.sensor import load
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable, Slots
from detector.detection.threshold import advance, begin, threshold
from detector.detection.windows import window_of
from detector.engine.wording import in_words, silent_for
from detector.wire.alerts import AlertReason, Severity, What


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """An open episode. Times are ns; `threshold` as it stood at the opening, `peak` so far, in units of the score.

    Of a silent one: how long it has been, in units of what is allowed. `what`: as the alert says it, None of a camera;
    `until`: the last row that was unusual by itself, None: not known.
    """

    alert_id: str
    severity: Severity
    started_at: int
    detected_at: int
    threshold: float
    peak: float
    muted: bool = False
    reason: AlertReason = "anomaly"
    what: What | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class SensorView:
    """A sensor at its newest row. `threshold` is what the next row is compared with; `score` NaN: none yet.

    `times` (n,) ns, `values` and `expected` (n, C): the rows of its window, newest last, 100 of them when it is
    complete. `expected` is what the model makes of them, None for a window that is not complete. A camera has no
    values, one time, that of its newest frame, and in an episode a `heatmap` of that, as alerts have it.
    """

    sensor_id: str
    score: float
    threshold: float
    times: I64
    values: F64
    expected: F64 | None
    episode: EpisodeView | None
    heatmap: str | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """The sensors that were asked for by name, those with the highest scores, and those with open episodes.

    Of the latter two the worst come first, and as many as were asked for. One with two open episodes is there twice.
    """

    named: tuple[SensorView, ...] = ()
    worst: tuple[SensorView, ...] = ()
    episodes: tuple[SensorView, ...] = ()


def overview(
    table: SensorTable,
    reconstruct: Reconstruct,
    sensor_ids: Iterable[str],
    count: int,
    *,
    now: int,
    channels: Sequence[str],
) -> Overview:
    """The sensors named, and at most `count` of each of the others. `now`: the partition clock, ns."""
    named = [table.slots[sensor_id] for sensor_id in sensor_ids if sensor_id in table.slots]
    return _overview(table, named, count, lambda slots: _windows(table, slots, reconstruct), now, channels)


def camera_overview(table: SensorTable, heatmap_of: Callable[[F32], str], count: int) -> Overview:
    """At most `count` cameras of each sort but those named; `heatmap_of` draws that of a frame (h, w)."""
    return _overview(table, [], count, lambda slots: _pictures(table, slots, heatmap_of), NEVER, ())


_Seen = Mapping[int, Mapping[str, Any]]
"""What is seen of a sensor beside its scores, by slot: `times`, `values`, `expected`, `heatmap` of a `SensorView`."""


def _overview(
    table: SensorTable,
    named: Sequence[int],
    count: int,
    look: Callable[[Sequence[int]], _Seen],
    now: int,
    channels: Sequence[str],
) -> Overview:
    worst, open_now = _worst(table, count), _episodes(table, now, channels)[:count]
    slots = sorted({*named, *worst, *(slot for slot, _ in open_now)})
    thresholds, seen = _thresholds(table, slots), look(slots)
    views = {
        slot: SensorView(
            sensor_id=table.name(slot),
            score=float(table["score"][slot]) if table["live"][slot] else math.nan,
            threshold=thresholds.get(slot, math.nan),
            episode=_anomaly(table, slot, table.episodes[slot], channels) if slot in table.episodes else None,
            **seen[slot],
        )
        for slot in slots
    }
    episodes = tuple(replace(views[slot], episode=episode) for slot, episode in open_now)
    return Overview(tuple(views[slot] for slot in named), tuple(views[slot] for slot in worst), episodes)


def _worst(table: SensorTable, count: int) -> list[int]:
    """The slots of the sensors with the highest scores, highest first; at most `count`."""
    slots = table.occupied()
    slots = slots[table["live"][slots] & np.isfinite(table["score"][slots])]
    scores = table["score"][slots]
    if len(slots) > count:
        chosen = np.argpartition(-scores, count - 1)[:count]
        slots, scores = slots[chosen], scores[chosen]
    return [int(slot) for slot in slots[np.lexsort((slots, -scores))]]


def _episodes(table: SensorTable, now: int, channels: Sequence[str]) -> list[tuple[int, EpisodeView]]:
    """The open episodes with the slots of their sensors, the worst first."""
    found = [(slot, _anomaly(table, slot, episode, channels)) for slot, episode in table.episodes.items()]
    found += [(slot, _silence(silence, now)) for slot, silence in table.silences.items()]
    return sorted(found, key=lambda item: (item[1].severity != "critical", -item[1].peak, item[0]))


def _thresholds(table: SensorTable, slots: Sequence[int]) -> dict[int, float]:
    """What the next row of each is compared with; none of those that warm up."""
    at = _live(table, slots)
    if not len(at):
        return {}
    sensors = load(table.records(at))
    for sensor in sensors:
        begin(sensor)
        advance(sensor)
    return {slot: math.exp(threshold(sensor)) for slot, sensor in zip(at.tolist(), sensors, strict=True)}


def _live(table: SensorTable, slots: Sequence[int]) -> Slots:
    at = np.array(slots, dtype=np.intp)
    live: Slots = at[table["live"][at]]
    return live


def _windows(table: SensorTable, slots: Sequence[int], reconstruct: Reconstruct) -> _Seen:
    expected = _expected(table, _live(table, slots), reconstruct)
    windows = {slot: window_of(table, slot) for slot in slots}
    begin = {slot: WINDOW - min(int(table["filled"][slot]), WINDOW) for slot in slots}
    return {
        slot: {
            "times": windows[slot][0][begin[slot] :],
            "values": windows[slot][1][begin[slot] :],
            "expected": expected.get(slot),
        }
        for slot in slots
    }


def _pictures(table: SensorTable, slots: Sequence[int], heatmap_of: Callable[[F32], str]) -> _Seen:
    return {
        slot: {
            "times": table["times"][slot, table["times"].shape[1] - min(int(table["filled"][slot]), 1) :].copy(),
            "values": np.empty((0, 0)),
            "expected": None,
            "heatmap": heatmap_of(table["frame"][slot]) if slot in table.episodes else None,
        }
        for slot in slots
    }


def _expected(table: SensorTable, at: Slots, reconstruct: Reconstruct) -> dict[int, F64]:
    """What the model makes of the windows that are complete."""
    at = at[table["filled"][at] >= WINDOW]
    if not len(at):
        return {}
    center, scale = table["center"][at][:, None], table["scale"][at][:, None]
    values = np.stack([window_of(table, slot)[1] for slot in at.tolist()])
    z = signals.standardise(values, center, scale)
    rebuilt = reconstruct(z.astype(np.float32)).astype(np.float64) * scale + center
    return dict(zip(at.tolist(), rebuilt, strict=True))


def _anomaly(table: SensorTable, slot: int, episode: Episode, channels: Sequence[str]) -> EpisodeView:
    found = episode.finding
    return EpisodeView(
        alert_id=episode.alert_id,
        severity=episode.severity,
        started_at=episode.started_at,
        detected_at=episode.detected_at,
        threshold=math.exp(episode.ln_threshold),
        peak=math.exp(float(table["peak"][slot])),
        muted=episode.muted,
        what=None if found is None else in_words(found, episode, table["scale"][slot], table["center"][slot], channels),
        until=episode.until,
    )


def _silence(silence: Silence, now: int) -> EpisodeView:
    return EpisodeView(
        alert_id=silence.alert_id,
        severity=silence.severity,
        started_at=silence.started_at,
        detected_at=silence.detected_at,
        threshold=1.0,
        peak=max(1.0, (now - silence.since) / silence.after),
        muted=silence.muted,
        reason="silent",
        what=What("silent", silent_for(silence.started_at, now, ended=False)),
    )
