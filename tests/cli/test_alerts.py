"""`detector alerts`: the table of episodes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from detector.cli.main import main
from detector.reports.episodelist import Wanted, episodes_of, listing


def message(number: int, sequence: int, event: str, **changes: Any) -> dict[str, Any]:
    """A message as another release may write it: with more than is listed, and without `what`."""
    return {
        "schema": 1, "alert_id": f"{number:08d}-75b1-5b96-8a83-34724075373a", "sequence": sequence, "event": event,
        "kind": "readings", "reason": "anomaly", "muted": False, "sensor_id": f"pump-{number}", "severity": "warning",
        "started_at": f"2026-03-0{number}T10:00:00Z", "detected_at": f"2026-03-0{number}T10:01:00Z", "ended_at": None,
        "score": 2.0, "peak_score": 2.5, "threshold": 1.0, "added": "later",
    } | changes  # fmt: skip


@pytest.fixture
def alerts(tmp_path: Path) -> Path:
    text = {"kind": "stuck", "text": "stuck at 73.2 for 14 min, since 10:00:00"}
    messages = [
        message(1, 0, "opened"),
        message(2, 0, "opened", what=text, severity="critical"),
        message(1, 1, "closed", ended_at="2026-03-01T10:14:00Z", close_reason="recovered"),
        message(3, 0, "opened", reason="silent", peak_score=1.0),
    ]
    path = tmp_path / "anomaly-alerts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in messages) + '{"schema": 1, "ale', encoding="utf-8")
    return path


def listed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["alerts", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_line_an_episode(alerts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first, second, third = listed(capsys, alerts).splitlines()
    assert first.split()[:4] == ["00000001", "2026-03-01", "10:00:00", "pump-1"]
    assert "over after 14 min" in first
    assert "stuck at 73.2 for 14 min, since 10:00:00" in second
    assert "critical" in second
    assert "open" in third
    assert "no readings" in third


def drawn(width: int, *alerts: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(listing(episodes_of([json.dumps(one).encode() for one in alerts], Wanted()), console), markup=False)
    return [line.rstrip() for line in cast(io.StringIO, console.file).getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 100])
def test_where_a_line_is_too_short_for_an_episode_it_has_two_and_nothing_is_cut(width: int) -> None:
    text = "swings once in 42.7 readings, which is unusual since 10:00:00"
    one = message(1, 0, "opened", what={"kind": "oscillation", "text": text}, sensor_id="line-3/temperature-01")
    other = message(2, 1, "closed", ended_at="2026-03-02T11:54:00Z", severity="critical", sensor_id="[red]")
    assert drawn(width, one, other) == [
        "id        began (UTC)          severity  lasted  sensor",
        "00000001  2026-03-01 10:00:00  warning   open    line-3/temperature-01",
        f"    {text}",
        "00000002  2026-03-02 10:00:00  critical  1.9 h   [red]",
        "    score 2.5",
    ]
    judged = drawn(width, one, other | {"verdict": "expected"})
    assert judged[0] == "id        began (UTC)          severity  lasted  verdict   sensor"
    assert judged[3] == "00000002  2026-03-02 10:00:00  critical  1.9 h   expected  [red]"
    assert len(drawn(200, one, other)) == 3


def test_a_long_id_pushes_nothing_aside() -> None:
    text = {"kind": "stuck", "text": "stuck at 73.2"}
    lines = drawn(80, message(1, 0, "opened", what=text, sensor_id="p" * 90), message(2, 0, "opened", what=text))
    assert "".join(lines[2:4]) == "p" * 90
    assert lines[-2] == "00000002  2026-03-02 10:00:00  warning   open    pump-2"


def test_a_directory_of_streams_has_them_too(alerts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, alerts.parent) == listed(capsys, alerts)


@pytest.mark.parametrize(
    ("options", "sensors"),
    [
        ([], ["pump-1", "pump-2", "pump-3"]),
        (["--open"], ["pump-2", "pump-3"]),
        (["--sensor", "pump-1"], ["pump-1"]),
        (["--since", "1d"], ["pump-2", "pump-3"]),
        (["--since", "1h", "--open"], ["pump-3"]),
    ],
)
def test_filters(alerts: Path, capsys: pytest.CaptureFixture[str], options: list[str], sensors: list[str]) -> None:
    found = [json.loads(line) for line in listed(capsys, alerts, "--json", *options).splitlines()]
    assert [one["sensor_id"] for one in found] == sensors
    assert [one["open"] for one in found] == [one["sensor_id"] != "pump-1" for one in found]


def test_nothing_found_is_said(alerts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, alerts, "--sensor", "nobody") == "no episodes\n"


@pytest.mark.parametrize("text", ['{"schema": 1}\n', "no json\n", None])
def test_what_is_no_stream_of_alerts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path / "other.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["alerts", str(path)]) == 2
    assert capsys.readouterr().err.startswith("detector: error: ")
