"""Tokens by client credentials: asked for, kept, renewed in time, and what an endpoint may do wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError

from detector.config.load import KafkaConfig, load_config
from detector.errors import UserError
from detector.streams.kafka.clients import connection_settings
from detector.streams.kafka.oauth import GrantedToken, Token, token_provider
from tests.tokens import CLIENT, SECRET, TokenServer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[TokenServer]:
    numbers = itertools.count(1)
    with TokenServer(lambda: f"token-{next(numbers)}", lifetime=100.0) as server:
        yield server


def config_of(server: TokenServer, tmp_path: Path, **settings: Any) -> KafkaConfig:
    file = tmp_path / "secret"
    if not file.exists():
        file.write_text(SECRET + "\n")
    return KafkaConfig.model_validate(
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_endpoint": server.endpoint,
            "sasl_oauth_client_id": CLIENT,
            "sasl_oauth_client_secret_file": file,
            **settings,
        }
    )


def test_one_token_serves_until_most_of_its_life_is_over(server: TokenServer, tmp_path: Path) -> None:
    clock = Clock()
    tokens = GrantedToken(config_of(server, tmp_path, sasl_oauth_scope="kafka read"), clock)
    found = []
    for now in (1000.0, 1079.0, 1081.0, 1160.0, 1162.0):
        clock.now = now
        found.append(tokens.token())
    assert found == ["token-1", "token-1", "token-2", "token-2", "token-3"]
    assert server.asked == [{"grant_type": "client_credentials", "scope": "kafka read"}] * 3


def test_an_endpoint_that_is_down_is_waited_for(server: TokenServer, tmp_path: Path) -> None:
    clock = Clock()
    tokens = GrantedToken(config_of(server, tmp_path), clock)
    server.answer = 503, b""
    with pytest.raises(KafkaConnectionError, match=r"no token comes from http://127.*it answers 503"):
        tokens.checked()
    server.answer = None
    assert tokens.token() == "token-1"
    server.answer = 503, b""
    clock.now += 90.0  # due for renewal, and good for ten seconds more
    assert tokens.token() == "token-1"
    clock.now += 11.0
    with pytest.raises(KafkaConnectionError):
        tokens.token()
    server.answer = None
    assert tokens.token() == "token-2"


def test_nobody_answers(tmp_path: Path) -> None:
    with TokenServer(lambda: "") as gone:
        config = config_of(gone, tmp_path)
    with pytest.raises(KafkaConnectionError, match="no token comes from"):
        GrantedToken(config).token()


def test_a_client_that_is_refused_is_for_a_person(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("another")
    tokens = GrantedToken(config_of(server, tmp_path))
    with pytest.raises(UserError) as caught:
        tokens.checked()
    assert str(caught.value) == (
        "the token endpoint refuses detector: 401, unknown client (streams.kafka.sasl_oauth_client_id). "
        "Correct the client's id, its secret, the scope or the endpoint."
    )
    with pytest.raises(KafkaConnectionError):  # which the client comes again after
        tokens.token()


def test_what_the_endpoint_says_is_shown_short_and_without_the_secret(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("TOPSECRET")
    server.answer = 401, json.dumps({"error_description": "no client with TOPSECRET " + "x" * 5000}).encode()
    with pytest.raises(UserError, match="refuses detector: 401, no client with") as caught:
        GrantedToken(config_of(server, tmp_path)).checked()
    assert "TOPSECRET" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("answer", [(200, b"no JSON"), (200, b"[]"), (200, b'{"access_token": 5}')])
def test_an_answer_without_a_token(answer: tuple[int, bytes], server: TokenServer, tmp_path: Path) -> None:
    server.answer = answer
    with pytest.raises(KafkaConnectionError, match="no token comes"):
        GrantedToken(config_of(server, tmp_path)).token()


def test_credentials_are_not_sent_elsewhere(server: TokenServer, tmp_path: Path) -> None:
    server.answer = 302, b""
    with pytest.raises(UserError, match="refuses detector: 302"):
        GrantedToken(config_of(server, tmp_path)).checked()
    assert len(server.asked) == 1


def test_all_clients_of_a_process_have_one_token(server: TokenServer, tmp_path: Path) -> None:
    config = config_of(server, tmp_path)
    settings = connection_settings(config)
    provider = settings["sasl_oauth_token_provider"]
    assert isinstance(provider, GrantedToken)
    assert token_provider(config_of(server, tmp_path)) is provider
    assert token_provider(config_of(server, tmp_path, sasl_oauth_scope="other")) is not provider
    assert type(token_provider(KafkaConfig())) is Token
    assert SECRET not in repr(config) + str(settings)


def test_a_secret_that_cannot_be_read_is_said_at_the_start(server: TokenServer, tmp_path: Path) -> None:
    config = config_of(server, tmp_path, sasl_oauth_client_secret_file=tmp_path / "nothing")
    with pytest.raises(UserError, match=r"streams\.kafka\.sasl_oauth_client_secret_file"):
        connection_settings(config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{sasl_oauth_token_endpoint: 'https://x/t'}", "needs sasl_oauth_client_id and a secret"),
        ("{sasl_oauth_token_endpoint: 'ftp://x/t'}", "expected an address such as https://login.example.org/token"),
        ("{sasl_oauth_token_endpoint: 'https://u:p@x/t'}", "without user and password"),
        ("{}", "Set sasl_token_file or sasl_token_env, or sasl_oauth_token_endpoint"),
        (
            "{sasl_oauth_token_endpoint: 'https://x/t', sasl_oauth_client_id: a, sasl_oauth_client_secret_env: S, "
            "sasl_token_env: T}",
            "a token and sasl_oauth_token_endpoint are both given",
        ),
        (
            "{sasl_oauth_token_endpoint: 'https://x/t', sasl_oauth_client_id: a, sasl_oauth_client_secret_env: S, "
            "sasl_oauth_client_secret_file: /s}",
            "sasl_oauth_client_secret_file and sasl_oauth_client_secret_env are both given",
        ),
    ],
)
def test_what_belongs_together(settings: str, said: str) -> None:
    both = settings.replace("{", "{sasl_mechanism: OAUTHBEARER, ").replace(", }", "}")
    with pytest.raises(UserError) as caught:
        load_config(None, [f"streams.kafka={both}"])
    assert said in str(caught.value)
