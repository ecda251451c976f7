"""`detector demo`: what of its options arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.cli.main import main
from detector.errors import OperationError
from detector.reports import demo


class StandIn:
    """Takes the demo's place and notes how it was made."""

    made: tuple[Path, int, bool]
    fails = False

    def __init__(self, directory: Path, *, seed: int, plain: bool) -> None:
        type(self).made = directory, seed, plain

    def run(self) -> int:
        if self.fails:
            raise OperationError("`detector train` failed with status 2", todo="See above")
        return 0


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "Demo", StandIn)


def test_it_has_a_place_of_its_own() -> None:
    assert main(["demo"]) == 0
    assert StandIn.made == (Path("var/demo"), 0, False)


def test_options_arrive() -> None:
    assert main(["demo", "--dir", "there", "--seed", "7", "--plain"]) == 0
    assert StandIn.made == (Path("there"), 7, True)


def test_a_failure_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(StandIn, "fails", True)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "detector: error: `detector train` failed with status 2. See above.\n"


@pytest.mark.parametrize(("option", "value"), [("--seed", "-1"), ("--seed", "x"), ("--dir", "")])
def test_what_cannot_be_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", option, value]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("detector: error: ")
