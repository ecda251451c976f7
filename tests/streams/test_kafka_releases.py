from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from detector.streams.kafka.releases import warn_of_release


def admin(release: tuple[int, ...], replicas: int) -> Any:
    """A client of a broker of that release, where each topic has one partition with this many replicas."""
    partitions = [{"replica_nodes": list(range(replicas))}]
    return SimpleNamespace(
        _manager=SimpleNamespace(broker_version=release),
        describe_topics=lambda names: [{"name": name, "partitions": partitions} for name in names],
    )


@pytest.mark.parametrize(
    ("release", "replicas", "warned"), [((4, 2), 1, False), ((4, 3), 1, True), ((4, 4), 1, True), ((4, 3), 3, False)]
)
def test_who_is_warned(release: tuple[int, ...], replicas: int, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_release(admin(release, replicas), ["alerts", "state"])
    assert ("one replica (alerts, state)" in caplog.text) == warned
    assert len(caplog.records) == warned
