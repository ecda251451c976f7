"""States of hours beside the table: places, how they are stored, and which rows begin a day."""

from __future__ import annotations

import numpy as np
import pytest

from detector.detection.context import CONTEXT, HOURS, Contexts
from detector.detection.contexts import STATE, ContextTable
from detector.detection.hours import Hours
from detector.detection.table import SensorTable, StateError
from tests.shifts import DAY, HOUR, MONDAY


def profiles(*channels: int) -> Contexts:
    found = np.zeros(len(channels), dtype=CONTEXT)
    found["channel"], found["weekly"], found["half"], found["limit"], found["fewest"] = channels, True, 1.0, 3.0, 1.0
    found["days"], found["spread"] = 127, 0.1
    return found


def test_a_state_comes_back_bit_by_bit() -> None:
    table = SensorTable(3, 10)
    for at, channels in enumerate([(0,), (), (0, 2), (1,)]):
        table.set(table.add(f"press-{at}"), {"live": True, "contexts": profiles(*channels)})
    slots = np.arange(2, 4)
    rows = np.arange(4 * HOURS)
    judged = table.contexts.judge(
        slots, np.array([0, 48, 96]), MONDAY + rows * HOUR // 2, np.random.default_rng(0).normal(size=(96, 3)) * 3,
        (np.zeros((2, 3)), np.ones((2, 3))), None, table.name,
    )  # fmt: skip
    assert judged is not None
    judged.states["streak"][:, 5:9] = -1, 2, 1, -2
    table.contexts.keep(judged, rows % 7 == 0)
    copy = SensorTable(3, 10)
    copy.unpack(table.pack(table.occupied()))
    for slot in range(4):
        assert copy.contexts.of(slot).tobytes() == table.contexts.of(slot).tobytes()
    assert [len(copy.contexts.of(slot)) for slot in range(4)] == [1, 0, 2, 1]
    with_hours = copy.stored_bytes
    for slot in range(4):
        copy.contexts.pop(slot)
    assert with_hours - copy.stored_bytes == 4 * STATE.itemsize


def test_hours_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = SensorTable(1, 10)
    table.set(table.add("press"), {"live": True, "contexts": profiles(0)})
    monkeypatch.setattr(ContextTable, "pack", lambda _, names: {names[0]: (b"less", b"", b"")})
    with pytest.raises(StateError, match="the stored hours were written by another version"):
        SensorTable(1, 10).unpack(table.pack(table.occupied()))


def test_who_is_forgotten_or_warms_up_again_leaves_its_place_to_others() -> None:
    table = SensorTable(1, 10)
    first, second = table.add("a"), table.add("b")
    for slot in (first, second):
        table.set(slot, {"live": True, "contexts": profiles(0)})
    table.remove(first)
    table.set(second, {"live": False})
    assert not table.contexts
    states = ContextTable()
    for turn in range(3):
        for slot in range(100):
            states.put(slot, profiles(*range(turn + 1)))
    assert sum(len(states.of(slot)) for slot in range(100)) == 300
    states.put(7, profiles())
    assert 7 not in states
    assert states.stored_bytes == 297 * STATE.itemsize


def test_rows_that_begin_a_day() -> None:
    states = ContextTable(Hours("Europe/Berlin"))
    states.put(1, profiles(0))
    times = np.tile(MONDAY + np.arange(48) * HOUR, 2)
    found = states.new_days(np.array([0, 1]), np.array([0, 48]), np.array([48, 96]), times)
    assert found.tolist() == [48 + 23, 48 + 47]
    assert DAY == 24 * HOUR


def test_the_worst_channel_of_a_row_is_told() -> None:
    states = ContextTable()
    states.put(0, profiles(0, 1))
    values = np.tile([2.0, -4.0], (12, 1))
    values[:, 0] *= np.arange(12) % 2  # every other row: its sum falls again
    judged = states.judge(
        np.array([0]), np.array([0, 12]), MONDAY + np.arange(12) * HOUR, values,
        (np.zeros((1, 2)), np.ones((1, 2))), None, str,
    )  # fmt: skip
    assert judged is not None
    told = judged.told
    assert told["score"][:2].tolist() == [0, 0]
    assert told["score"][2] == 1.0
    assert set(told["channel"][2:].tolist()) == {1}
    assert told["since"][2:].tolist() == [MONDAY] * 10
    assert told["hour"].tolist()[2:] == list(range(2, 12))
