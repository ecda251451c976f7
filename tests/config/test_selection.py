"""Which sensors are watched."""

from __future__ import annotations

import pytest

from detector.config.selection import Selection


@pytest.mark.parametrize(
    ("include", "exclude", "watched"),
    [
        (["*"], [], ["pump-1", "Pump-2", "line/a/7", "fan[1]"]),
        (["pump-*"], [], ["pump-1"]),
        (["pump-*", "line/*"], ["line/a/*"], ["pump-1"]),
        (["*"], ["*"], []),
        ([], [], []),
        (["fan[[]1]"], [], ["fan[1]"]),
        (["?ump-[12]"], ["pump-?"], ["Pump-2"]),
    ],
)
def test_a_sensor_is_watched_if_included_and_not_excluded(
    include: list[str], exclude: list[str], watched: list[str]
) -> None:
    selection = Selection(include, exclude)
    assert [one for one in ("pump-1", "Pump-2", "line/a/7", "fan[1]") if selection.includes(one)] == watched
