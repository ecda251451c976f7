"""The runbook has a section for whatever tells a person that something is wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from detector.service.health import WAITING, Health
from detector.service.metrics import STAGES

ROOT = Path(__file__).parents[1]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE))
RULES = ROOT / "deploy" / "prometheus" / "alerting.rules.yml"
ALERTS = [
    rule["alert"] for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]


def first_column(section: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", SECTIONS[section], re.MULTILINE)


def reasons_in_code() -> Iterator[str]:
    """The names that `set_reason` is called with, and what every process begins with."""
    yield from Health().reasons
    for path in (ROOT / "detector").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "set_reason":
                name = node.args[0]
                yield str(name.value) if isinstance(name, ast.Constant) else {"WAITING": WAITING}[ast.unparse(name)]


def test_each_reason_of_readyz_is_explained_and_no_other() -> None:
    listed = first_column("Not ready")
    assert sorted(listed) == sorted(set(reasons_in_code()))


def test_each_stage_of_the_errors_is_explained_and_no_other() -> None:
    assert sorted(first_column("Errors are counted")) == sorted(STAGES)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_what_one_sees_in_one_section(alert: str) -> None:
    seen = [title for title, text in SECTIONS.items() if re.search(rf"\*\*You see\*\*[^*]*`{alert}`", text)]
    assert len(seen) == 1
    rules = RULES.read_text(encoding="utf-8")
    anchor = re.sub(r"[^\w -]", "", seen[0].lower()).replace(" ", "-")
    assert re.search(rf"alert: {alert}\b(?:(?!alert: ).)*runbook\.md#{anchor}$", rules, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("title", SECTIONS)
def test_each_section_says_what_one_sees_and_how_it_ends(title: str) -> None:
    assert "**You see**" in SECTIONS[title]
    assert "**Over**" in SECTIONS[title]


@pytest.mark.parametrize(
    ("title", "module"),
    [("The port is in use", "service/web/server.py"), ("Stopping takes too long", "service/deadline.py")],
)
def test_errors_are_quoted_as_they_are_written(title: str, module: str) -> None:
    quoted = {"service/web/server.py": "cannot listen on ", "service/deadline.py": "stopping took longer than "}[module]
    assert quoted in (ROOT / "detector" / module).read_text(encoding="utf-8")
    assert quoted in SECTIONS[title]


def test_sections_that_are_referred_to_are_there() -> None:
    named = re.findall(r'see "([^"]+)"', RUNBOOK)
    assert named
    assert set(named) <= SECTIONS.keys()
