"""Writes what is made from code: `python -m deploy.generate`, with `--check` only says whether it is up to date.

The Grafana dashboards from `deploy/dashboards.py`, the rules of `deploy/prometheus` as the resource that the Prometheus
operator reads, and `docs/metrics.md` from the catalogue in `detector/service/metrics.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards import PAGES
from deploy.metrics_page import metrics_page
from deploy.panels import build

HERE: Final = Path(__file__).resolve().parent
_WRITTEN: Final = "# Written by `python -m deploy.generate` from the rules in deploy/prometheus.\n"


def made() -> Mapping[Path, str]:
    """Each file and what is in it."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    dashboards = HERE / "grafana" / "dashboards"
    files = {dashboards / f"{name}.json": encoder.encode(build(page)) + "\n" for name, page in PAGES.items()}
    rule = _prometheus_rule()
    files[HERE / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"] = rule
    files[HERE / "helm" / "detector" / "files" / "prometheusrule.yaml"] = rule
    files[HERE.parent / "docs" / "metrics.md"] = metrics_page()
    return files


def _prometheus_rule() -> str:
    groups: list[Any] = []
    for name in ("recording.rules.yml", "alerting.rules.yml"):
        groups += yaml.safe_load((HERE / "prometheus" / name).read_text(encoding="utf-8"))["groups"]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "detector", "labels": {"app.kubernetes.io/name": "detector"}},
        "spec": {"groups": groups},
    }
    return _WRITTEN + yaml.safe_dump(resource, sort_keys=False, width=120)


def main() -> int:
    """Write, or check; 1 if a file is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m deploy.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = [path for path, text in made().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            sys.stdout.write(f"{path.relative_to(HERE.parent)} is not up to date: python -m deploy.generate\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made()[path], encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(HERE.parent)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
