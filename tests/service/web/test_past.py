"""The pages of `detector incidents`."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from detector.incidents.history import History
from detector.service.health import Health
from detector.service.web.answers import answer
from detector.service.web.past import past_routes
from tests.incidents.made import alert_id, book, news, take

NASTY = [
    'line 2/pressure "03"',
    "<script>alert(1)</script>",
    "x" * 256,
    "ümläut/ \N{SNOWMAN}",
    "a?b#c%2F",
    "half \ud800",
]


@pytest.fixture
def history() -> History:
    history = History()
    alerts = [news(sensor, at) for at, sensor in enumerate(NASTY[:-1])]
    alerts.append(news("p-1", 2, "closed", seen=90, what={"kind": "stuck", "text": "holds <3.2>"}, verdict="real"))
    for one in alerts:
        history.alert(one)
    for incident in take(book(), *alerts):
        history.incident(incident)
    return history


def get(history: History, path: str) -> tuple[int, str]:
    def failed(path: str, error: Exception) -> None:
        raise AssertionError(path) from error

    status, text = answer(f"GET {path} HTTP/1.1".encode(), past_routes(history, Health()), failed)
    return status, text.partition(b"\r\n\r\n")[2].decode()


def test_the_list_has_incidents_and_episodes(history: History) -> None:
    status, html = get(history, "/")
    assert status == 200
    assert "5 sensors, first line 2/pressure &#34;03&#34;, 10:00" in html
    assert "holds &lt;3.2&gt;" in html
    assert "<script>alert" not in html
    assert html.count('<article class="card row">') == 6
    assert "<polyline" in html


def test_every_link_leads_somewhere(history: History) -> None:
    _, html = get(history, "/")
    links = set(re.findall(r'href="(/(?:sensors|alerts)/[^"]*)"', html))
    assert len(links) == 6 + 6
    for link in links:
        status, page = get(history, link)
        assert status == 200, link
        assert "<h1>" in page


@pytest.mark.parametrize("sensor", NASTY[:-1])
def test_a_sensor_may_be_called_anything(history: History, sensor: str) -> None:
    for path in (quote(sensor, safe=""), quote(sensor)):
        status, html = get(history, f"/sensors/{path}")
        assert status == 200
        assert html.count('<article class="card row">') == 1


def test_an_episode_shows_its_evidence(history: History) -> None:
    status, html = get(history, f"/alerts/{alert_id('p-1')}")
    assert status == 200
    assert "the line: detected" in html
    assert "real" in html
    assert "(recovered)" in html
    assert re.search(r'<polyline class="value" points="[\d., ]+"', html)
    assert "rows between are left out" not in html


def test_rows_that_lie_between_two_messages_are_not_drawn_as_if_they_followed_one_another() -> None:
    history = History()
    history.alert(news("p-1", 0))
    history.alert(news("p-1", 0, "closed", seen=900))
    _, html = get(history, f"/alerts/{alert_id('p-1')}")
    assert html.count('<line class="gap"') == 1
    assert "rows between are left out" in html


def test_what_is_not_known_is_said(history: History) -> None:
    for path in ("/sensors/nobody", "/sensors/", "/alerts/0", "/alerts/", "/sensors/%ED%A0%80", "/sensors/%FF"):
        status, body = get(history, path)
        assert (status, "in the last days" in body) == (404, True)
    assert get(history, "/nothing")[0] == 404


def test_nothing_yet(history: History) -> None:
    status, html = get(History(), "/")
    assert status == 200
    assert html.count("None in the last days.") == 2


def test_there_is_one_script_and_it_is_not_needed(history: History) -> None:
    status, script = get(history, "/past.js")
    assert status == 200
    assert "use strict" in script
    _, html = get(history, "/")
    assert re.findall(r"<script[^>]*>", html) == ['<script src="/past.js" defer>']
    assert not re.search(r'(src|href)="(?!/)', html)
