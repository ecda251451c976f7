"""Requests on their way, and what is made of the answers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import httpx

from detector.errors import UserError, in_brief
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
        self._client = httpx.Client(timeout=timeout, verify=_trusted(ca_file), follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def send(self, request: Request) -> Answer:
        try:
            with self._client.stream("POST", request.url, content=request.body, headers=dict(request.headers)) as found:
                text = _beginning(found)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            return Answer("refused", in_brief(error))
        except httpx.HTTPError as error:
            return Answer("failed", f"{type(error).__name__}: {in_brief(error)}")
        if found.is_success:
            return Answer("delivered")
        why = f"HTTP {found.status_code}{f': {text}' if text else ''}"
        if 400 <= found.status_code < 500 and found.status_code not in _TRY_AGAIN:
            return Answer("refused", why)
        return Answer("failed", why, _seconds(found.headers.get("Retry-After")))


def _beginning(found: httpx.Response) -> str:
    """The beginning of an answer's text; how long it is, and whether it ends, does not matter."""
    text = b""
    if not found.is_success:
        for piece in found.iter_raw():
            text += piece
            if len(text) >= _SHOWN:
                break
    told = " ".join(text[:_SHOWN].decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "?" for char in told)


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
