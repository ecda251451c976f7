"""Time zones by the data of the package alone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import TZPATH, ZoneInfo, reset_tzpath

import pytest

from detector.zones import DATA, is_zone, offsets, zone_named


def test_the_machines_own_data_count_for_nothing() -> None:
    before = TZPATH
    reset_tzpath(to=[])
    try:
        zone_named.cache_clear()
        moment = datetime(2027, 7, 1, tzinfo=UTC).astimezone(zone_named("Europe/Berlin"))
    finally:
        reset_tzpath(to=before)
    assert moment.hour == 2
    assert DATA[:2] == "20"


def test_the_changes_of_a_zone_are_known_to_the_second() -> None:
    begin, ahead = offsets("Europe/Berlin")
    autumn = int(datetime(2027, 10, 31, 1, tzinfo=UTC).timestamp())
    at = begin.tolist().index(autumn)
    assert ahead[at - 1 : at + 1].tolist() == [7200, 3600]


@pytest.mark.parametrize("name", ["Africa/Casablanca", "Australia/Lord_Howe", "America/New_York", "Asia/Kathmandu"])
def test_between_its_changes_a_zone_says_the_same(name: str) -> None:
    begin, ahead = offsets(name)
    zone = zone_named(name)
    for first, seconds in list(zip(begin.tolist(), ahead.tolist(), strict=True))[1:]:
        for moment, offset in ((first, seconds), (first - 1, None)):
            found = datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset()
            assert found is not None
            assert offset is None or found.total_seconds() == offset


@pytest.mark.parametrize("name", ["", "Berlin", "/etc/localtime", "../zones", "Europe", "europe/berlin"])
def test_what_is_no_zone(name: str) -> None:
    assert not is_zone(name)


def test_names_of_before_are_zones_too() -> None:
    assert is_zone("US/Pacific")
    assert isinstance(zone_named("UTC"), ZoneInfo)
