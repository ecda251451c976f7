"""Targets tried out: one message to one of them, or all messages to nobody."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from detector.config.load import Config, TargetConfig
from detector.errors import OperationError, UserError, without
from detector.notify.filters import passes
from detector.notify.outbox import Outbox, Patience
from detector.notify.requests import Request
from detector.service.past import published_on_kafka
from detector.service.people import FollowOptions, target_files, targets_of
from detector.service.telling import form_of, sender_of
from detector.streams.base import Batch
from detector.times import SECOND, rfc3339
from detector.wire.incidents import Incident, IncidentSource, Suspect, encode_incident

_SECRET: Final = frozenset({"authorization"})


def send_test(config: Config, name: str, wall: Callable[[], float] = time.time) -> str:
    """Send the target of that name an incident that says it is a test; what came of it, in words.

    Raises UserError for a name there is not, OperationError if it was not delivered.
    """
    names = [target.name for target in config.notify.targets]
    if name not in names:
        known = f"There are {', '.join(names)}" if names else "There are none"
        raise UserError(f"there is no target {name}", where="notify.targets", todo=known)
    target = config.notify.targets[names.index(name)]
    form, now = form_of(target), wall()
    incident = example(now, f"A test of the target {name}: nothing has happened")
    with sender_of(target) as sender:
        answer = sender.send(form.request(encode_incident(incident), incident, now))
    if answer.outcome != "delivered":
        raise OperationError(
            f"the target {name} did not take it: {answer.why}", where=f"notify.targets.{name}", todo="Correct it"
        )
    return f"{name}: delivered, incident {incident.incident_id}"


def example(now: float, title: str) -> Incident:
    """An incident of one sensor that never was, at `now` (s since the epoch)."""
    at = rfc3339(int(now) * SECOND)
    return Incident(
        incident_id=str(uuid.uuid4()),
        sequence=0,
        event="opened",
        group="test",
        title=title,
        severity="warning",
        started_at=at,
        detected_at=at,
        size=1,
        members=[],
        suspects=[Suspect(sensor_id="test", channel=None, why="this is a test")],
        source=IncidentSource(stream="test", partition=0, offset=0),
    )


def dry_run(config: Config, place: str | None, wall: Callable[[], float] = time.time) -> Iterator[str]:
    """What would be sent of the incidents there are, their newest messages, a JSON line each. Raises DetectorError."""
    boxes = [
        (target, form_of(target), Outbox(Patience(0.0, 0.0), partial(passes, target))) for target in targets_of(config)
    ]
    for value in _values(config, place):
        with contextlib.suppress(ValueError):  # what is no incident becomes a dead letter, which is none of a trial
            for _, _, box in boxes:
                box.put(value, 0.0)
    for target, form, box in boxes:
        while (due := box.due(0.0, hurry=True)) is not None:
            key, entry = due
            incident = entry.incident
            yield _shown(target, form.request(entry.value, incident, wall()))
            box.delivered(key, incident.sequence)


def _values(config: Config, place: str | None) -> Iterator[bytes]:
    if config.streams.backend == "kafka" and place is None:
        yield from map(encode_incident, published_on_kafka(config))
        return
    streams = target_files(config, None, FollowOptions(input=place, until_end=True))
    streams.open()
    try:
        while not streams.at_end():
            for happened in streams.poll(0.0):
                if isinstance(happened, Batch):
                    yield from (record.value for record in happened.records if record.value)
    finally:
        streams.close()


def _shown(target: TargetConfig, request: Request) -> str:
    """A request without its secrets."""
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _SECRET}
    found = {
        "target": target.name,
        "url": without(request.url) if target.url is not None else "(secret)",
        "headers": headers,
        "body": request.body.decode("utf-8", "replace"),
    }
    return msgspec.json.encode(found).decode()
