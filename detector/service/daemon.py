"""The main loop: poll, process, write, commit. Methods stand in the order of a process's life."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from detector.detection.table import StateError
from detector.engine.output import Output
from detector.engine.scorestream import ScoreStream
from detector.engine.slices import provenance_of
from detector.errors import UserError
from detector.service.health import WAITING, Health
from detector.service.logs import event
from detector.service.metrics import Metrics
from detector.service.observer import Observer
from detector.service.packing import PackedStates
from detector.service.pipelines import MakePipeline, MakeReplay, PartitionPipeline
from detector.service.progress import RestoreProgress
from detector.service.rejects import RejectGuard
from detector.service.reload import Failed, NoReloads, Ready, Reloads
from detector.service.systemd import Notifier
from detector.service.twins import DuplicateSensors
from detector.service.web.status import Board, Setup
from detector.streams.base import Assigned, Batch, Event, Partition, Revoked, Streams, nothing_deferred

_log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1
"""How long an idle turn waits: short against the commit interval, long against the cost of a turn."""
NEVER_DURABLE_SECONDS: Final = 10.0
"""After so long without any durable commit there is none to wait for."""
READY_SECONDS: Final = 0.005
"""The same while something is pending in a pipeline, and may be ready at any moment."""


class Daemon:
    """Drives one `Streams` and a pipeline for each of its partitions until it is told to stop.

    `stop()` says that someone asked for the end, `until_end` that the end of the input is the end. Whatever raises out
    of `run` leaves everything since the last durable commit undone, to be done again by the next process.

    Where records have to be run again that were processed with another model or other settings, `make_replay` makes the
    pipeline that does so; without it, or without a need to run anything again, the new ones count at once. `scores`
    takes the rows of pipelines that keep them.
    """

    def __init__(
        self,
        streams: Streams,
        make_pipeline: MakePipeline,
        *,
        metrics: Metrics,
        health: Health,
        guard: RejectGuard,
        stop: Callable[[], bool],
        make_replay: MakeReplay | None = None,
        until_end: bool = False,
        notifier: Notifier | None = None,
        board: Board | None = None,
        setup: Setup | None = None,
        reloads: Reloads | None = None,
        scores: ScoreStream | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._streams = streams
        self._make_pipeline = make_pipeline
        self._make_replay = make_replay
        self._metrics = metrics
        self._health = health
        self._guard = guard
        self._stop = stop
        self._until_end = until_end
        self._notifier = notifier or Notifier({})
        self._monotonic = monotonic
        self._pipelines: dict[Partition, PartitionPipeline] = {}
        self._reloads = reloads or NoReloads()
        self._scores = scores
        self._next: tuple[Ready, float] | None = None  # what to switch to, and since when
        self._durable: dict[Partition, int] = {}  # the position of the last durable commit, or where it began
        self._ever_durable = False
        self._newest_failed = False  # after what to switch to was ready
        self._holding = False  # nothing more is taken in before the switch
        self._pause = pause
        self._restoring: dict[Partition, float] = {}  # since when
        self._progress = RestoreProgress(metrics, monotonic)
        self._replayed_by: set[Partition] = set()  # of those: brought up to date by a former pipeline
        self._uncommitted: dict[Partition, int] = {}  # the broker's time (ms) of the newest record no commit covers
        self._twins = DuplicateSensors(self._pipelines)
        self._states = PackedStates(self._pipelines, metrics.snapshot_bytes.set)
        self._fed = self._began = monotonic()
        self._observer = Observer(
            metrics, health, board or Board(), setup or Setup(), wall_clock=wall_clock, monotonic=monotonic
        )

    def run(self) -> None:
        """Open, turn until the end, drain. Raises DetectorError for what a person must know."""
        try:
            self._start()
            while not self._stop() and self._turn():
                pass
            self._drain()
        finally:
            self._streams.close()
            seconds = self._monotonic() - self._began
            event(
                _log, logging.INFO, "stopped",
                readings=self._observer.inputs["readings"], frames=self._observer.inputs["frames"],
                alerts=self._observer.alerts, seconds=round(seconds, 3),
            )  # fmt: skip

    @property
    def restoring(self) -> bool:
        """Whether the state of a partition is still brought up to date."""
        return bool(self._restoring)

    def pulse(self) -> None:
        """Show that the loop is alive; called between turns and between pieces of long work."""
        self._health.progress()
        now = self._monotonic()
        interval = self._notifier.watchdog_interval
        if interval is not None and now - self._fed >= interval / 2:
            self._notifier.alive()
            self._fed = now

    def _start(self) -> None:
        self._streams.open()
        self._health.clear_reason("starting")
        self._health.set_reason("unassigned", "no partition is assigned yet")
        self._began = self._monotonic()
        event(_log, logging.INFO, "started")
        # Up, though perhaps without a partition: where there are more processes than partitions one may wait for days.
        self._notifier.ready("no partition is assigned yet")

    def _turn(self) -> bool:
        """One turn of the loop; False when there is no more to do."""
        happened = self._poll()
        records = 0
        for occurrence in happened:
            match occurrence:
                case Assigned():
                    self._assign(occurrence)
                case Revoked(partition):
                    self._revoke(partition)
                case Batch():
                    records += len(occurrence.records)
                    self._process(occurrence)
        if records:
            self._metrics.batch_records.observe(records)
        for pipeline in self._pending():
            self._publish(pipeline, pipeline.advance())
        self._commit(final=False)
        self._reload()
        self._observer.turned(self._pipelines, self._streams.lag())
        self.pulse()
        return bool(happened or self._pending()) or not (self._until_end and self._streams.at_end())

    def _poll(self) -> Sequence[Event]:
        pending = bool(self._pending())
        undisturbed = not self._restoring and WAITING not in self._health.reasons
        if self._next is not None and undisturbed and (pending or self._holding):
            # Nothing more comes in before the switch, or there would always be something pending.
            self._holding = True
            self._pause(READY_SECONDS)
            return ()
        return self._streams.poll(READY_SECONDS if pending else POLL_SECONDS)

    def _pending(self) -> list[PartitionPipeline]:
        return [pipeline for pipeline in self._pipelines.values() if pipeline.pending]

    def _drain(self) -> None:
        """Commit what is done, with all state, so that a planned restart repeats nothing."""
        self._notifier.stopping()
        self._health.set_reason("stopping", "the process is stopping")
        event(_log, logging.INFO, "draining")
        self._commit(final=True)

    def _assign(self, assigned: Assigned) -> None:
        partition = assigned.partition
        started = self._monotonic() - assigned.seconds
        pipeline = self._begun(assigned)
        self._pipelines[partition] = pipeline
        self._durable[partition] = max(assigned.position, assigned.live_from or 0)
        self._restoring[partition] = started
        event(
            _log, logging.INFO, "partition_assigned",
            stream=partition.stream, partition=partition.number, position=assigned.position,
            sensors=pipeline.sensors, open_episodes=pipeline.open_episodes,
        )  # fmt: skip
        if pipeline.restoring:
            event(
                _log, logging.INFO, "restoring",
                stream=partition.stream, partition=partition.number, position=assigned.position,
                live_from=assigned.live_from,
            )  # fmt: skip
            self._health.set_reason("restoring", "state is brought up to date")
            self._progress.begin(partition, pipeline.position, assigned.live_from or pipeline.position)
            self._notifier.status(self._status())
        else:
            self._restored(partition)
        self._health.clear_reason("unassigned")
        self._metrics.ready.set(self._health.ready)

    def _begun(self, assigned: Assigned) -> PartitionPipeline:
        """The pipeline of a partition, with its state: a former one, if that has to bring the state up to date."""
        partition = assigned.partition
        pipeline = self._make_pipeline(partition)
        if assigned.state is None:
            pipeline.begin(assigned.position, assigned.live_from)
            return pipeline
        replays = assigned.live_from is not None and assigned.live_from > assigned.position
        with _telling(partition):
            provenance = provenance_of(assigned.state)
            if (
                replays
                and self._make_replay is not None
                and provenance is not None
                and provenance != pipeline.provenance
            ):
                event(
                    _log, logging.WARNING, "replaying_with_former_settings",
                    stream=partition.stream, partition=partition.number, model=provenance.model,
                )  # fmt: skip
                pipeline = self._make_replay(partition, provenance)
                self._replayed_by.add(partition)
            self._take_up(pipeline, assigned.state, assigned.live_from, assigned.position)
        return pipeline

    def _take_up(
        self, pipeline: PartitionPipeline, state: bytes, live_from: int | None = None, position: int | None = None
    ) -> None:
        if pipeline.restore(state, live_from, position):
            event(_log, logging.WARNING, "model_changed_since_last_run", stream=pipeline.partition.stream)

    def _succeed(self, partition: Partition) -> None:
        """What was committed is caught up with: from here on the model and the settings of now count."""
        self._replayed_by.discard(partition)
        pipeline = self._make_pipeline(partition)
        with _telling(partition):
            self._take_up(pipeline, self._pipelines[partition].snapshot())
        self._pipelines[partition] = pipeline

    def _restored(self, partition: Partition) -> None:
        """The partition's state is what it was at the last commit."""
        pipeline = self._pipelines[partition]
        seconds = self._monotonic() - self._restoring.pop(partition)
        self._metrics.restore.observe(seconds)
        self._progress.live(partition)
        self._metrics.replay_mismatches.inc(pipeline.mismatches)
        if pipeline.mismatches:
            event(
                _log, logging.WARNING, "replay_mismatch",
                stream=partition.stream, partition=partition.number, episodes=pipeline.mismatches,
            )  # fmt: skip
        if partition in self._replayed_by:
            self._succeed(partition)
        self._twins.restored(partition)
        if not self._restoring:
            self._health.clear_reason("restoring")
        self._notifier.status(self._status())

    def _status(self) -> str:
        """What `systemctl status` shows."""
        count = len(self._pipelines)
        text = f"reading {count} partition{'s' * (count != 1)}"
        return f"{text}, {len(self._restoring)} being restored" if self._restoring else text

    def _revoke(self, partition: Partition) -> None:
        self._pipelines.pop(partition, None)
        self._replayed_by.discard(partition)
        self._durable.pop(partition, None)
        self._progress.gone(partition)
        self._uncommitted.pop(partition, None)
        if self._scores is not None:
            self._scores.drop(partition)
        self._states.gone(partition)
        if self._restoring.pop(partition, None) is not None and not self._restoring:
            self._health.clear_reason("restoring")
        self._metrics.partition_gone(partition.stream, partition.number)
        if not self._pipelines:
            self._health.set_reason("unassigned", "no partition is assigned")
        self._notifier.status(self._status())
        event(_log, logging.INFO, "partition_revoked", stream=partition.stream, partition=partition.number)

    def _process(self, batch: Batch) -> None:
        pipeline = self._pipelines[batch.partition]
        started = self._monotonic()
        replayed = pipeline.restoring
        output = pipeline.process(batch)
        if not replayed and batch.records and batch.records[-1].timestamp is not None:
            self._uncommitted[batch.partition] = batch.records[-1].timestamp
        if replayed:
            self._progress.reached(batch.partition, pipeline.position)
        if batch.partition in self._restoring and not pipeline.restoring:
            self._restored(batch.partition)
            pipeline = self._pipelines[batch.partition]
            event(
                _log, logging.INFO, "restored",
                stream=batch.partition.stream, partition=batch.partition.number, position=pipeline.position,
                sensors=pipeline.sensors, open_episodes=pipeline.open_episodes,
            )  # fmt: skip
        self._metrics.scoring[pipeline.kind].observe(self._monotonic() - started)
        self._publish(pipeline, output)

    def _publish(self, pipeline: PartitionPipeline, output: Output) -> None:
        # Before anything is written: a topic of the wrong kind must not be drained into the dead letters.
        self._guard.judge(output.records, output.refused, _why(output), of=pipeline.kind)
        self._twins.met(pipeline.partition, output.new_sensors)
        self._streams.write(output.dead_letters)
        self._streams.write(output.alerts)
        if self._scores is not None:
            self._scores.add(pipeline.partition, output.rows)
        self._observer.processed(pipeline, output)

    def _commit(self, *, final: bool) -> None:
        started = self._monotonic()
        positions = {
            partition: pipeline.position for partition, pipeline in self._pipelines.items() if not pipeline.restoring
        }
        deferred = nothing_deferred if self._scores is None else self._scores.take
        if self._streams.commit(positions, self._states, final=final, deferred=deferred):
            # Of a partition with records still to come the commit does not reach up to the newest one.
            reached = [at for at in self._uncommitted if not self._pipelines[at].pending]
            newest = [self._uncommitted.pop(at) for at in reached]
            moved = [self._pipelines[at] for at, position in positions.items() if position != self._durable.get(at)]
            self._observer.committed(self._monotonic() - started, moved, newest)
            self._durable |= positions
            self._ever_durable = True

    def _reload(self) -> None:
        """Take what is new, and switch to it where a crash would repeat nothing that others have seen."""
        match self._reloads.take():
            case Ready() as ready:
                self._next, self._newest_failed = (ready, self._monotonic()), False
            case Failed():
                self._newest_failed = True
                self._observer.reload_failed()
        # All partitions switch or none, and whether the state of one fits is known when it is there.
        if self._next is None or self._restoring or self._pending():
            return
        ready, since = self._next
        settled = all(one.position == self._durable.get(at) for at, one in self._pipelines.items())
        # Standard input and output have no durable commits to wait for.
        if settled or (not self._ever_durable and self._monotonic() - since >= NEVER_DURABLE_SECONDS):
            self._next, self._holding = None, False
            self._switch(ready)

    def _switch(self, ready: Ready) -> None:
        """From here on the new engine counts, or the old one stays for all partitions."""
        engine = ready.engine
        successors: dict[Partition, PartitionPipeline] = {}
        same = ready.only_logging and engine.setup.models == self._observer.setup.models
        try:
            for partition, pipeline in {} if same else self._pipelines.items():
                successors[partition] = successor = engine.make_pipeline(partition)
                successor.restore(pipeline.snapshot())
                self.pulse()
        except StateError as error:
            self._reloads.refused(ready, str(error))
            self._observer.reload_failed()
            return
        self._pipelines |= successors
        self._make_pipeline, self._make_replay = engine.make_pipeline, engine.make_replay
        self._reloads.taken(ready)
        self._observer.setup = replace(engine.setup, reloaded=not self._newest_failed)
        event(
            _log, logging.INFO, "reloaded",
            reason=ready.reason, changed=list(ready.changed),
            models={kind: model.version for kind, model in engine.setup.models.items()},
            positions={f"{at.stream}:{at.number}": one.position for at, one in self._pipelines.items()},
        )  # fmt: skip


@contextmanager
def _telling(partition: Partition) -> Iterator[None]:
    """Say what a person can do about a state that does not fit."""
    try:
        yield
    except StateError as error:
        raise UserError(
            f"the state of {partition.stream} partition {partition.number} cannot be taken up: {error}",
            todo="Restore the configuration it was written with, or start over with `detector run --fresh`",
        ) from error


def _why(output: Output) -> str:
    """What was wrong with the first record that was rejected; nothing if none was."""
    headers = dict(output.dead_letters[0].headers) if output.dead_letters else {}
    return headers.get("detector.message", b"").decode()
