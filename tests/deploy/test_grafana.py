"""The dashboards are what the code makes, ask for what there is, and have a place for each panel."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from deploy import generate
from deploy.dashboards import PAGES
from deploy.panels import Panel
from tests.deploy.metrics import asked_for, exported
from tests.deploy.tools import DEPLOY

FILES = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PANELS = [panel for page in PAGES.values() for row in page.rows for panel in row.panels]


def test_everything_made_from_code_is_up_to_date(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    assert generate.main() == 0, capsys.readouterr().out


def test_each_page_has_its_file() -> None:
    assert [path.stem for path in FILES] == sorted(PAGES)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_panels_ask_for_what_there_is(panel: Panel) -> None:
    for query in panel.queries:
        assert asked_for(without_variables(query.expr)) <= exported()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_are_told_apart_and_lie_beside_one_another(path: Any) -> None:
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_provisioning_names_the_folder_that_compose_mounts() -> None:
    compose = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    mounts = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/detector.yaml").read_text())["providers"]
    assert provider["options"]["path"] in mounts
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix(provider["options"]["path"] + "/") in [path.name for path in FILES]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]


def without_variables(expr: str) -> str:
    """As Prometheus gets it from Grafana when everything is chosen."""
    return re.sub(r"\$(job|sensor)\b", ".*", expr.replace("$__rate_interval", "1m"))
