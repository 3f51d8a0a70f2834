"""Everything under `k8s/` builds, is what the API servers would take, and fits together."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import kubernetes_validate
import pytest
import yaml

from service.config import BUNDLED_ARTIFACT, ENV_PREFIX, env_name
from tests.deployment import tools
from tests.deployment.manifest_checks import complaints
from tests.deployment.manifests import FOLDER, build, components, environment, in_cluster, of_kind, targets, workloads
from tests.deployment.pod_checks import OK, VERSION
from tests.deployment.promql import unknown_metrics
from tests.integration.server import running

PAGE = FOLDER.parent / "docs" / "deployment.md"


@pytest.mark.parametrize("target", targets())
def test_a_target_builds_and_is_right(target: str) -> None:
    assert complaints(in_cluster(target)) == []


def test_the_overlays_that_are_promised_are_there() -> None:
    wanted = {"overlays/cpu", "overlays/gpu", "overlays/gateway", "overlays/monitoring", "overlays/keda", "examples/kserve"}
    assert wanted <= set(targets())


def test_every_component_is_part_of_a_target() -> None:
    files = [yaml.safe_load((FOLDER / target / "kustomization.yaml").read_text()) for target in targets()]
    used = {Path(path).name for file in files for path in file.get("components", [])}
    assert used == {Path(component).name for component in components()}


def test_every_file_is_part_of_a_build() -> None:
    named: set[Path] = set()
    for file in FOLDER.rglob("kustomization.yaml"):
        content = yaml.safe_load(file.read_text())
        named.add(file)
        listed = [*content.get("resources", []), *content.get("configurations", [])]
        listed += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
        listed += [name for generator in content.get("configMapGenerator", []) for name in generator.get("envs", [])]
        named |= {(file.parent / name).resolve() for name in listed}
    chart = FOLDER / "chart"  # Helm's: test_chart.py
    assert {file for file in FOLDER.rglob("*") if file.is_file() and chart not in file.parents} <= named


@pytest.mark.parametrize("target", ["overlays/cpu", "overlays/gpu"])
def test_one_command_brings_everything_that_a_cluster_needs(target: str) -> None:
    kinds = Counter(item["kind"] for item in build(target))
    needed = {"Namespace", "ServiceAccount", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    assert needed <= kinds.keys()
    assert set(kinds.values()) == {1}
    # Objects of others' definitions would fail to apply where those are not installed.
    assert not {item["apiVersion"] for item in build(target)} - {
        "v1",
        "apps/v1",
        "policy/v1",
        "networking.k8s.io/v1",
        "autoscaling/v2",
    }


def test_a_canary_can_be_deleted_without_the_rest() -> None:
    canary, stable = build("examples/canary/workload"), build("overlays/cpu")
    names = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (canary, stable)]
    assert not names[0] & names[1]


def test_another_namespace_and_registry_take_two_lines(tmp_path: Path) -> None:
    overlay = Path("../" * len(tmp_path.parts[1:])) / FOLDER.relative_to("/") / "overlays" / "cpu"
    image = {"name": "parseq-service", "newName": "registry.example/words"}
    file = {"namespace": "words", "resources": [str(overlay)], "images": [image]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(file))
    done = subprocess.run([*tools.command("kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    assert complaints(objects) == []
    assert [item["metadata"]["name"] for item in of_kind(objects, "Namespace")] == ["words"]
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example/words:")


def test_the_kustomization_of_the_page_leaves_a_namespace_alone(tmp_path: Path) -> None:
    whole, addition = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)[:2])
    overlay = Path("../" * len(tmp_path.parts[1:])) / FOLDER.relative_to("/") / "overlays" / "cpu"
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(whole | addition | {"resources": [str(overlay)]}))
    done = subprocess.run([*tools.command("kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    assert len(of_kind(objects, "Namespace")) == 0
    assert {item["metadata"]["namespace"] for item in objects} == {"words"}
    kept = {item["kind"] for item in build("overlays/cpu")} - {"Namespace"}
    assert {item["kind"] for item in objects} == kept


AUTOSCALERS = {"HorizontalPodAutoscaler": "hpa", "ScaledObject": "scaledobject"}


def test_the_page_says_what_to_delete_when_the_overlay_changes() -> None:
    """Apply deletes nothing: an autoscaler that stays works against the other, or asks for GPUs on the CPU's load."""
    overlays = ["overlays/cpu", "overlays/keda", "overlays/gpu"]
    scalers = {
        overlay: {AUTOSCALERS[item["kind"]] + "/" + item["metadata"]["name"] for item in of_kind(build(overlay), *AUTOSCALERS)}
        for overlay in overlays
    }
    rows = re.findall(r"^\| `(overlays/\w+)` \| (`overlays.*?) \| (.*?) \|$", PAGE.read_text(), re.M)
    said = {
        (old, new): set(re.findall(r"`([^`]+)`", deleted)) & (scalers[old] | scalers[new])
        for old, news, deleted in rows
        for new in re.findall(r"`([^`]+)`", news)
    }
    pairs = [(old, new) for old in overlays for new in overlays if old != new]
    assert said == {(old, new): scalers[old] - scalers[new] for old, new in pairs}


def test_one_selector_finds_everything_of_an_instance() -> None:
    canary = build("examples/canary/workload")
    assert {item["metadata"]["labels"]["app.kubernetes.io/instance"] for item in canary} == {"canary"}
    for target in set(targets()) - {"examples/canary", "examples/canary/workload"}:
        assert {item["metadata"]["labels"]["app.kubernetes.io/instance"] for item in build(target)} == {"stable"}, target


def test_the_version_that_objects_are_labelled_with_is_that_of_the_image() -> None:
    for item in build("overlays/gpu"):
        version = item["metadata"].get("labels", {}).get("app.kubernetes.io/version", VERSION)
        assert version == VERSION, item["metadata"]["name"]


def test_the_example_for_production_says_who_may_connect_and_how_images_are_pulled() -> None:
    objects = build("examples/gpu-production")
    (policy,), (account,) = of_kind(objects, "NetworkPolicy"), of_kind(objects, "ServiceAccount")
    assert all(rule["from"] for rule in policy["spec"]["ingress"])
    assert account["imagePullSecrets"]
    (route,), (scaler,) = of_kind(objects, "HTTPRoute"), of_kind(objects, "ScaledObject")
    gateways = {parent["namespace"] for parent in route["spec"]["parentRefs"]}
    hosts = [urlsplit(trigger["metadata"]["serverAddress"]).hostname or "" for trigger in scaler["spec"]["triggers"]]
    (expression,) = policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchExpressions"]
    assert gateways | {host.split(".")[1] for host in hosts} == set(expression["values"])


def test_prometheus_can_parse_what_keda_and_the_page_ask(tmp_path: Path) -> None:
    (scaler,) = of_kind(build("overlays/keda"), "ScaledObject")
    queries = [trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]]
    queries += re.findall(r"```promql\n(.*?)```", PAGE.read_text(), re.S)
    assert len(queries) == 3
    assert not {name for query in queries for name in unknown_metrics(query)}
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [*tools.command("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_folders_that_are_there() -> None:
    named = set(re.findall(r"k8s/((?:overlays|components|examples)[\w/.-]*[\w-])", PAGE.read_text()))
    assert "overlays/cpu" in named
    assert not [path for path in named if not (FOLDER / path).exists()]


@pytest.mark.parametrize("target", ["overlays/cpu", "examples/kserve"])
def test_the_service_starts_with_the_settings_of_the_manifests(target: str, tmp_path: Path) -> None:
    objects = build(target)
    (workload,) = workloads(objects)
    (container,) = workload.pod["containers"]
    settings = {name: value for name, value in environment(container, objects).items() if name.startswith(ENV_PREFIX)}
    limits = {key: int(settings[env_name(key)]) for key in ("max_body_bytes", "max_image_pixels")}
    # Not on all addresses of the machine that tests it; the port is any that is free.
    given = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in settings.items()} | {"host": "127.0.0.1"}
    given.pop("artifact", None)
    with running(BUNDLED_ARTIFACT, tmp_path / "log", forked=True, **given) as server:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert httpx.get(server.url + container[probe]["httpGet"]["path"]).status_code == OK
        assert limits.items() <= httpx.get(f"{server.url}/v1/models").json()["models"][0]["limits"].items()
        assert server.terminate() == 0


@pytest.mark.parametrize("target", ["overlays/cpu", "overlays/gpu"])
def test_the_oldest_kubernetes_that_the_page_names_takes_the_objects(target: str) -> None:
    (oldest,) = re.findall(r"^Kubernetes (1\.\d+) or newer", PAGE.read_text(), re.M)
    for item in build(target):
        kubernetes_validate.validate(item, oldest, strict=True)
