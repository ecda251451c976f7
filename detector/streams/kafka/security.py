"""Saying what is wrong with credentials and certificates, which the client calls a timeout."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka.errors import KafkaConnectionError

from detector.errors import UserError
from detector.settings import KafkaConfig

_SECONDS: Final = 3.0
_TLS_ALERT: Final = b"\x15\x03"
_API_VERSIONS: Final = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff"
"""An ApiVersions request of version 0 with no client id: what any Kafka listener answers first."""


def probe(config: KafkaConfig, settings: Mapping[str, Any]) -> None:
    """Shake hands with the first server that can be reached, as far as no password is needed.

    Raises UserError if it will not do, KafkaConnectionError if none can be reached.
    """
    trouble = "none is configured"
    for server in config.bootstrap_servers:
        host, _, port = server.rpartition(":")
        try:
            connection = socket.create_connection((host.strip("[]") or server, int(port)), _SECONDS)
        except ValueError:
            raise UserError(
                f"{server} is no server", where="streams.kafka.bootstrap_servers", todo="Write host:port"
            ) from None
        except OSError as error:
            trouble = f"{server}: {error.strerror or error}"
            continue
        with connection:
            try:
                _shake_hands(config, settings, connection, host)
            except OSError as error:
                trouble = f"{server}: {error}"
                continue
        return
    raise KafkaConnectionError(trouble)


def _shake_hands(config: KafkaConfig, settings: Mapping[str, Any], connection: socket.socket, host: str) -> None:
    where = f"streams.kafka.security_protocol: {config.security_protocol}"
    if not config.security_protocol.endswith("SSL"):
        connection.sendall(_API_VERSIONS)
        answer = connection.recv(8)
        if answer.startswith(_TLS_ALERT):
            raise UserError("the broker's listener speaks TLS", where=where, todo="Set it to SSL or SASL_SSL")
        return
    try:
        context = _context(settings)
        with context.wrap_socket(connection, server_hostname=host.strip("[]")) as secured:
            secured.sendall(_API_VERSIONS)
            secured.recv(8)  # with TLS 1.3 a refused client certificate shows only here
    except ssl.SSLCertVerificationError as error:
        raise UserError(
            f"the broker's certificate is not trusted: {error.verify_message}",
            where="streams.kafka.ssl_ca_file",
            todo="Name the certificate of the authority that signed it",
        ) from error
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason:
            raise UserError("the broker's listener does not speak TLS", where=where, todo="Set another") from error
        raise UserError(
            f"the broker refuses the TLS connection: {reason}",
            where="streams.kafka.ssl_cert_file",
            todo="Name a client certificate that it accepts",
        ) from error


def _context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.get("ssl_cafile"))
    if "ssl_certfile" in settings:
        try:
            context.load_cert_chain(settings["ssl_certfile"], settings["ssl_keyfile"])
        except ssl.SSLError as error:
            raise UserError(
                f"the client certificate cannot be used: {error.reason or error}",
                where="streams.kafka.ssl_cert_file",
                todo="Give a certificate and its key, both as PEM",
            ) from error
    return context


@contextlib.contextmanager
def refused(config: KafkaConfig) -> Iterator[None]:
    """Turn a connection that fails because of its credentials into a UserError.

    The client retries such a connection until its time is over and then says so; why is only in its log.
    """
    if not config.security_protocol.startswith("SASL"):
        yield
        return
    heard = _Ear()
    logger = logging.getLogger("kafka")
    logger.addHandler(heard)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if heard.refusal is None:
            raise
        raise UserError(
            f"the broker refuses the credentials of {config.sasl_username} ({config.sasl_mechanism}): {heard.refusal}",
            where="streams.kafka.sasl_username",
            todo="Correct the name, the password or the mechanism",
        ) from error
    finally:
        logger.removeHandler(heard)


class _Ear(logging.Handler):
    """Listens for what the client says about authentication."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.refusal: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "Authentication" in text or "Sasl" in text:
            self.refusal = " ".join(text.split())[:200]
