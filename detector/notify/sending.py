"""Requests on their way, and what is made of the answers."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import httpx

from detector.errors import UserError, in_brief, without
from detector.notify.requests import Request

_TRY_AGAIN: Final = frozenset({408, 425, 429})
"""Of the answers that say that the request is wrong, those that do not mean it."""
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. `why` in words; `after`: s that the target asks to wait."""

    outcome: Literal["delivered", "failed", "refused"]
    why: str = ""
    after: float | None = None


class Sender(Protocol):
    """Something that sends."""

    def send(self, request: Request) -> Answer:
        """Send it, within the limit of time. Never raises for what the network does."""


class HttpSender:
    """Sends over HTTP. `timeout` (s) bounds connecting and each wait for the answer; redirects are not followed."""

    def __init__(self, *, timeout: float, ca_file: Path | None = None) -> None:
        trusted = _trusted(ca_file)
        try:
            self._client = httpx.Client(timeout=timeout, verify=trusted, follow_redirects=False)
        except (ValueError, ImportError, httpx.InvalidURL) as error:  # its text may show a password
            raise UserError(
                f"the proxy that the environment names cannot be used: {type(error).__name__}",
                where="$HTTPS_PROXY, $HTTP_PROXY or $ALL_PROXY",
                todo="Write it like http://proxy.example.org:3128",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def send(self, request: Request) -> Answer:
        try:
            with self._client.stream("POST", request.url, content=request.body, headers=dict(request.headers)) as found:
                text = _beginning(found, request.secrets)
        # The texts of these quote the address, or a header.
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            return Answer("refused", f"{type(error).__name__}: this address, or a header, is none that can be sent")
        except httpx.LocalProtocolError as error:
            return Answer("failed", f"{type(error).__name__}: the request is none that can be sent")
        except httpx.HTTPError as error:
            return Answer("failed", f"{type(error).__name__}: {in_brief(error, request.secrets)}")
        if found.is_success:
            return Answer("delivered")
        why = f"HTTP {found.status_code}{f': {text}' if text else ''}"
        if 400 <= found.status_code < 500 and found.status_code not in _TRY_AGAIN:
            return Answer("refused", why)
        return Answer("failed", why, _seconds(found.headers.get("Retry-After")))


def _beginning(found: httpx.Response, secrets: Collection[str]) -> str:
    """The beginning of an answer's text, without secrets; how long it is, and whether it ends, does not matter."""
    if found.is_success:
        return ""
    longest = max((len(one.encode()) for one in secrets), default=0)
    text, most = b"", _SHOWN + longest
    for piece in found.iter_raw():
        text += piece
        if len(text) > most:
            break
    told = text[:most].decode("utf-8", "replace")
    if not told.strip():
        return ""
    if len(text) > most:
        # The end may be a part of a secret, which nothing would recognise.
        told = without(told, secrets)[: -longest or None]
    return in_brief(told, secrets)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"cannot read the certificates: {in_brief(error)}", where=str(ca_file), todo="Correct ca_file"
        ) from error
