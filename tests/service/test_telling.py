"""A target in the loop: what is delivered, and how often, over failures and kills."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from detector.config.load import TargetConfig
from detector.notify.outbox import Outbox, Patience
from detector.notify.requests import Request
from detector.notify.sending import Answer
from detector.service.follower import Follower
from detector.service.health import Health
from detector.service.peoplemetrics import NotifyMetrics
from detector.service.telling import HELD_BACK, NotifyWork, form_of, undelivered_line
from detector.streams.base import Assigned, Partition
from detector.streams.memory import MemoryStreams
from tests.notify.made import NOW, Clock, incident, target, value
from tests.service.test_incidents import KillError

INCIDENTS = [
    value("one"), value("two"), value("one", "updated"), b"{}", value("two", "closed"), value("three"),
    value("one", "closed"),
]  # fmt: skip
DELIVERED, FAILED, REFUSED = Answer("delivered"), Answer("failed", "HTTP 500"), Answer("refused", "HTTP 404")


class Target:
    """A target that takes what `answer` says, and knows what it got."""

    def __init__(self, answer: Callable[[int], Answer] = lambda _: DELIVERED) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.taken: list[str] = []

    def send(self, request: Request) -> Answer:
        self.requests.append(request)
        answer = self.answer(len(self.requests) - 1)
        if answer is DELIVERED:
            self.taken.append(request.headers.get("Idempotency-Key", "") or request.body.decode())
        return answer


def follower(
    streams: MemoryStreams,
    sender: Target,
    clock: Clock,
    *,
    turns: int = 500,
    kill: Sequence[int] = (),
    until_end: bool = False,
    config: TargetConfig | None = None,
) -> tuple[Follower, NotifyMetrics]:
    """One that runs for some turns, 1 s each, and dies in some."""
    config = target() if config is None else config
    counted = iter(range(10_000))

    def stop() -> bool:
        turn = next(counted)
        clock.now += 1
        if turn in kill:
            raise KillError
        return turn >= turns

    metrics = NotifyMetrics(CollectorRegistry(), [config.name])
    work = NotifyWork(
        config, settle=10.0, form=form_of(config), sender=sender, dead_letters="dead", metrics=metrics,
        wall=clock, jitter=lambda: 0.5,
    )  # fmt: skip
    made = Follower(streams, work, name="notify", health=Health(), stop=stop, until_end=until_end)
    return made, metrics


def run(sender: Target, *, values: Sequence[bytes] = INCIDENTS, **options: Any) -> tuple[MemoryStreams, NotifyMetrics]:
    streams = MemoryStreams({"anomaly-incidents": [list(values)]})
    made, metrics = follower(streams, sender, options.pop("clock", None) or Clock(), **options)
    made.run()
    return streams, metrics


def sample(metrics: NotifyMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"target": "ops", **labels})


def test_what_is_there_at_once_is_told_of_once_with_its_newest_content() -> None:
    sender = Target()
    streams, metrics = run(sender)
    assert sorted(sender.taken) == ["one-2", "three-0", "two-2"]
    assert sample(metrics, "detector_notifications_total", outcome="delivered") == 3
    assert sample(metrics, "detector_notify_pending") == 0
    (dead,) = streams.read("dead")
    assert json.loads(undelivered_line(dead))["reason"] == "malformed"


def test_a_target_that_fails_is_tried_until_it_takes_it() -> None:
    sender = Target(lambda number: DELIVERED if number >= 5 else FAILED)
    _, metrics = run(sender, values=[value("one")])
    assert sender.taken == ["one-0"]
    assert len({request.headers["Idempotency-Key"] for request in sender.requests}) == 1
    assert sample(metrics, "detector_notifications_total", outcome="retried") == 5


def test_what_it_does_not_take_for_too_long_is_a_dead_letter() -> None:
    sender = Target(lambda _: FAILED)
    clock = Clock()
    streams, metrics = run(
        sender, values=[value("one")], turns=400, clock=clock, config=target(give_up_after=300 * 1_000_000_000)
    )
    (dead,) = streams.read("dead")
    line = json.loads(undelivered_line(dead))
    assert (line["target"], line["reason"], line["message"]) == ("ops", "given_up", "HTTP 500")
    assert line["incident"]["incident_id"] == "one"
    assert sample(metrics, "detector_notifications_total", outcome="given_up") == 1


def test_while_it_fails_the_metrics_say_for_how_long() -> None:
    _, metrics = run(Target(lambda _: FAILED), values=[value("one")], turns=200)
    undelivered = sample(metrics, "detector_notify_undelivered_seconds")
    assert undelivered is not None
    assert 150 < undelivered < 200
    assert sample(metrics, "detector_notify_pending") == 1


def test_what_it_refuses_is_not_tried_again() -> None:
    sender = Target(lambda number: REFUSED if number == 0 else DELIVERED)
    streams, _ = run(sender, values=[value("one"), value("two")])
    assert sender.taken == ["two-0"]
    assert len(sender.requests) == 2
    assert dict(streams.read("dead")[0].headers)["detector.reason"] == b"refused"


@pytest.mark.parametrize("seed", range(6))
def test_over_kills_everything_is_delivered_and_little_of_it_twice(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    clock, kills = Clock(), 15
    sender = Target(lambda _: DELIVERED if chance.random() < 0.6 else FAILED)
    streams = MemoryStreams({"anomaly-incidents": [INCIDENTS]}, 2, durable_every=chance.randrange(1, 3))
    for _ in range(kills):
        try:
            follower(streams, sender, clock, kill=[chance.randrange(1, 40)])[0].run()
        except KillError:
            continue
    follower(streams, sender, clock)[0].run()
    keys = Counter(sender.taken)
    assert {"one-2", "two-2", "three-0"} <= keys.keys()
    assert keys.total() - len(keys) <= kills
    assert streams.lag() == {("anomaly-incidents", 0): 0}


def test_after_a_kill_what_was_delivered_and_committed_is_not_told_again() -> None:
    clock, sender = Clock(), Target()
    streams = MemoryStreams({"anomaly-incidents": [[value("one")]]})
    with pytest.raises(KillError):
        follower(streams, sender, clock, kill=[40])[0].run()
    follower(streams, sender, clock)[0].run()
    assert sender.taken == ["one-0"]


def test_a_target_that_is_down_for_long_holds_no_position_back_for_ever() -> None:
    clock, sender = Clock(), Target(lambda _: FAILED)
    values = [value("one", "updated", sequence) for sequence in range(HELD_BACK + 2)]
    streams = MemoryStreams({"anomaly-incidents": [values]})
    with pytest.raises(KillError):
        follower(streams, sender, clock, kill=[40])[0].run()
    sender.answer = lambda _: DELIVERED
    streams.reopen()
    assert streams.lag() == {("anomaly-incidents", 0): 0}
    follower(streams, sender, clock)[0].run()
    assert sender.taken == [f"one-{HELD_BACK + 1}"]


def test_an_alertmanager_is_told_every_minute_of_what_is_open_also_after_a_restart() -> None:
    clock, sender = Clock(), Target()
    config = target(kind="alertmanager")
    streams = MemoryStreams({"anomaly-incidents": [[value("one"), value("two"), value("two", "closed")]]})
    follower(streams, sender, clock, turns=200, config=config)[0].run()
    counted = len(sender.requests)
    assert counted == 2 + 3  # one and two, and one again at three full minutes
    ends = [alert["endsAt"] for request in sender.requests for alert in json.loads(request.body)]
    assert len(set(ends)) == len(ends)
    clock.now += 3600
    follower(streams, sender, clock, turns=5, config=config)[0].run()
    (again,) = json.loads(sender.requests[counted].body)
    assert again["labels"]["incident_id"] == "one"


def test_an_alertmanager_that_is_away_is_told_as_soon_as_it_is_back() -> None:
    clock = Clock()
    sender = Target(lambda number: FAILED if 1 <= number < 8 else DELIVERED)
    streams = MemoryStreams({"anomaly-incidents": [[value("one")]]})
    follower(streams, sender, clock, turns=400, config=target(kind="alertmanager"))[0].run()
    assert len(sender.taken) >= 3
    assert streams.read("dead") == []


def test_at_the_end_nothing_is_waited_for_but_a_target_that_fails_gets_three_chances() -> None:
    sender = Target()
    run(sender, values=[value("one")], until_end=True, turns=20)
    assert sender.taken == ["one-0"]
    failing = Target(lambda _: FAILED)
    run(failing, values=[value("one")], until_end=True, turns=100)
    assert len(failing.requests) == 3


def test_a_filtered_incident_is_none_of_its_business() -> None:
    sender = Target()
    run(sender, config=target(severity="critical"))
    assert sender.requests == []
    assert incident().severity == "warning"


@pytest.mark.parametrize("kind", ["webhook", "alertmanager"])
def test_what_a_version_before_took_and_this_one_does_not_read_becomes_a_dead_letter(kind: str) -> None:
    one = Partition("anomaly-incidents", 0)
    box = Outbox(Patience(0.0, 3600.0))
    box.put(value("one"), NOW)
    box.put(value("two"), NOW)
    box.entries["one"].value = value("one", started_at="1970-01-01T00:00:00Z")
    clock, found, config = Clock(), Target(), target(kind=kind)
    work = NotifyWork(
        config, settle=0.0, form=form_of(config), sender=found, dead_letters="dead",
        metrics=NotifyMetrics(CollectorRegistry(), [config.name]), wall=clock,
    )  # fmt: skip
    work.begin({one: Assigned(one, 2, msgspec.msgpack.encode((1, box.pack())))})
    dead = [message for _ in range(3) for message in work.turn(ending=False)]
    assert [message.key for message in dead] == [b"one"]
    assert dict(dead[0].headers)["detector.reason"] == b"refused"
    clock.now += 120
    work.turn(ending=False)
    assert all(b"two" in request.body for request in found.requests)
