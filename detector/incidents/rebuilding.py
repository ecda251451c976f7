"""A state that was lost, made again from the incidents that were published: nothing is run again.

What the messages do not say is lost: how members beyond those listed go on, and verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable

from detector.incidents.book import forget
from detector.incidents.state import Counted, Member, Open, State
from detector.streams.base import Partition
from detector.times import parse_time
from detector.wire.incidents import Incident, IncidentMember

_UNKNOWN = -1
"""The sequence of a member whose last message is not known: any that comes is newer."""


def rebuilt(incidents: Iterable[Incident]) -> tuple[State, dict[Partition, int]]:
    """The state behind the messages, in the order in which they were published.

    With it of each partition the offset up to which alerts have led to messages: those count no more.
    """
    state = State()
    opened: dict[str, Open] = {}
    told: dict[Partition, int] = {}
    for incident in incidents:
        source = Partition(incident.source.stream, incident.source.partition)
        told[source] = max(incident.source.offset, told.get(source, incident.source.offset))
        known = opened.pop(incident.incident_id, None)
        if incident.event == "closed":
            # Whoever was open then may still speak.
            state.past |= {one.alert_id: one.ended_at is not None for one in incident.members}
        else:
            opened[incident.incident_id] = _open(incident, known)
    state.open = sorted(opened.values(), key=lambda one: one.detected_at)
    for one in state.open:
        state.clocks[one.group] = max(one.told_at, state.clocks.get(one.group, one.told_at))
    forget(state.past)
    return state, told


def _open(incident: Incident, known: Open | None) -> Open:
    started, detected = parse_time(incident.started_at), parse_time(incident.detected_at)
    members = [_member(one) for one in incident.members]
    ends = [one.ended_at for one in members if one.ended_at is not None]
    size = 2
    while size <= incident.size:
        size *= 2
    unlisted = incident.size - len(members)
    return Open(
        incident.incident_id,
        incident.group,
        anchor=started if known is None else known.anchor,
        detected_at=detected,
        severity=incident.severity,
        sequence=incident.sequence + 1,
        told_at=max([detected, started, *ends]),
        next_size=size,
        changed=False,
        members=members,
        counted={f"not listed {number}": Counted(_UNKNOWN, False, True) for number in range(unlisted)},
        closed=unlisted + sum(one.closed for one in members),
    )


def _member(one: IncidentMember) -> Member:
    return Member(
        one.alert_id,
        _UNKNOWN,
        one.sensor_id,
        one.kind,
        one.severity,
        started_at=parse_time(one.started_at),
        ended_at=None if one.ended_at is None else parse_time(one.ended_at),
        peak_score=one.peak_score,
        channel=one.channel,
        what=one.what,
        muted=one.muted,
        expected=False,
        closed=one.ended_at is not None,
        error=0,
    )
