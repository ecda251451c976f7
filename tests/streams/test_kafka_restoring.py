"""Where a partition begins of which the broker knows no committed offset. No broker: a topic that is a length."""

from __future__ import annotations

from typing import Any

import pytest
from kafka import TopicPartition

from detector.config.settings import KafkaConfig, StateConfig
from detector.errors import OperationError, UserError
from detector.streams.kafka.restoring import Restored, Restorer

INPUT, STATE = TopicPartition("in", 0), TopicPartition("in-state", 0)
START, END = 100, 1000


class Broker:
    """What a restore asks of its two consumers."""

    def __init__(self, *, has_state: bool) -> None:
        self._ends = {INPUT: END, STATE: 7 if has_state else 0}
        self._assigned: set[TopicPartition] = set()
        self._at = 0

    def committed(self, tp: TopicPartition, **more: Any) -> None:
        return None

    def beginning_offsets(self, tps: list[TopicPartition], **more: Any) -> dict[TopicPartition, int]:
        return {tp: START if tp == INPUT else 0 for tp in tps}

    def end_offsets(self, tps: list[TopicPartition], **more: Any) -> dict[TopicPartition, int]:
        return {tp: self._ends[tp] for tp in tps}

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    def assign(self, tps: list[TopicPartition]) -> None:
        self._assigned = set(tps)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._at = offset

    def position(self, tp: TopicPartition) -> int:
        return self._at

    def poll(self, **more: Any) -> dict[TopicPartition, list[object]]:
        (tp,) = self._assigned
        self._at = self._ends[tp]
        return {tp: [object()]}


def begun(*, has_state: bool, skip_to: int | None = None, **settings: Any) -> Restored:
    broker: Any = Broker(has_state=has_state)
    skips = {} if skip_to is None else {INPUT: skip_to}
    restorer = Restorer(KafkaConfig(**settings), StateConfig(), {"in": "in-state"}, broker, broker, skips)
    steps = restorer.restore(INPUT)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Restored = done.value
            return found


@pytest.mark.parametrize(("start_from", "position"), [("earliest", START), ("latest", END)])
def test_a_group_without_state_is_new(start_from: str, position: int) -> None:
    found = begun(has_state=False, start_from=start_from)
    assert (found.position, found.live_from, found.state) == (position, position, None)


def test_a_new_group_passes_over_what_it_is_told_to() -> None:
    assert begun(has_state=False, skip_to=500).position == 500
    assert begun(has_state=False, skip_to=5).position == START
    assert begun(has_state=False, skip_to=500, start_from="latest").position == END


@pytest.mark.parametrize("start_from", ["earliest", "latest"])
@pytest.mark.parametrize("policy", ["fail", "earliest", "latest"])
def test_a_forgotten_offset_is_what_a_person_says(start_from: str, policy: str) -> None:
    """A group that began at the end, too: what has come since its last commit is not lost."""
    settings: dict[str, Any] = {"start_from": start_from, "on_offset_out_of_range": policy}
    assert begun(has_state=True, skip_to=500, **settings).position == 500
    if policy == "fail":
        with pytest.raises(OperationError, match="no committed offset"):
            begun(has_state=True, **settings)
    else:
        assert begun(has_state=True, **settings).position == (START if policy == "earliest" else END)


@pytest.mark.parametrize("has_state", [False, True])
def test_no_one_goes_on_beyond_the_end(has_state: bool) -> None:
    """The broker would refuse that offset, and the restore begin anew, again and again."""
    assert begun(has_state=has_state, skip_to=END).position == END
    with pytest.raises(UserError, match=f"offset {END + 1} is beyond the end of in partition 0, which is {END}"):
        begun(has_state=has_state, skip_to=END + 1)
