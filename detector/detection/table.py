"""All that is known of a partition's sensors between two readings, declared in one place.

Columns are numpy arrays with one row a sensor; growth, eviction and snapshots are generic over their declaration. What
has no fixed size (readings held back, a warm-up, an open episode) exists for few sensors at a time and hangs beside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.arrays import F64, I64, U8, Bools
from detector.detection.signals import WINDOW, signal_count
from detector.detection.threshold import RESERVOIR
from detector.wire.alerts import Severity

CHUNK = 1024
"""Sensors by which the table grows at least."""
NEVER = np.iinfo(np.int64).min
"""A timestamp before all others."""
Slots = NDArray[np.intp]
_FORMAT = 1


class Column(msgspec.Struct, frozen=True):
    """One array of the table: dtype and shape of a sensor's cell, and what an unknown sensor has in it.

    `newest_last`: a cell holds so many of a sensor's newest rows; one of another length is taken over from its end.
    `added`: state that was stored before there was the column is taken over without it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    empty: float | int | bool
    newest_last: bool = False
    added: bool = False


def columns(channels: int, last_scores: int) -> tuple[Column, ...]:
    """The declaration, for C channels and n-of-m over `last_scores` = m rows."""
    signals = signal_count(channels)
    return (
        # the window: raw values as they came, newest last; `filled` of its rows are valid
        Column("values", "f8", (WINDOW, channels), 0.0),
        Column("times", "i8", (WINDOW,), 0),
        Column("imputed", "u1", (-(-WINDOW // 8),), 0),  # bits, see `flags_of`
        Column("filled", "i2", (), 0),
        # order: newest released row, newest row at all, late rows in a row, a restart that waits for its first row
        Column("released", "i8", (), NEVER),
        Column("newest", "i8", (), NEVER),
        Column("late_run", "i2", (), 0),
        Column("restart", "?", (), False),
        # partition clock at the last accepted reading, and the record of the newest row
        Column("clock", "i8", (), NEVER),
        Column("offset", "i8", (), -1),
        # a silent episode ended, and nothing was heard since (see silence.py)
        Column("unheard", "?", (), False, added=True),
        # records before this offset are contained already; matters while older state is brought up to date
        Column("known", "i8", (), NEVER),
        # which rules apply (see rules.py)
        Column("rules", "i2", (), 0),
        # the profile
        Column("live", "?", (), False),
        Column("center", "f8", (channels,), 0.0),
        Column("scale", "f8", (channels,), 1.0),
        Column("ridge", "f4", (channels, WINDOW - 1), 0.0),
        Column("bias", "f8", (channels,), 0.0),
        Column("median", "i8", (), 0),
        Column("regular", "?", (), False),
        Column("worst", "f8", (signals,), 1.0),
        Column("worst_zz", "f8", (), 1.0),
        Column("worst_zz_of_others", "f8", (), math.nan, added=True),
        Column("open_after", "u1", (2,), 0),
        # moving averages (NaN: not started), stride, adaptive scale, last scores (NaN: none)
        Column("prediction", "f8", (channels,), math.nan),
        Column("level", "f8", (channels,), math.nan),
        Column("held_error", "f8", (), math.nan),
        Column("completions", "i8", (), 0),
        Column("mean", "f8", (signals,), 0.0),
        Column("variance", "f8", (signals,), 1.0),
        Column("count", "f8", (), 0.0),
        Column("recent", "f8", (last_scores - 1,), math.nan, newest_last=True),
        Column("score", "f8", (), math.nan),
        # where the sensor usually lies, for those whose deviations are asked for (see deviation.py)
        Column("usual", "f8", (channels,), 0.0),
        Column("lean", "f8", (channels,), math.nan),
        # the adaptive scale as it was before a long fault (see faultmemory.py)
        Column("high", "i2", (), 0),
        Column("cold", "i2", (), 0),
        Column("kept", "?", (), False),
        Column("kept_rows", "i2", (), 0),
        Column("calm", "i2", (), 0),
        Column("kept_mean", "f4", (signals,), 0.0),
        Column("kept_variance", "f4", (signals,), 1.0),
        # threshold (see threshold.py)
        Column("budget", "f8", (), math.inf),
        Column("horizon", "f8", (), math.inf),
        Column("rows", "f8", (), 0.0),
        Column("credit", "f8", (), 0.0),
        Column("peaks", "f8", (RESERVOIR,), -math.inf),
        Column("peaks_kept", "i2", (), 0),
        Column("peaks_seen", "i8", (), 0),
        Column("forgotten", "f8", (), 0.0),
        Column("pending", "f8", (), -math.inf),
        Column("pending_age", "i2", (), 0),
        # the episode: rows since the last loud one, its time, highest v, closing level; `hold`: wait for a quiet row;
        # `muted`: it lies in a maintenance window
        Column("open", "?", (), False),
        Column("muted", "?", (), False, added=True),
        Column("hold", "?", (), False),
        Column("quiet", "i4", (), 0),
        Column("loud_time", "i8", (), NEVER),
        Column("peak", "f8", (), 0.0),
        Column("close_level", "f8", (), 0.0),
        Column("ended", "i8", (), NEVER),
    )


CHANNEL_COLUMNS = frozenset(
    (
        "values", "imputed", "center", "scale", "ridge", "bias", "prediction", "level", "held_error", "completions",
        "rules", "open_after", "usual", "lean", "worst_zz_of_others", "unheard",
    )
)  # fmt: skip
"""What is only known of a sensor with windows of values; cameras have none of it."""


def flags_of(bits: U8) -> Bools:
    """A window's flags (..., 100) from the bits (..., 13) that a cell keeps of them."""
    return np.unpackbits(bits, axis=-1, count=WINDOW).view(np.bool_)


def bits_of(flags: Bools) -> U8:
    """The bits (..., 13) that a cell keeps of a window's flags (..., 100)."""
    return np.packbits(flags, axis=-1)


class Episode(msgspec.Struct):
    """What an open episode has beyond its columns. Times are ns; deadlines are partition clocks, None: never."""

    alert_id: str
    sequence: int
    started_at: int
    detected_at: int
    ln_threshold: float
    severity: Severity
    opened_offset: int
    update_at: int | None
    close_at: int | None
    muted: bool = False


class Silence(msgspec.Struct):
    """An open silent episode. Times are ns of the partition clock; deadlines None: never.

    `since`: from when on the sensor is missed, moved by time that counts for no timer; `after`: so long it may be so.
    """

    alert_id: str
    sequence: int
    started_at: int
    detected_at: int
    since: int
    after: int
    severity: Severity
    opened_offset: int
    update_at: int | None
    close_at: int | None
    muted: bool


class WarmUp:
    """Readings of which a profile will be made: `times` and `values`, the first `count` rows of them."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._times = np.empty(64, dtype=np.int64)
        self._values = np.empty((64, channels))

    @property
    def times(self) -> I64:
        return self._times[: self.count]

    @property
    def values(self) -> F64:
        return self._values[: self.count]

    def extend(self, times: I64, values: F64) -> None:
        """Append rows (n,), (n, C)."""
        end = self.count + len(times)
        if end > len(self._times):
            self._grow(end)
        self._times[self.count : end], self._values[self.count : end] = times, values
        self.count = end

    def append(self, time: int, values: F64) -> None:
        """Append one row, its values (C,)."""
        if self.count == len(self._times):
            self._grow(self.count + 1)
        self._times[self.count], self._values[self.count] = time, values
        self.count += 1

    def _grow(self, rows: int) -> None:
        size = max(rows, 2 * len(self._times))
        grown_times, grown_values = np.empty(size, dtype=np.int64), np.empty((size, self._values.shape[1]))
        grown_times[: self.count], grown_values[: self.count] = self.times, self.values
        self._times, self._values = grown_times, grown_values

    def drop_last(self, rows: int) -> None:
        """Forget the newest rows, as many as there are of so many."""
        self.count = max(self.count - rows, 0)


Held = list[tuple[int, tuple[float, ...]]]
"""Readings held back for lateness, in time order: (time ns, values)."""


class _Packed(msgspec.Struct):
    format: int
    layout: list[tuple[str, str, tuple[int, ...]]]
    ids: list[str]
    cells: dict[str, bytes]
    held: dict[str, Held]
    warming: dict[str, tuple[bytes, bytes]]
    episodes: dict[str, Episode]
    relearning: dict[str, tuple[bytes, bytes]] = {}
    silences: dict[str, Silence] = {}


def _packed(readings: dict[int, WarmUp], names: dict[int, str]) -> dict[str, tuple[bytes, bytes]]:
    return {names[slot]: (one.times.tobytes(), one.values.tobytes()) for slot, one in readings.items() if slot in names}


class StateError(ValueError):
    """Packed state that this table cannot take: another format, layout or number of channels."""


class SensorTable:
    """The state of all sensors of one partition. A *slot* is a sensor's row; slots of evicted sensors are reused."""

    def __init__(self, channels: int, last_scores: int, declared: tuple[Column, ...] | None = None) -> None:
        """`declared`: other columns than those of sensors with `channels` value columns."""
        self.channels = channels
        self.columns = columns(channels, last_scores) if declared is None else declared
        self.slice_limit = CHUNK
        """At most so many sensors are stored together."""
        self.ids: list[str | None] = []
        self.slots: dict[str, int] = {}
        self.held: dict[int, Held] = {}
        self.warming: dict[int, WarmUp] = {}
        """Sensors without a profile."""
        self.relearning: dict[int, WarmUp] = {}
        """Sensors with a profile that was made with another model; see relearning.py."""
        self.episodes: dict[int, Episode] = {}
        self.silences: dict[int, Silence] = {}
        self.resumed: dict[int, int] = {}
        """The partition clock after nobody was heard for longer than so many ns the last time (see silence.py)."""
        self.changed: set[str] = set()
        """Sensors whose episode changed since someone last looked."""
        self._free: list[int] = []
        self._capacity = 0
        self._arrays: dict[str, NDArray[Any]] = {c.name: np.empty((0, *c.shape), dtype=c.dtype) for c in self.columns}

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """The whole column, slots on the first axis. Do not keep it across `add`."""
        return self._arrays[column]

    def add(self, sensor_id: str) -> int:
        """Give a new sensor a slot with empty cells."""
        if self._free:
            slot = self._free.pop()
            self.ids[slot] = sensor_id
        else:
            slot = len(self.ids)
            self.ids.append(sensor_id)
            if slot >= self._capacity:
                self._grow()
        self.slots[sensor_id] = slot
        for column in self.columns:
            self._arrays[column.name][slot] = column.empty
        return slot

    def remove(self, slot: int) -> None:
        """Forget a sensor."""
        sensor_id = self.ids[slot]
        if sensor_id is None:
            raise KeyError(slot)
        del self.slots[sensor_id]
        self.ids[slot] = None
        for beside in (self.held, self.warming, self.relearning, self.episodes, self.silences):
            beside.pop(slot, None)
        self._arrays["live"][slot] = False
        self._free.append(slot)

    def name(self, slot: int) -> str:
        """The sensor id of an occupied slot."""
        sensor_id = self.ids[slot]
        if sensor_id is None:
            raise KeyError(slot)
        return sensor_id

    def take(self, slots: Slots, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Compact copies of some columns for some slots."""
        return {name: self._arrays[name][slots] for name in names}

    def put(self, slots: Slots, cells: dict[str, NDArray[Any]]) -> None:
        """Write back what `take` gave and a stage changed."""
        for name, value in cells.items():
            self._arrays[name][slots] = value

    def set(self, slot: int, cells: dict[str, Any]) -> None:
        """Write some cells of one sensor."""
        for name, value in cells.items():
            self._arrays[name][slot] = value

    def occupied(self) -> Slots:
        """The slots in use, ascending."""
        return np.sort(np.fromiter(self.slots.values(), dtype=np.intp, count=len(self.slots)))

    def pack(self, slots: Slots) -> bytes:
        """Everything about these sensors as bytes; `unpack` on an equal declaration restores it bit by bit."""
        names = {int(slot): self.name(int(slot)) for slot in slots}
        packed = _Packed(
            format=_FORMAT,
            layout=self._layout(),
            ids=list(names.values()),
            cells={c.name: self._arrays[c.name][slots].tobytes() for c in self.columns},
            held={names[s]: held for s, held in self.held.items() if s in names and held},
            warming=_packed(self.warming, names),
            relearning=_packed(self.relearning, names),
            episodes={names[s]: episode for s, episode in self.episodes.items() if s in names},
            silences={names[s]: silence for s, silence in self.silences.items() if s in names},
        )  # fmt: skip
        return msgspec.msgpack.encode(packed)

    def unpack(self, data: bytes) -> Slots:
        """Add the packed sensors, replacing those that are here already; their slots. Raises `StateError`."""
        try:
            packed = msgspec.msgpack.decode(data, type=_Packed)
        except msgspec.MsgspecError as error:
            raise StateError(f"the stored state cannot be read: {error}") from None
        if packed.format != _FORMAT or not self._takes(packed.layout):
            raise StateError("the stored state was written with another configuration or version")
        slots = np.array([self.slots.get(i, -1) for i in packed.ids], dtype=np.intp)
        for at in np.flatnonzero(slots < 0):
            slots[at] = self.add(packed.ids[at])
        stored = {name: shape for name, _, shape in packed.layout}
        for column in self.columns:
            if column.name not in stored:
                self._arrays[column.name][slots] = column.empty
                continue
            shape = stored[column.name]
            cells = np.frombuffer(packed.cells[column.name], dtype=column.dtype).reshape(len(slots), *shape)
            if tuple(shape) != column.shape:
                wider = np.full((len(slots), shape[0] + column.shape[0]), column.empty, dtype=column.dtype)
                wider[:, column.shape[0] :] = cells
                cells = wider[:, shape[0] :]
            self._arrays[column.name][slots] = cells
        for sensor_id, slot in zip(packed.ids, slots.tolist(), strict=True):
            for beside in (self.held, self.warming, self.relearning, self.episodes, self.silences):
                beside.pop(slot, None)
            if sensor_id in packed.silences:
                self.silences[slot] = packed.silences[sensor_id]
            if sensor_id in packed.held:
                self.held[slot] = packed.held[sensor_id]
            if sensor_id in packed.episodes:
                self.episodes[slot] = packed.episodes[sensor_id]
            if sensor_id in packed.warming:
                self.warming[slot] = self._warm_up(*packed.warming[sensor_id])
            if sensor_id in packed.relearning:
                self.relearning[slot] = self._warm_up(*packed.relearning[sensor_id])
        return slots

    def _warm_up(self, times: bytes, values: bytes) -> WarmUp:
        readings = WarmUp(self.channels)
        readings.extend(np.frombuffer(times, dtype=np.int64), np.frombuffer(values).reshape(-1, self.channels))
        return readings

    def _layout(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(c.name, c.dtype, c.shape) for c in self.columns]

    def _takes(self, layout: list[tuple[str, str, tuple[int, ...]]]) -> bool:
        """Whether cells of that layout fit into the columns."""
        stored = {name for name, _, _ in layout}
        expected = [c for c in self.columns if c.name in stored or not c.added]
        if len(layout) != len(expected):
            return False
        return all(
            (name, dtype) == (c.name, c.dtype) and (shape == c.shape or (c.newest_last and len(shape) == 1))
            for c, (name, dtype, shape) in zip(expected, layout, strict=True)
        )

    def _grow(self) -> None:
        """By a quarter, in whole chunks; pages that no sensor has touched yet cost nothing."""
        self._capacity += max(CHUNK, self._capacity // 4 // CHUNK * CHUNK)
        for column in self.columns:
            old = self._arrays[column.name]
            new = np.zeros((self._capacity, *column.shape), dtype=column.dtype)
            new[: len(old)] = old
            self._arrays[column.name] = new
