"""What is known of releases of the broker that breaks what this program rests on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from kafka.admin import KafkaAdminClient

LOSES_MARKS: Final = (4, 3)
"""From this release on, up to 4.4.0 at least (KAFKA-20734): a coordinator that ends a transaction while a partition of
it has no leader takes that partition for deleted, and leaves out the mark there. What the transaction wrote stays open,
and becomes part of the next one of the same producer: aborted records are published, or committed ones are lost. A
partition with one replica has no leader whenever its broker starts again."""

_log = logging.getLogger(__name__)


def warn_of_release(admin: KafkaAdminClient, topics: Iterable[str]) -> None:
    """Log a warning if one of these topics is in danger. Raises errors of the client."""
    if _release(admin) < LOSES_MARKS:
        return
    single = [
        topic["name"]
        for topic in admin.describe_topics(list(topics))
        if any(len(partition["replica_nodes"]) < 2 for partition in topic["partitions"])
    ]
    if single:
        _log.warning(
            "with this release of the broker, its restart may publish alerts twice or lose some, because of topics with"
            " one replica (%s): see docs/operations.md, Releases of the broker",
            ", ".join(single),
        )


def _release(admin: Any) -> tuple[int, ...]:
    # The client finds it out when it connects; there is no public way to ask for it.
    found: tuple[int, ...] = admin._manager.broker_version  # noqa: SLF001
    return found
