"""What targets are sent."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from detector.errors import UserError
from detector.notify.filters import passes
from detector.notify.requests import Alertmanager, Webhook, alert_of
from detector.times import parse_time
from tests.notify.made import NOW, incident, target, value

EXAMPLES = Path(__file__).parents[2] / "deploy/notify"


def webhook(tmp_path: Path, template: str | None = None, **fields: Any) -> Webhook:
    if template is not None:
        fields["template"] = tmp_path / "template.j2"
        fields["template"].write_text(template)
    return Webhook(target(**fields))


def test_a_webhook_gets_the_incident_as_it_was_published(tmp_path: Path) -> None:
    request = webhook(tmp_path, headers={"X-Own": "1"}).request(value(), incident(), NOW)
    assert request.body == value()
    assert request.url == "http://localhost:1/"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == "one-0"
    assert request.headers["X-Own"] == "1"
    assert "X-Detector-Signature" not in request.headers


def test_it_is_signed_with_the_secret_and_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "hush")
    request = webhook(tmp_path, **{"secret_env": "HOOK"}).request(value(), incident(), NOW)
    expected = hmac.new(b"hush", b"1795341700." + value(), hashlib.sha256).hexdigest()
    assert request.headers["X-Detector-Timestamp"] == "1795341700"
    assert request.headers["X-Detector-Signature"] == f"sha256={expected}"


def test_secrets_come_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("https://hooks.example.org/T0/secret\n")
    (tmp_path / "token").write_text("abc\n")
    made = webhook(tmp_path, url=None, url_file=tmp_path / "url", bearer_token_file=tmp_path / "token")
    request = made.request(value(), incident(), NOW)
    assert request.url == "https://hooks.example.org/T0/secret"
    assert request.headers["Authorization"] == "Bearer abc"
    monkeypatch.setenv("HOOK", "ftp://example.org")
    with pytest.raises(UserError, match="no address of HTTP") as caught:
        webhook(tmp_path, url=None, url_env="HOOK")
    assert "example.org/" not in str(caught.value).replace("https://example.org/hook", "")


def test_a_template_makes_the_body(tmp_path: Path) -> None:
    made = webhook(tmp_path, '{"text": {{ incident.title | tojson }}, "to": "{{ target }}", "key": "{{ key }}"}')
    request = made.request(value(), incident(), NOW)
    assert json.loads(request.body) == {"text": incident().title, "to": "ops", "key": "one-0"}
    plain = webhook(tmp_path, "{{ incident.size }} sensors", content_type="text/plain")
    assert plain.request(value(), incident(), NOW).body == b"14 sensors"


@pytest.mark.parametrize(
    "template",
    [
        "{{ incident.nothing.at_all }}",
        "{{ 1 / 0 }}",
        '{"text": {{ incident.title }}}',
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ incident.__class__.__mro__[1].__subclasses__() }}",
        "{{ incident.update({'title': ''}) }}",
    ],
    ids=["unknown", "fails", "no JSON", "endless", "escapes", "changes"],
)
def test_a_template_that_fails_leaves_plain_text_that_says_so(tmp_path: Path, template: str) -> None:
    request = webhook(tmp_path, template).request(value(), incident(), NOW)
    assert request.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert request.headers["Idempotency-Key"] == "one-0"
    told = request.body.decode()
    assert told.startswith('opened: line 2: 14 sensors, first pressure-03 "new" (stuck), 10:00 (warning)\n')
    assert "The template failed: " in told


def test_a_template_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no template"):
        webhook(tmp_path, "{% if %}")
    with pytest.raises(UserError, match="cannot read the template"):
        Webhook(target(template=tmp_path / "missing.j2"))


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.j2")))
@pytest.mark.parametrize("event", ["opened", "closed"])
def test_the_examples_make_what_their_receivers_take(name: str, event: str) -> None:
    made = Webhook(target(template=EXAMPLES / name))
    request = made.request(value(event=event), incident(event=event), NOW)
    assert request.headers["Content-Type"] == "application/json", request.body
    body = json.loads(request.body)
    if name.startswith("slack"):
        assert body["text"].endswith(incident().title)
        assert all(block["type"] in {"section", "context"} for block in body["blocks"])
        assert all(len(block["text"]["text"]) <= 3000 for block in body["blocks"] if block["type"] == "section")
    elif name.startswith("teams"):
        (attachment,) = body["attachments"]
        assert body["type"] == "message"
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        card = attachment["content"]
        assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
        assert {block["type"] for block in card["body"]} <= {"TextBlock", "FactSet"}
    else:
        assert name.startswith("grafana")
        assert body["time"] == parse_time("2026-11-22T10:00:00Z") // 1_000_000
        assert ("timeEnd" in body) == (event == "closed")
        assert "detector" in body["tags"]


def test_there_are_examples_for_the_three() -> None:
    assert {path.name.partition(".")[0] for path in EXAMPLES.glob("*.j2")} >= {"slack", "teams", "grafana"}


def test_alertmanager_knows_an_incident_by_labels_that_never_change() -> None:
    first, last = (alert_of(incident(event=event), NOW) for event in ("opened", "closed"))
    labels = {"alertname": "AnomalyIncident", "incident_id": "one", "group": "line 2"}
    assert first["labels"] == last["labels"] == labels
    assert first["annotations"]["summary"] == incident().title
    assert "holds 3.2 exactly" in first["annotations"]["members"]
    assert "and 13 more" in first["annotations"]["members"]
    assert first["startsAt"] == "2026-11-22T10:00:00Z"
    assert parse_time(first["endsAt"]) > NOW * 1e9 + 120e9
    assert last["endsAt"] == "2026-11-22T10:01:00Z"


def test_clocks_that_are_ahead_end_no_alert_in_the_future_and_start_none_after_its_end() -> None:
    ahead = alert_of(incident(event="closed", ended_at="2030-01-01T00:00:00Z"), NOW)
    assert parse_time(ahead["endsAt"]) == NOW * 1e9
    begun = alert_of(incident(started_at="2030-01-01T00:00:00Z"), NOW)
    assert parse_time(begun["startsAt"]) == NOW * 1e9


def test_it_is_posted_to_the_second_version_of_the_interface() -> None:
    made = Alertmanager(target(kind="alertmanager", url="http://localhost:9093/prefix/"))
    request = made.several([incident(), incident("two")], NOW)
    assert request.url == "http://localhost:9093/prefix/api/v2/alerts"
    assert [alert["labels"]["incident_id"] for alert in json.loads(request.body)] == ["one", "two"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, True),
        ({"severity": "critical"}, False),
        ({"match": ("line 2/*",)}, True),
        ({"match": ("line 2",)}, True),
        ({"match": ("line 3*",)}, False),
        ({"kinds": ("stuck",)}, True),
        ({"kinds": ("readings",)}, True),
        ({"kinds": ("frames", "drift")}, False),
    ],
)
def test_filters(fields: dict[str, Any], found: bool) -> None:
    assert passes(target(**fields), incident()) is found


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": None}, "needs one of"),
        ({"url_env": "URL"}, "needs one of"),
        ({"url": "localhost:9093"}, "no address"),
        ({"secret_file": Path("a"), "secret_env": "B"}, "are both given"),
        ({"kind": "alertmanager", "template": Path("a")}, "is an Alertmanager"),
        ({"headers": {"X-Key": "hush "}}, "a value of X-Key that no header can carry"),
        ({"headers": {"X-Key": "hüsh"}}, "a value of X-Key that no header can carry"),
        ({"headers": {"hush: ": "a"}}, "a header whose name is none"),
        ({"content_type": "text/plain\n"}, "a value of Content-Type that no header can carry"),
    ],
)
def test_targets_that_cannot_be_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as refused:
        target(**fields)
    assert all("sh" not in str(error["ctx"]) for error in refused.value.errors())


def test_an_address_with_white_space_in_it_is_none(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://hooks.example.org/T0/secret\nhttps://hooks.example.org/T1/secret\n")
    with pytest.raises(UserError, match="no address of HTTP") as refused:
        webhook(tmp_path, url=None, url_file=tmp_path / "url")
    assert "hooks" not in str(refused.value)
