"""Whatever a client sends, it is answered with the headers that every answer has, and the next client is, too."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from detector.service.health import Health
from detector.service.logs import RecentProblems
from detector.service.web.answers import HEADERS, answer
from detector.service.web.page import page_routes
from detector.service.web.server import HEAD_BYTES, HttpServer, standard_routes
from detector.service.web.status import Board
from tests.fuzz.budget import examples
from tests.service.web.serving import client, everything, request, serving

REGISTRY = CollectorRegistry()
Counter("seen_total", "d", registry=REGISTRY).inc()
HEALTH = Health(clock=lambda: 0.0)
ROUTES = standard_routes(REGISTRY, HEALTH) | page_routes(Board(), HEALTH, RecentProblems())
FORMATS = {
    b"text/plain; version=0.0.4; charset=utf-8",
    b"application/openmetrics-text; version=1.0.0; charset=utf-8",
}

latin = st.text(st.characters(max_codepoint=255), max_size=30)
# What libraries for such headers look for, in the wrong places.
pieces = st.sampled_from(
    [
        "application/openmetrics-text", "text/plain", "text/html", "*/*", ";", ",", "=", " ", '"', "\r", "\t", "\x00",
        "version=", "1.0.0", "0.0.4", "x", "999", "1.0.0.dev1", "1e9", "q=", "abc", "0.5", "escaping=", "allow-utf-8",
        "charset=utf-8", "\xff", "\u00e9", "9" * 5000,
    ]
)  # fmt: skip
accepts = st.lists(pieces | latin, max_size=12).map("".join)
lines = st.lists(
    st.sampled_from(
        [
            b"GET ", b"HEAD ", b"POST ", b"/metrics", b"/healthz", b"/", b"//", b"/status.json", b"?", b"#", b"http://[",
            b"http://x", b"%00", b" HTTP/1.1", b" HTTP/0.9", b"\r\n", b"\n", b"\r\n\r\n", b"Accept", b":", b" ",
            b"Content-Length: 9", b"Connection: keep-alive", b"a" * HEAD_BYTES,
        ]
    )
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)  # fmt: skip


def fail(path: str, error: Exception) -> None:
    raise AssertionError(path) from error


def parts(answered: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of an answer that is one."""
    head, _, body = answered.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    headers = dict(field.split(b": ", 1) for field in fields)
    assert status.startswith(b"HTTP/1.0 ")
    assert len(headers) == len(fields)
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert {name: headers.get(name.encode()) for name, _ in HEADERS} == {
        name: value.encode() for name, value in HEADERS
    }
    return status, headers, body


@given(accepts.filter(lambda accept: "\n" not in accept))
@example("application/openmetrics-text; version=x")
@example("text/plain; version=x")
@example("text/plain; q=abc")
@examples(400)
def test_there_are_metrics_whatever_is_accepted(accept: str) -> None:
    head = b"GET /metrics HTTP/1.1\r\nAccept: " + accept.encode("latin-1")
    status, headers, body = parts(answer(head, ROUTES, fail)[1])
    assert status == b"HTTP/1.0 200 OK"
    assert headers[b"Content-Type"] in FORMATS
    assert b"seen_total 1.0" in body


@given(lines)
@examples(400)
def test_each_request_has_an_answer_with_the_headers_of_all(head: bytes) -> None:
    status, answered = answer(head, ROUTES, fail)
    _, headers, body = parts(answered)
    assert status in {200, 400, 404, 405, 503}
    assert len(body) in {int(headers[b"Content-Length"]), 0}


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with serving(ROUTES, on_failure=lambda: pytest.fail("a route raised")) as one:
        yield one


@given(chunks=st.lists(lines, max_size=4), reads=st.booleans())
@examples(100)
def test_the_next_client_is_answered_whatever_the_last_one_did(
    server: HttpServer, chunks: list[bytes], reads: bool
) -> None:
    with closing(client(server)) as one:
        with suppress(ConnectionError):  # refused before all of it was sent
            for chunk in chunks:
                one.sendall(chunk)
            one.shutdown(socket.SHUT_WR)
        if reads and (answered := everything(one)):
            parts(answered)
    assert request(server, "/healthz")[0] == 200
