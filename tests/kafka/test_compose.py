"""The plant of deploy/docker/compose.yaml without containers: its commands, one after the other, on a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kafka.broker import Cluster
from tests.kafka.plant import PATIENCE, Plant
from tests.notify.made import receiving

DOCKER = Path(__file__).parents[2] / "deploy" / "docker"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_plant_finds_something(kafka: Cluster, tmp_path: Path) -> None:
    plant = Plant(kafka, 1)  # for names of its own, and to read the alerts
    services: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    config = yaml.safe_load((DOCKER / "config.yaml").read_text(encoding="utf-8"))
    config["streams"]["kafka"] |= {"bootstrap_servers": [kafka.address], "group_id": plant.group}
    config["readings"] |= {"input": plant.input, "model": str(tmp_path / "models")}
    config["output"] = {"alerts": plant.alerts, "dead_letters": plant.dead_letters}
    config["http"]["listen"] = "127.0.0.1:0"
    incidents = kafka.unique("incidents")
    config["incidents"] |= {"http": "127.0.0.1:0", "input": plant.alerts, "output": incidents}
    config["notify"] |= {"http": "127.0.0.1:0", "input": incidents, "settle": None}

    def run(name: str, *changes: str) -> str:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        words = [word for word in services[name]["command"] if not word.startswith("--rate")]
        done = subprocess.run(
            [sys.executable, "-m", "detector.cli.main", *words, *changes],
            cwd=tmp_path, env=os.environ | {"DETECTOR_CONFIG": "config.yaml"},
            capture_output=True, text=True, timeout=8 * PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # A smaller plant in less time, and the daemon ends at its end.
    place = f"--set=streams.directory.path={tmp_path / 'labels'}"
    run("simulator", "--rows=3000", "--sensors=5", place)
    assert "5 sensors" in run("trainer", "--rows=1000", "--set=training={epochs: 2, min_steps: 600}")
    run("detector", "--until-end")
    run("incidents", "--until-end")
    with receiving() as alertmanager:
        config["notify"]["targets"][0]["url"] = alertmanager.url.removesuffix("/hook")
        run("notify", "--until-end")
    alerts = [json.loads(record.value) for record in plant.read(plant.alerts)]
    plant.close()
    assert {alert["event"] for alert in alerts} >= {"opened", "closed"}
    told = [alert for path, _, body in alertmanager.heard if path == "/api/v2/alerts" for alert in json.loads(body)]
    assert {alert["labels"]["alertname"] for alert in told} == {"AnomalyIncident"}
