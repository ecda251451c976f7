"""The sensor table: growth, slots used again, and packing, generic over whatever columns are declared."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from detector.detection.columns import bits_of, columns, flags_of
from detector.detection.opened import Episode
from detector.detection.signals import WINDOW
from detector.detection.table import CHUNK, SensorTable, StateError
from detector.detection.warmup import WarmUp

SHAPES = [(1, 10), (1, 1), (3, 5)]
EPISODE = Episode("id", 3, 2**62, 2**62 + 1, 0.5, "critical", 9, None, 2**62 + 7)


def fill(table: SensorTable, slot: int, rng: np.random.Generator) -> None:
    """Random bits in every cell of a sensor with a profile, and something in everything beside."""
    table.set(slot, {"live": True})
    for column in table.columns:
        if column.name == "live":
            continue
        if column.dtype == "?":
            table[column.name][slot] = rng.random(column.shape) < 0.5
        else:
            cell = np.zeros(column.shape, column.dtype)
            table[column.name][slot] = np.frombuffer(rng.bytes(cell.nbytes), column.dtype).reshape(column.shape)
    if rng.random() < 0.7:
        values = tuple(rng.normal(0, 1e9, table.channels).tolist())
        table.held[slot] = [(int(time), values) for time in rng.integers(0, 2**62, 3)]
    if rng.random() < 0.7:
        table.warming[slot] = WarmUp(table.channels)
        table.warming[slot].extend(rng.integers(0, 2**62, 70), rng.normal(0, 1, (70, table.channels)))
    if rng.random() < 0.7:
        table.episodes[slot] = Episode("id", 3, 2**62, 2**62 + 1, rng.normal(), "critical", 9, None, 2**62 + 7)


def live(table: SensorTable, sensor: str) -> int:
    """A new sensor that has a profile."""
    slot = table.add(sensor)
    table.set(slot, {"live": True})
    return slot


def content(table: SensorTable, sensor: str) -> dict[str, Any]:
    """All of a sensor, to the bit."""
    slot = table.slots[sensor]
    warming = table.warming.get(slot)
    return {
        **{column.name: table[column.name][slot].tobytes() for column in table.columns},
        "held in order": table.held.get(slot),
        "episode": table.episodes.get(slot),
        "warming": warming and (warming.count, warming.times.tobytes(), warming.values.tobytes()),
    }


@pytest.mark.parametrize(("channels", "last_scores"), SHAPES)
def test_a_new_sensor_has_the_declared_empty_cells_once_it_has_a_profile(channels: int, last_scores: int) -> None:
    table = SensorTable(channels, last_scores)
    slot = table.add("a")
    for live in (False, True, False):
        table.set(slot, {"live": live})
        for column in table.columns:
            cell = table[column.name][slot]
            assert cell.shape == column.shape
            assert cell.dtype == column.dtype
            empty = live if column.name == "live" else column.empty if live or column.early else 0
            np.testing.assert_array_equal(cell, np.full(column.shape, empty, column.dtype))


def test_of_a_sensor_without_a_profile_little_is_stored() -> None:
    table = SensorTable(1, 10)
    for i in range(100):
        table.warming[table.add(f"s{i}")] = WarmUp(1)
        table.warming[i].extend(np.array([i]), np.array([[float(i)]]))
    packed = table.pack(table.occupied())
    assert len(packed) < 100 * 200
    other = SensorTable(1, 10)
    other.unpack(packed)
    assert [content(other, name) for name in table.slots] == [content(table, name) for name in table.slots]


def test_what_the_release_before_stored_of_every_cell_is_taken_over() -> None:
    rng = np.random.default_rng(3)
    table, other = SensorTable(1, 10), SensorTable(1, 10)
    for name in "ab":
        fill(table, table.add(name), rng)
    table.warming[table.add("c")] = WarmUp(1)
    packed = msgspec.msgpack.decode(table.pack(table.occupied()))
    packed["format"] = 1
    packed["cells"] = {c.name: table[c.name][:3].tobytes() for c in table.columns}
    other.unpack(msgspec.msgpack.encode(packed))
    assert [content(other, name) for name in "abc"] == [content(table, name) for name in "abc"]


def test_an_open_episode_keeps_its_cells_over_a_warm_up() -> None:
    rng = np.random.default_rng(3)
    table, other = SensorTable(1, 10), SensorTable(1, 10)
    for name in "ab":
        fill(table, table.add(name), rng)
    table.episodes = {0: EPISODE}
    before = content(table, "a")["open"], content(table, "a")["peak"]
    table.set(0, {"live": False})
    table.set(1, {"live": False})
    assert (content(table, "a")["open"], content(table, "a")["peak"]) == before
    other.unpack(table.pack(table.occupied()))
    assert [content(other, name) for name in "ab"] == [content(table, name) for name in "ab"]
    other.set(other.slots["a"], {"live": True})
    assert (content(other, "a")["open"], content(other, "a")["peak"]) == before


def test_an_episode_that_was_stored_without_its_cells_has_some() -> None:
    table, other = SensorTable(1, 10), SensorTable(1, 10)
    table.put_episode(table.add("a"), EPISODE)
    packed = msgspec.msgpack.decode(table.pack(table.occupied()))
    packed["format"] = 2
    packed["cells"] |= {c.name: b"" for c in table.columns if not c.early}
    other.unpack(msgspec.msgpack.encode(packed))
    assert content(other, "a") == content(table, "a")
    assert other["open"][0]
    assert other["peak"][0] == EPISODE.ln_threshold


def test_a_sensor_is_small() -> None:
    one, two = (
        sum(table[c.name][:0].dtype.itemsize * int(np.prod(c.shape)) for c in table.columns)
        for table in (SensorTable(1, 10), SensorTable(2, 10))
    )
    assert one <= 2800
    assert two - one <= 1500  # of which 64 are of a machine


def test_flags_of_a_window_are_kept_as_bits() -> None:
    flags = np.random.default_rng(0).random((7, WINDOW)) < 0.3
    bits = bits_of(flags)
    assert bits.shape == (7, 13)
    assert np.array_equal(flags_of(bits), flags)
    assert np.array_equal(flags_of(bits[3]), flags[3])


@pytest.mark.parametrize(("channels", "last_scores"), SHAPES)
def test_packing_keeps_every_bit(channels: int, last_scores: int) -> None:
    rng = np.random.default_rng(channels)
    table = SensorTable(channels, last_scores)
    names = [f"s{i}" for i in range(9)]
    for name in names:
        fill(table, table.add(name), rng)
    table.remove(table.slots["s4"])
    del names[4]

    other = SensorTable(channels, last_scores)
    other.add("here before")
    other.unpack(table.pack(table.occupied()))
    assert sorted(other.slots) == sorted(["here before", *names])
    assert [content(other, name) for name in names] == [content(table, name) for name in names]


def test_packing_some_sensors_replaces_those_and_no_others() -> None:
    rng = np.random.default_rng(0)
    table, other = SensorTable(1, 10), SensorTable(1, 10)
    for name in ("a", "b", "c"):
        fill(table, table.add(name), rng)
    for name in ("c", "b", "a"):
        fill(other, other.add(name), rng)
    kept = content(other, "b")
    other.unpack(table.pack(np.array([table.slots["a"], table.slots["c"]])))
    assert content(other, "a") == content(table, "a")
    assert content(other, "b") == kept
    assert content(other, "c") == content(table, "c")


def test_an_empty_table_packs_to_nothing() -> None:
    table = SensorTable(2, 10)
    table.unpack(SensorTable(2, 10).pack(np.empty(0, dtype=np.intp)))
    assert len(table) == 0


def test_what_another_declaration_packed_is_refused() -> None:
    table = SensorTable(1, 10)
    table.add("a")
    packed = table.pack(table.occupied())
    other = SensorTable(2, 10)
    with pytest.raises(StateError, match="another configuration"):
        other.unpack(packed)
    assert len(other) == 0
    for broken in (b"", b"nonsense", packed[:-1]):
        with pytest.raises(StateError, match="cannot be read"):
            table.unpack(broken)


def test_what_was_packed_before_there_were_some_columns_is_taken_over() -> None:
    earlier = tuple(column for column in columns(1, 10) if not column.added)
    assert len(earlier) < len(columns(1, 10))
    table, other = SensorTable(1, 10, earlier), SensorTable(1, 10)
    fill(table, table.add("a"), np.random.default_rng(1))
    slot = other.add("a")
    other["muted"][slot] = True
    assert other.unpack(table.pack(table.occupied())) == [slot]
    taken, stored = content(other, "a"), content(table, "a")
    assert {name: taken[name] for name in stored} == stored
    assert not other["muted"][slot]


@pytest.mark.parametrize(
    ("width", "taken"), [(4, [7, 8, 9]), (10, list(range(1, 10))), (13, [None] * 3 + list(range(1, 10)))]
)
def test_of_last_scores_the_newest_are_taken_over(width: int, taken: list[float | None]) -> None:
    table, other = SensorTable(1, 10), SensorTable(1, width)
    slots = np.array([live(table, name) for name in "ab"])
    table["recent"][slots] = [range(1, 10), range(11, 20)]
    other.unpack(table.pack(slots))
    cells = other["recent"][:2].tolist()
    assert [None if cell != cell else cell for cell in cells[0]] == taken
    assert cells[1][-3:] == [17, 18, 19]


def test_growth_keeps_what_is_there() -> None:
    rng = np.random.default_rng(1)
    table = SensorTable(1, 2)
    fill(table, table.add("first"), rng)
    before = content(table, "first")
    for i in range(2 * CHUNK):
        table.add(f"s{i}")
    assert len(table) == 2 * CHUNK + 1
    assert content(table, "first") == before
    assert table.occupied().tolist() == list(range(2 * CHUNK + 1))


def test_a_slot_is_used_again_and_begins_empty() -> None:
    rng = np.random.default_rng(2)
    table = SensorTable(1, 10)
    for name in ("a", "b", "c"):
        fill(table, table.add(name), rng)
    fresh = SensorTable(1, 10)
    fresh.add("d")

    slot = table.slots["b"]
    table.remove(slot)
    assert (len(table), table.occupied().tolist()) == (2, [0, 2])
    for refused in (table.name, table.remove):
        with pytest.raises(KeyError):
            refused(slot)
    assert table.add("d") == slot
    assert table.name(slot) == "d"
    assert content(table, "d") == content(fresh, "d")


def test_what_was_taken_can_be_changed_without_harm_and_put_back() -> None:
    table = SensorTable(1, 10)
    slots = np.array([live(table, name) for name in "abc"])[[2, 0]]
    cells = table.records(slots)
    cells["credit"] += [1, 2]
    cells["peaks"][:, 0] = 7
    assert table["credit"][:3].tolist() == [0, 0, 0]
    table.put_records(slots, cells)
    assert table["credit"][:3].tolist() == [2, 0, 1]
    assert table["peaks"][:3, 0].tolist() == [7, -np.inf, 7]


def test_a_warm_up_grows_as_rows_come() -> None:
    warming = WarmUp(2)
    times, values = np.arange(1000), np.arange(2000.0).reshape(1000, 2)
    for first, last in ((0, 1), (1, 60), (60, 65), (65, 65), (65, 1000)):
        warming.extend(times[first:last], values[first:last])
        assert warming.count == last
        assert warming.times.tolist() == times[:last].tolist()
        assert warming.values.tolist() == values[:last].tolist()


def test_a_further_channel_takes_at_most_1450_bytes() -> None:
    sizes = [sum(np.dtype(c.dtype).itemsize * int(np.prod(c.shape)) for c in columns(n, 10)) for n in (2, 3, 38)]
    assert sizes[1] - sizes[0] == (sizes[2] - sizes[1]) / 35 <= 1450
