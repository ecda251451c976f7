"""Readings in Avro, where the configuration names a schema registry."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from detector.config.load import Config
from detector.service.health import WAITING, Health
from detector.wire.documents import Documents

_NANOSECONDS: Final = 1e9


def topic_documents(
    config: Config,
    *,
    health: Health | None = None,
    pulse: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Documents | None:
    """What reads the values of a topic; None: they are JSON.

    A registry that is down is waited for, as a broker is, where there is `health` to tell; else it is an error at once.
    Raises UserError.
    """
    registry = config.streams.kafka.schema_registry
    if registry is None:
        return None
    # Here, because nobody else needs a client of HTTP.
    from detector.streams.kafka.registry import Registry
    from detector.wire.avro import AvroDocuments

    def waiting(why: str | None) -> None:
        if health is None:
            return
        if why is None:
            health.clear_reason(WAITING)
        else:
            health.set_reason(WAITING, why)

    limit = 0.0 if health is None else config.streams.kafka.broker_outage_limit / _NANOSECONDS
    return AvroDocuments(Registry(registry, limit=limit, on_waiting=waiting, tick=pulse, stop=stop).schema)


def asked_registry(config: Config) -> str | None:
    """Ask the registry for some schema, once; its address, None if there is none. Raises DetectorError."""
    registry = config.streams.kafka.schema_registry
    if registry is None:
        return None
    from detector.streams.kafka.registry import Registry

    with contextlib.closing(Registry(registry, limit=0.0)) as asked:
        asked.schema(1)  # that it knows none of this number is an answer, too
    return registry.url
