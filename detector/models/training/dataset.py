"""From recorded readings to what a model is trained on: each sensor's rows in the order of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from detector.arrays import F64, I64
from detector.detection.alignment import Alignment, align
from detector.detection.columns import columns
from detector.detection.prefix import first_whole
from detector.detection.signals import forward_filled
from detector.detection.table import SensorTable
from detector.detection.windows import BACKWARDS, Arrivals, admit
from detector.streams.base import Batch
from detector.wire.readings import Decoder

Columns = tuple[I64, I64, F64]
"""Readings, or rows: number of the sensor (n,), time in ns (n,), values (n, C)."""

_ORDER: Final = tuple(
    column for column in columns(1, 1) if column.name in ("released", "newest", "late_run", "restart", "live")
)
"""What `admit` looks at of a sensor; training needs nothing else of a table."""
PORTION: Final = 100_000
"""Readings admitted at once: those of a sensor out of order become Python objects meanwhile."""


@dataclass(slots=True)
class Collected:
    """The readings of a recording, sorted by sensor, and what was left out of them.

    `series`: by sensor id, times (L,) in ns and values (L, C), NaN: a row lacks the channel; sensors in the order in
    which they appear. A series begins where each channel has come; `never`: of those that have none for it, the
    channels that never come. `records`, `refused`: how many records came, and how many of them were rejected in whole
    or in part; `first_refusal` says why. `excluded`: readings of sensors that are not watched; `outside`: readings cut
    off by `rows`, `since` or `until`. `missing`, `late`, `duplicate`, `resets` count as the daemon does. `sorted`:
    sensors whose readings ran backwards, and were sorted by time. `held`: readings held back at the end for others that
    might be late; the daemon would make rows of them with the next ones.
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
    held: int = 0
    sorted: list[str] = field(default_factory=list)
    never: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machines:
    """How the readings of machines, one channel each, become rows with all channels of the machine."""

    channels: int
    alignment: Alignment


def collect(
    batches: Iterable[Batch],
    decoder: Decoder,
    *,
    includes: Callable[[str], bool] = lambda _: True,
    rows: int | None = None,
    since: int | None = None,
    until: int | None = None,
    lateness: int = 0,
    machines: Machines | None = None,
) -> Collected:
    """Decode a recording and keep what the daemon would make rows of.

    `until` (ns): only readings before it. `since` (ns): only readings at most so much older than the newest one left.
    `rows`: how many of these, from the first, of each sensor, as they came. The rest becomes rows as by
    `windows.admit` with `lateness` (ns). Where a sensor's clock was set back, its rows go on from the new time, and
    those before it stay. Gaps are not filled. `machines`: what is decoded is one channel of each reading; `rows` counts
    as many readings as that many rows have. Raises what decoding raises.
    """
    out = Collected()
    ids: list[str] = []
    numbers, times, values = _columns(batches, decoder, includes, ids, out)
    keep = np.ones(len(times), dtype=bool) if until is None else times < until
    if since is not None and keep.any():
        keep &= times >= times[keep].max() - since
    if rows is not None:
        rows *= 1 if machines is None else machines.channels
        wanted = np.flatnonzero(keep)
        order = wanted[np.argsort(numbers[wanted], kind="stable")]
        rank = np.arange(len(order)) - np.searchsorted(numbers[order], numbers[order])
        keep[order[rank >= rows]] = False
    out.outside = len(times) - int(keep.sum())
    kept = numbers[keep], times[keep], values[keep]
    set_back = _rows(kept, lateness, Collected(), machines)[1]
    backwards = [number for number, times in set_back.items() if times >= BACKWARDS]
    if backwards:
        out.sorted = [ids[number] for number in sorted(backwards)]
        kept = _sorted(kept, backwards)
    (numbers, times, values), _ = _rows(kept, lateness, out, machines)
    bounds = np.searchsorted(numbers, np.arange(len(ids) + 1))
    for number, sensor_id in enumerate(ids):
        mine = slice(bounds[number], bounds[number + 1])
        if mine.start < mine.stop:
            begin = first_whole(values[mine])
            if begin == mine.stop - mine.start:
                out.never[sensor_id] = np.flatnonzero(np.isnan(values[mine]).all(axis=0)).tolist()
                continue
            mine = slice(mine.start + begin, mine.stop)
            out.series[sensor_id] = times[mine], values[mine]
    return out


def in_order(times: I64) -> I64:
    """Which of a camera's frames, by times (n,) in order of arrival, become rows: their numbers, in order."""
    numbers = np.arange(len(times), dtype=np.float64)[:, None]
    (_, _, rows), _ = _rows((np.zeros(len(times), dtype=np.int64), times, numbers), 0, Collected())
    return rows[:, 0].astype(np.int64)


def _sorted(readings: Columns, some: Sequence[int]) -> Columns:
    """The readings, those of some sensors in the order of time."""
    numbers, times, values = readings
    place = np.arange(len(times))
    chosen = np.flatnonzero(np.isin(numbers, some))
    place[chosen] = chosen[np.argsort(times[chosen], kind="stable")]
    return numbers[place], times[place], values[place]


def _rows(
    readings: Columns, lateness: int, out: Collected, machines: Machines | None = None
) -> tuple[Columns, Counter[int]]:
    """The rows that the daemon makes of readings, by sensor; what becomes of the others is added to `out`.

    Values that stand for missing ones are NaN. Returns also how often the clock of each sensor was set back.
    """
    set_back: Counter[int] = Counter()
    numbers, times, values = readings
    channels = values.shape[1] if machines is None else machines.channels
    table = SensorTable(channels, last_scores=1, declared=_ORDER)
    for number in range(int(numbers.max(initial=-1)) + 1):
        table.add(str(number))
    parts = [(numbers[:0], times[:0], np.empty((0, channels)))]
    for begin in range(0, len(times), PORTION):
        part = slice(begin, begin + PORTION)
        unknown = np.zeros(len(times[part]), dtype=np.int64)
        arrivals = Arrivals(numbers[part], times[part], values[part], unknown, unknown)
        if machines is not None:
            arrivals.values, channel = values[part, :1], values[part, 1].astype(np.int64)
            arrivals, _, duplicate = align(table, arrivals, channel, machines.alignment)
            out.duplicate += duplicate
        rows, tally = admit(table, arrivals, lateness)
        parts.append((np.repeat(rows.slots, rows.last - rows.first), rows.times, rows.marked))
        out.missing += tally.missing
        out.late += tally.late
        out.duplicate += tally.duplicate
        out.resets += tally.resets
        set_back.update(tally.set_back)
    out.held += sum(map(len, table.held.values())) + sum(len(state.rows) for state in table.aligning.values())
    numbers, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(numbers, kind="stable")
    return (numbers[order], times[order], values[order]), set_back


def _place(batch: Batch, index: int) -> str:
    """Where a record stands; nothing for a row of a CSV file, which the decoder names itself."""
    record = batch.records[index]
    if record.timestamp is not None:  # a topic has no lines
        return f"partition {batch.partition.number}, offset {record.offset}: "
    return "" if batch.header is not None else f"line {batch.row + index + 1}: "


def constant_sensors(collected: Collected) -> Iterator[tuple[str, int, list[int]]]:
    """Sensors with channels whose values are all equal: their number of rows, and those channels by number."""
    for sensor_id, (times, values) in collected.series.items():
        filled = forward_filled(values)
        if (flat := np.flatnonzero((filled == filled[0]).all(axis=0))).size:
            yield sensor_id, len(times), flat.tolist()


def _columns(
    batches: Iterable[Batch],
    decoder: Decoder,
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
            out.first_refusal = f"{_place(batch, reject.record)}{reject.message}"
        for sensor_id in readings.ids:
            if sensor_id not in known:
                known[sensor_id] = len(ids) if includes(sensor_id) else -1
                if known[sensor_id] >= 0:
                    ids.append(sensor_id)
        runs = np.array([known[sensor_id] for sensor_id in readings.ids], dtype=np.int64)
        numbers = np.repeat(runs, readings.counts)
        watched = numbers >= 0
        values = readings.values
        if readings.channels is not None:
            channels = np.repeat(readings.channels, readings.counts)
            values, watched = np.column_stack([values, channels]), watched & (channels >= 0)
        out.readings += len(numbers)
        out.excluded += len(numbers) - int(watched.sum())
        parts.append((numbers[watched], readings.times[watched], values[watched]))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 1))
    numbers, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return numbers, times, values
