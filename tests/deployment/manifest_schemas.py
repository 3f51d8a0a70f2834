"""Whether an object is one that its API server would take: every field known, of the right type, with an allowed value."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.deployment.core_schemas import CORE_ID, core_kinds, core_resource
from tests.deployment.manifests import Object, name_of

SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("serving.kserve.io/v1alpha1", "ServingRuntime"),
    ("serving.kserve.io/v1beta1", "InferenceService"),
}

ALLOWED = {
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "protocol": {"TCP", "UDP"},
    "operator": {"Exists", "Equal", "In", "NotIn", "DoesNotExist"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "policyTypes": {"Ingress", "Egress"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "metricType": {"AverageValue", "Value", "Utilization"},
    "type": {
        "RollingUpdate", "Recreate", "RuntimeDefault", "Localhost", "Resource", "Utilization", "AverageValue", "Percent",
        "Pods", "PathPrefix", "Exact", "prometheus", "Opaque",
    },
    "appProtocol": {"http"},
    "matchLabelKeys": {"pod-template-hash"},
    "scheme": {"HTTP", "http"},
    "pod-security.kubernetes.io/enforce": {"restricted"},
}  # fmt: skip
"""Values the schemas do not list and the API server checks, by the field's name; of those used here."""

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|[MGTPE]i?)?")
QUANTITIES = {"cpu", "memory", "storage", "ephemeral-storage", "sizeLimit", "nvidia.com/gpu"}
"""Fields that hold one; schemas take any text for it."""

PROMETHEUS_TRIGGER = {
    "activationThreshold", "authModes", "customHeaders", "ignoreNullValues", "namespace", "query", "queryParameters",
    "serverAddress", "threshold", "timeout", "unsafeSsl",
}  # fmt: skip
"""KEDA's schema takes any text for a trigger's metadata; these are what its Prometheus scaler reads."""


def schema_complaints(item: Object) -> Iterator[str]:
    """What the schema of its kind has against an object."""
    validator = _validator(item.get("apiVersion", ""), item.get("kind", ""))
    if validator is None:
        yield f"{name_of(item)}: there is no {item.get('apiVersion')} {item.get('kind')}"
        return
    for error in validator.iter_errors(item):
        yield f"{name_of(item)}: {error.json_path}: {error.message}"
    if item["kind"] != "PrometheusRule":  # labels of alerts are free
        yield from _value_complaints(item, name_of(item))
    if item.get("kind") == "ScaledObject":
        for trigger in item["spec"]["triggers"]:
            for unknown in trigger["metadata"].keys() - PROMETHEUS_TRIGGER:
                yield f"{name_of(item)}: a prometheus trigger knows no {unknown}"
            for missing in {"serverAddress", "query", "threshold"} - trigger["metadata"].keys():
                yield f"{name_of(item)}: a prometheus trigger needs {missing}"


@functools.cache
def _validator(version: str, kind: str) -> Draft202012Validator | None:
    if (version, kind) in CUSTOM:
        schema = json.loads((SCHEMAS / f"{kind}.json").read_text())
    elif (version, kind) in core_kinds():
        schema = {"$ref": f"{CORE_ID}#/$defs/{core_kinds()[version, kind]}"}
    else:
        return None
    return Draft202012Validator(schema, registry=Resource.from_contents(core_resource()) @ Registry())


def _value_complaints(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from _value_complaints(part, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _value_complaints(part, f"{where}.{key}")
            for text in part if isinstance(part, list) else [part]:
                if key in ALLOWED and isinstance(text, str) and text not in ALLOWED[key]:
                    yield f"{where}.{key}: {text!r} is none of {sorted(ALLOWED[key])}"
            if key in QUANTITIES and not isinstance(part, dict) and not QUANTITY.fullmatch(str(part)):
                yield f"{where}.{key}: {part!r} is no quantity"
