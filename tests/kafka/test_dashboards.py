"""A real Prometheus scrapes a real daemon under load, and every panel of the dashboards has something to show."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from deploy.dashboards import PAGES
from tests.deploy.test_grafana import without_variables
from tests.deploy.tools import DEPLOY, tool
from tests.kafka.broker import Cluster, dies_with_us, free_ports
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_faults import committed, wait_until
from tests.tiny import SENSORS, json_lines, tiny_bundle

PART = 200
"""Lines written between two scrapes, so that counters are seen rising."""


class Prometheus:
    """A server of our own and what it answers."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query"

    def ask(self, expr: str) -> list[float]:
        """The values of an expression now, those that are numbers."""
        try:
            with urlopen(f"{self._url}?{urlencode({'query': expr})}", timeout=PATIENCE) as response:  # noqa: S310
                result = json.load(response)["data"]["result"]
        except URLError:
            return []
        values = [float(series["value"][1]) for series in result]
        return [value for value in values if not math.isnan(value)]


@pytest.fixture
def watched(kafka: Cluster, tmp_path: Path) -> Iterator[tuple[Plant, Prometheus]]:
    """A daemon on a topic that is still empty, and a Prometheus with our configuration that scrapes it."""
    program = tool("prometheus", "Debian: prometheus")
    plant, (ours, theirs) = Plant(kafka, 1), free_ports(2)
    tiny_bundle(tmp_path / "models")
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path) for path in sorted((DEPLOY / "prometheus").glob("*.rules.yml"))]
    del config["alerting"]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{ours}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    settings = {
        "streams.backend": "kafka",
        "streams.kafka.bootstrap_servers": f"['{kafka.address}']",
        "streams.kafka.group_id": plant.group,
        "readings.input": plant.input,
        "readings.model": str(tmp_path / "models"),
        "output.alerts": plant.alerts,
        "output.dead_letters": plant.dead_letters,
        "metrics.sensors": json.dumps(SENSORS),
        "http.listen": f"127.0.0.1:{ours}",
    }
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    started = [
        _started(tmp_path / "detector.log", [sys.executable, "-m", "detector.cli.main", "run", *options]),
        _started(
            tmp_path / "prometheus.log",
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{theirs}",
            ],
        ),
    ]
    try:
        yield plant, Prometheus(theirs)
    finally:
        for process in started:
            process.kill()
            process.wait()
        plant.close()


def test_every_panel_shows_something(watched: tuple[Plant, Prometheus], capsys: pytest.CaptureFixture[str]) -> None:
    plant, prometheus = watched
    lines = json_lines().splitlines()
    wait_until(lambda: prometheus.ask("detector_ready") == [1.0], "the daemon is ready and scraped")
    plant.append(0, [b"no reading"])
    for begin in range(0, len(lines), PART):
        part = lines[begin : begin + PART]
        plant.append(0, part)
        done = begin + len(part) + 1
        wait_until(functools.partial(_is_committed, plant, done), "it is committed")
        seen = f"sum(detector_readings_total) >= {done}"
        wait_until(functools.partial(prometheus.ask, seen), "it is scraped")
    rules = "count(job:detector_readings:rate5m)"
    wait_until(functools.partial(prometheus.ask, rules), "rules are evaluated")
    empty = []
    for name, title, expr in _panels():
        values = prometheus.ask(without_variables(expr))
        with capsys.disabled():
            sys.stdout.write(f"\n  {name:<11} {title:<24} {_shown(values)}")
        of_others = "detector_open_incidents" in expr or "detector_incidents_" in expr or "detector_notif" in expr
        if not values and not of_others:  # nobody runs `incidents` and `notify` here
            empty.append(f"{name}: {title}: {expr}")
    assert empty == []
    assert prometheus.ask('sum(detector_alerts_total{event="opened"})') == [1.0], "the fault of the plant"


def _is_committed(plant: Plant, position: int) -> bool:
    return committed(plant).get(0) == position


def _panels() -> Iterator[tuple[str, str, str]]:
    for name, page in PAGES.items():
        for row in page.rows:
            for panel in row.panels:
                for query in panel.queries:
                    yield name, panel.title, query.expr


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")


def _started(log: Path, command: Sequence[Any]) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        words = [*dies_with_us(), *command]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=log.parent)
