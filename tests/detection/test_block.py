"""Blocks of rows over rings of windows: which rows complete one, how it looked when, and what is kept of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from detector.arrays import F32, F64
from detector.detection.block import Block, rings_of
from detector.detection.kernel.choice import choose
from detector.detection.signals import WINDOW
from detector.detection.table import SensorTable
from detector.detection.windows import WindowRows, newest_times, window_of

HEADS = (0, 1, 57, 99)


def block_of(
    channels: int, lengths: Sequence[int], imputed: Sequence[int] = (), *, head: int = 0, filled: int = WINDOW
) -> tuple[SensorTable, Block, WindowRows]:
    """A block over sensors with windows; row i of sensor s is 1000 s + i, the rows before are negative."""
    table = SensorTable(channels, 10)
    past = np.roll(np.arange(-WINDOW, 0), head)
    for sensor in range(len(lengths)):
        slot = table.add(f"s{sensor}")
        table.set(slot, {"live": True, "head": head, "filled": filled, "times": 1000 * sensor + past})
        table["values"][slot] = (1000 * sensor + past)[:, None] + np.arange(channels) / 4
    last = np.cumsum(np.array(lengths, dtype=np.intp))
    first = last - np.array(lengths, dtype=np.intp)
    times = np.concatenate([1000 * sensor + np.arange(length) for sensor, length in enumerate(lengths)])
    rows = WindowRows(
        slots=np.arange(len(lengths)), first=first, last=last, times=times,
        values=times[:, None] + np.arange(channels) / 4, records=np.arange(len(times)), elements=np.zeros_like(times),
        restarts=np.zeros(len(times), dtype=bool), imputed=np.isin(np.arange(len(times)), imputed),
    )  # fmt: skip
    return table, Block(table, rows, np.arange(len(lengths)), first, last), rows


def windows(table: SensorTable, block: Block) -> tuple[F32, F64]:
    """What the kernel makes of the windows that the block's rows complete; its sensors' values are not scaled."""
    channels = block.values.shape[1]
    inputs = np.empty((len(block.owner), WINDOW, channels), dtype=np.float32)
    raw = np.empty((2 * channels, len(block.owner)))
    gather = choose().kernel.windows(table.records(block.slots), rings_of(table), block.rows, raw)
    gather(slice(0, len(inputs)), inputs)
    return inputs, raw


@pytest.mark.parametrize("lengths", [[1], [3, 3], [2, 5, 1, 5], [150, 1], [1200, 7]])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("head", HEADS)
def test_every_row_has_the_window_that_it_completes(channels: int, lengths: list[int], head: int) -> None:
    table, block, _ = block_of(channels, lengths, head=head)
    assert block.first.tolist() == [0, *itertools.accumulate(lengths)]
    inputs, raw = windows(table, block)
    ticks = [tick for length in lengths for tick in range(length)]
    for at, (sensor, tick) in enumerate(zip(block.owner.tolist(), ticks, strict=True)):
        window = 1000.0 * int(block.slots[sensor]) + np.arange(tick - WINDOW + 1, tick + 1)
        for channel in range(channels):
            assert inputs[at, :, channel].tolist() == (window + channel / 4).tolist()
            assert raw[channels + channel, at] == (window[-1] + channel / 4) ** 2
        times, values, imputed = block.window_at(table, sensor, tick)
        assert times.tolist() == window.tolist()
        assert values[:, 0].tolist() == window.tolist()
        assert not imputed.any()


def test_imputed_rows_fill_windows_and_complete_none() -> None:
    table, block, _rows = block_of(1, [4, 6], imputed=[1, 2, 4, 7, 8])
    assert block.slots.tolist() == [0, 1]
    assert block.ticks.tolist() == [2, 3]
    assert block.times.tolist() == [0, 3, 1001, 1002, 1005]
    assert block.values[:, 0].tolist() == [0, 3, 1001, 1002, 1005]
    assert block.records.tolist() == [0, 3, 5, 6, 9]
    times, _, imputed = block.window_at(table, 1, 2)
    assert times[-6:].tolist() == list(range(1000, 1006))
    assert imputed[-6:].tolist() == [True, False, False, True, True, False]
    assert block.window_at(table, 1, -1)[0][-1] == 999
    assert block.record_before(1) == -1


def test_rows_before_a_window_is_complete_fill_it_and_are_not_scored() -> None:
    table, block, _rows = block_of(1, [2, 6], imputed=[3], filled=96)
    assert (block.ticks.tolist(), block.first.tolist()) == ([0, 3], [0, 0, 3])
    assert (block.filling.tolist(), block.filling_owner.tolist()) == ([0, 1, 2, 4], [0, 0, 1, 1])
    assert block.times.tolist() == [1003, 1004, 1005]
    assert windows(table, block)[0][:, -1, 0].tolist() == [1003, 1004, 1005]
    assert (block.record_before(0), block.record_before(1)) == (1, 4)
    assert block.window_at(table, 1, -1)[0][-3:].tolist() == [1000, 1001, 1002]
    assert block.window_at(table, 0, -1)[0][-3:].tolist() == [-1, 0, 1]
    block.store(table, np.arange(8))
    assert table["filled"][:2].tolist() == [98, WINDOW]


@pytest.mark.parametrize("lengths", [[2, 2], [1, 7, 130], [350, 100]])
@pytest.mark.parametrize("head", HEADS)
def test_stored_windows_are_the_last_hundred_rows(lengths: list[int], head: int) -> None:
    table, block, rows = block_of(2, lengths, imputed=[0, len(range(sum(lengths))) - 2], head=head)
    offsets = 5 + 7 * np.arange(len(rows.times))
    block.store(table, offsets)
    for sensor, length in enumerate(lengths):
        expected = 1000 * sensor + np.arange(length - WINDOW, length)
        times, values, imputed = window_of(table, sensor)
        assert times.tolist() == expected.tolist()
        assert values[:, 1].tolist() == (expected + 0.25).tolist()
        old = np.zeros(WINDOW, dtype=bool)
        mine = np.concatenate([old, rows.imputed[rows.first[sensor] : rows.last[sensor]]])[-WINDOW:]
        assert imputed.tolist() == mine.tolist()
        assert table["offset"][sensor] == offsets[rows.last[sensor] - 1]
    assert newest_times(table, block.slots).tolist() == rows.times[rows.last - 1].tolist()
    assert table["filled"][: len(lengths)].tolist() == [WINDOW] * len(lengths)
