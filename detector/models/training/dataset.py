"""From recorded readings to what a model is trained on: each sensor's rows in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from detector.arrays import F64, I64, Bools
from detector.detection.windows import LATE_LIMIT
from detector.streams.base import Batch
from detector.wire.json_readings import ReadingDecoder

Columns = tuple[I64, I64, F64]
"""Readings in order of arrival: number of the sensor (n,), time in ns (n,), values (n, C)."""


@dataclass(slots=True)
class Collected:
    """The readings of a recording, sorted by sensor, and what was left out of them.

    `series`: by sensor id, times (L,) in ns and values (L, C), all finite; sensors in the order in which they appear.
    `records`, `refused`: how many records came, and how many of them were rejected in whole or in part;
    `first_refusal` says why. `excluded`: readings of sensors that are not watched; `outside`: readings cut off by
    `rows`, `since` or `until`. `missing`, `late`, `duplicate`, `resets` count as the daemon does.
    """

    series: dict[str, tuple[I64, F64]] = field(default_factory=dict)
    records: int = 0
    refused: int = 0
    first_refusal: str = ""
    readings: int = 0
    excluded: int = 0
    outside: int = 0
    missing: int = 0
    late: int = 0
    duplicate: int = 0
    resets: int = 0


def collect(
    batches: Iterable[Batch],
    decoder: ReadingDecoder,
    *,
    includes: Callable[[str], bool] = lambda _: True,
    rows: int | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Collected:
    """Decode a recording and keep what the daemon, without allowed lateness, would make rows of.

    `until` (ns): only readings before it. `since` (ns): only readings at most so much older than the newest one left.
    `rows`: of these the first so many of each sensor, as they came. Of the rest a missing value makes no row, nor does
    a reading that is not newer than its sensor's last row. After 20 late readings in a row the sensor's clock was set
    back: the rows go on from the new time, and those before it stay. Raises what decoding raises.
    """
    out = Collected()
    ids: list[str] = []
    numbers, times, values = _columns(batches, decoder, includes, ids, out)
    keep = np.ones(len(times), dtype=bool) if until is None else times < until
    if since is not None and keep.any():
        keep &= times >= times[keep].max() - since
    kept = np.flatnonzero(keep)
    order = kept[np.argsort(numbers[kept], kind="stable")]
    bounds = np.searchsorted(numbers[order], np.arange(len(ids) + 1))
    used = 0
    for number, sensor_id in enumerate(ids):
        mine = order[bounds[number] : bounds[number + 1]][:rows]
        used += len(mine)
        present = mine[~np.isnan(values[mine]).any(axis=1)]
        out.missing += len(mine) - len(present)
        present = present[in_order(times[present], out)]
        if len(present):
            out.series[sensor_id] = times[present], values[present]
    out.outside = len(times) - used
    return out


def in_order(times: I64, counts: Collected) -> Bools:
    """Which of a sensor's readings, in order of arrival, become rows; the others are added to `counts`."""
    if (np.diff(times) > 0).all():
        return np.ones(len(times), dtype=bool)
    accepted = []
    newest, late_run = None, 0
    for time in times.tolist():
        accept = newest is None or time > newest
        if not accept and time == newest:
            counts.duplicate += 1
        elif not accept:
            late_run += 1
            accept = late_run >= LATE_LIMIT
            counts.resets += accept
            counts.late += not accept
        if accept:
            newest, late_run = time, 0
        accepted.append(accept)
    return np.array(accepted, dtype=bool)


def constant_sensors(collected: Collected) -> Iterator[tuple[str, int]]:
    """Sensors with a channel whose values are all equal, with their number of rows."""
    for sensor_id, (times, values) in collected.series.items():
        if (values == values[0]).all(axis=0).any():
            yield sensor_id, len(times)


def _columns(
    batches: Iterable[Batch],
    decoder: ReadingDecoder,
    includes: Callable[[str], bool],
    ids: list[str],
    out: Collected,
) -> Columns:
    """All readings of watched sensors; fills `ids` with their names by number, and the counts of decoding."""
    known: dict[str, int] = {}
    parts: list[Columns] = []
    for batch in batches:
        readings = decoder.decode(batch)
        out.records += len(batch.records)
        out.refused += len(readings.rejects)
        if readings.rejects and not out.first_refusal:
            reject = readings.rejects[0]
            # The decoder names the row of a CSV file itself.
            place = "" if batch.header is not None else f"line {batch.row + reject.record + 1}: "
            out.first_refusal = f"{place}{reject.message}"
        for sensor_id in readings.ids:
            if sensor_id not in known:
                known[sensor_id] = len(ids) if includes(sensor_id) else -1
                if known[sensor_id] >= 0:
                    ids.append(sensor_id)
        runs = np.array([known[sensor_id] for sensor_id in readings.ids], dtype=np.int64)
        numbers = np.repeat(runs, readings.counts)
        watched = numbers >= 0
        out.readings += len(numbers)
        out.excluded += len(numbers) - int(watched.sum())
        parts.append((numbers[watched], readings.times[watched], readings.values[watched]))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 1))
    numbers, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return numbers, times, values
