"""Whether incidents that went through faults tell what the alerts say, each once.

Alerts of different partitions come in any order, and with it which incident an episode joins may change. What has to
hold in any order: each incident is opened once, closed at most once and counts without a gap; each episode that is not
muted belongs to one incident; nothing belongs to one that no alert speaks of; an incident is closed when all is over.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from detector.wire.incidents import AlertNews, Incident, decode_incident, read_alert


def wrong_incidents(
    alerts: Sequence[bytes], incidents: Sequence[bytes], group_of: Callable[[str], str]
) -> dict[str, int]:
    """How many incidents or episodes break each rule. Both are messages in the order of their topic."""
    episodes: dict[str, list[AlertNews]] = defaultdict(list)
    for value in alerts:
        news = read_alert(value)
        episodes[news.alert_id].append(news)
    told: dict[str, list[Incident]] = defaultdict(list)
    for value in incidents:
        incident = decode_incident(value)
        told[incident.incident_id].append(incident)
    member_of: dict[str, set[str]] = defaultdict(set)
    for incident_id, messages in told.items():
        for message in messages:
            for member in message.members:
                member_of[member.alert_id].add(incident_id)
    still_open = [messages[-1] for messages in told.values() if messages[-1].event != "closed"]
    # Of an incident that is open not every member has been told yet.
    not_yet = {incident.group for incident in still_open}
    wanted = {
        alert_id: group_of(messages[0].sensor_id)
        for alert_id, messages in episodes.items()
        if any(one.event != "closed" and not one.muted for one in messages)
    }
    open_groups = {group_of(messages[0].sensor_id) for messages in episodes.values() if messages[-1].event != "closed"}
    return {
        "not opened once": sum(_events(messages)["opened"] != 1 for messages in told.values()),
        "closed twice": sum(_events(messages)["closed"] > 1 for messages in told.values()),
        "with a gap or out of order": sum(
            [one.sequence for one in messages] != list(range(len(messages))) for messages in told.values()
        ),
        "told after the end": sum("closed" in [one.event for one in messages[:-1]] for messages in told.values()),
        "open with everything over": sum(one.group not in open_groups for one in still_open),
        "episodes in none": sum(
            alert_id not in member_of and group not in not_yet for alert_id, group in wanted.items()
        ),
        "episodes in two": sum(len(found) > 1 for found in member_of.values()),
        "episodes of no alert": len(member_of.keys() - episodes.keys()),
    }


def _events(messages: Sequence[Incident]) -> Counter[str]:
    return Counter(one.event for one in messages)
