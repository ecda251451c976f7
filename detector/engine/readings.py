"""Records of one partition in, alerts out: the one causal path that live runs, backtests and the demo share.

The result depends on the records alone: not on how they were grouped into batches, not on the wall clock. A batch is
cut into *segments* wherever a timer fires that changes how later rows are judged (an eviction, an episode's longest
duration); inside a segment sensors are independent of one another and are scored side by side in blocks.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from detector.arrays import I64, Bools, in_all_channels
from detector.config.load import CalendarConfig, MaintenanceConfig, ReadingsConfig
from detector.config.rules import RuleBook, Rules
from detector.detection.alignment import align, alignment_of
from detector.detection.block import Block, starts_of
from detector.detection.columns import FORGOTTEN, profile_cells
from detector.detection.context import NONE
from detector.detection.contexts import ContextTable
from detector.detection.episodes import Closing, Opening, in_episodes
from detector.detection.hours import Hours
from detector.detection.patches import stand_in
from detector.detection.prefix import NotYetError, also_known, sentinel_counts, stands_for_none
from detector.detection.profile import MIN_ROWS, Carry, Profile, build_profile
from detector.detection.scorer import Model, ScoreBlock, records_of, score_block
from detector.detection.signals import WINDOW, forward_filled
from detector.detection.table import SensorTable, Slots
from detector.detection.usable import check_usable
from detector.detection.warmup import WarmUp
from detector.detection.windows import (
    Arrivals,
    WindowRows,
    admit,
    bridge_gaps,
    missing_rows,
    sentinels_of,
    without,
)
from detector.engine.alertwriter import AlertWriter
from detector.engine.announcer import Announcer
from detector.engine.foresight import Upcoming
from detector.engine.maintenance import Maintenance
from detector.engine.output import Output, Sentinel, explained, scored_rows_of
from detector.engine.overview import Overview, overview
from detector.engine.pace import MOST_RELEARNT, cut, keeps_windows, relearning_rows
from detector.engine.partition import PartitionPipeline, Run, Spans
from detector.engine.patience import Patience
from detector.engine.places import MOST_WARM_UPS, Places, pack_log, unpack_log
from detector.engine.relearning import collect, complete, keep_profile, moving_cells, split, unbroken
from detector.engine.resumption import judged_otherwise, take_model, take_rules, warm_up_again
from detector.engine.silence import FOREVER, Silences
from detector.engine.slices import Provenance, settings_of
from detector.engine.timers import Timers
from detector.engine.verdicts import Verdicts
from detector.errors import is_foreseen
from detector.streams.base import Batch, Partition
from detector.wire.alerts import Kind
from detector.wire.readings import TOO_MANY, Decoder, Readings, Reject

BLOCK_ROWS = 8192
"""Rows dealt with together; more only take memory."""

MakeWriter = Callable[[str, Partition, Model, tuple[str, ...]], AlertWriter]
BuildProfile = Callable[..., tuple[Profile, Carry]]
"""`build_profile`, or what stands in for it."""
Refused = dict[int, list[int]]
"""By record of a batch: the elements of sensors for which there was no place."""


class ReadingsPipeline(PartitionPipeline):
    """The state and the path of one partition of the readings stream.

    `pulse` is called between pieces of work that may add up (building many profiles at once), so that whoever drives
    the pipeline can show that it is alive. `score` is the function that scores a block of rows; with `keep_rows` the
    output has all of them. `writer` makes what writes the alerts, `build` the profiles of warm-ups.

    >>> from detector.streams.base import Record
    >>> from detector.wire.json_readings import ReadingDecoder
    >>> config = ReadingsConfig()
    >>> model = Model("readings", "1", "sha256:0", "standard", 1, lambda windows: windows, {})
    >>> decoder = ReadingDecoder(config.fields, config.channels)
    >>> pipeline = ReadingsPipeline(
    ...     Partition("sensor-readings", 0), config, model, decoder, dead_letters="dead", alerts="alerts")
    >>> pipeline.begin(0)
    >>> record = Record(0, None, b'{"sensor_id": "pump", "timestamp": "2026-01-01T00:00:00Z", "value": 20.5}')
    >>> output = pipeline.process(Batch(pipeline.partition, [record], next_offset=1))
    >>> output.tally.accepted, output.new_sensors, pipeline.warming
    (1, ['pump'], 1)
    """

    kind: ClassVar[Kind] = "readings"
    _forgotten = FORGOTTEN
    pending = False
    """A batch is dealt with at once, and nothing waits for `advance`."""

    def __init__(
        self,
        partition: Partition,
        config: ReadingsConfig,
        model: Model,
        decoder: Decoder,
        *,
        dead_letters: str,
        alerts: str,
        verdicts: str | None = "anomaly-verdicts",
        pulse: Callable[[], None] = lambda: None,
        score: ScoreBlock = score_block,
        keep_rows: bool = False,
        maintenance: Sequence[MaintenanceConfig] = (),
        calendar: Sequence[CalendarConfig] = (),
        writer: MakeWriter = AlertWriter,
        build: BuildProfile = build_profile,
    ) -> None:
        book = RuleBook(config)
        table = SensorTable(len(config.channels), book.most_rows)
        self._hours = Hours(config.timezone, calendar)
        table.contexts = ContextTable(self._hours)
        announcer = Announcer(
            table, writer(alerts, partition, model, config.channels), lambda slot: self._rules_of(slot).alerts, pulse
        )
        worked_on = Maintenance(maintenance)
        self._patience = Patience(table, book.silence_after)
        silences = Silences(table, announcer, self._patience, worked_on)
        timers = Timers(table, announcer, config.idle_eviction, book.longest_durations, silences)
        provenance = Provenance(model.digest, settings_of(config, maintenance, calendar))
        super().__init__(
            partition, provenance, table, announcer, timers,
            warmup=config.warmup, complete=WINDOW, dead_letters=dead_letters, verdicts=verdicts, pulse=pulse,
        )  # fmt: skip
        self._config = config
        self._model = model
        self._decoder = decoder
        self._score = explained if keep_rows else score
        self._build = build
        self._keep_rows = keep_rows
        self._book = book
        self._maintenance = worked_on
        self._alignment = alignment_of(config)
        self._places = Places(table, config.sensors.max, timers.look_again)

    def overview(self, sensor_ids: Sequence[str], count: int) -> Overview:
        """The sensors named, and the `count` worst, as they stand."""
        return overview(
            self._table, self._model.reconstruct, sensor_ids, count,
            now=self._clock.now, channels=self._config.channels,
        )  # fmt: skip

    def _settle(self, *, switched: bool) -> None:
        take_rules(self._table, self._book.numbers)
        # Peaks are peaks of n-of-m scores: with another n-of-m a profile is of no use.
        useless = judged_otherwise(self._table, self._book.open_after)
        useless_slots = frozenset(useless.tolist())

        def unknown(slot: int) -> None:
            if slot in useless_slots:
                warm_up_again(self._table, slot, self._forget_scores)
            elif self._table["live"][slot]:
                keep_profile(self._table, slot)

        slots = self._table.occupied() if switched else useless
        take_model(self._table, slots, self._model.profiles, self._cells_of, self._forget_scores, unknown)

    def process(self, batch: Batch) -> Output:
        """Take in a batch that begins at `position`, and return what it leads to."""
        output = Output(records=len(batch.records))
        decoded = self._decoded(batch, output)
        readings = self._watched(decoded)
        output.excluded = len(decoded.times) - len(readings.times)
        refused: Refused = {}
        owners = np.repeat(readings.records, readings.counts)
        verdicts = Verdicts(readings.verdicts)
        for run in self._runs(batch.records, readings.times, owners, readings.sensor_of, output, verdicts):
            upcoming = None if self.restoring else Upcoming(readings, run.clocks, run.end, self._config.warmup)
            for segment in self._segments(run, upcoming):
                begin = segment.records.start
                while begin < segment.records.stop:
                    begin = self._take_in(run, readings, begin, segment.records.stop, refused)
        rejects = sorted((*_with_refused(readings, refused), *verdicts.rejects), key=lambda one: one.record)
        self._refuse(batch.records, rejects, output)
        return self._arrive(batch.next_offset, output)

    def _decoded(self, batch: Batch, output: Output) -> Readings:
        """The readings of a batch. A record that the decoder fails at, alone and twice, is left out for good."""
        masked = self._masked(batch)
        try:
            readings = self._decoder.decode(masked)
        except Exception as error:
            if is_foreseen(error):
                raise
            culprits = [one.offset for i, one in enumerate(masked.records) if self._fails(masked, i)]
            if not culprits:
                raise
            output.internal.append("".join(traceback.format_exception(error)))
            self.leave_out(culprits)
            readings = self._decoder.decode(self._masked(batch))
        readings.rejects = list(self._with_reasons(batch.records, readings.rejects))
        return readings

    def _fails(self, batch: Batch, index: int) -> bool:
        """Whether the decoder fails at one record of the batch, each time."""
        alone = replace(batch, records=batch.records[index : index + 1], row=batch.row + index)
        for _ in range(2):
            try:
                self._decoder.decode(alone)
            except Exception as error:
                if is_foreseen(error):
                    raise
            else:
                return False
        return True

    def advance(self) -> Output:
        """What has become ready of what is pending: nothing."""
        return Output()

    def _watched(self, readings: Readings) -> Readings:
        """The readings without those of sensors that are left out, which not even move the clock."""
        if self._book.watches_all and readings.channels is None:
            return readings
        known = np.array([self._book.watches(sensor_id) for sensor_id in readings.ids], dtype=bool)
        if readings.channels is not None:
            known &= readings.channels >= 0
        watched = np.repeat(known, readings.counts)
        return readings if watched.all() else readings.only(watched)

    def _take_in(self, run: Run, readings: Readings, begin: int, end: int, refused: Refused) -> int:
        """Take in the records begin .. end - 1, between which no timer fires; returns behind which of them it got."""
        first, last = np.searchsorted(run.owners, (begin, end)).tolist()
        count, crowded = self._places.together(run.offsets[begin:end], last - first, self._config.warmup)
        end = begin + count
        owned = slice(*np.searchsorted(readings.records, (begin, end)).tolist())
        found, end = self._placed(run, readings, owned, begin, end)
        if not self.restoring:
            for at in np.flatnonzero(found < 0).tolist():
                self._watch.capped(readings.ids[owned][at])
        owned = slice(owned.start, owned.start + len(found))
        part = slice(*np.searchsorted(run.owners, (begin, end)).tolist())
        slots = np.repeat(found, readings.counts[owned])
        values = readings.values[part]
        if readings.channels is not None:
            values = np.column_stack([values, np.repeat(readings.channels[owned], readings.counts[owned])])
        arrivals = Arrivals(slots, run.times[part], values, run.owners[part], readings.elements[part])
        arrivals = self._unseen(run, _with_a_place(arrivals, refused))
        self._timers.silences.heard(arrivals)
        self._note_heard(run, arrivals)
        lacking = np.isnan(arrivals.values)
        if readings.channels is not None:
            arrivals = self._aligned(run, arrivals)
        elif self._table.channels == 1:
            self._watch.heard(arrivals.slots, lacking[:, 0], "nulls")
        admitted, tally = admit(self._table, arrivals, self._config.window.allowed_lateness)
        run.output.tally.add(tally)
        run.output.late_of.update({self._table.name(slot): times for slot, times in tally.late_of.items()})
        run.output.set_back.update({self._table.name(slot): times for slot, times in tally.set_back.items()})
        self._judge(run, admitted)
        if readings.channels is None and self._table.channels > 1:
            self._watch.heard_of_channels(arrivals.slots, lacking, admitted)
        if crowded:
            self._places.make_room(int(run.offsets[end - 1]))
        return end

    def _aligned(self, run: Run, arrivals: Arrivals) -> Arrivals:
        """The rows of machines that these readings release, whose values are each one and the number of its channel."""
        channels = arrivals.values[:, 1].astype(np.int64)
        aligned = align(self._table, replace(arrivals, values=arrivals.values[:, :1]), channels, self._alignment)
        run.output.tally.duplicate += aligned.duplicate
        self._watch.lacks(aligned.rows.slots, aligned.absent)
        return aligned.rows

    def _placed(self, run: Run, readings: Readings, owned: slice, begin: int, end: int) -> tuple[Slots, int]:
        """The slots of runs of readings in the records begin .. end - 1, and behind which record they end.

        Where all places are taken that may be sooner: a sensor that makes way has to have been dealt with.
        """
        ids = readings.ids[owned]
        if self._places.enough(ids, int(run.offsets[begin])):
            self._places.look_again()
            return self._slots(run, ids), end
        slots: list[int] = []
        meet = partial(self._meet, run)
        for sensor_id, record in zip(ids, readings.records[owned].tolist(), strict=True):
            slot = self._places.find(sensor_id, int(run.offsets[record]), int(run.offsets[begin]), meet)
            if slot is None:
                kept = int(np.searchsorted(readings.records[owned][: len(slots)], record))
                return np.array(slots[:kept], dtype=np.intp), record
            slots.append(slot)
        return np.array(slots, dtype=np.intp), end

    def _take_log(self) -> bytes:
        log = self._places.take_log()
        return pack_log(log) if log else b""

    def _tell_logs(self, logs: Mapping[int, bytes], until: int) -> None:
        self._places.tell({end: unpack_log(log) for end, log in logs.items()}, until)

    def _rules_of(self, slot: int) -> Rules:
        """The rules of the sensor in a slot. One that is left out by now goes by those of all until it is evicted."""
        return self._book[max(int(self._table["rules"][slot]), 0)]

    def _introduce(self, slot: int, sensor_id: str) -> Mapping[str, Any] | None:
        self._table["rules"][slot] = self._book.number(sensor_id)
        profile = self._model.profiles.get(sensor_id)
        return None if profile is None else self._cells_of(slot, profile)

    def _cells_of(self, slot: int, profile: Profile) -> dict[str, Any]:
        if profile.zone != self._hours.zone:
            profile = replace(profile, contexts=NONE)
        return profile_cells(profile, self._budget(slot, profile.median_interval).rows)

    def _without_warm_ups(self, run: Run, rows: WindowRows) -> WindowRows:
        """Feed sensors that have no profile yet; what comes after the reading that completes it goes on."""
        cold = np.flatnonzero(~self._table["live"][rows.slots])
        if not len(cold):
            return rows
        keep = np.ones(len(rows.times), dtype=bool)
        for group in cold.tolist():
            span = slice(int(rows.first[group]), int(rows.last[group]))
            used = self._warm_up(run, int(rows.slots[group]), rows, span, rows.marked)
            keep[span.start : used] = False
        return rows.only(keep)

    def _learn(self, run: Run, slot: int, collected: WarmUp) -> Mapping[str, Any]:
        patient = collected.count < MOST_WARM_UPS * self._config.warmup
        try:
            profile, carry = self._built(run, slot, collected, patient=patient)
        except NotYetError:
            if not patient:  # a channel has not come yet: what came before it will be of no use
                collected.keep_last(WINDOW)
            raise
        values = np.where(stands_for_none(collected.values, profile.sentinels), np.nan, collected.values)
        rows = np.flatnonzero(~in_all_channels(np.isnan(values)))
        values = values[rows]
        patched = np.isnan(values)
        if patched.any():
            values = forward_filled(values)
        self._table.patch(slot, patched[-WINDOW:])
        window = {
            "values": values[-WINDOW:],
            "times": collected.times[rows[-WINDOW:]],
            "imputed": 0,
            "head": 0,
            "filled": WINDOW,
        }
        return self._cells_of(slot, profile) | window | self._carried(slot, carry)

    def _relearn(self, run: Run, slots: Sequence[int], rows: WindowRows, edge: Slots) -> None:
        """The model has seen enough of sensors that went by the profile of another: from here on its own counts.

        `edge` is the row of each group of `rows` at which that is so.
        """
        for slot in slots:
            readings = self._table.relearning.pop(slot)
            try:
                profile, carry = self._built(run, slot, readings, patient=False)
            except NotYetError:  # a channel has not come, under this model
                self._table.relearning[slot] = WarmUp(self._table.channels)
                continue
            except Exception as error:
                (group,) = np.flatnonzero(rows.slots == slot)
                self._fail(run, "profile", slot, int(rows.records[edge[group]]), error)
                continue
            known = also_known(profile.sentinels, self._table["sentinels"][slot])
            profile = replace(profile, sentinels=known)
            moving = self._carried(slot, carry) if unbroken(self._table, slot, readings) else self._forgotten
            self._take_profile(run, slot, {**moving, **self._cells_of(slot, profile)})
            self._pulse()

    def _built(self, run: Run, slot: int, readings: WarmUp, *, patient: bool) -> tuple[Profile, Carry]:
        """The profile that readings make. Who is `patient` gets `NotYetError` if those of one regime are too few."""
        build = partial(
            self._build, readings.times, readings.values, self._model.reconstruct,
            scaler=self._model.scaler, stride=self._model.stride, open_after=self._rules_of(slot).open_after,
            hours=(self._hours, self._table.name(slot)),
        )  # fmt: skip
        try:
            profile, carry = build(least=self._config.warmup if patient else MIN_ROWS)
        except NotYetError:
            if patient:
                raise
            profile, carry = build(least=0)
        median, rule = profile.median_interval, self._table["rules"][slot]
        if profile.regular and not (
            self._table["relearnt"][slot] < MOST_RELEARNT
            and keeps_windows(readings.times, median, int(self._book.max_fill[rule]))
        ):
            profile = replace(profile, regular=False)
        name = self._table.name(slot)
        check_usable({name: profile}, self._table.channels)
        for at, channel in enumerate(self._config.channels):
            for value, times in sentinel_counts(readings.values, profile.sentinels)[at]:
                run.output.sentinels.append(Sentinel(name, channel, value, times))
        return profile, carry

    def _carried(self, slot: int, carry: Carry) -> dict[str, Any]:
        cells = moving_cells(carry, self._book.most_rows)
        if self._book.need_deviation[self._table["rules"][slot]]:
            # Nobody asked of the prefix how far its rows deviate: of those rows none counts.
            cells["recent"] = 0.0
        return cells

    def _judge(self, run: Run, rows: WindowRows) -> None:
        """Rows as they come into windows or warm-ups; cut where a profile is built again, or is of no use any more."""
        self._relearn(run, complete(self._table, rows.slots, self._config.warmup), rows, rows.first)
        max_gap, max_fill = self._book.max_gap, self._book.max_fill
        left = [rows]
        while left:
            rows = self._without_warm_ups(run, self._not_failed(left.pop()))
            now, later = split(self._table, rows, self._config.warmup)
            left += [] if later is None else [later]
            nothing = sentinels_of(self._table, now)
            missing = None if nothing is None else missing_rows(now, nothing)
            relearning = relearning_rows(self._table, now, missing, max_gap, max_fill)
            begin = [(int(now.slots[group]), now, row) for group, row in relearning.items()]
            if relearning:
                now, later = cut(now, relearning)
                left += [] if later is None else [later]
                nothing = sentinels_of(self._table, now)
            now = self._without_sentinels(run, now, nothing)
            self._blocks(run, bridge_gaps(self._table, stand_in(self._table, now), max_gap, max_fill))
            self._relearn(run, complete(self._table, now.slots, self._config.warmup), now, now.last - 1)
            for slot, whole, row in begin:
                self._learn_pace_again(run, slot, whole, row)

    def _learn_pace_again(self, run: Run, slot: int, rows: WindowRows, row: int) -> None:
        """From this row on the sensor warms up: its readings no longer come at the pace of its profile."""
        if slot in self._table.failed:
            return
        try:
            super()._restart(run, slot, rows, row)
        except Exception as error:
            self._fail(run, "restart", slot, int(rows.records[row]), error)
            return
        warm_up_again(self._table, slot, self._forget_scores)
        self._patience.forget(slot)
        self._table["relearnt"][slot] = min(self._table["relearnt"][slot] + 1, MOST_RELEARNT)
        self._watch.look(slot)
        self._timers.look_again()
        self._pulse()

    def _without_sentinels(self, run: Run, rows: WindowRows, nothing: Bools | None) -> WindowRows:
        """The rows, NaN where values stand for none, without those that are missing by it."""
        if nothing is None:
            if self._table["stuck"][rows.slots].any():
                self._tell_stuck(rows, np.zeros(len(rows.times), dtype=bool))
            return rows
        missing = missing_rows(rows, nothing)
        self._tell_stuck(rows, missing)
        count = int(missing.sum())
        run.output.tally.accepted -= count
        run.output.tally.missing += count
        return without(self._table, replace(rows, values=np.where(nothing, np.nan, rows.values)), missing)

    def _tell_stuck(self, rows: WindowRows, missing: Bools) -> None:
        self._watch.heard(np.repeat(rows.slots, rows.last - rows.first), missing, "stuck")

    def _restart(self, run: Run, slot: int, rows: WindowRows, row: int) -> None:
        filled = int(self._table["filled"][slot])
        super()._restart(run, slot, rows, row)
        self._watch.restarted(slot, filled)

    def _blocks(self, run: Run, rows: WindowRows) -> None:
        """Run rows in blocks of bounded size; a sensor's block ends before a restart, and where a day ends by whose
        hours it goes.
        """
        rows = self._not_failed(rows)
        position = rows.first.copy()
        cuts = np.flatnonzero(rows.restarts)
        if self._table.contexts:
            cuts = np.union1d(cuts, self._table.contexts.new_days(rows.slots, rows.first, rows.last, rows.times))
        cuts = np.append(cuts, FOREVER)
        while len(groups := np.flatnonzero(position < rows.last)):
            at = position[groups]
            end = np.minimum(rows.last[groups], cuts[np.searchsorted(cuts, at, side="right")])
            before = np.cumsum(end - at) - (end - at)
            fitting = before < BLOCK_ROWS
            groups, at, end = groups[fitting], at[fitting], np.minimum(end, at + BLOCK_ROWS - before)[fitting]
            end = _behind_real_rows(rows.imputed, at, end)
            for i in np.flatnonzero(rows.restarts[at]).tolist():
                self._restart_or_fail(run, int(rows.slots[groups[i]]), rows, int(at[i]))
            if self._table.failed:
                lost = np.isin(rows.slots[groups], list(self._table.failed))
                position[groups[lost]] = rows.last[groups[lost]]
                groups, at, end = groups[~lost], at[~lost], end[~lost]
                if not len(groups):
                    continue
            position[groups] = end
            failed = self._guarded(run, rows, Spans(groups, at, end), partial(self._block, run, rows))
            if failed:
                position[failed] = rows.last[failed]

    def _block(self, run: Run, rows: WindowRows, spans: Spans) -> None:
        """Run one block. State changes when all of it went well."""
        table = self._table
        block = Block(table, rows, *spans)
        if len(block.times):
            self._judge_block(run, block)
        else:
            records = records_of(table, block)
            self._collect(block, (), table.episodes)
            table.put_records(block.slots, records)
        block.store(table, run.offsets)

    def _judge_block(self, run: Run, block: Block) -> None:
        table, output = self._table, run.output
        open_before = frozenset(table.episodes)
        block.inside = self._maintenance.rows(table, block)
        scored = self._score(table, block, self._model, self._book)
        self._announcer.follow(block, scored)
        self._collect(block, scored.transitions, open_before)
        table.put_records(block.slots, scored.records)
        if scored.hours is not None:
            before = np.isin(block.slots, list(open_before))
            excluded = in_episodes(block.first, scored.transitions, before) | (scored.alarm >= 1.0)
            table.contexts.keep(scored.hours, excluded)
        there = block.ticks > 0
        slots, first = (
            (block.slots, block.first) if there.all() else (block.slots[there], starts_of(block.ticks[there]))
        )
        table["judged"][slots] = scored.v[first[1:] - 1]
        table["restarts"][slots] = 0
        self._watch.scored(slots, first, scored.limits)
        output.watched += int((block.ticks * table["median"][block.slots]).sum())
        output.allowed += float((block.ticks / table["budget"][block.slots]).sum())
        output.scores.append(scored.u)
        output.errors.append(scored.errors)
        if self._keep_rows:
            output.rows.append(scored_rows_of(table, block, scored))

    def _collect(self, block: Block, transitions: Sequence[Opening | Closing], open_before: Collection[int]) -> None:
        if self._table.relearning:
            collect(self._table, block, transitions, open_before)


def _behind_real_rows(imputed: Bools, at: I64, end: I64) -> I64:
    """The ends of spans of rows from `at` on, moved back to behind a row that was not filled in, or forth to there.

    Rows that were filled in go with the row behind them: before that comes the window as it was without them.
    """
    if not imputed[end - 1].any():
        return end
    real = np.flatnonzero(~imputed)
    count = np.searchsorted(real, end)
    behind = np.where(count > 0, real[count - 1] + 1, 0)
    following = real[np.minimum(count, len(real) - 1)] + 1
    return np.where(imputed[end - 1], np.where(behind > at, behind, following), end)


def _with_a_place(arrivals: Arrivals, refused: Refused) -> Arrivals:
    """The arrivals without those of sensors for which there is no place; these are noted as refused."""
    without = arrivals.slots < 0
    if not without.any():
        return arrivals
    for record, element in zip(arrivals.records[without], arrivals.elements[without], strict=True):
        refused.setdefault(int(record), []).append(int(element))
    return arrivals.only(~without)


def _with_refused(readings: Readings, refused: Refused) -> list[Reject]:
    """The rejects of a batch with those that no place was found for."""
    if not refused:
        return readings.rejects
    rejects = {one.record: one for one in readings.rejects}
    sizes = np.bincount(readings.records, readings.counts)
    for record, elements in refused.items():
        other = rejects.get(record)
        if other is not None:
            rejects[record] = other._replace(elements=sorted({*(other.elements or ()), *elements}))
        else:
            whole = len(elements) == sizes[record]
            rejects[record] = Reject(record, "too_many_sensors", TOO_MANY, None if whole else sorted(elements))
    return [rejects[record] for record in sorted(rejects)]
