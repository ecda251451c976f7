"""Bearer tokens for the client: from a file or a variable, or from a token endpoint by client credentials."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from kafka.errors import KafkaConnectionError
from kafka.net.sasl.oauth import AbstractTokenProvider

from detector.config.streams import KafkaConfig
from detector.errors import UserError, in_brief

_SECONDS: Final = 5.0
"""The most an endpoint may take to answer."""
_LARGEST: Final = 1 << 20
_LIFETIME: Final = 300.0
"""Seconds that a token is taken to live whose endpoint does not say."""
_RENEWED_AT: Final = 0.8
"""The share of a token's life after which another is asked for."""


class Token(AbstractTokenProvider):  # type: ignore[misc]  # untyped base
    """The bearer token, read again whenever the client logs in: whoever renews it only has to write the file."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config

    def token(self) -> str:
        """Raises KafkaConnectionError if it cannot be read: the client comes again, as if the broker were away."""
        try:
            return self.checked()
        except UserError as error:
            raise KafkaConnectionError(str(error)) from None

    def checked(self) -> str:
        """The token. Raises UserError where a person has to change something, KafkaConnectionError where none comes."""
        found = self._config.sasl_token()
        return "" if found is None else found.get_secret_value()


class GrantedToken(Token):
    """The bearer token that a token endpoint grants; kept for most of its life, then another one is asked for.

    An endpoint that is down is like a broker that is away, once the token has expired that there was.
    """

    def __init__(self, config: KafkaConfig, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(config)
        self._clock = clock
        self._lock = threading.Lock()  # clients log in on threads of their own
        self._token = ""
        self._renew_at = self._expires_at = 0.0

    def checked(self) -> str:
        with self._lock:
            if not self._token or self._clock() >= self._renew_at:
                self._renew()
            return self._token

    def _renew(self) -> None:
        began = self._clock()
        try:
            granted = self._granted()
        except (OSError, ValueError, http.client.HTTPException) as error:
            if self._token and began < self._expires_at:
                return
            raise KafkaConnectionError(f"no token comes from {self._endpoint}: {in_brief(error)}") from None
        lifetime = float(granted.get("expires_in") or _LIFETIME)
        self._token = granted["access_token"]
        self._renew_at, self._expires_at = began + lifetime * _RENEWED_AT, began + lifetime

    @property
    def _endpoint(self) -> str:
        return str(self._config.sasl_oauth_token_endpoint)

    def _granted(self) -> dict[str, Any]:
        """The endpoint's answer. Raises UserError where it refuses, OSError or ValueError where no token comes."""
        config = self._config
        secret = config.sasl_oauth_client_secret()
        form = {"grant_type": "client_credentials"}
        if config.sasl_oauth_scope is not None:
            form["scope"] = config.sasl_oauth_scope
        known = secret.get_secret_value() if secret else ""
        quote = urllib.parse.quote_plus  # as RFC 6749, 2.3.1, wants both before they are joined
        client = f"{quote(config.sasl_oauth_client_id or '')}:{quote(known)}"
        request = urllib.request.Request(  # noqa: S310  (the configuration takes only http and https)
            self._endpoint,
            urllib.parse.urlencode(form).encode(),
            {
                "Authorization": "Basic " + base64.b64encode(client.encode()).decode(),
                "Accept": "application/json",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )
        try:
            with _opener(config).open(request, timeout=_SECONDS) as answer:
                granted = json.loads(answer.read(_LARGEST))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (408, 429) or error.code >= 500:
                    raise OSError(f"it answers {error.code}") from None
                raise UserError(
                    f"the token endpoint refuses {config.sasl_oauth_client_id}: {in_brief(_reason(error), [known])}",
                    where="streams.kafka.sasl_oauth_client_id",
                    todo="Correct the client's id, its secret, the scope or the endpoint",
                ) from None
        if not isinstance(granted, dict) or not isinstance(granted.get("access_token"), str):
            raise ValueError("its answer has no access_token")
        return granted


def _opener(config: KafkaConfig) -> urllib.request.OpenerDirector:
    """What follows no redirect: it would carry the credentials elsewhere."""
    context = ssl.create_default_context(cafile=config.sasl_oauth_ca_file)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the endpoint says is wrong, as RFC 6749, 5.2, has it."""
    try:
        said = json.loads(error.read(_LARGEST))
        return f"{error.code}, {said.get('error_description') or said['error']}"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return str(error.code)


_granted: dict[tuple[object, ...], GrantedToken] = {}


def token_provider(config: KafkaConfig) -> Token:
    """What gives the client tokens. One token serves all clients of a process that are granted the same."""
    if config.sasl_oauth_token_endpoint is None:
        return Token(config)
    key = tuple(getattr(config, name) for name in KafkaConfig.model_fields if name.startswith("sasl_oauth_"))
    return _granted.setdefault(key, GrantedToken(config))
