"""The settings of what comes after an alert: incidents, and who is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from detector.config.base import Section, fits_header, resolve_secret, resolve_token
from detector.config.values import (
    Duration,
    Listen,
    Name,
    Pattern,
    PositiveDuration,
    Text,
    Variable,
    parse_duration,
    refused,
)
from detector.errors import UserError

MAX_TARGETS: Final = 50
_URL_FORM: Final = "Write it like https://example.org/hook"
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header (RFC 9110, 5.1)."""


def _several(value: Any) -> Any:
    """One pattern may be written without brackets."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class IncidentsConfig(Section):
    """Episodes that belong together become one incident: `detector incidents`."""

    input: Name = "anomaly-alerts"
    output: Name = "anomaly-incidents"
    group_id: Name | None = None
    """The consumer group (Kafka); null: that of the detector with `-incidents` behind it."""
    http: Listen = "127.0.0.1:9109"
    group_by: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=100), BeforeValidator(_several)] | None = (
        None
    )
    """Patterns of sensor ids, in which `{name}` stands for what names the group; null: one group."""
    within: PositiveDuration = parse_duration("5m")
    """How far an onset may lie from that of the incident's first episode (event time)."""
    update_every: PositiveDuration | None = parse_duration("1m")
    """Event time between two `updated` messages, but for those that cannot wait."""
    max_duration: PositiveDuration | None = parse_duration("7d")


class TargetConfig(Section):
    """Whom to tell. Secrets are in files or in the environment."""

    name: Annotated[Name, Field(max_length=60)]
    kind: Literal["webhook", "alertmanager"]
    url: Text | None = None
    """Where to; of Alertmanager the address up to, and without, `/api`."""
    url_file: Path | None = None
    url_env: Variable | None = None
    headers: Annotated[dict[Text, Text], Field(max_length=50)] = Field(default_factory=dict)
    bearer_token_file: Path | None = None
    bearer_token_env: Variable | None = None
    secret_file: Path | None = None
    """What the body is signed with (webhook)."""
    secret_env: Variable | None = None
    template: Path | None = None
    """A Jinja2 template of the body (webhook); null: the incident as JSON."""
    content_type: Text = "application/json"
    """Of the template's text."""
    ca_file: Path | None = None
    """The authorities whose certificates are trusted; null: those that come with the program."""
    timeout: PositiveDuration = parse_duration("10s")
    settle: Duration | None = None
    """null: as `notify.settle`."""
    give_up_after: PositiveDuration = parse_duration("1h")
    """A message that could not be delivered for so long becomes a dead letter."""
    severity: Literal["warning", "critical"] = "warning"
    """Incidents of at least this severity."""
    match: tuple[Pattern, ...] = ("*",)
    """Incidents of which the group or a sensor matches one of these patterns."""
    kinds: tuple[Text, ...] | None = None
    """Incidents with a member of one of these kinds (`readings`, `frames`, `stuck`, ...); null: of any."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in ("url", "url_file", "url_env") if getattr(self, name) is not None]
        if len(given) != 1:
            raise refused(f"the target {self.name} needs one of url, url_file and url_env", "Give exactly one")
        for secret in ("bearer_token", "secret"):
            if getattr(self, f"{secret}_file") is not None and getattr(self, f"{secret}_env") is not None:
                raise refused(f"{secret}_file and {secret}_env are both given", "Keep one of them")
        if self.url is not None and not _is_url(self.url):
            raise refused(f"the target {self.name} has a url that is no address of HTTP", _URL_FORM)
        for name, value in {**self.headers, "Content-Type": self.content_type}.items():
            if not _HEADER.fullmatch(name):
                raise refused(f"the target {self.name} has a header whose name is none", "Write it like X-Api-Key")
            if not fits_header(value):
                raise refused(
                    f"the target {self.name} has a value of {name} that no header can carry",
                    "Write visible ASCII characters, without spaces around them",
                )
        if self.kind == "alertmanager" and (self.template or self.secret_file or self.secret_env):
            raise refused(
                f"the target {self.name} is an Alertmanager", "Remove template and secret: they are a webhook's"
            )
        return self

    def read_url(self) -> str:
        """The address, from where it is given. Raises UserError."""
        found = resolve_secret(self.url_file, self.url_env, f"notify.targets.{self.name}.url")
        given = "url" if found is None else "url_file or url_env"
        url = (self.url or "") if found is None else found.get_secret_value().strip()
        if not _is_url(url):
            raise UserError("this is no address of HTTP", where=f"notify.targets.{self.name}: {given}", todo=_URL_FORM)
        return url

    def bearer_token(self) -> SecretStr | None:
        """The token that is sent along; None where there is none. Raises UserError."""
        key = f"notify.targets.{self.name}.bearer_token"
        return resolve_token(self.bearer_token_file, self.bearer_token_env, key)

    def secret(self) -> SecretStr | None:
        """What the body is signed with; None where it is not. Raises UserError."""
        return resolve_secret(self.secret_file, self.secret_env, f"notify.targets.{self.name}.secret")


def _is_url(url: str) -> bool:
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class NotifyConfig(Section):
    """Who is told of incidents: `detector notify`."""

    input: Name = "anomaly-incidents"
    http: Listen = "127.0.0.1:9110"
    settle: PositiveDuration | None = parse_duration("10s")
    """How long an incident may grow before it is first told of (wall clock); null: not at all."""
    targets: Annotated[tuple[TargetConfig, ...], Field(max_length=MAX_TARGETS)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [target.name for target in self.targets]
        if twice := {name for name in names if names.count(name) > 1}:
            raise refused(f"there are several targets {min(twice)}", "Give each its own name")
        return self
