from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from detector.config.load import IncidentsConfig
from detector.incidents.book import Book, Rules
from detector.incidents.groups import Groups
from detector.wire.incidents import IncidentSource, encode_incident, read_alert
from tests.chaos.told import wrong_incidents
from tests.incidents.made import encoded

GROUPS = Groups(["{line}/*"])
ALERTS = [
    *(encoded(f"{line}/p-{i}", float(i), "opened", seen=10) for line in "ab" for i in range(3)),
    *(encoded(f"a/p-{i}", float(i), "closed", seen=40) for i in range(3)),
]


def told() -> list[bytes]:
    config = IncidentsConfig()
    book = Book(Rules(GROUPS.of, config.within, config.update_every, config.max_duration))
    return [
        encode_incident(one)
        for offset, value in enumerate(ALERTS)
        for one in book.take(read_alert(value), IncidentSource(stream="alerts", partition=0, offset=offset))
    ]


def wrong(incidents: list[bytes], alerts: list[bytes] = ALERTS) -> set[str]:
    return {what for what, count in wrong_incidents(alerts, incidents, GROUPS.of).items() if count}


def test_what_incidents_tells_is_right() -> None:
    assert wrong(told()) == set()
    assert {msgspec.json.decode(one)["event"] for one in told()} == {"opened", "updated", "closed"}


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda one: [*one, one[0]], "not opened once"),
        (lambda one: [*one, *(value for value in one if b'"closed"' in value)], "closed twice"),
        (lambda one: one[:1] + one[2:], "with a gap or out of order"),
        (lambda one: [value for value in one if b'"event":"closed"' not in value], "open with everything over"),
        (lambda one: [value for value in one if b'"group":"a"' not in value], "episodes in none"),
        (lambda one: [*one, _renamed(one)], "episodes in two"),
    ],
)
def test_what_is_wrong_is_found(spoil: Callable[[list[bytes]], list[bytes]], what: str) -> None:
    assert what in wrong(spoil(told()))


def test_an_episode_of_no_alert_is_found() -> None:
    assert "episodes of no alert" in wrong(told(), ALERTS[1:3] + ALERTS[4:])


def _renamed(messages: list[bytes]) -> bytes:
    first = msgspec.json.decode(messages[0])
    return msgspec.json.encode(first | {"incident_id": "00000000-0000-5000-8000-000000000000"})
