"""The HTTP server on a real socket: what it answers, and that no client can hold up another."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from detector.errors import OperationError, UserError
from detector.service import logs
from detector.service.health import WAITING, Health
from detector.service.web import server as http
from detector.service.web.answers import Response, Route
from detector.service.web.server import (
    FRESH_SECONDS,
    HttpServer,
    Pace,
    standard_routes,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(limit=30.0, clock=clock)


@contextmanager
def serving(routes: Mapping[str, Route], **options: Any) -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, routes, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def get(health: Health) -> Iterator[Callable[..., tuple[int, str, str]]]:
    registry = CollectorRegistry()
    Counter("seen_total", "d", registry=registry).inc()
    with serving(standard_routes(registry, health)) as server:

        def fetch(path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
            return request(server, path, method, **headers)

        yield fetch


def request(server: HttpServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


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
    assert get("/readyz", "POST")[0] == 501


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


def test_a_stalled_client_holds_up_nobody(health: Health) -> None:
    with serving(standard_routes(CollectorRegistry(), health)) as server:
        stalled = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        stalled[0].sendall(b"GET /metr")
        assert request(server, "/readyz")[0] == 503
        for client in stalled:
            client.close()


def test_a_stalled_client_is_dropped_after_its_time(health: Health) -> None:
    with (
        serving(standard_routes(CollectorRegistry(), health), timeout=0.05) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as stalled,
    ):
        stalled.sendall(b"GET /metr")
        assert stalled.recv(100) == b""


def test_a_client_that_goes_away_in_the_middle_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    seen = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "http_client_error":
                seen.set()

    watch = Watch()
    logger = logging.getLogger("detector.service.web.server")
    logger.addHandler(watch)
    try:
        with caplog.at_level(logging.DEBUG), serving({"/": lambda _: Response(200, "x", bytes(50_000_000))}) as server:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.recv(10) == b"HTTP/1.0 2"
            assert seen.wait(10)
    finally:
        logger.removeHandler(watch)
    assert all(record.levelno < logging.WARNING for record in caplog.records)


def test_more_clients_than_places_are_turned_away(health: Health) -> None:
    with (
        serving(standard_routes(CollectorRegistry(), health), connections=1) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as first,
    ):
        first.sendall(b"GET /metr")
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as second:
            assert second.recv(100) == b""
        first.sendall(b"ics HTTP/1.0\r\n\r\n")
        assert first.recv(20).startswith(b"HTTP/1.0 200")


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

    monkeypatch.setattr("detector.service.web.server._Server", refused)
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


def test_many_at_once_pass_and_then_a_steady_number() -> None:
    clock = Clock()
    pace = Pace(rate=10.0, burst=3, clock=clock)
    assert [round(pace.wait(), 3) for _ in range(5)] == [0.0, 0.0, 0.0, 0.1, 0.2]
    clock.now += 0.3
    assert round(pace.wait(), 3) == 0.0
    assert round(pace.wait(), 3) == 0.1
    clock.now += 3600
    assert [round(pace.wait(), 3) for _ in range(4)] == [0.0, 0.0, 0.0, 0.1], "what was not used is not saved up"


def test_a_thousand_at_once_are_answered_or_turned_away(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pace of a service it would take a minute; what it does to the throughput is measured by verify-service."""
    monkeypatch.setattr(http, "RATE", 1e6)
    monkeypatch.setattr(http, "BURST", 1_000_000)
    threads: list[int] = []

    def page(_: str) -> Response:
        threads.append(threading.active_count())
        return Response(200, "text/plain", b"all of it\n" * 1000)

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            return await reader.read()
        except ConnectionError:
            return b""  # turned away
        finally:
            writer.close()

    async def all_of_them(port: int) -> list[bytes]:
        return await asyncio.wait_for(asyncio.gather(*(ask(port) for _ in range(1000))), 60)

    before = threading.active_count()
    with serving({"/metrics": page}, connections=8) as server:
        answers = asyncio.run(all_of_them(server.port))
        assert request(server, "/metrics")[0] == 200, "and those that come after"
    served = [answer for answer in answers if answer]
    assert len(served) > 8
    assert all(answer.endswith(b"all of it\n" * 1000) for answer in served), "none is cut short"
    # The server's own thread, and one a place that is just being given on.
    assert max(threads) <= before + 1 + 2 * 8
