"""What rules and dashboards ask Prometheus for, held against the catalogue."""

from __future__ import annotations

import re

import promql_parser
from prometheus_client import CollectorRegistry

from detector.service.metrics import Metrics
from detector.service.peoplemetrics import IncidentMetrics, NotifyMetrics

_OURS = re.compile(r"(?<![\w:])(?:[a-z_]+:)?(?:detector_|process_|python_)[\w:]+")


def exported() -> set[str]:
    """Every name that a scrape can hold."""
    names = {"up"}
    made = (
        Metrics(CollectorRegistry(), sensors=["a"]),
        IncidentMetrics(CollectorRegistry()),
        NotifyMetrics(CollectorRegistry(), ["ops"]),
    )
    for metric in (metric for metrics in made for metric in metrics.registry.collect()):
        suffixes = {
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
            "info": ["_info"],
            "summary": ["_sum", "_count"],
        }.get(metric.type, [""])
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def asked_for(expr: str) -> set[str]:
    """Names of ours in an expression, which has to be one. Raises ValueError."""
    promql_parser.parse(expr)
    return set(_OURS.findall(expr))
