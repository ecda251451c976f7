"""`detector incidents`: alerts in, incidents out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from detector.config.load import IncidentsConfig
from detector.errors import UserError, in_brief
from detector.incidents.book import Book, Rules
from detector.incidents.groups import Groups
from detector.incidents.history import History
from detector.incidents.rebuilding import rebuilt
from detector.incidents.state import Keeper, State, named, newest
from detector.service.logs import event
from detector.service.peoplemetrics import IncidentMetrics
from detector.streams.base import Assigned, Batch, Message, Partition, Record
from detector.wire.alerts import dead_letter
from detector.wire.incidents import Incident, IncidentSource, incident_message, read_alert
from detector.wire.readings import INTERNAL, Reject

_log = logging.getLogger(__name__)


class IncidentWork:
    """The `Work` of `detector incidents`.

    `published` gives the incidents that were published so far: what a state that was lost is made of. `dead_letters` is
    the stream of records that are no alerts. `history` is told all that people may look at.
    """

    busy = False
    waiting = False

    def __init__(
        self,
        config: IncidentsConfig,
        *,
        dead_letters: str,
        metrics: IncidentMetrics,
        published: Callable[[], Iterable[Incident]],
        history: History | None = None,
    ) -> None:
        self._output = config.output
        self._rules = Rules(Groups(config.group_by).of, config.within, config.update_every, config.max_duration)
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._published = published
        self._history = History() if history is None else history
        self.positions: dict[Partition, int] = {}
        self._set(State())

    def begin(self, assigned: Mapping[Partition, Assigned]) -> None:
        try:
            state = newest({partition: one.state for partition, one in assigned.items()})
        except ValueError as error:
            raise UserError(
                f"the state of the incidents cannot be taken up: {error}",
                todo="Run the version that wrote it, or start over with `detector incidents --fresh`",
            ) from error
        if state is None:
            state, told = rebuilt(self._published())
            state.told = {named(partition): offset for partition, offset in told.items()}
            if told:
                event(_log, logging.WARNING, "incidents_rebuilt", open=len(state.open))
        self._set(state)
        self.positions = {partition: one.position for partition, one in assigned.items()}

    def lose(self) -> None:
        self._set(State())
        self.positions = {}

    def take(self, batch: Batch) -> Sequence[Message]:
        told = self._keeper.state.told.get(named(batch.partition), -1)
        found: list[Message] = []
        for index, record in enumerate(batch.records):
            # What has led to messages before the state was lost does not lead to them again.
            if record.offset > told:
                found += self._take(batch.partition, index, record)
        self._keeper.changed(batch.partition, batch.next_offset)
        self.positions[batch.partition] = batch.next_offset
        self._count()
        return found

    def turn(self, *, ending: bool) -> Sequence[Message]:
        return ()

    def snapshot(self, partition: Partition) -> bytes:
        return self._keeper.pack(partition)

    def _set(self, state: State) -> None:
        self._keeper = Keeper(state)
        self._book = Book(self._rules, state)
        self._metrics.open.set(len(state.open))

    def _take(self, partition: Partition, index: int, record: Record) -> list[Message]:
        try:
            news = read_alert(record.value or b"")
        except ValueError as error:
            return [self._refuse(partition, record, Reject(index, "malformed", in_brief(error), None))]
        source = IncidentSource(stream=partition.stream, partition=partition.number, offset=record.offset)
        try:
            incidents = self._book.take(news, source)
        except Exception:
            _log.exception("an alert could not be dealt with: %s offset %d", partition.stream, record.offset)
            return [self._refuse(partition, record, Reject(index, "internal", INTERNAL, None))]
        self._metrics.alerts["taken"].inc()
        self._history.alert(news)
        for incident in incidents:
            self._metrics.messages[incident.event, incident.severity].inc()
            self._history.incident(incident)
            _tell(incident)
        return [incident_message(self._output, incident) for incident in incidents]

    def _refuse(self, partition: Partition, record: Record, reject: Reject) -> Message:
        self._metrics.alerts["rejected"].inc()
        return dead_letter(self._dead_letters, partition, record, reject)

    def _count(self) -> None:
        counts = self._book.counts
        for outcome, number in (
            ("duplicate", counts.duplicates), ("muted", counts.muted), ("ungrouped", counts.ungrouped)
        ):  # fmt: skip
            self._metrics.alerts[outcome].inc(number)
        if counts.ungrouped:
            event(_log, logging.WARNING, "too_many_groups", alerts=counts.ungrouped)
        self._book.counts = type(counts)()
        self._metrics.open.set(len(self._book.open))


def _tell(incident: Incident) -> None:
    if incident.event == "opened":
        event(
            _log, logging.INFO, "incident_opened",
            incident_id=incident.incident_id, title=incident.title, severity=incident.severity,
        )  # fmt: skip
    elif incident.event == "closed":
        event(
            _log, logging.INFO, "incident_closed",
            incident_id=incident.incident_id, title=incident.title, reason=incident.close_reason,
        )  # fmt: skip
