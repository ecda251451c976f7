from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from detector.config.fields import FieldsConfig
from detector.engine.readings import ReadingsPipeline
from detector.models.bundle.bundles import load_bundle
from detector.models.runtime.onnx import open_runtime
from detector.streams.base import Record
from detector.streams.kafka.assignor import Assignor
from detector.streams.kafka.membership import Listener
from detector.wire.rekeying import Rekeying
from tests.chaos import cameras, daemon, load, machines
from tests.chaos.faults import FAULTS, MEMBERS, Field, dice, join_or_leave, reload, schedule
from tests.chaos.members import Ended, Member
from tests.chaos.model import ROWS, make_bundle

STARTED = 1_790_000_000


def test_the_load_repeats_itself_for_a_seed() -> None:
    def first(seed: int) -> list[load.Item]:
        return list(itertools.islice(load.items(seed, STARTED), 2000))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_the_load_has_everything_in_it() -> None:
    sent = list(itertools.islice(load.items(3, STARTED), 100_000))
    assert {item.partition for item in sent} == set(range(load.PARTITIONS))
    assert Counter(item.partition for item in sent).most_common(1)[0][0] == 0
    owners = {item.key: item.partition for item in sent}
    assert len(owners) == load.SENSORS
    assert all(owners[item.key] == item.partition for item in sent)
    assert sum(owner == 0 for owner in owners.values()) > 64  # more than a slice of the state has
    broken = [item for item in sent if item.readings == 0]
    assert broken
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(broken[0].value)
    decoded = [msgspec.json.decode(item.value) for item in sent if item.readings]
    assert any(reading.get("value", 0) is None for reading in decoded)
    assert any("timestamps" in reading for reading in decoded)
    assert any(one == other for one, other in itertools.pairwise(sent))
    hasty = {reading["sensor_id"] for reading in decoded if reading.get("timestamp", 0) % 1}
    assert len(hasty) == load.SENSORS / 10, "some change their interval"


def test_cameras_have_everything_in_them() -> None:
    sent = list(itertools.islice(cameras.camera_items(3, STARTED), 6000))
    assert sent == list(itertools.islice(cameras.camera_items(3, STARTED), 6000))
    assert {item.partition for item in sent} == set(range(cameras.CAMERA_PARTITIONS))
    owners = {item.key: item.partition for item in sent}
    assert len(owners) == cameras.CAMERAS
    assert all(owners[item.key] == item.partition for item in sent)
    assert len({len(item.value) for item in sent}) == 2, "some are cut off"
    assert any(one == other for one, other in itertools.pairwise(sent)), "some come twice"
    stamps = [int(dict(item.headers)["timestamp"]) for item in sent if item.key == b"camera-00"]
    assert stamps != sorted(stamps), "some are late"


def test_machines_have_everything_in_them() -> None:
    sent = list(itertools.islice(machines.tag_items(3, STARTED), 120_000))
    assert sent[:500] == list(itertools.islice(machines.tag_items(3, STARTED), 500))
    homes: dict[bytes, set[int]] = {}
    for item in sent:
        homes.setdefault(item.key.split(b"/")[0], set()).add(item.partition)
    assert len(homes) == machines.MACHINES
    assert Counter(len(places) for places in homes.values()) == {1: 80, 2: 20}, "some have their tags apart"
    assert any(item.readings == 0 for item in sent), "some are cut off"
    assert any(one == other for one, other in itertools.pairwise(sent)), "some come twice"
    decoded = [msgspec.json.decode(item.value) for item in sent if item.readings]
    assert any(reading["value"] is None for reading in decoded)
    seconds = {int(reading["timestamp"]) for reading in decoded}
    of_one = [r for r in decoded if r["sensor_id"] == machines.tag_of(0, 0)]
    assert len({int(r["timestamp"]) for r in of_one}) < len(seconds), "some never come"
    assert [r["timestamp"] for r in of_one] != sorted(r["timestamp"] for r in of_one), "some are late"


def test_copies_are_each_there_once_and_a_machine_in_one_place() -> None:
    keys = Rekeying(FieldsConfig(), machines.KEY, machines={machines.tag_of(0, i): load.name_of(0) for i in range(2)})
    values = [f'{{"sensor_id":"{machines.tag_of(0, i)}","timestamp":1,"value":1}}'.encode() for i in (0, 1, 1)]
    tags = [(i, Record(i, None, value)) for i, value in enumerate([*values, b"{"])]
    copied = [(2, Record(i, b"unit-000", value)) for i, value in enumerate([*values, b'{"verdict":{}}'])]
    right = {"missing": 0, "too many": 0, "machines in two partitions": 0}
    assert machines.judge_copies(keys, tags, copied) == (3, right, [(machines.TAGS, 3, 3)])
    twice = [*copied, (1, copied[0][1])]
    wrong = {"missing": 0, "too many": 1, "machines in two partitions": 1}
    assert machines.judge_copies(keys, tags, twice).wrong == wrong
    assert machines.judge_copies(keys, tags, copied[1:]).wrong == right | {"missing": 1}
    other = [(2, Record(0, b"unit-001", values[0])), *copied[1:]]
    assert machines.judge_copies(keys, tags, other).wrong == right | {"missing": 1, "too many": 1}


@pytest.mark.parametrize("channels", [("value",), machines.CHANNELS])
def test_a_bundle_scores_without_having_been_trained(tmp_path: Path, channels: Sequence[str]) -> None:
    healthy = machines.healthy_rows if len(channels) > 1 else load.values_without_faults
    series = [healthy(sensor, ROWS, 1) for sensor in range(0, 6, 2)]
    make_bundle(tmp_path, series, (5, 5), 1, channels)
    bundle = load_bundle(tmp_path)
    assert sorted(bundle.profiles()) == ["unit-000", "unit-002", "unit-004"]
    windows = np.random.default_rng(0).normal(size=(3, 100, len(channels))).astype(np.float32)
    scored = open_runtime(bundle)(windows)
    assert scored.shape == windows.shape
    assert not np.allclose(scored, windows)


def test_every_fault_has_its_turn() -> None:
    names = list(itertools.islice(schedule(dice(1)), 5 * len(FAULTS)))
    assert set(Counter(names).values()) == {5}
    assert names == list(itertools.islice(schedule(dice(1)), 5 * len(FAULTS)))
    assert names != list(itertools.islice(schedule(dice(2)), 5 * len(FAULTS)))


class Puppet(Member):
    """A member that does nothing but remember."""

    def __init__(self, name: str) -> None:
        super().__init__(name, Path("none"), Path("none"))
        self.did: list[str] = []
        self.alive = False
        self.status: int | None = None

    @property
    def listening(self) -> bool:
        return self.alive and self.did.count("start") > 1

    @property
    def running(self) -> bool:
        return self.alive

    def start(self, *options: str) -> None:
        assert not self.alive
        self.did.append("start")
        self.alive = True

    def kill(self) -> None:
        self.did.append("kill")
        self.alive, self.status = False, -9

    def terminate(self) -> None:
        self.did.append("terminate")

    def wait(self, seconds: float) -> int:
        self.alive, self.status = False, 0 if self.status is None else self.status
        return self.status

    def reload(self) -> None:
        self.did.append("reload")

    def pause(self) -> None:
        self.did.append("pause")

    def resume(self) -> None:
        self.did.append("resume")

    def ended(self) -> Ended | None:
        return None if self.status is None else Ended(self.name, self.status, "said nothing")


class Lamp:
    """A broker that only goes on and off."""

    def __init__(self) -> None:
        self.on = True

    def kill(self) -> None:
        assert self.on
        self.on = False

    def start(self) -> None:
        assert not self.on
        self.on = True

    def pause(self) -> None:
        self.on = False

    def resume(self) -> None:
        self.on = True


@pytest.fixture
def place() -> Field:
    broker: Any = Lamp()
    members: list[Member] = [Puppet(f"member-{i}") for i in range(MEMBERS)]
    followers: list[Member] = [Puppet(f"incidents-{i}") for i in range(2)]
    place = Field(broker, members, Puppet, dice(4), lambda _: None, followers=followers, sleep=lambda _: None)
    for member in (*members, *followers):
        place.start(member)
    return place


@pytest.mark.parametrize("name", FAULTS)
def test_after_a_fault_everything_is_up_again(name: str, place: Field) -> None:
    for _ in range(20):
        FAULTS[name](place)
        assert all(member.running for member in (*place.members[:MEMBERS], *place.followers))
        assert MEMBERS <= len(place.members) <= MEMBERS + 1
        broker: Any = place.broker
        assert broker.on
    assert place.unexpected == []


def test_guests_come_and_go(place: Field) -> None:
    join_or_leave(place)
    guest = place.members[-1]
    assert guest.name == "guest-1"
    assert guest.running
    join_or_leave(place)
    assert len(place.members) == MEMBERS
    assert not guest.running


def test_offsets_are_forgotten_when_nobody_holds_them(place: Field) -> None:
    refusals = [False, False, True]
    asked: list[bool] = []

    def forget() -> bool:
        asked.append(any(member.running for member in place.members))
        return refusals[len(asked) - 1]

    place.forget_offsets = forget
    FAULTS["forget offsets"](place)
    assert asked == [False, False, False]


def test_hogs_run_while_something_else_is_done(place: Field) -> None:
    did: list[str] = []

    @contextmanager
    def busy() -> Iterator[None]:
        did.append("busy")
        yield
        did.append("idle")

    place.busy = busy
    place.sleep = lambda _: did.append("paused")
    FAULTS["hog processors"](place)
    assert (did[0], did[-2], did[-1]) == ("busy", "paused", "idle")


def test_each_reload_brings_other_settings(place: Field) -> None:
    numbers: list[int] = []
    place.change_settings = numbers.append
    reload(place)
    puppets = [member for member in place.members if isinstance(member, Puppet)]
    assert all("reload" not in puppet.did for puppet in puppets), "a signal ends a process that is only starting"
    for puppet in puppets:
        puppet.kill()
        place.start(puppet)
    reload(place)
    assert numbers == [1, 2]
    assert [puppet.did.count("reload") for puppet in puppets].count(1) == 1


def test_a_member_listens_once_its_own_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "one.log").write_text('{"event":"model_loaded"}\n')
    member = Member("one", tmp_path / "none.yaml", tmp_path)
    member.start()
    try:
        assert not member.listening, "what is there was said by the one before it"
    finally:
        member.kill()


def test_who_ended_by_itself_is_noted_and_started_again(place: Field) -> None:
    quitter = place.members[1]
    assert isinstance(quitter, Puppet)
    quitter.alive, quitter.status = False, 1
    place.revive()
    assert place.unexpected == [Ended("member-1", 1, "said nothing")]
    assert quitter.running


def test_a_stop_that_is_none_is_noted(place: Field) -> None:
    member = place.members[0]
    assert isinstance(member, Puppet)
    member.status = -9
    place.stop(member)
    assert place.failed_stops == [Ended("member-0", -9, "said nothing")]


@pytest.mark.parametrize("moment", daemon.MOMENTS)
def test_a_process_dies_at_its_moment(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []
    monkeypatch.setattr("os.kill", lambda *_: died.append("died"))
    owner, name = {
        "restore": (ReadingsPipeline, "restore"),
        "replay": (ReadingsPipeline, "process"),
        "snapshot": (ReadingsPipeline, "pack_slice"),
        "journal": (ReadingsPipeline, "journal"),
        "offsets": (KafkaProducer, "send_offsets_to_transaction"),
        "commit": (KafkaProducer, "commit_transaction"),
        "committed": (KafkaProducer, "commit_transaction"),
    }[moment]
    monkeypatch.setattr(owner, name, lambda self: died.append("worked"))
    daemon.die_at(moment, 2)
    place = type("Restoring", (), {"restoring": True})()
    getattr(owner, name)(place)
    assert died == ["worked"]
    getattr(owner, name)(place)
    after = moment in ("journal", "offsets", "committed")
    assert died == ["worked", "worked", "died"] if after else ["worked", "died", "worked"]


def test_without_the_fence_the_broker_gets_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from kafka.structs import ConsumerGroupMetadata

    fields: dict[str, Any] = dict.fromkeys(ConsumerGroupMetadata._fields)
    unjoined = ConsumerGroupMetadata(**{**fields, "generation_id": -1, "member_id": ""})
    sent: list[Any] = []
    monkeypatch.setattr(Listener, "given_up", True)
    monkeypatch.setattr(KafkaConsumer, "group_metadata", lambda self: unjoined)
    monkeypatch.setattr(KafkaProducer, "send_offsets_to_transaction", lambda self, offsets, group: sent.append(group))
    daemon.take_away("fence")
    seen = KafkaConsumer.group_metadata(None)
    assert seen.generation_id >= 0
    assert seen.member_id
    KafkaProducer.send_offsets_to_transaction(None, {}, seen)
    assert sent == [unjoined]


def test_without_claims_looked_at_a_member_claims_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Assignor, "metadata", Assignor.metadata)  # restored after the test
    assignor: Any = Assignor()
    assignor.member_assignment = [TopicPartition("in", 1)]
    daemon.take_away("claims")
    assert len(assignor.metadata(["in"]).owned_partitions) == 1
    assert assignor.member_assignment


def test_without_overruling_the_replay_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from detector.engine import state

    monkeypatch.setattr(state, "take_journal", None)  # restored after the test
    daemon.take_away("overruling")
    assert vars(state)["take_journal"]("table", "journal") == 0
