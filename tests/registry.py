"""A schema registry on this machine, with the part of the API of Confluent's that readers use."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

USER, PASSWORD = "reader", "s3cr3t"


class FakeRegistry:
    """Knows the schemas in `schemas`, by number, and in `subjects`. `down`: it answers 503 to everything.

    `instead`: what it answers with 200, whatever is asked.
    """

    def __init__(self, *, port: int = 0, password: bool = False) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.down = False
        self.unknown = 40403
        self.instead: bytes | None = None
        self._password = password
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def add(self, number: int, schema: Any, **more: Any) -> None:
        self.schemas[number] = {"schema": schema if isinstance(schema, str) else json.dumps(schema), **more}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str, authorization: str) -> tuple[int, Any]:
        self.asked.append(path)
        if self.down:
            return 503, {"error_code": 50003}
        if self._password and authorization != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            return 401, {"error_code": 40101}
        if path.startswith("/schemas/ids/"):
            found = self.schemas.get(int(path.rpartition("/")[2]))
        else:
            found = self.subjects.get(path)
        return (404, {"error_code": self.unknown, "message": "Schema not found"}) if found is None else (200, found)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, said = registry._answer(self.path, self.headers.get("Authorization", ""))
                body = json.dumps(said).encode()
                if registry.instead is not None:
                    status, body = 200, registry.instead
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        return Handler


READING = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "sensor_id", "type": "string"},
        {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": ["null", "double"]},
    ],
}


def framed(number: int, schema: Any, document: Any) -> bytes:
    """A value in the wire format."""
    import fastavro

    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), document)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()
