"""Records of one partition in, alerts out: the one causal path that live runs, backtests and the demo share.

The result depends on the records alone: not on how they were grouped into batches, not on the wall clock. A batch is
cut into *segments* wherever a timer fires that changes how later rows are judged (an eviction, an episode's longest
duration); inside a segment sensors are independent of one another and are scored side by side in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.alerts import AlertWriter
from detector.announcer import Announcer
from detector.clock import PartitionClock
from detector.config import ReadingsConfig
from detector.decoded import Readings
from detector.journal import pack_entry
from detector.messages import Kind, dead_letter
from detector.output import Output
from detector.overview import Overview, overview
from detector.profile import build_profile, peaks_of_suffix
from detector.recovery import NO_COPY
from detector.resumption import take_budget, take_journal, take_model
from detector.scorer import Model, ScoreBlock, fill_block, score_block
from detector.selection import Selection
from detector.signals import WINDOW
from detector.snapshots import BASIS_ENTRY, Basis, pack_basis, pack_slice, settings_of, slice_count, unpack_slices
from detector.state import NEVER, SensorTable, Slots, StateError, WarmUp
from detector.streams.base import Batch, Partition, pack_state, unpack_state
from detector.threshold import BUDGET_MAX, BUDGET_MIN, HORIZON, NO_BUDGET, first_reservoir
from detector.timerange import Decoder
from detector.timers import FOREVER, Timers
from detector.windows import Arrivals, Block, WindowRows, admit, bridge_gaps

I64 = NDArray[np.int64]
BLOCK_ROWS = 8192
"""Rows scored together; more fall out of the processor's cache."""
BLOCK_SENSORS = 1024
"""Sensors scored together; more only take memory."""


class Pipeline:
    """The state and the path of one partition of the readings stream.

    `pulse` is called between pieces of work that may add up (building many profiles at once), so that whoever drives
    the pipeline can show that it is alive. `score` is the function that scores a block of rows.
    """

    def __init__(
        self,
        partition: Partition,
        config: ReadingsConfig,
        model: Model,
        decoder: Decoder,
        *,
        dead_letters: str,
        alerts: str,
        pulse: Callable[[], None] = lambda: None,
        score: ScoreBlock = score_block,
    ) -> None:
        self.kind: Kind = "readings"
        self.partition = partition
        self.basis = Basis(model.digest, settings_of(config))
        """What results rest on beside the records."""
        self.position = 0
        self.pending = False
        """A batch is dealt with at once, and nothing waits for `advance`."""
        self._config = config
        self._model = model
        self._decoder = decoder
        self._dead_letters = dead_letters
        self._pulse = pulse
        self._score = score
        self._open_after = (config.alerts.open_after.n, config.alerts.open_after.of)
        self._table = SensorTable(len(config.channels), config.alerts.open_after.of)
        self._clock = PartitionClock()
        self._selection = Selection(config.sensors.include, config.sensors.exclude)
        writer = AlertWriter(alerts, partition, model, config.channels, config.alerts.critical_ratio)
        self._announcer = Announcer(self._table, writer, config.alerts)
        self._timers = Timers(self._table, self._announcer, config.idle_eviction, config.alerts.max_duration)
        self.mismatches = 0
        """Episodes whose replayed state differed from the journal."""
        self._live_from = 0
        self._renewed = False
        self._tell_basis = False
        self._journal: dict[str, bytes] | None = None  # while it has not been judged by it
        # of the batch at hand
        self._offsets: I64 = np.empty(0, dtype=np.int64)
        self._clocks: I64 = np.empty(0, dtype=np.int64)
        self._output = Output()

    @property
    def sensors(self) -> int:
        """Sensors known."""
        return len(self._table)

    @property
    def warming(self) -> int:
        """Sensors without a profile yet."""
        return len(self._table.warming)

    @property
    def open_episodes(self) -> int:
        """Episodes open now."""
        return len(self._table.episodes)

    @property
    def clock(self) -> int | None:
        """The partition clock, ns; None before the first reading."""
        return None if self._clock.now == NEVER else self._clock.now

    def overview(self, sensor_ids: Sequence[str], count: int) -> Overview:
        """The sensors named, and the `count` worst, as they stand."""
        return overview(self._table, self._model.reconstruct, sensor_ids, count)

    @property
    def restoring(self) -> bool:
        """Whether records that were dealt with before are run again to bring the state up to date."""
        return self.position < self._live_from

    def slices(self) -> int:
        """How many slices the state has."""
        return slice_count(self._table)

    def pack_slice(self, number: int) -> bytes:
        """One slice of the state as of `position`."""
        return pack_slice(self._table, number, basis=self.basis, position=self.position, clock=self._clock)

    def snapshot(self) -> bytes:
        """Everything a later process needs to carry on from `position`."""
        return pack_state([self.pack_slice(number) for number in range(self.slices())], {})

    def renewed(self) -> bool:
        """Whether slices stored so far are of another basis; says so once."""
        renewed, self._renewed = self._renewed, False
        return renewed

    def journal(self) -> list[tuple[str, bytes | None]]:
        """The open episode (None: none) of each sensor whose episode changed since the last call.

        The first time after a beginning with nothing also the basis, which slices will tell as soon as there are some.
        """
        table = self._table
        changed = sorted(table.changed)
        table.changed.clear()
        entries: list[tuple[str, bytes | None]] = [(BASIS_ENTRY, pack_basis(self.basis))] if self._tell_basis else []
        self._tell_basis = False
        for sensor_id in changed:
            episode = table.episodes.get(table.slots.get(sensor_id, -1))
            entries.append((sensor_id, None if episode is None else pack_entry(episode, self.position)))
        return entries

    def begin(self, position: int, live_from: int | None = None) -> None:
        """Start with nothing at `position`; records before `live_from` lead to no output."""
        self.position = position
        self._live_from = position if live_from is None else live_from
        self._journal = None
        self._tell_basis = True

    def restore(self, data: bytes, live_from: int | None = None, position: int | None = None) -> bool:
        """Take up what was stored; returns whether it was made with another model version.

        Processing begins at `position`, by default where the state ends. Before `live_from` it leads to no output;
        then the journal's episodes overrule what came out. Sensors that a new model knows from training take
        its profile, with their windows, episodes and clocks kept; the others warm up anew. A changed budget takes
        effect on all. Without any slice it is a beginning with nothing but the journal. Raises `StateError` if the
        state was written with a configuration whose windows or scores differ.
        """
        try:
            slices, journal = unpack_state(data)
        except ValueError as error:
            raise StateError(f"the stored state cannot be read: {error}") from None
        basis = None
        if slices or position is None:
            restored = unpack_slices(self._table, slices)
            self._clock = restored.clock
            position = restored.position if position is None else position
            self._timers.forget()
            basis = restored.basis
        self.begin(position, live_from)
        self._journal = journal
        self._tell_basis = basis is None
        self._renewed = basis not in (None, self.basis)
        switched = basis is not None and basis.model != self.basis.model
        if switched:
            take_model(self._table, self._model.profiles, self._cells_of, self._forget_scores)
        take_budget(self._table, self._budget)
        self._caught_up()
        return switched

    def _caught_up(self) -> None:
        """At the end of a replay the journal has the last word on which episodes are open."""
        if self.restoring:
            return
        table = self._table
        if self._journal is None:
            # There is none for what was run again: it begins with what is open now.
            table.changed = {table.name(slot) for slot in table.episodes}
            return
        self.mismatches += take_journal(table, self._journal)
        self._journal = None
        table.changed.clear()

    def process(self, batch: Batch) -> Output:
        """Take in a batch that begins at `position`, and return what it leads to."""
        output = self._output = Output(records=len(batch.records))
        readings = self._decoder.decode(batch)
        self._refuse(batch, readings, output)
        if len(readings.times):
            count = len(batch.records)
            self._offsets = np.fromiter((record.offset for record in batch.records), dtype=np.int64, count=count)
            output.first_time = int(readings.times[0])
            records = np.repeat(readings.records, readings.counts)
            self._clocks, jumps = self._clock.advance(readings.times, records, count)
            self._announcer.begin_batch(self._offsets, self._clocks)
            self._walk(readings, records, jumps)
            for told in self._announcer.collected():
                output.alerts.append(told.message)
                kind = told.event, told.severity
                output.events[kind] = output.events.get(kind, 0) + 1
        replayed = self.restoring
        self.position = batch.next_offset
        if replayed:
            self._caught_up()
            return Output()
        return output

    def advance(self) -> Output:
        """What has become ready of what is pending: nothing."""
        return Output()

    def _refuse(self, batch: Batch, readings: Readings, output: Output) -> None:
        for reject in readings.rejects:
            elements = 1 if reject.elements is None else len(reject.elements)
            output.rejected[reject.reason] = output.rejected.get(reject.reason, 0) + elements
            letter = dead_letter(self._dead_letters, self.partition, batch.records[reject.record], reject)
            output.dead_letters.append(letter)
        output.refused = [reject.record for reject in readings.rejects]

    def _walk(self, readings: Readings, records: I64, jumps: Sequence[tuple[int, int]]) -> None:
        """Cut the batch into segments between which timers fire that change how later rows are judged."""
        jumped: dict[int, int] = {}
        for record, jump in jumps:
            jumped[record] = jumped.get(record, 0) + jump
        count, record = len(self._clocks), 0
        while record < count:
            if record in jumped:
                self._timers.shift(jumped[record], int(self._offsets[record]))
            limit = self._timers.fire(record, int(self._clocks[record]))
            end = max(int(np.searchsorted(self._clocks, limit, side="right")), record + 1)
            end = min([end, *(stop for stop in jumped if stop > record)])
            first, last = np.searchsorted(records, (record, end)).tolist()
            if last > first:
                runs = slice(*np.searchsorted(readings.records, (record, end)).tolist())
                self._segment(readings, runs, slice(first, last), records)
            self._timers.update_the_silent(int(self._clocks[end - 1]))
            record = end

    def _segment(self, readings: Readings, runs: slice, elements: slice, records: I64) -> None:
        slots = np.repeat(self._slots(readings.ids[runs]), readings.counts[runs])
        arrivals = Arrivals(
            slots, readings.times[elements], readings.values[elements], records[elements], readings.elements[elements]
        )
        watched = slots >= 0
        self._output.excluded += len(slots) - int(watched.sum())
        if self.restoring:
            watched &= self._table["known"][slots] <= self._offsets[arrivals.records]
        if not watched.all():
            arrivals = arrivals.only(watched)
        self._table["clock"][arrivals.slots] = self._clocks[arrivals.records]
        rows, tally = admit(self._table, arrivals, self._config.window.allowed_lateness)
        total = self._output.tally
        for name in ("accepted", "missing", "late", "duplicate", "resets"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        rows = bridge_gaps(self._table, self._warm_up(rows), self._config.window.max_gap, self._config.window.max_fill)
        self._blocks(rows)

    def _slots(self, ids: Sequence[str]) -> Slots:
        known = self._table.slots
        return np.array([known[i] if i in known else self._meet(i) for i in ids], dtype=np.intp)

    def _meet(self, sensor_id: str) -> int:
        """A slot for a sensor not known so far, with its profile if the model has one; -1 if it is not watched."""
        if not self._selection.includes(sensor_id):
            return -1
        slot = self._table.add(sensor_id)
        self._timers.forget()
        profile = self._model.profiles.get(sensor_id)
        if profile is None:
            self._table.warming[slot] = WarmUp(self._table.channels)
        else:
            self._table.set(slot, self._cells_of(profile))
        return slot

    def _cells_of(self, profile: Any) -> dict[str, Any]:
        budget = self._budget(profile.median_interval)
        rows = int(min(profile.scored_rows, HORIZON * budget))
        return {
            "live": True,
            "center": profile.center,
            "scale": profile.scale,
            "ridge": profile.ridge,
            "bias": profile.bias,
            "median": profile.median_interval,
            "regular": profile.regular,
            "worst": profile.worst,
            "worst_zz": profile.worst_zz,
            "mean": profile.mean,
            "variance": profile.variance,
            "count": profile.count,
            **NO_COPY,
            "high": 0,
            "cold": 0,
            "kept": False,
            **first_reservoir(peaks_of_suffix(profile, rows), rows, budget),
        }

    def _budget(self, median_interval: int) -> float:
        """Readings per allowed false alarm of a sensor with this median interval."""
        allowed = self._config.alerts.false_alarms
        if allowed is None:
            return NO_BUDGET
        readings = allowed.readings if allowed.period is None else allowed.period / max(median_interval, 1)
        asked = float(readings or 0) / allowed.per_sensor
        kept = min(max(asked, BUDGET_MIN), BUDGET_MAX)
        self._output.budgets_limited += kept != asked
        return kept

    def _warm_up(self, rows: WindowRows) -> WindowRows:
        """Feed sensors that have no profile yet; what comes after the reading that completes it goes on."""
        cold = np.flatnonzero(~self._table["live"][rows.slots])
        if not len(cold):
            return rows
        keep = np.ones(len(rows.times), dtype=bool)
        for group in cold.tolist():
            slot, first, last = int(rows.slots[group]), int(rows.first[group]), int(rows.last[group])
            warming = self._table.warming[slot]
            used = min(last, first + self._config.warmup - warming.count)
            warming.extend(rows.times[first:used], rows.values[first:used])
            keep[first:used] = False
            self._table["offset"][slot] = self._offsets[rows.records[used - 1]]
            if warming.count >= self._config.warmup:
                self._complete(slot, warming)
                self._pulse()
        lengths = np.add.reduceat(keep, rows.first)
        left = lengths > 0
        ends = np.cumsum(lengths[left])
        return WindowRows(
            slots=rows.slots[left], first=ends - lengths[left], last=ends, times=rows.times[keep],
            values=rows.values[keep], records=rows.records[keep], elements=rows.elements[keep],
            restarts=rows.restarts[keep], imputed=rows.imputed[keep],
        )  # fmt: skip

    def _complete(self, slot: int, warming: WarmUp) -> None:
        """The warm-up is over: judge it as training would, and carry on from its end."""
        profile, carry = build_profile(
            warming.times, warming.values, self._model.reconstruct,
            scaler=self._model.scaler, stride=self._model.stride, open_after=self._open_after,
        )  # fmt: skip
        self._table.set(
            slot,
            self._cells_of(profile)
            | {
                "values": warming.values[-WINDOW:],
                "times": warming.times[-WINDOW:],
                "imputed": 0,
                "filled": WINDOW,
                "prediction": carry.prediction,
                "level": carry.level,
                "recent": carry.recent_u,
                "held_error": carry.held_error,
                "completions": carry.completions,
            },
        )
        del self._table.warming[slot]
        self._timers.forget()

    def _blocks(self, rows: WindowRows) -> None:
        """Run spans of rows: a sensor's span ends before a restart, and where its window becomes complete."""
        position = rows.first.copy()
        restarts = np.append(np.flatnonzero(rows.restarts), FOREVER)
        has_imputed = bool(rows.imputed.any())
        if has_imputed:
            index = np.arange(len(rows.times))
            next_real = np.minimum.accumulate(np.where(rows.imputed, FOREVER, index)[::-1])[::-1]
        while len(groups := np.flatnonzero(position < rows.last)):
            at, slots = position[groups], rows.slots[groups]
            for i in np.flatnonzero(rows.restarts[at]).tolist():
                self._restart(int(slots[i]), rows, int(at[i]))
            end = np.minimum(rows.last[groups], restarts[np.searchsorted(restarts, at, side="right")])
            short = WINDOW - 1 - self._table["filled"][slots]
            filling = short > 0
            completes = np.minimum(at + short, end)
            if has_imputed:
                inside = filling & (completes < end)
                completes[inside] = next_real[completes[inside]]
            height = max(1, BLOCK_ROWS // min(len(groups), BLOCK_SENSORS))
            tall = np.minimum(at + height, end)
            if has_imputed:
                tall = next_real[tall - 1] + 1
            end = np.where(filling, completes, tall)
            for chosen, fill in ((np.flatnonzero(filling), True), (np.flatnonzero(~filling), False)):
                for begin in range(0, len(chosen), BLOCK_SENSORS):
                    part = chosen[begin : begin + BLOCK_SENSORS]
                    self._block(Block(self._table, rows, groups[part], at[part], end[part]), fill=fill)
            position[groups] = end

    def _block(self, block: Block, *, fill: bool) -> None:
        """Run one block; `fill`: none of its rows completes a window."""
        if fill:
            fill_block(self._table, block)
        else:
            scored = self._score(self._table, block, self._model, self._open_after, self._config.alerts.close_after)
            self._output.allowed += float((block.ticks / self._table["budget"][block.slots]).sum())
            self._output.scores.append(scored.u[block.tick, block.sensor])
            self._output.errors.append(scored.errors[block.tick, block.sensor])
            self._announcer.tell(block, scored)
        block.store(self._table, self._offsets)

    def _restart(self, slot: int, rows: WindowRows, row: int) -> None:
        """Empty what must not span a gap; close an open episode with `gap`."""
        if slot in self._table.episodes:
            self._announcer.update_until(slot, int(self._clocks[rows.records[row]]))
            self._announcer.end(slot, "gap", (int(rows.records[row]), 1, int(rows.elements[row]), ""))
        self._table["filled"][slot] = 0
        self._forget_scores(slot)

    def _forget_scores(self, slot: int) -> None:
        """Moving averages, last scores and the pending peak start anew."""
        nothing = {
            "prediction": np.nan,
            "level": np.nan,
            "held_error": np.nan,
            "completions": 0,
            "recent": np.nan,
            "pending": -np.inf,
            "pending_age": 0,
        }
        self._table.set(slot, nothing)
