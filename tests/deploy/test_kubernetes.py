"""The manifests as kustomize builds them: valid for Kubernetes, and in agreement with one another and with the code."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import SchemaNotFoundError, ValidationError
from prometheus_client import CollectorRegistry

from detector.config.load import Config, load_config
from detector.errors import UserError
from detector.service.health import Health
from detector.service.web.server import standard_routes
from tests.deploy.commands import parses
from tests.deploy.tools import DEPLOY, said, tool

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("base", "overlays/fixed", "overlays/autoscale")
VERSION = "1.31"
# Of other projects: Kubernetes has no schema for them.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}

Manifest = dict[str, Any]


@functools.cache
def built(overlay: str) -> tuple[Manifest, ...]:
    kustomize = tool("kustomize", "sigs.k8s.io/kustomize/kustomize/v5")
    return tuple(yaml.safe_load_all(said(kustomize, "build", KUBERNETES / overlay)))


def one(overlay: str, kind: str) -> Manifest:
    (found,) = [manifest for manifest in built(overlay) if manifest["kind"] == kind]
    return found


def pod_specs(overlay: str) -> Iterator[Manifest]:
    for manifest in built(overlay):
        if manifest["kind"] in ("StatefulSet", "Job"):
            yield manifest["spec"]["template"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_manifest(overlay: str) -> None:
    for manifest in built(overlay):
        if manifest["kind"] in FOREIGN:
            with pytest.raises(SchemaNotFoundError):
                kubernetes_validate.validate(manifest, VERSION, strict=True)
        else:
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_an_unknown_field_would_be_noticed() -> None:
    manifest = yaml.safe_load((KUBERNETES / "base/service.yaml").read_text(encoding="utf-8"))
    manifest["spec"]["wish"] = True
    with pytest.raises(ValidationError, match="wish"):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(overlay: str) -> None:
    labels = one(overlay, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    assert one(overlay, "StatefulSet")["spec"]["selector"]["matchLabels"].items() <= labels
    assert one(overlay, "Service")["spec"]["selector"].items() <= labels
    assert one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert one(overlay, "StatefulSet")["spec"]["serviceName"] == one(overlay, "Service")["metadata"]["name"]
    assert {manifest["metadata"].get("namespace", "detector") for manifest in built(overlay)} == {"detector"}


@pytest.mark.parametrize("overlay", OVERLAYS[1:])
def test_the_monitoring_finds_the_service(overlay: str) -> None:
    service, monitor = one(overlay, "Service"), one(overlay, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ports = {port["name"] for port in service["spec"]["ports"]}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in ports
    # Rules ask for the job, which is the name of the service.
    assert service["metadata"]["name"] == "detector"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_and_probes_are_those_of_the_daemon(overlay: str) -> None:
    (container,) = one(overlay, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    config = config_of(overlay)
    assert port["containerPort"] == config.http.port
    assert config.http.host == "0.0.0.0"  # noqa: S104 (the pod's own address; probes come from outside)
    routes = standard_routes(CollectorRegistry(), Health())
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert asked["path"] in routes
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "an outage of the broker restarts nobody"
    (ingress,) = one(overlay, "NetworkPolicy")["spec"]["ingress"]
    assert [rule["port"] for rule in ingress["ports"]] == [port["name"]]
    (service_port,) = one(overlay, "Service")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_brokers_can_be_reached(overlay: str) -> None:
    ports = [port["port"] for rule in one(overlay, "NetworkPolicy")["spec"]["egress"] for port in rule["ports"]]
    for server in config_of(overlay).streams.kafka.bootstrap_servers:
        assert int(server.rpartition(":")[2]) in ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_find_their_files_and_may_do_nothing_else(overlay: str) -> None:
    config = config_of(overlay)
    for template in pod_specs(overlay):
        spec = template["spec"]
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
        paths = [Path(mount["mountPath"]) for mount in mounts.values()]
        needed = [config.readings.model, config.streams.kafka.ssl_ca_file, config.streams.kafka.sasl_password_file]
        for path in filter(None, needed):
            assert any(path.is_relative_to(mount) for mount in paths), path
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["DETECTOR_CONFIG"]["value"] == mounts["config"]["mountPath"] + "/config.yaml"
        parses(container["args"])
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_stop_and_a_name_of_its_own(overlay: str) -> None:
    spec = one(overlay, "StatefulSet")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] * 10**9 > config_of(overlay).shutdown_timeout
    environment = {entry["name"]: entry for entry in spec["containers"][0]["env"]}
    assert environment["DETECTOR_INSTANCE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert config_of(overlay).streams.kafka.instance == "auto", "which is $DETECTOR_INSTANCE"


def test_only_a_fixed_number_of_members_is_static() -> None:
    assert config_of("overlays/fixed").streams.kafka.static_membership
    assert not config_of("overlays/autoscale").streams.kafka.static_membership


def test_the_scaler_looks_at_the_group_and_topic_of_the_daemon() -> None:
    scaled, config = one("overlays/autoscale", "ScaledObject"), config_of("overlays/autoscale")
    target = one("overlays/autoscale", "StatefulSet")
    assert scaled["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]
    assert scaled["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == config.streams.kafka.group_id
    assert trigger["metadata"]["topic"] == config.readings.input
    assert trigger["metadata"]["bootstrapServers"] in config.streams.kafka.bootstrap_servers


def test_a_key_the_code_does_not_know_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("streams: {kafka: {wish: 1}}\n", encoding="utf-8")
    with pytest.raises(UserError, match="wish"):
        load_config(path)


def config_of(overlay: str) -> Config:
    """The configuration that the pods get."""
    (data,) = [
        manifest["data"]["config.yaml"]
        for manifest in built(overlay)
        if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"].startswith("detector-config")
    ]
    source = KUBERNETES / overlay / "config.yaml"
    if not source.exists():
        source = KUBERNETES / "base/config.yaml"
    assert source.read_text(encoding="utf-8") == data
    return load_config(source)
