"""Time zones: how far their clocks are ahead of UTC, by the data of the package `tzdata` and no other.

The machine's own data change with its updates, and results with them. Those of the package come with the release that
is installed, and `DATA` names them: they belong to what results rest on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import tzdata  # type: ignore[import-untyped]

from detector.arrays import I64

DATA: Final[str] = tzdata.IANA_VERSION
"""The release of the zone data, such as 2026f."""
_FIRST, _LAST = datetime(1999, 12, 1, tzinfo=UTC), datetime(2100, 2, 1, tzinfo=UTC)
_STEP: Final = timedelta(days=20)
"""No zone changes its offset twice within it."""


@lru_cache(256)
def zone_named(name: str) -> ZoneInfo:
    """A zone by its name, such as Europe/Berlin. Raises KeyError where there is none."""
    package = resources.files("tzdata")
    if name not in package.joinpath("zones").read_text("utf-8").splitlines():
        raise KeyError(name)
    with package.joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def is_zone(name: str) -> bool:
    """Whether there is a time zone of this name.

    >>> is_zone("Europe/Berlin"), is_zone("Berlin"), is_zone("../etc/passwd")
    (True, False, False)
    """
    try:
        zone_named(name)
    except KeyError:
        return False
    return True


@cache
def offsets(name: str) -> tuple[I64, I64]:
    """From which instants on (seconds, ascending) a zone is how many seconds ahead of UTC, from 2000 to 2100.

    >>> begin, ahead = offsets("Europe/Berlin")
    >>> ahead[:3].tolist()
    [3600, 7200, 3600]
    """
    zone = zone_named(name)
    begin, ahead = [_seconds(_FIRST)], [_ahead(zone, _FIRST)]
    before = _FIRST
    while before < _LAST:
        after = before + _STEP
        if _ahead(zone, after) != ahead[-1]:
            begin.append(_change(zone, before, after))
            ahead.append(_ahead(zone, after))
        before = after
    return np.array(begin), np.array(ahead)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> int:
    """The second between two instants at which the offset is another."""
    low, high, old = _seconds(before), _seconds(after), _ahead(zone, before)
    while high - low > 1:
        middle = (low + high) // 2
        if _ahead(zone, datetime.fromtimestamp(middle, UTC)) == old:
            low = middle
        else:
            high = middle
    return high


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _ahead(zone: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
