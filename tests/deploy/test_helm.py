"""The Helm chart makes the same objects as the overlays, and refuses values that cannot be."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from detector import __version__
from detector.config.load import load_config
from tests.deploy.manifests import KUBERNETES, VERSION, Manifest, build, built, pod_specs, validate
from tests.deploy.tools import DEPLOY, said, tool

CHART = DEPLOY / "helm" / "detector"
EXAMPLES = ("minimal", "fixed", "autoscale")


def helm(*words: str | Path) -> tuple[str | Path, ...]:
    return tool("helm", "helm.sh/helm/v3/cmd/helm"), *words


@functools.cache
def rendered(example: str) -> tuple[Manifest, ...]:
    words = ("template", "detector", CHART, "--namespace", "detector", "--kube-version", VERSION)
    text = said(*helm(*words, "--values", CHART / "examples" / f"{example}.yaml"))
    return tuple(one for one in yaml.safe_load_all(text) if one)


def comparable(manifests: tuple[Manifest, ...]) -> dict[tuple[str, str], Manifest]:
    """By kind and name, without what the two ways have to do differently."""
    found = {}
    for manifest in copy.deepcopy(manifests):
        metadata = manifest["metadata"]
        metadata.pop("namespace", None)
        metadata.pop("annotations", None)
        if manifest["kind"] == "Namespace":
            continue  # Helm is told which
        if manifest["kind"] == "ConfigMap":
            metadata["name"] = "detector-config"
            manifest["data"] = yaml.safe_load(manifest["data"]["config.yaml"])
            metadata.pop("labels", None)
        for template in pod_specs([manifest]):
            template["metadata"].pop("annotations", None)
            template["spec"]["volumes"].sort(key=lambda volume: volume["name"])
            for volume in template["spec"]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = "detector-config"
            for container in template["spec"]["containers"]:
                container.pop("imagePullPolicy", None)
                container["volumeMounts"].sort(key=lambda mount: mount["name"])
        found[manifest["kind"], metadata["name"]] = manifest
    return found


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_objects_are_those_of_the_overlay(example: str) -> None:
    from_chart, from_overlay = comparable(rendered(example)), comparable(built(f"overlays/{example}"))
    assert from_chart.keys() == from_overlay.keys()
    for key, manifest in from_overlay.items():
        assert from_chart[key] == manifest


@pytest.mark.parametrize("example", EXAMPLES)
def test_kubernetes_takes_every_object(example: str) -> None:
    for manifest in rendered(example):
        validate(manifest)


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_has_nothing_against_it(example: str) -> None:
    values = CHART / "examples" / f"{example}.yaml"
    assert "0 chart(s) failed" in said(*helm("lint", "--strict", CHART, "--values", values, "--kube-version", VERSION))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_configuration_is_one_of_ours(example: str, tmp_path: Path) -> None:
    (config,) = [one for one in rendered(example) if one["kind"] == "ConfigMap"]
    (tmp_path / "config.yaml").write_text(config["data"]["config.yaml"], encoding="utf-8")
    load_config(tmp_path / "config.yaml")


def test_a_changed_configuration_restarts_the_members() -> None:
    def checksum(*more: str) -> str:
        text = said(*helm("template", "detector", CHART, "--kube-version", VERSION, *more))
        (found,) = {
            template["metadata"]["annotations"]["checksum/config"]
            for template in pod_specs([one for one in yaml.safe_load_all(text) if one and one["kind"] == "StatefulSet"])
        }
        return str(found)

    assert checksum() == checksum("--set", "replicas=2")
    assert checksum() != checksum("--set", "config.log.level=debug")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("replicas=many", "at '/replicas': got string, want integer"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy'"),
        ("models.storage=much", "at '/models/storage'"),
        ("config.streams.backend=directory", "at '/config/streams/backend'"),
        ("training.since=week", "at '/training/since'"),
        ("notify.enabled=true", "needs somebody to tell: config.notify.targets"),
        ("notify.secret=1", "at '/notify/secret': got number, want string"),
        ("networkPolicy.targetPorts={https}", "at '/networkPolicy/targetPorts/0'"),
        ("rekey.enabled=true", "needs rekey.key, rekey.from and rekey.to"),
        ("monitoring.enabled=perhaps", "at '/monitoring/enabled': got string, want boolean"),
    ],
)
def test_a_value_that_cannot_be_is_refused(value: str, says: str) -> None:
    words = helm("template", "detector", CHART, "--kube-version", VERSION, "--set", value)
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert says in done.stderr


def test_a_scaler_does_not_go_with_fixed_members() -> None:
    words = helm("template", "detector", CHART, "--kube-version", VERSION, "--values", CHART / "examples/fixed.yaml",
                 "--set", "autoscaling.enabled=true")  # fmt: skip
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not go with config.streams.kafka.static_membership" in done.stderr


def test_rekey_is_the_component(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/minimal"
    with (overlay / "kustomization.yaml").open("r+", encoding="utf-8") as file:
        kustomization = yaml.safe_load(file)
        kustomization["components"].append("../../components/rekey")
        file.seek(0)
        file.truncate()
        yaml.safe_dump(kustomization, file)
    values = [
        "--set=rekey.enabled=true", "--set-literal=rekey.key={machine}", "--set=rekey.from=plant-tags",
        "--set=rekey.to=sensor-readings",
    ]  # fmt: skip
    words = ("template", "detector", CHART, "--namespace", "detector", "--kube-version", VERSION)
    text = said(*helm(*words, "--values", CHART / "examples/minimal.yaml", *values))
    from_chart = comparable(tuple(one for one in yaml.safe_load_all(text) if one))
    assert from_chart == comparable(build(overlay))


def test_people_are_told_of_incidents_alone() -> None:
    words = helm("template", "detector", CHART, "--kube-version", VERSION, "--values", CHART / "examples/fixed.yaml",
                 "--set", "incidents.enabled=false")  # fmt: skip
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "notify.enabled needs incidents.enabled" in done.stderr


def test_secrets_of_targets_are_mounted_where_notify_reads_them(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    target = {"name": "chat", "kind": "webhook", "url_file": "/run/secrets/notify/chat"}
    notify = {"enabled": True, "secret": "detector-notify"}
    values.write_text(yaml.safe_dump({"notify": notify, "config": {"notify": {"targets": [target]}}}), encoding="utf-8")
    text = said(*helm("template", "detector", CHART, "--kube-version", VERSION, "--values", values))
    mounting = {}
    for one in yaml.safe_load_all(text):
        if one and one["kind"] == "StatefulSet":
            validate(one)
            spec = one["spec"]["template"]["spec"]
            secrets = {
                volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume
            }
            for mount in spec["containers"][0]["volumeMounts"]:
                if mount["name"] in secrets:
                    mounting[one["metadata"]["name"], mount["mountPath"]] = secrets[mount["name"]]
    assert mounting == {("detector-notify", "/run/secrets/notify"): "detector-notify"}


def test_the_version_is_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__
