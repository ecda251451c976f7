"""Slow clients, many of them and those that break off: the next request is answered, and nobody is waited for."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from detector.service.health import Health
from detector.service.web.answers import Response
from detector.service.web.server import HEAD_BYTES, HttpServer, standard_routes
from tests.service.web.serving import Clock, client, everything, request, serving

LARGE = bytes(8_000_000)
"""More than the systems of both sides hold."""
SOON = 2.0
"""In which health is answered, on the slowest machine; a supervisor waits for longer."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slow() -> Iterator[ExitStack]:
    """What is closed in the end."""
    with ExitStack() as clients:
        yield clients


def routes() -> dict[str, Any]:
    large = Response(200, "text/plain", LARGE)
    return standard_routes(CollectorRegistry(), Health()) | {"/large": lambda accept: large}


def assert_healthy(server: HttpServer) -> None:
    for path, status in (("/healthz", b"200"), ("/readyz", b"503")):
        begin = time.monotonic()
        with closing(client(server, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())) as one:
            assert everything(one).startswith(b"HTTP/1.0 " + status)
        assert time.monotonic() - begin < SOON


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET /healthz HTTP/1.1\r\nAccept: ", b"GET /healthz HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"],
    ids=["nothing", "a letter", "half of the headers", "a request, and stays"],
)
def test_health_is_answered_beside_hundreds_who_hold_their_connections(sent: bytes, slow: ExitStack) -> None:
    with serving(routes()) as server:
        for _ in range(300):
            slow.enter_context(closing(client(server, sent)))
        assert_healthy(server)


def test_health_is_answered_beside_those_who_do_not_read(slow: ExitStack) -> None:
    with serving(routes(), connections=8) as server:
        for _ in range(20):
            slow.enter_context(closing(client(server, b"GET /large HTTP/1.0\r\n\r\n", receives=2048)))
        assert_healthy(server)


def test_health_is_answered_beside_those_who_say_something_now_and_then(slow: ExitStack) -> None:
    with serving(routes(), connections=36) as server:
        dripping = [slow.enter_context(closing(client(server, b"G"))) for _ in range(36)]
        for byte in b"ET /":
            for one in dripping:
                with suppress(ConnectionError):  # it made way
                    one.send(bytes([byte]))
            assert_healthy(server)


def test_the_limit_is_one_for_the_request_not_for_each_wait(clock: Clock) -> None:
    with (
        serving(routes(), timeout=10.0, clock=clock) as server,
        closing(client(server, b"GET /healthz HTTP/1.1\r\n")) as one,
    ):
        assert_healthy(server)  # and so this one is in as well
        for letter in b"Accept":
            one.send(bytes([letter]))
            clock.now += 1.9
        answered = everything(one)
    assert answered.startswith(b"HTTP/1.0 408 Request Timeout\r\n")
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answered


def test_the_limit_holds_while_an_answer_is_read(clock: Clock) -> None:
    with (
        serving(routes(), timeout=10.0, clock=clock) as server,
        closing(client(server, b"GET /large HTTP/1.0\r\n\r\n", receives=2048)) as one,
    ):
        assert one.recv(12) == b"HTTP/1.0 200"
        clock.now += 10.0
        assert len(everything(one)) < len(LARGE)


def test_who_is_connected_and_says_nothing_is_told_nothing(clock: Clock) -> None:
    with serving(routes(), timeout=10.0, clock=clock) as server, closing(client(server)) as one:
        assert_healthy(server)
        clock.now += 10.0
        assert everything(one) == b""


def test_within_its_limit_a_request_may_come_in_pieces() -> None:
    with serving(routes()) as server, closing(client(server)) as one:
        for byte in b"GET /healthz HTTP/1.0\r\n\r\n":
            one.send(bytes([byte]))
        assert everything(one).startswith(b"HTTP/1.0 200 OK\r\n")


def test_the_oldest_makes_way_and_is_told_when_to_come_again(slow: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    with serving(routes(), connections=2) as server:
        first = slow.enter_context(closing(client(server, b"GET /healthz")))
        second = slow.enter_context(closing(client(server, b"GET /healthz")))
        third = slow.enter_context(closing(client(server, b"GET /healthz HTTP/1.0\r\n\r\n")))
        assert everything(third).startswith(b"HTTP/1.0 200 OK\r\n")
        turned_away = everything(first)
        second.sendall(b" HTTP/1.0\r\n\r\n")
        assert everything(second).startswith(b"HTTP/1.0 200 OK\r\n")
    assert turned_away.startswith(b"HTTP/1.0 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 1\r\n" in turned_away
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in turned_away
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "http_turned_away"
    ]


def test_nobody_makes_way_who_has_just_come(clock: Clock) -> None:
    """The clock stands still, so the second waits in the system's queue until the first is done."""
    with serving(routes(), connections=1, clock=clock) as server, closing(client(server, b"GET /heal")) as first:
        second = client(server, b"GET /healthz HTTP/1.0\r\n\r\n")
        first.sendall(b"thz HTTP/1.0\r\n\r\n")
        assert everything(first).startswith(b"HTTP/1.0 200 OK\r\n")
        with closing(second):
            assert everything(second).startswith(b"HTTP/1.0 200 OK\r\n")


def test_an_answer_on_its_way_is_not_broken_off_for_another(clock: Clock, slow: ExitStack) -> None:
    with serving(routes(), connections=3, clock=clock) as server:
        reading = slow.enter_context(closing(client(server, b"GET /large HTTP/1.0\r\n\r\n", receives=2048)))
        assert reading.recv(1) == b"H"
        silent = slow.enter_context(closing(client(server)))
        assert_healthy(server)  # and so this one is in as well
        clock.now += 1.0
        slow.enter_context(closing(client(server)))
        assert_healthy(server)
        assert everything(silent) == b"", "it makes way, though it came later"
        assert everything(reading).endswith(LARGE[-1000:])


def test_those_who_do_not_read_make_way_for_health_beside_one_that_has_just_come(clock: Clock, slow: ExitStack) -> None:
    with serving(routes(), connections=4, clock=clock) as server:
        for _ in range(3):
            one = slow.enter_context(closing(client(server, b"GET /large HTTP/1.0\r\n\r\n", receives=2048)))
            assert one.recv(1) == b"H"
        clock.now += 1.0
        slow.enter_context(closing(client(server)))
        assert_healthy(server)


def test_a_client_that_sends_no_more_is_answered_all_the_same() -> None:
    with serving(routes()) as server, closing(client(server, b"GET /healthz HTTP/1.0\r\n\r\n")) as one:
        one.shutdown(socket.SHUT_WR)
        assert everything(one).startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.parametrize(
    ("sent", "told"), [(b"GET /healthz HTTP/1.0\r\n", b"HTTP/1.0 200"), (b"GET /he", b"HTTP/1.0 400"), (b"", b"")]
)
def test_a_request_ends_where_the_client_ends_it(sent: bytes, told: bytes) -> None:
    with serving(routes()) as server, closing(client(server, sent)) as one:
        one.shutdown(socket.SHUT_WR)
        assert everything(one)[:12] == told


def test_headers_without_end_are_refused_and_the_client_sees_it() -> None:
    with serving(routes()) as server, closing(client(server)) as one:
        one.sendall(b"GET / HTTP/1.1\r\nCookie: " + b"x" * 10 * HEAD_BYTES)
        assert everything(one).startswith(b"HTTP/1.0 431 Request Header Fields Too Large\r\n")


def test_who_sends_a_body_sees_that_it_is_refused() -> None:
    with serving(routes()) as server, closing(client(server)) as one:
        one.sendall(b"POST /metrics HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000))
        assert everything(one).startswith(b"HTTP/1.0 405 Method Not Allowed\r\n")


def test_who_sends_without_end_is_cut_off() -> None:
    with (
        serving(routes()) as server,
        closing(client(server, b"POST /metrics HTTP/1.1\r\n\r\n")) as one,
        pytest.raises(ConnectionError),
    ):
        one.sendall(bytes(100_000_000))


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
        with caplog.at_level(logging.DEBUG), serving(routes()) as server:
            with closing(client(server, b"GET /large HTTP/1.0\r\n\r\n")) as one:
                assert one.recv(10) == b"HTTP/1.0 2"
            assert seen.wait(10)
    finally:
        logger.removeHandler(watch)
    assert all(record.levelno < logging.WARNING for record in caplog.records)


def test_without_descriptors_the_oldest_makes_way(monkeypatch: pytest.MonkeyPatch, slow: ExitStack) -> None:
    failures = [OSError(errno.EMFILE, "Too many open files")] * 3

    class Listener(socket.socket):
        def accept(self) -> Any:
            if len(held) > 1 and failures:
                raise failures.pop()
            return super().accept()

    def listen(host: str, port: int) -> socket.socket:
        listener = Listener()
        listener.bind((host, port))
        listener.listen()
        listener.setblocking(False)
        return listener

    held: list[socket.socket] = []
    monkeypatch.setattr("detector.service.web.server._listen", listen)
    monkeypatch.setattr("detector.service.web.server.GRACE_SECONDS", 0.0)
    with serving(routes()) as server:
        held.append(slow.enter_context(closing(client(server, b"GET /healthz HT"))))
        assert_healthy(server)
        held.append(held[0])
        assert_healthy(server)
        assert failures == []
        assert everything(held[0]).startswith(b"HTTP/1.0 503")


def test_a_stop_waits_for_nobody(slow: ExitStack) -> None:
    with serving(routes()) as server:
        reading = slow.enter_context(closing(client(server, b"GET /large HTTP/1.0\r\n\r\n", receives=2048)))
        silent = slow.enter_context(closing(client(server)))
        assert reading.recv(1) == b"H"
    assert len(everything(reading)) < len(LARGE)
    assert everything(silent) == b""
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]


def test_a_thousand_at_once_are_answered_or_turned_away() -> None:
    """What it does to the throughput is measured by verify-service."""
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
    assert max(threads) <= before + 1
