"""The state of all partitions, stored by partition."""

from __future__ import annotations

import msgspec
import pytest

from detector.incidents.state import Keeper, State, newest
from detector.streams.base import Partition

ONE, TWO = Partition("alerts", 0), Partition("alerts", 1)


def test_whoever_is_stored_first_has_the_whole_however_often_it_is_asked() -> None:
    keeper = Keeper(State())
    keeper.changed(ONE, 3)
    stored = {TWO: keeper.pack(TWO), ONE: keeper.pack(ONE)}
    assert keeper.pack(TWO) == stored[TWO]
    assert len(stored[ONE]) < len(stored[TWO])
    found = newest(stored)
    assert found is not None
    assert found.positions == {"alerts:0": 3}


def test_an_older_whole_does_not_count_where_a_newer_one_is_lost() -> None:
    keeper = Keeper(State())
    keeper.changed(ONE, 3)
    first = keeper.pack(ONE)
    keeper.changed(TWO, 8)
    keeper.pack(TWO)
    mark = keeper.pack(ONE)
    assert newest({ONE: first, TWO: None}) is not None  # the other one was not begun then
    assert newest({ONE: mark, TWO: None}) is None
    keeper.changed(ONE, 9)
    assert newest({ONE: keeper.pack(ONE), TWO: None}) is None  # it was begun, and its state is gone


def test_without_any_there_is_none() -> None:
    assert newest({ONE: None, TWO: None}) is None


def test_another_format_is_refused() -> None:
    data = msgspec.msgpack.encode({"version": 1, "whole": State(format=2)})
    with pytest.raises(ValueError, match="format 2"):
        newest({ONE: data})
