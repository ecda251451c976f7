"""What `detector check --connect` looks at: everything a daemon needs of its brokers, asked for without changing it."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final, NoReturn

from kafka import KafkaConsumer, errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.protocol.consumer.group import HeartbeatRequest
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer.transaction import EndTxnRequest

from detector.config.streams import KafkaConfig
from detector.errors import DetectorError, OperationError, UserError, counted
from detector.streams.kafka.clients import admin_client, connection_settings, instance_name, plain_consumer
from detector.streams.kafka.failures import Reaction, as_failure, rule_for
from detector.streams.kafka.security import probe, refused
from detector.streams.kafka.tail import check_owners
from detector.streams.kafka.topics import check_topics

MADE: Final = "missing, `run` makes it"
PATIENCE: Final = 10.0
"""Seconds in which a coordinator that is loading or moving may come to an answer."""
_PAUSE: Final = 0.2
_MS: Final = 1_000_000  # ns
_NOBODY: Final = 2**63 - 1
"""A producer id that no broker gives out: what is asked in its name changes nothing."""
_STRANGER: Final = "detector-check"


def inspect(
    config: KafkaConfig, state_topics: Mapping[str, str], outputs: Sequence[str], optional: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield what was looked at and what was found, with names as in `KafkaStreams`.

    Raises UserError at the first thing a daemon could not work with, OperationError if no broker answers.
    """
    with _asking(config):
        settings = connection_settings(config)
        probe(config, settings)
        yield "credentials", _credentials(config)
        with admin_client(settings) as admin:
            cluster = admin.describe_cluster()
            places = ", ".join(f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"])
            yield "brokers", f"{places}; cluster {cluster['cluster_id']}"
            _limits(admin, cluster["brokers"][0]["broker_id"], config)
        yield from inspect_group(config, state_topics, outputs, optional)
        yield "transactions", "the brokers have them"


def inspect_group(
    config: KafkaConfig, state_topics: Mapping[str, str], outputs: Sequence[str], optional: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """The part of `inspect` that concerns one group of daemons: its topics, and its rights. Raises as `inspect`."""
    with _asking(config):
        settings = connection_settings(config)
        with admin_client(settings) as admin:
            with closing(plain_consumer(settings)) as reader:
                yield from _topics(admin, reader, config, state_topics, outputs, optional)
            _rights_to_topics(admin, state_topics, outputs)
            _right_to_group(admin, config.group_id)
            transactional_id = f"{config.group_id}-{instance_name(config)}"
            _right_to_transactions(admin, transactional_id)
            yield "rights", f"to the topics, the group {config.group_id}, the transactional id {transactional_id}"


@contextmanager
def _asking(config: KafkaConfig) -> Iterator[None]:
    """Say what went wrong with the brokers in our own words."""
    try:
        with refused(config):
            yield
    except DetectorError:
        raise
    except Exception as error:
        _fail(error, config)


def _fail(error: Exception, config: KafkaConfig) -> NoReturn:
    rule = rule_for(error)
    if rule.reading is Reaction.RETRY:
        raise OperationError(
            f"no broker answers: {error}",
            where=f"streams.kafka.bootstrap_servers: {', '.join(config.bootstrap_servers)}",
            todo="Start it, or correct the address",
        ) from error
    raise as_failure(error, "look at the broker") from error


def _credentials(config: KafkaConfig) -> str:
    parts: list[str] = [config.security_protocol]
    if config.security_protocol.startswith("SASL"):
        parts += [str(config.sasl_mechanism), config.sasl_username or "a token"]
    return ", ".join([*parts, "accepted"])


def _limits(admin: KafkaAdminClient, broker: int, config: KafkaConfig) -> None:
    """Refuse times that a broker does not allow, as far as we may see what it allows: a daemon needs no such right."""
    transaction, session = config.transaction_timeout // _MS, config.session_timeout // _MS
    limits = (
        ("transaction.max.timeout.ms", transaction, operator.gt, errors.InvalidTransactionTimeoutError),
        ("group.max.session.timeout.ms", session, operator.gt, errors.InvalidSessionTimeoutError),
        ("group.min.session.timeout.ms", session, operator.lt, errors.InvalidSessionTimeoutError),
    )
    resource = ConfigResource(ConfigResourceType.BROKER, str(broker), [name for name, *_ in limits])
    try:
        found = admin.describe_configs([resource], config_filter="all").get("broker", {}).get(str(broker), {})
    except errors.RetriableError:
        raise
    except errors.KafkaError:
        return
    for name, ours, is_beyond, error in limits:
        limit = str(found.get(name, {}).get("value"))
        if limit.isdigit() and is_beyond(ours, int(limit)):
            raise as_failure(error(f"{name} is {limit}"), "work with these brokers")


def _topics(
    admin: KafkaAdminClient,
    reader: KafkaConsumer,
    config: KafkaConfig,
    state_topics: Mapping[str, str],
    outputs: Sequence[str],
    optional: Collection[str],
) -> Iterator[tuple[str, str]]:
    counts = check_topics(
        admin, state_topics, outputs, create=config.create_topics, new=config.new_topics, validate_only=True,
        optional=optional, owned=partial(check_owners, reader, state_topics),
    )  # fmt: skip
    for name in [*state_topics, *state_topics.values(), *outputs]:
        count = counts.get(name)
        missing = "missing, nothing is written to it" if name in optional and not config.create_topics else MADE
        yield "topic", f"{name}: " + (missing if count is None else counted(count, "partition"))


def _rights_to_topics(admin: KafkaAdminClient, state_topics: Mapping[str, str], outputs: Sequence[str]) -> None:
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(state_topics, ("READ",))
    needed |= dict.fromkeys(outputs, ("WRITE",))
    needed |= dict.fromkeys(state_topics.values(), ("READ", "WRITE"))
    for topic in admin.describe_topics(list(needed)):
        if topic["error_code"] != errors.NoError.errno:
            continue  # it is to be made, by whoever may do that
        for operation in needed[topic["name"]]:
            if operation not in topic["authorized_operations"]:
                _lacks(operation, f"topic {topic['name']}")


def _right_to_group(admin: KafkaAdminClient, group: str) -> None:
    """A heartbeat of a member that nobody knows: it is refused, and with which words is what matters."""
    request = HeartbeatRequest(group_id=group, generation_id=0, member_id=_STRANGER, max_version=4)
    if _asked(admin, group, CoordinatorType.GROUP, request) is errors.GroupAuthorizationFailedError:
        _lacks("READ", f"group {group}")


def _right_to_transactions(admin: KafkaAdminClient, transactional_id: str) -> None:
    """The end of a transaction that nobody began. A producer of that name would fence the daemon that is running."""
    request = EndTxnRequest(
        transactional_id=transactional_id, producer_id=_NOBODY, producer_epoch=0, committed=False, max_version=3
    )
    kind = CoordinatorType.TRANSACTION
    try:
        answer = _asked(admin, transactional_id, kind, request)
    except (errors.IncompatibleBrokerVersion, errors.UnsupportedVersionError) as error:
        raise UserError(
            "the brokers have no transactions, without which alerts would be lost or published twice",
            where="streams.kafka.bootstrap_servers",
            todo="Use Apache Kafka 2.5 or newer, or a service that has them",
        ) from error
    if answer is errors.TransactionalIdAuthorizationFailedError:
        _lacks("WRITE", f"transactional id {transactional_id}")


def _asked(
    admin: KafkaAdminClient,
    key: str,
    kind: CoordinatorType,
    request: Any,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> type[Exception]:
    """The error that the coordinator of `key` answers with. Raises a RetriableError that does not pass."""
    manager = admin._manager  # noqa: SLF001  the client has no public way to send these

    async def ask() -> type[Exception]:
        node = await admin._find_coordinator_id(key, kind)  # noqa: SLF001
        answer = await manager.send(request, node_id=node)
        found: type[Exception] = errors.for_code(answer.error_code)
        return found

    deadline = clock() + PATIENCE
    while True:
        try:
            error: type[Exception] = manager.run(ask)
        except errors.AuthorizationError as refusal:
            return type(refusal)
        except errors.RetriableError:
            if clock() >= deadline:
                raise
        else:
            if not issubclass(error, errors.RetriableError):
                return error
            if clock() >= deadline:
                raise error(f"the coordinator of {key}")
            manager.cluster._coordinators.pop((kind, key), None)  # noqa: SLF001  it may have moved
        sleep(_PAUSE)


def _lacks(operation: str, what: str) -> NoReturn:
    raise UserError(
        f"there is no right to {operation.title()} the {what}",
        where="streams.kafka",
        todo="Grant it (docs/operations.md, Rights)",
    )
