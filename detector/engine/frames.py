"""Records of one partition of frames in, alerts out: the twin of `pipeline`, with one signal a frame.

The result depends on the records alone, not on how they were grouped or how fast they were decoded. Frames are decoded
on other threads while earlier ones are scored; a record counts as dealt with once its result was handed on, and results
keep the order of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import numpy as np

from detector.arrays import F32, F64
from detector.config.load import FramesConfig, MaintenanceConfig
from detector.detection.columns import CAMERA_FORGOTTEN, calibration_cells
from detector.detection.framerows import FrameBlock, score_frame_block
from detector.detection.framesignal import FrameModel, examine, score_frames
from detector.detection.profile import Calibration, build_frame_profile
from detector.detection.table import camera_table
from detector.detection.usable import check_usable_frames
from detector.detection.warmup import WarmUp
from detector.detection.windows import Arrivals, WindowRows, admit
from detector.engine.announcer import Announcer
from detector.engine.framealerts import FrameAlertWriter, heatmap
from detector.engine.framequeue import FrameQueue, Unforeseen
from detector.engine.maintenance import Maintenance
from detector.engine.output import Output
from detector.engine.overview import Overview, camera_overview
from detector.engine.partition import PartitionPipeline, Run, Segment, Spans
from detector.engine.resumption import take_model, warm_up_again
from detector.engine.silence import FOREVER
from detector.engine.slices import Provenance, frame_settings_of
from detector.engine.timers import Timers
from detector.engine.verdicts import Verdicts
from detector.streams.base import Batch, Partition
from detector.wire.alerts import Kind
from detector.wire.frames import Frame, FrameDecoder, NoFrame
from detector.wire.readings import INTERNAL, Reject, Verdict


class FramesPipeline(PartitionPipeline):
    """The state and the path of one partition of the frames stream.

    `threads` decode; `pulse` is called between pieces of work that may add up.
    """

    kind: ClassVar[Kind] = "frames"
    _forgotten = CAMERA_FORGOTTEN

    def __init__(
        self,
        partition: Partition,
        config: FramesConfig,
        model: FrameModel,
        decoder: FrameDecoder,
        threads: ThreadPoolExecutor,
        *,
        dead_letters: str,
        alerts: str,
        verdicts: str | None = "anomaly-verdicts",
        pulse: Callable[[], None] = lambda: None,
        maintenance: Sequence[MaintenanceConfig] = (),
    ) -> None:
        table = camera_table(model.shape, config.alerts.open_after.of)
        writer = FrameAlertWriter(alerts, partition, model)
        announcer = Announcer(table, writer, lambda _: config.alerts, pulse)
        longest = config.alerts.max_duration
        timers = Timers(table, announcer, config.idle_eviction, [] if longest is None else [longest])
        provenance = Provenance(model.digest, frame_settings_of(config, maintenance))
        super().__init__(
            partition, provenance, table, announcer, timers,
            warmup=config.warmup, complete=0, dead_letters=dead_letters, verdicts=verdicts, pulse=pulse,
        )  # fmt: skip
        self._config = config
        self._model = model
        self._open_after = (config.alerts.open_after.n, config.alerts.open_after.of)
        self._queue = FrameQueue(decoder, threads, pulse)
        self._maintenance = Maintenance(maintenance)

    @property
    def pending(self) -> bool:
        """Whether frames are being decoded whose records are not dealt with."""
        return len(self._queue) > 0

    def overview(self, sensor_ids: Sequence[str], count: int) -> Overview:
        """The `count` worst cameras as they stand. None has metrics of its own, which are of values."""
        return camera_overview(self._table, lambda frame: heatmap(examine(self._model, frame).heat), count)

    def process(self, batch: Batch) -> Output:
        """Begin to decode a batch that follows the last one, and return what can be said by now.

        What is run again is decoded at once, so that nothing is pending where the restored state goes live.
        """
        self._queue.add(batch, self._left_out)
        return self._deal(all_of_it=self.restoring)

    def advance(self) -> Output:
        """What has become ready of what is pending."""
        return self._deal(all_of_it=False)

    def _settle(self, *, switched: bool) -> None:
        if switched:
            # A camera has no other signal than the model's, and what it has collected are that model's errors.
            take_model(
                self._table, self._table.occupied(), self._model.profiles,
                cells_of=self._cells_of,
                forget_scores=self._forget_scores,
                unknown=lambda slot: warm_up_again(self._table, slot, self._forget_scores),
            )  # fmt: skip

    def _deal(self, *, all_of_it: bool) -> Output:
        portions = self._queue.take(all_of_it=all_of_it)
        if not portions:
            return Output("frames")
        records = [record for portion in portions for record in portion.records]
        found = [one for portion in portions for one in portion.decoded.result()]
        output = Output("frames", records=len(records))
        rejects = []
        for number, one in enumerate(found):
            if isinstance(one, NoFrame):
                rejects.append(Reject(number, one.reason, one.message, None))
            elif isinstance(one, Unforeseen):
                rejects.append(Reject(number, "internal", INTERNAL, None))
                output.internal.append(one.traceback)
                self.leave_out([records[number].offset])
        frames = [one for one in found if isinstance(one, Frame)]
        owners = np.array([number for number, one in enumerate(found) if isinstance(one, Frame)], dtype=np.int64)
        times = np.array([frame.time for frame in frames], dtype=np.int64)
        verdicts = Verdicts({number: one for number, one in enumerate(found) if isinstance(one, Verdict)})
        for run in self._runs(records, times, owners, lambda i: frames[i].camera, output, verdicts):
            for segment in self._segments(run):
                self._take_in(run, frames, segment)
        self._refuse(records, sorted((*rejects, *verdicts.rejects), key=lambda one: one.record), output)
        return self._arrive(portions[-1].position, output)

    def _take_in(self, run: Run, frames: Sequence[Frame], segment: Segment) -> None:
        part = segment.elements
        slots = self._slots(run, [frame.camera for frame in frames[part]])
        # Which frame of the batch takes the place of a value, so that order is kept as for readings.
        places = np.arange(part.start, part.stop)
        arrivals = Arrivals(
            slots, run.times[part], places[:, None].astype(np.float64), run.owners[part], np.zeros_like(places)
        )
        arrivals = self._unseen(run, arrivals)
        self._note_heard(run, arrivals)
        rows, tally = admit(self._table, arrivals, 0)
        run.output.tally.add(tally)
        run.output.late_of.update({self._table.name(slot): times for slot, times in tally.late_of.items()})
        admitted = [frames[place] for place in rows.values[:, 0].astype(np.int64).tolist()]
        run.output.resized += sum(frame.resized for frame in admitted)
        if admitted:
            pixels = np.stack([frame.pixels for frame in admitted])
            self._blocks(run, rows, pixels, score_frames(self._model, pixels))

    def _introduce(self, slot: int, sensor_id: str) -> Mapping[str, Any] | None:
        profile = self._model.profiles.get(sensor_id)
        return None if profile is None else self._cells_of(slot, profile)

    def _cells_of(self, slot: int, profile: Calibration) -> dict[str, Any]:
        return calibration_cells(profile, self._budget(slot, profile.median_interval).rows)

    def _blocks(self, run: Run, rows: WindowRows, frames: F32, signal: F64) -> None:
        """Score spans of frames: a camera's span ends before a restart, and where its warm-up is over."""
        rows = self._not_failed(rows)
        position = rows.first.copy()
        restarts = np.append(np.flatnonzero(rows.restarts), FOREVER)
        while len(groups := np.flatnonzero(position < rows.last)):
            at, slots = position[groups], rows.slots[groups]
            for i in np.flatnonzero(rows.restarts[at]).tolist():
                self._restart_or_fail(run, int(slots[i]), rows, int(at[i]))
            end = np.minimum(rows.last[groups], restarts[np.searchsorted(restarts, at, side="right")])
            for i in np.flatnonzero(~self._table["live"][slots]).tolist():
                span = slice(int(at[i]), int(end[i]))
                used = self._warm_up(run, int(slots[i]), rows, span, signal[:, None])
                if used > span.start and slots[i] not in self._table.failed:
                    self._table["frame"][slots[i]] = frames[used - 1]
                position[groups[i]] = used
            live = position[groups] == at
            live &= self._table["live"][slots]
            if live.any():
                spans = Spans(groups[live], at[live], end[live])
                attempt = partial(self._block, run, rows, frames, signal)
                failed = self._guarded(run, rows, spans, attempt)
                position[groups[live]] = end[live]
                if failed:
                    position[failed] = rows.last[failed]
            for i in np.flatnonzero([int(slot) in self._table.failed for slot in slots.tolist()]).tolist():
                position[groups[i]] = rows.last[groups[i]]

    def _block(self, run: Run, rows: WindowRows, frames: F32, signal: F64, spans: Spans) -> None:
        slots = rows.slots[spans.groups]
        block = FrameBlock(self._table, slots, spans.begin, spans.end, rows.times, frames, signal, rows.records)
        block.inside = self._maintenance.rows(self._table, block)
        scored = score_frame_block(self._table, block, self._open_after, self._config.alerts.close_after)
        block.scored(scored.eligible)
        self._announcer.follow(block, scored)
        self._table.put_records(block.slots, scored.records)
        self._table["judged"][block.slots] = scored.v[block.first[1:] - 1]
        self._watch.scored(block.slots, block.first, scored.limits)
        output = run.output
        output.allowed += float((block.ticks / self._table["budget"][block.slots]).sum())
        output.scores.append(scored.u)
        output.errors.append(block.signal)
        block.store(self._table, run.offsets)

    def _learn(self, run: Run, slot: int, collected: WarmUp) -> Mapping[str, Any]:
        profile, recent = build_frame_profile(collected.times, collected.values[:, 0], open_after=self._open_after)
        times = collected.times[-self._open_after[1] :]
        check_usable_frames({self._table.name(slot): profile})
        return self._cells_of(slot, profile) | {"recent": recent, "times": times, "filled": len(times)}
