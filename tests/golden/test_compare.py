"""The comparison with what was recorded: it sees every change but the last digits of floats."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.golden.cases import ALERTS, CAMERAS, LETTERS, MACHINES, PLANT, Json
from tests.golden.compare import alerts_differ, letters_differ, since_last

RECORDED = {case.name: case.recorded(ALERTS) for case in (PLANT, MACHINES, CAMERAS)}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all scalars; of lists the last entry stands for all."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        if value:
            yield from places(value[-1], (*path, len(value) - 1))
    else:
        yield path


def change(alert: Json, path: tuple[Any, ...]) -> None:
    """Make something else of the scalar at a path."""
    holder: Any = alert
    for part in path[:-1]:
        holder = holder[part]
    value = holder[path[-1]]
    if isinstance(value, bool):
        holder[path[-1]] = not value
    elif isinstance(value, float):
        holder[path[-1]] = value * 1.01 + 0.01
    elif isinstance(value, int):
        holder[path[-1]] = value + 1
    elif path[-1] == "heatmap" and value is not None:
        holder[path[-1]] = picture(value, 3)
    else:
        holder[path[-1]] = "other"


def picture(value: str, more: int) -> str:
    """The same heat map, one pixel of it brighter or darker by that much."""
    image = Image.open(io.BytesIO(base64.b64decode(value)))
    grey = image.tobytes()[0]
    image.putpixel((0, 0), grey + more if grey < 128 else grey - more)
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize("name", RECORDED)
def test_a_change_of_anything_is_seen(name: str) -> None:
    recorded = RECORDED[name]
    assert not alerts_differ(recorded, copy.deepcopy(recorded))
    unlike = {tuple(alert): alert for alert in recorded}  # one for each set of keys
    unlike |= {alert["reason"]: alert for alert in recorded}
    for alert in unlike.values():
        paths = list(places(alert))
        assert len(paths) > 20
        for path in paths:
            other = copy.deepcopy(alert)
            change(other, path)
            assert alerts_differ([alert], [other]), path


def test_a_key_that_is_gone_is_seen_and_one_that_was_added_is_not() -> None:
    alert = RECORDED["plant"][0]
    more = {**alert, "unit": "bar", "source": {**alert["source"], "instance": "one"}}
    assert not alerts_differ([alert], [more])
    assert "unit is missing" in alerts_differ([more], [alert])


def test_the_last_digits_of_floats_and_the_shades_of_a_heat_map_do_not_count() -> None:
    alert = RECORDED["cameras"][0]
    other = {**alert, "score": alert["score"] * 1.00005, "heatmap": picture(alert["heatmap"], 2)}
    assert not alerts_differ([alert], [other])


def test_another_order_a_missing_alert_and_one_too_many_are_seen() -> None:
    first, second, third = RECORDED["plant"][:3]
    assert alerts_differ([first, second], [second, first])
    assert alerts_differ([first, second], [first])
    assert alerts_differ([first, second], [first, second, third])


def test_of_a_dead_letter_the_message_may_change_and_the_reason_may_not() -> None:
    letters = PLANT.recorded(LETTERS)
    assert not letters_differ(letters, [{**letter, "message": "other words"} for letter in letters])
    for key in ("reason", "offset", "value_base64", "elements"):
        assert letters_differ(letters, [{**letter, key: "other"} for letter in letters])
    assert letters_differ(letters, letters[::-1])


def test_of_updates_the_rows_that_no_message_before_showed_are_left() -> None:
    def message(event: str, *times: int) -> Json:
        return {"alert_id": "a", "event": event, "window": {"timestamps": list(times), "values": {"x": list(times)}}}

    told = [message("opened", 1, 2), message("updated", 2, 3, 4), message("updated", 3, 4), message("closed", 3, 4)]
    cut = since_last(told)
    assert [alert["window"]["timestamps"] for alert in cut] == [[1, 2], [3, 4], [], [3, 4]]
    assert [alert["window"]["values"]["x"] for alert in cut] == [[1, 2], [3, 4], [], [3, 4]]
    assert since_last(cut) == cut
