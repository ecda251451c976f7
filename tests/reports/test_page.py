"""The page of a backtest: whole in itself, escaped, and of bounded size."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from detector.config.load import Config, ReadingsConfig
from detector.detection.scorer import Model
from detector.engine.output import ScoredRows, traced
from detector.reports import page as module
from detector.reports.backtest import BacktestResult, run_backtest
from detector.reports.curves import Curves
from detector.reports.page import About, page, settings_text
from detector.reports.plots import COLOURS
from detector.reports.scoreboard import EpisodeSpan, Label, score
from detector.streams.base import Record
from detector.times import rfc3339
from tests.plant import (
    NAMES,
    SECOND,
    START,
    batches_of,
    healthy,
    model_of,
    pipeline_of,
    profile_of,
    readings_config,
    readings_of,
    reconstructor,
    records_of,
)

HOSTILE = '<script>alert("1")</script> & {{ 7 * 7 }} $x_1$'
ABOUT = About("a <b>file</b>", "m 1", ("value",), "readings: {}")
FAULT = slice(250, 330)


class _Parsed(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def model(*sensors: str, channels: int = 1) -> Model:
    profile = profile_of(healthy(np.random.default_rng(0), 300, channels), reconstructor(channels))
    return model_of(dict.fromkeys(sensors, profile), channels=channels)


def recording(*sensors: str, faulty: str = "", gap: int = 0, channels: int = 1, rows: int = 500) -> list[Record]:
    records: list[Record] = []
    for number, sensor in enumerate(sensors):
        values = healthy(np.random.default_rng(number), rows, channels)
        if sensor == faulty:
            values[FAULT] += 12
        readings = readings_of(sensor, values[:200])
        readings += readings_of(sensor, values[200:], first=START + (200 + gap) * SECOND)
        records += records_of([readings])
    return [Record(offset, None, record.value) for offset, record in enumerate(records)]


def made(
    records: list[Record],
    model: Model,
    config: ReadingsConfig | None = None,
    labels: list[Label] | None = None,
    about: About = ABOUT,
) -> tuple[str, BacktestResult]:
    config = config or readings_config()
    curves = Curves(len(config.channels))
    scoring = traced(curves)
    result = run_backtest(batches_of(records), lambda _: pipeline_of(config, model, score=scoring), labels)
    return page(result, curves, about), result


def label(sensor: str, first: int, last: int, kind: str = "shift") -> Label:
    return Label(sensor, rfc3339(START + first * SECOND), rfc3339(START + last * SECOND), kind)


def test_it_needs_nothing_else_and_runs_nothing() -> None:
    html, _ = made(recording("a", faulty="a"), model("a"))
    parsed = _Parsed(html)
    assert not parsed.names() & {"script", "link", "img", "iframe", "object", "image"}
    places = [value for _, attrs in parsed.tags for key, value in attrs.items() if key in {"href", "src", "xlink:href"}]
    assert places
    assert all(value is not None and value.startswith("#") for value in places)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "prefers-color-scheme: dark" in html


def test_what_came_from_a_stream_or_a_file_is_text() -> None:
    labels = [label(HOSTILE, 250, 330, "<i>kind</i>"), label(HOSTILE, 20, 30, "<u>gone</u>")]
    html, result = made(recording(HOSTILE, faulty=HOSTILE), model(HOSTILE), labels=labels)
    assert result.episodes
    parsed = _Parsed(html)
    assert not parsed.names() & {"script", "u"}
    assert HOSTILE in parsed.texts
    assert {"<i>kind</i>", "<u>gone</u>"} <= set(parsed.texts)
    assert "Backtest of a <b>file</b>" in parsed.texts
    assert "49" not in parsed.texts


def test_it_says_what_was_found() -> None:
    labels = [label("a", 250, 330), label("b", 20, 30, "glitch")]
    html, result = made(recording("a", "b", faulty="a"), model("a", "b"), labels=labels)
    texts = _Parsed(html).texts
    assert "1 of 2" in texts
    assert {"shift", "glitch", "Missed", "labelled faults found"} <= set(texts)
    assert rfc3339(START).replace("T", " ").rstrip("Z") in html
    episode = result.episodes[0]
    assert rfc3339(episode.detected).replace("T", " ").rstrip("Z") in texts


def test_the_worst_sensor_comes_first_and_all_are_drawn() -> None:
    html, _ = made(recording("a", "b", "c", faulty="b"), model("a", "b", "c"))
    assert re.findall(r"<h3>([abc])</h3>", html)[0] == "b"
    assert sorted(re.findall(r"<h3>([abc])</h3>", html)) == ["a", "b", "c"]
    assert html.count("<svg") == 3


def test_pictures_take_the_colours_of_the_page() -> None:
    html, _ = made(recording("a", faulty="a"), model("a"), labels=[label("a", 250, 330)])
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert "#0101" not in svg
    used = set(re.findall(r"var\(--([a-z]+)\)", html))
    assert used <= set(re.findall(r"--([a-z]+):", html))
    drawn = set(re.findall(r"var\(--([a-z]+)\)", svg))
    assert drawn >= set(COLOURS) - {"paper", "warning"}


def test_the_same_recording_gives_the_same_page() -> None:
    assert made(recording("a", faulty="a"), model("a"))[0] == made(recording("a", faulty="a"), model("a"))[0]


def test_a_gap_in_the_middle_is_no_line() -> None:
    whole, _ = made(recording("a"), model("a"))
    gap, _ = made(recording("a", gap=300), model("a"))
    assert lines_of(gap) == lines_of(whole) + 1


def lines_of(html: str) -> int:
    """Pieces of the line that the values of the first sensor are drawn with."""
    svg = html[html.index("<svg") : html.index("</svg>")]
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*stroke: var\(--value\)', svg)
    return int(paths[0].count("M"))


def test_several_channels_get_a_panel_each() -> None:
    html, _ = made(
        recording("a", channels=3),
        model("a", channels=3),
        readings_config(channels=3),
        about=About("x", "m", NAMES, ""),
    )
    for name in NAMES:
        assert f">{name}</text>" in html


def test_nothing_scored_is_a_page_too() -> None:
    html, result = made(recording("a", rows=50 + 200)[:0], model("a"))
    assert result.records == 0
    assert "No reading was scored" in html
    html, _ = made(recording("b"), model("a"), readings_config(warmup=1000))
    assert "1 still warming up" in html
    assert "<svg" not in html


def test_of_many_sensors_some_are_drawn_and_some_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLOTS", 2)
    monkeypatch.setattr(module, "ROWS", 3)
    sensors = [f"s{number}" for number in range(6)]
    records = [record for sensor in sensors for record in recording(sensor, faulty=sensor)]
    records = [Record(offset, None, record.value) for offset, record in enumerate(records)]
    html, result = made(records, model(*sensors), labels=[label("s0", 10 + i, 11 + i) for i in range(5)])
    assert len({episode.sensor_id for episode in result.episodes}) == 6
    assert html.count("<svg") == 2
    assert "4 sensors with lower scores are not drawn." in html
    assert html.count("and 3 more") >= 2  # sensors with episodes, false alarms
    assert "and 2 more" in html  # missed labels


@pytest.mark.slow
def test_ten_thousand_sensors_with_episodes_stay_openable() -> None:
    names = [f"plant/line-{number // 100}/sensor-{number}" for number in range(10_000)]
    curves, result = Curves(1), BacktestResult(sensors=len(names), first=START, last=START + 500 * SECOND)
    times = START + np.arange(3) * SECOND
    one = np.ones(3)
    for name in names:
        curves(
            ScoredRows(
                [name], np.array([3]), np.zeros(3, dtype=np.int64), times, one[:, None], one[:, None], one, one, one
            )
        )
        result.episodes.append(
            EpisodeSpan(name, START, START + SECOND, START + 2 * SECOND, "warning", 2.0, "recovered", name)
        )
    labels = [label(name, 0, 1) for name in names]
    result.labels, result.board = labels, score(result.episodes[:5_000], labels)
    html = page(result, curves, ABOUT)
    assert len(html) < 2_000_000
    assert html.count("<svg") == 30
    assert "and 9,800 more" in html  # sensors with episodes
    assert "and 4,800 more" in html  # missed labels


@pytest.mark.parametrize(("count", "tag"), [(15, "<details open>"), (16, "<details>")])
def test_a_long_list_is_folded_up(count: int, tag: str) -> None:
    html, _ = made(recording("a"), model("a"), labels=[label("a", 10 + i, 11 + i) for i in range(count)])
    assert f"{tag}<summary>Missed</summary>" in html


def test_settings_have_no_secret_and_name_none() -> None:
    kafka = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "who"}
    kafka["sasl_password_env"] = "SECRET"  # noqa: S105  (the name of a variable)
    config = Config.model_validate({"streams": {"kafka": kafka}})
    text = settings_text(config)
    assert "per: week" in text
    assert "max_duration: 7d" in text
    assert not {"SECRET", "who", "sasl"} & set(re.split(r"[\s:_]+", text))
