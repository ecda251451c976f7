"""How far a restore is: as a gauge always, as a log line now and then."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from detector.service.metrics import Metrics
from detector.service.progress import EVERY_SECONDS, RestoreProgress
from detector.streams.base import Partition

ONE, OTHER = Partition("sensor-readings", 1), Partition("sensor-readings", 2)


class Restores:
    def __init__(self) -> None:
        self.now = 50.0
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def begin(self, partition: Partition, position: int, live_from: int) -> RestoreProgress:
        return RestoreProgress(partition, position, live_from, self.metrics, lambda: self.now)

    def share(self, partition: Partition) -> float | None:
        labels = {"stream": partition.stream, "partition": str(partition.number)}
        return self.registry.get_sample_value("detector_restore_progress_ratio", labels)


@pytest.fixture
def restores() -> Restores:
    return Restores()


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.msg == "restore_progress"]


def test_the_gauge_is_the_share_that_was_run_again(restores: Restores) -> None:
    progress = restores.begin(ONE, 100, 300)
    restores.begin(OTHER, 0, 10)
    shares = [restores.share(ONE)]
    for position in (150, 300):
        progress.reached(position)
        shares.append(restores.share(ONE))
    assert shares == [0.0, 0.25, 1.0]
    assert restores.share(OTHER) == 0.0


def test_the_log_tells_it_now_and_then(restores: Restores, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = restores.begin(ONE, 0, 1000)
    for position in range(0, 1000, 10):
        restores.now += EVERY_SECONDS / 40
        progress.reached(position)
    assert [fields["percent"] for fields in told(caplog)] == [39, 79]
    assert told(caplog)[0] == {
        "stream": "sensor-readings", "partition": 1, "position": 390, "live_from": 1000, "percent": 39,
    }  # fmt: skip
