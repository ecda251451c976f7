"""What sensors usually do at which hour, and how far they are from it: state beside the table, of those that have it.

A day's rows are scored by what was usual before that day, and collected by the hour. With the first row of another day
they are learnt, unless they lay in an episode. So blocks end where a day does, and what is learnt never depends on how
rows were grouped.

A *run* begins where a sum comes to its limit. After two of them within `PATIENCE` the next one says nothing if it goes
on: no day since the last one that has busy hours was as usual at that hour, or the hour was off to the same side on its
last day. The sensor goes by other hours now, and learns them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from detector.arrays import F64, I64, Bools
from detector.detection.context import FARTHEST, HOUR, HOURS, MOST, PARTS, WEEK, Contexts, added, learnt, off
from detector.detection.hours import Hours, Local

PATIENCE: Final = 8 * HOURS * HOUR
"""A week and a day: what comes every Saturday counts as repeated."""
RUNS: Final = 2
_NEVER: Final = np.iinfo(np.int64).min
_GROWTH: Final = 64
_TOLD, _SILENT = 1, 2
"""What a run is."""

STATE: Final = np.dtype(
    [
        *PARTS,
        # sums above and below, since when they are not 0 (ns), what the runs are that they are in, when the last began
        ("sums", "f8", (2,)), ("since", "i8", (2,)), ("run", "u1", (2,)), ("begun", "i8", (RUNS,)),
        # the day whose rows are collected, the weekday it goes by, and by hour: rows, sums of values and of distances
        # from the usual, whether one lay in an episode; and by hour of the profile on how many days it was off
        ("day", "i8"), ("weekday", "i1"), ("rows", "u4", (HOURS,)), ("total", "f4", (HOURS,)),
        ("apart", "f4", (HOURS,)), ("excluded", "?", (HOURS,)), ("streak", "i1", (WEEK,)),
        # the day of the last run, and by hour of the day the last days on which it was idle, or busy, as usual
        ("ran", "u2"), ("as_usual", "u2", (2, HOURS)),
    ]
)  # fmt: skip
"""A profile of hours and what goes along with it."""
Packed = tuple[bytes, bytes, bytes]
"""States without streaks, which streaks are not 0, and these."""
_DENSE: Final = repack_fields(STATE[[name for name in STATE.names or () if name != "streak"]])
TOLD: Final = np.dtype(
    [("score", "f8"), ("since", "i8"), ("usual", "f8"), ("channel", "i2"), ("hour", "i2"), ("weekly", "?")]
)
"""What the rule says of a row: its score, 0: nothing; since when, ns; the usual standardised value of the channel
concerned at this hour of the week, and whether the weekday matters."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a block's rows (N,) came to: `told` of the dtype `TOLD`, and the states to be kept.

    `series` (M,), `rows` (M,): which state each row that counts belongs to, and which row it is; `hour` (M,) of the
    day; `z`, `apart` (M,): its value and its distance from the usual.
    """

    told: NDArray[Any]
    places: I64
    states: NDArray[Any]
    series: I64
    rows: I64
    hour: I64
    z: F64
    apart: F64


class ContextTable:
    """The states of a partition's sensors that have any, by slot; a sensor has one for each channel with a profile."""

    def __init__(self, hours: Hours | None = None) -> None:
        self.hours = hours or Hours()
        self._places: dict[int, list[int]] = {}
        self._free: list[int] = []
        self._states = np.empty(0, dtype=STATE)

    def __bool__(self) -> bool:
        return bool(self._places)

    def __contains__(self, slot: int) -> bool:
        return slot in self._places

    def put(self, slot: int, profiles: Contexts) -> None:
        """Give a sensor its profiles of hours (k,), and nothing that went along with others."""
        states = np.zeros(len(profiles), dtype=STATE)
        for name, *_ in PARTS:
            states[name] = profiles[name]
        states["begun"], states["day"] = _NEVER, _NEVER
        self._store(slot, states)

    def pop(self, slot: int) -> None:
        """Forget a sensor."""
        self._free += self._places.pop(slot, [])

    def of(self, slot: int) -> NDArray[Any]:
        """A copy of the states (k,) of a sensor."""
        return self._states[self._places.get(slot, [])]

    @property
    def stored_bytes(self) -> int:
        """What all states take when they are packed."""
        return STATE.itemsize * sum(map(len, self._places.values()))

    def pack(self, names: Mapping[int, str]) -> dict[str, Packed]:
        """The states of some slots by the ids of their sensors."""
        there = {name: self._places[slot] for slot, name in names.items() if slot in self._places}
        states = self._states[[place for places in there.values() for place in places]]
        dense = np.empty(len(states), dtype=_DENSE)
        for part in _DENSE.names or ():
            dense[part] = states[part]
        found, begin = dict[str, Packed](), 0
        for name, places in there.items():
            mine = slice(begin, begin + len(places))
            streaks = states["streak"][mine].ravel()
            at = np.flatnonzero(streaks).astype(np.uint16)
            found[name] = dense[mine].tobytes(), at.tobytes(), streaks[at].tobytes()
            begin = mine.stop
        return found

    def unpack(self, packed: Mapping[int, Packed]) -> None:
        """Take up what `pack` packed, by slot. Raises ValueError where it is something else."""
        dense = np.frombuffer(b"".join(one[0] for one in packed.values()), dtype=_DENSE)
        states = np.zeros(len(dense), dtype=STATE)
        for part in _DENSE.names or ():
            states[part] = dense[part]
        begin = 0
        for slot, (own, at, streaks) in packed.items():
            mine = states[begin : begin + len(own) // _DENSE.itemsize]
            at_once = np.frombuffer(at, dtype=np.uint16)
            mine["streak"][at_once // WEEK, at_once % WEEK] = np.frombuffer(streaks, dtype=np.int8)
            self._store(slot, mine)
            begin += len(mine)

    def _store(self, slot: int, states: NDArray[Any]) -> None:
        self.pop(slot)
        if not len(states):
            return
        while len(self._free) < len(states):
            count = len(self._states)
            larger = np.zeros(count + max(_GROWTH, count // 4), dtype=STATE)
            larger[:count] = self._states
            self._states = larger
            self._free += range(len(larger) - 1, count - 1, -1)
        self._places[slot] = [self._free.pop() for _ in states]
        self._put(self._places[slot], states)

    def _put(self, places: Sequence[int] | I64, states: NDArray[Any]) -> None:
        whole = np.dtype((np.void, STATE.itemsize))  # a state is copied at once, not field by field
        self._states.view(whole)[places] = np.ascontiguousarray(states).view(whole)

    def new_days(self, slots: NDArray[np.intp], first: NDArray[np.intp], last: NDArray[np.intp], times: I64) -> I64:
        """The rows with which a day begins, of those of the sensors `slots` that have a profile.

        Of each they are rows first .. last - 1 of `times`, ns.
        """
        found = [np.empty(0, dtype=np.int64)]
        for slot, begin, end in zip(slots.tolist(), first.tolist(), last.tolist(), strict=True):
            if slot in self._places and end - begin > 1:
                found.append(np.flatnonzero(np.diff(self.hours.days(times[begin:end]))) + begin + 1)
        return np.concatenate(found)

    def judge(
        self,
        slots: NDArray[np.intp],
        first: I64,
        times: I64,
        values: F64,
        scaling: tuple[F64, F64],
        inside: Bools | None,
        name: Callable[[int], str],
    ) -> Judged | None:
        """What the rows of the sensors `slots` (n,), first[i] .. first[i + 1] - 1, come to; None: none has a state.

        `times` (N,) ns, `values` (N, C), `scaling` (n, C): center and scale; rows `inside` (N,) maintenance are not
        off, and teach nothing. Changes nothing: see `keep`.
        """
        concerned = [at for at, slot in enumerate(slots.tolist()) if slot in self._places and first[at] < first[at + 1]]
        if not concerned:
            return None
        owners = np.array([at for at in concerned for _ in self._places[int(slots[at])]])
        places = np.array([place for at in concerned for place in self._places[int(slots[at])]])
        states = self._states[places]
        counts = first[owners + 1] - first[owners]
        series = np.repeat(np.arange(len(owners)), counts)
        begin = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(begin[-1]) - begin[series] + first[owners[series]]
        local = self.hours.of(times[rows])
        if self.hours.concerns(local.day):
            local = self._as_called(local, begin, [name(int(slots[at])) for at in owners.tolist()])
        day, weekday = local.day[begin[:-1]], local.weekday[begin[:-1]]
        for k in np.flatnonzero(states["day"] != day).tolist():
            _begin_day(states[k : k + 1], int(day[k]), int(weekday[k]))
        channel = states["channel"][series]
        center, scale = (part[owners[series], channel] for part in scaling)
        z = np.clip((values[rows, channel] - center) / scale, -FARTHEST, FARTHEST)
        weekday = np.maximum(local.weekday, 0)
        hour = np.where(states["weekly"][series], local.hour + HOURS * weekday, local.hour)
        usual = states["center"][series, hour].astype(np.float64)
        spread = states["spread"][series, hour].astype(np.float64)
        known = (local.weekday >= 0) & ~np.isnan(z)
        if inside is not None:
            known &= ~inside[rows]
        heeded = known & (((states["days"][series] >> weekday) & 1) == 1)
        beyond = off(z, np.where(heeded, usual, np.nan), spread, states["half"][series].astype(np.float64))
        told = np.zeros(len(times), dtype=TOLD)
        scores, since = _scores(states, begin, beyond, times[rows], local, hour)
        for one in np.flatnonzero(scores).tolist():
            if scores[one] > told["score"][rows[one]]:
                of_week = local.hour[one] + HOURS * weekday[one]
                which = states[series[one]]
                told[rows[one]] = scores[one], since[one], usual[one], which["channel"], of_week, which["weekly"]
        return Judged(
            told, places, states, series[known], rows[known], local.hour[known], z[known],
            np.abs(z - np.where(np.isnan(usual), z, usual))[known],
        )  # fmt: skip

    def _as_called(self, local: Local, begin: I64, names: Sequence[str]) -> Local:
        parts = [
            self.hours.as_called(Local(*(part[begin[k] : begin[k + 1]] for part in local)), one).weekday
            for k, one in enumerate(names)
        ]
        return local._replace(weekday=np.concatenate(parts))

    def keep(self, judged: Judged, excluded: Bools) -> None:
        """Keep the states after a block, whose rows (N,) teach nothing where they are `excluded`."""
        states, at = judged.states, (judged.series, judged.hour)
        np.add.at(states["rows"], at, np.uint32(1))
        np.add.at(states["total"], at, judged.z.astype(np.float32))
        np.add.at(states["apart"], at, judged.apart.astype(np.float32))
        out = excluded[judged.rows]
        states["excluded"][judged.series[out], judged.hour[out]] = True
        self._put(judged.places, states)


def _scores(states: NDArray[Any], begin: I64, beyond: F64, times: I64, local: Local, hour: I64) -> tuple[F64, I64]:
    """What rows that are so far `beyond` (M,) the usual are worth, and since when; the sums go along.

    Those of state k are rows begin[k] .. begin[k + 1] - 1; `hour` (M,): of their profiles.
    """
    scores, since = np.zeros(len(beyond)), np.zeros(len(beyond), dtype=np.int64)
    far = np.logical_or.reduceat(np.abs(beyond) > 1.0, begin[:-1])
    for k in np.flatnonzero(far | states["sums"].any(axis=1)).tolist():
        limit, both, run = float(states["limit"][k]), states["sums"][k].tolist(), states["run"][k].tolist()
        last, start = states["begun"][k].tolist(), states["since"][k].tolist()
        most = limit * MOST**0.5
        for row, one in enumerate(beyond[begin[k] : begin[k + 1]].tolist(), int(begin[k])):
            if -1.0 <= one <= 1.0 and not both[0] and not both[1]:
                continue
            for side in (0, 1):
                before = both[side]
                total = both[side] = added(before, -one if side else one, most)
                if not total:
                    run[side] = 0
                    continue
                if not before:
                    start[side] = int(times[row])
                if total < limit:
                    continue
                if not run[side]:
                    now = int(times[row])
                    again = last[0] > now - PATIENCE and _goes_on(states[k], side, local.hour[row], hour[row])
                    run[side] = _SILENT if again else _TOLD
                    last[:], states["ran"][k] = [*last[1:], now], local.day[row]
                if run[side] == _TOLD:
                    worth = total / limit
                    scores[row], since[row] = worth * worth, start[side]
        states["sums"][k], states["run"][k], states["begun"][k], states["since"][k] = both, run, last, start
    return scores, since


def _goes_on(state: Any, side: int, hour: Any, at: Any) -> bool:
    """Whether a run to a `side` (0: above) at an hour of the day, which is `at` in the profile, goes on with others."""
    streak = int(state["streak"][at])
    return (streak < 0 if side else streak > 0) or bool(state["as_usual"][side, hour] <= state["ran"])


def _begin_day(state: NDArray[Any], day: int, weekday: int) -> None:
    """Learn what was collected (by one state, (1,)), and collect the rows of another day."""
    if state["rows"].any():
        _learn(state)
    for name in ("rows", "total", "apart", "excluded"):
        state[name] = 0
    state["day"], state["weekday"] = day, weekday


def _learn(state: NDArray[Any]) -> None:
    """Let a state (1,) learn the rows of a day, by the hour; of a weekday that it does not know, that it is alike."""
    one, weekday = state[0], int(state["weekday"][0])
    if weekday < 0:
        return
    first = HOURS * weekday if one["weekly"] else 0
    hours = np.flatnonzero(one["rows"] >= np.maximum(one["fewest"], 1.0)).tolist()
    known, new = bool((int(one["days"]) >> weekday) & 1), {}
    for hour in hours:
        rows = int(one["rows"][hour])
        mean, apart = float(one["total"][hour]) / rows, float(one["apart"][hour]) / rows
        at, teaches = first + hour, not one["excluded"][hour]
        new[at] = learnt(one, at, int(one["streak"][at]) if known else 0, mean, apart, teaches=teaches)
    if not known:
        if hours and not any(now.streak or now.center != now.center for now in new.values()):
            state["days"] |= np.uint8(1 << weekday)
        return
    _note_usual(state, first, hours)
    for at, now in new.items():
        state["center"][0, at], state["spread"][0, at], state["streak"][0, at] = (
            now.center,
            min(now.spread, 6e4),
            now.streak,
        )


def _note_usual(state: NDArray[Any], first: int, hours: Sequence[int]) -> None:
    """Note which hours of a day that has busy ones were as usual; `first`: where the day begins in the profile."""
    one = state[0]
    center = one["center"].astype(np.float64)
    middle = (np.nanmax(center) + np.nanmin(center)) / 2
    if not (center[first : first + HOURS] > middle).any():
        return
    for hour in hours:
        usual = center[first + hour]
        if abs(float(one["total"][hour]) / int(one["rows"][hour]) - usual) < one["half"]:
            state["as_usual"][0, int(usual > middle), hour] = one["day"]
