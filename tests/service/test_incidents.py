"""Alerts to incidents in the loop: state, positions and messages belong to one commit."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import IncidentsConfig
from detector.errors import UserError
from detector.incidents.state import State
from detector.service.follower import Follower
from detector.service.health import Health
from detector.service.incidents import IncidentWork
from detector.service.peoplemetrics import IncidentMetrics
from detector.streams.base import Message, Partition, Record
from detector.streams.memory import MemoryStreams
from detector.wire.incidents import Incident, decode_incident
from tests.incidents.made import encoded, told

ALERTS = [
    encoded("p-1", 0), encoded("p-2", 4), encoded("p-3", 9, muted=True), b"{}", encoded("p-4", 500),
    encoded("p-1", 0, "updated", seen=90), encoded("p-2", 4, "updated", severity="critical"), encoded("p-1", 0),
    encoded("p-4", 500, "closed", seen=600), encoded("p-2", 4, "closed"), encoded("p-1", 0, "closed"),
    encoded("p-3", 9, "closed"), encoded("p-5", 20),
]  # fmt: skip


class KillError(Exception):
    """The process dies here."""


def follower(
    streams: MemoryStreams, stop: Sequence[int] = (), *, published: Sequence[Incident] = ()
) -> tuple[Follower, IncidentMetrics]:
    """One that reads to the end; it dies in the turns that `stop` counts."""
    turns = iter(range(10_000))

    def stopping() -> bool:
        if next(turns) in stop:
            raise KillError
        return False

    metrics = IncidentMetrics(CollectorRegistry())
    work = IncidentWork(IncidentsConfig(), dead_letters="dead", metrics=metrics, published=lambda: list(published))
    made = Follower(streams, work, name="incidents", health=Health(), stop=stopping, until_end=True)
    return made, metrics


def out(streams: MemoryStreams) -> list[bytes]:
    return [message.value for message in streams.read("anomaly-incidents")]


def incidents(streams: MemoryStreams) -> list[Incident]:
    return [decode_incident(value) for value in out(streams)]


def whole() -> list[bytes]:
    streams = MemoryStreams({"anomaly-alerts": [ALERTS]})
    follower(streams)[0].run()
    return out(streams)


def test_alerts_become_incidents_and_what_is_none_a_dead_letter() -> None:
    streams = MemoryStreams({"anomaly-alerts": [ALERTS]})
    made, metrics = follower(streams)
    made.run()
    found = incidents(streams)
    assert told(found)[:4] == [("opened", 0, 1), ("updated", 1, 2), ("updated", 2, 3), ("opened", 0, 1)]
    assert [one.event for one in found].count("closed") == 2
    assert [one.source.offset for one in found][:2] == [0, 1]
    (dead,) = streams.read("dead")
    assert dict(dead.headers)["detector.reason"] == b"malformed"
    assert metrics.registry.get_sample_value("detector_incident_alerts_total", {"outcome": "rejected"}) == 1
    assert metrics.registry.get_sample_value("detector_incident_alerts_total", {"outcome": "duplicate"}) == 1
    assert metrics.registry.get_sample_value("detector_open_incidents") == 1


@pytest.mark.parametrize("seed", range(5))
def test_kills_and_batches_change_no_byte(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    streams = MemoryStreams({"anomaly-alerts": [ALERTS]}, chance.randrange(1, 5), durable_every=chance.randrange(1, 4))
    for _ in range(30):
        try:
            follower(streams, stop=[chance.randrange(1, 6)])[0].run()
        except KillError:
            continue
    follower(streams)[0].run()
    assert out(streams) == whole()


def test_over_several_partitions_each_incident_opens_once_and_closes_once() -> None:
    sensors = [f"p-{number:02}" for number in range(12)]
    parts = [
        [
            encoded(sensor, at, event)
            for event in ("opened", "closed")
            for at, sensor in enumerate(sensors)
            if at % 3 == part
        ]
        for part in range(3)
    ]
    for seed in range(8):
        chance = random.Random(seed)  # noqa: S311
        streams = MemoryStreams({"anomaly-alerts": parts}, 1 + seed % 3)
        for _ in range(20):
            try:
                follower(streams, stop=[chance.randrange(2, 6)])[0].run()
            except KillError:
                continue
        follower(streams)[0].run()
        events: dict[str, list[str]] = {}
        for one in incidents(streams):
            events.setdefault(one.incident_id, []).append(one.event)
        assert all(found[0] == "opened" and found.count("opened") == 1 for found in events.values())
        assert all(found[-1] == "closed" and found.count("closed") == 1 for found in events.values())
        assert sum(one.size for one in incidents(streams) if one.event == "closed") == 12


def test_a_lost_state_is_made_again_and_nothing_is_told_twice() -> None:
    streams = MemoryStreams({"anomaly-alerts": [ALERTS]}, 1)
    with pytest.raises(KillError):
        follower(streams, stop=[7])[0].run()
    before = incidents(streams)
    again = MemoryStreams({"anomaly-alerts": [ALERTS]}, 3)  # knows no position and no state
    follower(again, published=before)[0].run()
    keys = [(one.incident_id, one.sequence) for one in [*before, *incidents(again)]]
    assert len(set(keys)) == len(keys)
    assert [one.event for one in [*before, *incidents(again)]].count("opened") == 3


def test_a_state_of_another_format_stops_it() -> None:
    streams = MemoryStreams({"anomaly-alerts": [ALERTS]})
    partition = Partition("anomaly-alerts", 0)
    streams.open()
    streams.poll(0)
    streams.commit({partition: 0}, lambda _: msgspec.msgpack.encode({"version": 1, "whole": State(format=9)}))
    with pytest.raises(UserError, match="format 9"):
        follower(streams)[0].run()


def test_an_alert_that_nobody_foresaw_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("never thought of")

    monkeypatch.setattr("detector.incidents.book.title", broken)
    streams = MemoryStreams({"anomaly-alerts": [[encoded("p-1", 0)]]})
    follower(streams)[0].run()
    assert out(streams) == []
    assert dict(streams.read("dead")[0].headers)["detector.reason"] == b"internal"


def test_messages_are_keyed_by_the_group() -> None:
    streams = MemoryStreams({"anomaly-alerts": [[Record(0, None, encoded("p-1", 0))]]})
    follower(streams)[0].run()
    assert streams.read("anomaly-incidents") == [Message("anomaly-incidents", b"all", out(streams)[0])]
