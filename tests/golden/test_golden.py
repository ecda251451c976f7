"""What is published of frozen inputs by frozen models is what an earlier release published."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.cli.main import main
from tests.golden.cases import ALERTS, CASES, LETTERS, MACHINES, PLANT, Case, parsed, run
from tests.golden.compare import expect_alerts, expect_letters, since_last


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_run_publishes_what_was_recorded(case: Case, tmp_path: Path) -> None:
    place = case.lay(tmp_path / "place")
    run(place, "run", "--until-end")
    expect_alerts(since_last(case.recorded(ALERTS)), parsed((place / ALERTS).read_bytes()))
    expect_letters(case.recorded(LETTERS), parsed((place / LETTERS).read_bytes()))


@pytest.mark.parametrize("case", [PLANT, MACHINES], ids=[PLANT.name, MACHINES.name])
def test_a_backtest_finds_what_was_recorded(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = case.lay(tmp_path / "place")
    monkeypatch.chdir(place)
    monkeypatch.setattr("detector.reports.page.page", lambda *_: "")  # drawing takes longer than all the rest
    assert main(["backtest", "--data", case.input, "--out", "report"]) == 0
    expect_alerts(since_last(case.recorded(ALERTS)), parsed((place / "report" / "alerts.jsonl").read_bytes()))


def test_what_was_recorded_has_everything_that_can_happen() -> None:
    alerts = [alert for case in CASES for alert in case.recorded(ALERTS)]
    assert {alert["event"] for alert in alerts} == {"opened", "updated", "closed"}
    assert {alert["close_reason"] for alert in alerts} == {None, "recovered", "gap", "evicted", "max_duration"}
    assert {(alert["reason"], alert["severity"]) for alert in alerts} == {
        (reason, severity) for reason in ("anomaly", "silent") for severity in ("warning", "critical")
    }
    muted = {alert["alert_id"] for alert in alerts if alert["muted"]}
    assert any(alert["alert_id"] in muted and not alert["muted"] for alert in alerts), "none outlives its maintenance"
    letters = [letter for case in CASES for letter in case.recorded(LETTERS)]
    assert any(letter["elements"] for letter in letters)
    assert len({letter["reason"] for letter in letters}) >= 11


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_no_message_contradicts_itself(case: Case) -> None:
    peaks: dict[str, float] = {}
    for alert in case.recorded(ALERTS):
        assert alert["score"] <= alert["peak_score"]
        assert alert["peak_score"] >= peaks.get(alert["alert_id"], 0.0)
        peaks[alert["alert_id"]] = alert["peak_score"]
        assert alert["started_at"] <= alert["detected_at"]
        assert alert["ended_at"] is None or alert["ended_at"] >= alert["started_at"]
        if alert["channels"]:
            assert sum(alert["channels"].values()) == pytest.approx(1, abs=1e-5)
