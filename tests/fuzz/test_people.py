"""No record of the alerts or the incidents can end `incidents` or `notify`: it is taken, or becomes a dead letter."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.incidents.history import History
from detector.incidents.rebuilding import rebuilt
from detector.incidents.state import Keeper
from detector.service.health import Health
from detector.service.web.past import past_routes
from detector.streams.base import Partition
from detector.streams.memory import MemoryStreams
from detector.wire.incidents import decode_incident, read_alert
from detector.wire.verdicts import decode_acknowledgement
from tests.fuzz.budget import examples
from tests.fuzz.test_wire import documents, mutated, mutations, written
from tests.incidents.made import encoded
from tests.notify.made import Clock, target
from tests.notify.made import value as incident_value
from tests.service.test_incidents import follower as incident_follower
from tests.service.test_telling import Target
from tests.service.test_telling import follower as notify_follower

ALERT = json.loads(encoded("p-1", 0, "closed", what={"kind": "stuck", "text": "holds 3"}, verdict="real"))
INCIDENT = json.loads(incident_value("one", "closed"))
DEEP = "DEEP"
"""Stands for lists in lists, which Python does not write."""

absurd = st.sampled_from(
    [
        10**30, 2**63, 2**64, 2**53, -(10**30), -1, 10**400, 1e308, -1e308, 5e-324, 0.5, True, None, "", DEEP, [], {},
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60Z", "2262-04-12T00:00:00Z", "1999-12-31T23:59:59Z", "x" * 5000,
        "a\x00\nb", "ä\u2028", "\ud800", [10**20], [None], [1e308, -1e308], {"a": 10**30}, {"a": [1e308]},
    ]
)  # fmt: skip


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a document; of a list the first and the last."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index in {0, len(value) - 1}:
            yield from paths(value[index], (*path, index))


def changed(document: Any, changes: list[tuple[tuple[str | int, ...], Any]]) -> bytes:
    found = copy.deepcopy(document)
    for path, value in changes:
        inner = found
        try:
            for part in path[:-1]:
                inner = inner[part]
            inner[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return written(found).replace(f'"{DEEP}"'.encode(), b"[" * 20_000 + b"]" * 20_000)


def like(document: Any) -> st.SearchStrategy[bytes]:
    """Records that are nearly the document, or nothing like it."""
    places = st.sampled_from([*paths(document), ("unknown",)])
    nearly = st.lists(st.tuples(places, absurd | documents), min_size=1, max_size=3).map(
        lambda changes: changed(document, changes)
    )
    broken = st.builds(mutated, st.just(written(document)), mutations)
    return nearly | broken | documents.map(written) | st.binary(max_size=20)


def each(document: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """Every number of a document with one that no state could hold, and every time with one that none could."""
    found: list[tuple[tuple[str | int, ...], Any]] = []
    for path in paths(document):
        value = document
        for part in path:
            value = value[part]
        if isinstance(value, int | float) and not isinstance(value, bool):
            found += [(path, 10**30), (path, 2**64), (path, -(10**30))]
        if path[-1] in ("started_at", "detected_at", "ended_at"):
            found += [(path, "0001-01-01T00:00:00+14:00"), (path, "9999-12-31T23:59:59Z"), (path, "x")]
    return found


def tell(records: list[bytes]) -> None:
    """Alerts through `incidents` and its pages, among alerts that are good."""
    streams = MemoryStreams({"anomaly-alerts": [[*records, encoded("p-2", 4), *records]]})
    made, metrics = incident_follower(streams)
    made.run()
    history = History()
    pages = past_routes(history, Health())
    for record in records:
        try:
            news = read_alert(record)
        except ValueError:
            continue
        history.alert(news)
        assert pages["/alerts/"](news.alert_id).status == 200
        assert pages["/sensors/"](news.sensor_id).status == 200
    for incident in (decode_incident(message.value) for message in streams.read("anomaly-incidents")):
        history.incident(incident)
    assert pages["/"]("").status == 200
    assert metrics.registry.get_sample_value("detector_incident_alerts_total", {"outcome": "taken"})


def notify(records: list[bytes]) -> None:
    """Incidents through `notify` to both kinds of target, and through what makes a lost state again."""
    for kind in ("webhook", "alertmanager"):
        streams = MemoryStreams({"anomaly-incidents": [[*records, incident_value("good"), *records]]})
        found = Target()
        made, _ = notify_follower(streams, found, Clock(), until_end=True, config=target(kind=kind))
        made.run()
        assert any(b"good" in request.body for request in found.requests)
        for request in found.requests:
            assert all(value.isascii() and value.isprintable() for value in request.headers.values())
    for record in records:
        try:
            incident = decode_incident(record)
        except ValueError:
            continue
        state, told = rebuilt([incident])
        state.told = {f"{of.stream}:{of.number}": offset for of, offset in told.items()}
        Keeper(state).pack(Partition("anomaly-alerts", 0))


@pytest.mark.parametrize("event", ["opened", "closed"])
def test_no_number_and_no_time_of_an_alert_is_too_much(event: str) -> None:
    for change in each(ALERT):
        tell([changed({**ALERT, "event": event}, [change])])


@pytest.mark.parametrize("event", ["opened", "closed"])
def test_no_number_and_no_time_of_an_incident_is_too_much(event: str) -> None:
    for change in each(INCIDENT):
        notify([changed({**INCIDENT, "event": event}, [change])])


@examples(150)
@example([changed(ALERT, [(("unknown",), DEEP)])])
@example([changed(ALERT, [(("event",), "x" * 900_000)])])
@given(st.lists(like(ALERT), min_size=1, max_size=3))
def test_alerts(records: list[bytes]) -> None:
    tell(records)


@examples(100)
@example([changed(INCIDENT, [(("unknown",), DEEP)])])
@example([changed(INCIDENT, [(("incident_id",), "a\nb")])])
@given(st.lists(like(INCIDENT), min_size=1, max_size=3))
def test_incidents(records: list[bytes]) -> None:
    notify(records)


@examples(100)
@given(
    like(
        {
            "schema": 1, "alert_id": "a", "sensor_id": "p", "is": "real", "by": "Ann", "note": None,
            "source": {"stream": "s", "partition": 0, "offset": 1},
        }
    )
)  # fmt: skip
def test_acknowledgements(record: bytes) -> None:
    history = History()
    try:
        said = decode_acknowledgement(record)
    except ValueError:
        return
    history.verdict(said.alert_id, said.word)


def test_the_message_of_a_dead_letter_stays_short() -> None:
    streams = MemoryStreams({"anomaly-alerts": [[changed(ALERT, [(("event",), "x" * 900_000)])]]})
    made, _ = incident_follower(streams)
    made.run()
    (dead,) = streams.read("dead")
    assert len(dict(dead.headers)["detector.message"]) < 500
