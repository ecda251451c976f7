"""`detector feedback` on a broker: to the partition the alert came from, and acknowledged once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from detector.cli.main import main
from detector.reports.scoreboard import read_labels
from detector.wire.alerts import decode_alert
from detector.wire.verdicts import decode_acknowledgement
from tests.kafka.broker import Cluster
from tests.kafka.plant import PATIENCE, Plant
from tests.kafka.test_command import LINES, options_for, started
from tests.kafka.test_faults import committed, wait_until
from tests.tiny import tiny_bundle


@pytest.fixture
def plant(kafka: Cluster, tmp_path: Path) -> Iterator[Plant]:
    tiny_bundle(tmp_path / "models")
    plant = Plant(kafka, 3)
    yield plant
    plant.close()


def test_a_verdict_goes_where_the_alert_came_from(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The readings lie on a partition that no producer's hash would choose for both keys."""
    monkeypatch.chdir(tmp_path)
    options, log = options_for(plant, tmp_path), tmp_path / "log"
    plant.append(2, LINES)
    process = started(options, log)
    try:
        wait_until(lambda: committed(plant).get(2) == len(LINES), "the readings are done")
        alerts = [decode_alert(record.value) for record in plant.read(plant.alerts)]
        named = alerts[0].alert_id
        assert {alert.source.partition for alert in alerts} == {2}
        for word in ("false", "real"):
            assert main(["feedback", named[:8], word, "--by", "Ann", "--data", "kafka", *options]) == 0
        assert f"topic {plant.input} partition 2" in capsys.readouterr().out
        wait_until(lambda: committed(plant).get(2) == len(LINES) + 2, "the verdicts took effect")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
    said = [decode_acknowledgement(record.value) for record in plant.read(plant.verdicts)]
    assert [(one.alert_id, one.word, one.by, one.source.partition, one.source.offset) for one in said] == [
        (named, "false", "Ann", 2, len(LINES)), (named, "real", "Ann", 2, len(LINES) + 1)
    ]  # fmt: skip
    assert plant.read(plant.dead_letters) == []
    assert main(["feedback", "export", "--data", "kafka", *options]) == 0
    (label,) = read_labels(Path("labels.json"))
    assert (label.sensor_id, label.word) == (alerts[0].sensor_id, "real")
    capsys.readouterr()
    assert main(["alerts", "kafka", "--json", *options]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["alert_id"]: one["verdict"] for one in listed}[named] == "real"


def test_without_a_topic_for_them_verdicts_take_effect_all_the_same(plant: Plant, tmp_path: Path) -> None:
    options, log = options_for(plant, tmp_path), tmp_path / "log"
    missing = plant.cluster.unique("no-verdicts")
    plant.append(0, LINES)
    assert started([*options, "--set", f"output.verdicts={missing}"], log, "--until-end").wait(2 * PATIENCE) == 0
    alert = decode_alert(plant.read(plant.alerts)[0].value)
    producer = KafkaProducer(bootstrap_servers=plant.cluster.address)
    body = {"sensor_id": alert.sensor_id, "verdict": {"alert_id": alert.alert_id, "is": "expected"}}
    producer.send(plant.input, json.dumps(body).encode(), partition=0).get(PATIENCE)
    producer.close()
    assert started([*options, "--set", f"output.verdicts={missing}"], log, "--until-end").wait(2 * PATIENCE) == 0
    assert f"there is no topic {missing}: nothing is written to it" in log.read_text()
    assert committed(plant)[0] == len(LINES) + 1
    assert plant.read(plant.dead_letters) == []
