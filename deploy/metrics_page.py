"""`docs/metrics.md`, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from prometheus_client import CollectorRegistry

from detector.detection.watch import REASONS
from detector.service.metrics import (
    EVENTS,
    FRAME_OUTCOMES,
    KINDS,
    READING_OUTCOMES,
    REJECT_REASONS,
    SEVERITIES,
    STAGES,
    Description,
    Metrics,
)
from detector.service.peoplemetrics import (
    ALERT_OUTCOMES,
    OUTCOMES,
    REKEY_OUTCOMES,
    IncidentMetrics,
    NotifyMetrics,
    RekeyMetrics,
)

_HEAD: Final = """# Metrics

What `/metrics` has, in the text format of Prometheus or as OpenMetrics, whichever a scrape asks for. This page is
written by `python -m deploy.generate` from the catalogue in `detector/service/metrics.py`; rules and dashboards use
these names and no others, and a test says so. Names, labels and units are part of the interface.

All series of closed label sets are there from the start, at 0. Nothing carries a sensor's name but the series of the
sensors that `metrics.sensors` names; the page at `/` shows the worst ones. Gauges are of the last turn of the main
loop, those of sensors of the last second. `detector incidents`, `notify` and `rekey` have the last three sections, and
`detector_ready`, `detector_loop_last_progress_timestamp_seconds`, `detector_lag_records` and `detector_build_info`.
Beside these there are `process_*`, `python_*` and `python_gc_*` of the Python client.
"""
_UNITS: Final = {"_timestamp_seconds": "s since the epoch", "_seconds": "s", "_bytes": "bytes", "_ratio": "ratio"}


def metrics_page() -> str:
    """The page."""
    described = [
        *Metrics(CollectorRegistry()).described,
        *IncidentMetrics(CollectorRegistry()).described,
        *NotifyMetrics(CollectorRegistry(), []).described,
        *RekeyMetrics(CollectorRegistry()).described,
    ]
    sections = (_section(name, list(group)) for name, group in groupby(described, key=lambda one: one.section))
    return "\n".join([_HEAD, *sections, _labels()])


def _section(name: str, described: Iterable[Description]) -> str:
    head = f"## {name}\n\n| name | type | labels | unit | what it is |\n|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(_cells(one))} |\n" for one in described)


def _cells(one: Description) -> Iterator[str]:
    yield f"`{one.name}`"
    yield one.type
    yield ", ".join(f"`{label}`" for label in one.labels)
    yield next((unit for end, unit in _UNITS.items() if one.name.endswith(end)), "")
    buckets = f". Buckets: {', '.join(f'{bound:g}' for bound in one.buckets)}" if one.buckets else ""
    yield one.help + buckets


def _labels() -> str:
    rows = {
        "kind": KINDS,
        "event": EVENTS,
        "severity": SEVERITIES,
        "outcome` of readings": READING_OUTCOMES,
        "outcome` of frames": FRAME_OUTCOMES,
        "stage": STAGES,
        "reason` of rejects": REJECT_REASONS,
        "outcome` of alerts that incidents are made of": ALERT_OUTCOMES,
        "outcome` of notifications": OUTCOMES,
        "outcome` of records that get another key": REKEY_OUTCOMES,
        "reason` of sensors not watched": REASONS,
    }
    lines = [f"| `{label}{'' if '`' in label else '`'} | {', '.join(values)} |" for label, values in rows.items()]
    lines.append("| `target` | the names of `notify.targets` |")
    lines.append(
        "| `stream`, `partition` | the partitions of this process; the series of one that it loses go with it |"
    )
    head = "## Labels\n\n| label | values |\n|---|---|\n"
    return head + "\n".join(lines) + "\n"
