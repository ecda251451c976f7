"""Readings in Avro on a broker, with a schema registry that is away at first, and with Apicurio's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastavro")

from detector.cli.main import main
from detector.config.load import SchemaRegistryConfig
from detector.streams.kafka.registry import Registry
from tests.kafka.broker import Cluster, dies_with_us, free_ports
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_command import options_for, published, started
from tests.kafka.test_faults import wait_until
from tests.registry import READING, FakeRegistry, framed
from tests.tiny import json_lines, tiny_bundle

SCHEMA = READING | {"fields": [*READING["fields"][:1], {"name": "timestamp", "type": "double"}, READING["fields"][2]]}
APICURIO = Path(sys.executable).parents[1] / "tools" / "apicurio"


@pytest.fixture
def plant(kafka: Cluster, tmp_path: Path) -> Iterator[Plant]:
    tiny_bundle(tmp_path / "models")
    plant = Plant(kafka, 1)
    yield plant
    plant.close()


def sourceless(alerts: list[bytes]) -> list[dict[str, Any]]:
    """Alerts without the places of their readings."""
    found = [json.loads(alert) for alert in alerts]
    return [{key: value for key, value in one.items() if key != "source"} for one in found]


def test_a_registry_that_is_away_is_waited_for_and_avro_is_what_json_is(plant: Plant, tmp_path: Path) -> None:
    lines = json_lines()
    values = [framed(7, SCHEMA, json.loads(line)) for line in lines.splitlines()]
    (tmp_path / "in.jsonl").write_bytes(lines)
    log = tmp_path / "log"
    with FakeRegistry() as registry:
        registry.add(7, SCHEMA)
        registry.down = True
        options = [*options_for(plant, tmp_path), "--set", f"streams.kafka.schema_registry.url={registry.url}"]
        plant.append(0, [*values[:100], b"\0\0\0\0\x2a\0", *values[100:]])
        process = started(options, log, "--until-end")
        try:
            wait_until(lambda: "does not answer: it answers 503" in log.read_text(), "it waits")
            assert process.poll() is None
            registry.down = False
            assert process.wait(2 * PATIENCE) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
        assert len(set(registry.asked)) == 2, "each schema is asked for"
        assert main(["backtest", "--data", "kafka", "--out", str(tmp_path / "topic"), *options]) == 0
    assert main(["backtest", "--data", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "file"), *options]) == 0
    told = published(plant)
    assert told == (tmp_path / "topic" / "alerts.jsonl").read_bytes().splitlines() != []
    assert sourceless(told) == sourceless((tmp_path / "file" / "alerts.jsonl").read_bytes().splitlines())
    (dead,) = plant.read(plant.dead_letters)
    assert dict(dead.headers)["detector.message"] == b"the registry does not know the schema 42"


def test_a_stop_while_the_registry_is_away_is_a_clean_one(plant: Plant, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with FakeRegistry() as registry:
        registry.down = True
        plant.append(0, [framed(7, SCHEMA, json.loads(line)) for line in json_lines().splitlines()[:50]])
        options = [*options_for(plant, tmp_path), "--set", f"streams.kafka.schema_registry.url={registry.url}"]
        process = started(options, log)
        try:
            wait_until(lambda: "does not answer" in log.read_text(), "it waits")
            process.terminate()
            assert process.wait(PATIENCE) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_apicurio_registry(tmp_path: Path) -> None:
    java = shutil.which("java")
    if java is None or not APICURIO.is_dir():
        pytest.skip("there is no Apicurio Registry (.ci/tools)")
    (port,) = free_ports(1)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *dies_with_us(), java, "-Xmx256m", "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}",
                "-cp", f"{APICURIO}/*:{APICURIO}/lib/*", "io.quarkus.runner.GeneratedMain",
            ],
            cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    try:
        for _ in range(4):  # it may take a minute and more where others work
            try:
                wait_until(partial(_answers, url), "it is up")
                break
            except AssertionError:
                assert process.poll() is None, (tmp_path / "log").read_text()
        kind = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        place = f"{url}/subjects/plant-tags-value/versions"
        number = httpx.post(place, json={"schema": json.dumps(SCHEMA)}, headers=kind, timeout=60).json()["id"]
        registry = Registry(SchemaRegistryConfig(url=url), limit=0)
        found = registry.schema(number)
        assert found is not None
        assert (found.kind, found.definition) == ("AVRO", SCHEMA)
        assert registry.schema(4_000_000) is None
        registry.close()
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/subjects", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
