"""`detector models`: list, activate, roll back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from detector.cli.main import main
from detector.detection.profile import build_profile
from detector.models.bundle.bundles import write_bundle
from detector.models.bundle.spec import ModelSpec
from detector.models.bundle.versions import active_version

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two versions in ./models; none is active. What is in their files does not matter here."""
    monkeypatch.chdir(tmp_path)
    times = np.arange(150, dtype=np.int64)
    profile, _ = build_profile(times, np.ones((150, 2)), lambda windows: windows)
    return [
        write_bundle(
            tmp_path / "models",
            ModelSpec("dense", ("flow", "heat")),
            save_keras=Path.touch,
            onnx=b"onnx",
            profiles={"pump": profile},
            stride=1,
            open_after=(10, 10),
            created=NOON + timedelta(days=day),
            name=name,
            training={"sensors": 20 + day},
        ).version
        for day, name in enumerate(("first", "second"))
    ]


def models(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What the command prints: on standard output if it works, else its one line of error."""
    assert main(["models", *arguments, "--dir", "models"]) == status
    captured = capsys.readouterr()
    if status:
        assert captured.out == ""
        assert captured.err.startswith("detector: error: ")
        assert captured.err.count("\n") == 1
        return captured.err.removeprefix("detector: error: ")
    assert captured.err == ""
    return captured.out


def test_the_versions_are_listed(versions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    models(capsys, "activate", versions[1])
    header, *rows = models(capsys, "list").splitlines()
    assert header.split() == ["VERSION", "KIND", "CREATED", "SENSORS", "CHANNELS"]
    assert rows[0].split() == [versions[0], "dense", "2026-11-22T12:00:00Z", "20", "flow,heat"]
    assert rows[1].split() == ["*", versions[1], "dense", "2026-11-23T12:00:00Z", "21", "flow,heat"]


def test_the_directory_is_that_of_the_configuration(versions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--set", "readings.model=models"]) == 0
    assert versions[0] in capsys.readouterr().out


def test_the_newest_needs_no_name(versions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert versions[1] in models(capsys, "activate", "newest")
    assert active_version(Path("models")) == versions[1]


def test_activate_and_roll_back(versions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = versions
    assert models(capsys, "activate", first) == f"models/{first}\n"
    assert models(capsys, "activate", "second") == f"models/{second}\n"
    assert models(capsys, "rollback") == f"models/{first}\n"
    assert active_version(Path("models")) == first
    assert "no other model version was active before (models)" in models(capsys, "rollback", status=2)


def test_a_broken_version_is_listed_and_never_becomes_active(
    versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = versions
    models(capsys, "activate", first)
    (Path("models") / second / "model.onnx").write_bytes(b"onnY")
    assert "broken" in models(capsys, "list").splitlines()[2]
    assert "model.onnx is not what was written" in models(capsys, "activate", second, status=2)
    assert active_version(Path("models")) == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["activate"], "`activate` needs a VERSION"),
        (["list", "x"], "`list` takes no VERSION, not `x`"),
        (["rollback", "x"], "`rollback` takes no VERSION"),
        (["activate", "2026"], "2026 may be any of "),
        (["activate", "third"], "there is no model version third (models)"),
        (["delete"], "invalid choice: 'delete'"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, versions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert says in models(capsys, *arguments, status=2)


def test_no_model_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Run `detector train --data FILE --out models`" in models(capsys, "list", status=2)
