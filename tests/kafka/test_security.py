"""Encrypted and authenticated connections to a real broker, and what is said where they do not come about."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType
from kafka.errors import KafkaConnectionError

from detector.config.streams import KafkaConfig
from detector.errors import UserError
from detector.streams.base import Assigned, Batch, Event, Message
from detector.streams.kafka.clients import connection_settings
from detector.streams.kafka.oauth import Token
from detector.streams.kafka.security import probe
from detector.streams.kafka.streams import KafkaStreams
from tests.kafka.broker import USERS, Broker
from tests.kafka.certificates import Certificates, make_certificates
from tests.kafka.plant import PATIENCE, Plant
from tests.tokens import CLIENT, SECRET, TokenServer

WRONG = "not-her-secret"

Connect = Callable[..., KafkaStreams]


@pytest.fixture
def plant(broker: Broker) -> Iterator[Plant]:
    plant = Plant(broker, partitions=1)
    yield plant
    plant.close()


@pytest.fixture
def connect(plant: Plant) -> Iterator[Connect]:
    """Makes streams with other settings than those of the plant, and closes them."""
    with contextlib.ExitStack() as opened:

        def make(**settings: Any) -> KafkaStreams:
            return opened.enter_context(contextlib.closing(plant.streams(**settings)))

        yield make


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an authority that the broker and its clients have nothing to do with."""
    return make_certificates(tmp_path_factory.mktemp("strangers"), "certified")


def tls(broker: Broker, *, certificate: bool = True) -> dict[str, Any]:
    pem = broker.certificates
    own = {"ssl_cert_file": pem.client_certificate, "ssl_key_file": pem.client_key} if certificate else {}
    return {
        "bootstrap_servers": (broker.ssl_address,),
        "security_protocol": "SSL",
        "ssl_ca_file": pem.authority,
        **own,
    }


def sasl(broker: Broker, directory: Path, user: str = "alice", password: str | None = None) -> dict[str, Any]:
    secret = directory / "password"
    secret.write_text(f"{USERS[user] if password is None else password}\n")
    return {
        "bootstrap_servers": (broker.sasl_address,),
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": broker.certificates.authority,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": user,
        "sasl_password_file": secret,
    }


def works(plant: Plant, streams: KafkaStreams) -> None:
    """From a record of the input to an alert that is committed, with its offset and state."""
    plant.append(0, [b"{}"])
    streams.open()
    events: list[Event] = []
    for _ in range(int(PATIENCE)):
        events += streams.poll(1.0)
        if any(isinstance(event, Batch) for event in events):
            break
    (assigned,) = [event for event in events if isinstance(event, Assigned)]
    streams.write([Message(plant.alerts, b"pump", b"alert")])
    assert streams.commit({assigned.partition: 1}, lambda _: b"state", final=True)
    assert [record.value for record in plant.read(plant.alerts)] == [b"alert"]


def refusal(streams: KafkaStreams) -> str:
    with pytest.raises(UserError) as refused:
        streams.open()
    assert refused.value.exit_code == 2
    return str(refused.value)


def as_verbose_as_can_be(caplog: pytest.LogCaptureFixture) -> None:
    """What `--log-level debug` shows: all of ours, and the warnings of the client."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "kafka")


def test_tls_with_a_client_certificate(broker: Broker, plant: Plant, connect: Connect) -> None:
    works(plant, connect(**tls(broker)))


def test_scram_over_tls(broker: Broker, plant: Plant, connect: Connect, tmp_path: Path) -> None:
    works(plant, connect(**sasl(broker, tmp_path)))


def test_a_password_from_the_environment(
    broker: Broker, plant: Plant, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", USERS["alice"])
    settings = sasl(broker, tmp_path) | {"sasl_password_file": None, "sasl_password_env": "BROKER_PASSWORD"}
    works(plant, connect(**settings))


def test_a_wrong_password_is_named_and_not_shown(
    broker: Broker, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_verbose_as_can_be(caplog)
    said = refusal(connect(**sasl(broker, tmp_path, password=WRONG)))
    assert "the broker refuses the credentials of alice (SCRAM-SHA-512)" in said
    assert "streams.kafka.sasl_username" in said
    assert WRONG not in said + caplog.text


def test_a_mechanism_the_broker_does_not_have(broker: Broker, connect: Connect, tmp_path: Path) -> None:
    said = refusal(connect(**(sasl(broker, tmp_path) | {"sasl_mechanism": "SCRAM-SHA-256"})))
    assert "the broker does not offer SCRAM-SHA-256, but " in said
    assert "SCRAM-SHA-512" in said
    assert "(streams.kafka.sasl_mechanism)" in said
    assert USERS["alice"] not in said


def test_plain_over_tls(broker: Broker, plant: Plant, connect: Connect, tmp_path: Path) -> None:
    works(plant, connect(**(sasl(broker, tmp_path) | {"sasl_mechanism": "PLAIN"})))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_what_the_client_is_given(mechanism: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    config = KafkaConfig.model_validate(
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism,
            "sasl_username": "alice",
            "sasl_password_env": "BROKER_PASSWORD",
        }
    )
    given = connection_settings(config)
    assert {key: value for key, value in given.items() if "sasl" in key or "protocol" in key} == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "alice",
        "sasl_plain_password": "secret",
    }


def token_of(user: str, seconds: int = 3600) -> str:
    """A token that nobody signed, good for so long."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": user, "iat": now - 10, "exp": now + seconds})
    return ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts) + "."


def bearer(broker: Broker, token: str, directory: Path) -> dict[str, Any]:
    file = directory / "token"
    file.write_text(f"{token}\n")
    return {
        "bootstrap_servers": (broker.sasl_address,),
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": broker.certificates.authority,
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_token_file": file,
    }


def test_a_token_from_a_file(
    broker: Broker, plant: Plant, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_verbose_as_can_be(caplog)
    token = token_of("alice")
    settings = bearer(broker, token, tmp_path)
    works(plant, connect(**settings))
    assert token not in caplog.text
    assert token not in repr(KafkaConfig(**settings))


def test_a_token_is_read_anew_for_every_connection(
    broker: Broker, plant: Plant, connect: Connect, tmp_path: Path
) -> None:
    """Tokens live for minutes: what is written into the file later has to count."""
    settings = bearer(broker, token_of("alice", seconds=-3600), tmp_path)
    streams = connect(**settings)
    assert "the broker refuses the token (OAUTHBEARER)" in refusal(streams)
    bearer(broker, token_of("alice"), tmp_path)
    works(plant, streams)


def test_a_token_that_is_refused_is_not_shown(
    broker: Broker, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_verbose_as_can_be(caplog)
    said = refusal(connect(**bearer(broker, WRONG, tmp_path)))
    assert "the broker refuses the token (OAUTHBEARER)" in said
    assert "streams.kafka.sasl_token" in said
    assert WRONG not in said + caplog.text


def test_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = KafkaConfig.model_validate({"sasl_mechanism": "OAUTHBEARER", "sasl_token_env": "BROKER_TOKEN"})
    monkeypatch.delenv("BROKER_TOKEN", raising=False)
    with pytest.raises(KafkaConnectionError, match="BROKER_TOKEN is not set"):
        Token(config).token()
    for token in ("one", "two"):
        monkeypatch.setenv("BROKER_TOKEN", token)
        assert Token(config).token() == token


def test_a_token_that_is_not_there_is_said_at_the_start(broker: Broker, connect: Connect, tmp_path: Path) -> None:
    settings = bearer(broker, token_of("alice"), tmp_path) | {"sasl_token_file": tmp_path / "missing"}
    assert "streams.kafka.sasl_token_file" in refusal(connect(**settings))


def test_a_user_without_rights(broker: Broker, connect: Connect, tmp_path: Path) -> None:
    said = refusal(connect(**sasl(broker, tmp_path, user="guest")))
    assert "right" in said
    assert "docs/operations.md" in said
    assert USERS["guest"] not in said


RIGHTS = {
    (ResourceType.TOPIC, "input"): (ACLOperation.READ, ACLOperation.DESCRIBE_CONFIGS),
    (ResourceType.TOPIC, "state"): (ACLOperation.READ, ACLOperation.WRITE, ACLOperation.DESCRIBE_CONFIGS),
    (ResourceType.TOPIC, "alerts"): (ACLOperation.WRITE,),
    (ResourceType.TOPIC, "dead_letters"): (ACLOperation.WRITE,),
    (ResourceType.GROUP, "group"): (ACLOperation.READ,),
    (ResourceType.TRANSACTIONAL_ID, "group"): (ACLOperation.WRITE,),
}
"""What docs/operations.md says is needed: the kind of thing, the plant's name for it, what may be done with it."""


@contextlib.contextmanager
def granted(plant: Plant, user: str, without: tuple[ResourceType, str] | None = None) -> Iterator[None]:
    """The rights of a user, all but those to one thing."""
    rights = []
    for (kind, name), operations in RIGHTS.items():
        prefixed = kind is ResourceType.TRANSACTIONAL_ID
        pattern = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
        thing = ResourcePattern(kind, getattr(plant, name), pattern)
        if (kind, name) != without:
            rights += [ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, thing) for operation in operations]
    with plant.cluster.admin() as admin:
        admin.create_acls(rights)
    yield
    with plant.cluster.admin() as admin:
        admin.delete_acls(rights)


def test_the_rights_that_are_needed(broker: Broker, plant: Plant, connect: Connect, tmp_path: Path) -> None:
    with granted(plant, "guest"):
        works(plant, connect(**sasl(broker, tmp_path, user="guest")))


@pytest.mark.parametrize("missing", RIGHTS, ids=lambda missing: f"{missing[0].name}-{missing[1]}".lower())
def test_a_right_that_is_missing(
    broker: Broker, plant: Plant, connect: Connect, tmp_path: Path, missing: tuple[ResourceType, str]
) -> None:
    streams = connect(**sasl(broker, tmp_path, user="guest"))
    with granted(plant, "guest", missing), pytest.raises(UserError) as refused:
        works(plant, streams)
    assert "right" in str(refused.value)
    assert "docs/operations.md" in str(refused.value)


def test_tls_without_a_client_certificate(broker: Broker, plant: Plant, connect: Connect) -> None:
    works(plant, connect(**tls(broker, certificate=False)))


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_another_authority(
    broker: Broker, connect: Connect, strangers: Certificates, tmp_path: Path, protocol: str
) -> None:
    settings = tls(broker) if protocol == "SSL" else sasl(broker, tmp_path)
    said = refusal(connect(**(settings | {"ssl_ca_file": strangers.authority})))
    assert "the broker's certificate is not trusted" in said
    assert "streams.kafka.ssl_ca_file" in said
    assert USERS["alice"] not in said


def test_a_client_certificate_of_another_authority(broker: Broker, connect: Connect, strangers: Certificates) -> None:
    own = {"ssl_cert_file": strangers.client_certificate, "ssl_key_file": strangers.client_key}
    said = refusal(connect(**(tls(broker) | own)))
    assert "the broker refuses the TLS connection" in said
    assert "streams.kafka.ssl_cert_file" in said


def test_a_key_of_another_certificate(broker: Broker, connect: Connect, strangers: Certificates) -> None:
    said = refusal(connect(**(tls(broker) | {"ssl_key_file": strangers.client_key})))
    assert "the client certificate cannot be used" in said


def test_an_authority_that_is_no_certificate(broker: Broker, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate\n")
    said = refusal(connect(**(tls(broker) | {"ssl_ca_file": tmp_path / "ca.pem"})))
    assert "ca.pem holds no certificate" in said
    assert "streams.kafka.ssl_ca_file" in said


def test_plain_text_to_a_tls_listener(broker: Broker, connect: Connect) -> None:
    said = refusal(connect(bootstrap_servers=(broker.ssl_address,)))
    assert "the broker's listener speaks TLS" in said
    assert "streams.kafka.security_protocol" in said


def test_tls_to_a_plain_text_listener(broker: Broker, connect: Connect) -> None:
    said = refusal(connect(**(tls(broker) | {"bootstrap_servers": (broker.address,)})))
    assert "the broker's listener does not speak TLS" in said


def test_sasl_to_a_listener_without(broker: Broker, connect: Connect, tmp_path: Path) -> None:
    said = refusal(connect(**(sasl(broker, tmp_path) | {"bootstrap_servers": (broker.ssl_address,)})))
    assert "the broker's listener has no SASL (streams.kafka.security_protocol: SASL_SSL)" in said
    assert USERS["alice"] not in said


def test_tls_without_sasl_to_a_listener_that_wants_it(broker: Broker, connect: Connect) -> None:
    said = refusal(connect(**(tls(broker) | {"bootstrap_servers": (broker.sasl_address,)})))
    assert "the broker's listener wants SASL (streams.kafka.security_protocol: SSL)" in said


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_listener_that_hangs_up_is_no_mistake_of_a_person(protocol: str) -> None:
    """It may be a broker that is going down: that is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # the listener is closed: the end
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(4096)

        thread = threading.Thread(target=hang_up)
        thread.start()
        server = f"127.0.0.1:{listener.getsockname()[1]}"
        config = KafkaConfig.model_validate({"bootstrap_servers": (server,), "security_protocol": protocol})
        try:
            with pytest.raises(KafkaConnectionError, match=server):
                probe(config, {})
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("key", ["ssl_ca_file", "ssl_cert_file", "ssl_key_file"])
def test_a_file_that_is_not_there(broker: Broker, connect: Connect, tmp_path: Path, key: str) -> None:
    said = refusal(connect(**(tls(broker) | {key: tmp_path / "missing.pem"})))
    assert f"streams.kafka.{key}" in said
    assert "missing.pem" in said


def test_a_password_file_that_is_not_there(broker: Broker, connect: Connect, tmp_path: Path) -> None:
    settings = sasl(broker, tmp_path) | {"sasl_password_file": tmp_path / "missing"}
    assert "streams.kafka.sasl_password_file" in refusal(connect(**settings))


def test_nothing_secret_is_logged(
    broker: Broker, plant: Plant, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_verbose_as_can_be(caplog)
    settings = sasl(broker, tmp_path)
    works(plant, connect(**settings))
    assert USERS["alice"] not in caplog.text
    assert USERS["alice"] not in repr(KafkaConfig(**settings))


def test_a_token_by_client_credentials(
    broker: Broker, plant: Plant, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_verbose_as_can_be(caplog)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    settings: dict[str, Any] = {
        "bootstrap_servers": (broker.sasl_address,),
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": broker.certificates.authority,
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_client_id": CLIENT,
        "sasl_oauth_client_secret_file": file,
    }
    with TokenServer(lambda: token_of("alice")) as server:
        works(plant, connect(sasl_oauth_token_endpoint=server.endpoint, **settings))
        assert len(server.asked) == 1
    assert SECRET not in caplog.text
    with TokenServer(lambda: token_of("alice")) as server:
        file.write_text("another")
        said = refusal(connect(sasl_oauth_token_endpoint=server.endpoint, **settings))
    assert "the token endpoint refuses detector: 401, unknown client" in said
