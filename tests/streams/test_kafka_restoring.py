"""Where a partition begins of which the broker knows no committed offset. No broker: topics that are lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from detector.config.settings import StateConfig
from detector.config.streams import KafkaConfig
from detector.errors import OperationError, UserError
from detector.streams.kafka.restoring import Restored, Restorer
from detector.streams.kafka.slices import RestorePoint
from detector.streams.kafka.statelog import KEPT_FORMAT, WHOLE, Kept, pack_kept, pack_parts
from detector.streams.kafka.tail import check_owners

INPUT, STATE = TopicPartition("in", 0), TopicPartition("in-state", 0)
START, END, POSITION = 100, 1000, 700
OLD: list[tuple[bytes, bytes]] = [(b"j:pump", b"an episode")]
"""What a release wrote that keeps no positions."""


@dataclass
class Read:
    """A record as a consumer hands it out."""

    offset: int
    key: bytes
    value: bytes


def state(position: int = POSITION, **known: Any) -> list[tuple[bytes, bytes]]:
    """What one commit wrote."""
    named: dict[str, Any] = {"input": "in", "topic_id": "one"} | known
    point = RestorePoint(0, -1, position, None)
    kept = Kept(KEPT_FORMAT, named["input"], named["topic_id"], position, point.encode())
    return [*pack_parts(WHOLE, position, b"the state"), pack_kept(kept)]


class Broker:
    """What a restore asks of its two consumers. `marks`: offsets without records behind those of the state.

    `open_until`: as many looks at the end of the state find a transaction that is not through.
    """

    def __init__(
        self,
        records: list[tuple[bytes, bytes]],
        *,
        marks: int = 1,
        open_until: int = 0,
        committed: OffsetAndMetadata | None = None,
    ) -> None:
        self.records = [Read(offset, *record) for offset, record in enumerate(records)]
        self.open_until = open_until
        self.forgotten = committed
        self._marks = marks if records else 0
        self._assigned: set[TopicPartition] = set()
        self._at = 0

    def committed(self, tp: TopicPartition, **more: Any) -> OffsetAndMetadata | None:
        return self.forgotten

    def beginning_offsets(self, tps: list[TopicPartition], **more: Any) -> dict[TopicPartition, int]:
        return {tp: START if tp == INPUT else 0 for tp in tps}

    def end_offsets(self, tps: list[TopicPartition], **more: Any) -> dict[TopicPartition, int]:
        return {tp: END if tp == INPUT else len(self.records) + self._marks for tp in tps}

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    def assign(self, tps: list[TopicPartition]) -> None:
        self._assigned = set(tps)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._at = offset

    def position(self, tp: TopicPartition) -> int:
        return self._at

    def written(self, tp: TopicPartition) -> int:
        self.open_until -= 1
        return self.end_offsets([tp])[tp] + (self.open_until >= 0)

    def poll(self, **more: Any) -> dict[TopicPartition, list[Read]]:
        (tp,) = self._assigned
        found = [record for record in self.records if record.offset >= self._at][:2]
        self._at = found[-1].offset + 1 if found else self.end_offsets([tp])[tp]
        return {tp: found}


def begun(broker: Broker, *, skip_to: int | None = None, told: list[str] | None = None, **settings: Any) -> Restored:
    any_broker: Any = broker
    skips = {} if skip_to is None else {INPUT: skip_to}
    restorer = Restorer(
        KafkaConfig(**settings), StateConfig(on_missing_state="fail"), {"in": "in-state"},
        any_broker, any_broker, skips,
        written=broker.written, topic_id=lambda topic: "one",
        on_forgotten=lambda: (told if told is not None else []).append("forgotten"),
    )  # fmt: skip
    steps = restorer.restore(INPUT)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Restored = done.value
            return found


@pytest.mark.parametrize(("start_from", "position"), [("earliest", START), ("latest", END)])
def test_a_group_without_state_is_new(start_from: str, position: int) -> None:
    found = begun(Broker([]), start_from=start_from)
    assert (found.position, found.live_from, found.state) == (position, position, None)


def test_a_new_group_passes_over_what_it_is_told_to() -> None:
    assert begun(Broker([]), skip_to=500).position == 500
    assert begun(Broker([]), skip_to=5).position == START
    assert begun(Broker([]), skip_to=500, start_from="latest").position == END


@pytest.mark.parametrize("policy", ["fail", "earliest", "latest"])
@pytest.mark.parametrize("marks", [0, 1, 40])
def test_a_forgotten_offset_is_the_position_in_the_state(
    policy: str, marks: int, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    broker = Broker(state(300) + state(), marks=marks)
    found = begun(broker, told=told, on_offset_out_of_range=policy)
    assert (found.position, found.live_from, found.state) == (POSITION, POSITION, b"the state")
    assert found.committed == POSITION, "what is written ahead repeats it, so that a fenced member is refused"
    assert found.forgotten
    assert found.point is not None
    assert found.topic_id == "one"
    assert told == ["forgotten"]
    (record,) = [record for record in caplog.records if record.msg == "offset_forgotten"]
    assert record.__dict__["fields"] == {"stream": "in", "partition": 0, "position": POSITION}


def test_a_transaction_that_is_not_through_is_waited_for() -> None:
    """What it wrote may be a later position than the one that can be seen."""
    broker = Broker(state(), open_until=5)
    assert begun(broker).position == POSITION
    assert broker.open_until < 0


def test_what_is_to_be_passed_over_counts_from_the_position_in_the_state() -> None:
    found = begun(Broker(state()), skip_to=800)
    assert (found.live_from, found.skips) == (800, ((POSITION, 800),))
    assert begun(Broker(state()), skip_to=500).live_from == POSITION


def test_a_position_that_the_input_has_not_is_out_of_range() -> None:
    with pytest.raises(UserError, match=r"offset 50 of in partition 0 is not in the topic, which has 100 to 1000"):
        begun(Broker(state(50)))
    found = begun(Broker(state(50)), on_offset_out_of_range="earliest")
    assert (found.position, found.committed, found.state) == (START, None, None)


def test_an_offset_that_somebody_set_is_obeyed() -> None:
    broker = Broker(state(), committed=OffsetAndMetadata(500, "", -1))
    with pytest.raises(UserError, match="its offset was set by something else"):
        begun(broker)


@pytest.mark.parametrize("start_from", ["earliest", "latest"])
@pytest.mark.parametrize("policy", ["fail", "earliest", "latest"])
@pytest.mark.parametrize("records", [OLD, state(300) + OLD], ids=["no position", "a position of before"])
def test_without_a_position_in_the_state_it_is_what_a_person_says(
    start_from: str, policy: str, records: list[tuple[bytes, bytes]]
) -> None:
    """A group that began at the end, too: what has come since its last commit is not lost."""
    settings: dict[str, Any] = {"start_from": start_from, "on_offset_out_of_range": policy}
    assert begun(Broker(records), skip_to=500, **settings).position == 500
    if policy == "fail":
        with pytest.raises(OperationError, match="no committed offset"):
            begun(Broker(records), **settings)
    else:
        assert begun(Broker(records), **settings).position == (START if policy == "earliest" else END)


@pytest.mark.parametrize("records", [[], OLD, state()], ids=["new", "no position", "a position"])
def test_no_one_goes_on_beyond_the_end(records: list[tuple[bytes, bytes]]) -> None:
    """The broker would refuse that offset, and the restore begin again, again and again."""
    assert begun(Broker(records), skip_to=END).live_from == END
    with pytest.raises(UserError, match=f"offset {END + 1} is beyond the end of in partition 0, which is {END}"):
        begun(Broker(records), skip_to=END + 1)


def committed_like(records: list[tuple[bytes, bytes]]) -> OffsetAndMetadata:
    point = RestorePoint(0, len(records) - 1, POSITION, None)
    return OffsetAndMetadata(POSITION, point.encode(), -1)


@pytest.mark.parametrize("forgotten", [False, True])
def test_state_of_another_input_is_refused(forgotten: bool) -> None:
    records = state(input="other")
    with pytest.raises(UserError, match=r"the input is in, and the state in in-state is of other.*another group_id"):
        begun(Broker(records, committed=None if forgotten else committed_like(records)))


@pytest.mark.parametrize("forgotten", [False, True])
def test_offsets_of_a_topic_that_was_made_anew_do_not_count(forgotten: bool) -> None:
    records = state(topic_id="two")
    committed = None if forgotten else committed_like(records)
    with pytest.raises(UserError, match=r"in was recreated, and the state of partition 0 is of the topic before it"):
        begun(Broker(records, committed=committed))
    for policy, position in (("earliest", START), ("latest", END)):
        found = begun(Broker(records, committed=committed), on_offset_out_of_range=policy)
        assert (found.position, found.live_from, found.committed, found.state) == (position, position, None, None)


def test_a_broker_without_topic_ids_is_believed() -> None:
    assert begun(Broker(state(topic_id=""))).position == POSITION


@pytest.mark.parametrize("records", [[], OLD, state()], ids=["none", "no position", "ours"])
def test_state_that_is_no_other_inputs_may_be_taken_up(records: list[tuple[bytes, bytes]]) -> None:
    broker: Any = Broker(records)
    check_owners(broker, {"in": "in-state"}, {"in": 1, "in-state": 1})
    check_owners(broker, {"in": "in-state"}, {})


def test_whose_state_it_is_is_found_behind_many_marks() -> None:
    broker: Any = Broker(state(input="other"), marks=90)
    ticks: list[None] = []
    with pytest.raises(UserError, match="the input is in, and the state in in-state is of other"):
        check_owners(broker, {"in": "in-state"}, {"in-state": 1}, tick=lambda: ticks.append(None))
    assert ticks, "it may take long where the broker hangs"
