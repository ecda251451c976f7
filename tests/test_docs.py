"""What the documentation says in tables is what the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from detector.streams.kafka.failures import RULES, Reaction, Rule

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def errors_table() -> str:
    """The client's errors as docs/operations.md shows them."""
    head = "| error of the client | means | while reading | while writing | what to do |\n|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(_cells(rule))} |\n" for rule in RULES)


def _cells(rule: Rule) -> Iterator[str]:
    yield ", ".join(f"`{error.__name__}`" for error in rule.errors)
    yield rule.meaning
    yield _word(rule.reading)
    yield _word(rule.writing)
    yield rule.todo


def _word(reaction: Reaction) -> str:
    return "try again" if reaction is Reaction.RETRY else reaction.value


def events_in_code() -> dict[str, set[str]]:
    """Names of events with their fields: calls of `event`, and messages of records that bring fields of their own."""
    events: dict[str, set[str]] = {}
    for path in (ROOT / "detector").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if isinstance(node.func, ast.Name) and node.func.id == "event":
                name, fields = node.args[2], {str(key) for key in given}
            elif "extra" in given and "'fields'" in ast.unparse(given["extra"]):
                name, fields = (
                    node.args[0],
                    _fields_given(given["extra"]) | ({"traceback"} if "exc_info" in given else set()),
                )
            else:
                continue
            if isinstance(name, ast.Constant):
                events.setdefault(str(name.value), set()).update(fields)
    return events


def _fields_given(extra: ast.expr) -> set[str]:
    """The keys of `{"fields": {...}}`; those of `event` itself come from its callers."""
    fields = extra.values[0] if isinstance(extra, ast.Dict) else extra
    keys = fields.keys if isinstance(fields, ast.Dict) else []
    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}


def section(title: str) -> str:
    """The text below a heading of the page, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", OPERATIONS, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/operations.md has no section {title}"
    return found[1]


def test_the_page_shows_what_every_error_of_the_client_leads_to() -> None:
    assert errors_table() in OPERATIONS, f"docs/operations.md should have:\n{errors_table()}"


def test_the_page_lists_every_event_of_the_log_with_its_fields_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|.*\|([^|]*)\|$", section("Log events"), re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}
    assert listed == {**events_in_code(), "log": {"message"}}


def test_sections_that_errors_refer_to_are_there() -> None:
    titles = re.findall(r"^## (.*)$", OPERATIONS, re.MULTILINE)
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "detector").rglob("*.py"))
    named = set(re.findall(r"docs/operations\.md, (\w+)\)", code))
    assert named
    assert named <= set(titles)
