"""What is said of an incident: its title, and who was seen first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from detector.incidents.groups import ALL
from detector.incidents.state import Member
from detector.times import SECOND, rfc3339
from detector.wire.incidents import Suspect

SUSPECTS: Final = 5
"""As many are named, at most."""
_SHOWN: Final = 80
"""Characters of a name in a title."""
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def title(group: str, members: Sequence[Member], size: int) -> str:
    """The incident in one line: `line 2: 14 sensors, first pressure-03 (stuck), 10:02`; UTC."""
    first = members[0]
    kind = "" if first.what is None else f" ({first.what.kind})"
    who = f"{_cut(first.sensor_id)}{kind}"
    if size > 1:
        sensors = len({member.sensor_id for member in members}) if size == len(members) else size
        who = f"{sensors} sensors, first {who}" if sensors > 1 else f"{who}, {size} episodes"
    place = "" if group == ALL else f"{_cut(group)}: "
    return f"{place}{who}, {rfc3339(first.started_at)[11:16]}"


def suspects(members: Sequence[Member]) -> list[Suspect]:
    """Who was seen first, and all who cannot be told from it; `members` in the order of their onsets.

    Episodes of a maintenance window are no suspects while there are others.
    """
    known = [member for member in members if not member.muted] or list(members)
    first = known[0]
    tied = [one for one in known if one.started_at - first.started_at <= max(one.error, first.error)]
    found = []
    for one in tied[:SUSPECTS]:
        at = f"seen first, at {rfc3339(one.started_at - one.started_at % SECOND)[11:19]} UTC"
        if len(tied) > 1:
            error = max(max(one.error, first.error) for one in tied)
            why = f"{at}, with {_others(len(tied) - 1)}: which of them was first cannot be told within {span(error)}"
        elif len(known) > 1:
            why = f"{at}, {span(known[1].started_at - first.started_at)} before any other"
        else:
            why = f"{at}; no other was seen"
        found.append(Suspect(sensor_id=one.sensor_id, channel=one.channel, why=why))
    return found


def span(ns: int) -> str:
    """A length of time in the largest unit that it fills.

    >>> span(90_000_000_000), span(40_000_000_000), span(500_000_000)
    ('1.5 min', '40 s', '0.5 s')
    """
    seconds = ns / SECOND
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def _others(number: int) -> str:
    return "1 other" if number == 1 else f"{number} others"


def _cut(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
