"""The main loop: poll, process, write, commit. Methods stand in the order of a process's life."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from detector.detection.table import StateError
from detector.engine.order import Order
from detector.engine.output import Output
from detector.engine.partition import PartitionPipeline
from detector.engine.scorestream import ScoreStream
from detector.engine.slices import provenance_of
from detector.errors import StopAskedError, UserError
from detector.service.health import WAITING, Health
from detector.service.hunt import Hunter, StartOver
from detector.service.logs import event
from detector.service.metrics import Metrics
from detector.service.observer import DuplicateSensors, Observer, RestoreProgress
from detector.service.owned import Owned, PackedStates
from detector.service.pipelines import Engine
from detector.service.rejects import RejectGuard
from detector.service.reload import Failed, NoReloads, Ready, Reloads
from detector.service.systemd import Notifier, Pulse
from detector.service.watchlog import tell_unwatched
from detector.service.web.status import Board
from detector.streams.base import Assigned, Batch, Event, Partition, Revoked, Streams, nothing_deferred

_log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1
"""How long an idle turn waits: short against the commit interval, long against the cost of a turn."""
NEVER_DURABLE_SECONDS: Final = 10.0
"""After so long without any durable commit there is none to wait for."""
READY_SECONDS: Final = 0.005
"""The same while something is pending in a pipeline, and may be ready at any moment."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as the loop has it, in seconds: since the epoch, as it only ever rises, and how some of it is let pass."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


class Daemon:
    """Drives one `Streams`, and for each of its partitions a pipeline of `engine`, until it is told to stop.

    `stop()` says that someone asked for the end, `until_end` that the end of the input is the end. `ordered_file` names
    a finite input in which the readings of each sensor have to be in the order of time. Whatever raises out of `run`
    leaves everything since the last durable commit undone, to be done again by the next process. `scores` takes the
    rows of pipelines that keep them.
    """

    def __init__(
        self,
        streams: Streams,
        engine: Engine,
        *,
        metrics: Metrics,
        health: Health,
        guard: RejectGuard,
        stop: Callable[[], bool],
        until_end: bool = False,
        ordered_file: str | None = None,
        scores: ScoreStream | None = None,
        reloads: Reloads | None = None,
        notifier: Notifier | None = None,
        pulse: Pulse | None = None,
        board: Board | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        clocks = clocks or Clocks()
        self._streams = streams
        self._engine = engine
        self._metrics = metrics
        self._health = health
        self._guard = guard
        self._stop = stop
        self._until_end = until_end
        self._ordered_file = ordered_file
        self._order = Order()
        self._scores = scores
        self._reloads = reloads or NoReloads()
        self._notifier = notifier or Notifier({})
        self._monotonic = clocks.monotonic
        self._pause = clocks.pause
        self._owned: dict[Partition, Owned] = {}
        self._states = PackedStates(self._owned, metrics.snapshot_bytes.set)
        self._duplicates = DuplicateSensors()
        self._hunter = Hunter(streams, lambda partition: self._engine.make_pipeline(partition), clocks.monotonic)
        self._ever_durable = False
        self._next: tuple[Ready, float] | None = None  # what to switch to, and since when
        self._newest_failed = False  # after what to switch to was ready
        self._holding = False  # nothing more is taken in before the switch
        self._pulse = pulse or Pulse(health, self._notifier, clocks.monotonic)
        self._began = clocks.monotonic()
        self._observer = Observer(
            metrics, health, board or Board(), engine.setup, wall_clock=clocks.wall, monotonic=clocks.monotonic
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
            self._observer.stopped()
            seconds = self._monotonic() - self._began
            inputs, unused = self._observer.inputs, self._observer.unused
            event(
                _log, logging.INFO, "stopped",
                readings=inputs["readings"], frames=inputs["frames"],
                late=unused["late"], duplicate=unused["duplicate"], rejected=unused["rejected"],
                alerts=self._observer.alerts, seconds=round(seconds, 3),
            )  # fmt: skip

    @property
    def restoring(self) -> bool:
        """Whether the state of a partition is still brought up to date."""
        return any(owned.restoring for owned in self._owned.values())

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
        try:
            return self._turned()
        except StartOver:
            for partition in list(self._owned):
                self._revoke(partition)
            return True
        except StopAskedError:
            return False

    def _turned(self) -> bool:
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
                    for part in self._hunter.parts(occurrence):
                        self._process(part)
        if records:
            self._metrics.batch_records.observe(records)
        for owned in [owned for owned in self._owned.values() if owned.pipeline.pending]:
            self._publish(owned.pipeline, self._hunter.advance(owned))
        self._commit(final=False)
        self._reload()
        self._observer.turned(self._pipelines(), self._streams.lag())
        self._pulse()
        return bool(happened or self._pending()) or not (self._until_end and self._streams.at_end())

    def _poll(self) -> Sequence[Event]:
        pending = bool(self._pending())
        undisturbed = not self.restoring and WAITING not in self._health.reasons
        if self._next is not None and undisturbed and (pending or self._holding):
            # Nothing more comes in before the switch, or there would always be something pending.
            self._holding = True
            self._pause(READY_SECONDS)
            return ()
        return self._streams.poll(READY_SECONDS if pending else POLL_SECONDS)

    def _pending(self) -> list[PartitionPipeline]:
        return [owned.pipeline for owned in self._owned.values() if owned.pipeline.pending]

    def _pipelines(self) -> dict[Partition, PartitionPipeline]:
        return {partition: owned.pipeline for partition, owned in self._owned.items()}

    def _drain(self) -> None:
        """Commit what is done, with all state, so that a planned restart repeats nothing."""
        self._notifier.stopping()
        self._health.set_reason("stopping", "the process is stopping")
        event(_log, logging.INFO, "draining")
        self._commit(final=True)
        self._observer.drained(self._pipelines(), self._streams.lag())
        if self._until_end:
            tell_unwatched(self._pipelines())

    def _assign(self, assigned: Assigned) -> None:
        partition = assigned.partition
        owned = self._owned[partition] = self._begun(assigned)
        pipeline = owned.pipeline
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
            owned.progress = RestoreProgress(
                partition, pipeline.position, assigned.live_from or pipeline.position, self._metrics, self._monotonic
            )
            self._notifier.status(self._status())
        else:
            self._restored(partition)
        self._health.clear_reason("unassigned")
        self._metrics.ready.set(self._health.ready)

    def _begun(self, assigned: Assigned) -> Owned:
        """The partition with its state; a replay pipeline, if that has to be brought up to date by one."""
        partition, live_from = assigned.partition, assigned.live_from
        since = self._monotonic() - assigned.seconds
        pipeline = self._engine.make_pipeline(partition)
        owned = Owned(pipeline, durable=max(assigned.position, live_from or 0), restoring_since=since)
        if assigned.state is None:
            pipeline.begin(assigned.position, live_from)
            return owned
        with _telling(partition):
            provenance = provenance_of(assigned.state)
            behind = live_from is not None and live_from > assigned.position
            make_replay = self._engine.make_replay
            if behind and make_replay and provenance is not None and provenance != pipeline.provenance:
                event(
                    _log, logging.WARNING, "replaying_with_former_settings",
                    stream=partition.stream, partition=partition.number, model=provenance.model,
                )  # fmt: skip
                owned.pipeline, owned.replayed = make_replay(partition, provenance), True
            self._take_up(owned.pipeline, assigned.state, live_from, assigned.position)
        return owned

    def _take_up(
        self,
        pipeline: PartitionPipeline,
        state: bytes | memoryview,
        live_from: int | None = None,
        position: int | None = None,
    ) -> None:
        if pipeline.restore(state, live_from, position):
            event(_log, logging.WARNING, "model_changed_since_last_run", stream=pipeline.partition.stream)

    def _restored(self, partition: Partition) -> None:
        """The partition's state is what it was at the last commit."""
        owned = self._owned[partition]
        if owned.restoring_since is not None:
            self._metrics.restore.observe(self._monotonic() - owned.restoring_since)
        owned.restoring_since = owned.progress = None
        self._metrics.restore_progress.labels(*partition).set(1)
        mismatches = owned.pipeline.mismatches
        self._metrics.replay_mismatches.inc(mismatches)
        if mismatches:
            event(
                _log, logging.WARNING, "replay_mismatch",
                stream=partition.stream, partition=partition.number, episodes=mismatches,
            )  # fmt: skip
        if owned.replayed:
            self._succeed(partition)
        self._duplicates.met(self._pipelines(), partition, owned.pipeline.sensor_ids)
        if not self.restoring:
            self._health.clear_reason("restoring")
        self._notifier.status(self._status())

    def _succeed(self, partition: Partition) -> None:
        """What was committed is caught up with: from here on the configured model and settings count."""
        owned = self._owned[partition]
        pipeline = self._engine.make_pipeline(partition)
        with _telling(partition):
            self._take_up(pipeline, owned.pipeline.snapshot())
        owned.pipeline, owned.replayed = pipeline, False

    def _status(self) -> str:
        """What `systemctl status` shows."""
        count = len(self._owned)
        text = f"reading {count} partition{'s' * (count != 1)}"
        restoring = sum(owned.restoring for owned in self._owned.values())
        return f"{text}, {restoring} being restored" if restoring else text

    def _revoke(self, partition: Partition) -> None:
        owned = self._owned.pop(partition, None)
        if owned is None:
            return
        self._hunter.gone(owned.pipeline)
        self._observer.gone(partition)
        if self._scores is not None:
            self._scores.drop(partition)
        self._states.tell()
        self._metrics.partition_gone(partition.stream, partition.number)
        if not self.restoring:
            self._health.clear_reason("restoring")
        if not self._owned:
            self._health.set_reason("unassigned", "no partition is assigned")
        self._notifier.status(self._status())
        event(_log, logging.INFO, "partition_revoked", stream=partition.stream, partition=partition.number)

    def _process(self, batch: Batch) -> None:
        partition = batch.partition
        owned = self._owned[partition]
        pipeline = owned.pipeline
        started = self._monotonic()
        replayed = pipeline.restoring
        outputs = self._hunter.process(owned, batch)
        pipeline = owned.pipeline
        if not replayed and batch.records and batch.records[-1].timestamp is not None:
            owned.uncommitted = batch.records[-1].timestamp
        if owned.progress is not None:
            owned.progress.reached(pipeline.position)
        if owned.restoring and not pipeline.restoring:
            self._restored(partition)
            pipeline = owned.pipeline
            event(
                _log, logging.INFO, "restored",
                stream=partition.stream, partition=partition.number, position=pipeline.position,
                sensors=pipeline.sensors, open_episodes=pipeline.open_episodes,
            )  # fmt: skip
        self._metrics.scoring[pipeline.kind].observe(self._monotonic() - started)
        for output in outputs:
            self._publish(pipeline, output)

    def _publish(self, pipeline: PartitionPipeline, output: Output) -> None:
        counts = self._hunter.counts(pipeline)
        # Before anything is written: a topic of the wrong kind must not be drained into the dead letters.
        if counts:
            self._guard.judge(output.records, output.refused, _why(output), of=pipeline.kind)
            self._refuse_disorder(output)
        self._duplicates.met(self._pipelines(), pipeline.partition, output.new_sensors)
        self._streams.write(output.dead_letters)
        self._streams.write([*output.alerts, *output.verdicts])
        if self._scores is not None:
            self._scores.add(pipeline.partition, output.rows)
        if counts:
            self._observer.processed(pipeline, output)

    def _refuse_disorder(self, output: Output) -> None:
        """A file that is not in the order of time would lose most of its readings, and say nothing."""
        if self._ordered_file is None:
            return
        self._order.take(output)
        if (fault := self._order.fault) is not None:
            raise UserError(
                fault, where=self._ordered_file, todo="Sort the readings of each sensor by time, oldest first"
            )

    def _commit(self, *, final: bool) -> None:
        started = self._monotonic()
        positions = {
            partition: owned.pipeline.position
            for partition, owned in self._owned.items()
            if not owned.pipeline.restoring
        }
        deferred = nothing_deferred if self._scores is None else self._scores.take
        if self._streams.commit(positions, self._states, final=final, deferred=deferred):
            moved: list[PartitionPipeline] = []
            stamps: list[int] = []
            for partition, position in positions.items():
                owned = self._owned[partition]
                if position != owned.durable:
                    owned.durable = position
                    moved.append(owned.pipeline)
                # Of a partition with records still to come the commit does not reach up to the newest one.
                if owned.uncommitted is not None and not owned.pipeline.pending:
                    stamps.append(owned.uncommitted)
                    owned.uncommitted = None
            self._observer.committed(self._monotonic() - started, moved, stamps)
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
        if self._next is None or self.restoring or self._pending():
            return
        ready, since = self._next
        settled = self._streams.settled and all(
            owned.pipeline.position == owned.durable for owned in self._owned.values()
        )
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
            for partition, owned in {} if same else self._owned.items():
                successors[partition] = successor = engine.make_pipeline(partition)
                successor.restore(owned.pipeline.snapshot())
                self._pulse()
        except StateError as error:
            self._reloads.refused(ready, str(error))
            self._observer.reload_failed()
            return
        for partition, successor in successors.items():
            self._owned[partition].pipeline = successor
        self._hunter.forget()
        self._engine = engine
        self._reloads.taken(ready)
        self._observer.setup = replace(engine.setup, reloaded=not self._newest_failed)
        event(
            _log, logging.INFO, "reloaded",
            reason=ready.reason, changed=list(ready.changed),
            models={kind: model.version for kind, model in engine.setup.models.items()},
            positions={f"{at.stream}:{at.number}": one.position for at, one in self._pipelines().items()},
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
