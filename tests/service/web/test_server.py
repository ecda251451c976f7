"""The HTTP server on a real socket: what it answers."""

from __future__ import annotations

import errno
import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from detector.errors import OperationError, UserError
from detector.service import logs
from detector.service.health import WAITING, Health
from detector.service.web.answers import FRESH_SECONDS, HEADERS, Response
from detector.service.web.server import HttpServer, standard_routes
from tests.service.web.serving import Clock, client, everything, request, serving


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(limit=30.0, clock=clock)


@pytest.fixture
def get(health: Health) -> Iterator[Callable[..., tuple[int, str, str]]]:
    registry = CollectorRegistry()
    Counter("seen_total", "d", registry=registry).inc()
    with serving(standard_routes(registry, health)) as server:

        def fetch(path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
            return request(server, path, method, **headers)

        yield fetch


def test_metrics_in_both_formats(get: Callable[..., tuple[int, str, str]]) -> None:
    status, kind, body = get("/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert "seen_total 1.0" in body
    status, kind, body = get("/metrics?x=1", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_what_was_made_for_one_scrape_serves_those_that_come_with_it(health: Health, clock: Clock) -> None:
    registry = CollectorRegistry()
    seen = Counter("seen_total", "d", registry=registry)
    metrics = standard_routes(registry, health, clock)["/metrics"]
    bodies = []
    for seconds in (0.0, FRESH_SECONDS / 2, FRESH_SECONDS):
        seen.inc()
        clock.now += seconds
        bodies.append(metrics("").body)
    first, second, third = (body.splitlines()[2] for body in bodies)
    assert (first, second, third) == (b"seen_total 1.0", b"seen_total 1.0", b"seen_total 3.0")


def test_nothing_may_be_loaded_from_elsewhere(health: Health) -> None:
    with serving(standard_routes(CollectorRegistry(), health)) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/readyz")
        headers = connection.getresponse().headers
        connection.close()
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_live_while_there_is_progress(get: Callable[..., tuple[int, str, str]], health: Health, clock: Clock) -> None:
    clock.now += 29.0
    assert get("/healthz")[0] == 200
    clock.now += 2.0
    status, _, body = get("/healthz")
    assert status == 503
    assert json.loads(body) == {"live": False, "seconds_since_progress": 31.0}
    health.progress()
    assert get("/healthz")[0] == 200


def test_live_while_it_waits_for_the_broker(
    get: Callable[..., tuple[int, str, str]], health: Health, clock: Clock
) -> None:
    health.set_reason(WAITING, "no answer from localhost:9092")
    clock.now += 3600.0
    assert get("/healthz")[0] == 200
    assert get("/readyz")[0] == 503
    health.clear_reason(WAITING)
    assert get("/healthz")[0] == 503


def test_ready_when_no_reason_is_left(get: Callable[..., tuple[int, str, str]], health: Health) -> None:
    status, kind, body = get("/readyz")
    assert status == 503
    assert kind.startswith("application/json")
    assert json.loads(body) == {"ready": False, "reasons": {"starting": "the process is starting"}}
    health.set_reason("model", "loading")
    health.clear_reason("starting")
    health.clear_reason("starting")
    assert (health.ready, json.loads(get("/readyz")[2])["reasons"]) == (False, {"model": "loading"})
    health.clear_reason("model")
    assert (health.ready, get("/readyz")[0]) == (True, 200)
    assert json.loads(get("/readyz")[2]) == {"ready": True, "reasons": {}}


def test_another_path_is_not_found(get: Callable[..., tuple[int, str, str]]) -> None:
    status, _, body = get("/metrics/")
    assert status == 404
    assert json.loads(body)["paths"] == ["/healthz", "/metrics", "/readyz"]


def test_head_has_no_body_and_other_methods_are_refused(get: Callable[..., tuple[int, str, str]]) -> None:
    assert get("/readyz", "HEAD")[::2] == (503, "")
    assert get("/readyz", "POST")[0] == 405


def test_a_route_that_fails_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def broken(accept: str) -> Response:
        raise ZeroDivisionError("inside")

    failures: list[None] = []
    with serving({"/": broken}, on_failure=lambda: failures.append(None)) as server:
        status, _, body = request(server, "/")
    assert status == 500
    assert len(failures) == 1
    assert "inside" not in body
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "http_route_failed"
    ]


def test_requests_are_logged_for_debugging_only(capsys: pytest.CaptureFixture[str], health: Health) -> None:
    logs.configure("debug", "json")
    with serving(standard_routes(CollectorRegistry(), health)) as server:
        request(server, "/readyz")
    err = capsys.readouterr().err
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["http_listening", "http_request"]


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use .*Stop what uses the port"
        with pytest.raises(OperationError, match=expected):
            HttpServer("127.0.0.1", port, {}).start()


def test_an_address_that_is_not_this_machine_s_is_named() -> None:
    with pytest.raises(OperationError, match=r"cannot listen on 192\.0\.2\.1:0: .*Correct the address\."):
        HttpServer("192.0.2.1", 0, {}).start()


def test_a_right_to_a_port_is_for_a_person_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("detector.service.web.server._listen", refused)
    with pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1:80: Permission denied .*Correct the address\."):
        HttpServer("127.0.0.1", 80, {}).start()


def test_stop_may_be_called_twice_and_before_start() -> None:
    server = HttpServer("127.0.0.1", 0, {})
    server.stop()
    server.start()
    assert server.port > 0
    server.stop()
    server.stop()
    assert server.port == 0


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    server = HttpServer("::1", 0, {})
    try:
        server.start()
    except OperationError:
        pytest.skip("no IPv6 loopback here")
    with socket.create_connection(("::1", server.port), timeout=10):
        pass
    server.stop()


PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/openmetrics-text; version=x", PLAIN),
        ("application/openmetrics-text; version=2.0.0", PLAIN),
        ("text/plain; version=x; q=abc", PLAIN),
        ("\xe9\xff", PLAIN),
        ("a" * 20_000, PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ('text/plain;version=x, Application/OpenMetrics-Text; Version="1.0.0"; q=abc', OPENMETRICS),
        # What Prometheus sends.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.1",
            OPENMETRICS,
        ),
    ],
    ids=lambda value: value[:40],
)
def test_whatever_a_client_accepts_there_are_metrics(health: Health, accept: str, kind: str) -> None:
    sent = b"GET /metrics HTTP/1.1\r\nAccept: %s\r\n\r\n" % accept.encode("latin-1")
    with serving(standard_routes(CollectorRegistry(), health)) as server, closing(client(server, sent)) as one:
        answered = everything(one)
    assert answered.startswith(b"HTTP/1.0 200 OK\r\n")
    assert f"\r\nContent-Type: {kind}\r\n".encode() in answered


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"200"),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"404"),
        (b"PUT /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /broken HTTP/1.1\r\n\r\n", b"500"),
        (b"GET / HTTP/1.1\r\nCookie: " + b"x" * 40_000, b"431"),
    ],
    ids=lambda value: value[:20].decode(),
)
def test_every_answer_has_the_same_headers_errors_too(health: Health, sent: bytes, status: bytes) -> None:
    def broken(accept: str) -> Response:
        raise ZeroDivisionError

    routes = standard_routes(CollectorRegistry(), health) | {"/broken": broken}
    with serving(routes) as server, closing(client(server, sent)) as one:
        answered = everything(one)
    assert answered.startswith(b"HTTP/1.0 " + status)
    for name, value in HEADERS:
        assert f"\r\n{name}: {value}\r\n".encode() in answered
