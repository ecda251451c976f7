"""A server on a real socket, with a clock that a test moves, and clients that read to the end."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from detector.service.web.answers import Route
from detector.service.web.server import HttpServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def serving(routes: Mapping[str, Route], **options: Any) -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, routes, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def request(server: HttpServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


def client(server: HttpServer, sends: bytes = b"", *, receives: int | None = None) -> socket.socket:
    """A connection that has sent this; `receives`: bytes its system takes before it is asked to hand them on."""
    one = socket.socket()
    one.settimeout(10)
    if receives is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    one.connect(("127.0.0.1", server.port))
    one.sendall(sends)
    return one


def everything(one: socket.socket) -> bytes:
    """What comes until the server closes, or breaks off."""
    pieces = []
    try:
        while piece := one.recv(65536):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)
