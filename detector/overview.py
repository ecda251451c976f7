"""What a person may look at while a pipeline runs: some sensors as they stand between two batches. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector import signals
from detector.messages import Severity
from detector.profile import Reconstruct
from detector.scorer import EPISODE, THRESHOLD
from detector.signals import F64, WINDOW
from detector.state import SensorTable, Slots
from detector.threshold import Thresholds


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """An open episode. Times are ns; `threshold` as it stood at the opening, `peak` so far, in units of the score."""

    alert_id: str
    severity: Severity
    started_at: int
    detected_at: int
    threshold: float
    peak: float
    muted: bool = False


@dataclass(frozen=True, slots=True)
class SensorView:
    """A sensor at its newest row. `threshold` is what the next row is compared with; `score` NaN: none yet.

    `times` (n,) ns, `values` and `expected` (n, C): the rows of its window, newest last, 100 of them when it is
    complete. `expected` is what the model makes of them, None for a window that is not complete.
    """

    sensor_id: str
    score: float
    threshold: float
    times: NDArray[np.int64]
    values: F64
    expected: F64 | None
    episode: EpisodeView | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The sensors that were asked for by name, those with the highest scores, and those with open episodes.

    Of the latter two the worst come first, and as many as were asked for.
    """

    named: tuple[SensorView, ...] = ()
    worst: tuple[SensorView, ...] = ()
    episodes: tuple[SensorView, ...] = ()


def overview(table: SensorTable, reconstruct: Reconstruct, sensor_ids: Iterable[str], count: int) -> Overview:
    """The sensors named, and at most `count` of each of the others."""
    named = [table.slots[sensor_id] for sensor_id in sensor_ids if sensor_id in table.slots]
    groups = named, _worst(table, count), _in_episodes(table, count)
    slots = sorted({slot for group in groups for slot in group})
    views = dict(zip(slots, _look(table, slots, reconstruct), strict=True))
    return Overview(*(tuple(views[slot] for slot in group) for group in groups))


def _worst(table: SensorTable, count: int) -> list[int]:
    """The slots of the sensors with the highest scores, highest first; at most `count`."""
    slots = table.occupied()
    slots = slots[table["live"][slots] & np.isfinite(table["score"][slots])]
    scores = table["score"][slots]
    if len(slots) > count:
        chosen = np.argpartition(-scores, count - 1)[:count]
        slots, scores = slots[chosen], scores[chosen]
    return [int(slot) for slot in slots[np.lexsort((slots, -scores))]]


def _in_episodes(table: SensorTable, count: int) -> list[int]:
    """The slots of the sensors with the worst open episodes, worst first; at most `count`."""
    episodes = table.episodes.items()
    by_severity = sorted(
        episodes, key=lambda item: (item[1].severity != "critical", -float(table["peak"][item[0]]), item[0])
    )
    return [slot for slot, _ in by_severity[:count]]


def _look(table: SensorTable, slots: Sequence[int], reconstruct: Reconstruct) -> list[SensorView]:
    """The sensors in these slots, in that order."""
    if not slots:
        return []
    at = np.array(slots, dtype=np.intp)
    at = at[table["live"][at]]
    expected = _expected(table, at, reconstruct)
    ln_thresholds = Thresholds(table.take(at, (*THRESHOLD, *EPISODE))).before_row(len(at))
    thresholds = dict(zip(at.tolist(), np.exp(ln_thresholds).tolist(), strict=True))
    views = []
    for slot in slots:
        begin = WINDOW - min(int(table["filled"][slot]), WINDOW)
        views.append(
            SensorView(
                sensor_id=table.name(slot),
                score=float(table["score"][slot]),
                threshold=thresholds.get(slot, math.nan),
                times=table["times"][slot, begin:].copy(),
                values=table["values"][slot, begin:].copy(),
                expected=expected.get(slot),
                episode=_episode(table, slot),
            )
        )
    return views


def _expected(table: SensorTable, at: Slots, reconstruct: Reconstruct) -> dict[int, F64]:
    """What the model makes of the windows that are complete."""
    at = at[table["filled"][at] >= WINDOW]
    if not len(at):
        return {}
    center, scale = table["center"][at][:, None], table["scale"][at][:, None]
    z = signals.standardise(table["values"][at], center, scale)
    rebuilt = reconstruct(z.astype(np.float32)).astype(np.float64) * scale + center
    return dict(zip(at.tolist(), rebuilt, strict=True))


def _episode(table: SensorTable, slot: int) -> EpisodeView | None:
    episode = table.episodes.get(slot)
    if episode is None:
        return None
    return EpisodeView(
        alert_id=episode.alert_id,
        severity=episode.severity,
        started_at=episode.started_at,
        detected_at=episode.detected_at,
        threshold=math.exp(episode.ln_threshold),
        peak=math.exp(float(table["peak"][slot])),
        muted=episode.muted,
    )
