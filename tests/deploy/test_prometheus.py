"""Scrape configuration, rules and routing, judged by Prometheus' own tools and held against the catalogue."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.metrics import asked_for, exported
from tests.deploy.tools import DEPLOY, PROJECT, said, tool

PROMETHEUS = DEPLOY / "prometheus"
RULES = sorted(PROMETHEUS.glob("*.rules.yml"))
TESTS = Path(__file__).with_name("alerting_test.yml")


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


ALERTS = [rule for rule in rules() if "alert" in rule]


def test_prometheus_takes_configuration_and_rules() -> None:
    promtool = tool("promtool", "Debian: prometheus")
    said(promtool, "check", "rules", *RULES)
    # Its syntax only: as a whole it would look for rules and targets where it is mounted.
    said(promtool, "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    said(promtool, "check", "config", "--syntax-only", DEPLOY / "docker" / "prometheus.yml")


def test_alertmanager_takes_the_routes() -> None:
    amtool = tool("amtool", "Debian: prometheus-alertmanager")
    path = PROMETHEUS / "alertmanager.yml"
    said(amtool, "check-config", path)
    wanted = {
        "operators-page": ["audience=operators", "severity=critical"],
        "operators": ["audience=operators", "severity=warning"],
        "owners": ["audience=owners", "severity=critical"],
    }
    for receiver, labels in wanted.items():
        assert said(amtool, "config", "routes", "test", f"--config.file={path}", *labels).splitlines()[0] == receiver


def test_every_alert_fires_and_stays_quiet_as_the_rule_tests_say() -> None:
    said(tool("promtool", "Debian: prometheus"), "test", "rules", TESTS)


def test_the_rule_tests_leave_no_alert_out() -> None:
    cases = [
        case
        for group in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
        for case in group["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in ALERTS}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names, "each is seen firing"
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names, "each is seen quiet"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_what_there_is(rule: dict[str, Any]) -> None:
    recorded = {other["record"] for other in rules() if "record" in other}
    assert asked_for(rule["expr"]) <= exported() | recorded


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alerts_say_whom_they_wake_and_where_help_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["labels"]["audience"] in ("operators", "owners")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (PROJECT / page).read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert anchor in anchors


def test_a_metric_nobody_exports_would_be_noticed() -> None:
    assert not asked_for("rate(detector_wishes_total[5m]) > 1") <= exported()
    with pytest.raises(ValueError, match="unclosed"):
        asked_for("rate(detector_alerts_total[5m] > ")


def test_compose_scrapes_with_the_same_configuration() -> None:
    ours = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    compose = yaml.safe_load((DEPLOY / "docker" / "prometheus.yml").read_text(encoding="utf-8"))
    del ours["alerting"]
    for one, other in zip(ours["scrape_configs"], compose["scrape_configs"], strict=True):
        assert one.pop("static_configs") != other.pop("static_configs")
    assert ours == compose
