"""The units of systemd: accepted by systemd itself, hardened, and in step with the program and each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from detector.config.load import Config
from tests.deploy.tools import tool

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
EXPOSURE = 2.0
"""Of 10; services of a distribution mostly have more than 9."""

DETECTORS = ["detector.service", "detector@.service"]
FOLLOWERS = ["detector-incidents.service", "detector-notify.service"]
each = pytest.mark.parametrize("name", [*DETECTORS, *FOLLOWERS])


def settings(name: str) -> dict[str, list[str]]:
    """The lines of a unit by key."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> int:
    """A time such as 60s."""
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def installed(name: str, directory: Path) -> Path:
    """A copy of the unit whose program is there, ready to be started as an instance if it is a template."""
    text = (UNITS / name).read_text(encoding="utf-8")
    path = directory / name.replace("@.", "@line-1.")
    path.write_text(text.replace("/opt/detector/bin/detector", sys.executable), encoding="utf-8")
    return path


@each
def test_systemd_has_nothing_to_complain_of(name: str, tmp_path: Path) -> None:
    words = [tool("systemd-analyze", "Debian: systemd"), "verify", "--man=no", str(installed(name, tmp_path))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    # Of other units on this machine it may have something to say.
    complaints = [line for line in done.stderr.splitlines() if "detector" in line]
    assert (done.returncode, complaints) == (0, [])


@each
def test_there_is_little_it_could_do_to_the_host(name: str, tmp_path: Path) -> None:
    words = [
        tool("systemd-analyze", "Debian: systemd"),
        "security",
        "--no-pager",
        "--offline=true",
        str(installed(name, tmp_path)),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) < EXPOSURE


def test_the_template_differs_in_names_alone() -> None:
    one, many = settings("detector.service"), settings("detector@.service")
    differing = {key for key in one | many if one.get(key) != many.get(key)}
    named = {"Description", "ExecStart", "StateDirectory", "WorkingDirectory", "SyslogIdentifier"}
    assert differing == named | {"Environment", "EnvironmentFile"}
    assert all("%i" in many[key][-1] for key in differing)
    assert many["Environment"] == ["DETECTOR_INSTANCE=%H-%i"]


@each
def test_it_is_started_again_where_that_can_help(name: str) -> None:
    unit = settings(name)
    assert unit["Type"] == ["notify"]
    assert unit["Restart"] == ["on-failure"]
    assert unit.get("ExecReload") == (["/bin/kill -HUP $MAINPID"] if name in DETECTORS else None)
    assert unit["RestartPreventExitStatus"] == ["2"]


@each
def test_a_stop_ends_by_itself_before_systemd_ends_it(name: str) -> None:
    assert seconds(settings(name)["TimeoutStopSec"][0]) * 10**9 > Config().shutdown_timeout


@pytest.mark.parametrize("name", FOLLOWERS)
def test_followers_have_the_configuration_the_files_and_the_user_of_the_detector(name: str) -> None:
    detector, follower = settings("detector.service"), settings(name)
    differing = {key for key in detector | follower if detector.get(key) != follower.get(key)}
    assert differing == {"After", "Description", "ExecReload", "ExecStart", "MemoryMax", "SyslogIdentifier", "User"}
    assert follower["User"] == ["detector"]  # what systemd calls the user of detector.service
    command = name.removeprefix("detector-").removesuffix(".service")
    assert follower["ExecStart"] == [detector["ExecStart"][0].replace(" run ", f" {command} ")]
