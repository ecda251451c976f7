"""Requests over the network, against a receiver that misbehaves."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.errors import UserError
from detector.notify.requests import Request
from detector.notify.sending import HttpSender
from tests.kafka.certificates import make_certificates
from tests.notify.made import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def sender() -> Iterator[HttpSender]:
    with HttpSender(timeout=0.3) as found:
        yield found


def to(receiver: Receiver) -> Request:
    return Request(receiver.url, {"Idempotency-Key": "one-0"}, b"{}")


def test_what_is_taken_is_delivered(receiver: Receiver, sender: HttpSender) -> None:
    assert sender.send(to(receiver)).outcome == "delivered"
    ((path, headers, body),) = receiver.heard
    assert (path, body) == ("/hook", b"{}")
    assert headers["Idempotency-Key"] == "one-0"


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408, 301])
def test_these_answers_may_be_others_later(receiver: Receiver, sender: HttpSender, status: int) -> None:
    receiver.behaviour = lambda _: status
    answer = sender.send(to(receiver))
    assert answer.outcome == "failed"
    assert answer.why == f"HTTP {status}: so be i"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_these_will_not(receiver: Receiver, sender: HttpSender, status: int) -> None:
    receiver.behaviour = lambda _: status
    assert sender.send(to(receiver)).outcome == "refused"


def test_a_connection_that_ends_or_hangs_is_no_end(receiver: Receiver, sender: HttpSender) -> None:
    answers: list[int | str] = ["reset", "slow", 200]
    receiver.behaviour = lambda number: answers[number]
    assert [sender.send(to(receiver)).outcome for _ in range(3)] == ["failed", "failed", "delivered"]


def test_nobody_there(sender: HttpSender) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        answer = sender.send(Request(f"http://127.0.0.1:{free.getsockname()[1]}/", {}, b""))
    assert answer.outcome == "failed"
    assert "ConnectError" in answer.why


def test_a_certificate_that_is_not_trusted_fails_and_one_that_is_does_not(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, "nobody")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_store)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(65536)
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except ssl.SSLError:
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        request = Request(f"https://localhost:{port}/", {}, b"")
        with HttpSender(timeout=5) as unknown:
            answer = unknown.send(request)
        assert answer.outcome == "failed"
        assert "certificate" in answer.why.lower()
        with HttpSender(timeout=5, ca_file=made.authority) as known:
            assert known.send(request).outcome == "delivered"
        thread.join()


def test_certificates_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the certificates"):
        HttpSender(timeout=1, ca_file=tmp_path / "missing")
