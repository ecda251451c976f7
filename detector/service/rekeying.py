"""`detector rekey`: a topic copied to another, its records under other keys, exactly once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from detector.config.load import Config
from detector.errors import UserError
from detector.service.follower import Follower
from detector.service.health import Health
from detector.service.people import Around, FollowOptions, served, topics_of
from detector.service.peoplemetrics import RekeyMetrics
from detector.service.rejects import RejectGuard
from detector.service.schemas import topic_documents
from detector.service.systemd import Pulse
from detector.streams.base import Assigned, Batch, Message, Partition, Record
from detector.wire.alerts import dead_letter
from detector.wire.documents import Rejected, read_json
from detector.wire.readings import Reject
from detector.wire.rekeying import Rekeying

MOST_BYTES: Final = 1_000_000
"""A record may have this many, so that it fits into any topic as topics are by default, with what goes with it."""


class _TooLargeError(Exception):
    """A record that no topic takes as topics are by default."""


class RekeyWork:
    """The `Work` of `detector rekey`: nothing is kept of a record, so partitions come and go one by one."""

    busy = False
    waiting = False

    def __init__(
        self, rekeying: Rekeying, *, output: str, dead_letters: str, guard: RejectGuard, metrics: RekeyMetrics
    ) -> None:
        self._rekeying = rekeying
        self._output = output
        self._dead_letters = dead_letters
        self._guard = guard
        self._metrics = metrics
        self.positions: dict[Partition, int] = {}

    def begin(self, assigned: Mapping[Partition, Assigned]) -> None:
        self.positions |= {of: one.position for of, one in assigned.items()}

    def lose(self) -> None:
        self.positions = {}

    def take(self, batch: Batch) -> Sequence[Message]:
        of = batch.partition
        found: list[Message] = []
        refused: list[Reject] = []
        for index, record in enumerate(batch.records):
            try:
                found.append(self._copy(record))
            except Rejected as problem:
                refused.append(Reject(index, problem.reason, problem.message, None))
            except _TooLargeError as error:
                refused.append(Reject(index, "too_many_bytes", str(error), None))
            else:
                continue
            found.append(dead_letter(self._dead_letters, of, record, refused[-1]))
        # Before anything is written: a topic of the wrong kind must not be drained into the dead letters.
        why = refused[0].message if refused else ""
        self._guard.judge(len(batch.records), [one.record for one in refused], why)
        self.positions[of] = batch.next_offset
        self._metrics.records["copied"].inc(len(batch.records) - len(refused))
        self._metrics.records["rejected"].inc(len(refused))
        return found

    def turn(self, *, ending: bool) -> Sequence[Message]:
        return ()

    def snapshot(self, partition: Partition) -> bytes:
        return b""

    def _copy(self, record: Record) -> Message:
        key, value = self._rekeying.key(record), record.value or b""
        headers = [(name, text or b"") for name, text in record.headers]
        size = len(key) + len(value) + sum(len(name) + len(text) for name, text in headers)
        if size > MOST_BYTES:
            raise _TooLargeError(f"the record has {size} bytes; of more than {MOST_BYTES} it would not fit")
        stamp = record.timestamp
        return Message(self._output, key, value, headers, timestamp=None if stamp is None or stamp < 0 else stamp)


def serve_rekey(config: Config, key: str, source: str, target: str, around: Around, *, until_end: bool = False) -> None:
    """Copy until told to stop, or to the end that is there at the start. Raises DetectorError."""
    _check(config, source, target)
    metrics = RekeyMetrics(CollectorRegistry())
    health = Health()
    pulse = Pulse(health, around.notifier)
    readings = config.readings
    work = RekeyWork(
        Rekeying(
            readings.fields,
            key,
            coerce=readings.coerce,
            documents=topic_documents(config, health=health, pulse=pulse, stop=around.stop) or read_json,
            machines={tag: machine.id for machine in readings.machines for tag in machine.channels.values()},
        ),
        output=target,
        dead_letters=config.output.dead_letters,
        guard=RejectGuard(config.rejects.max_share, config.rejects.over),
        metrics=metrics,
    )
    with served(metrics, health, config.http.listen, around):
        streams = topics_of(
            config, rekey_group(config, source, target), source, [target, config.output.dead_letters],
            options=FollowOptions(until_end=until_end), health=health, pulse=pulse, sole=False,
        )  # fmt: skip
        Follower(
            streams, work, name="rekey", health=health, stop=around.stop, until_end=until_end,
            notifier=around.notifier, pulse=pulse, turned=partial(metrics.turned, health),
        ).run()  # fmt: skip


def rekey_group(config: Config, source: str, target: str) -> str:
    """The consumer group of a copy; with `-state` behind it the topic of its state."""
    return f"{config.streams.kafka.group_id}-rekey-{source}-{target}"


def _check(config: Config, source: str, target: str) -> None:
    if config.streams.backend != "kafka":
        raise UserError("files have no keys", where="streams.backend", todo="Set streams.backend: kafka")
    dead_letters = config.output.dead_letters
    for taken, why in ((source, "--from"), (dead_letters, "output.dead_letters")):
        if target == taken:
            raise UserError(f"{target} is {why}, too", where="--to", todo="Name another topic")
