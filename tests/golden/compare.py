"""Whether alerts and dead letters are those that were recorded: all but floats exactly, whatever was added aside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.golden.cases import Json

RELATIVE: Final = 1e-4
"""By how much floats may differ: processors add in different orders."""
LEAST: Final = 1e-5
"""The same for those of a list, in units of its largest number: an error may be next to nothing beside others."""
GREY: Final = 2
"""By how much a pixel of a heat map may differ, of 255."""
OF_A_LETTER: Final = ("stream", "partition", "offset", "reason", "elements", "truncated", "key", "value_base64")
"""What must stay as it was of a dead letter; its message is for people."""
CLAIMS: Final = frozenset(("started_at", "ended_at", "score", "p_value", "channels", "what", "region", "verdict"))
"""What an alert claims of a fault, and what people say of it. Releases differ in it, and less is known of an episode
that another one began."""
_SHOWN: Final = 10


def expect_alerts(expected: Sequence[Json], found: Sequence[Json]) -> None:
    """Raise AssertionError, with what differs, unless these are the alerts."""
    if told := alerts_differ(expected, found):
        raise AssertionError(told)


def without_claims(alerts: Sequence[Json]) -> list[Json]:
    """The alerts without what they claim: what they are about, when they came, and what they show."""
    return [{key: value for key, value in alert.items() if key not in CLAIMS} for alert in alerts]


def since_last(alerts: Sequence[Json]) -> list[Json]:
    """The alerts with the rows of `updated` that no message before showed, as releases from 0.9 on publish them."""
    newest: dict[str, int] = {}
    found = []
    for alert in alerts:
        window = alert.get("window")
        if window:
            last = newest.get(alert["alert_id"])
            if alert["event"] == "updated" and last is not None:
                new = sum(time > last for time in window["timestamps"])
                alert = alert | {"window": {name: _tail(column, new) for name, column in window.items()}}
            newest[alert["alert_id"]] = max(window["timestamps"], default=last or 0)
        found.append(alert)
    return found


def _tail(column: Any, count: int) -> Any:
    if isinstance(column, dict):
        return {name: _tail(one, count) for name, one in column.items()}
    return column[len(column) - count :]


def expect_letters(expected: Sequence[Json], found: Sequence[Json]) -> None:
    """The same of dead letters."""
    if told := letters_differ(expected, found):
        raise AssertionError(told)


def alerts_differ(expected: Sequence[Json], found: Sequence[Json]) -> str:
    """What differs, a line each; empty if nothing does. Keys may have been added."""
    return _report(expected, found, name_of, differences)


def letters_differ(expected: Sequence[Json], found: Sequence[Json]) -> str:
    """The same of dead letters."""
    return _report(
        expected,
        found,
        lambda letter: f"{letter['stream']}:{letter['partition']}:{letter['offset']}",
        lambda one, other: differences(
            {key: one[key] for key in OF_A_LETTER if key in one}, other
        ),
    )  # fmt: skip


def name_of(alert: Json) -> str:
    """What identifies an alert, in words."""
    return f"{alert['alert_id']}:{alert['sequence']} ({alert['event']} of {alert['sensor_id']})"


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            place = f"{path}.{key}" if path else key
            if key not in found:
                yield f"{place} is missing"
            elif key == "heatmap" and value is not None:
                yield from _pictures(value, found[key], place)
            else:
                yield from differences(value, found[key], place)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{path} has {len(found)} entries, not {len(expected)}"
        least = LEAST * max((abs(value) for value in expected if isinstance(value, float)), default=0.0)
        for index, (one, other) in enumerate(zip(expected, found, strict=False)):
            if not _close(one, other, least):
                yield from differences(one, other, f"{path}[{index}]")
    elif not _close(expected, found, 0.0):
        yield f"{path} is {found!r}, not {expected!r}"


def _close(expected: Any, found: Any, least: float) -> bool:
    """Whether two scalars count as the same; a float may have been written as a whole number."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, found))
    if numbers and (isinstance(expected, float) or isinstance(found, float)):
        return bool(abs(expected - found) <= max(RELATIVE * abs(expected), least))
    return type(expected) is type(found) and bool(expected == found)


def _pictures(expected: str, found: Any, path: str) -> Iterator[str]:
    one, other = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(value))), np.int16) for value in (expected, str(found))
    )
    if one.shape != other.shape:
        yield f"{path} has the form {other.shape}, not {one.shape}"
    elif (difference := int(np.abs(one - other).max())) > GREY:
        yield f"{path} differs by up to {difference} of 255"


def _report(
    expected: Sequence[Json],
    found: Sequence[Json],
    name: Callable[[Json], str],
    compare: Callable[[Json, Json], Iterator[str]],
) -> str:
    lines: list[str] = []
    for one, other in zip_longest(expected, found):
        if one is None or other is None or name(one) != name(other):
            names = [name(value) if value is not None else "nothing" for value in (one, other)]
            lines.append(f"{names[1]} in place of {names[0]}")
        else:
            lines += [f"{name(one)}: {line}" for line in compare(one, other)]
    if not lines:
        return ""
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([f"{len(found)} for {len(expected)}", *lines[:_SHOWN], *more])
