"""What an object must be so that applying it twice changes nothing, and takes nothing that somebody else has set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.deployment.manifests import Object, name_of, of_kind

NAME, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/instance"
INSTANCES = {"stable", "canary"}
MEANS_SOMETHING_EMPTY = {"emptyDir", "podSelector", "namespaceSelector", "group"}
"""Fields that are stored although nothing is in them; of all others an empty value is dropped, and is a difference for ever."""
ROUTE_DEFAULTS = {
    "parentRefs": {"group": "gateway.networking.k8s.io", "kind": "Gateway"},
    "backendRefs": {"group": "", "kind": "Service", "weight": None},
}
"""What storage adds to the entries of these lists, which are compared as a whole; `None`: some value."""


def apply_complaints(objects: Sequence[Object]) -> Iterator[str]:
    """All that is wrong in this respect, for the objects of one build."""
    for item in objects:
        for where in _empty(item, ""):
            yield f"{name_of(item)}: {where} is empty, which storage drops: every diff would show it"
        labels = item["metadata"].get("labels", {})
        if labels.get(NAME) != "parseq-service" or labels.get(INSTANCE) not in INSTANCES:
            yield f"{name_of(item)}: a selector for {NAME} and {INSTANCE} does not find it by {labels}"
    for deployment in of_kind(objects, "Deployment"):
        if "replicas" in deployment["spec"]:
            yield f"{name_of(deployment)}: each apply would set the replicas back"
        if "type" not in deployment["spec"].get("strategy", {}):
            yield f"{name_of(deployment)}: a strategy without a type is configured anew at each apply"
    for route in of_kind(objects, "HTTPRoute"):
        entries = [("parentRefs", entry) for entry in route["spec"]["parentRefs"]]
        entries += [("backendRefs", entry) for rule in route["spec"]["rules"] for entry in rule["backendRefs"]]
        for field, entry in entries:
            yield from (f"{name_of(route)}: {field}: {text}" for text in _differences(entry, ROUTE_DEFAULTS[field]))


def _differences(entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    for key, default in defaults.items():
        if entry.get(key) is None or default not in (None, entry[key]):
            yield f"{key} is {entry.get(key)!r}, and storage makes it {default!r}"


def _empty(value: Any, where: str) -> Iterator[str]:
    """Places of fields and entries that hold nothing."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        place = f"{where}.{key}".removeprefix(".")
        if part in (None, "", [], {}) and key not in MEANS_SOMETHING_EMPTY:
            yield place
        yield from _empty(part, place)
