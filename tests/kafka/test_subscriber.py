"""The subscriber that docs/messages.md shows, run as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from kafka import KafkaProducer

from tests.kafka.broker import Cluster, dies_with_us

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"


def alert(sequence: int, event: str) -> bytes:
    fields = {"sensor_id": "pump-7", "severity": "warning", "started_at": "2026-11-22T10:00:00Z"}
    muted = event == "planned"
    return json.dumps(
        {"alert_id": "b" if muted else "a", "sequence": sequence, "event": event, "muted": muted, **fields}
    ).encode()


def test_it_acts_once_on_each_committed_message(kafka: Cluster, tmp_path: Path) -> None:
    topic = kafka.create_topic(kafka.unique("alerts"))
    producer = KafkaProducer(bootstrap_servers=kafka.address, transactional_id=kafka.unique("t"))
    producer.init_transactions()
    for events, committed in (
        ([(0, "planned")], True),
        ([(0, "opened")], True),
        ([(1, "rolled back")], False),
        ([(0, "opened"), (1, "updated")], True),  # one of them again
        ([(2, "closed")], True),
    ):
        producer.begin_transaction()
        for sequence, event in events:
            producer.send(topic, alert(sequence, event), key=b"pump-7")
        producer.flush()
        if committed:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close(5)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    replaced = {"localhost:9092": kafka.address, '"anomaly-alerts"': f'"{topic}"', '"pager"': f'"{kafka.unique("g")}"'}
    for shown, ours in replaced.items():
        assert shown in code
        code = code.replace(shown, ours)
    process = subprocess.Popen(
        [*dies_with_us(), sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        said = [process.stdout.readline().split()[0] for _ in range(3)]
        process.kill()
    process.wait()
    assert said == ["opened", "updated", "closed"]
