"""The Kubernetes manifests as a cluster would get them: built by kustomize."""

from __future__ import annotations

import base64
import functools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deployment import tools

Object = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "k8s"
COMPANIONS = {"examples/canary": "overlays/gateway", "examples/canary/workload": "overlays/cpu"}
"""What must be in the cluster already for something that does not stand alone."""


def targets() -> list[str]:
    """All that can be built and applied, by its path in `k8s/`."""
    found = [file.parent for file in FOLDER.rglob("kustomization.yaml") if "kind: Component" not in file.read_text()]
    return sorted(str(folder.relative_to(FOLDER)) for folder in found if folder.name != "base")


def components() -> list[str]:
    """What can be added to a target, by its path in `k8s/`."""
    found = [file.parent for file in FOLDER.rglob("kustomization.yaml") if "kind: Component" in file.read_text()]
    return sorted(str(folder.relative_to(FOLDER)) for folder in found)


def build(target: str) -> list[Object]:
    """The objects of a target; yours to change."""
    return deepcopy(_build(FOLDER / target))


def in_cluster(target: str) -> list[Object]:
    """The objects of a target, with those that it relies on."""
    objects = build(target)
    own = {_identity(item) for item in objects}
    companion = COMPANIONS.get(target)
    return objects + [item for item in (build(companion) if companion else []) if _identity(item) not in own]


@functools.cache
def _build(folder: Path) -> list[Object]:
    done = subprocess.run([*tools.command("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl kustomize {folder}: {done.stderr}"
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def _identity(item: Object) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def name_of(item: Object) -> str:
    """How complaints call an object."""
    return f"{item['kind']} {item['metadata'].get('name')}"


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """The objects of some kinds."""
    return [item for item in objects if item["kind"] in kinds]


@dataclass(frozen=True)
class Workload:
    """Something that has pods."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    """Of its pods."""
    pod: Object
    """Their spec."""
    owner: Object

    def containers(self) -> list[Object]:
        """Those that serve, and those before them."""
        return [*self.pod["containers"], *self.pod.get("initContainers", [])]

    def annotations(self) -> Mapping[str, str]:
        """Of its pods."""
        if self.owner["kind"] == "InferenceService":
            return dict(self.pod.get("annotations", {}))
        return dict(self.owner["spec"]["template"]["metadata"].get("annotations", {}))

    def port_names(self) -> set[str]:
        """Of the containers that serve."""
        return {port.get("name", "") for container in self.pod["containers"] for port in container.get("ports", [])}


def workloads(objects: Sequence[Object]) -> Iterator[Workload]:
    """All that has pods."""
    for item in objects:
        name, namespace = name_of(item), item["metadata"].get("namespace", "")
        if item["kind"] == "Deployment":
            template = item["spec"]["template"]
            yield Workload(name, namespace, template["metadata"]["labels"], template["spec"], item)
        elif item["kind"] == "InferenceService":
            predictor = item["spec"]["predictor"]
            yield Workload(name, namespace, {}, {**_runtime(predictor.get("model", {}), objects), **predictor}, item)


def _runtime(model: Object, objects: Sequence[Object]) -> Object:
    """What KServe takes from the runtime of a model for its pods; nothing, when there is no such runtime."""
    specs = [item["spec"] for item in of_kind(objects, "ServingRuntime") if item["metadata"]["name"] == model.get("runtime")]
    return {key: specs[0][key] for key in ("containers", "volumes") if key in specs[0]} if specs else {"containers": []}


def environment(container: Object, objects: Sequence[Object]) -> dict[str, str]:
    """What a container finds in its environment, as far as the objects tell."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for item in of_kind(objects, "ConfigMap", "Secret"):
            reference = source.get("configMapRef" if item["kind"] == "ConfigMap" else "secretRef", {})
            if item["metadata"]["name"] == reference.get("name"):
                found |= item["data"] if item["kind"] == "ConfigMap" else _decoded(item["data"])
    return found | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def _decoded(data: Mapping[str, str]) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether labels fit a selector that says something."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())
