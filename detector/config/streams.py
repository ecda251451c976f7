"""Settings of streams: the files or the brokers that readings come from and alerts go to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from detector.config.base import Section, resolve_secret, resolve_token
from detector.config.values import (
    Count,
    Endpoint,
    Name,
    PositiveDuration,
    Text,
    Variable,
    parse_duration,
    refused,
)


class DirectoryConfig(Section):
    """Streams as append-only files in one directory."""

    path: Path = Path("var/data")
    checkpoint_interval: PositiveDuration = parse_duration("1s")


class NewTopicsConfig(Section):
    """What topics are like that are made because `create_topics` is true. Settings are those of a Kafka topic."""

    partitions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """null: as many as the broker gives by default. A state topic has as many as its input."""
    replication: Annotated[int, Field(ge=1, le=32_767)] | None = None
    """null: as many as the broker gives by default."""
    settings: dict[Text, Text] = Field(default_factory=dict)
    """Of every topic, e.g. {min.insync.replicas: "2"}."""
    state_settings: dict[Text, Text] = Field(default={"segment.bytes": "67108864", "min.cleanable.dirty.ratio": "0.3"})
    """Of state topics, on top. Only whole segments are compacted: small ones keep a topic close to its state's size."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, settings in (("settings", self.settings), ("state_settings", self.state_settings)):
            if "cleanup.policy" in settings:
                raise refused(
                    f"cleanup.policy in {name} is no choice: it is compact for a state topic, else delete",
                    "Leave it out",
                )
        return self


class SchemaRegistryConfig(Section):
    """Where the schemas of Avro readings are, by the API of Confluent's registry."""

    url: Endpoint
    username: Text | None = None
    password_file: Path | None = None
    password_env: Variable | None = None
    token_file: Path | None = None
    """In place of user and password: a bearer token."""
    token_env: Variable | None = None
    ssl_ca_file: Path | None = None
    """null: the authorities the system trusts."""
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for secret in ("password", "token"):
            if getattr(self, f"{secret}_file") is not None and getattr(self, f"{secret}_env") is not None:
                raise refused(f"{secret}_file and {secret}_env are both given", "Keep one of them")
        password, token = self.password_file or self.password_env, self.token_file or self.token_env
        if (self.username is None) != (password is None):
            raise refused("username and a password belong together", "Give both or neither")
        if password is not None and token is not None:
            raise refused("a password and a token are both given", "Keep one of them")
        if (self.ssl_cert_file is None) != (self.ssl_key_file is None):
            raise refused("ssl_cert_file and ssl_key_file belong together", "Give both or neither")
        return self

    def password(self) -> SecretStr | None:
        """Read the password; None where none is configured. Raises UserError."""
        return resolve_secret(self.password_file, self.password_env, "streams.kafka.schema_registry.password")

    def token(self) -> SecretStr | None:
        """Read the bearer token; None where none is configured. Raises UserError."""
        return resolve_token(self.token_file, self.token_env, "streams.kafka.schema_registry.token")


class KafkaConfig(Section):
    """Streams as Kafka topics, exactly once."""

    bootstrap_servers: Annotated[tuple[Text, ...], Field(min_length=1)] = ("localhost:9092",)
    group_id: Name = "detector"
    """The consumer group; also the prefix of the state topics."""
    instance: Name = "auto"
    """Name of this process within the group; `auto`: $DETECTOR_INSTANCE, else the host name."""
    static_membership: bool = False
    """Only with a fixed number of replicas."""
    start_from: Literal["earliest", "latest"] = "earliest"
    on_offset_out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    commit_interval: PositiveDuration = parse_duration("100ms")
    commit_max_records: Count = 50_000
    session_timeout: PositiveDuration = parse_duration("10s")
    transaction_timeout: PositiveDuration = parse_duration("10s")
    broker_outage_limit: PositiveDuration = parse_duration("10m")
    """How long the broker may be away before the process exits with 1."""
    create_topics: bool = False
    new_topics: NewTopicsConfig = Field(default_factory=NewTopicsConfig)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: Text | None = None
    sasl_password_file: Path | None = None
    sasl_password_env: Variable | None = None
    sasl_token_file: Path | None = None
    """Of OAUTHBEARER; read again for every connection, so whatever renews the token writes it there."""
    sasl_token_env: Variable | None = None
    sasl_oauth_token_endpoint: Endpoint | None = None
    """Of OAUTHBEARER in place of a token: where one is asked for, by client credentials, before the last expires."""
    sasl_oauth_client_id: Text | None = None
    sasl_oauth_client_secret_file: Path | None = None
    sasl_oauth_client_secret_env: Variable | None = None
    sasl_oauth_scope: Text | None = None
    sasl_oauth_ca_file: Path | None = None
    """Of the endpoint; null: the authorities the system trusts."""
    schema_registry: SchemaRegistryConfig | None = None
    """Of readings in Avro; null: readings are JSON."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for secret in ("password", "token", "oauth_client_secret"):
            if getattr(self, f"sasl_{secret}_file") is not None and getattr(self, f"sasl_{secret}_env") is not None:
                raise refused(f"sasl_{secret}_file and sasl_{secret}_env are both given", "Keep one of them")
        if self.sasl_mechanism == "OAUTHBEARER":
            secret_given = self.sasl_oauth_client_secret_file or self.sasl_oauth_client_secret_env
            token = self.sasl_token_file or self.sasl_token_env
            if self.sasl_oauth_token_endpoint is not None:
                if self.sasl_oauth_client_id is None or secret_given is None:
                    raise refused(
                        "sasl_oauth_token_endpoint needs sasl_oauth_client_id and a secret",
                        "Set them; the secret as sasl_oauth_client_secret_file or sasl_oauth_client_secret_env",
                    )
                if token is not None:
                    raise refused("a token and sasl_oauth_token_endpoint are both given", "Keep one of them")
            elif token is None:
                raise refused(
                    "sasl_mechanism OAUTHBEARER needs a token",
                    "Set sasl_token_file or sasl_token_env, or sasl_oauth_token_endpoint",
                )
        elif self.security_protocol.startswith("SASL"):
            password = self.sasl_password_file or self.sasl_password_env
            if self.sasl_mechanism is None or self.sasl_username is None or password is None:
                raise refused(
                    f"security_protocol {self.security_protocol} needs sasl_mechanism, sasl_username and a password",
                    "Set them; the password as sasl_password_file or sasl_password_env",
                )
        if (self.ssl_cert_file is None) != (self.ssl_key_file is None):
            raise refused("ssl_cert_file and ssl_key_file belong together", "Give both or neither")
        return self

    def sasl_password(self) -> SecretStr | None:
        """Read the password from its file or variable; None where none is configured. Raises UserError."""
        return resolve_secret(self.sasl_password_file, self.sasl_password_env, "streams.kafka.sasl_password")

    def sasl_token(self) -> SecretStr | None:
        """Read the bearer token from its file or variable; None where none is configured. Raises UserError."""
        return resolve_token(self.sasl_token_file, self.sasl_token_env, "streams.kafka.sasl_token")

    def sasl_oauth_client_secret(self) -> SecretStr | None:
        """Read the client's secret from its file or variable; None where none is configured. Raises UserError."""
        return resolve_secret(
            self.sasl_oauth_client_secret_file,
            self.sasl_oauth_client_secret_env,
            "streams.kafka.sasl_oauth_client_secret",
        )


class StreamsConfig(Section):
    """Where readings come from and alerts go to."""

    backend: Literal["directory", "kafka", "memory"] = "directory"
    directory: DirectoryConfig = Field(default_factory=DirectoryConfig)
    kafka: KafkaConfig = Field(default_factory=KafkaConfig)
