"""The clients of kafka-python, with the settings that make them safe for exactly once."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from detector.config.streams import KafkaConfig
from detector.errors import UserError
from detector.streams.kafka.assignor import Assignor
from detector.streams.kafka.oauth import token_provider

BOOTSTRAP_MS: Final = 5_000
"""The most one attempt to reach a broker takes; attempts are repeated."""
MAX_RECORD_BYTES: Final = 1_048_576
"""The largest record written; a topic's own limit is as high by default."""

_MS: Final = 1_000_000  # ns
# Rebalances stall every member for several heartbeats: 3.0 s at an interval of 3 s, 0.5 s at this one.
_HEARTBEAT_MS: Final = 300
# Between two polls lie a batch, a commit and at worst the limits of a commit that fails.
_MAX_POLL_INTERVAL_MS: Final = 60_000
_PARTITION_FETCH_BYTES: Final = 4 << 20
_FETCH_BYTES: Final = 16 << 20


def instance_name(config: KafkaConfig) -> str:
    """The name of this process within its group."""
    if config.instance != "auto":
        return config.instance
    return os.environ.get("DETECTOR_INSTANCE") or socket.gethostname()


def connection_settings(config: KafkaConfig) -> dict[str, Any]:
    """What every client needs to connect. Raises UserError for a secret that cannot be read."""
    settings: dict[str, Any] = {
        "bootstrap_servers": list(config.bootstrap_servers),
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "security_protocol": config.security_protocol,
        "reconnect_backoff_max_ms": 1000,
    }
    files = {
        "ssl_cafile": ("ssl_ca_file", config.ssl_ca_file),
        "ssl_certfile": ("ssl_cert_file", config.ssl_cert_file),
        "ssl_keyfile": ("ssl_key_file", config.ssl_key_file),
    }
    for name, (key, path) in files.items():
        if path is None:
            continue
        try:
            path.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}", where=f"streams.kafka.{key}", todo="Correct it"
            ) from error
        settings[name] = str(path)
    if config.security_protocol.startswith("SASL") and config.sasl_mechanism == "OAUTHBEARER":
        # What cannot be read is said now, and not by the client's thread.
        config.sasl_token()
        config.sasl_oauth_client_secret()
        settings |= {"sasl_mechanism": config.sasl_mechanism, "sasl_oauth_token_provider": token_provider(config)}
    elif config.security_protocol.startswith("SASL"):
        password = config.sasl_password()
        settings |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": None if password is None else password.get_secret_value(),
        }
    return settings


def group_consumer(
    config: KafkaConfig, settings: Mapping[str, Any], instance: str, max_records: int, assignor: Assignor
) -> KafkaConsumer:
    """A member of the group; subscribes to nothing yet. May raise errors of the client."""
    session = config.session_timeout // _MS
    return _made(
        KafkaConsumer,
        client_id=f"{config.group_id}-{instance}",
        group_id=config.group_id,
        group_instance_id=instance if config.static_membership else None,
        partition_assignment_strategy=[assignor],
        session_timeout_ms=session,
        heartbeat_interval_ms=min(_HEARTBEAT_MS, max(1, session // 10)),
        max_poll_interval_ms=max(_MAX_POLL_INTERVAL_MS, session),
        max_poll_records=max_records,
        fetch_max_wait_ms=50,
        **_READING,
        **settings,
    )


def plain_consumer(settings: Mapping[str, Any], max_records: int = 500, **more: Any) -> KafkaConsumer:
    """A consumer of partitions of its own choice, outside the group. May raise errors of the client."""
    return _made(KafkaConsumer, group_id=None, max_poll_records=max_records, **{**_READING, **settings, **more})


def transactional_producer(config: KafkaConfig, settings: Mapping[str, Any], instance: str) -> KafkaProducer:
    """The producer of this process; others of the same instance name are fenced by its `init_transactions`."""
    return _made(
        KafkaProducer,
        client_id=f"{config.group_id}-{instance}",
        transactional_id=f"{config.group_id}-{instance}",
        transaction_timeout_ms=config.transaction_timeout // _MS,
        acks="all",
        batch_size=262_144,
        max_request_size=MAX_RECORD_BYTES,
        max_block_ms=10_000,
        request_timeout_ms=5_000,
        delivery_timeout_ms=8_000,
        # The sender sleeps this long between the parts of a transaction that have to wait for one another.
        retry_backoff_ms=20,
        allow_auto_create_topics=False,
        metrics_enabled=False,
        **settings,
    )


def admin_client(settings: Mapping[str, Any]) -> contextlib.closing[KafkaAdminClient]:
    """A client for topics and their settings, closed at the end of its `with`."""
    return contextlib.closing(_made(KafkaAdminClient, request_timeout_ms=10_000, **settings))


def _made(kind: type[Any], **settings: Any) -> Any:
    """A client; one that cannot connect leaves no thread behind, as it would by itself."""
    connections: list[Any] = []

    def connection(**configs: Any) -> Any:
        connections.append(kind.DEFAULT_CONFIG["kafka_client"](**configs))
        return connections[-1]

    try:
        return kind(kafka_client=connection, **settings)
    except BaseException:
        for made in connections:
            made.close()
        raise


_READING: Final[dict[str, Any]] = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "allow_auto_create_topics": False,
    "fetch_max_bytes": _FETCH_BYTES,
    "max_partition_fetch_bytes": _PARTITION_FETCH_BYTES,
    "request_timeout_ms": 10_000,
    "retry_backoff_ms": 50,
    "metrics_enabled": False,
}
