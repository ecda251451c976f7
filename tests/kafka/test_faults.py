"""Members that come, go and fight; state that is gone; records that cannot be read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from kafka.admin import MemberToRemove
from kafka.errors import RetriableError

from detector.engine.scorestream import ScoreStream
from detector.errors import OperationError, UserError
from detector.streams.base import Assigned, Batch, Event, Message, Partition, Revoked
from detector.streams.kafka.streams import KafkaStreams
from tests.kafka.broker import Broker, Cluster
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.worker import (
    CrashError,
    Worker,
    config_of,
    crash_after,
    published,
    reference,
    scores_of,
    scores_reference,
    small_slices,
    values_of,
)

HANG_SECONDS = 25.0
"""Longer than the limits of the calls of one commit, and of the first attempts to connect again."""
FRESH: dict[str, Any] = {"state": {"snapshot_interval": 3600 * 10**9}, "options": {"max_records": 200}}
ROLLING: dict[str, Any] = {"state": {"snapshot_interval": 2 * 10**9}, "options": {"max_records": 200}}


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka)
    with small_slices():
        yield plant
    plant.close()


class Running:
    """A worker in a thread of its own."""

    def __init__(self, plant: Plant, instance: str, *, scores: str | None = None, **more: Any) -> None:
        self.streams = plant.streams(instance=instance, **(ROLLING | more))
        self._stop = threading.Event()
        stream = None if scores is None else ScoreStream(scores, config_of().channels)
        self.worker = Worker(plant, self.streams, self._stop.is_set, until_end=False, scores=stream)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=instance)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.1)


def committed(plant: Plant) -> dict[int, int]:
    try:
        with plant.cluster.admin() as admin:
            offsets = admin.list_group_offsets({plant.group: None})[plant.group]
    except RetriableError:
        return {}
    return {tp.partition: found.offset for tp, found in offsets.items()}


def until_assigned(streams: KafkaStreams, count: int = 2) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + PATIENCE
    while sum(isinstance(event, Assigned) for event in events) < count:
        assert time.monotonic() < deadline
        events += streams.poll(1.0)
    return events


def test_members_may_come_and_go(plant: Plant) -> None:
    inputs = {number: values_of(number) for number in range(2)}
    half = len(inputs[0]) // 2
    for number, values in inputs.items():
        plant.append(number, values[:half])
    scores = plant.cluster.create_topic(plant.cluster.unique("scores"))
    with Running(plant, "one", scores=scores) as one:
        wait_until(lambda: sum(committed(plant).values()) > 400, "the first member works")
        with Running(plant, "two", scores=scores) as two:
            wait_until(lambda: bool(two.streams.lag()), "the second member has a partition")
            for number, values in inputs.items():
                plant.append(number, values[half:])
            wait_until(lambda: sum(committed(plant).values()) > 2 * half + 400, "both work")
            one.stop()
            wait_until(lambda: committed(plant) == {0: 2 * half, 1: 2 * half}, "the second does the rest")
            two.stop()
    assert published(plant) == reference(plant, inputs)
    assert scores_of(plant.read(scores)) == scores_reference(plant, inputs)


@pytest.mark.parametrize("rejoining", [False, True], ids=["stable", "rejoining"])
def test_a_member_given_up_during_a_replay_restores(
    rejoining: bool, plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = {number: values_of(number) for number in range(2)}
    for number, values in inputs.items():
        plant.append(number, values)
    streams = plant.streams(**{**FRESH, "options": {"max_records": 10}})
    with contextlib.closing(streams), Running(plant, "two", **FRESH) as two:
        ends = {number: len(values) for number, values in inputs.items()}
        wait_until(lambda: committed(plant) == ends, "the other member did everything")
        streams.open()
        (assigned,) = (event for event in until_assigned(streams, 1) if isinstance(event, Assigned))
        assert assigned.live_from is not None
        # What a process is in that freezes between being told to rejoin and asking for it: the client says no more.
        consumer: Any = streams._link.consumer  # noqa: SLF001  nobody can be asked to freeze at a chosen moment
        consumer._coordinator.rejoining = rejoining  # noqa: SLF001
        with plant.cluster.admin() as admin:
            (described,) = admin.describe_groups([plant.group]).values()
            names = [member["member_id"] for member in described["members"] if "-one-" in member["member_id"]]
            admin.remove_group_members(plant.group, [MemberToRemove(member_id=name) for name in names])
        wait_until(lambda: "needs to re-join" in caplog.text, "the client knows")
        wait_until(lambda: len(two.streams.lag()) == 2, "the other one has taken over")
        given_up: list[Event] = []
        deadline = time.monotonic() + PATIENCE
        while not any(isinstance(event, Revoked) for event in given_up):
            assert time.monotonic() < deadline
            streams.lag()
            given_up += streams.poll(0.1)
        two.stop()
    assert published(plant) == reference(plant, inputs)


def test_two_processes_with_one_name(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    one, two = plant.streams(), plant.streams()
    with contextlib.closing(one), contextlib.closing(two):
        one.open()
        two.open()
        with pytest.raises(OperationError, match="same instance name, one") as fenced:
            take_turns(plant, one, two)
    assert "DETECTOR_INSTANCE" in str(fenced.value)
    assert "starting over from the last commit: another process, or a later self after a long stop, took" in caplog.text
    assert "waiting for the broker" not in caplog.text, "it is there"


def take_turns(plant: Plant, *members: KafkaStreams) -> None:
    for turn in range(100):
        for streams in members:
            plant.append(turn % 2, [b"{}"])
            events = streams.poll(0.2)
            streams.write([Message(plant.alerts, b"k", b"{}")])
            streams.commit(positions_of(events), lambda _: b"")


def positions_of(events: Any) -> dict[Partition, int]:
    return {event.partition: event.next_offset for event in events if isinstance(event, Batch)}


def lose_state(plant: Plant) -> None:
    with plant.cluster.admin() as admin:
        admin.delete_topics([plant.state])
        wait_until(lambda: plant.state not in admin.list_topics(), "the topic is gone")
    plant.cluster.create_topic(plant.state, plant.partitions, {"cleanup.policy": "compact"})


@pytest.mark.parametrize("policy", ["rebuild", "cold", "fail"])
def test_state_that_is_gone(plant: Plant, policy: str) -> None:
    values = values_of(0)
    plant.append(0, values[:1500])
    Worker(plant, plant.streams(**ROLLING)).run()
    lose_state(plant)
    plant.append(0, values[1500:])
    streams = plant.streams(state={"on_missing_state": policy}, options={"max_records": 200})
    if policy == "fail":
        with pytest.raises(UserError, match=r"partition 0 cannot be restored: its state is not in .*on_missing_state"):
            Worker(plant, streams).run()
        return
    worker = Worker(plant, streams)
    worker.run()
    again = worker.sample("detector_readings_total", outcome="accepted")
    assert again == len(values) - 1500
    assert (published(plant) == reference(plant, {0: values})) == (policy == "rebuild")


def test_what_cannot_be_decoded_is_a_dead_letter(plant: Plant) -> None:
    plant.append(0, [b"nonsense", None], headers=[("trace", b"1")])
    plant.append(0, values_of(0, rows=2))
    Worker(plant, plant.streams()).run()
    first, second = plant.read(plant.dead_letters)
    # That of a record without a value has none either.
    assert (first.key, first.value, second.value) == (b"k", b"nonsense", None)
    headers = dict(first.headers)
    assert headers["trace"] == b"1"
    assert headers["detector.offset"] == b"0"
    assert headers["detector.topic"].decode() == plant.input


def test_a_batch_that_cannot_be_read_is_passed_over(broker: Broker) -> None:
    plant = Plant(broker, 1)
    try:
        for value in (b'{"n":1}', b'{"n":"spoilt"}', b'{"n":3}'):
            plant.append(0, [value] * 3)
        log = broker.directory / "data" / f"{plant.input}-0" / "00000000000000000000.log"
        log.write_bytes(log.read_bytes().replace(b"spoilt", b"SPOILT"))
        with contextlib.closing(plant.streams()) as streams:
            streams.open()
            with pytest.raises(OperationError, match="cannot be read: partition 0, offset 3") as spoilt:
                read_on(streams, 9)
        assert f"--skip-to {plant.input}:0:6" in str(spoilt.value)
        skip = {Partition(plant.input, 0): 6}
        with contextlib.closing(plant.streams(options={"skip_to": skip})) as streams:
            streams.open()
            assert read_on(streams, 9) == [6, 7, 8]
        plant.append(0, [b'{"n":4}'])
        with contextlib.closing(plant.streams()) as streams:
            streams.open()
            assert read_on(streams, 10) == [9]
    finally:
        plant.close()


def test_what_is_passed_over_stays_passed_over(broker: Broker) -> None:
    plant = Plant(broker, 1)
    values = values_of(0)
    try:
        with small_slices():
            plant.append(0, values[:1000])
            plant.append(0, [b"spoilt"] * 3)
            plant.append(0, values[1000:])
            log = broker.directory / "data" / f"{plant.input}-0" / "00000000000000000000.log"
            log.write_bytes(log.read_bytes().replace(b"spoilt", b"SPOILT"))
            with pytest.raises(OperationError, match=f"--skip-to {plant.input}:0:1003"):
                Worker(plant, plant.streams(**FRESH)).run()
            skip = {**FRESH["options"], "skip_to": {Partition(plant.input, 0): 1003}}
            with pytest.raises(CrashError):
                Worker(plant, plant.streams(**{**FRESH, "options": skip}), crash_after(9)).run()
            assert committed(plant)[0] > 1003
            for turns in (9, 11):
                # Nothing was snapshotted: each restore runs everything again, from before what is passed over.
                with pytest.raises(CrashError):
                    Worker(plant, plant.streams(**FRESH), crash_after(turns)).run()
            Worker(plant, plant.streams(**FRESH)).run()
            assert published(plant) == reference(plant, {0: [*values[:1000], *[None] * 3, *values[1000:]]})
    finally:
        plant.close()


def read_on(streams: KafkaStreams, end: int) -> list[int]:
    """Offsets up to `end`, each batch committed."""
    offsets: list[int] = []
    position = 0
    deadline = time.monotonic() + PATIENCE
    while position < end:
        assert time.monotonic() < deadline
        events = streams.poll(0.5)
        for event in events:
            if isinstance(event, Batch):
                offsets += [record.offset for record in event.records]
                position = event.next_offset
        streams.commit(positions_of(events), lambda _: b"state")
    return offsets


def test_the_broker_may_be_killed(broker: Broker) -> None:
    plant = Plant(broker)
    try:
        with small_slices():
            inputs = {number: values_of(number) for number in range(2)}
            half = len(inputs[0]) // 2
            for number, values in inputs.items():
                plant.append(number, values[:half])
            scores = broker.create_topic(broker.unique("scores"))
            with Running(plant, "one", scores=scores, options={"max_records": 100}) as running:
                wait_until(lambda: sum(committed(plant).values()) > 500, "it works")
                broker.kill()
                broker.start()
                for number, values in inputs.items():
                    plant.append(number, values[half:])
                wait_until(lambda: committed(plant) == {0: 2 * half, 1: 2 * half}, "it goes on")
                running.stop()
            assert published(plant) == reference(plant, inputs)
            assert scores_of(plant.read(scores)) == scores_reference(plant, inputs)
    finally:
        plant.close()


def test_a_broker_that_hangs_does_not_stop_the_heart(broker: Broker) -> None:
    """Calls of the client wait for ever then, or for longer than a watchdog does."""
    plant = Plant(broker)
    try:
        with small_slices():
            inputs = {number: values_of(number) for number in range(2)}
            half = len(inputs[0]) // 2
            for number, values in inputs.items():
                plant.append(number, values[:half])
            ticks, reasons = [time.monotonic()], list[str | None]()
            options = {
                "max_records": 100,
                "tick": lambda: ticks.append(time.monotonic()),
                "on_waiting": reasons.append,
            }
            with Running(plant, "one", options=options) as running:
                wait_until(lambda: sum(committed(plant).values()) > 500, "it works")
                broker.pause()
                silence = 0.0
                until = time.monotonic() + HANG_SECONDS
                while time.monotonic() < until:
                    threading.Event().wait(0.1)
                    silence = max(silence, min(running.worker.health.idle_seconds, time.monotonic() - ticks[-1]))
                broker.resume()
                for number, values in inputs.items():
                    plant.append(number, values[half:])
                wait_until(lambda: committed(plant) == {0: 2 * half, 1: 2 * half}, "it goes on")
                running.stop()
            assert any(reasons), "it never said that it waits"
            assert silence < HANG_SECONDS - 5  # and a watchdog waits for 60 s
            assert published(plant) == reference(plant, inputs)
    finally:
        broker.resume()
        plant.close()
