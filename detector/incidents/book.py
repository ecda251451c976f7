"""The incidents that are open: who joins which, when one is told of, and when it is over.

Membership is decided once, by the onset of an episode's first message that is not muted; what later messages say of
the onset changes only what is shown. Nothing depends on the wall clock: the newest time of a group's alerts is its
clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from detector.incidents.groups import OTHERS
from detector.incidents.state import Counted, Member, Open, State
from detector.incidents.words import suspects, title
from detector.times import rfc3339
from detector.wire.alerts import Event
from detector.wire.incidents import AlertNews, Incident, IncidentEnd, IncidentMember, IncidentSource, incident_id

SHOWN: Final = 100
"""Members that a message lists; those beyond are counted."""
GROUPS: Final = 10_000
"""Groups with open incidents; alerts of further ones belong to the group `others`."""
CLOSED_KEPT: Final = 1_000
"""Episodes that are over and are still known, to recognise what comes twice."""
PAST_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rules:
    """How episodes become incidents; times in ns. `group_of`: the group of a sensor."""

    group_of: Callable[[str], str]
    within: int
    update_every: int | None
    max_duration: int | None


@dataclass(slots=True)
class Counts:
    """What became of alerts, since it was looked at last."""

    joined: int = 0
    duplicates: int = 0
    gaps: int = 0
    muted: int = 0
    ungrouped: int = 0


class Book:
    """Takes alerts one by one, in order, and returns the messages about incidents that each leads to.

    `state` is what an earlier one had kept; it is changed in place.
    """

    def __init__(self, rules: Rules, state: State | None = None) -> None:
        self.state = State() if state is None else state
        self.counts = Counts()
        self._rules = rules
        self._of: dict[str, Open] = {}
        self._by_group: dict[str, list[Open]] = {}
        for incident in self.state.open:
            self._by_group.setdefault(incident.group, []).append(incident)
            self._of |= dict.fromkeys((*(one.alert_id for one in incident.members), *incident.counted), incident)

    @property
    def open(self) -> list[Open]:
        """The incidents that are open, the oldest first."""
        return self.state.open

    def take(self, news: AlertNews, source: IncidentSource) -> list[Incident]:
        """One alert. Messages are in the order in which they are due: time that has passed before what is new."""
        incident = self._of.get(news.alert_id)
        group = self._group(news.sensor_id) if incident is None else incident.group
        told = self._passed(group, news, source)
        incident = self._of.get(news.alert_id)  # it may be over by now
        if incident is not None:
            told += self._refresh(incident, news, source)
        elif news.alert_id in self.state.past:
            self._late(news)
        else:
            told += self._admit(group, news, source)
        return told

    def _group(self, sensor_id: str) -> str:
        group = self._rules.group_of(sensor_id)
        if group not in self._by_group and len(self._by_group) >= GROUPS:
            self.counts.ungrouped += 1
            return OTHERS
        return group

    def _passed(self, group: str, news: AlertNews, source: IncidentSource) -> list[Incident]:
        """The group's clock goes on: what is due by it, but for what the news itself changes."""
        if group not in self._by_group:
            return []
        clock = self.state.clocks[group] = max(news.seen_at, self.state.clocks.get(group, news.seen_at))
        limit, own = self._rules.max_duration, self._of.get(news.alert_id)
        told = []
        for incident in list(self._by_group[group]):
            if limit is not None and clock - incident.detected_at > limit:
                told.append(self._close(incident, "max_duration", source))
            elif incident is not own and self._due(incident):
                told.append(self._tell(incident, "updated", source))
        return told

    def _due(self, incident: Open) -> bool:
        """Whether it has changed, and was not told of for long enough."""
        every = self._rules.update_every
        return incident.changed and every is not None and self._clock(incident) - incident.told_at >= every

    def _clock(self, incident: Open) -> int:
        return self.state.clocks.get(incident.group, incident.told_at)

    def _late(self, news: AlertNews) -> None:
        self.counts.duplicates += 1
        if news.event == "closed":
            self.state.past[news.alert_id] = True

    def _admit(self, group: str, news: AlertNews, source: IncidentSource) -> list[Incident]:
        """An episode that is not known."""
        if news.sequence:
            self.counts.gaps += 1
        if news.event == "closed":
            return []  # that it was open is not known to anybody, and that it is over is no news
        near = [one for one in self._by_group.get(group, ()) if abs(news.started_at - one.anchor) <= self._rules.within]
        if near:
            incident = min(near, key=lambda one: abs(news.started_at - one.anchor))
            self.counts.joined += 1
            self._join(incident, news)
            return self._say_what_changed(incident, news, source)
        if news.muted:
            self.counts.muted += 1
            return []
        incident = Open(
            incident_id(group, news.alert_id),
            group,
            anchor=news.started_at,
            detected_at=news.detected_at,
            severity=news.severity,
            sequence=0,
            told_at=news.seen_at,
            next_size=2,
            changed=False,
            members=[],
        )
        self.state.open.append(incident)
        self._by_group.setdefault(group, []).append(incident)
        self.state.clocks[group] = max(news.seen_at, self.state.clocks.get(group, news.seen_at))
        self._join(incident, news)
        told = [self._tell(incident, "opened", source)]
        return told if (why := incident.ended) is None else [*told, self._close(incident, why, source)]

    def _join(self, incident: Open, news: AlertNews) -> None:
        self._of[news.alert_id] = incident
        incident.changed = True
        incident.closed += _is_over(news)
        incident.expected += news.verdict == "expected"
        incident.members.append(_member(news))
        self._put_in_order(incident)
        if len(incident.members) > SHOWN:
            last = incident.members.pop()
            incident.counted[last.alert_id] = Counted(last.sequence, last.expected, last.closed)

    def _refresh(self, incident: Open, news: AlertNews, source: IncidentSource) -> list[Incident]:
        """Another message about a member."""
        known: Member | Counted | None = incident.counted.get(news.alert_id)
        shown = known is None
        if known is None:
            known = next(one for one in incident.members if one.alert_id == news.alert_id)
        if news.sequence <= known.sequence:
            self.counts.duplicates += 1
            return []
        if news.sequence > known.sequence + 1:
            self.counts.gaps += 1
        incident.closed += _is_over(news) - known.closed
        incident.expected += (news.verdict == "expected") - known.expected
        if shown:
            incident.members[incident.members.index(known)] = _member(news)  # type: ignore[arg-type]
            self._put_in_order(incident)
        else:
            incident.counted[news.alert_id] = Counted(news.sequence, news.verdict == "expected", _is_over(news))
        incident.changed = True
        return self._say_what_changed(incident, news, source)

    def _say_what_changed(self, incident: Open, news: AlertNews, source: IncidentSource) -> list[Incident]:
        rises = news.severity == "critical" and not news.muted and incident.severity != "critical"
        if rises:
            incident.severity = "critical"
        if (why := incident.ended) is not None:
            return [self._close(incident, why, source)]
        if rises or incident.size >= incident.next_size or self._due(incident):
            return [self._tell(incident, "updated", source)]
        return []

    def _put_in_order(self, incident: Open) -> None:
        incident.members.sort(key=lambda one: (one.muted, one.started_at, one.alert_id))

    def _close(self, incident: Open, why: IncidentEnd, source: IncidentSource) -> Incident:
        told = self._tell(incident, "closed", source, why)
        self.state.open.remove(incident)
        self._by_group[incident.group].remove(incident)
        if not self._by_group[incident.group]:
            del self._by_group[incident.group]
            self.state.clocks.pop(incident.group, None)
        past = self.state.past
        for one in incident.members:
            past[one.alert_id] = one.closed
        past |= {alert_id: one.closed for alert_id, one in incident.counted.items()}
        for alert_id in (*(one.alert_id for one in incident.members), *incident.counted):
            del self._of[alert_id]
        forget(past)
        return told

    def _tell(self, incident: Open, event: Event, source: IncidentSource, why: IncidentEnd | None = None) -> Incident:
        clock = self._clock(incident)
        ends = [one.ended_at for one in incident.members if one.ended_at is not None]
        told = Incident(
            incident_id=incident.incident_id,
            sequence=incident.sequence,
            event=event,
            close_reason=why,
            group=incident.group,
            title=title(incident.group, incident.members, incident.size),
            severity=incident.severity,
            started_at=rfc3339(incident.members[0].started_at),
            detected_at=rfc3339(incident.detected_at),
            ended_at=None if event != "closed" else rfc3339(max(ends, default=clock)),
            size=incident.size,
            members=[_shown(one) for one in incident.members],
            suspects=suspects(incident.members),
            source=source,
        )
        incident.sequence += 1
        incident.told_at = clock
        incident.changed = False
        while incident.next_size <= incident.size:
            incident.next_size *= 2
        return told


def _is_over(news: AlertNews) -> bool:
    return news.event == "closed"


def _member(news: AlertNews) -> Member:
    return Member(
        alert_id=news.alert_id,
        sequence=news.sequence,
        sensor_id=news.sensor_id,
        kind=news.kind,
        severity=news.severity,
        started_at=news.started_at,
        ended_at=news.ended_at,
        peak_score=news.peak_score,
        channel=news.channel,
        what=news.what,
        muted=news.muted,
        expected=news.verdict == "expected",
        closed=_is_over(news),
        error=news.error,
    )


def _shown(one: Member) -> IncidentMember:
    return IncidentMember(
        sensor_id=one.sensor_id,
        alert_id=one.alert_id,
        kind=one.kind,
        channel=one.channel,
        what=one.what,
        severity=one.severity,
        started_at=rfc3339(one.started_at),
        ended_at=None if one.ended_at is None else rfc3339(one.ended_at),
        peak_score=one.peak_score,
        muted=one.muted,
    )


def forget(past: dict[str, bool]) -> None:
    """Keep the newest of the episodes that are over, and this many of those that may still speak."""
    over = [alert_id for alert_id, closed in past.items() if closed]
    for alert_id in over[: max(0, len(over) - CLOSED_KEPT)]:
        del past[alert_id]
    for alert_id in list(past)[: max(0, len(past) - PAST_KEPT)]:
        del past[alert_id]
