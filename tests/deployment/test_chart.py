"""The Helm chart makes the same objects as the kustomize files, whatever both are told."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.config import Settings, env_name
from tests.deployment import tools
from tests.deployment.chart import CHART, CHECKSUM, GPU, ChartError, lint, package, plain, render
from tests.deployment.copy_rules import CHART_RULES, RULES
from tests.deployment.manifest_checks import complaints
from tests.deployment.manifests import FOLDER, Object, build, environment, of_kind, workloads
from tests.deployment.pod_checks import VERSION

PAGE = FOLDER.parent / "docs" / "deployment.md"
NAMED = {"fullnameOverride": "parseq-service"}
MODEL = {"artifact": {"sha256": "0" * 64, "url": "https://models.example/parseq-tiny.onnx"}}
GPU_PRODUCTION = {
    "image": {"repository": "registry.example/parseq-service"},
    "imagePullSecrets": ["registry"],
    "gateway": {"enabled": True, "hostnames": ["words.example"]},
    "monitoring": {"enabled": True},
    "autoscaling": {"by": "queue"},
    "networkPolicy": {
        "from": [
            {
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["gateway", "monitoring"]}
                    ]
                }
            }
        ]
    },
}
SAME: list[tuple[str, str, dict[str, Any], tuple[Path, ...]]] = [
    ("overlays/cpu", "stable", NAMED, ()),
    ("overlays/gpu", "stable", NAMED, (GPU,)),
    ("overlays/gateway", "stable", NAMED | {"gateway": {"enabled": True}}, ()),
    ("overlays/monitoring", "stable", NAMED | {"monitoring": {"enabled": True}}, ()),
    ("overlays/keda", "stable", NAMED | {"autoscaling": {"by": "queue"}}, ()),
    ("examples/gpu-production", "stable", NAMED | GPU_PRODUCTION, (GPU,)),
    ("examples/other-model", "stable", NAMED | MODEL, ()),
    (
        "examples/canary/workload",
        "canary",
        {"fullnameOverride": "parseq-service-canary"} | MODEL | {"autoscaling": {"by": "none"}},
        (),
    ),
]
"""What kustomize builds, and what makes Helm do the same."""
EVERYTHING: dict[str, Any] = {
    **GPU_PRODUCTION,
    **MODEL,
    "image": {"digest": "sha256:" + "a" * 64, "pullPolicy": "Always"},
    "settings": {"PARSEQ_MAX_QUEUE_WAIT_MS": 500, "PARSEQ_KEEP_ALIVE_S": None, "PARSEQ_MAX_BODY_BYTES": 4194304},
    "apiKeys": {"existingSecret": "keys"},  # pragma: allowlist secret
    "cache": {"enabled": True, "storageClassName": "shared"},
    "grpc": {"enabled": True},
    "priorityClassName": "words",
    "nodeSelector": {"disk": "fast"},
    "affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchFields": []}}]}
    },
    "tolerations": [{"key": "words", "operator": "Exists"}],
    "podAnnotations": {"note": "x"},
    "podLabels": {"team": "words"},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
}


def generated_names(objects: list[Object]) -> dict[str, str]:
    """Without the hash that kustomize appends, and by the chart's rule: the release's name comes first."""
    names = [item["metadata"]["name"] for item in of_kind(objects, "ConfigMap", "Secret")]
    without_hash = {name: re.sub(r"-[a-z0-9]{10}$", "", name) for name in names}
    return {old: re.sub(r"^parseq-artifact(-\w+)?$", r"parseq-service\1-artifact", name) for old, name in without_hash.items()}


def of_kustomize(target: str) -> list[Object]:
    """Without the namespace, which must be there before Helm can note that it has installed something."""
    objects = build(target)
    return plain([item for item in objects if item["kind"] != "Namespace"], generated_names(objects))


def everything(**changes: Any) -> list[Object]:
    return render({**EVERYTHING, **changes})


@pytest.mark.parametrize(("target", "release", "values", "files"), SAME, ids=[case[0] for case in SAME])
def test_the_chart_makes_the_objects_of_kustomize(
    target: str, release: str, values: dict[str, Any], files: tuple[Path, ...]
) -> None:
    assert plain(render(values, *files, release=release), {}) == of_kustomize(target)


def test_all_that_kustomize_builds_can_be_had() -> None:
    """But for KServe's objects, which replace all of these, and a route that is one value of the chart."""
    built = {str(file.parent.relative_to(FOLDER)) for file in FOLDER.rglob("kustomization.yaml")}
    built = {target for target in built if target != "base" and not target.startswith("components/")}
    assert built - {case[0] for case in SAME} == {"examples/kserve", "examples/canary"}
    (route,) = of_kind(
        render(
            NAMED | {"gateway": {"enabled": True, "weight": 95, "alsoTo": [{"name": "parseq-service-canary", "weight": 5}]}}
        ),
        "HTTPRoute",
    )
    assert [route] == of_kind(build("examples/canary"), "HTTPRoute")


def test_grpc_is_what_the_page_says(tmp_path: Path) -> None:
    (patches,) = (text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S) if "PARSEQ_GRPC_PORT" in text)
    overlay = Path("../" * len(tmp_path.parts[1:])) / FOLDER.relative_to("/") / "overlays" / "cpu"
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(yaml.safe_load(patches) | {"resources": [str(overlay)]}))
    done = subprocess.run([*tools.command("kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    objects = [item for item in yaml.safe_load_all(done.stdout) if item["kind"] != "Namespace"]
    assert plain(render(NAMED | {"grpc": {"enabled": True}}), {}) == plain(objects, generated_names(objects))


@pytest.mark.parametrize("files", [(), (GPU,)], ids=["cpu", "gpu"])
def test_helm_finds_nothing_to_complain_about(files: tuple[Path, ...]) -> None:
    lint(*files)


@pytest.mark.parametrize("files", [(), (GPU,)], ids=["cpu", "gpu"])
def test_with_everything_switched_on_the_objects_are_right(files: tuple[Path, ...]) -> None:
    """But for what only schemas can judge, in the test below: the checks know these objects as kustomize makes them."""
    left_out = {"affinity", "cache", "extraVolumes", "extraVolumeMounts", "grpc", "image", "settings", "tolerations"}
    values = {key: value for key, value in EVERYTHING.items() if key not in left_out}
    namespace = of_kind(build("overlays/cpu"), "Namespace")
    assert complaints(namespace + render(values, *files)) == []


@pytest.mark.parametrize("values", [NAMED, EVERYTHING], ids=["default", "everything"])
def test_the_oldest_kubernetes_that_the_chart_names_takes_the_objects(values: dict[str, Any]) -> None:
    (oldest,) = re.findall(r">=(1\.\d+)\.0-0", yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"])
    assert f"Kubernetes {oldest} or newer" in PAGE.read_text()
    for item in render(values):
        if not item["apiVersion"].startswith(("monitoring.", "keda.", "gateway.")):
            kubernetes_validate.validate(item, oldest, strict=True)


def test_each_value_has_its_place() -> None:
    objects = everything()
    (workload,) = workloads(objects)
    (server,) = workload.pod["containers"]
    assert {container["image"] for container in workload.containers()} == {"parseq-service@sha256:" + "a" * 64}
    assert {container["imagePullPolicy"] for container in workload.containers()} == {"Always"}
    settings = environment(server, objects)
    assert settings["PARSEQ_MAX_QUEUE_WAIT_MS"] == "500"
    assert settings["PARSEQ_MAX_BODY_BYTES"] == "4194304"
    assert "PARSEQ_KEEP_ALIVE_S" not in settings
    assert settings["TZ"] == "UTC"
    mounts = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "cache": "/cache", "artifact": "/artifact", "keys": "/keys", "models": "/models"}
    assert Path(settings["PARSEQ_API_KEYS_FILE"]).parent == Path(mounts["keys"])
    assert {volume["name"] for volume in workload.pod["volumes"]} == set(mounts)
    assert workload.labels["team"] == "words"
    assert workload.annotations()["note"] == "x"
    assert workload.pod["nodeSelector"] == {"disk": "fast"}
    assert workload.pod["priorityClassName"] == "words"
    assert {"key": "words", "operator": "Exists"} in workload.pod["tolerations"]
    assert of_kind(objects, "PersistentVolumeClaim")[0]["spec"]["storageClassName"] == "shared"
    assert {item["metadata"]["labels"]["release"] for item in of_kind(objects, "ServiceMonitor", "PrometheusRule")} == {
        "prometheus"
    }


def test_a_number_stays_a_number_from_a_file(tmp_path: Path) -> None:
    """Helm reads large ones as floats, and would write 4.194304e+06."""
    file = tmp_path / "values.yaml"
    file.write_text("settings: {PARSEQ_MAX_BODY_BYTES: 4194304, PARSEQ_BATCH_TIMEOUT_MS: 0.5, PARSEQ_ACCESS_LOG: true}")
    (config,) = of_kind(render({}, file), "ConfigMap")
    wanted = {"PARSEQ_MAX_BODY_BYTES": "4194304", "PARSEQ_BATCH_TIMEOUT_MS": "0.5", "PARSEQ_ACCESS_LOG": "true"}
    assert wanted.items() <= config["data"].items()


def test_changed_settings_and_models_start_new_pods() -> None:
    def checksum(**values: Any) -> str:
        (workload,) = workloads(render(values))
        return workload.annotations()[CHECKSUM]

    found = {
        checksum(),
        checksum(settings={"PARSEQ_LANES": 1}),
        checksum(**MODEL),
        checksum(artifact={**MODEL["artifact"], "sha256": "1" * 64}),
    }
    assert len(found) == 4
    assert checksum() == checksum(replicas=3, autoscaling={"by": "none"})


def test_a_secret_of_ones_own_holds_the_address() -> None:
    objects = render({"artifact": {"sha256": "0" * 64, "existingSecret": "where"}})
    assert of_kind(objects, "Secret") == []
    assert {"secretRef": {"name": "where"}} in next(workloads(objects)).pod["initContainers"][0]["envFrom"]


def test_two_releases_share_nothing() -> None:
    releases = [everything(), render(EVERYTHING, release="canary")]
    names = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in releases]
    assert not names[0] & names[1]
    assert {item["metadata"]["name"] for item in of_kind(render(release="parseq-service"), "Deployment")} == {"parseq-service"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"imagee": {}}, "imagee"),
        ({"image": {"repo": "x"}}, "repo"),
        ({"image": {"digest": "abc"}}, "/image/digest"),
        ({"settings": {"MAX_BODY_BYTES": 1}}, "MAX_BODY_BYTES"),
        ({"autoscaling": {"by": "keda"}}, "/autoscaling/by"),
        ({"autoscaling": {"minReplicas": 11}}, "minReplicas is more than"),
        ({"replicas": 3}, "autoscaling.by=none"),
        ({"artifact": {"sha256": "0" * 64}}, "set artifact.url"),
        ({"artifact": {"url": "https://models.example/a.onnx"}}, "needs artifact.sha256"),
        ({"artifact": {"sha256": "0" * 63, "url": "https://models.example/a.onnx"}}, "/artifact/sha256"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ChartError, match=re.escape(said)):
        render(values)


def test_the_schema_knows_every_value_and_only_those() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(known: dict[str, Any], value: dict[str, Any]) -> None:
        assert known["additionalProperties"] is False
        assert set(known["properties"]) - {"global"} == set(value)
        for key, part in value.items():
            if "properties" in known["properties"][key]:
                compare(known["properties"][key], part)

    compare(schema, values)


def test_the_settings_of_the_chart_are_settings_of_the_service() -> None:
    known = {env_name(name) for name in Settings.model_fields}
    for file in (CHART / "values.yaml", GPU):
        assert set(yaml.safe_load(file.read_text())["settings"]) <= known


def test_the_archive_has_all_that_it_needs(tmp_path: Path) -> None:
    with tarfile.open(package(tmp_path)) as archive:
        packed = {name.removeprefix("parseq-service/") for name in archive.getnames()}
    assert {"Chart.yaml", "values.yaml", "values-gpu.yaml", "values.schema.json", "files/rules.yml"} <= packed
    assert {f"templates/{file.name}" for file in (CHART / "templates").iterdir()} <= packed


def test_the_rules_are_those_of_prometheus_and_the_version_is_that_of_the_image() -> None:
    assert CHART_RULES.read_bytes() == RULES.read_bytes(), "run python -m tests.deployment.copy_rules"
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
