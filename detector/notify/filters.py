"""Which incidents a target wants to know of."""

from __future__ import annotations

from fnmatch import fnmatchcase

from detector.config.load import TargetConfig
from detector.wire.incidents import Incident


def passes(target: TargetConfig, incident: Incident) -> bool:
    """Whether severity, names and kinds are what the target asks for."""
    if target.severity == "critical" and incident.severity != "critical":
        return False
    names = [incident.group, *(member.sensor_id for member in incident.members)]
    if not any(fnmatchcase(name, pattern) for pattern in target.match for name in names):
        return False
    if target.kinds is None:
        return True
    kinds: set[str] = {member.kind for member in incident.members}
    kinds |= {member.what.kind for member in incident.members if member.what is not None}
    return not kinds.isdisjoint(target.kinds)
