"""Kubernetes manifests as their tools build them, and what has to hold of any of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

from tests.deploy.tools import DEPLOY, module, said, tool

Manifest = dict[str, Any]

KUBERNETES: Final = DEPLOY / "kubernetes"
VERSION: Final = "1.31"
_OPERATOR: Final = ("github.com/prometheus-operator/prometheus-operator", "v0.85.0", "example/prometheus-operator-crd")
FOREIGN: Final = {
    "ServiceMonitor": (*_OPERATOR, "monitoring.coreos.com_servicemonitors.yaml"),
    "PrometheusRule": (*_OPERATOR, "monitoring.coreos.com_prometheusrules.yaml"),
    "ScaledObject": ("github.com/kedacore/keda/v2", "v2.18.1", "config/crd/bases", "keda.sh_scaledobjects.yaml"),
}
"""Kinds of other projects: the Go module that defines each, and the file in it."""


@functools.cache
def built(overlay: str) -> tuple[Manifest, ...]:
    """An overlay, as kustomize builds it."""
    return build(KUBERNETES / overlay)


def build(directory: Path) -> tuple[Manifest, ...]:
    """What kustomize makes of a directory."""
    kustomize = tool("kustomize", "sigs.k8s.io/kustomize/kustomize/v5")
    return tuple(yaml.safe_load_all(said(kustomize, "build", directory)))


def pod_specs(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    """The templates of all pods."""
    for manifest in manifests:
        if manifest["kind"] == "StatefulSet":
            yield manifest["spec"]["template"]
        elif manifest["kind"] == "CronJob":
            yield manifest["spec"]["jobTemplate"]["spec"]["template"]


def validate(manifest: Manifest) -> None:
    """Raise unless Kubernetes, or the custom resource's own definition, takes the manifest and knows every field."""
    if manifest["kind"] in FOREIGN:
        jsonschema.validate(manifest, foreign_schema(manifest["kind"]))
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@functools.cache
def foreign_schema(kind: str) -> Manifest:
    """What the custom resource's definition says, and no field beside."""
    name, version, *rest = FOREIGN[kind]
    definition = yaml.safe_load(module(name, version).joinpath(*rest).read_text(encoding="utf-8"))
    (served,) = [one for one in definition["spec"]["versions"] if one["storage"]]
    schema: Manifest = served["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Refuse what a schema does not name, as `kubectl apply --validate=strict` does; Go's patterns as Python's."""
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if isinstance(schema.get("pattern"), str):
            schema["pattern"] = re.sub(r"^\^\(\?i\)", "(?i)^", schema["pattern"])
        for one in schema.values():
            _close(one)
