"""The manifests as kustomize builds them: valid for Kubernetes, and in agreement with one another and with the code."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import ValidationError
from prometheus_client import CollectorRegistry

from detector import __version__
from detector.config.load import Config, load_config
from detector.errors import UserError
from detector.service.health import Health
from detector.service.web.server import standard_routes
from tests.deploy.commands import parses
from tests.deploy.manifests import FOREIGN, KUBERNETES, Manifest, build, built, pod_specs, validate

OVERLAYS = ("overlays/minimal", "overlays/fixed", "overlays/autoscale")


def one(overlay: str, kind: str) -> Manifest:
    (found,) = [manifest for manifest in built(overlay) if manifest["kind"] == kind]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_manifest(overlay: str) -> None:
    for manifest in built(overlay):
        validate(manifest)


@pytest.mark.parametrize(("overlay", "kind"), [("fixed", "ServiceMonitor"), ("fixed", "PrometheusRule"),
                                               ("autoscale", "ScaledObject")])  # fmt: skip
def test_a_field_that_a_custom_resource_lacks_would_be_noticed(overlay: str, kind: str) -> None:
    manifest = copy.deepcopy(one(f"overlays/{overlay}", kind))
    manifest["spec"]["wish"] = True
    with pytest.raises(jsonschema.ValidationError, match="wish"):
        validate(manifest)


def test_the_minimal_overlay_needs_no_custom_resource_and_no_shared_volume() -> None:
    assert not {manifest["kind"] for manifest in built("overlays/minimal")} & FOREIGN.keys()
    assert one("overlays/minimal", "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert one("overlays/minimal", "StatefulSet")["spec"]["replicas"] == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_model_is_trained_and_activated_by_a_person_alone(overlay: str) -> None:
    kinds = [manifest["kind"] for manifest in built(overlay)]
    assert "Job" not in kinds, "its template cannot change, and applying it again would run it again"
    jobs = {
        manifest["metadata"]["name"]: manifest["spec"] for manifest in built(overlay) if manifest["kind"] == "CronJob"
    }
    assert jobs.keys() == {"detector-train", "detector-activate"}
    for spec in jobs.values():
        assert spec["suspend"] is True
        assert spec["concurrencyPolicy"] == "Forbid"
        volumes = {volume["name"]: volume for volume in spec["jobTemplate"]["spec"]["template"]["spec"]["volumes"]}
        claim = one(overlay, "PersistentVolumeClaim")["metadata"]["name"]
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
    (trainer,) = jobs["detector-train"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert "--no-activate" in trainer["args"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_changed_configuration_restarts_the_daemon_and_nothing_else(overlay: str, tmp_path: Path) -> None:
    """What differs may be changed in place: the name of the configuration, where pods ask for it."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    with (tmp_path / "kubernetes" / overlay / "config.yaml").open("a") as file:
        file.write("shutdown_timeout: 19s\n")
    before, after = built(overlay), build(tmp_path / "kubernetes" / overlay)
    old, new = (
        next(one["metadata"]["name"] for one in manifests if one["kind"] == "ConfigMap")
        for manifests in (before, after)
    )
    assert old != new
    changed = {(one["kind"], one["metadata"]["name"]): one for one in after if one not in before}
    assert changed.keys() == {
        ("ConfigMap", new),
        ("StatefulSet", "detector"),
        ("CronJob", "detector-train"),
        ("CronJob", "detector-activate"),
    }
    for kind, name in changed.keys() - {("ConfigMap", new)}:
        was = next(one for one in before if (one["kind"], one["metadata"]["name"]) == (kind, name))
        assert yaml.safe_dump(changed[kind, name]).replace(new, old) == yaml.safe_dump(was)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_come_from_one_registry_and_have_a_version(overlay: str) -> None:
    for template in pod_specs(built(overlay)):
        (container,) = template["spec"]["containers"]
        assert re.fullmatch(rf"registry\.example\.com/detector(-train)?:{re.escape(__version__)}", container["image"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_volumes_and_accounts_are_there(overlay: str) -> None:
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in built(overlay)}
    for template in pod_specs(built(overlay)):
        assert ("ServiceAccount", template["spec"]["serviceAccountName"]) in names
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names


def test_an_unknown_field_would_be_noticed() -> None:
    manifest = yaml.safe_load((KUBERNETES / "base/service.yaml").read_text(encoding="utf-8"))
    manifest["spec"]["wish"] = True
    with pytest.raises(ValidationError, match="wish"):
        validate(manifest)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(overlay: str) -> None:
    labels = one(overlay, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    assert one(overlay, "StatefulSet")["spec"]["selector"]["matchLabels"].items() <= labels
    assert one(overlay, "Service")["spec"]["selector"].items() <= labels
    assert one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert one(overlay, "StatefulSet")["spec"]["serviceName"] == one(overlay, "Service")["metadata"]["name"]
    assert {manifest["metadata"].get("namespace", "detector") for manifest in built(overlay)} == {"detector"}


@pytest.mark.parametrize("overlay", ["overlays/fixed", "overlays/autoscale"])
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
def test_names_can_be_resolved(overlay: str) -> None:
    names, _ = one(overlay, "NetworkPolicy")["spec"]["egress"]
    assert names["to"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    assert {port["port"] for port in names["ports"]} == {53}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_brokers_can_be_reached(overlay: str) -> None:
    ports = [port["port"] for rule in one(overlay, "NetworkPolicy")["spec"]["egress"] for port in rule["ports"]]
    for server in config_of(overlay).streams.kafka.bootstrap_servers:
        assert int(server.rpartition(":")[2]) in ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_find_their_files_and_may_do_nothing_else(overlay: str) -> None:
    config = config_of(overlay)
    for template in pod_specs(built(overlay)):
        spec = template["spec"]
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
        paths = [Path(mount["mountPath"]) for mount in mounts.values()]
        needed: list[Path | None] = [config.readings.model]
        if container["args"][0] != "models":
            needed += [config.streams.kafka.ssl_ca_file, config.streams.kafka.sasl_password_file]
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
    assert source.read_text(encoding="utf-8") == data
    return load_config(source)


def test_the_copy_under_other_keys_can_be_added(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "minimal"
    kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text(encoding="utf-8"))
    kustomization["components"] = [*kustomization.get("components", []), "../../components/rekey"]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    manifests = build(overlay)
    for manifest in manifests:
        validate(manifest)
    names = {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == "StatefulSet"}
    pod = names["detector-rekey"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    parses(container["args"])
    (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == "config"]
    assert volume["configMap"]["name"] in {one["metadata"]["name"] for one in manifests if one["kind"] == "ConfigMap"}
    assert names["detector"]["spec"]["selector"] != names["detector-rekey"]["spec"]["selector"]
