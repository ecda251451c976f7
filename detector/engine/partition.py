"""What the paths of readings and of frames share.

Subclasses turn records into rows and score them. What happens around that is here: which records count, when timers
fire between them, what becomes of a sensor, and of one that fails.
"""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from detector import __version__
from detector.arrays import F64, I64, Bools, integers
from detector.detection.prefix import NotYetError
from detector.detection.table import Failure, SensorTable, Slots
from detector.detection.warmup import WarmUp
from detector.detection.windows import Arrivals, WindowRows
from detector.engine.announcer import Announcer
from detector.engine.clock import Heard
from detector.engine.foresight import Upcoming
from detector.engine.output import Output, SensorFailure
from detector.engine.overview import Overview
from detector.engine.slices import Provenance
from detector.engine.state import PartitionState
from detector.engine.timers import Timers
from detector.engine.verdicts import Judgement, Verdicts
from detector.errors import is_foreseen
from detector.streams.base import Batch, Partition, Record
from detector.wire.alerts import Kind, dead_letter
from detector.wire.readings import EXEMPT, INTERNAL, Reject
from detector.wire.verdicts import acknowledgement


@dataclass(frozen=True, slots=True)
class Run:
    """The records begin .. end - 1 of a batch, through which the partition clock goes on without a jump.

    `before`: the clock before the first of them, ns. `jump`: by how much the first moves the clock while no timer
    counts, ns. The rest is of the whole batch, and records are counted from its first. `offsets`, `clocks` (R,): of
    each record, its offset and the partition clock after it, ns. `times` (N,) ns, `owners` (N,): of each reading or
    frame that counts, its time and its record, ascending. `output`: what the batch has led to so far. `verdicts`: those
    of the batch.
    """

    begin: int
    end: int
    before: int
    jump: int
    offsets: I64
    clocks: I64
    times: I64
    owners: I64
    output: Output
    verdicts: Verdicts


class Spans(NamedTuple):
    """Rows begin .. end - 1 of some groups of `WindowRows`, one span each."""

    groups: Slots
    begin: Slots
    end: Slots

    def only(self, i: int) -> Spans:
        """One of them."""
        part = slice(i, i + 1)
        return Spans(self.groups[part], self.begin[part], self.end[part])

    def by_row(self, rows: WindowRows) -> list[Spans]:
        """A single span cut behind each row that was not filled in."""
        first, last = int(self.begin[0]), int(self.end[0])
        cuts = [row + 1 for row in range(first, last) if not rows.imputed[row]]
        edges = np.array([first, *(cut for cut in cuts if cut < last), last])
        return [Spans(self.groups, edges[i : i + 1], edges[i + 1 : i + 2]) for i in range(len(edges) - 1)]


MOST_ATTEMPTS: Final = 10
"""So often in a warm-up's length it is tried whether a prefix makes a profile by now."""
UNREADABLE: Final = b"\0"
_OFFSET: Final = attrgetter("offset")


class Segment(NamedTuple):
    """Some successive records of a run, and its elements in them. No timer fires between them."""

    records: slice
    elements: slice


class PartitionPipeline(PartitionState):
    """The path of one partition's records over its state.

    Methods are called from one thread; results rest on records alone.
    """

    kind: ClassVar[Kind]
    _forgotten: ClassVar[Mapping[str, Any]]
    """The cells of a sensor without moving averages, last scores and pending peak."""

    def __init__(
        self,
        partition: Partition,
        provenance: Provenance,
        table: SensorTable,
        announcer: Announcer,
        timers: Timers,
        *,
        warmup: int,
        complete: int,
        dead_letters: str,
        verdicts: str | None,
        pulse: Callable[[], None],
    ) -> None:
        super().__init__(partition, provenance, table, announcer, timers, complete=complete)
        self._judgement = Judgement(table, announcer, timers.silences)
        self._verdicts = verdicts
        self._warmup = warmup
        self._dead_letters = dead_letters
        self._pulse = pulse

    # What each path does in its own way

    @property
    @abstractmethod
    def pending(self) -> bool:
        """Whether records beyond `position` were taken in and wait for `advance`; never while `restoring`."""

    @abstractmethod
    def overview(self, sensor_ids: Sequence[str], count: int) -> Overview:
        """The sensors named, and the `count` worst, as they stand."""

    @abstractmethod
    def process(self, batch: Batch) -> Output:
        """Take in a batch that follows the last one, and return what can be said by now.

        May wait where more is pending than memory should hold.
        """

    @abstractmethod
    def advance(self) -> Output:
        """What has become ready of what is pending. Does not wait."""

    @abstractmethod
    def _introduce(self, slot: int, sensor_id: str) -> Mapping[str, Any] | None:
        """Prepare the slot of a sensor just met; the cells of its profile, None if the model has none."""

    @abstractmethod
    def _learn(self, run: Run, slot: int, collected: WarmUp) -> Mapping[str, Any]:
        """The cells of the profile that a warm-up makes, and of a sensor that carries on from its end.

        May raise `NotYetError`.
        """

    # How it is driven

    def _masked(self, batch: Batch) -> Batch:
        """The batch, with something that every decoder rejects in place of the records to leave out."""
        if not self._left_out or not any(record.offset in self._left_out for record in batch.records):
            return batch
        records = [
            Record(record.offset, record.key, UNREADABLE, record.timestamp)
            if record.offset in self._left_out
            else record
            for record in batch.records
        ]
        return replace(batch, records=records)

    def _with_reasons(self, records: Sequence[Record], rejects: Sequence[Reject]) -> Sequence[Reject]:
        """The rejects, with the true reason for records that are left out."""
        if not self._left_out:
            return rejects
        return [
            Reject(one.record, "internal", INTERNAL, None) if records[one.record].offset in self._left_out else one
            for one in rejects
        ]

    def _refuse(self, records: Sequence[Record], rejects: Sequence[Reject], output: Output) -> None:
        """Count what was rejected of a batch, and write a dead letter for each."""
        for reject in rejects:
            elements = 1 if reject.elements is None else len(reject.elements)
            output.rejected[reject.reason] = output.rejected.get(reject.reason, 0) + elements
            letter = dead_letter(self._dead_letters, self.partition, records[reject.record], reject)
            output.dead_letters.append(letter)
        output.refused = [reject.record for reject in rejects if reject.reason not in EXEMPT]

    def _runs(
        self,
        records: Sequence[Record],
        times: I64,
        owners: I64,
        name: Callable[[int], str],
        output: Output,
        verdicts: Verdicts,
    ) -> Iterator[Run]:
        """Let the partition clock pass over a batch: elements at `times` (N,) of its records `owners` (N,) ascending.

        `name` gives the sensor of an element. A run ends where the clock jumps. A batch without elements and verdicts
        has none.
        """
        if not len(times) and not verdicts.given:
            return
        if len(times):
            output.first_time = int(times[0])
        count, before = len(records), self._clock.now
        offsets = _offsets(records)
        heard = Heard(name, self._heard_after, self._heard_since, self._timers.remembered)
        clocks, jumps = self._clock.advance(times, owners, offsets, heard)
        self._announcer.begin_batch(offsets, clocks)
        cuts = {0: 0}
        for record, jump in jumps:
            cuts[record] = cuts.get(record, 0) + jump
        for begin, end in pairwise((*cuts, count)):
            self._announcer.begin_run(begin, end)
            yield Run(begin, end, before, cuts[begin], offsets, clocks, times, owners, output, verdicts)
            before = int(clocks[end - 1])
        output.publish(self._announcer.collected())

    def _heard_after(self, clock: int) -> set[str]:
        """The sensors whose last reading came when the clock was beyond this."""
        return self._named(self._table["clock"] > clock)

    def _heard_since(self, offset: int) -> set[str]:
        """The sensors whose last reading came at this offset or later."""
        return self._named(self._table["heard"] >= offset)

    def _named(self, chosen: Bools) -> set[str]:
        slots = self._table.occupied()
        return {self._table.name(slot) for slot in slots[chosen[slots]].tolist()}

    def _segments(self, run: Run, upcoming: Upcoming | None = None) -> Iterator[Segment]:
        """Cut a run where a timer fires that changes how later rows are judged, and fire it there.

        It is cut before a verdict, too, which takes effect there. `upcoming`: who is heard in the run.
        """
        if run.jump:
            self._timers.shift(run.jump, int(run.offsets[run.begin]))
        record, before = run.begin, run.before
        failed = partial(self._fail, run, "timer")
        cuts = [*(at for at in run.verdicts.given if run.begin < at < run.end), run.end]
        while record < run.end:
            if record in run.verdicts.given:
                self._judge_alert(run, record)
            limit = self._timers.fire(record, before, int(run.clocks[record]), failed, upcoming)
            uncut = int(np.searchsorted(run.clocks[record : run.end], limit, side="right"))
            end = min(record + max(uncut, 1), next(cut for cut in cuts if cut > record))
            first, last = np.searchsorted(run.owners, (record, end)).tolist()
            self._timers.silences.passed(run.clocks[record:end])
            if last > first:
                yield Segment(slice(record, end), slice(first, last))
            record, before = end, int(run.clocks[end - 1])
            self._timers.publish_due_updates(before, failed)

    def _judge_alert(self, run: Run, record: int) -> None:
        """Let the verdict of a record take effect, or note why it cannot."""
        verdict, offset = run.verdicts.given[record], int(run.offsets[record])
        slot = self._table.slots.get(verdict.sensor_id)
        if slot is not None and self.restoring and self._table["known"][slot] > offset:
            return
        refusal: str | None = "the sensor is not known"
        if slot is not None:
            try:
                refusal = self._judgement.take(slot, verdict, record)
            except Exception as error:
                self._fail(run, "verdict", slot, record, error)
        if refusal is not None:
            run.verdicts.rejects.append(Reject(record, "bad_verdict", refusal, None))
            return
        if self._verdicts is not None:
            run.output.verdicts.append(acknowledgement(self._verdicts, verdict, self.partition, offset))
        run.output.judged[verdict.word] += 1

    # What cannot be dealt with

    def _fail(self, run: Run, stage: str, slot: int, record: int, error: Exception) -> None:
        """Set a sensor aside from this record on. Raises the error again where no sensor is to blame."""
        if is_foreseen(error):
            raise error
        table, sensor_id = self._table, self._table.name(slot)
        key = record, 1, 0, sensor_id
        if slot in table.episodes:
            self._announcer.abandon(slot, key)
        self._timers.silences.end(slot, "evicted", int(run.clocks[record]), record, key)
        offset = int(run.offsets[record])
        table.fail(slot, Failure(offset, stage, __version__))
        trace = "".join(traceback.format_exception(error))
        run.output.failures.append(SensorFailure(sensor_id, stage, offset, trace))
        self._watch.mark(slot, "failed")
        self._timers.look_again()

    def _restart_or_fail(self, run: Run, slot: int, rows: WindowRows, row: int) -> None:
        try:
            self._restart(run, slot, rows, row)
        except Exception as error:
            self._fail(run, "restart", slot, int(rows.records[row]), error)

    def _guarded(self, run: Run, rows: WindowRows, spans: Spans, attempt: Callable[[Spans], None]) -> list[int]:
        """Let `attempt` deal with spans of rows, which it does wholly or not at all; returns the groups that failed.

        If it cannot deal with all of them together, it is asked for one sensor at a time, and of a sensor that fails
        for one row at a time: so the same row sets the sensor aside, whatever came with it.
        """
        saved = self._announcer.save(rows.slots[spans.groups])
        try:
            attempt(spans)
        except Exception as error:
            if is_foreseen(error):
                raise
            self._announcer.undo(saved)
            if len(spans.groups) > 1:
                parts = (spans.only(i) for i in range(len(spans.groups)))
                return [group for part in parts for group in self._guarded(run, rows, part, attempt)]
            return self._row_by_row(run, rows, spans, attempt)
        return []

    def _row_by_row(self, run: Run, rows: WindowRows, spans: Spans, attempt: Callable[[Spans], None]) -> list[int]:
        """The same for the rows of one sensor, as if each had come by itself."""
        group = int(spans.groups[0])
        slot = int(rows.slots[group])
        for part in spans.by_row(rows):
            record = int(rows.records[part.end[0] - 1])
            self._timers.publish_due_updates_of(slot, int(run.clocks[record]), partial(self._fail, run, "timer"))
            if slot in self._table.failed:
                return [group]
            saved = self._announcer.save(rows.slots[part.groups])
            try:
                attempt(part)
            except Exception as error:
                self._announcer.undo(saved)
                self._fail(run, "judge", slot, record, error)
                return [group]
        return []

    def _not_failed(self, rows: WindowRows) -> WindowRows:
        """The rows without those of sensors that are set aside."""
        failed = self._table.failed
        if not failed or not np.isin(rows.slots, list(failed)).any():
            return rows
        kept = ~np.isin(rows.slots, list(failed))
        return rows.only(np.repeat(kept, rows.last - rows.first))

    def _heed_failures(self, run: Run, arrivals: Arrivals) -> Arrivals:
        """The arrivals without those of sensors that are set aside."""
        failed = self._table.failed
        if not failed:
            return arrivals
        kept = ~np.isin(arrivals.slots, list(failed))
        run.output.failed += len(kept) - int(kept.sum())
        return arrivals if kept.all() else arrivals.only(kept)

    def _arrive(self, position: int, output: Output) -> Output:
        """Everything before `position` is dealt with; what may be published of the output."""
        replayed = self.restoring
        self.position = position
        output.watch_changes = self._watch.take()
        if replayed:
            self._caught_up()
            return Output(self.kind)
        return output

    # What becomes of a sensor, or a camera

    def _slots(self, run: Run, sensor_ids: Sequence[str]) -> Slots:
        """The slots of these sensors; those that are not known yet get one."""
        known = self._table.slots
        try:
            return integers(list(map(known.__getitem__, sensor_ids)))
        except KeyError:
            return np.array([known[i] if i in known else self._meet(run, i) for i in sensor_ids], dtype=np.intp)

    def _meet(self, run: Run, sensor_id: str) -> int:
        """A slot for a sensor that is not known yet, with its profile if the model has one."""
        slot = self._table.add(sensor_id)
        self._watch.met(slot)
        run.output.new_sensors.append(sensor_id)
        self._timers.look_again()
        cells = self._introduce(slot, sensor_id)
        if cells is None:
            self._table.warming[slot] = WarmUp(self._table.channels)
        else:
            self._take_profile(run, slot, cells)
            self._pulse()
        return slot

    def _unseen(self, run: Run, arrivals: Arrivals) -> Arrivals:
        """What counts: not what the state contains already, nor of a sensor that is set aside."""
        if self.restoring:
            new = self._table["known"][arrivals.slots] <= run.offsets[arrivals.records]
            arrivals = arrivals if new.all() else arrivals.only(new)
        return self._heed_failures(run, arrivals)

    def _note_heard(self, run: Run, arrivals: Arrivals) -> None:
        """Note when each of these sensors was heard last."""
        self._table["clock"][arrivals.slots] = run.clocks[arrivals.records]
        self._table["heard"][arrivals.slots] = run.offsets[arrivals.records]

    def _warm_up(self, run: Run, slot: int, rows: WindowRows, span: slice, values: F64) -> int:
        """Feed a sensor without a profile from a span of the rows; returns the first row that it does not need.

        `values` (N, C): what is collected of each row. The row that completes the warm-up brings the profile.
        """
        warming, used, wanted = self._table.warming[slot], int(span.start), self._table["wanted"]
        while True:
            # A reload may ask for fewer rows than were collected by then.
            target = max(self._warmup, int(wanted[slot]))
            begin, used = used, min(int(span.stop), used + max(target - warming.count, 0))
            warming.extend(rows.times[begin:used], values[begin:used])
            if used > begin:
                self._table["offset"][slot] = run.offsets[rows.records[used - 1]]
            if warming.count < target:
                return used
            try:
                self._take_profile(run, slot, self._learn(run, slot, warming))
                del self._table.warming[slot]
                wanted[slot] = 0
            except NotYetError as error:
                wanted[slot] = warming.count + max(error.rows, self._warmup // MOST_ATTEMPTS, 1)
                self._watch.mark(slot, "profile")
                continue
            except Exception as error:
                self._fail(run, "profile", slot, int(rows.records[max(used - 1, span.start)]), error)
                used = int(span.stop)
            self._pulse()
            return used

    def _take_profile(self, run: Run, slot: int, cells: Mapping[str, Any]) -> None:
        """From here on the sensor in a slot is judged by its profile, with which `cells` are filled."""
        self._table.set(slot, cells)
        self._watch.look(slot)
        self._timers.look_again()
        run.output.budgets_limited += self._budget(slot, cells["median"]).limited

    def _restart(self, run: Run, slot: int, rows: WindowRows, row: int) -> None:
        """Forget what must not span a gap before this row; an open episode closes with `gap`."""
        if slot in self._table.episodes:
            record = int(rows.records[row])
            self._announcer.update_until(slot, int(run.clocks[record]))
            self._announcer.end(slot, "gap", (record, 1, int(rows.elements[row]), ""))
        self._table["filled"][slot] = 0
        self._forget_scores(slot)
        if slot in self._table.warming:
            self._table.warming[slot] = WarmUp(self._table.channels)

    def _forget_scores(self, slot: int) -> None:
        self._table.set(slot, self._forgotten)


def _offsets(records: Sequence[Record]) -> I64:
    """The offsets (R,) of records, which rise. One after the other, as topics have them, they need not be read."""
    first, count = records[0].offset, len(records)
    if records[-1].offset - first == count - 1:
        return np.arange(first, first + count)
    return integers(list(map(_OFFSET, records)))
