"""What a client is told: the head of a request in, the bytes of the answer out. It knows no sockets.

There is an answer to whatever comes, and all of them carry the same headers.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

# Nothing is loaded from elsewhere, and nothing runs but what is served here, whatever a sensor calls itself.
HEADERS: Final = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; img-src data:; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
METHODS: Final = ("GET", "HEAD")
FRESH_SECONDS: Final = 0.5
"""How old an answer may be that takes work to make."""
_REQUEST: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.[0-9]")
_ACCEPT: Final = re.compile(r"^accept[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)


class Response(NamedTuple):
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


# Given the `Accept` header, or an empty string. A route whose path ends with a `/` is for all paths below it, and is
# given what follows, decoded.
Route = Callable[[str], Response]


def json_response(status: int, value: object, *headers: tuple[str, str]) -> Response:
    """`value` as JSON."""
    body = (json.dumps(value, indent=2) + "\n").encode()
    return Response(status, "application/json; charset=utf-8", body, headers)


def answer(head: bytes, routes: Mapping[str, Route], failed: Callable[[str, Exception], None]) -> tuple[int, bytes]:
    """Return the status and the bytes of the answer to a request, given its lines up to the empty one.

    `failed` is called with the path and the error when a route raises.

    >>> status, text = answer(b"GET /nothing HTTP/1.1", {}, lambda path, error: None)
    >>> status, text.splitlines()[0]
    (404, b'HTTP/1.0 404 Not Found')
    """
    line, _, fields = head.decode("latin-1").replace("\r\n", "\n").partition("\n")
    request = _REQUEST.fullmatch(line)
    path = None if request is None else _path(request[2])
    if request is None or path is None:
        response = json_response(400, {"error": "this is no request of HTTP/1"})
    elif request[1] not in METHODS:
        response = json_response(405, {"error": f"only {' and '.join(METHODS)}"}, ("Allow", ", ".join(METHODS)))
    elif (route := _route(path, routes)) is None:
        response = json_response(404, {"error": "not found", "paths": sorted(routes)})
    else:
        try:
            response = route(",".join(value.strip() for value in _ACCEPT.findall(fields)))
        except Exception as error:
            failed(path, error)
            response = json_response(500, {"error": "internal error, see the log"})
    return response.status, encode(response, body=request is None or request[1] != "HEAD")


def _route(path: str, routes: Mapping[str, Route]) -> Route | None:
    """What answers for the path; None if nothing does."""
    if path in routes:
        return routes[path]
    for prefix, route in routes.items():
        if len(prefix) > 1 and prefix.endswith("/") and path.startswith(prefix):
            below = unquote(path[len(prefix) :], errors="surrogateescape")
            return lambda _: route(below)
    return None


def _path(target: str) -> str | None:
    """The path that is asked for; None if it is none."""
    try:
        return urlsplit(target).path
    except ValueError:
        return None


def encode(response: Response, *, body: bool = True) -> bytes:
    """The bytes of a response. Without `body` it says how long that would be."""
    headers = (
        ("Server", "detector"),
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        *response.headers,
        *HEADERS,
    )
    lines = [
        f"HTTP/1.0 {response.status} {HTTPStatus(response.status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (response.body if body else b"")


def kept(make: Callable[[], Response], clock: Callable[[], float] = time.monotonic) -> Callable[[], Response]:
    """What `make` makes, at most every `FRESH_SECONDS`. For the one thread that serves.

    Many at once are given the same: making it takes the interpreter from the main loop.
    """
    until, response = -math.inf, json_response(503, None)

    def get() -> Response:
        nonlocal until, response
        if clock() >= until:
            response = make()
            until = clock() + FRESH_SECONDS
        return response

    return get
