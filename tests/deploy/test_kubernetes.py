"""The manifests as kustomize builds them: valid for Kubernetes, and in agreement with one another and with the code."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

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
from tests.deploy.tools import DEPLOY

OVERLAYS = ("overlays/minimal", "overlays/fixed", "overlays/autoscale")


FOLLOWERS = {
    "overlays/minimal": ("incidents",),
    "overlays/fixed": ("incidents", "notify"),
    "overlays/autoscale": ("incidents", "notify"),
}
"""The small daemons beside the detector."""
EVERY_DAEMON = [(overlay, "detector") for overlay in OVERLAYS] + [
    (overlay, f"detector-{name}") for overlay, names in FOLLOWERS.items() for name in names
]
each_daemon = pytest.mark.parametrize(("overlay", "daemon"), EVERY_DAEMON)


def one(overlay: str, kind: str, name: str = "detector") -> Manifest:
    (found,) = [m for m in built(overlay) if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def listens(config: Config, daemon: str) -> str:
    """Where a daemon serves HTTP."""
    return {
        "detector": config.http.listen,
        "detector-incidents": config.incidents.http,
        "detector-notify": config.notify.http,
    }[daemon]


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
    assert one("overlays/minimal", "PersistentVolumeClaim", "detector-models")["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]
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
        claim = one(overlay, "PersistentVolumeClaim", "detector-models")["metadata"]["name"]
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
    (trainer,) = jobs["detector-train"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert "--no-activate" in trainer["args"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_changed_configuration_restarts_the_daemons_and_nothing_else(overlay: str, tmp_path: Path) -> None:
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
        *(("StatefulSet", f"detector-{name}") for name in FOLLOWERS[overlay]),
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


@each_daemon
def test_selectors_find_the_pods_of_one_daemon(overlay: str, daemon: str) -> None:
    workload = one(overlay, "StatefulSet", daemon)
    policy = one(overlay, "NetworkPolicy", daemon)
    selectors = {
        "pods": workload["spec"]["selector"]["matchLabels"],
        "service": one(overlay, "Service", daemon)["spec"]["selector"],
        "network": policy["spec"]["podSelector"]["matchLabels"],
    }
    if daemon == "detector":
        selectors["disruption"] = one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    for what, selector in selectors.items():
        for other in [manifest for manifest in built(overlay) if manifest["kind"] == "StatefulSet"]:
            labels = other["spec"]["template"]["metadata"]["labels"]
            found = selector.items() <= labels.items()
            assert found == (other["metadata"]["name"] == daemon), (what, other["metadata"]["name"])
    assert workload["spec"]["serviceName"] == daemon
    assert {manifest["metadata"].get("namespace", "detector") for manifest in built(overlay)} == {"detector"}


@pytest.mark.parametrize("overlay", ["overlays/fixed", "overlays/autoscale"])
def test_the_monitoring_finds_each_service_once(overlay: str) -> None:
    jobs: dict[str, list[str]] = {}
    for name in ("detector", "detector-people"):
        monitor = one(overlay, "ServiceMonitor", name)["spec"]
        (endpoint,) = monitor["endpoints"]
        for service in [manifest for manifest in built(overlay) if manifest["kind"] == "Service"]:
            labels, metadata = service["metadata"]["labels"], service["metadata"]
            if monitor["selector"]["matchLabels"].items() <= labels.items():
                assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
                job = labels[monitor["jobLabel"]] if "jobLabel" in monitor else metadata["name"]
                jobs.setdefault(job, []).append(metadata["name"])
    # Rules ask for these jobs, and other installations name them so.
    assert jobs == {"detector": ["detector"], "detector-people": ["detector-incidents", "detector-notify"]}
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert {job["job_name"] for job in scraped} == jobs.keys()


@each_daemon
def test_ports_and_probes_are_those_of_the_daemon(overlay: str, daemon: str) -> None:
    (container,) = one(overlay, "StatefulSet", daemon)["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    # The pod's own address: probes come from outside.
    assert listens(config_of(overlay), daemon) == f"0.0.0.0:{port['containerPort']}"
    routes = standard_routes(CollectorRegistry(), Health())
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert asked["path"] in routes
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "an outage of the broker restarts nobody"
    (ingress,) = one(overlay, "NetworkPolicy", daemon)["spec"]["ingress"]
    assert [rule["port"] for rule in ingress["ports"]] == [port["name"]]
    (service_port,) = one(overlay, "Service", daemon)["spec"]["ports"]
    assert (service_port["port"], service_port["targetPort"]) == (port["containerPort"], port["name"])


@each_daemon
def test_names_can_be_resolved(overlay: str, daemon: str) -> None:
    names, *_ = one(overlay, "NetworkPolicy", daemon)["spec"]["egress"]
    assert names["to"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    assert {port["port"] for port in names["ports"]} == {53}


@each_daemon
def test_brokers_and_targets_can_be_reached(overlay: str, daemon: str) -> None:
    rules = one(overlay, "NetworkPolicy", daemon)["spec"]["egress"]
    ports = [port["port"] for rule in rules for port in rule["ports"]]
    config = config_of(overlay)
    for server in config.streams.kafka.bootstrap_servers:
        assert int(server.rpartition(":")[2]) in ports
    if daemon == "detector-notify":
        assert config.notify.targets, "it would end with exit 2"
        assert 443 in ports
        for target in config.notify.targets:
            assert urlsplit(target.read_url()).port in ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_find_their_files_and_may_do_nothing_else(overlay: str) -> None:
    config = config_of(overlay)
    for template in pod_specs(built(overlay)):
        spec = template["spec"]
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
        paths = [Path(mount["mountPath"]) for mount in mounts.values()]
        needed: list[Path | None] = []
        if container["args"][0] in {"run", "train", "models"}:
            needed.append(config.readings.model)
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


@each_daemon
def test_a_pod_has_time_to_stop_and_a_name_of_its_own(overlay: str, daemon: str) -> None:
    spec = one(overlay, "StatefulSet", daemon)["spec"]["template"]["spec"]
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
