"""Makes schemas of the classes in the `kserve` package, which say of every field its name in JSON and its type."""

from __future__ import annotations

import ast
import re
import zipfile
from typing import Any

from tests.deployment.core_schemas import core_reference

Schema = dict[str, Any]

SIMPLE: dict[str, Schema] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "object": {},
    "ResourceQuantity": {"type": ["string", "number"]},
    "V1beta1MetricQuantity": {"type": ["string", "number"]},
    "IntOrString": {"type": ["string", "integer"]},
    "V1alpha1WorkerSpec": {"type": "object"},  # which the package names and does not have
}
CORE_GROUPS = ("io.k8s.api.core.", "io.k8s.api.apps.", "io.k8s.api.autoscaling.", "io.k8s.apimachinery.pkg.apis.meta.")
"""Where the types of Kubernetes' own that have no class here are."""


class KserveSchemas:
    """The schemas of the package, as far as they are referred to; without status, which users do not write."""

    def __init__(self, wheel: zipfile.ZipFile, core: dict[str, str]) -> None:
        self._wheel = wheel
        self._core = core
        self._modules = {name.lower().replace("_", ""): name for name in wheel.namelist() if "/models/" in name}
        self.definitions: dict[str, Schema] = {}

    def reference(self, name: str) -> Schema:
        """A reference to the class `name`, which is then among `definitions`."""
        module = self._modules.get(f"kserve/models/{name.lower()}.py")
        if module is None:
            return self._core_type(name)
        if name not in self.definitions:
            self.definitions[name] = {}
            fields, json_names = _tables(ast.parse(self._wheel.read(module)))
            properties = {json_names[field]: self._type(type_) for field, type_ in fields.items() if field != "status"}
            self.definitions[name] = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"$ref": f"#/$defs/{name}"}

    def _type(self, type_: str) -> Schema:
        if type_ in SIMPLE:
            return SIMPLE[type_]
        if listed := re.fullmatch(r"list\[(.+)\]", type_):
            return {"type": "array", "items": self._type(listed[1])}
        if mapped := re.fullmatch(r"dict\(str, (.+)\)", type_):
            return {"type": "object", "additionalProperties": self._type(mapped[1])}
        return self.reference(type_)

    def _core_type(self, name: str) -> Schema:
        """`K8sIoApiAppsV1Deployment...` or `V1Container`: the version is in the name, the group is found by trying."""
        version, plain = re.fullmatch(r"(?:K8sIoApi\w+?)?(V\d(?:(?:alpha|beta)\d)?)(\w+)", name).groups()  # type: ignore[union-attr]
        for group in CORE_GROUPS:
            core = core_reference(self._core, f"{group}{version.lower()}.{plain}")
            if core is not None:
                return core
        raise ValueError(f"there is no {name}")


def _tables(tree: ast.Module) -> tuple[dict[str, str], dict[str, str]]:
    tables = {
        target.id: ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
    }
    return tables["openapi_types"], tables["attribute_map"]
