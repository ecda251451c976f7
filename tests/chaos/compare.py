"""Whether alerts that went through faults are those of a run without any."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec


class Key(NamedTuple):
    """What subscribers tell alerts apart by."""

    alert_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`changed`: the fields that differ. `misordered`: sensors whose alerts come in another order."""

    missing: list[Key] = field(default_factory=list)
    unexpected: list[Key] = field(default_factory=list)
    doubled: list[Key] = field(default_factory=list)
    changed: dict[Key, list[str]] = field(default_factory=dict)
    misordered: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.doubled or self.changed or self.misordered)

    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {name: len(getattr(self, name)) for name in self.__slots__}

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "doubled": self.doubled,
            "changed": [{"key": key, "fields": fields} for key, fields in self.changed.items()],
            "misordered": self.misordered,
        }


def compare_alerts(expected: Sequence[bytes], actual: Sequence[bytes]) -> Difference:
    """Compare alert messages, each list in the order of its topic; only a sensor's own alerts have an order."""
    wanted = [_parsed(value) for value in expected]
    found = [_parsed(value) for value in actual]
    wanted_by_key = dict(wanted)
    counts = Counter(key for key, _ in found)
    found_by_key = dict(reversed(found))  # the first of its key
    if len(wanted_by_key) < len(wanted):
        raise ValueError("the uninterrupted run itself repeats an alert")
    changed = {
        key: _differing(alert, found_by_key[key])
        for key, alert in wanted_by_key.items()
        if key in found_by_key and found_by_key[key] != alert
    }
    common = wanted_by_key.keys() & found_by_key.keys()
    in_order = _by_sensor((key, alert) for key, alert in wanted if key in common)
    as_found = _by_sensor((key, wanted_by_key[key]) for key in dict.fromkeys(key for key, _ in found if key in common))
    return Difference(
        missing=[key for key in wanted_by_key if key not in counts],
        unexpected=[key for key in counts if key not in wanted_by_key],
        doubled=[key for key, count in counts.items() if count > 1],
        changed=changed,
        misordered=[sensor for sensor, keys in in_order.items() if as_found[sensor] != keys],
    )


def compare_counts(expected: Iterable[Any], actual: Iterable[Any]) -> dict[str, int]:
    """Multisets, for records without an order: how many are missing, and how many too many."""
    wanted, found = Counter(expected), Counter(actual)
    return {"missing": (wanted - found).total(), "too many": (found - wanted).total()}


def _parsed(value: bytes) -> tuple[Key, dict[str, Any]]:
    alert = msgspec.json.decode(value, type=dict[str, Any])
    return Key(alert["alert_id"], alert["sequence"]), alert


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _by_sensor(alerts: Iterable[tuple[Key, dict[str, Any]]]) -> dict[str, list[Key]]:
    sensors: dict[str, list[Key]] = defaultdict(list)
    for key, alert in alerts:
        sensors[alert["sensor_id"]].append(key)
    return sensors
