"""Requests over the network, against a receiver that misbehaves."""

from __future__ import annotations

import html
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from detector.errors import UserError
from detector.notify.requests import Request
from detector.notify.sending import HttpSender
from detector.service.telling import form_of
from tests.kafka.certificates import make_certificates
from tests.notify.made import NOW, Receiver, incident, receiving, target, value


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


PATH_HIDDEN = "/services/T0AB12/Ünï%20x/tok-3n"


@pytest.mark.parametrize("kind", ["webhook", "alertmanager"])
@pytest.mark.parametrize("cut", [0, 90, 150, 170, 185, 195])
@pytest.mark.parametrize("how", ["path", "decoded", "html", "upper", "pieces", "headers"])
def test_no_answer_shows_what_is_secret(
    receiver: Receiver, sender: HttpSender, monkeypatch: pytest.MonkeyPatch, kind: str, cut: int, how: str
) -> None:
    monkeypatch.setenv(
        "URL", receiver.url.replace("http://", "http://ann:p4ssw0rd@") + f"{PATH_HIDDEN}?key=q<uery&b=cdef"
    )
    monkeypatch.setenv("TOKEN", "bearer-t0ken")
    secretive = target(
        kind=kind,
        url=None,
        url_env="URL",
        bearer_token_env="TOKEN",  # noqa: S106
        headers={"X-Api-Key": "api-k3y", "X-Auth": "Own s3cond"},
    )
    receiver.behaviour = lambda _: 404

    def words(path: str, headers: dict[str, str]) -> bytes:
        said = {
            "path": path, "decoded": unquote(path), "html": html.escape(unquote(path)), "upper": path.upper(),
            "pieces": json.dumps(path.split("/")), "headers": json.dumps(headers),
        }[how]  # fmt: skip
        return f"{'x' * cut} Cannot POST {said} {said} {'y' * cut}".encode()

    receiver.words = words
    form = form_of(secretive)
    answer = sender.send(form.request(value(), incident(), NOW))
    assert answer.outcome == "refused"
    if not cut:
        assert "Cannot POST" in answer.why
    shown = unquote(html.unescape(answer.why)).lower()
    for secret in (
        "services",
        "T0AB12",
        "Ünï",
        "tok-",
        "uery",
        "cdef",
        "p4ss",
        "bearer-",
        "api-k",
        "s3con",
        "YW5u",
        "/hook",
    ):
        assert secret.lower() not in shown, answer.why


def test_an_address_that_is_written_openly_is_shown_but_for_its_user(receiver: Receiver, sender: HttpSender) -> None:
    receiver.behaviour = lambda _: 404
    receiver.words = lambda path, headers: f"Cannot POST {path} of {open_address}".encode()
    open_address = receiver.url.replace("http://", "http://ann:p4ssw0rd@")
    answer = sender.send(form_of(target(url=open_address)).request(value(), incident(), NOW))
    assert answer.why == f"HTTP 404: Cannot POST /hook of {receiver.url}"


@pytest.mark.parametrize("token", ["TOPSECRET ", "TOP\nSECRET", "TOPSECRÉT"])
def test_what_the_client_says_of_a_header_is_not_shown(receiver: Receiver, sender: HttpSender, token: str) -> None:
    """Such tokens are refused when they are read; nothing rests on that alone."""
    answer = sender.send(Request(receiver.url, {"Authorization": f"Bearer {token}"}, b"{}"))
    assert answer.outcome != "delivered"
    assert "TOP" not in answer.why
    assert "É" not in answer.why
    assert not receiver.heard


def test_an_address_that_the_client_refuses_is_not_shown(sender: HttpSender) -> None:
    request = Request("http://xn--s3cr3t-\udcff/", {}, b"", frozenset({"xn--s3cr3t-\udcff"}))
    answer = sender.send(request)
    assert answer.outcome == "refused"
    assert "s3cr3t" not in answer.why


@pytest.mark.parametrize("proxy", ["foo://ann:p4ssw0rd@h:1", "socks5://ann:p4ssw0rd@h:1"])
def test_a_proxy_that_cannot_be_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UserError, match="the proxy that the environment names cannot be used") as refused:
        HttpSender(timeout=1)
    assert "p4ss" not in str(refused.value)


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
