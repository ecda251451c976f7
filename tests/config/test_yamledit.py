"""One value changes; everything else stays as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.config import yamledit
from detector.config.yamltext import YamlError, parse

PATH = ("readings", "alerts", "false_alarms")
VALUE = "{per_sensor: 2, per: month}"
WANTED = {"per_sensor": 2, "per": "month"}
ROOT = Path(__file__).parents[2]


def written(text: str) -> str:
    changed = yamledit.put(text, PATH, VALUE)
    found = parse(changed).value
    for name in PATH:
        found = found[name]
    assert found == WANTED
    return changed


def test_the_whole_file_keeps_its_comments() -> None:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    changed = written(text).splitlines()
    different = [(a, b) for a, b in zip(text.splitlines(), changed, strict=True) if a != b]
    assert different == [
        (
            "      per_sensor: 1                  # this many false alarms of one sensor ...",
            "      per_sensor: 2                  # this many false alarms of one sensor ...",
        ),
        (
            "      per: week                      # ... in an hour | day | week | month | year, in 12h, "
            "or in `10000 readings`",
            "      per: month                      # ... in an hour | day | week | month | year, in 12h, "
            "or in `10000 readings`",
        ),
    ]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("", "readings:\n  alerts:\n    false_alarms: {V}\n"),
        ("# nothing yet", "# nothing yet\nreadings:\n  alerts:\n    false_alarms: {V}\n"),
        ("log: {level: info}  # quiet\n", "readings:\n  alerts:\n    false_alarms: {V}\nlog: {level: info}  # quiet\n"),
        ("readings:\n", "readings: {alerts: {false_alarms: {V}}}\n"),
        ("readings: ~  # later\n", "readings: {alerts: {false_alarms: {V}}}  # later\n"),
        ("readings: {}\n", "readings: {alerts: {false_alarms: {V}}}\n"),
        (
            "readings:   # of pumps\n   # warm\n   warmup: 500\nlog: {}\n",
            "readings:   # of pumps\n   # warm\n   alerts:\n     false_alarms: {V}\n   warmup: 500\nlog: {}\n",
        ),
        (
            "readings:\n  alerts: {close_after: 50}   # c\n",
            "readings:\n  alerts: {false_alarms: {V}, close_after: 50}   # c\n",
        ),
        ("readings:\n  alerts:\n    false_alarms: null # no\n", "readings:\n  alerts:\n    false_alarms: {V} # no\n"),
        (
            "readings:\n  alerts:\n    false_alarms: {per: day}  # d\n    close_after: 9\n",
            "readings:\n  alerts:\n    false_alarms: {V}  # d\n    close_after: 9\n",
        ),
        (
            "readings:\n  alerts:\n    false_alarms:\n      per: 'day'  # d\n",
            "readings:\n  alerts:\n    false_alarms:\n      per_sensor: 2\n      per: month  # d\n",
        ),
        ("---\nreadings:\n  alerts:\n    false_alarms:\n", "---\nreadings:\n  alerts:\n    false_alarms: {V}\n"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_it_is_put_where_it_belongs(text: str, changed: str, end: str) -> None:
    text, changed = text.replace("\n", end), changed.replace("{V}", VALUE).replace("\n", end)
    if end not in text:
        changed = changed.replace("\r\n", "\n")
    assert written(text) == changed


@pytest.mark.parametrize("text", ["- 1\n", "readings: 3\n", "readings: [a]\n", "a: 1\na: 2\n", "readings: &x {}\n"])
def test_what_takes_no_value_there_is_refused(text: str) -> None:
    with pytest.raises(YamlError):
        yamledit.put(text, PATH, VALUE)


def test_only_the_value_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamledit, "_put", lambda text, path, value: "readings: {}\n")
    with pytest.raises(YamlError, match="without touching something else"):
        yamledit.put("log: {}\n", PATH, VALUE)
