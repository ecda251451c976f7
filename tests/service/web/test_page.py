"""The page for people and its JSON: what they show, that nothing of a stream gets out of its place, how it looks."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from detector.engine.overview import EpisodeView, SensorView
from detector.service.health import Health
from detector.service.logs import Problem, RecentProblems
from detector.service.web.page import (
    HEIGHT,
    STALE_SECONDS,
    WIDTH,
    as_json,
    chart,
    duration,
    number,
    page_routes,
    points,
    render,
)
from detector.service.web.server import HttpServer, standard_routes
from detector.service.web.status import Board, ModelStatus, PartitionStatus, Sensor, Setup, Status, Unwatched
from detector.streams.base import Partition
from detector.wire.alerts import What
from tests.deploy.tools import tool
from tests.incidents.made import encoded

PACKAGE = Path(__file__).parents[3] / "detector"

SECOND = 10**9
START = 1_790_000_000 * SECOND
NOW = 1_790_001_000.0
EVIL = "<img src=x onerror=\"document.title='taken'\"></title><script>document.title='taken'</script>&'\"\ud800"
PARTITION = Partition("sensor-readings", 0)


def view(sensor_id: str, *, score: float = 0.4, opened: int | None = None, rows: int = 100) -> SensorView:
    """A sensor whose episode began in that row of its window."""
    times = START + np.arange(rows) * SECOND
    values = 50 + np.sin(np.arange(rows) / 5)[:, None]
    episode = None
    if opened is not None:
        episode = EpisodeView("id", "critical", int(START + opened * SECOND), int(times[-1]), 1.25, 7.5)
    return SensorView(sensor_id, score, 1.5, times, values, values + 0.5 if rows == 100 else None, episode)


def status_with(*sensors: SensorView) -> Status:
    views = tuple(Sensor("readings", PARTITION, one) for one in sensors)
    open_now = tuple(one for one in views if one.view.episode is not None)
    return Status(
        at=NOW,
        started=NOW - 7200,
        setup=Setup(
            models={"readings": ModelStatus("dense", "20261122T000000Z-dense-e43652", "e43652")}, configuration="feb8"
        ),
        partitions=(
            PartitionStatus("sensor-readings", 0, "readings", 123_456, 789, 42, 3, len(open_now), START, False),
        ),
        inputs={"readings": 1_234_567, "frames": 0},
        rates={"readings": (0.0, 4000.0, 5000.0), "frames": (0.0, 0.0, 0.0)},
        alerts=17,
        budget_ratios={"readings": 0.8},
        event_latency=2.5,
        commit_latency=0.085,
        commit_seconds=0.004,
        worst=views,
        episodes=open_now,
    )


@pytest.fixture
def health() -> Health:
    one = Health()
    one.clear_reason("starting")
    return one


def text_of(html: str) -> str:
    """What a person reads."""
    body = html.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_it_shows_how_things_are(health: Health) -> None:
    problems = [Problem(NOW - 5, "warning", "readings_rejected", "records=3", 4)]
    shown = text_of(render(status_with(view("pump-7", score=4.2, opened=40)), health, problems, NOW + 1))
    for part in (
        "ready", "5,000 /s", "1,234,567 since the start", "789 bytes", "85 ms", "from the reading 2.5 s", "42",
        "3 warming", "17 alerts", "0.8", "pump-7", "critical", "4.2", "7.5", "1.25", "feb8",
        "20261122T000000Z-dense-e43652", "readings_rejected", "4 times", "records=3", "up for 2 h",
    ):  # fmt: skip
        assert part in shown, part
    assert "frames" not in shown, "nothing of what is not enabled"


def test_silence_and_what_is_muted_are_told(health: Health) -> None:
    plain = view("pump-7", opened=40)
    assert plain.episode is not None
    quiet = dataclasses.replace(plain, episode=dataclasses.replace(plain.episode, reason="silent", muted=True))
    for shown, told in ((plain, False), (quiet, True)):
        page = text_of(render(status_with(shown), health, [], NOW))
        assert ("silent" in page, "muted" in page) == (told, told)
        assert ("7.5 times as long as is allowed" in page) is told
        episode = json.loads(as_json(status_with(shown), health, []))["episodes"][0]["episode"]
        assert (episode["reason"] == "silent", episode["muted"]) == (told, told)


def test_before_there_is_anything_it_says_why() -> None:
    shown = text_of(render(None, Health(), [], NOW))
    assert "not ready" in shown
    assert "the process is starting" in shown
    assert "Nothing to show yet" in shown


def test_an_old_status_is_not_shown_as_new(health: Health) -> None:
    old = text_of(render(status_with(), health, [], NOW + STALE_SECONDS + 50))
    assert "the main loop has not shown itself" in old
    assert "60 s ago" in old or "1 min ago" in old
    assert "has not shown itself" not in text_of(render(status_with(), health, [], NOW + STALE_SECONDS))


def test_sensors_that_learn_another_model_are_told(health: Health) -> None:
    status = status_with()
    assert "learning the model" not in text_of(render(status, health, [], NOW))
    (partition,) = status.partitions
    learning = dataclasses.replace(status, partitions=(dataclasses.replace(partition, relearning=1234),))
    assert "3 warming up, 1,234 learning the model" in text_of(render(learning, health, [], NOW))
    board = Board()
    board.status = learning
    page = page_routes(board, health, RecentProblems(), clock=lambda: NOW)
    assert json.loads(page["/status.json"]("").body)["sensors"]["relearning"] == 1234


def test_a_failed_reload_is_seen(health: Health) -> None:
    status = status_with()
    assert "last reload failed" not in render(status, health, [], NOW)
    failed = dataclasses.replace(status, setup=dataclasses.replace(status.setup, reloaded=False))
    assert "last reload failed" in render(failed, health, [], NOW)


def test_nothing_of_a_stream_gets_out_of_its_place(health: Health) -> None:
    status = status_with(view(EVIL, opened=10))
    health.set_reason("odd", EVIL)
    html = render(status, health, [Problem(NOW, "error", "log", EVIL)], NOW)
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("</title>") == 1


def test_an_open_episode_says_what_it_seems_to_be(health: Health) -> None:
    one = view("pump", opened=40)
    assert one.episode is not None
    said = dataclasses.replace(one.episode, what=What("level-shift", f"8.1 above its usual level {EVIL}"))
    status = status_with(dataclasses.replace(one, episode=said))
    html = render(status, health, [], NOW)
    assert "8.1 above its usual level" in text_of(html)
    assert "<img" not in html
    (told,) = json.loads(as_json(status, health, []))["episodes"]
    assert told["episode"]["what"]["kind"] == "level-shift"


@pytest.mark.parametrize(("opened", "until", "shaded"), [(40, None, (40, 99)), (40, 60, (40, 60)), (-9, 20, (0, 20))])
def test_what_is_shaded_is_what_the_alert_says(
    opened: int, until: int | None, shaded: tuple[int, int], health: Health
) -> None:
    one = view("pump", opened=opened)
    assert one.episode is not None
    ended = None if until is None else START + until * SECOND
    drawn = chart(dataclasses.replace(one, episode=dataclasses.replace(one.episode, until=ended)), ("value",))
    assert drawn is not None
    assert drawn.since == pytest.approx(WIDTH * shaded[0] / 99)
    assert drawn.until == pytest.approx(WIDTH * shaded[1] / 99)


def test_a_camera_is_shown_by_its_heat_map(health: Health) -> None:
    episode = EpisodeView("id", "critical", START, START, 1.25, 7.5)
    nothing = np.empty((0, 0))
    eye = SensorView("door", 4.2, 1.5, np.array([START]), nothing, None, episode, heatmap="iVBORw0KGgo=")
    cameras = (Sensor("frames", Partition("image-frames", 0), eye),)
    status = dataclasses.replace(status_with(), worst=cameras, episodes=cameras)
    html = render(status, health, [], NOW)
    assert '<img src="data:image/png;base64,iVBORw0KGgo=" alt=' in html
    shown = text_of(html)
    assert "door" in shown
    assert "None." not in shown, "an episode of a camera is one, too"
    assert "expected" not in shown.partition("Highest scores")[0], "there is no line that a legend could be of"
    (told,) = json.loads(as_json(status, health, []))["episodes"]
    assert (told["kind"], told["values"], told["expected"], told["score"]) == ("frames", None, None, 4.2)
    assert told["time"] is not None


def test_json_says_the_same(health: Health) -> None:
    told = json.loads(as_json(status_with(view(EVIL, score=math.nan, opened=3)), health, []))
    assert told["ready"]
    assert told["per_second"]["readings"] == 5000.0
    assert told["latency_seconds"] == {"event": 2.5, "broker": 0.085, "commit": 0.004}
    assert told["partitions"][0]["position"] == 123_456
    (one,) = told["episodes"]
    assert one["sensor_id"] == EVIL.replace("\ud800", "\\ud800")
    assert one["score"] is None
    assert one["episode"]["peak_score"] == 7.5
    assert one["expected"] == pytest.approx([one["values"][0] + 0.5])
    assert json.loads(as_json(None, Health(), []))["reasons"] == {"starting": "the process is starting"}


def test_a_chart_has_the_window_from_end_to_end() -> None:
    drawn = chart(view("pump-7", opened=99), ("value",))
    assert drawn is not None
    (line,) = drawn.lines
    pairs = [tuple(map(float, pair.split(","))) for pair in line.value.split()]
    assert [pairs[0][0], pairs[-1][0], len(pairs)] == [0.0, WIDTH, 100]
    assert all(0 < y < HEIGHT for _, y in pairs)
    assert drawn.since == pytest.approx(WIDTH)
    assert chart(view("pump-7", opened=-5), ("value",)) == drawn._replace(since=0.0), "it began before the window"
    assert chart(view("new", rows=1), ("value",)) is None
    filling = chart(view("new", rows=30), ("value",))
    assert filling is not None
    assert filling.lines[0].expected == ""


def test_points_leave_out_what_is_no_number_and_stand_a_flat_line() -> None:
    assert points([5.0, math.nan, 5.0], 5.0, 5.0) == f"0.0,{HEIGHT - 4}.0 {WIDTH}.0,{HEIGHT - 4}.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (0.0, "0"), (-0.0, "0"), (71.34999, "71.35"), (101325.0, "101,325"),  # noqa: RUF001
     (1e-7, "1e-07"), (2e12, "2e+12"), (12_345_678_901, "12,345,678,901"), (-3.0, "-3")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.0123, "12 ms"), (5.25, "5.2 s"), (200, "3 min"), (7200, "2 h"), (9e5, "10 d")]  # noqa: RUF001
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


# -- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture
def address(health: Health) -> Iterator[str]:
    board = Board()
    board.status = status_with(
        view(EVIL, score=9, opened=40), view("a/very/long/name" * 12, score=5, opened=20), view("pump-1")
    )
    routes = standard_routes(CollectorRegistry(), health) | page_routes(
        board, health, RecentProblems(), clock=lambda: NOW
    )
    server = HttpServer("127.0.0.1", 0, routes)
    server.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.stop()


def browse(address: str, profile: Path, *arguments: str) -> str:
    words = [
        tool("chromium", "Debian: chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--hide-scrollbars", *arguments, address,
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("style", sorted(PACKAGE.rglob("templates/style.*")), ids=lambda path: path.parts[-3])
def test_rules_for_narrow_screens_stand_by_themselves(style: Path) -> None:
    """What has a selector before it is no rule to a browser, which leaves all of it out."""
    parts = re.split(r"@(?:media|supports)", style.read_text(encoding="utf-8"))
    assert len(parts) > 1
    assert all(part.rstrip().endswith(("}", "*/")) for part in parts[:-1])


@pytest.mark.slow
def test_a_browser_runs_nothing_of_what_a_sensor_calls_itself(address: str, tmp_path: Path) -> None:
    dom = browse(address, tmp_path, "--dump-dom", "--virtual-time-budget=2000")
    assert "<title>(2) detector</title>" in dom
    assert "taken" not in dom.partition("</title>")[0]
    assert "&lt;script&gt;" in dom
    assert dom.count("<polyline") >= 5


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_draws_it_in_light_and_dark(address: str, tmp_path: Path, width: int) -> None:
    pictures = {}
    for mode, argument in {"light": 1, "dark": 0}.items():
        picture = tmp_path / f"{mode}.png"
        arguments = f"--screenshot={picture}", f"--window-size={width},1600"
        browse(address, tmp_path / "profile", *arguments, f"--blink-settings=preferredColorScheme={argument}")
        pictures[mode] = np.asarray(Image.open(picture).convert("L"), dtype=float)
    assert pictures["light"].shape == (1600, width)
    assert np.median(pictures["light"]) > 230
    assert np.median(pictures["dark"]) < 40
    for brightness in pictures.values():
        assert brightness.std() > 10, "there is something on it"


def test_what_is_not_watched_is_told_by_name_and_reason(health: Health) -> None:
    plain = status_with(view("pump-7"))
    status = dataclasses.replace(
        plain,
        unwatched_by_reason={"gaps": 1, "warming": 1234},
        unwatched=(
            Unwatched("readings", PARTITION, "pump-8", "gaps"),
            Unwatched("readings", PARTITION, EVIL, "warming"),
        ),
    )
    page = render(status, health, [], NOW)
    assert "Not watched of these no fault would be told: 1 gaps, 1,234 warming" in text_of(page)
    assert "pump-8" in page
    assert "<script>" not in page
    told = json.loads(as_json(status, health, []))["unwatched"]
    assert told["by_reason"] == {"gaps": 1, "warming": 1234}
    assert told["sensors"][0] == {"kind": "readings", "sensor_id": "pump-8", "partition": 0, "reason": "gaps"}
    assert "Not watched" not in render(plain, health, [], NOW)


def test_episodes_that_have_closed_are_listed(health: Health) -> None:
    closed = encoded(EVIL.replace("\ud800", ""), 0, "closed", seen=130, severity="critical")
    status = dataclasses.replace(status_with(), closed=(closed, encoded("pump-1", 0), b"{}"))
    html = render(status, health, [], NOW)
    shown = text_of(html)
    assert "Closed lately" in shown
    assert "2026-11-22 10:00:00 2 min 4" in shown
    assert "pump-1" not in shown
    assert "<img src=x" not in html
    assert "Closed lately" not in text_of(render(status_with(), health, [], NOW))


def test_readings_of_a_recording_have_no_latency(health: Health) -> None:
    old = dataclasses.replace(status_with(), commit_latency=None, event_latency=274 * 86_400.0)
    shown = text_of(render(old, health, [], NOW))
    assert "Latency to commit 4 ms a commit; the readings are old, 274 d" in shown
    live = dataclasses.replace(status_with(), commit_latency=None)
    assert "Latency to commit 2.5 s from the reading's own time" in text_of(render(live, health, [], NOW))


def test_the_budget_has_a_unit(health: Health) -> None:
    assert "0.8 times as many episodes as are allowed" in text_of(render(status_with(), health, [], NOW))
