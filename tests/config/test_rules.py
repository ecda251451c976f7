"""Which sensors are watched, and what applies to each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from detector.config.load import MinDeviation, load_config
from detector.config.rules import ENDLESS, UNWATCHED, RuleBook, Selection
from detector.errors import UserError
from tests import plant
from tests.plant import SECOND

PUMPS = {"match": "pump-*", "alerts": {"close_after": 7, "false_alarms": None}, "window": {"max_gap": "3s"}}
PUMP_7 = {"match": "pump-7", "alerts": {"open_after": {"n": 3, "of": 40}}, "silence_after": "9s"}
OFF = {"match": "*-off", "enabled": False}


def book_of(*overrides: dict[str, Any], **settings: Any) -> RuleBook:
    return RuleBook(plant.readings_config(overrides=overrides, close_after=50, **settings))


def test_without_overrides_the_settings_of_all_apply() -> None:
    book = book_of(window={"max_fill": 3}, open_after=(2, 6))
    assert book.number("anything") == 0
    assert book.of("anything").alerts.close_after == 50
    assert (book.open_after.tolist(), book.close_after.tolist()) == ([[2, 6]], [50])
    assert (book.max_gap.tolist(), book.max_fill.tolist(), book.most_rows) == ([ENDLESS], [3], 6)


def test_the_first_override_that_matches_counts_and_no_other() -> None:
    book = book_of(PUMP_7, PUMPS, OFF, silence_after="auto")
    assert [book.number(name) for name in ("fan", "pump-7", "pump-8", "fan-off", "pump-off")] == [
        0, 1, 2, UNWATCHED, 2,
    ]  # fmt: skip
    # What an override does not set is as for all, whatever a later one says.
    seven, other = book.of("pump-7"), book.of("pump-8")
    assert (seven.alerts.close_after, seven.open_after, seven.silence_after) == (50, (3, 40), 9 * SECOND)
    assert (other.alerts.close_after, other.open_after, other.silence_after) == (7, (10, 10), "auto")
    assert (seven.max_gap, other.max_gap, other.alerts.false_alarms) == (None, 3 * SECOND, None)
    assert book.max_gap.tolist() == [ENDLESS, ENDLESS, 3 * SECOND, ENDLESS]
    assert book.most_rows == 40


def test_null_in_an_override_is_a_value() -> None:
    settings: dict[str, Any] = {"window": {"max_gap": 5 * SECOND}, "max_duration": 9 * SECOND}
    book = book_of({"match": "a", "alerts": {"max_duration": None}, "window": {"max_gap": None}}, **settings)
    assert (book.of("a").max_gap, book.of("a").alerts.max_duration) == (None, None)
    assert (book.of("b").max_gap, book.of("b").alerts.max_duration) == (5 * SECOND, 9 * SECOND)
    assert book.longest_durations == [9 * SECOND]


def test_what_stands_in_an_override_replaces_the_whole_value() -> None:
    book = book_of(
        {"match": "a", "alerts": {"min_deviation": {"relative": 0.5}}}, min_deviation=MinDeviation(absolute=3.0)
    )
    assert book.of("a").alerts.min_deviation == MinDeviation(absolute=0.0, relative=0.5)


def test_an_override_may_bring_back_what_a_later_one_leaves_out() -> None:
    book = book_of({"match": "pump-7", "enabled": True}, {"match": "pump-*", "enabled": False})
    assert (book.watches("pump-7"), book.watches("pump-8"), book.watches("fan")) == (True, False, True)


def test_what_is_excluded_stays_so() -> None:
    config = load_config(
        None, ['readings.sensors.exclude=["pump-*"]', "readings.overrides=[{match: pump-7, enabled: true}]"]
    )
    assert not RuleBook(config.readings).watches("pump-7")


@pytest.mark.parametrize(
    ("setting", "all_of_them"),
    [
        ("readings.sensors.include=['*']", True),
        ("readings.sensors.include=['pump-*', '*']", True),
        ("readings.sensors.include=['pump-*']", False),
        ("readings.sensors.exclude=['pump-7']", False),
        ("readings.overrides=[{match: pump-7, enabled: false}]", False),
        ("readings.overrides=[{match: pump-7, enabled: true}]", True),
    ],
)
def test_whether_any_sensor_is_left_out(setting: str, all_of_them: bool) -> None:
    assert RuleBook(load_config(None, [setting]).readings).watches_all is all_of_them


def test_overrides_that_are_nobodys_first_match_are_named() -> None:
    book = book_of(PUMPS, PUMP_7, OFF)
    assert book.without_sensors(["pump-7", "fan"]) == [1, 2]
    assert book.without_sensors(["pump-7", "fan-off"]) == [1]


@pytest.mark.parametrize(
    ("pattern", "sensor"),
    [
        ("*", "x"),
        ("pump-[1-3]", "pump-2"),
        ("[!a]?", "bc"),
        ("[]]", "]"),
        ("[!]]x", "ax"),
        ("fan[[]1]", "fan[1]"),
        ("a]", "a]"),
        ("line/*", "line/a/7"),
        ("[a-]", "-"),
        ("[-a]", "-"),
    ],
)
def test_patterns(pattern: str, sensor: str) -> None:
    assert book_of({"match": pattern, "enabled": True}).number(sensor) == 1


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("pump-[1-3", "`pump-[1-3` is no pattern: a [ is never closed"),
        ("[!]", "`[!]` is no pattern: a [ is never closed"),
        ("[a][", "`[a][` is no pattern: a [ is never closed"),
        ("pump-[9-1]", "`pump-[9-1]` is no pattern: nothing lies from 9 to 1"),
    ],
)
@pytest.mark.parametrize(
    "setting",
    [
        "readings.overrides=[{{match: '{}', enabled: true}}]",
        "readings.sensors.include=['{}']",
        "readings.sensors.exclude=['a', '{}']",
        "maintenance=[{{match: '{}', from: '2026-12-24T00:00:00Z', to: '2026-12-27T00:00:00Z'}}]",
    ],
)
def test_what_is_no_pattern_is_refused(refusal: Callable[..., str], pattern: str, says: str, setting: str) -> None:
    assert says in refusal(load_config, None, [setting.format(pattern)])


@pytest.mark.parametrize("nothing", ["{match: a}", "{match: a, alerts: {}}", "{match: a, window: {}, alerts: {}}"])
def test_an_override_that_sets_nothing_is_refused(refusal: Callable[..., str], nothing: str) -> None:
    said = refusal(load_config, None, [f"readings.overrides=[{nothing}]"])
    assert "the override for `a` sets nothing" in said


@pytest.fixture
def refusal() -> Callable[..., str]:
    def refuse(call: Callable[..., object], *arguments: object) -> str:
        with pytest.raises(UserError) as refused:
            call(*arguments)
        return str(refused.value)

    return refuse


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
