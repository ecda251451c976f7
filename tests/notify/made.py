"""Incidents made by hand, and a receiver that does what it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from detector.config.load import TargetConfig
from detector.wire.incidents import Incident, IncidentMember, IncidentSource, Suspect, What, encode_incident

NOW = 1_795_341_700.0  # 2026-11-22T10:01:40Z


def incident(name: str = "one", event: str = "opened", sequence: int | None = None, **fields: Any) -> Incident:
    member = IncidentMember(
        sensor_id='line 2/pressure-03 "new"',
        alert_id="a",
        kind="readings",
        channel="value",
        what=What(kind="stuck", text="holds 3.2 exactly"),
        severity="warning",
        started_at="2026-11-22T10:00:00Z",
        ended_at=None,
        peak_score=4.0,
    )
    found: dict[str, Any] = {
        "incident_id": name,
        "sequence": {"opened": 0, "updated": 1, "closed": 2}[event] if sequence is None else sequence,
        "event": event,
        "group": "line 2",
        "title": 'line 2: 14 sensors, first pressure-03 "new" (stuck), 10:00',
        "severity": "warning",
        "started_at": "2026-11-22T10:00:00Z",
        "detected_at": "2026-11-22T10:00:10Z",
        "ended_at": "2026-11-22T10:01:00Z" if event == "closed" else None,
        "size": 14,
        "members": [member],
        "suspects": [Suspect(sensor_id=member.sensor_id, channel="value", why="seen first, at 10:00:00 UTC")],
        "source": IncidentSource(stream="anomaly-alerts", partition=0, offset=0),
    }
    return Incident(**(found | fields))


def value(name: str = "one", event: str = "opened", sequence: int | None = None, **fields: Any) -> bytes:
    return encode_incident(incident(name, event, sequence, **fields))


def target(**fields: Any) -> TargetConfig:
    return TargetConfig(**({"name": "ops", "kind": "webhook", "url": "http://localhost:1/"} | fields))


@dataclass
class Receiver:
    """A server on a port of its own. `behaviour` is asked what to do with each request, given its number from 0."""

    url: str
    behaviour: Callable[[int], int | str] = lambda number: 200
    words: Callable[[str, dict[str, str]], bytes] = lambda path, headers: b"so be i"
    """The text of its answers, given the path and the headers of a request."""
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [headers["Idempotency-Key"] for _, headers, _ in self.heard]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A behaviour is a status, `reset`, or `slow`: no answer while the test runs."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = len(receiver.heard)
            receiver.heard.append((self.path, dict(self.headers), body))
            answer = receiver.behaviour(number)
            if answer == "slow":
                done.wait(30)
                return
            if answer == "reset":
                self.close_connection = True
                return
            self.send_response(int(answer))
            words = receiver.words(self.path, dict(self.headers))
            self.send_header("Content-Length", str(len(words)))
            self.end_headers()
            self.wfile.write(words)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        done.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Clock:
    """Wall-clock time that a test turns."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for other threads; fails if it does not come true."""
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        threading.Event().wait(0.005)
