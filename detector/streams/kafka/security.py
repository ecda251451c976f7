"""Saying what is wrong with credentials and certificates, which the client calls a timeout."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, Final, NoReturn

from kafka.errors import IllegalSaslStateError, KafkaConnectionError, NoError, UnsupportedSaslMechanismError
from kafka.net.sasl import get_sasl_mechanism

from detector.config.streams import KafkaConfig
from detector.errors import UserError
from detector.streams.kafka.oauth import Token

_SECONDS: Final = 3.0
_TLS_ALERT: Final = b"\x15\x03"
_API_VERSIONS: Final = b"\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff"
"""An ApiVersions request of version 0 with no client id: what any Kafka listener answers first."""
_SASL_HANDSHAKE: Final = b"\x00\x11\x00\x01\x00\x00\x00\x02\xff\xff"
_SASL_AUTHENTICATE: Final = b"\x00\x24\x00\x00\x00\x00\x00\x03\xff\xff"
"""The heads of two more, of version 1 and 0: the mechanism, and what it says, follow with their length."""


def probe(config: KafkaConfig, settings: Mapping[str, Any]) -> None:
    """Shake hands and log in at the first server that can be reached, and hang up.

    The client's own settings are tried, so what succeeds here succeeds there. Raises UserError if it will not do,
    KafkaConnectionError if no server can be reached.
    """
    context = _context(settings) if config.security_protocol.endswith("SSL") else None
    trouble = "none is configured"
    for server in config.bootstrap_servers:
        try:
            _look_at(server, config, settings, context)
        except OSError as error:
            trouble = f"{server}: {error.strerror or error}"
            continue
        return
    raise KafkaConnectionError(trouble)


def _look_at(server: str, config: KafkaConfig, settings: Mapping[str, Any], context: ssl.SSLContext | None) -> None:
    host, _, port = server.rpartition(":")
    host = host.strip("[]") or server
    if not port.isascii() or not port.isdigit():
        raise UserError(f"{server} is no server", where="streams.kafka.bootstrap_servers", todo="Write host:port")
    address = host, int(port)
    with socket.create_connection(address, _SECONDS) as connection:
        if context is None:
            _talk(config, settings, connection)
            return
        try:
            with context.wrap_socket(connection, server_hostname=host) as secured:
                _talk(config, settings, secured)  # with TLS 1.3 a refused client certificate shows only here
        except ssl.SSLCertVerificationError as error:
            raise UserError(
                f"the broker's certificate is not trusted: {error.verify_message}",
                where="streams.kafka.ssl_ca_file",
                todo=f"Name the certificate of the authority that signed it; it has to be for {host}",
            ) from error
        except ssl.SSLEOFError:
            # A listener without TLS hangs up on what it cannot read, but so does a broker that is going down.
            if _speaks_plain_text(address):
                _no_tls(config)
            raise
        except ssl.SSLError as error:
            reason = error.reason or str(error)
            if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason:
                _no_tls(config)
            if "ALERT" not in reason:
                raise
            raise UserError(
                f"the broker refuses the TLS connection: {reason}",
                where="streams.kafka.ssl_cert_file",
                todo="Name a client certificate that it accepts",
            ) from error


def _talk(config: KafkaConfig, settings: Mapping[str, Any], connection: socket.socket) -> None:
    """Find out whether the listener wants SASL, and whether it takes the mechanism and the credentials."""
    _ask(connection, config, _API_VERSIONS)
    mechanism = (config.sasl_mechanism or "").encode()
    answer = _ask(connection, config, _SASL_HANDSHAKE + _sized(mechanism, 2))
    code = _number(answer, 2)
    wanted = config.security_protocol.startswith("SASL")
    if wanted and code == IllegalSaslStateError.errno:
        raise UserError("the broker's listener has no SASL", where=_protocol(config), todo="Set it to PLAINTEXT or SSL")
    if not wanted and code in (NoError.errno, UnsupportedSaslMechanismError.errno):
        raise UserError(
            "the broker's listener wants SASL",
            where=_protocol(config),
            todo="Set it to SASL_PLAINTEXT or SASL_SSL, with a mechanism and what it needs",
        )
    if code == UnsupportedSaslMechanismError.errno:
        names = [_text(answer, 2) for _ in range(_number(answer, 4))]
        raise UserError(
            f"the broker does not offer {config.sasl_mechanism}, but {', '.join(names) or 'nothing'}",
            where="streams.kafka.sasl_mechanism",
            todo="Set it to what the broker offers",
        )
    if code == NoError.errno:
        _authenticate(config, settings, connection)


def _authenticate(config: KafkaConfig, settings: Mapping[str, Any], connection: socket.socket) -> None:
    provider = settings.get("sasl_oauth_token_provider")
    if isinstance(provider, Token):
        provider.checked()  # in words that the client has not
    mechanism = get_sasl_mechanism(config.sasl_mechanism)(host=None, **settings)
    while not mechanism.is_done():
        answer = _ask(connection, config, _SASL_AUTHENTICATE + _sized(mechanism.auth_bytes(), 4))
        code, why = _number(answer, 2), _text(answer, 2)
        if code != NoError.errno:
            raise _not_accepted(config, why)
        size = _number(answer, 4)
        mechanism.receive(answer.read(size))


def _not_accepted(config: KafkaConfig, why: str) -> UserError:
    if config.sasl_mechanism == "OAUTHBEARER":
        return UserError(
            f"the broker refuses the token (OAUTHBEARER): {why or 'no reason'}",
            where="streams.kafka.sasl_token",
            todo="Renew the token, or correct where it comes from",
        )
    return UserError(
        f"the broker refuses the credentials of {config.sasl_username} ({config.sasl_mechanism}): {why or 'no reason'}",
        where="streams.kafka.sasl_username",
        todo="Correct the name, the password or the mechanism",
    )


def _ask(connection: socket.socket, config: KafkaConfig, request: bytes) -> BytesIO:
    """What follows the number of the request in the answer."""
    connection.sendall(_sized(request, 4))
    head = _received(connection, 4)
    if head.startswith(_TLS_ALERT):
        raise UserError("the broker's listener speaks TLS", where=_protocol(config), todo="Set it to SSL or SASL_SSL")
    answer = _received(connection, int.from_bytes(head, "big"))
    return BytesIO(answer[4:])


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionResetError("it hung up")
        found += more
    return found


def _sized(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def _number(answer: BytesIO, width: int) -> int:
    return int.from_bytes(answer.read(width), "big", signed=True)


def _text(answer: BytesIO, width: int) -> str:
    size = _number(answer, width)  # -1: there is none
    return answer.read(max(0, size)).decode("utf-8", "replace")


def _speaks_plain_text(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, _SECONDS) as connection:
        connection.sendall(_sized(_API_VERSIONS, 4))
        return _received(connection, 8)[4:] == _API_VERSIONS[4:8]  # the number of the request comes back


def _protocol(config: KafkaConfig) -> str:
    return f"streams.kafka.security_protocol: {config.security_protocol}"


def _no_tls(config: KafkaConfig) -> NoReturn:
    raise UserError(
        "the broker's listener does not speak TLS",
        where=_protocol(config),
        todo="Set it to PLAINTEXT or SASL_PLAINTEXT, or name the port of a listener that does",
    ) from None


def _context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """As the client makes its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if "ssl_cafile" not in settings:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(settings["ssl_cafile"])
        except ssl.SSLError as error:
            raise UserError(
                f"{settings['ssl_cafile']} holds no certificate: {error.reason or error}",
                where="streams.kafka.ssl_ca_file",
                todo="Give the certificate of the authority as PEM",
            ) from error
    if "ssl_certfile" in settings:
        try:
            # With an empty password a key that needs one is an error; without, OpenSSL would ask for it on a terminal.
            context.load_cert_chain(settings["ssl_certfile"], settings["ssl_keyfile"], password="")
        except ssl.SSLError as error:
            raise UserError(
                f"the client certificate cannot be used: {error.reason or error}",
                where="streams.kafka.ssl_cert_file",
                todo="Give a certificate and its key, both as PEM, the key without a password",
            ) from error
    return context


@contextlib.contextmanager
def refused(config: KafkaConfig) -> Iterator[None]:
    """Turn a connection that fails because of its credentials into a UserError, where `probe` was let in.

    Another server of the same cluster may say no. The client tries such a one until its time is over and then says
    that it was too long; why is only in its log.
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
        raise _not_accepted(config, heard.refusal) from error
    finally:
        logger.removeHandler(heard)


class _Ear(logging.Handler):
    """Listens for what the client says about authentication. That it took too long is no refusal."""

    _REFUSAL: Final = re.compile(r"SaslAuthenticationFailedError\W*(.*)", re.DOTALL)

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.refusal: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        found = self._REFUSAL.search(record.getMessage())
        if found is not None and self.refusal is None:
            self.refusal = " ".join(found[1].split())[:200]
