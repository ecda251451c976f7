"""All that is known of a partition's sensors between two readings, declared in one place.

Columns are numpy arrays with one row a sensor; growth, eviction and snapshots are generic over their declaration. Those
that the kernel works on lie side by side in one record a sensor. What has no fixed size (readings held back, a warm-up,
an open episode) exists for few sensors at a time and hangs beside.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.arrays import Bools
from detector.detection.closed import EXCUSING, LastEpisodes
from detector.detection.columns import SIGNALS, Column, cells_of, columns, frame_columns
from detector.detection.contexts import ContextTable, Packed
from detector.detection.episodes import closing_level
from detector.detection.kernel.cells import Cells
from detector.detection.opened import Episode, Silence
from detector.detection.signals import WINDOW
from detector.detection.warmup import WarmUp

CHUNK = 1024
"""Sensors by which the table grows at least."""
SLICE_BYTES = 200_000
"""The size of a slice of state, about."""
CAMERA_BYTES = 9_000
"""What a camera takes beside its newest frame, at most: while it warms up."""
Slots = NDArray[np.intp]
T = TypeVar("T")
_FORMAT = 3
_LIVE_FORMAT = 2
"""Without the cells of a sensor that warms up again while its episode is open."""
_WHOLE_FORMAT = 1
"""Of the release before: every cell of every sensor."""


class Failure(msgspec.Struct, frozen=True):
    """Why a sensor is set aside: its rows from the record at `offset` on are left out by this release."""

    offset: int
    stage: str
    release: str


class PendingRow(msgspec.Struct):
    """A row of a machine of which channels may still come: its time, and the times (C,) ns and values (C,) that came.

    `NEVER`: the channel has not come.
    """

    time: int
    times: list[int]
    values: list[float]


class Aligning(msgspec.Struct):
    """A machine whose channels come one by one: rows that wait, oldest first, and what was released of it.

    `newest`: time of the newest row; `late_run`: rows in a row that are not newer. By channel (C,): time and value of
    the last reading that had one, and the rows since then.
    """

    rows: list[PendingRow]
    newest: int
    late_run: int
    times: list[int]
    values: list[float]
    absent: list[int]


HeldBack = list[tuple[int, tuple[float, ...]]]
"""Readings held back for lateness, in time order: (time ns, values)."""


class _Packed(msgspec.Struct):
    format: int
    layout: list[tuple[str, str, tuple[int, ...]]]
    ids: list[str]
    cells: dict[str, memoryview]
    held: dict[str, HeldBack]
    warming: dict[str, tuple[bytes, bytes]]
    episodes: dict[str, Episode]
    relearning: dict[str, tuple[bytes, bytes]] = {}
    silences: dict[str, Silence] = {}
    failed: dict[str, Failure] = {}
    called: dict[str, tuple[int, ...]] = {}
    aligning: dict[str, Aligning] = {}
    patches: dict[str, bytes] = {}
    last_episodes: dict[str, LastEpisodes] = {}
    contexts: dict[str, Packed] = {}
    zone: str | None = None


def _packed(readings: dict[int, WarmUp], names: dict[int, str]) -> dict[str, tuple[bytes, bytes]]:
    chosen = _of(readings, names)
    return {sensor_id: (one.times.tobytes(), one.values.tobytes()) for sensor_id, one in chosen.items()}


def _of(beside: dict[int, T], names: dict[int, str]) -> dict[str, T]:
    """What hangs beside some slots, by sensor id. A slice names few slots of many, or all of few."""
    if len(names) < len(beside):
        return {name: beside[slot] for slot, name in names.items() if slot in beside}
    return {names[slot]: one for slot, one in beside.items() if slot in names}


class StateError(ValueError):
    """Packed state that this table cannot take: another format, layout or number of channels."""


class SensorTable:
    """The state of all sensors of one partition. A *slot* is a sensor's row; slots of evicted sensors are reused.

    >>> table = SensorTable(channels=1, last_scores=10)
    >>> slot = table.add("pump")
    >>> table.set(slot, {"live": True, "center": [20.5]})
    >>> copy = SensorTable(channels=1, last_scores=10)
    >>> slots = copy.unpack(table.pack(np.array([slot])))
    >>> copy.name(slots[0]), copy["center"][slots[0]]
    ('pump', array([20.5]))
    """

    def __init__(self, channels: int, last_scores: int, declared: tuple[Column, ...] | None = None) -> None:
        """`declared`: other columns than those of sensors with `channels` value columns."""
        self.channels = channels
        self.columns = columns(channels, last_scores) if declared is None else declared
        self.slice_limit = CHUNK
        """At most this many sensors are stored together."""
        self.ids: list[str | None] = []
        self.slots: dict[str, int] = {}
        self.held: dict[int, HeldBack] = {}
        self.warming: dict[int, WarmUp] = {}
        """Sensors without a profile."""
        self.relearning: dict[int, WarmUp] = {}
        """Sensors with a profile that was made with another model; see relearning.py."""
        self.episodes: dict[int, Episode] = {}
        self.silences: dict[int, Silence] = {}
        self.called: dict[int, tuple[int, ...]] = {}
        """When a person was called for a sensor, over the last day of the partition clock at least, ns."""
        self.last_episodes: dict[int, LastEpisodes] = {}
        """The last closed episodes of sensors that had any."""
        self.resumed: dict[int, int] = {}
        """The partition clock after nobody was heard for longer than this many ns the last time (see silence.py)."""
        self.failed: dict[int, Failure] = {}
        """Sensors that are set aside."""
        self.aligning: dict[int, Aligning] = {}
        self.patches: dict[int, Bools] = {}
        """Which values (100, C) of a sensor's window stand for missing ones, where any does."""
        self.contexts = ContextTable()
        """What sensors that go by the time of the day usually do at which hour."""
        self.changed: set[str] = set()
        """Sensors whose episode changed since someone last looked."""
        self._free: list[int] = []
        self._capacity = 0
        averaged = any(column.name == "level" for column in self.columns)  # a camera has one signal, and no average
        self._records: Cells = np.empty(0, dtype=cells_of(columns(channels if averaged else 0, last_scores)))
        self._arrays: dict[str, NDArray[Any]] = {c.name: np.empty((0, *c.shape), dtype=c.dtype) for c in self.columns}
        self._layout = [(c.name, c.dtype, c.shape) for c in self.columns]
        self._early = [column for column in self.columns if column.early]
        self._profiled = [column for column in self.columns if not column.early]

    def __len__(self) -> int:
        return len(self.slots)

    def _beside(self) -> tuple[dict[int, Any], ...]:
        """What hangs beside the columns, but for failures."""
        return (
            self.held, self.warming, self.relearning, self.episodes, self.silences, self.called, self.last_episodes,
            self.aligning, self.patches,
        )  # fmt: skip

    def patch(self, slot: int, patched: Bools) -> None:
        """Note which values (100, C) of a window stand for missing ones."""
        if patched.any():
            self.patches[slot] = patched.copy()
        else:
            self.patches.pop(slot, None)

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
        for column in self._early:
            self._arrays[column.name][slot] = column.empty
        return slot

    def extend(self, sensor_ids: Sequence[str]) -> None:
        """Give new sensors the slots behind all others, with empty cells."""
        begin, end = len(self.ids), len(self.ids) + len(sensor_ids)
        self.ids.extend(sensor_ids)
        self.slots.update(zip(sensor_ids, range(begin, end), strict=True))
        if end > self._capacity:
            self._grow(end)
        for column in self._early:
            self._arrays[column.name][begin:end] = column.empty

    def remove(self, slot: int) -> None:
        """Forget a sensor."""
        sensor_id = self.ids[slot]
        if sensor_id is None:
            raise KeyError(slot)
        del self.slots[sensor_id]
        self.ids[slot] = None
        for beside in self._beside():
            beside.pop(slot, None)
        self.failed.pop(slot, None)
        self.contexts.pop(slot)
        self.set(slot, {column.name: column.empty for column in self._early})
        self._free.append(slot)

    def fail(self, slot: int, failure: Failure) -> None:
        """Set a sensor aside: nothing is kept of it but the failure."""
        for beside in self._beside():
            beside.pop(slot, None)
        self.contexts.pop(slot)
        known = {name: self._arrays[name][slot] for name in ("known", "rules") if name in self._arrays}
        empty = {column.name: column.empty for column in self._early}
        self.set(slot, empty | known | {"heard": failure.offset})
        self.failed[slot] = failure

    def name(self, slot: int) -> str:
        """The sensor id of an occupied slot."""
        sensor_id = self.ids[slot]
        if sensor_id is None:
            raise KeyError(slot)
        return sensor_id

    def records(self, slots: Slots) -> Cells:
        """Copies of the records that the kernel works on."""
        return self._records.take(slots)

    def put_records(self, slots: Slots, records: Cells) -> None:
        """Write them back."""
        whole = np.dtype((np.void, records.itemsize))  # a record is copied at once, not field by field
        self._records.view(whole)[slots] = records.view(whole)

    def set(self, slot: int, cells: Mapping[str, Any]) -> None:
        """Write some cells of one sensor. One that becomes `live` begins with empty cells, one that ceases has none.

        An open episode keeps its sensor's cells over a warm-up.
        """
        was_live = bool(self._arrays["live"][slot])
        if bool(cells.get("live", was_live)) != was_live and slot not in self.episodes:
            for column in self._profiled:
                self._arrays[column.name][slot] = 0 if was_live else column.empty
        if not cells.get("live", True):
            self.contexts.pop(slot)
        if "peaks" in cells and slot in self.last_episodes:
            self.last_episodes[slot] = self.last_episodes[slot].without_lessons(peaks=True)
        for name, value in cells.items():
            if name == "contexts":
                self.contexts.put(slot, value)
            else:
                self._arrays[name][slot] = value

    def put_episode(self, slot: int, episode: Episode) -> None:
        """Give a sensor another open episode than it has. Without a profile it has the cells that an episode needs."""
        if slot not in self.episodes and not self._arrays["live"][slot]:
            level, ended = closing_level(episode.ln_threshold), episode.detected_at
            cells = {column.name: column.empty for column in self._profiled}
            self.set(slot, cells | {"peak": episode.ln_threshold, "close_level": level, "loud_time": ended})
        self.episodes[slot] = episode
        self.set(slot, {"open": True, "muted": episode.muted, "excused": episode.verdict in EXCUSING})

    @property
    def stored_bytes(self) -> int:
        """What the cells of all sensors take when they are packed."""
        early, profiled = (
            sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in part)
            for part in (self._early, self._profiled)
        )
        live = int(np.count_nonzero(self._arrays["live"]))
        return early * len(self.slots) + profiled * live + self.contexts.stored_bytes

    def occupied(self) -> Slots:
        """The slots in use, ascending."""
        return np.sort(np.fromiter(self.slots.values(), dtype=np.intp, count=len(self.slots)))

    def pack(self, slots: Slots) -> bytes:
        """Everything about these sensors as bytes; `unpack` on an equal declaration restores it bit by bit."""
        names = {slot: self.name(slot) for slot in slots.tolist()}
        full = self._arrays["live"][slots] | np.isin(slots, list(self.episodes))
        everyone, those_full = _range_of(slots), _range_of(slots[full])
        contexts = self.contexts.pack(names)
        packed = _Packed(
            format=_FORMAT,
            layout=self._layout,
            ids=list(names.values()),
            cells={
                c.name: memoryview(self._arrays[c.name][everyone if c.early else those_full].tobytes())
                for c in self.columns
            },
            held={name: held for name, held in _of(self.held, names).items() if held},
            warming=_packed(self.warming, names),
            relearning=_packed(self.relearning, names),
            episodes=_of(self.episodes, names),
            silences=_of(self.silences, names),
            failed=_of(self.failed, names),
            aligning=_of(self.aligning, names),
            patches={name: np.packbits(patched).tobytes() for name, patched in _of(self.patches, names).items()},
            # In the order of slots, so that equal states are equal bytes.
            called={name: self.called[at] for at, name in names.items() if at in self.called},
            last_episodes={name: self.last_episodes[at] for at, name in names.items() if at in self.last_episodes},
            contexts=contexts,
            zone=self.contexts.hours.zone if contexts else None,
        )  # fmt: skip
        return msgspec.msgpack.encode(packed)

    def unpack(self, data: bytes | memoryview) -> Slots:
        """Add the packed sensors, replacing those that are here already; their slots. Raises `StateError`."""
        try:
            packed = msgspec.msgpack.decode(data, type=_Packed)
        except msgspec.MsgspecError as error:
            raise StateError(f"the stored state cannot be read: {error}") from None
        if packed.format not in (_FORMAT, _LIVE_FORMAT, _WHOLE_FORMAT) or not self._takes(packed.layout):
            raise StateError("the stored state was written with another configuration or version")
        found = map(self.slots.get, packed.ids, itertools.repeat(-1))
        slots = np.fromiter(found, dtype=np.intp, count=len(packed.ids))
        for at in np.flatnonzero(slots < 0):
            slots[at] = self.add(packed.ids[at])
        whole = packed.format == _WHOLE_FORMAT
        live = np.frombuffer(packed.cells["live"], dtype=np.bool_)
        full = live
        if packed.format != _LIVE_FORMAT:
            full = live | np.array([sensor_id in packed.episodes for sensor_id in packed.ids], dtype=np.bool_)
        self._clear(slots, ~full)
        stored = {name: shape for name, _, shape in packed.layout}
        everyone = np.ones_like(full), _range_of(slots), len(slots)
        those_full = full, _range_of(slots[full]), int(full.sum())
        for column in self.columns:
            chosen, where, count = everyone if column.early else those_full
            if column.name not in stored:
                self._arrays[column.name][where] = column.empty
                continue
            shape = stored[column.name]
            cells = np.frombuffer(packed.cells[column.name], dtype=column.dtype)
            cells = cells.reshape(len(slots) if whole else count, *shape)
            if whole:
                cells = cells[chosen]
            if tuple(shape) != column.shape:
                wider = np.full((len(cells), shape[0] + column.shape[0]), column.empty, dtype=column.dtype)
                wider[:, column.shape[0] :] = cells
                cells = wider[:, shape[0] :]
            self._arrays[column.name][where] = cells
        self._hang_beside(packed, slots[full])
        return slots

    def _hang_beside(self, packed: _Packed, full: Slots) -> None:
        """Take up what hangs beside columns. The slots `full` have cells of a profile."""

        def by_slot(stored: Mapping[str, T]) -> dict[int, T]:
            return {self.slots[name]: one for name, one in stored.items()}

        self.failed |= by_slot(packed.failed)
        self.called |= by_slot(packed.called)
        self.last_episodes |= by_slot(packed.last_episodes)
        self.silences |= by_slot(packed.silences)
        self.held |= by_slot(packed.held)
        self.aligning |= by_slot(packed.aligning)
        for slot, bits in by_slot(packed.patches).items():
            flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=WINDOW * self.channels)
            self.patches[slot] = flags.view(np.bool_).reshape(WINDOW, -1)
        self.warming |= {slot: self._warm_up(*one) for slot, one in by_slot(packed.warming).items()}
        self.relearning |= {slot: self._warm_up(*one) for slot, one in by_slot(packed.relearning).items()}
        if packed.zone == self.contexts.hours.zone:  # by other clocks they say nothing
            try:
                self.contexts.unpack(by_slot(packed.contexts))
            except (ValueError, IndexError):
                raise StateError("the stored hours were written by another version") from None
        with_cells = set(full.tolist()) if packed.episodes else ()
        for slot, episode in by_slot(packed.episodes).items():
            put = self.episodes.__setitem__ if slot in with_cells else self.put_episode
            put(slot, episode)

    def _clear(self, slots: Slots, empty: Bools) -> None:
        """Nothing hangs beside these slots any more, and those that are `empty` (n,) have no cells of a profile."""
        emptied = slots[empty & (self._arrays["live"][slots] | np.isin(slots, list(self.episodes)))]
        for beside in filter(None, (*self._beside(), self.failed)):
            for slot in slots.tolist():
                beside.pop(slot, None)
        for slot in slots.tolist() if self.contexts else ():
            self.contexts.pop(slot)
        for column in self._profiled if len(emptied) else ():
            self._arrays[column.name][emptied] = 0

    def _warm_up(self, times: bytes, values: bytes) -> WarmUp:
        readings = WarmUp(self.channels)
        readings.extend(np.frombuffer(times, dtype=np.int64), np.frombuffer(values).reshape(-1, self.channels))
        return readings

    def _takes(self, layout: list[tuple[str, str, tuple[int, ...]]]) -> bool:
        """Whether cells of that layout fit into the columns."""
        if layout == self._layout:
            return True
        stored = {name for name, _, _ in layout}
        expected = [c for c in self.columns if c.name in stored or not c.added]
        if len(layout) != len(expected):
            return False
        return all(
            (name, dtype) == (c.name, c.dtype) and (shape == c.shape or (c.newest_last and len(shape) == 1))
            for c, (name, dtype, shape) in zip(expected, layout, strict=True)
        )

    def _grow(self, least: int = 0) -> None:
        """By a quarter, in whole chunks, or to `least`; pages that no sensor has touched yet cost nothing."""
        by_a_quarter = self._capacity + max(CHUNK, self._capacity // 4 // CHUNK * CHUNK)
        self._capacity = max(by_a_quarter, -(-least // CHUNK) * CHUNK)
        self._records = self._larger(self._records)
        for column in self.columns:
            name = column.name
            inside = name in (self._records.dtype.names or ())
            self._arrays[name] = (
                self._records[name] if inside else self._larger(self._arrays[name], all_of=column.early)
            )

    def _larger(self, old: NDArray[Any], *, all_of: bool = False) -> NDArray[Any]:
        """The array with room for all; of chunks that are zero no memory is touched, unless `all_of` it matters."""
        new = _untouched((self._capacity, *old.shape[1:]), old.dtype)
        for begin in range(0, len(old), CHUNK):
            part = old[begin : begin + CHUNK]
            if all_of or part.view(np.uint8).any():
                new[begin : begin + CHUNK] = part
        return new


def _range_of(slots: Slots) -> Slots | slice:
    """Slots that follow each other as a slice, which is taken faster; others as they are."""
    if len(slots) and slots[-1] - slots[0] == len(slots) - 1 and (np.diff(slots) == 1).all():
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return slots


def _untouched(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros in memory that takes no room before something else is written. (`np.zeros` may reuse some that does.)"""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.zeros(shape, dtype=dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


def camera_table(shape: tuple[int, int], last_scores: int) -> SensorTable:
    """An empty table of cameras; what warms up keeps one number a frame, its signal."""
    table = SensorTable(SIGNALS, last_scores, frame_columns(shape, last_scores))
    table.slice_limit = max(1, SLICE_BYTES // (4 * shape[0] * shape[1] + CAMERA_BYTES))
    return table
