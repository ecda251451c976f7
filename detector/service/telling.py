"""`detector notify`: one target, incidents in, requests out.

A position commits when what lies before it is delivered, so that a kill repeats as little as can be; what waits for
long is kept in the state instead.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import msgspec

from detector.config.load import TargetConfig
from detector.errors import UserError, in_brief
from detector.notify.filters import passes
from detector.notify.outbox import Entry, Outbox, Patience
from detector.notify.requests import Alertmanager, Request, Webhook
from detector.notify.sending import Answer, HttpSender, Sender
from detector.service.logs import event
from detector.service.peoplemetrics import NotifyMetrics
from detector.streams.base import Assigned, Batch, Message, Partition
from detector.wire.alerts import dead_letter, dead_letter_line
from detector.wire.incidents import Incident
from detector.wire.readings import Reject

REPEAT_SECONDS: Final = 60.0
"""How often an Alertmanager is told of what is open."""
TOGETHER: Final = 100
"""Incidents in one such request."""
HELD_BACK: Final = 1_000
"""Records that a position may stay behind what was read."""
LAST_ATTEMPTS: Final = 3
"""Of a message, when nothing more will come and the process wants to end."""
_NANOSECONDS: Final = 1e9

_log = logging.getLogger(__name__)


class Form(Protocol):
    """How a target wants it."""

    def request(self, value: bytes, incident: Incident, now: float) -> Request:
        """What to send about an incident."""


def form_of(target: TargetConfig) -> Webhook | Alertmanager:
    """What makes a target's requests. Raises UserError for secrets or a template that cannot be read."""
    return Alertmanager(target) if target.kind == "alertmanager" else Webhook(target)


def sender_of(target: TargetConfig) -> HttpSender:
    """What sends them. Raises UserError."""
    return HttpSender(timeout=target.timeout / _NANOSECONDS, ca_file=target.ca_file)


class NotifyWork:
    """The `Work` of one target. `settle`: s an incident may grow, unless the target says otherwise."""

    def __init__(
        self,
        target: TargetConfig,
        *,
        settle: float,
        form: Webhook | Alertmanager,
        sender: Sender,
        dead_letters: str,
        metrics: NotifyMetrics,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._target = target
        self._form = form
        self._sender = sender
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._wall = wall
        own = None if target.settle is None else target.settle / _NANOSECONDS
        patience = Patience(settle if own is None else own, target.give_up_after / _NANOSECONDS)
        self._box = Outbox(patience, partial(passes, target), jitter=jitter)
        self._repeat_at = 0.0
        self._ending = False
        self._read: dict[Partition, int] = {}
        self._behind: dict[Partition, int] = {}
        self._held = 0
        self._version = 0

    def begin(self, assigned: Mapping[Partition, Assigned]) -> None:
        states = [one.state for one in assigned.values() if one.state is not None]
        try:
            # The newest is that with the highest number, which every partition of a commit is given.
            self._restore(states)
        except ValueError as error:
            raise UserError(
                f"the state of the target {self._target.name} cannot be taken up: {error}",
                todo="Run the version that wrote it, or delete it",
            ) from error
        self._read = {partition: one.position for partition, one in assigned.items()}
        self._behind = dict(self._read)
        self._held = 0

    def lose(self) -> None:
        self._box.restore(None)
        self._read, self._behind, self._held = {}, {}, 0

    def take(self, batch: Batch) -> Sequence[Message]:
        now = self._wall()
        found: list[Message] = []
        for index, record in enumerate(batch.records):
            try:
                self._box.put(record.value or b"", now)
            except ValueError as error:
                reject = Reject(index, "malformed", in_brief(error), None)
                found.append(dead_letter(self._dead_letters, batch.partition, record, reject))
        self._read[batch.partition] = batch.next_offset
        self._held += len(batch.records)
        return found

    def turn(self, *, ending: bool) -> Sequence[Message]:
        """At most one request: between two the loop shows that it is alive."""
        self._ending = ending
        now = self._wall()
        found: list[Message] = []
        due = self._box.due(now, hurry=ending)
        if due is not None:
            found = self._tell(*due)
        elif self._repeat_at <= now and now >= self._box.not_before:
            self._repeat(now)
        self._metrics.pending[self._target.name].set(self._box.pending)
        self._metrics.undelivered[self._target.name].set(self._box.undelivered(now))
        if not self._box.pending or self._held > HELD_BACK:
            self._behind, self._held = dict(self._read), 0
            self._version += 1
        return found

    @property
    def positions(self) -> Mapping[Partition, int]:
        return self._behind

    @property
    def busy(self) -> bool:
        return self._box.due(self._wall(), hurry=self._ending) is not None

    @property
    def waiting(self) -> bool:
        waits = [entry for entry in self._box.entries.values() if entry.pending]
        return any(entry.attempts < LAST_ATTEMPTS for entry in waits)

    def snapshot(self, partition: Partition) -> bytes:
        return msgspec.msgpack.encode((self._version, self._box.pack()))

    def _restore(self, states: Sequence[bytes | memoryview]) -> None:
        self._version = 0
        newest: bytes | memoryview | None = None
        for data in states:
            version, packed = msgspec.msgpack.decode(data, type=tuple[int, bytes])
            if newest is None or version > self._version:
                self._version, newest = version, packed
        self._box.restore(newest)

    def _tell(self, key: str, entry: Entry) -> list[Message]:
        try:
            incident = entry.incident
        except ValueError as error:  # a version before this one took it
            self._box.refused(key, entry.sequence)
            return [self._give_up("refused", key, entry, Answer("refused", f"this is no incident: {in_brief(error)}"))]
        answer = self._sender.send(self._form.request(entry.value, incident, self._wall()))
        now = self._wall()
        if answer.outcome == "delivered":
            self._count("delivered")
            event(
                _log, logging.INFO, "notified",
                target=self._target.name, incident_id=key, sequence=incident.sequence, title=incident.title,
            )  # fmt: skip
            self._box.delivered(key, incident.sequence)
            return []
        if answer.outcome == "refused":
            self._box.refused(key, incident.sequence)
            return [self._give_up("refused", key, entry, answer, incident.title)]
        self._count("retried")
        event(
            _log, logging.WARNING, "notification_failed",
            target=self._target.name, incident_id=key, attempt=entry.attempts + 1, reason=answer.why,
        )  # fmt: skip
        given_up = self._box.failed(key, now, after=answer.after)
        return [self._give_up("given_up", key, entry, answer, incident.title)] if given_up else []

    def _repeat(self, now: float) -> None:
        """An Alertmanager forgets what it does not hear of, and all when it is restarted."""
        self._repeat_at = now + REPEAT_SECONDS
        entries = self._box.open()
        if not isinstance(self._form, Alertmanager) or not entries:
            return
        for start in range(0, len(entries), TOGETHER):
            incidents = []
            for entry in entries[start : start + TOGETHER]:
                with suppress(ValueError):  # a version before this one took it
                    incidents.append(entry.incident)
            answer = self._sender.send(self._form.several(incidents, now))
            if answer.outcome != "delivered":
                event(_log, logging.WARNING, "repeat_failed", target=self._target.name, reason=answer.why)
                self._box.pause(self._wall(), after=answer.after)
                self._repeat_at = self._box.not_before
                return
        self._box.target_answers()

    def _give_up(self, outcome: str, key: str, entry: Entry, answer: Answer, title: str = "") -> Message:
        self._count(outcome)
        event(
            _log, logging.ERROR, "notification_given_up",
            target=self._target.name, incident_id=key, title=title, reason=answer.why,
        )  # fmt: skip
        headers = {
            "detector.reason": outcome,
            "detector.message": answer.why,
            "detector.target": self._target.name,
        }
        return Message(
            self._dead_letters,
            key.encode(),
            entry.value,
            [(name, text.encode()) for name, text in headers.items()],
        )

    def _count(self, outcome: str) -> None:
        self._metrics.sent[self._target.name][outcome].inc()


def undelivered_line(message: Message) -> bytes:
    """A dead letter of a target as one JSON line, where a stream has no headers."""
    headers = {name.removeprefix("detector."): value.decode() for name, value in message.headers}
    if "target" not in headers:
        return dead_letter_line(message)
    body = msgspec.Raw(message.value)
    return msgspec.json.encode(
        {"target": headers["target"], "reason": headers["reason"], "message": headers["message"], "incident": body}
    )
