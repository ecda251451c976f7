"""A schema registry with the API of Confluent's: schemas by number, asked for once and kept.

One that is down is waited for like a broker: the process is live but not ready, and goes on where it was.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import httpx

from detector.config.streams import SchemaRegistryConfig
from detector.errors import OperationError, StopAskedError, UserError, in_brief, without
from detector.streams.schemas import Schema

_SECONDS: Final = 5.0
"""The most one answer may take."""
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
"""Between attempts; the last one from then on."""
_LOOK: Final = 0.2
_DEPTH: Final = 32
_WHERE: Final = "streams.kafka.schema_registry"
_PASSING: Final = frozenset((408, 425, 429))
_UNKNOWN: Final = range(40401, 40500)
"""What a registry calls what it does not know; another server has 404 at most."""

_log = logging.getLogger(__name__)


class Registry:
    """Asks for schemas. `limit`: for how many seconds a registry that is down is waited for; 0: not at all.

    Meanwhile `on_waiting` is told why, and None when that is over, `tick` is called several times a second, and
    `stop()` asked whether to give up. Raises UserError for secrets and certificates that cannot be read.
    """

    def __init__(
        self,
        config: SchemaRegistryConfig,
        *,
        limit: float,
        on_waiting: Callable[[str | None], None] = lambda _: None,
        tick: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._on_waiting = on_waiting
        self._tick = tick
        self._stop = stop
        self._clock = clock
        self._sleep = sleep
        self._url = without(config.url)
        headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if (token := config.token()) is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        password = config.password()
        self._secrets = [one.get_secret_value() for one in (token, password) if one is not None]
        # Redirections are not followed: they would carry the credentials elsewhere.
        self._client = httpx.Client(
            base_url=config.url.rstrip("/") + "/",
            headers=headers,
            auth=None if password is None else (config.username or "", password.get_secret_value()),
            verify=_trust(config),
            timeout=_SECONDS,
            trust_env=False,
        )

    def schema(self, number: int) -> Schema | None:
        """The schema of a number, None if the registry knows none.

        Raises UserError where the registry refuses us, OperationError where it stays away, StopAskedError.
        """
        found = self._ask(f"schemas/ids/{number}")
        if found is None:
            return None
        references: dict[tuple[str, str], Any] = {}
        self._refer(found, references, 0)
        return Schema(str(found.get("schemaType") or "AVRO"), _parsed(found), tuple(references.values()))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _refer(self, schema: dict[str, Any], found: dict[tuple[str, str], Any], depth: int) -> None:
        """Collect what a schema refers to, what that refers to first."""
        for one in schema.get("references") or ():
            key = str(one["subject"]), str(one["version"])
            if key in found or depth >= _DEPTH:
                continue
            other = self._ask(f"subjects/{quote(key[0], safe='')}/versions/{quote(key[1], safe='')}")
            if other is not None:
                self._refer(other, found, depth + 1)
                found[key] = _parsed(other)

    def _ask(self, path: str) -> dict[str, Any] | None:
        began, attempt, waiting = self._clock(), 0, False
        while True:
            try:
                answer = self._client.get(path)
                problem = self._problem(answer)
                # Only an answer that can be read ends the waiting: what stands before a registry may answer anything.
                found = None if problem is not None or answer.status_code == 404 else _object(answer)
            except httpx.LocalProtocolError as error:  # its text quotes headers
                problem = type(error).__name__
            except (httpx.HTTPError, ValueError) as error:
                problem = in_brief(error, self._secrets)
            if problem is None:
                if waiting:
                    _log.warning("the schema registry answers again")
                    self._on_waiting(None)
                return found
            told = f"the schema registry at {self._url} does not answer: {problem}"
            if self._clock() - began >= self._limit:
                raise OperationError(told, where=_WHERE, todo="Start it, or correct its address, and start again")
            if not waiting:
                _log.warning("waiting for it: %s", told)
            waiting = True
            self._on_waiting(told)
            self._pause(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    def _pause(self, seconds: float) -> None:
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            self._tick()
            if self._stop():
                raise StopAskedError("a stop was asked for while the schema registry was waited for")
            self._sleep(min(left, _LOOK))

    def _problem(self, answer: httpx.Response) -> str | None:
        """Why an answer is none that counts, None if it is one. Raises UserError where asking again is no use."""
        status = answer.status_code
        if status == 200 or (status == 404 and _is_of_registry(answer)):
            return None
        if status >= 500 or status in _PASSING:
            return f"it answers {status}"
        todo = "Correct the user and the password, or the token" if status in (401, 403) else "Correct the address"
        raise UserError(f"the schema registry at {self._url} answers {status}", where=_WHERE, todo=todo)


def _is_of_registry(answer: httpx.Response) -> bool:
    """Whether it is the registry that does not know something, and not another server."""
    try:
        return answer.json()["error_code"] in _UNKNOWN
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _object(answer: httpx.Response) -> dict[str, Any]:
    """The schema that it answers with. Raises ValueError for what is none."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        raise ValueError("its answer is no JSON") from None
    if not isinstance(found, dict) or "schema" not in found:
        raise ValueError("its answer has no schema")
    references = found.get("references") or []
    if not isinstance(references, list) or not all(
        isinstance(one, dict) and {"subject", "version"} <= one.keys() for one in references
    ):
        raise ValueError("its answer has references that are none")
    return found


def _parsed(answer: dict[str, Any]) -> Any:
    """The schema of an answer: JSON in a text, or where it is of another language the text."""
    text = answer["schema"]
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return text


def _trust(config: SchemaRegistryConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ssl_ca_file)
        if config.ssl_cert_file is not None:
            context.load_cert_chain(config.ssl_cert_file, config.ssl_key_file)
        return context
    except OSError as error:
        raise UserError(
            f"the certificates cannot be used: {in_brief(error)}", where=_WHERE, todo="Correct them"
        ) from None
