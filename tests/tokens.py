"""A token endpoint on this machine, as RFC 6749, 4.4, has it."""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any, Self

CLIENT = "detector"
SECRET = "s3cr3t+/ %"  # noqa: S105  (what is made up here opens nothing)


class TokenServer:
    """Grants `token()` to the one client it knows. `answer` replaces what it says: a status and a body."""

    def __init__(self, token: Callable[[], str], lifetime: float = 300.0) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: tuple[int, bytes] | None = None
        self._token, self._lifetime = token, lifetime
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reply(self, header: str, form: str) -> tuple[int, bytes]:
        self.asked.append({name: values[0] for name, values in urllib.parse.parse_qs(form).items()})
        if self.answer is not None:
            return self.answer
        scheme, _, credentials = header.partition(" ")
        known = f"{urllib.parse.quote_plus(CLIENT)}:{urllib.parse.quote_plus(SECRET)}"
        if scheme != "Basic" or base64.b64decode(credentials).decode() != known:
            return 401, b'{"error": "invalid_client", "error_description": "unknown client"}'
        granted = {"access_token": self._token(), "token_type": "Bearer", "expires_in": self._lifetime}
        return 200, json.dumps(granted).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, body = server._reply(self.headers.get("Authorization", ""), form)
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", server.endpoint)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        return Handler
