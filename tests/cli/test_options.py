"""What the text of an option may be, and how it is said what it cannot be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from detector.cli import options
from detector.cli.main import main
from detector.config.load import FalseAlarms
from detector.streams.base import Partition

SECOND = 10**9


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (options.duration, "250ms", SECOND // 4),
        (options.duration, "7d", 7 * 86_400 * SECOND),
        (options.instant, "1970-01-01T00:01:00Z", 60 * SECOND),
        (options.sensor_id, "boiler 7", "boiler 7"),
        (options.place, "-", "-"),
        (options.count, "1", 1),
        (options.count, "10_000", 10_000),
        (options.count_or_none, "0", 0),
        (options.seed, "4294967295", 2**32 - 1),
        (options.rate, "12.5/s", 12.5),
        (options.alarm_rate, "3/week", FalseAlarms(per_sensor=3, per="week")),
        (options.topic_offset, "image-frames:2:7", (Partition("image-frames", 2), 7)),
        (options.topic, "plant.tags_1-a", "plant.tags_1-a"),
        (options.key_template, "{site}/{tags.host}", "{site}/{tags.host}"),
    ],
)
def test_what_an_option_may_be(kind: Callable[[str], Any], text: str, value: Any) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (options.duration, "5x", "`5x` is not a duration such as 250ms, 10s, 5m, 12h or 7d"),
        (options.duration, "0s", "`0s` is no time; give a duration longer than that"),
        (options.instant, "noon", "`noon`: expected RFC 3339"),
        (options.sensor_id, "", "this is no sensor id; a sensor id has 1 to 256 printable characters"),
        (options.sensor_id, "a\nb", "this is no sensor id"),
        (options.place, "", "this is empty; name a file or a directory"),
        (options.count, "0", "`0` is not a whole number from 1 on"),
        (options.count, "many", "`many` is not a whole number from 1 on"),
        (options.count, "9" * 5000, "is not a whole number from 1 on"),
        (options.count_or_none, "-1", "`-1` is not a whole number from 0 on"),
        (options.count_or_none, "1.5", "`1.5` is not a whole number from 0 on"),
        (options.seed, "-1", "`-1` is not a whole number from 0 to 4294967295"),
        (options.seed, "4294967296", "`4294967296` is not a whole number from 0 to 4294967295"),
        (options.rate, "10", "`10` is not a rate such as 100/s"),
        (options.rate, "0/s", "`0/s` is not a rate such as 100/s"),
        (options.alarm_rate, "3 a week", "`3 a week` is no rate; write it as 3/week, 1/day or 2/12h"),
        (options.topic_offset, "sensor-readings:0", "`sensor-readings:0` is no place in a topic; write TOPIC:"),
        (options.topic_offset, "sensor-readings:0:-1", "is no place in a topic"),
        (options.topic_offset, ":0:1", "is no place in a topic"),
        (options.topic_offset, "sensor-readings:0:\u0661", "is no place in a topic"),
        (options.topic, "plant tags", "`plant tags` is no topic"),
        (options.topic, "", "`` is no topic"),
        (options.key_template, "machine", "`machine` is the same for all records"),
        (options.key_template, "{machine", "`{machine` has a brace without its other one"),
        (options.key_template, "{a..b}", "nothing stands between two dots"),
        (options.key_template, "", "a name, a path such as tags.host"),
    ],
)
def test_what_an_option_cannot_be(kind: Callable[[str], Any], text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        kind(text)
    assert says in str(refused.value)
    assert not str(refused.value).endswith(".")


def test_it_is_one_line_with_the_option_and_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--interval", "5x"]) == 2
    assert capsys.readouterr().err == (
        "detector: error: argument --interval: `5x` is not a duration such as 250ms, 10s, 5m, 12h or 7d. "
        "See `detector run --help`.\n"
    )


def test_the_live_view_and_lines_alone_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--live", "--plain"]) == 2
    assert "argument --plain: not allowed with argument --live" in capsys.readouterr().err
