"""What a route answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, NamedTuple

# Nothing is loaded from elsewhere and nothing runs, whatever a sensor calls itself.
HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Response(NamedTuple):
    status: int
    content_type: str
    body: bytes


# Given the `Accept` header, or an empty string.
Route = Callable[[str], Response]


def json_response(status: int, value: object) -> Response:
    """`value` as JSON."""
    return Response(status, "application/json; charset=utf-8", (json.dumps(value, indent=2) + "\n").encode())
