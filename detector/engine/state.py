"""What is kept of one partition from batch to batch: how it is stored, and how a later process takes it up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, KeysView, Mapping
from typing import Final

from detector import __version__
from detector.detection.columns import NEVER
from detector.detection.table import SensorTable, StateError
from detector.detection.watch import Reason, Watch
from detector.engine.announcer import Announcer
from detector.engine.budget import Budget, BudgetAccount, budget_of, last_day
from detector.engine.clock import Jumps, PartitionClock
from detector.engine.resumption import take_budget, take_journal
from detector.engine.slices import (
    JUMPS_ENTRY,
    LEFT_OUT_ENTRY,
    LOG_ENTRIES,
    OLDEST_ENTRY,
    PROVENANCE_ENTRY,
    TOGETHER,
    Provenance,
    pack_entry,
    pack_jumps,
    pack_left_out,
    pack_provenance,
    pack_slice,
    slice_count,
    unpack_jumps,
    unpack_left_out,
    unpack_slices,
)
from detector.engine.timers import Timers
from detector.errors import OperationError
from detector.streams.base import Partition, joined, state_pieces, unpack_state

MOST_LEFT_OUT: Final = 10_000
"""Records that could not be dealt with, and that a replay would meet again."""


class PartitionState(ABC):
    """The state of one partition's sensors, by slot of `table`, and of whatever stands beside it."""

    def __init__(
        self,
        partition: Partition,
        provenance: Provenance,
        table: SensorTable,
        announcer: Announcer,
        timers: Timers,
        *,
        complete: int,
    ) -> None:
        self.partition = partition
        self.provenance = provenance
        """What results rest on beside the records."""
        self.position = 0
        """Records before it are dealt with, and what they led to has been returned."""
        self.mismatches = 0
        """Episodes whose replayed state differed from the journal."""
        self._table = table
        self._watch = Watch(table, complete)
        self._clock = PartitionClock()
        self._announcer = announcer
        self._timers = timers
        self._live_from = 0
        self._began = 0
        self._renewed = False
        self._announce_provenance = False
        self._journal: dict[str, bytes] | None = None  # while it has not been judged by it
        self._left_out: set[int] = set()
        self._logs: dict[int, bytes] = {}  # of `_take_log`, by the position when they were taken
        # What the journal says of it, of the clock's jumps and of the logs.
        self._left_out_told: frozenset[int] = frozenset()
        self._clock_told: Jumps = {}
        self._logs_told: set[int] = set()
        self._packed_at: dict[int, int] = {}  # the position of each slice that is stored

    @property
    def sensors(self) -> int:
        """Sensors known."""
        return len(self._table)

    @property
    def sensor_ids(self) -> KeysView[str]:
        """Their ids."""
        return self._table.slots.keys()

    def knows(self, sensor_id: str) -> bool:
        """Whether the sensor has state here."""
        return sensor_id in self._table.slots

    @property
    def warming(self) -> int:
        """Sensors without a profile yet."""
        return len(self._table.warming)

    @property
    def relearning(self) -> int:
        """Sensors that go by a profile made with another model, until this one has seen enough of them."""
        return len(self._table.relearning)

    @property
    def unwatched(self) -> dict[Reason, int]:
        """Sensors that are not watched, by reason. Looks at all of them."""
        return self._watch.counts()

    def some_unwatched(self, most: int) -> list[tuple[str, Reason]]:
        """At most this many of them for each reason, by name, those that warm up last."""
        return self._watch.some(most)

    @property
    def open_episodes(self) -> int:
        """Episodes open now."""
        return len(self._table.episodes) + len(self._table.silences)

    @property
    def muted_episodes(self) -> int:
        """How many of them are muted."""
        muted = sum(episode.muted for episode in self._table.episodes.values())
        return muted + sum(silence.muted for silence in self._table.silences.values())

    @property
    def budget_account(self) -> BudgetAccount:
        """How the false-alarm budget was kept over the last day of the partition clock."""
        return last_day(self._table, self._clock.now) if self.clock is not None else BudgetAccount()

    @property
    def clock(self) -> int | None:
        """The partition clock, ns; None before anything was accepted."""
        return None if self._clock.now == NEVER else self._clock.now

    @property
    def restoring(self) -> bool:
        """Whether records that were dealt with before are run again to bring the state up to date."""
        return self.position < self._live_from

    # What is stored

    def slices(self) -> int:
        """How many slices the state has."""
        return slice_count(self._table)

    def pack_slice(self, number: int) -> bytes:
        """One slice of the state as of `position`."""
        self._packed_at[number] = self.position
        return self._pack(number)

    def _pack(self, number: int, together: int = 1) -> bytes:
        return pack_slice(
            self._table, number,
            provenance=self.provenance, position=self.position, clock=self._clock, together=together,
        )  # fmt: skip

    def snapshot(self) -> bytes:
        """Everything another pipeline of this process needs to carry on from `position` in place of this one."""
        self._keep_log()
        replay = {f"{LOG_ENTRIES}{end}": log for end, log in self._logs.items()}
        if replay or self._left_out or self._clock.jumps:
            replay[OLDEST_ENTRY] = str(self._oldest()).encode()
            replay[JUMPS_ENTRY], replay[LEFT_OUT_ENTRY] = pack_jumps(self._clock.jumps), pack_left_out(self._left_out)
        return joined(self._whole(replay))

    @property
    def snapshot_bytes(self) -> int:
        """How large that is, but for what few sensors have."""
        return self._table.stored_bytes

    def pieces(self) -> Iterator[bytes | memoryview]:
        """What is stored of it, piece by piece. Nothing may be processed before the last one."""
        self._packed_at = dict.fromkeys(range(self.slices()), self.position)
        return self._whole({LEFT_OUT_ENTRY: pack_left_out(self._left_out)} if self._left_out else {})

    def _whole(self, journal: Mapping[str, bytes]) -> Iterator[bytes | memoryview]:
        count = slice_count(self._table, TOGETHER)
        return state_pieces((self._pack(number, TOGETHER) for number in range(count)), count, journal)

    def _oldest(self) -> int:
        """The position of the oldest slice that is stored, from which a replay would begin."""
        return min((self._packed_at.get(number, self._began) for number in range(self.slices())), default=self._began)

    def leave_out(self, offsets: Iterable[int]) -> None:
        """Records at these offsets cannot be dealt with: of each there will be a dead letter and nothing else."""
        self._left_out.update(offsets)
        if len(self._left_out) > MOST_LEFT_OUT:
            raise OperationError(
                f"more than {MOST_LEFT_OUT} records of {self.partition.stream} could not be dealt with",
                todo="Report this, with the log",
            )

    def renewed(self) -> bool:
        """Whether slices stored so far are of another provenance; says so once."""
        renewed, self._renewed = self._renewed, False
        return renewed

    def journal(self) -> list[tuple[str, bytes | None]]:
        """The open episodes (None: none) of each sensor of which one changed since the last call.

        After a beginning with nothing the first call adds the provenance. Later the slices carry it.
        """
        table = self._table
        changed = sorted(table.changed)
        table.changed.clear()
        entries: list[tuple[str, bytes | None]] = (
            [(PROVENANCE_ENTRY, pack_provenance(self.provenance))] if self._announce_provenance else []
        )
        self._announce_provenance = False
        entries += self._replay_entries()
        for sensor_id in changed:
            slot = table.slots.get(sensor_id, -1)
            open_now = table.episodes.get(slot), table.silences.get(slot)
            entries.append((sensor_id, pack_entry(*open_now, self.position) if any(open_now) else None))
        return entries

    def _replay_entries(self) -> list[tuple[str, bytes | None]]:
        """What a replay has to leave out or to repeat, if that changed: not what lies before every stored slice."""
        oldest = self._oldest()
        entries: list[tuple[str, bytes | None]] = []
        self._left_out = {offset for offset in self._left_out if offset >= oldest}
        if (left_out := frozenset(self._left_out)) != self._left_out_told:
            self._left_out_told = left_out
            entries.append((LEFT_OUT_ENTRY, pack_left_out(self._left_out) if self._left_out else None))
        jumps = self._clock.jumps
        for place in [place for place in jumps if place[0] < oldest]:
            del jumps[place]
        if jumps != self._clock_told:
            self._clock_told = dict(jumps)
            entries.append((JUMPS_ENTRY, pack_jumps(jumps) if jumps else None))
        self._keep_log()
        for end in [end for end in self._logs if end <= oldest]:
            del self._logs[end]
        entries += [(f"{LOG_ENTRIES}{end}", None) for end in sorted(self._logs_told - self._logs.keys())]
        entries += [(f"{LOG_ENTRIES}{end}", log) for end, log in self._logs.items() if end not in self._logs_told]
        self._logs_told = set(self._logs)
        return entries

    def _keep_log(self) -> None:
        if log := self._take_log():
            self._logs[self.position] = log

    # How it is taken up

    def begin(self, position: int, live_from: int | None = None) -> None:
        """Start with nothing at `position`; records before `live_from` lead to no output."""
        self.position = position
        self._live_from = position if live_from is None else live_from
        self._began = position
        self._journal = None
        self._announce_provenance = True

    def restore(self, data: bytes | memoryview, live_from: int | None = None, position: int | None = None) -> bool:
        """Take up what was stored; returns whether it was made with another model version.

        Processing begins at `position`, by default where the state ends. Before `live_from` it leads to no output;
        then the journal's episodes overrule what came out. Sensors that a new model knows from training take
        its profile, with their windows, episodes and clocks kept; the others keep theirs until it has seen enough of
        them, and cameras warm up again. A changed budget takes effect on all. Without any slice it is a beginning with
        nothing but the journal. Raises `StateError` if the state was written with a configuration whose windows or
        scores differ.
        """
        try:
            slices, journal = unpack_state(data)
        except ValueError as error:
            raise StateError(f"the stored state cannot be read: {error}") from None
        left_out, jumps, oldest = (journal.pop(key, b"") for key in (LEFT_OUT_ENTRY, JUMPS_ENTRY, OLDEST_ENTRY))
        self._left_out = unpack_left_out(left_out) if left_out else set()
        past = unpack_jumps(jumps) if jumps else {}
        logs = [key for key in journal if key.startswith(LOG_ENTRIES)]
        taken = {int(key.removeprefix(LOG_ENTRIES)): journal.pop(key) for key in logs}
        self._logs = {end: log for end, log in taken.items() if log}
        provenance, told = None, False
        if slices or position is None:
            restored = unpack_slices(self._table, slices)
            self._clock = restored.clock
            position = restored.position if position is None else position
            self._timers.look_again()
            provenance, told = restored.provenance, restored.tells
        self.begin(position, live_from)
        until = self._live_from if told else position
        self._clock.tell(past, until)
        self._tell_logs(self._logs, until)
        if oldest:  # a copy, with what nobody may have told the journal yet: it is told again
            self._began = int(oldest)
        else:
            self._left_out_told, self._clock_told = frozenset(self._left_out), past
            self._logs_told = set(self._logs)
        self._journal = journal
        self._announce_provenance = provenance is None or not len(self._table)  # of nothing there may be no slice yet
        self._renewed = provenance not in (None, self.provenance)
        switched = provenance is not None and provenance.model != self.provenance.model
        self._revive(switched=switched)
        self._settle(switched=switched)
        self._watch.settle()
        take_budget(self._table, lambda slot: self._budget(slot, int(self._table["median"][slot])).rows)
        self._caught_up()
        return switched

    def _caught_up(self) -> None:
        """At the end of a replay the journal has the last word on which episodes are open."""
        if self.restoring:
            return
        table = self._table
        if self._journal is None:
            # There is none for what was run again: it begins with what is open now.
            table.changed = {table.name(slot) for slot in (*table.episodes, *table.silences)}
            return
        self.mismatches += take_journal(table, self._journal)
        self._timers.look_again()
        self._journal = None
        table.changed.clear()

    @abstractmethod
    def _settle(self, *, switched: bool) -> None:
        """Let the present model and settings take effect on restored sensors; `switched`: the model is another."""

    def _take_log(self) -> bytes:
        """What a replay has to repeat, beside the clock's jumps, of what happened since the last call."""
        return b""

    def _tell_logs(self, logs: Mapping[int, bytes], until: int) -> None:  # noqa: B027 - of cameras there are none
        """What happened with the records before the offset `until`. `logs`: by the offset before which each ends."""

    def _revive(self, *, switched: bool) -> None:
        """Another model or release may deal with what this one could not: such sensors are met again."""
        for slot, failure in list(self._table.failed.items()):
            if switched or failure.release != __version__:
                self._table.remove(slot)

    def _budget(self, slot: int, median_interval: int) -> Budget:
        """The budget of the sensor in a slot, if it has this median interval."""
        return budget_of(self._announcer.alerts_of(slot).false_alarms, median_interval)
