"""What may come between a committed offset and the state that goes with it, on a real broker."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition

from detector.config.settings import StateConfig
from detector.errors import OperationError, UserError
from detector.streams.base import Partition
from detector.streams.kafka.clients import connection_settings, plain_consumer
from detector.streams.kafka.inspection import inspect
from detector.streams.kafka.membership import hold, release
from detector.streams.kafka.statelog import StateReading
from detector.streams.kafka.streams import KafkaStreams
from tests.kafka.broker import Cluster
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_faults import committed, until_assigned, wait_until
from tests.kafka.worker import CrashError, Worker, crash_after, published, reference, small_slices, values_of

SLOW: dict[str, Any] = {"state": {"snapshot_interval": 3600 * 10**9}, "options": {"max_records": 50}}
"""Hardly any slice is written, so that a restore has a lot to run again, in small steps."""


@pytest.fixture
def plant(kafka: Cluster) -> Iterator[Plant]:
    plant = Plant(kafka)
    with small_slices():
        yield plant
    plant.close()


def crash(plant: Plant, turns: int, **settings: Any) -> None:
    """Process something and die."""
    with pytest.raises(CrashError):
        Worker(plant, plant.streams(**(SLOW | settings)), crash_after(turns)).run()


class Member:
    """A daemon in a thread, slow while it restores and `hurry` is not set."""

    def __init__(self, plant: Plant, instance: str, hurry: threading.Event) -> None:
        self.done = threading.Event()
        self.restoring = threading.Event()
        self.error: BaseException | None = None
        self._hurry = hurry
        self.worker = Worker(plant, plant.streams(instance=instance, **SLOW), self._stop, until_end=False)
        self.thread = threading.Thread(target=self._run, name=instance, daemon=True)
        self.thread.start()

    def _stop(self) -> bool:
        if self.worker.daemon.restoring:
            self.restoring.set()
            self._hurry.wait(0.2)
        return self.done.is_set()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.done.set()
        self.thread.join(PATIENCE)


def test_a_rebalance_during_a_restore(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    """The partition that goes is restored afresh by the other member; the one that stays goes on."""
    caplog.set_level(logging.INFO, "detector")
    inputs = {number: values_of(number) for number in range(2)}
    for number, values in inputs.items():
        plant.append(number, values[:2000])
    crash(plant, 60)
    before = committed(plant)
    assert sum(before.values()) > 1000
    for number, values in inputs.items():
        plant.append(number, values[2000:])
    hurry = threading.Event()
    caplog.clear()
    one = Member(plant, "one", hurry)
    members = [one]
    try:
        assert one.restoring.wait(2 * PATIENCE)
        members.append(Member(plant, "two", hurry))
        wait_until(
            lambda: "partition_revoked" in names(caplog) or any(member.error for member in members), "a partition moves"
        )
        assert [member.error for member in members] == [None, None]
        assert one.worker.daemon.restoring
        assert "restored" not in names(caplog)
        hurry.set()
        ends = {number: len(values) for number, values in inputs.items()}
        wait_until(lambda: committed(plant) == ends, "all is done")
    finally:
        hurry.set()
        for member in members:
            member.end()
    assert [member.error for member in members] == [None, None]
    assert names(caplog).count("restored") == 2
    assert sum(member.worker.sample("detector_replay_mismatch_total") for member in members) == 0
    assert published(plant) == reference(plant, inputs)
    shares = [
        member.worker.registry.get_sample_value(
            "detector_restore_progress_ratio", {"stream": plant.input, "partition": str(number)}
        )
        for member in members
        for number in range(2)
    ]
    assert sorted(share for share in shares if share is not None) in ([], [1.0], [1.0, 1.0])


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.msg for record in caplog.records]


@pytest.mark.parametrize("policy", ["rebuild", "cold", "fail"])
def test_an_input_that_does_not_reach_back(plant: Plant, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Retention has taken what a restore would run again."""
    values = values_of(0)
    plant.append(0, values[:1500])
    crash(plant, 25)
    position = committed(plant)[0]
    assert position > 300
    with plant.cluster.admin() as admin:
        admin.delete_records({TopicPartition(plant.input, 0): position - 100})
    plant.append(0, values[1500:])
    streams = plant.streams(state={"on_missing_state": policy}, options={"max_records": 200})
    worker = Worker(plant, streams)
    if policy == "fail":
        with pytest.raises(UserError, match=r"cannot be restored: the replay begins at \d+, and the topic at"):
            worker.run()
        return
    worker.run()
    assert f"{policy} from offset {position - (100 if policy == 'rebuild' else 0)}" in caplog.text
    assert worker.sample("detector_readings_total", outcome="accepted") == len(values) - position
    assert committed(plant)[0] >= len(values)


def test_partitions_that_are_added_while_it_runs(plant: Plant) -> None:
    streams = plant.streams()
    try:
        streams.open()
        until_assigned(streams)
        # The client would see the new one within its five minutes; here it is as if one had been there less.
        streams._link.partitions = {plant.input: 1}  # noqa: SLF001
        streams._follow_changes()  # noqa: SLF001
        with pytest.raises(OperationError, match="had 1 partitions at the start and now has more") as grown:
            streams._take(TopicPartition(plant.input, 1))  # noqa: SLF001
        assert "state topic has to grow" in str(grown.value)
    finally:
        streams.close()


def test_a_change_of_settings_moves_all_slices_in_small_transactions(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for hardly anything in one: the new provenance is written ahead, and the last commit in pieces."""
    from detector.streams.kafka import committing
    from tests.kafka.worker import config_of

    monkeypatch.setattr(committing, "MAX_STATE_BYTES", 2000)
    values = values_of(0)
    plant.append(0, values[:1500])
    Worker(plant, plant.streams(**SLOW)).run()
    other = config_of().model_copy(update={"warmup": config_of().warmup + 1})
    plant.append(0, values[1500:2000])
    Worker(plant, plant.streams(**SLOW), config=other).run()
    generations = {record.key.count(b":") for record in plant.read(plant.state) if record.value is not None}
    assert 3 in generations, "slices of another generation were written"
    plant.append(0, values[2000:])
    worker = Worker(plant, plant.streams(**SLOW), config=other)
    worker.run()
    assert worker.sample("detector_readings_total", outcome="accepted") == len(values) - 2000, "nothing ran again"
    reading = StateReading(generation=1)
    for offset, record in enumerate(plant.read(plant.state)):
        reading.take(offset, record.key, record.value)
    assert worker.sample("detector_snapshot_bytes") == sum(len(one.data()) for one in reading.slices.values()) > 0
    assert committed(plant)[0] >= len(values)


def forget_offset(plant: Plant) -> None:
    """As a coordinator does that lost an offset in coming up, or that has let it expire."""
    with plant.cluster.admin() as admin:
        admin.delete_group_offsets(plant.group, [TopicPartition(plant.input, 0)])
    wait_until(lambda: 0 not in committed(plant), "the offset is forgotten")


def test_a_forgotten_offset_is_found_in_the_state(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    """After a stop and after a crash; the readings that have come since are processed once."""
    caplog.set_level(logging.INFO, "detector")
    values = values_of(0)
    plant.append(0, values[:1000])
    Worker(plant, plant.streams(**SLOW)).run()
    plant.append(0, values[1000:1600])
    crash(plant, 12)
    position = committed(plant)[0]
    assert 1000 < position < 1600
    forget_offset(plant)
    plant.append(0, values[1600:])
    forgotten: list[None] = []
    options = {"max_records": 50, "on_forgotten": lambda: forgotten.append(None)}
    caplog.clear()
    worker = Worker(plant, plant.streams(state=SLOW["state"], options=options))
    worker.run()
    assert published(plant) == reference(plant, {0: values})
    told = [record.__dict__["fields"] for record in caplog.records if record.msg == "offset_forgotten"]
    assert told == [{"stream": plant.input, "partition": 0, "position": position}]
    assert len(forgotten) == 1
    assert worker.sample("detector_readings_total", outcome="accepted") == len(values) - position
    assert worker.sample("detector_replay_mismatch_total") == 0
    assert committed(plant)[0] >= len(values)


def test_a_forgotten_offset_is_given_back_though_nothing_comes(plant: Plant) -> None:
    """Whoever watches the group's lag sees where it is."""
    plant.append(0, values_of(0)[:500])
    Worker(plant, plant.streams(**SLOW)).run()
    forget_offset(plant)
    Worker(plant, plant.streams(**SLOW)).run()
    assert committed(plant)[0] == 500


def test_a_person_may_say_where_to_go_on(plant: Plant) -> None:
    values = values_of(0)
    plant.append(0, values[:1500])
    Worker(plant, plant.streams(**SLOW)).run()
    forget_offset(plant)
    plant.append(0, values[1500:])
    streams = plant.streams(
        state=SLOW["state"], options={"max_records": 50, "skip_to": {Partition(plant.input, 0): 1700}}
    )
    Worker(plant, streams).run()
    assert published(plant) == reference(plant, {0: [*values[:1500], *[None] * 200, *values[1700:]]})


def test_an_input_that_is_made_anew(plant: Plant) -> None:
    """Its offsets mean something else, though they may lie within it."""
    values = values_of(0)
    plant.append(0, values[:1000])
    Worker(plant, plant.streams(**SLOW)).run()
    done = published(plant)
    with plant.cluster.admin() as admin:
        admin.delete_topics([plant.input])
        wait_until(lambda: plant.input not in admin.list_topics(), "the topic is gone")
    plant.cluster.create_topic(plant.input, plant.partitions)
    plant.append(0, values[1000:])
    with pytest.raises(UserError, match="was recreated, and the state of partition 0 is of the topic before it"):
        Worker(plant, plant.streams(**SLOW)).run()
    assert published(plant) == done
    worker = Worker(plant, plant.streams(**SLOW, on_offset_out_of_range="earliest"))
    worker.run()
    assert worker.sample("detector_readings_total", outcome="accepted") == len(values) - 1000
    Worker(plant, plant.streams(**SLOW)).run()


def test_another_input_is_refused_before_anything_changes(plant: Plant) -> None:
    plant.append(0, values_of(0)[:500])
    Worker(plant, plant.streams(**SLOW)).run()
    before = len(plant.read(plant.state)), committed(plant)
    mistyped = plant.cluster.create_topic(plant.cluster.unique("in"), plant.partitions + 2)
    absent = plant.cluster.unique("absent")
    for name in (mistyped, absent):
        streams = KafkaStreams(
            plant.settings(create_topics=True), StateConfig(), state_topics={name: plant.state}, outputs=[plant.alerts]
        )
        try:
            with pytest.raises(UserError, match=f"the input is {name}, and the state in .* is of {plant.input}"):
                streams.open()
        finally:
            streams.close()
    with plant.cluster.admin() as admin:
        assert len(admin.describe_topics([plant.state])[0]["partitions"]) == plant.partitions
        assert absent not in admin.list_topics()
    assert (len(plant.read(plant.state)), committed(plant)) == before
    with pytest.raises(UserError, match="the state in"):
        list(inspect(plant.settings(), {mistyped: plant.state}, [plant.alerts]))


def test_state_that_was_never_committed_is_no_state(plant: Plant) -> None:
    """Aborted records and marks lie in a state topic, too, when the first commits of a group failed."""
    producer = KafkaProducer(bootstrap_servers=plant.cluster.address, transactional_id=plant.group)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(plant.state, b"aborted", b"key", partition=0)
    producer.flush(PATIENCE)
    producer.abort_transaction()
    producer.close()
    values = values_of(0)
    plant.append(0, values)
    Worker(plant, plant.streams(**SLOW)).run()
    assert published(plant) == reference(plant, {0: values})


def test_what_was_fetched_before_a_partition_was_held_keeps_nothing_back(plant: Plant) -> None:
    for number in range(2):
        plant.append(number, [b"%d" % value for value in range(20)])
    consumer = plain_consumer(connection_settings(plant.settings()), max_records=5)
    with contextlib.closing(consumer):
        tps = [TopicPartition(plant.input, number) for number in range(2)]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        come: Counter[object] = Counter()

        def poll() -> None:
            for tp, records in consumer.poll(timeout_ms=200).items():
                come[tp] += len(records)

        def some() -> bool:
            poll()
            return bool(come)

        def all_of(tp: object) -> bool:
            poll()
            return come[tp] >= 20

        wait_until(some, "records come")
        (begun,) = come  # of which five have come, and the others wait to be taken
        (other,) = (tp for tp in tps if tp != begun)
        hold(consumer, [begun])
        wait_until(lambda: all_of(other), "those of the other come")
        come.clear()
        release(consumer, begun, 0)
        wait_until(lambda: all_of(begun), "all of the one that was held come")
        assert come == {begun: 20}
