"""The metrics of `detector incidents`, `notify` and `rekey`: a part of the catalogue in `detector.service.metrics`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from detector import __version__
from detector.service.health import Health
from detector.service.metrics import EVENTS, SEVERITIES, Description, Maker
from detector.streams.base import Partition

# What became of an alert: it opened an incident, joined or refreshed one, was seen before, opens none because it is
# muted, belongs to a group beyond the limit, or could not be read.
ALERT_OUTCOMES: Final = ("taken", "duplicate", "muted", "ungrouped", "rejected")

# What became of a notification: delivered, tried again later, or a dead letter because the target refused it, did not
# take it for too long.
OUTCOMES: Final = ("delivered", "retried", "refused", "given_up")

# What became of a record that was to get another key.
REKEY_OUTCOMES: Final = ("copied", "rejected")


class FollowerMetrics:
    """What all have, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self.described: list[Description] = []
        """What `docs/metrics.md` lists of them; what the detector has under the same name is not repeated."""
        ProcessCollector(registry=registry)
        make = Maker(registry, "", [])
        self.ready = make.gauge("ready", "1 when /readyz answers 200, else 0")
        self.last_progress = make.gauge(
            "loop_last_progress_timestamp_seconds", "When the loop last finished a turn, seconds since the epoch"
        )
        self.lag = make.gauge("lag_records", "Records that are there and not read yet", "stream", "partition")
        build = make.info("build", "Version of the program and of Python", carries=("version", "python"))
        build.info({"version": __version__, "python": platform.python_version()})

    def turned(self, health: Health, lag: Mapping[Partition, int]) -> None:
        """The loop has finished a turn."""
        self.ready.set(health.ready)
        self.last_progress.set_to_current_time()
        for partition, records in lag.items():
            self.lag.labels(partition.stream, partition.number).set(records)


class IncidentMetrics(FollowerMetrics):
    """Of `detector incidents`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        make = Maker(registry, "Incidents", self.described)
        messages = make.counter("incidents_total", "Messages about incidents", "event", "severity")
        self.messages: dict[tuple[str, str], Counter] = {
            labels: messages.labels(*labels) for labels in product(EVENTS, SEVERITIES)
        }
        self.open = make.gauge("open_incidents", "Incidents that are open at the moment")
        alerts = make.counter("incident_alerts_total", "Alert messages read, by what became of them", "outcome")
        self.alerts: dict[str, Counter] = {outcome: alerts.labels(outcome) for outcome in ALERT_OUTCOMES}


class NotifyMetrics(FollowerMetrics):
    """Of `detector notify`; every one has the target's name, of which the configuration says how many there are."""

    def __init__(self, registry: CollectorRegistry, targets: Sequence[str]) -> None:
        super().__init__(registry)
        make = Maker(registry, "Notifications", self.described)
        sent = make.counter(
            "notifications_total", "Attempts to tell a target, by what came of them", "target", "outcome"
        )
        pending = make.gauge("notify_pending", "Incidents that a target has still to be told of", "target")
        oldest = make.gauge(
            "notify_undelivered_seconds", "Since when the oldest of them could not be delivered, 0 if none", "target"
        )
        self.sent: dict[str, dict[str, Counter]] = {
            target: {outcome: sent.labels(target, outcome) for outcome in OUTCOMES} for target in targets
        }
        self.pending: dict[str, Gauge] = {target: pending.labels(target) for target in targets}
        self.undelivered: dict[str, Gauge] = {target: oldest.labels(target) for target in targets}


class RekeyMetrics(FollowerMetrics):
    """Of `detector rekey`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        make = Maker(registry, "Keys", self.described)
        records = make.counter(
            "rekeyed_records_total", "Records that were to get another key, by what became of them", "outcome"
        )
        self.records: dict[str, Counter] = {outcome: records.labels(outcome) for outcome in REKEY_OUTCOMES}
