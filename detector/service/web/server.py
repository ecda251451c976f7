"""The process's own small HTTP server: `/metrics`, `/healthz`, `/readyz`, each a function in a table of routes.

The page for people and its JSON are in `detector.service.web.page`.

Every connection has a thread of its own, a time limit and one of a bounded number of places, so neither a client that
stalls nor many of them can hold up a scrape of another, let alone the main loop. The server only reads; it listens on
the loopback interface unless the configuration says otherwise.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from detector.errors import OperationError, UserError
from detector.service.health import Health
from detector.service.logs import event
from detector.service.web.answers import HEADERS, Response, Route, json_response

FRESH_SECONDS: Final = 0.5
"""How old the text of a scrape may be."""
RATE: Final = 20.0
"""So many connections a second are served when they come faster for long: each takes the interpreter from the main loop
for a while. The others wait in the system's queue, which takes nothing from it."""
BURST: Final = 20
"""So many may come at once before that."""
PLACE_SECONDS: Final = 0.2
"""How long a connection waits for a place before it is turned away."""
TELL_SECONDS: Final = 10.0
"""How often the log says that connections are turned away, at most."""

_log = logging.getLogger(__name__)


def standard_routes(
    registry: CollectorRegistry, health: Health, clock: Callable[[], float] = time.monotonic
) -> dict[str, Route]:
    """Return the routes every daemon has. A scrape takes no lock of the main loop."""
    kept: dict[str, tuple[float, Response]] = {}
    encoding = threading.Lock()

    def metrics(accept: str) -> Response:
        encode, content_type = choose_encoder(accept)
        with encoding:
            # Many at once are given the same text: making it takes the interpreter from the main loop.
            made, response = kept.get(content_type, (-math.inf, None))
            now = clock()
            if response is None or now - made >= FRESH_SECONDS:
                response = Response(200, content_type, encode(registry))
                kept[content_type] = now, response
        return response

    def healthz(accept: str) -> Response:
        live = health.live
        return json_response(
            200 if live else 503, {"live": live, "seconds_since_progress": round(health.idle_seconds, 3)}
        )

    def readyz(accept: str) -> Response:
        reasons = health.reasons
        return json_response(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


class Pace:
    """Lets `burst` pass at once and `rate` a second from then on."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._free = -math.inf  # when everything that passed so far is paid for

    def wait(self) -> float:
        """How many seconds the next one has to wait before it may pass; it counts as passed."""
        now = self._clock()
        self._free = max(self._free, now) + 1 / self._rate
        return max(0.0, self._free - now - self._burst / self._rate)


class HttpServer:
    """Serves `routes` on `host` and `port` (0 takes a free one) from `start` to `stop`.

    `timeout` (s) bounds each wait for a client; `connections` is how many are served at once, more are turned away.
    `on_failure` is called when a route raises.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Mapping[str, Route],
        *,
        timeout: float = 10.0,
        connections: int = 32,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._port = port
        self._handler = type(
            "Handler", (_Handler,), {"routes": dict(routes), "timeout": timeout, "on_failure": staticmethod(on_failure)}
        )
        self._places = threading.BoundedSemaphore(connections)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen and serve on a thread of its own. Raises DetectorError when the address cannot be had."""
        try:
            server = _Server(self._host, self._port, self._handler, self._places)
        except OSError as error:
            # A right to a port is for a person to give; a port may become free, and a name or an address come up.
            kind = UserError if isinstance(error, PermissionError) else OperationError
            in_use = error.errno == errno.EADDRINUSE
            raise kind(
                f"cannot listen on {_address(self._host, self._port)}: {error.strerror or error}",
                where="http.listen",
                todo="Stop what uses the port or choose another one" if in_use else "Correct the address",
            ) from error
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)
        thread.start()
        self._server, self._thread = server, thread
        event(_log, logging.INFO, "http_listening", address=_address(self._host, self.port))

    @property
    def port(self) -> int:
        """The port in use; 0 when not started."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening. Requests under way are left to end with the process. May be called twice."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Otherwise closing waits for every connection, and a stalled client would hold up a stop.
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, handler: type[BaseHTTPRequestHandler], places: threading.BoundedSemaphore
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._places = places
        self._pace = Pace(RATE, BURST)
        self._turned_away = 0
        self._announcements = -math.inf
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for the host's full name, which may take seconds, for nothing.
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        time.sleep(self._pace.wait())
        if not self._places.acquire(timeout=PLACE_SECONDS):
            self.shutdown_request(request)
            self._turned_away += 1
            now = time.monotonic()
            if now - self._announcements >= TELL_SECONDS:
                event(
                    _log, logging.WARNING, "http_turned_away",
                    connections=self._turned_away, client=str(client_address[0]),
                )  # fmt: skip
                self._announcements, self._turned_away = now, 0
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away in the middle of an answer is its own business.
        event(_log, logging.DEBUG, "http_client_error", client=str(client_address[0]), error=repr(sys.exception()))


class _Handler(BaseHTTPRequestHandler):
    routes: Mapping[str, Route]
    on_failure: Callable[[], None]
    server_version = "detector"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        route = self.routes.get(urlsplit(self.path).path)
        try:
            if route is None:
                response = json_response(404, {"error": "not found", "paths": sorted(self.routes)})
            else:
                response = route(self.headers.get("Accept", ""))
        except Exception as error:
            _log.warning("http_route_failed", extra={"fields": {"path": self.path}}, exc_info=error)
            self.on_failure()
            response = json_response(500, {"error": "internal error, see the log"})
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in HEADERS:
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:
        event(_log, logging.DEBUG, "http_request", client=self.client_address[0], line=format % args)
