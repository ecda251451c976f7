"""Whoever does what the tutorial says gets what it promises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from detector.config.load import load_config
from detector.times import parse_time
from detector.wire.alerts import decode_alert
from tests.tutorial import PAGE, blocks, follow


def test_every_block_is_of_a_kind_that_is_run() -> None:
    fences = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    run = [*blocks("sh"), *blocks("sh kafka"), *blocks("sh producer")]
    assert fences.count("```") == len(run) == len(fences) / 2


@pytest.mark.slow
def test_a_csv_leads_to_its_alerts_and_changes_nothing_of_the_project(tmp_path: Path) -> None:
    make, train, backtest, tune, run = blocks("sh")
    shipped = Path(__file__).parents[1] / "config.yaml"
    shutil.copy(shipped, tmp_path)
    follow(make, tmp_path)
    place = tmp_path / "var" / "tutorial"
    assert "1 sensor, 5000 rows" in follow(train, place)
    assert "Alerts: report/alerts.jsonl   report: report/report.html" in follow(backtest, place)
    assert "Written: readings.alerts.false_alarms: " in follow(tune, place)
    alarms = load_config(place / "config.yaml").readings.alerts.false_alarms
    assert alarms is not None
    # The default port may be another's.
    with (place / "config.yaml").open("a") as file:
        file.write('http: {listen: "127.0.0.1:0"}\n')
    follow(run, place)
    alerts = [decode_alert(line) for line in (place / "alerts.jsonl").read_bytes().splitlines()]
    opened = sorted((parse_time(alert.detected_at) - parse_time("2026-10-01T00:00:00Z")) // (60 * 10**9)
                    for alert in alerts if alert.event == "opened")  # fmt: skip
    for first, last in ((15_000, 15_060), (26_000, 26_090)):
        assert any(first <= minute <= last for minute in opened), opened
    assert sum(alert.event == "closed" for alert in alerts) == len(opened)
    assert (tmp_path / "config.yaml").read_bytes() == shipped.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "var"}
