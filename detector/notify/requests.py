"""What a target is sent: method, address, headers and body of a request. No I/O but the template's file.

A webhook gets the incident as JSON, or what a Jinja2 template makes of it, with a key by which it knows what comes
twice, and a signature if there is a secret. Alertmanager gets alerts of its own form: an incident's labels never
change, for they are its identity there; all else is annotations.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import jinja2
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from detector import __version__
from detector.config.load import TargetConfig
from detector.errors import UserError
from detector.times import SECOND, parse_time, rfc3339
from detector.wire.incidents import Incident

ALERT_NAME: Final = "AnomalyIncident"
STAYS_OPEN_SECONDS: Final = 600.0
"""An Alertmanager that hears nothing more of an open incident lets it go after so long."""
_MAX_ANNOTATION: Final = 2_000
_MEMBERS_SHOWN: Final = 10
_MS: Final = 1_000_000
_SHORTEST_SECRET: Final = 4
"""Characters. What is shorter, as `api` and `v2` in an address, gives nothing away, and is in many words."""
_OPEN_HEADERS: Final = frozenset({"accept", "content-type", "user-agent"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    secrets: frozenset[str] = frozenset()
    """What no text about it may show, whoever wrote that."""


def idempotency_key(incident: Incident) -> str:
    """What a receiver recognises a message by that comes twice."""
    return f"{incident.incident_id}-{incident.sequence}"


class Webhook:
    """Makes the requests of a target of that kind. Raises UserError for a template or a secret that cannot be read."""

    def __init__(self, target: TargetConfig) -> None:
        self._name = target.name
        self._url = target.read_url()
        self._headers = common_headers(target)
        self._secrets = secrets_of(target, self._url)
        secret = target.secret()
        self._secret = None if secret is None else secret.get_secret_value().encode()
        self._content_type = target.content_type
        self._template = None if target.template is None else load_template(target.template)

    def request(self, value: bytes, incident: Incident, now: float) -> Request:
        """What to send at `now` (s since the epoch), given the message as it was read."""
        content_type, body = "application/json", value
        if self._template is not None:
            content_type, body = self._rendered(self._template, value, incident)
        headers = {
            "Content-Type": content_type,
            "Idempotency-Key": idempotency_key(incident),
            "X-Detector-Event": incident.event,
            **self._headers,
        }
        if self._secret is not None:
            stamp = str(int(now))
            headers |= {"X-Detector-Timestamp": stamp, "X-Detector-Signature": signature(self._secret, stamp, body)}
        return Request(self._url, headers, body, self._secrets)

    def _rendered(self, template: jinja2.Template, value: bytes, incident: Incident) -> tuple[str, bytes]:
        """A template that fails does not keep the news from people: they get plain text that says so."""
        try:
            text = template.render(
                incident=msgspec.json.decode(value), target=self._name, key=idempotency_key(incident)
            )
            if self._content_type.partition(";")[0].strip().endswith("json"):
                json.loads(text)
            return self._content_type, text.encode()
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            _log.warning("template_failed", extra={"fields": {"target": self._name, "reason": why}})
            text = f"{incident.event}: {incident.title} ({incident.severity})\n(The template failed: {why})\n"
            return "text/plain; charset=utf-8", text.encode("utf-8", "backslashreplace")


class Alertmanager:
    """Makes the requests of a target of that kind. Raises UserError for a secret that cannot be read."""

    def __init__(self, target: TargetConfig) -> None:
        base = target.read_url()
        self._url = f"{base.rstrip('/')}/api/v2/alerts"
        self._secrets = secrets_of(target, base)
        self._headers = {"Content-Type": "application/json", **common_headers(target)}

    def request(self, value: bytes, incident: Incident, now: float) -> Request:
        """What to send at `now` (s since the epoch) about one incident."""
        return self.several([incident], now)

    def several(self, incidents: list[Incident], now: float) -> Request:
        """The same of several at once."""
        body = msgspec.json.encode([alert_of(incident, now) for incident in incidents])
        return Request(self._url, self._headers, body, self._secrets)


def alert_of(incident: Incident, now: float) -> dict[str, Any]:
    """An incident as an alert of Alertmanager's API, version 2.

    An open one ends `STAYS_OPEN_SECONDS` from now unless it is sent again; a closed one has ended.
    """
    started = parse_time(incident.started_at)
    if incident.event == "closed":
        # An end that lies ahead, by a clock that is, would keep it open.
        ends = min(parse_time(incident.ended_at or incident.started_at), int(now * SECOND))
        started = min(started, ends)
    else:
        ends = int((now + STAYS_OPEN_SECONDS) * SECOND)
        started = min(started, int(now * SECOND))
    annotations = {
        "summary": incident.title,
        "severity": incident.severity,
        "size": str(incident.size),
        "event": incident.event,
        "first_seen": "; ".join(f"{one.sensor_id}: {one.why}" for one in incident.suspects),
        "members": _members(incident),
        "detected_at": incident.detected_at,
    }
    return {
        "labels": {"alertname": ALERT_NAME, "incident_id": incident.incident_id, "group": incident.group},
        "annotations": {name: text[:_MAX_ANNOTATION] for name, text in annotations.items()},
        "startsAt": rfc3339(started),
        "endsAt": rfc3339(ends),
    }


def _members(incident: Incident) -> str:
    lines = []
    for one in incident.members[:_MEMBERS_SHOWN]:
        what = "" if one.what is None else f", {one.what.text or one.what.kind}"
        lines.append(f"{one.sensor_id}{what} since {one.started_at}")
    if incident.size > len(lines):
        lines.append(f"and {incident.size - len(lines)} more")
    return "\n".join(lines)


def common_headers(target: TargetConfig) -> dict[str, str]:
    """What every request to the target carries. Raises UserError for a token that cannot be read."""
    token = target.bearer_token()
    bearer = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
    return {"User-Agent": f"detector/{__version__}", **bearer, **target.headers}


def secrets_of(target: TargetConfig, url: str) -> frozenset[str]:
    """What a server might repeat, and nobody may see: what is sent along, and of an address that is a secret each part.

    Servers write an address as it is, decoded, or for a page.
    """
    parts = urlsplit(url)
    found = {parts.query, *(pair.partition("=")[2] or pair for pair in parts.query.split("&"))}
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        found |= {parts.netloc.rpartition("@")[0], password, base64.b64encode(f"{user}:{password}".encode()).decode()}
    if target.url is None:
        found |= {url, parts.netloc, parts.hostname or "", parts.path, *parts.path.split("/")}
    forms = {form for one in found for form in (one, unquote(one), unquote_plus(one), quote(one, safe="/%:?&=+,;@"))}
    values = [value for name, value in target.headers.items() if name.lower() not in _OPEN_HEADERS]
    sent = {*values, *(value.rpartition(" ")[2] for value in values)}
    if (token := target.bearer_token()) is not None:
        sent.add(token.get_secret_value())
    known = forms | sent
    return frozenset(one for one in known | {html.escape(one) for one in known} if len(one) >= _SHORTEST_SECRET)


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """The signature of a body sent at `stamp` (s since the epoch).

    >>> signature(b"secret", "1795341600", b"{}")
    'sha256=4299b6593bbfff089d4e3c206e9ac5379c0094a5174dd69b050fbc538bfff29f'
    """
    return "sha256=" + hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def load_template(path: Path) -> jinja2.Template:
    """Compile a template, in a sandbox: it sees the incident and nothing of the process. Raises UserError."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
    environment.globals["epoch_ms"] = _epoch_ms
    try:
        return environment.from_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read the template: {reason}", where=str(path), todo="Correct it") from error
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        raise UserError(f"this is no template: {error}", where=where, todo="Correct it") from error


def _epoch_ms(time: str) -> int:
    """For templates: a time of an incident in ms since the epoch."""
    return parse_time(time) // _MS
