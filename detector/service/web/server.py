"""The process's own small HTTP server: `/metrics`, `/healthz`, `/readyz`, each a function in a table of routes.

The page for people and its JSON are in `detector.service.web.page`.

One thread serves all clients and waits for none of them: it takes what has come, answers a request that is complete,
and sends what fits. A connection has one time limit for everything. There is a bounded number of them, and when one
more comes the oldest makes way: a client that sends its request at once is answered, however many others are slow.
Supervisors rely on that for `/healthz`. The server only reads; it listens on the loopback interface unless the
configuration says otherwise.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from detector.errors import OperationError, UserError
from detector.service.health import Health
from detector.service.logs import event
from detector.service.web.answers import Response, Route, answer, encode, json_response, kept

TURN_SECONDS: Final = 0.1
"""How often the time limits are looked at."""
BACKLOG: Final = 512
"""Connections that the system holds until they are taken in."""
GRACE_SECONDS: Final = 0.1
"""How long a connection may stay, at least. Meanwhile others wait in the system's queue."""
PAUSE_SECONDS: Final = 0.005
"""Until room is looked for again."""
AT_ONCE: Final = 32
"""Connections taken in before the others are looked at again."""
HEAD_BYTES: Final = 32 * 1024
"""The lines of a request."""
BODY_BYTES: Final = 1024 * 1024
"""Read of a request that is refused, for a client that is cut off while it sends may never see the answer."""
LINE_SHOWN: Final = 200
"""Bytes of a request in the log."""
TELL_SECONDS: Final = 10.0
"""How often the log says that connections are turned away, at most."""

_NO_WAIT: Final = socket.MSG_DONTWAIT
_OPENMETRICS: Final = "application/openmetrics-text"
_END: Final = re.compile(rb"\r?\n\r?\n")
_TOO_SLOW: Final = json_response(408, {"error": "the request did not come in time"})
_TOO_LONG: Final = json_response(431, {"error": f"a request may have {HEAD_BYTES} bytes"})
_TOO_MANY: Final = json_response(503, {"error": "too many connections"}, ("Retry-After", "1"))

_log = logging.getLogger(__name__)


def standard_routes(
    registry: CollectorRegistry, health: Health, clock: Callable[[], float] = time.monotonic
) -> dict[str, Route]:
    """Return the routes every daemon has. A scrape takes no lock of the main loop."""
    texts = [_exposition(registry, accept, clock) for accept in ("", _OPENMETRICS)]

    def metrics(accept: str) -> Response:
        return texts[takes_openmetrics(accept)]()

    def healthz(accept: str) -> Response:
        live = health.live
        return json_response(
            200 if live else 503, {"live": live, "seconds_since_progress": round(health.idle_seconds, 3)}
        )

    def readyz(accept: str) -> Response:
        reasons = health.reasons
        return json_response(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


def _exposition(registry: CollectorRegistry, accept: str, clock: Callable[[], float]) -> Callable[[], Response]:
    encode, content_type = choose_encoder(accept)
    return kept(lambda: Response(200, content_type, encode(registry)), clock)


def takes_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header, however it is made, names the version of OpenMetrics that is written here.

    The client library fails on other versions, and repeats in its answer what it was sent.
    """
    for one in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        versions = [part for part in parameters if part.startswith("version")]
        if kind == _OPENMETRICS and all(re.fullmatch(r'version\s*=\s*"?1\.0\.0"?', part) for part in versions):
            return True
    return False


class HttpServer:
    """Serves `routes` on `host` and `port` (0 takes a free one) from `start` to `stop`.

    `timeout` (s on `clock`) bounds a connection from its first byte to its last; `connections` is how many there may be
    at once. `on_failure` is called when a route raises.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Mapping[str, Route],
        *,
        timeout: float = 10.0,
        connections: int = 256,
        on_failure: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._port = port
        self._routes = dict(routes)
        self._timeout = timeout
        self._connections = connections
        self._on_failure = on_failure
        self._clock = clock
        self._clients: _Clients | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        """The port in use; 0 when not started."""

    def start(self) -> None:
        """Listen and serve on a thread of its own. Raises DetectorError when the address cannot be had."""
        try:
            listener = _listen(self._host, self._port)
        except OSError as error:
            # A right to a port is for a person to give; a port may become free, and a name or an address come up.
            kind = UserError if isinstance(error, PermissionError) else OperationError
            in_use = error.errno == errno.EADDRINUSE
            raise kind(
                f"cannot listen on {_address(self._host, self._port)}: {error.strerror or error}",
                where="http.listen",
                todo="Stop what uses the port or choose another one" if in_use else "Correct the address",
            ) from error
        self.port = int(listener.getsockname()[1])
        self._clients = _Clients(listener, self._answer, self._timeout, self._connections, self._clock)
        self._thread = threading.Thread(target=self._clients.serve, name="http", daemon=True)
        self._thread.start()
        event(_log, logging.INFO, "http_listening", address=_address(self._host, self.port))

    def stop(self) -> None:
        """Stop listening, and break off what is under way. May be called twice."""
        if self._clients is None or self._thread is None:
            return
        self._clients.stop()
        self._thread.join()
        self._clients = self._thread = None
        self.port = 0

    def _answer(self, head: bytes) -> tuple[int, bytes]:
        return answer(head, self._routes, self._failed)

    def _failed(self, path: str, error: Exception) -> None:
        _log.warning("http_route_failed", extra={"fields": {"path": path}}, exc_info=error)
        self._on_failure()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class _Client:
    """A connection, what has come on it and what is still to be sent."""

    __slots__ = ("address", "awaited", "lingers", "received", "since", "socket", "unsent")

    def __init__(self, connection: socket.socket, address: str, since: float) -> None:
        self.socket = connection
        self.address = address
        self.since = since
        self.received = bytearray()
        self.unsent: memoryview | None = None
        """None: the request is not complete."""
        self.lingers = 0
        """How many bytes are read and thrown away after the answer."""
        self.awaited = 0
        """The events that it is registered for."""


class _Clients:
    """Takes clients in from `listener` and serves them, within `serve`. `limit` is how many there may be at once.

    `answer` makes the status and the bytes of an answer from the lines of a request.
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[bytes], tuple[int, bytes]],
        timeout: float,
        limit: int,
        clock: Callable[[], float],
    ) -> None:
        self._listener = listener
        self._answer = answer
        self._timeout = timeout
        self._limit = limit
        self._clock = clock
        self._selector = DefaultSelector()
        self._open: dict[_Client, None] = {}
        """In the order they came."""
        self._stopping = False
        self._turned_away = 0
        self._announced = -math.inf

    def stop(self) -> None:
        """Make `serve` return. From another thread."""
        self._stopping = True

    def serve(self) -> None:
        """Serve until `stop`, then close everything."""
        with self._selector, self._listener:
            self._selector.register(self._listener, EVENT_READ)
            while not self._stopping:
                # Who is here is looked at before others are let in, so that nobody makes way with a request unread.
                ready = [key.data for key, _ in self._selector.select(TURN_SECONDS)]
                for client in ready:
                    if client in self._open:
                        self._advance(client)
                self._expire()
                if None in ready:  # the listener
                    self._take_in()
            for client in list(self._open):
                self._close(client)

    def _take_in(self) -> None:
        for _ in range(AT_ONCE):
            if len(self._open) >= self._limit and not self._make_room():
                time.sleep(PAUSE_SECONDS)
                return
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # above all: no descriptors left
                event(_log, logging.DEBUG, "http_client_error", client="", error=repr(error))
                self._make_room()
                time.sleep(PAUSE_SECONDS)
                return
            client = _Client(connection, str(address[0]), self._clock())
            self._open[client] = None
            self._advance(client)

    def _make_room(self) -> bool:
        """Turn the oldest away unless it has just come; one that is being sent an answer only if there is no other."""
        now = self._clock()
        stayed = [client for client in self._open if now - client.since >= GRACE_SECONDS]
        if not stayed:
            return False
        oldest = next((client for client in stayed if not client.unsent), stayed[0])
        self._dismiss(oldest, _TOO_MANY)
        self._turned_away += 1
        if now - self._announced >= TELL_SECONDS:
            event(_log, logging.WARNING, "http_turned_away", connections=self._turned_away, client=oldest.address)
            self._announced, self._turned_away = now, 0
        return True

    def _advance(self, client: _Client) -> None:
        """Do what can be done for a client now."""
        try:
            more = self._step(client)
        except BlockingIOError:
            more = True
        except OSError as error:
            # A client that went away in the middle of an answer is its own business.
            event(_log, logging.DEBUG, "http_client_error", client=client.address, error=repr(error))
            more = False
        awaited = EVENT_WRITE if client.unsent else EVENT_READ
        if not more:
            self._close(client)
        elif not client.awaited:
            self._selector.register(client.socket, awaited, client)
        elif client.awaited != awaited:
            self._selector.modify(client.socket, awaited, client)
        client.awaited = awaited

    def _step(self, client: _Client) -> bool:
        """Receive, answer and send what needs no waiting; whether there is more to come."""
        if client.unsent is None:
            data = client.socket.recv(HEAD_BYTES, _NO_WAIT)
            if not data and not client.received:
                return False
            client.unsent = self._hear(client, data)
            if client.unsent is None:
                return True
        if client.unsent:
            client.unsent = client.unsent[client.socket.send(client.unsent, _NO_WAIT) :]
            if client.unsent:
                return True
            if client.lingers:
                client.socket.shutdown(socket.SHUT_WR)
        else:
            data = client.socket.recv(HEAD_BYTES, _NO_WAIT)
            client.lingers = client.lingers - len(data) if data else 0
        return client.lingers > 0

    def _hear(self, client: _Client, data: bytes) -> memoryview | None:
        """Take in a piece of a request, nothing at its end. The answer, once it is complete or too long."""
        begin = max(0, len(client.received) - 3)
        client.received += data
        end = _END.search(client.received, begin)
        if end is None and data and len(client.received) < HEAD_BYTES:
            return None
        head = bytes(client.received[: end.start() if end else None])
        status, answered = (431, encode(_TOO_LONG)) if end is None and data else self._answer(head)
        client.lingers = BODY_BYTES if 400 <= status < 500 else 0
        line = head[:LINE_SHOWN].partition(b"\n")[0].decode("latin-1").rstrip()
        event(_log, logging.DEBUG, "http_request", client=client.address, line=f'"{line}" {status} {len(answered)}')
        return memoryview(answered)

    def _expire(self) -> None:
        since = self._clock() - self._timeout
        while self._open and (client := next(iter(self._open))).since <= since:
            self._dismiss(client, _TOO_SLOW)

    def _dismiss(self, client: _Client, response: Response) -> None:
        """Close a connection; one on which a request has begun is told why."""
        event(_log, logging.DEBUG, "http_client_error", client=client.address, error=str(response.status))
        if client.unsent is None and client.received:
            with suppress(OSError):
                client.socket.send(encode(response), _NO_WAIT)
        self._close(client)

    def _close(self, client: _Client) -> None:
        del self._open[client]
        if client.awaited:
            self._selector.unregister(client.socket)
        client.socket.close()
