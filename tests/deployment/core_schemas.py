"""The definitions of Kubernetes' own objects that kubernetes-validate brings, strict: unknown fields are refused."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any

import kubernetes_validate

CORE_ID = "https://kubernetes.io/api/_definitions.json"
"""How schemas refer to them: `CORE_ID#/$defs/NAME`."""


@functools.cache
def core_resource() -> Any:
    """The whole document."""
    folder = f"v{kubernetes_validate.latest_version()}-local-strict"
    document = json.loads((files("kubernetes_validate") / "kubernetes-json-schema" / folder / "_definitions.json").read_text())
    assert document["$id"] == CORE_ID
    return document


def core_definitions() -> dict[str, str]:
    """The names of the definitions, by the same without dots and in lower case: packages spell them in their own ways."""
    return {_plain(name): name for name in core_resource()["$defs"]}


def core_reference(definitions: dict[str, str], name: str) -> dict[str, Any] | None:
    """A reference to the definition of that name, whatever its spelling; `None` when there is none."""
    found = definitions.get(_plain(name))
    return {"$ref": f"{CORE_ID}#/$defs/{found}"} if found else None


@functools.cache
def core_kinds() -> dict[tuple[str, str], str]:
    """The name of the definition of each kind of object, by `apiVersion` and `kind`."""
    found: dict[tuple[str, str], str] = {}
    for name, definition in core_resource()["$defs"].items():
        kinds = definition.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1:  # options of requests belong to every group
            group, version, kind = (kinds[0][key] for key in ("group", "version", "kind"))
            found[f"{group}/{version}".removeprefix("/"), kind] = name
    return found


def _plain(name: str) -> str:
    return name.replace(".", "").replace("-", "").lower()
