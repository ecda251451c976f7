"""The `Streams` of Kafka topics: exactly once, from the offsets of the input to what is published.

A commit is one transaction: messages, state and offsets, with the group membership that makes the broker refuse it from
a member that the group has given up. Whatever goes wrong in one has the same consequence: a new producer, all
partitions revoked, and restored from what was committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError

from detector.config.settings import StateConfig
from detector.config.streams import KafkaConfig
from detector.errors import DetectorError, OperationError, UserError
from detector.streams.base import (
    Assigned,
    Deferred,
    Event,
    Message,
    Partition,
    Revoked,
    RollingSnapshot,
    Snapshot,
    nothing_deferred,
)
from detector.streams.kafka.committing import Composition, Pieces, committing, next_of_renewal
from detector.streams.kafka.connection import Connection
from detector.streams.kafka.failures import CORRUPT, Reaction, as_failure, is_fenced, is_left_behind, rule_for, told
from detector.streams.kafka.held import Held
from detector.streams.kafka.membership import Change, at_work, broker_away, hold, release
from detector.streams.kafka.outage import Outage
from detector.streams.kafka.poison import describe_corrupt
from detector.streams.kafka.restoring import Restored, Restorer, Steps

_NANOSECONDS: Final = 1e9
_JOINING_SECONDS: Final = 0.5
"""A shorter poll may end in the middle of joining, and the member then hangs until it is told to join again."""
_LOOK_SECONDS: Final = 0.5
"""The longest single wait for records: the member's state is looked at in between."""

_log = logging.getLogger(__name__)


class KafkaStreams:
    """The topics `state_topics` names as inputs, each with the topic of its state, and any number of outputs.

    What is written to an `optional` output that the broker does not have is dropped.

    Settings are those of the configuration. `skip_to` gives partitions the offset at which to go on if they are not
    beyond it. A poll hands out at most `max_records`. `on_waiting` is told why the broker is waited for, and None when
    that is over; `on_forgotten` is called when the broker knows no offset of a partition and its state does; `tick` is
    called about once a second while something takes long. `sole`: one member of the group has all partitions, and is
    assigned them in one poll; the others stand by.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        state: StateConfig,
        *,
        state_topics: Mapping[str, str],
        outputs: Sequence[str],
        optional: Collection[str] = (),
        skip_to: Mapping[Partition, int] | None = None,
        until_end: bool = False,
        max_records: int = 5000,
        sole: bool = False,
        on_waiting: Callable[[str | None], None] = lambda _: None,
        on_forgotten: Callable[[], None] = lambda: None,
        tick: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.until_end = until_end
        self._kafka = kafka
        self._state = state
        self._state_topics = dict(state_topics)
        self._outputs = list(outputs)
        self._skip_to = {TopicPartition(*partition): offset for partition, offset in (skip_to or {}).items()}
        self._on_forgotten = on_forgotten
        self._sole = sole
        self._clock = clock
        self._sleep = sleep
        self._link = Connection(
            kafka, self._state_topics, self._outputs, optional=optional,
            max_records=max_records, sole=sole, before_revoke=self._commit_before_revoke, tick=tick, clock=clock,
        )  # fmt: skip
        self._outage = Outage(kafka.broker_outage_limit / _NANOSECONDS, on_waiting, clock)
        self._forget()

    def _forget(self) -> None:
        self._held: dict[TopicPartition, Held] = {}
        self._restores: dict[TopicPartition, Steps] = {}
        self._restored: dict[TopicPartition, Restored] = {}  # and not announced yet
        self._restorer: Restorer | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._events: list[Event] = []
        self._written: list[Message] = []
        self._staged: list[Message] = []
        self._snapshot: Snapshot | None = None
        self._deferred: Deferred = nothing_deferred
        self._records = 0  # handed out since the last commit
        self._durable_untold = False  # a poll has made what was named durable by itself
        self._joined = False
        self._last_commit = self._clock()
        self._broken: BaseException | None = None

    def open(self) -> None:
        self._forget()
        self._outage.forget()
        self._link.prepare()
        self._try_to_connect()

    def poll(self, timeout: float) -> Sequence[Event]:
        deadline = self._clock() + timeout
        if not self._link.transactions.ready:
            self._wait_for_attempt(deadline)
        fetched = self._fetch(deadline)
        self._follow_changes()
        if self._link.transactions.ready:
            self._restore_until(deadline)
        self._watch_broker()
        events, self._events = self._events, []
        for held, records, position in fetched:
            if self._held.get(held.tp) is held:
                for batch in held.batches(records, position):
                    self._records += len(batch.records)
                    events.append(batch)
                self._jump(held)
        return events

    def at_work(self) -> None:
        """To be called between pieces of work that may take longer together than the group waits for a poll."""
        if self._link.consumer is not None:
            at_work(self._link.consumer)

    def write(self, messages: Sequence[Message]) -> None:
        absent = self._link.absent
        self._written += [one for one in messages if one.stream not in absent] if absent else messages

    def commit(
        self,
        positions: Mapping[Partition, int],
        snapshot: Snapshot,
        *,
        final: bool = False,
        deferred: Deferred = nothing_deferred,
    ) -> bool:
        for partition, position in positions.items():
            held = self._held.get(TopicPartition(*partition))
            if held is None or not held.announced:
                raise ValueError(f"{partition} is not assigned")
            if not held.position <= position <= max(held.position, held.handed):
                raise ValueError(f"{position} is no position of {partition}, which is at {held.position}")
            held.position = position
        self._staged += self._written
        self._written = []
        self._snapshot, self._deferred = snapshot, deferred
        named = [self._held[TopicPartition(*partition)] for partition in positions]
        return self._commit(named, snapshot, final=final)

    @property
    def settled(self) -> bool:
        return True

    @property
    def repeatable(self) -> bool:
        return True

    def roll_back(self) -> None:
        self._start_over("records cannot be dealt with", away=False)

    def at_end(self) -> bool:
        if self._link.consumer is None or self._events or not self._joined or self._restores:
            return False
        return all(
            held.restored is not None and not held.replaying and self._at(held) >= self._ends[held.tp]
            for held in self._held.values()
        )

    def lag(self) -> Mapping[Partition, int]:
        if self._link.consumer is None:
            return {}
        lags = {}
        assigned = self._link.consumer.assignment()
        for held in self._held.values():
            if held.restored is not None and held.tp in assigned:
                high = self._link.consumer.highwater(held.tp)
                lags[held.partition] = max(0, (self._ends[held.tp] if high is None else high) - held.next)
        return lags

    def close(self) -> None:
        self._link.close()
        self._forget()

    # Connecting

    def _wait_for_attempt(self, deadline: float) -> None:
        now = self._clock()
        if now >= self._outage.next_attempt:
            self._try_to_connect()
        elif self._link.consumer is None:
            self._sleep(max(0.0, min(deadline, self._outage.next_attempt) - now))

    def _try_to_connect(self) -> None:
        try:
            consumer, reader = self._link.connect()
        except DetectorError:
            raise
        except Exception as error:
            away = rule_for(error).reading is Reaction.RETRY
            if not away and not is_fenced(error):
                raise as_failure(error, "connect") from error
            self._outage.attempt_failed(f"cannot reach the broker: {error}" if away else told(error), away=away)
            return
        for skipped in self._skip_to:
            count = self._link.partitions[skipped.topic]
            if skipped.partition >= count:
                raise UserError(
                    f"there is no partition {skipped.partition} of {skipped.topic}, which has {count}",
                    where="--skip-to",
                    todo=f"Name one from 0 to {count - 1}",
                )
        self._restorer = Restorer(
            self._kafka, self._state, self._state_topics, consumer, reader, self._skip_to,
            written=self._link.written, topic_id=self._link.topic_id, on_forgotten=self._on_forgotten,
        )  # fmt: skip
        for tp in self._held:
            self._restores[tp] = self._restorer.restore(tp)
        self._outage.connected()

    def _watch_broker(self) -> None:
        if self._link.consumer is not None and self._link.transactions.ready:
            self._outage.look(away=broker_away(self._link.consumer), joined=self._joined)

    # Reading

    def _fetch(self, deadline: float) -> list[tuple[Held, Sequence[Any], int]]:
        """What the broker has for partitions that are restored, with the position it was read up to."""
        consumer = self._link.consumer
        if consumer is None:
            return []
        timeout = min(max(0.0, deadline - self._clock()), _LOOK_SECONDS)
        if self._staged:
            # Somebody waits for the next commit.
            timeout = min(timeout, max(0.0, self._due() - self._clock()))
        if self._restores or self._events:
            timeout = 0.0
        if not self._joined:
            timeout = max(timeout, _JOINING_SECONDS)
        try:
            polled = consumer.poll(timeout_ms=int(timeout * 1000) + 1)
            self._joined = self._link.watch.look(consumer)
        except Exception as error:
            self._reading_failed(consumer, error)
            return []
        fetched = []
        for tp, held in self._held.items():
            records = polled.get(tp, ())
            if held.restored is not None and (records or held.replaying):
                fetched.append((held, records, self._at(held) if held.replaying else 0))
        return fetched

    def _at(self, held: Held) -> int:
        """How far the broker's log was read; beyond the last record where transaction markers follow it."""
        consumer = self._ours(held)
        position = None if consumer is None else consumer.position(held.tp, timeout_ms=0)
        return max(held.next, position or 0)

    def _ours(self, held: Held) -> KafkaConsumer | None:
        """The consumer, if the partition is its own: what a poll lost is held until the listener's word is heard."""
        consumer = self._link.consumer
        return consumer if consumer is not None and held.tp in consumer.assignment() else None

    def _jump(self, held: Held) -> None:
        """Go on behind what is to be passed over, if that is next."""
        target = held.jump(self._at(held))
        consumer = self._ours(held)
        if target is not None and consumer is not None:
            held.next = target
            consumer.seek(held.tp, target)

    def _reading_failed(self, consumer: KafkaConsumer, error: Exception) -> None:
        if isinstance(error, DetectorError):
            raise error
        rule = rule_for(error)
        if isinstance(error, CORRUPT):
            jumps = [held for held in self._held.values() if held.restored is not None and held.jump(self._at(held))]
            for held in jumps:
                self._jump(held)
            if jumps:
                return
            positions = {held.tp: self._at(held) for held in self._held.values() if held.restored is not None}
            raise describe_corrupt(error, positions, self._link.settings) from error
        if rule.reading is Reaction.RETRY:
            _log.debug("poll failed: %s", error)
        elif rule.reading in (Reaction.RESTORE, Reaction.POLICY):
            # The restore knows what to do about offsets out of range.
            self._recover(error)
        else:
            raise as_failure(error, f"read from {', '.join(self._state_topics)}") from error

    # Membership and restoring

    def _follow_changes(self) -> None:
        if self._link.listener is None:
            return
        for change, tps in self._link.listener.taken():
            if change is Change.ASSIGNED:
                for tp in tps:
                    self._take(tp)
            elif change is Change.REVOKED:
                for tp in tps:
                    self._give_back(tp)
            else:
                self._recover(CommitFailedError("the group has given this member up"))
        if self._broken is not None:
            error, self._broken = self._broken, None
            self._recover(error)

    def _take(self, tp: TopicPartition) -> None:
        if tp.partition >= self._link.partitions[tp.topic]:
            raise OperationError(
                f"{tp.topic} had {self._link.partitions[tp.topic]} partitions at the start and now has more",
                where="streams.kafka",
                todo="Start again: the state topic has to grow with it, see docs/operations.md",
            )
        self._give_back(tp)
        self._held[tp] = Held(tp, self._clock())
        if self._restorer is not None:
            self._restores[tp] = self._restorer.restore(tp)

    def _give_back(self, tp: TopicPartition) -> None:
        self._restores.pop(tp, None)
        self._restored.pop(tp, None)
        held = self._held.pop(tp, None)
        if held is not None and held.announced:
            self._events.append(Revoked(held.partition))

    def _restore_until(self, deadline: float) -> None:
        """Go on with the restores: one step at least, and more while there is time."""
        while self._restores:
            tp, steps = next(iter(self._restores.items()))
            try:
                next(steps)
            except StopIteration as done:
                del self._restores[tp]
                self._restored[tp] = done.value
                self._announce_restored()
            except DetectorError:
                raise
            except Exception as error:
                if rule_for(error).reading is not Reaction.RETRY or self._restorer is None:
                    raise as_failure(error, f"restore {tp.topic} partition {tp.partition}") from error
                _log.debug("the restore begins again: %s", error)
                self._restores[tp] = self._restorer.restore(tp)
                return
            if self._clock() >= deadline:
                return

    def _announce_restored(self) -> None:
        """What is restored is ours from here on; where one member has all partitions, once all of them are."""
        if self._sole and len(self._restored) < sum(self._link.partitions[topic] for topic in self._state_topics):
            return
        for tp in list(self._restored):
            self._announce(self._held[tp], self._restored.pop(tp))

    def _announce(self, held: Held, restored: Restored) -> None:
        held.adopt(restored)
        held.announced = True
        held.planned = self._clock()
        self._ends.setdefault(held.tp, restored.end)
        consumer = self._ours(held)
        if consumer is not None:
            release(consumer, held.tp, held.jump(restored.position) or restored.position)
        live_from = restored.live_from if restored.live_from > restored.position else None
        seconds = self._clock() - held.since
        self._events.append(Assigned(held.partition, restored.position, restored.state, live_from, seconds))

    # Committing

    def _due(self) -> float:
        return self._last_commit + self._kafka.commit_interval / _NANOSECONDS

    def _commit(self, named: Sequence[Held], snapshot: Snapshot, *, final: bool) -> bool:
        changed = [held for held in named if held.moved or (final and self._lags(held, snapshot))]
        if not changed and not self._staged:
            untold, self._durable_untold = self._durable_untold, False
            return final or untold
        now = self._clock()
        if not final and now < self._due() and self._records < self._kafka.commit_max_records:
            return False
        try:
            self._transact(changed, snapshot, final=final)
        except DetectorError:
            raise
        except Exception as error:
            self._recover(error)
            # Members that are stopped together leave one another behind; the rest of the group does what they held.
            if final and (self.until_end or not is_left_behind(error)):
                raise OperationError(
                    f"the last commit failed: {error}",
                    where="streams.kafka",
                    todo="Start again: what it held is done again, once",
                ) from error
            return False
        return True

    @staticmethod
    def _lags(held: Held, snapshot: Snapshot) -> bool:
        if isinstance(snapshot, RollingSnapshot):
            return held.found.book.behind(held.position)
        return True

    def _transact(self, changed: Sequence[Held], snapshot: Snapshot, *, final: bool) -> None:
        """Commit what is staged, with the positions of `changed`, in one transaction.

        Where much state has to be stored at once there are more: before it for slices of a new generation, which no
        restore looks at until this one is through; after it for slices that bring nothing but a shorter restore.
        """
        if isinstance(snapshot, RollingSnapshot):
            self._write_ahead(changed, snapshot)
        self._staged += self._deferred()
        left = self._transact_once(self._staged, changed, snapshot, lagging=final)
        for held in changed:
            held.committed = held.position
            held.forgotten = False
        self._staged = []
        self._records = 0
        while final and left:
            left = self._transact_once([], changed, snapshot, lagging=True)
        self._last_commit = self._clock()
        self._durable_untold = False
        self._outage.end()

    def _write_ahead(self, changed: Sequence[Held], snapshot: RollingSnapshot) -> None:
        for held in changed:
            if snapshot.renewed(held.partition):
                held.found.book.renew()
            while (pieces := next_of_renewal(held, changed, self._state_topics, snapshot)) is not None:
                taken = partial(self._written_ahead, held, pieces)
                self._link.transactions.run(pieces.records, self._link.membership(), taken)
                self._link.tick()
                self.at_work()

    @staticmethod
    def _written_ahead(held: Held, pieces: Pieces, written: Sequence[int]) -> dict[TopicPartition, Any]:
        held.found.book.prepared(pieces.stored(written))
        # Repeated, because only with offsets does the broker look at the membership.
        return {} if held.committed is None else {held.tp: committing(held, held.committed)}

    def _transact_once(
        self, messages: Sequence[Message], changed: Sequence[Held], snapshot: Snapshot, *, lagging: bool
    ) -> int:
        """Returns how many slices there was no room for."""
        group = self._link.membership()
        composition = Composition(
            messages, changed, self._state_topics, snapshot,
            now=self._clock(), interval=self._state.snapshot_interval / _NANOSECONDS,
            pause=self._kafka.commit_interval / _NANOSECONDS, lagging=lagging,
        )  # fmt: skip
        # Where nothing moved, offsets are repeated: only with them does the broker look at the membership.
        idle = [] if changed else [held for held in self._held.values() if held.committed is not None]

        def offsets(written: Sequence[int]) -> dict[TopicPartition, Any]:
            repeated = {held.tp: committing(held, held.committed or 0) for held in idle}
            return repeated | composition.offsets(written)

        self._link.transactions.run(composition.records, group, offsets)
        return composition.left

    def _commit_before_revoke(self) -> None:
        """On the client's thread, within a poll: what is done is committed while the partitions are still ours."""
        if self._snapshot is None or not self._link.transactions.ready or self._broken is not None:
            return
        named = [held for held in self._held.values() if held.announced and not held.replaying]
        changed = [held for held in named if held.moved]
        if not changed and not self._staged:
            return
        try:
            self._transact(changed, self._snapshot, final=False)
            self._durable_untold = True
        except Exception as error:
            self._broken = error

    def _recover(self, error: BaseException) -> None:
        """The one way out of trouble: a new producer, and every partition from what was committed."""
        self._judge(error)
        _log.warning("starting over from the last commit: %s", told(error))
        self._start_over(told(error), away=rule_for(error).reading is Reaction.RETRY)

    def _start_over(self, why: str, *, away: bool) -> None:
        self._link.transactions.close()
        self._staged, self._written = [], []
        self._records = 0
        self._broken = None
        for tp in list(self._held):
            self._give_back(tp)
        self._restorer = None
        consumer = self._link.consumer
        if consumer is not None:
            owned = sorted(consumer.assignment())
            hold(consumer, owned)
            self._held = {tp: Held(tp, self._clock()) for tp in owned}
        self._outage.next_attempt = self._clock()
        self._outage.begin(why, away=away)

    def _judge(self, error: BaseException) -> None:
        """Raise what ends the process."""
        rule = rule_for(error)
        if rule.writing in (Reaction.EXIT_1, Reaction.EXIT_2):
            raise as_failure(error, f"write to {', '.join(self._outputs)}") from error
        if is_fenced(error):
            self._link.fenced(error)
