"""Write `schemas/*.json`: what the API servers of custom resources accept, compact enough to be kept here.

    .venv/bin/python -m tests.deployment.make_schemas

Field names, types and limits come from packages that are generated from the projects' own sources: npm's @kubernetes-models
(validators compiled to JavaScript, read here by their regular form) and the `kserve` package on PyPI (classes with tables of
their fields). Parts of Kubernetes itself are left to kubernetes-validate, by reference. To be run again when a version below
is raised; it needs npm and pip. The tests need neither.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tests.deployment.compiled_schemas import CompiledSchemas
from tests.deployment.core_schemas import CORE_ID, core_definitions
from tests.deployment.kserve_schemas import KserveSchemas

SCHEMAS = Path(__file__).parent / "schemas"
NPM = {
    "@kubernetes-models/gateway-api@2.0.0": {
        "HTTPRoute": "IoK8sSigsGatewayApiApisV1HTTPRoute",
    },
    "@kubernetes-models/keda@2.0.0": {
        "ScaledObject": "ComGithubKedacoreKedaV2ApisKedaV1alpha1ScaledObject",
    },
    "@kubernetes-models/prometheus-operator@6.0.0": {
        "PrometheusRule": "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1PrometheusRule",
        "ServiceMonitor": "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1ServiceMonitor",
    },
}
KSERVE = "kserve==0.21.0"
KSERVE_KINDS = {
    "InferenceService": ("serving.kserve.io/v1beta1", "V1beta1InferenceService"),
    "ServingRuntime": ("serving.kserve.io/v1alpha1", "V1alpha1ServingRuntime"),
}


def main() -> None:
    """Fetch the packages into a temporary folder and write one file for each kind."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", folder, *NPM], check=True)
        for package, kinds in NPM.items():
            source = Path(folder, "node_modules", package.rsplit("@", 1)[0], "_schemas")
            for kind, name in kinds.items():
                schemas = CompiledSchemas(source, core_definitions())
                root = schemas.reference(name)
                _write(kind, package, root, schemas.definitions)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, KSERVE]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("kserve-*.whl"))) as wheel:
            for kind, (version, name) in KSERVE_KINDS.items():
                kserve = KserveSchemas(wheel, core_definitions())
                root = kserve.reference(name)
                kserve.definitions[name]["properties"] |= {
                    "apiVersion": {"const": version},
                    "kind": {"const": kind},
                    "metadata": {"$ref": f"{CORE_ID}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
                }
                _write(kind, KSERVE, root, kserve.definitions)


def _write(kind: str, package: str, root: dict[str, Any], definitions: dict[str, Any]) -> None:
    schema = {"$comment": f"Written by make_schemas.py from {package}", **root, "$defs": dict(sorted(definitions.items()))}
    defs = ",\n".join(f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in schema.pop("$defs").items())
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in schema.items())
    (SCHEMAS / f"{kind}.json").write_text(f'{{\n{head},\n"$defs": {{\n{defs}\n}}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
