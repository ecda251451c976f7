"""The tutorial's second part, on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kafka.broker import Cluster
from tests.tutorial import blocks, follow


@pytest.mark.slow
def test_a_topic_leads_to_its_alerts(kafka: Cluster, tmp_path: Path) -> None:
    names = {name: kafka.unique(name) for name in ("sensor-readings", "anomaly-alerts", "detector-dead-letters")}
    # The broker is shared: topics and group of our own, and a port that is free. Any model will do.
    own = (
        f"readings: {{input: {names['sensor-readings']}}}\n"
        f"output: {{alerts: {names['anomaly-alerts']}, dead_letters: {names['detector-dead-letters']}}}\n"
        'http: {listen: "127.0.0.1:0"}\n'
        "training: {epochs: 3, min_steps: 300}\n"
    )
    texts = [block.replace("localhost:9092", kafka.address) for block in blocks("sh kafka")]
    configure, simulate, train, run, read = texts
    configure = configure.replace(
        "create_topics: true\n", f"create_topics: true\n    group_id: {kafka.unique('tutorial')}\n"
    )
    follow(configure, tmp_path)
    place = tmp_path / "kafka-tutorial"
    with (place / "config.yaml").open("a") as file:
        file.write(own)
    assert "24000 readings of 6 sensors" in follow(simulate, place)
    assert "Alerts: report/alerts.jsonl   report: report/report.html" in follow(train, place)
    assert "OK  rights" in follow(run, place)
    told = follow(read.replace('"anomaly-alerts"', f'"{names["anomaly-alerts"]}"'), place).splitlines()
    expected = [json.loads(line) for line in (place / "report" / "alerts.jsonl").read_bytes().splitlines()]
    assert told
    assert sorted(told) == sorted(
        f"{alert['event']} {alert['sensor_id']} {alert['severity']} {alert['detected_at']}" for alert in expected
    )


def test_the_producer_works_as_printed(kafka: Cluster, tmp_path: Path) -> None:
    topic = kafka.create_topic(kafka.unique("sensor-readings"))
    (tmp_path / "config.yaml").write_text(
        f"streams: {{backend: kafka, kafka: {{bootstrap_servers: ['{kafka.address}']}}}}\n"
        f"readings: {{input: {topic}}}\n"
    )
    (produce,) = blocks("sh producer")
    said = follow(produce.replace("localhost:9092", kafka.address).replace("sensor-readings", topic), tmp_path)
    assert "1,000 records: 1,000 readings of 1 sensor, 0 records rejected" in said
