"""What schemas do not see: whether the objects of a build fit one another, the service, and the rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from service.config import Settings
from tests.deployment.apply_checks import apply_complaints
from tests.deployment.manifest_schemas import schema_complaints
from tests.deployment.manifests import Object, Workload, name_of, of_kind, selects, workloads
from tests.deployment.pod_checks import KSERVE_MODELS, OK, pod_complaints, status_of
from tests.deployment.promql import metric_names, unknown_metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
JOB = "parseq-service"
CLUSTER_WIDE = {"Namespace"}
POD_SECURITY = {(mode, "restricted") for mode in ("enforce", "warn", "audit")}
MAX_SCRAPE_S = 60
MAX_BACKEND_S, MAX_REQUEST_S = 60, 120
MAX_WINDOW_S, MAX_PERIOD_S = 3600, 1800
"""Of an autoscaler's behaviour; the API server takes no more."""
THRESHOLDS = {"queue-wait": 0.1, "busy-lanes": 1.4}
"""Of a pod, by trigger; chosen from the measurements in docs/deployment.md."""
LANES_BUSY = "parseq_inference_duration_seconds_sum"
QUEUE_WAIT = "parseq_predicted_wait_seconds"


def complaints(objects: Sequence[Object]) -> list[str]:
    """All that is wrong with a build, a line each; nothing when it is right."""
    found = [complaint for item in objects for complaint in schema_complaints(item)]
    if found:
        return found  # the checks below take the form for granted
    for workload in workloads(objects):
        found += pod_complaints(workload, objects)
        found += _missing_objects(workload, objects)
    for check in (
        _namespaces,
        _secrets,
        _selectors,
        _services,
        _routes,
        _scaling,
        _rollouts,
        _network,
        _monitoring,
        _kserve,
        apply_complaints,
    ):
        found += check(objects)
    return found


def _missing_objects(workload: Workload, objects: Sequence[Object]) -> Iterator[str]:
    wanted = [("ServiceAccount", workload.pod.get("serviceAccountName"))]
    for container in workload.containers():
        wanted += [("ConfigMap", source.get("configMapRef", {}).get("name")) for source in container.get("envFrom", [])]
        wanted += [("Secret", source.get("secretRef", {}).get("name")) for source in container.get("envFrom", [])]
    for volume in workload.pod.get("volumes", []):
        wanted.append(("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName")))
        wanted.append(("ConfigMap", volume.get("configMap", {}).get("name")))
    for kind, name in wanted:
        if name is not None and not any(item["metadata"]["name"] == name for item in of_kind(objects, kind)):
            yield f"{workload.name}: there is no {kind} {name}"
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        if set(claim["spec"]["resources"]["requests"]) != {"storage"}:
            yield f"{name_of(claim)}: asks for {claim['spec']['resources']['requests']}, not for storage"
    for account in of_kind(objects, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{name_of(account)}: hands out a token"


def _namespaces(objects: Sequence[Object]) -> Iterator[str]:
    if of_kind(objects, "InferenceService"):
        return  # its namespace is the user's
    namespaces = [item["metadata"]["name"] for item in of_kind(objects, "Namespace")]
    if len(namespaces) != 1:
        yield f"there must be one namespace, not {namespaces}"
    for item in objects:
        if item["kind"] not in CLUSTER_WIDE and item["metadata"].get("namespace") not in namespaces:
            yield f"{name_of(item)}: is in namespace {item['metadata'].get('namespace')}, not in {namespaces}"
    for item in of_kind(objects, "Namespace"):
        if item["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{name_of(item)}: does not enforce the profile restricted"
        for label, profile in item["metadata"].get("labels", {}).items():
            if label.startswith("pod-security.") and (label.rpartition("/")[2], profile) not in POD_SECURITY:
                yield f"{name_of(item)}: the label {label}: {profile} means nothing"


def _secrets(objects: Sequence[Object]) -> Iterator[str]:
    """A URL may be a signed one; Secrets are what fewer people may read."""
    for item in of_kind(objects, "ConfigMap"):
        yield from (f"{name_of(item)}: {key} is a URL: it belongs into a Secret" for key in item["data"] if "URL" in key)
        yield from (f"{name_of(item)}: {key} holds a URL" for key, value in item["data"].items() if "://" in value)


def _selectors(objects: Sequence[Object]) -> Iterator[str]:
    """Each selector finds the pods of exactly one workload: with two, a canary would get the requests of the other."""
    selectors: list[tuple[Object, Any]] = []
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            selectors.append((item, spec.get("selector")))
        elif item["kind"] in {"PodDisruptionBudget", "Deployment"}:
            selectors.append((item, spec.get("selector", {}).get("matchLabels")))
        elif item["kind"] == "NetworkPolicy":
            selectors.append((item, spec.get("podSelector", {}).get("matchLabels")))
        if item["kind"] == "Deployment":
            spread = spec["template"]["spec"].get("topologySpreadConstraints", [])
            if {constraint["topologyKey"] for constraint in spread} != {
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
            }:
                yield f"{name_of(item)}: is not spread over nodes and zones"
            selectors += [(item, constraint.get("labelSelector", {}).get("matchLabels")) for constraint in spread]
    for item, selector in selectors:
        found = [workload.name for workload in workloads(objects) if selects(selector, workload.labels)]
        if len(found) != 1 or (item["kind"] == "Deployment" and found != [name_of(item)]):
            yield f"{name_of(item)}: the selector {selector} finds {found}"
    for workload in workloads(objects):
        kinds = {item["kind"] for item, selector in selectors if selects(selector, workload.labels)}
        if workload.labels and (missing := {"Service", "PodDisruptionBudget", "NetworkPolicy"} - kinds):
            yield f"{workload.name}: has no {', '.join(sorted(missing))}"


def _services(objects: Sequence[Object]) -> Iterator[str]:
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            if port.get("protocol", "TCP") != "TCP":
                yield f"{name_of(service)}: HTTP is no {port['protocol']}"
            for workload in workloads(objects):
                if (
                    selects(service["spec"].get("selector"), workload.labels)
                    and port.get("targetPort") not in workload.port_names()
                ):
                    yield f"{name_of(service)}: targetPort {port.get('targetPort')!r} is no port of {workload.name}"


def _routes(objects: Sequence[Object]) -> Iterator[str]:
    ports = {item["metadata"]["name"]: {port["port"] for port in item["spec"]["ports"]} for item in of_kind(objects, "Service")}
    batch_s = Settings.model_fields["batch_timeout_ms"].default / 1000
    for route in of_kind(objects, "HTTPRoute"):
        if not all(parent.get("namespace") for parent in route["spec"]["parentRefs"]):
            yield f"{name_of(route)}: a Gateway without a namespace is looked for in that of the service"
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend.get("port") not in ports.get(backend["name"], set()):
                    yield f"{name_of(route)}: there is no Service {backend['name']} with port {backend.get('port')}"
            request_s, backend_s = (_seconds(rule.get("timeouts", {}).get(key, "0s")) for key in ("request", "backendRequest"))
            if not batch_s < backend_s <= request_s:
                yield f"{name_of(route)}: not {batch_s} s < backendRequest {backend_s} s <= request {request_s} s"
            if backend_s > MAX_BACKEND_S or request_s > MAX_REQUEST_S:
                yield f"{name_of(route)}: waits {backend_s} s, {request_s} s in all, for what has long failed"
            weights = [backend.get("weight", 1) for backend in rule["backendRefs"]]
            if min(weights) < 1:
                yield f"{name_of(route)}: a backend gets nothing: {weights}"
            if "retry" in rule:
                yield f"{name_of(route)}: retries are the gateway's policy"
            paths = {match["path"]["value"] for match in rule["matches"]}
            if ("PathPrefix", "/v1") not in {(match["path"].get("type"), match["path"]["value"]) for match in rule["matches"]}:
                yield f"{name_of(route)}: /v1 must be a prefix"
            if not {"/v1", "/recognize"} <= paths or paths & {"/", "/metrics"}:
                yield f"{name_of(route)}: {sorted(paths)} is not the interface and nothing else"


def _seconds(duration: str) -> float:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))


def _scaling(objects: Sequence[Object]) -> Iterator[str]:
    scaled: list[str] = []
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled.append(f"{target.get('kind', 'Deployment')} {target['name']}")
        if scaled[-1] not in map(name_of, objects):
            yield f"{name_of(scaler)}: there is no {scaled[-1]}"
        if target.get("apiVersion", "apps/v1") != "apps/v1":
            yield f"{name_of(scaler)}: there is no {scaled[-1]} in {target['apiVersion']}"
    for deployment in of_kind(objects, "Deployment"):
        times = scaled.count(name_of(deployment))
        if times > 1:
            yield f"{name_of(deployment)}: is scaled by {times}"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        measured = [metric.get("resource", {}).get("name") for metric in scaler["spec"]["metrics"]]
        if measured != ["cpu"]:
            yield f"{name_of(scaler)}: without an adapter there is nothing to scale on but cpu, not {measured}"
        for metric in scaler["spec"]["metrics"]:
            if not 0 < metric.get("resource", {}).get("target", {}).get("averageUtilization", 0) < 100:
                yield f"{name_of(scaler)}: the target must be a utilization below 100 %"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        yield from (f"{name_of(scaler)}: {text}" for text in _bounds(scaler["spec"]))
    for scaler in of_kind(objects, "ScaledObject"):
        yield from (f"{name_of(scaler)}: {text}" for text in _keda(scaler))


def _bounds(spec: Object) -> Iterator[str]:
    least, most = (spec.get(f"{bound}Replicas", spec.get(f"{bound}ReplicaCount", 0)) for bound in ("min", "max"))
    if not 2 <= least < most:
        yield f"from {least} to {most} replicas: at least two, and room to grow"
    behavior = spec.get("behavior") or spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
    if behavior.keys() != {"scaleUp", "scaleDown"}:
        yield "says nothing about how fast it grows or shrinks"
    for direction, how in behavior.items():
        if not 0 <= how.get("stabilizationWindowSeconds", 0) <= MAX_WINDOW_S:
            yield f"{direction}: stabilizationWindowSeconds may be {MAX_WINDOW_S} at most"
        if not all(0 < policy["periodSeconds"] <= MAX_PERIOD_S for policy in how.get("policies", [])):
            yield f"{direction}: periodSeconds may be {MAX_PERIOD_S} at most"
    fallback = spec.get("fallback", {}).get("replicas", least)
    if not least <= fallback <= most:
        yield f"falls back to {fallback} replicas"


def _keda(scaler: Object) -> Iterator[str]:
    spec, namespace = scaler["spec"], scaler["metadata"]["namespace"]
    if spec.get("fallback", {}).get("failureThreshold", 0) < 1:
        yield "falls back without any failure"
    if "pollingInterval" in spec:
        yield "pollingInterval is for scaling from zero, which this does not: KEDA warns of it"
    if spec.get("fallback", {}).get("behavior") != "currentReplicasIfHigher":
        yield "without Prometheus it would scale down"
    used: set[str] = set()
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        used |= metric_names(metadata["query"])
        yield from (f"there is no metric {name}" for name in unknown_metrics(metadata["query"]))
        if trigger["type"] != "prometheus" or trigger.get("metricType") != "AverageValue":
            yield "scale on a total from Prometheus, divided among the pods"
        if metadata.get("ignoreNullValues") != "false":
            yield "an empty answer would count as 0, and scale down at the peak"
        if THRESHOLDS.get(trigger["name"]) != float(metadata["threshold"]):
            yield f"threshold {metadata['threshold']} of {trigger['name']} is not that of docs/deployment.md"
        if urlsplit(metadata["serverAddress"]).scheme not in {"http", "https"}:
            yield f"{metadata['serverAddress']} is no address of a Prometheus"
        if not metadata["query"].startswith("sum("):
            yield "the total over all pods is divided among them, and so it must be a sum"
        if metadata["query"].count("parseq_") != metadata["query"].count(f'{{namespace="{namespace}",job="{JOB}"}}'):
            yield f"each metric must be that of namespace {namespace} and job {JOB}"
    if QUEUE_WAIT not in used:
        yield "does not scale on the wait in the queue"
    if used - {QUEUE_WAIT, LANES_BUSY}:
        yield f"nothing was measured of {sorted(used - {QUEUE_WAIT, LANES_BUSY})} as a signal"


def _rollouts(objects: Sequence[Object]) -> Iterator[str]:
    for deployment in of_kind(objects, "Deployment"):
        strategy = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        if deployment["spec"].get("strategy", {}).get("type", "RollingUpdate") != "RollingUpdate":
            yield f"{name_of(deployment)}: takes all pods before it adds any"
        if strategy.get("maxUnavailable") != 0 or not strategy.get("maxSurge"):
            yield f"{name_of(deployment)}: a rollout must add a pod before it takes one"
        if deployment["spec"].get("minReadySeconds", 0) < 1:
            yield f"{name_of(deployment)}: minReadySeconds is missing"
    for budget in of_kind(objects, "PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable") != 1 or "minAvailable" in budget["spec"]:
            yield f"{name_of(budget)}: nodes must be drained one pod at a time, and can be with a single one"


def _network(objects: Sequence[Object]) -> Iterator[str]:
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if sorted(spec.get("policyTypes", [])) != ["Egress", "Ingress"]:
            yield f"{name_of(policy)}: must rule both ways"
        chosen = [
            workload for workload in workloads(objects) if selects(spec["podSelector"].get("matchLabels"), workload.labels)
        ]
        for rule in spec.get("ingress") or [{}]:
            ports = [port.get("port") for port in rule.get("ports", [])]
            if ports != ["http"] or not all("http" in workload.port_names() for workload in chosen):
                yield f"{name_of(policy)}: lets in on {ports}, not on the port called http only"
            if any(port.get("protocol", "TCP") != "TCP" for port in rule.get("ports", [])):
                yield f"{name_of(policy)}: HTTP is TCP"
        out = {port["port"] for rule in spec.get("egress", []) for port in rule.get("ports", [])}
        if out and out != {53, 443}:
            yield f"{name_of(policy)}: lets out on {sorted(out)}, not on those of DNS and HTTPS"
        fetches = any(workload.pod.get("initContainers") for workload in chosen)
        if bool(spec.get("egress")) != fetches or not all(rule.get("ports") for rule in spec.get("egress", [])):
            yield f"{name_of(policy)}: lets out {spec.get('egress')}"


def _monitoring(objects: Sequence[Object]) -> Iterator[str]:
    for monitor in of_kind(objects, "ServiceMonitor"):
        spec = monitor["spec"]
        chosen = [
            item
            for item in of_kind(objects, "Service")
            if selects(spec["selector"].get("matchLabels"), item["metadata"].get("labels", {}))
        ]
        if not chosen:
            yield f"{name_of(monitor)}: the selector finds no Service"
        for service in chosen:
            names = {port["name"] for port in service["spec"]["ports"]}
            yield from (
                f"{name_of(monitor)}: no port {end.get('port')}" for end in spec["endpoints"] if end.get("port") not in names
            )
            if service["metadata"]["labels"].get(spec.get("jobLabel", "")) != JOB:
                yield f"{name_of(monitor)}: the job would not be called {JOB}"
        for endpoint in spec["endpoints"]:
            if endpoint.get("scheme", "http") != "http" or not 0 < _seconds(endpoint.get("interval", "30s")) <= MAX_SCRAPE_S:
                yield f"{name_of(monitor)}: must scrape by HTTP, and at least every {MAX_SCRAPE_S} s: rules look back 5 minutes"
            path = endpoint.get("path", "/metrics")
            if path != "/metrics" or status_of(path) != OK:
                yield f"{name_of(monitor)}: scrapes {path}, where the app has no metrics"
    for rule in of_kind(objects, "PrometheusRule"):
        expressions = " ".join(str(entry.get("expr")) for group in rule["spec"]["groups"] for entry in group["rules"])
        yield from (f"{name_of(rule)}: there is no metric {name}" for name in unknown_metrics(expressions))
        if rule["spec"]["groups"] != yaml.safe_load(RULES.read_text())["groups"]:
            yield f"{name_of(rule)}: not the groups of docker/prometheus/rules.yml: run python -m tests.deployment.copy_rules"


def _kserve(objects: Sequence[Object]) -> Iterator[str]:
    for item in of_kind(objects, "InferenceService"):
        predictor = item["spec"]["predictor"]
        model = predictor["model"]
        runtimes = [each for each in of_kind(objects, "ServingRuntime") if each["metadata"]["name"] == model.get("runtime")]
        if not runtimes:
            yield f"{name_of(item)}: there is no ServingRuntime {model.get('runtime')}"
        for runtime in runtimes:
            if [container["name"] for container in runtime["spec"]["containers"]] != ["kserve-container"]:
                yield f"{name_of(runtime)}: KServe looks for kserve-container"
            formats = [(each["name"], each.get("version")) for each in runtime["spec"]["supportedModelFormats"]]
            if (model["modelFormat"]["name"], model["modelFormat"].get("version")) not in formats:
                yield f"{name_of(item)}: {model['modelFormat']} is none of the formats of {name_of(runtime)}"
            if model.get("protocolVersion") != "v2" or runtime["spec"].get("protocolVersions") != ["v2"]:
                yield f"{name_of(item)}: the service speaks protocol v2"
            if not model.get("storageUri"):
                yield f"{name_of(item)}: nothing would be in {KSERVE_MODELS}"
        if item["metadata"].get("annotations") != {"serving.kserve.io/deploymentMode": "Standard"}:
            yield f"{name_of(item)}: does not ask for plain Deployments"
        if predictor.get("scaleMetric") != "cpu" or not 0 < predictor.get("scaleTarget", 0) < 100:
            yield f"{name_of(item)}: scales on {predictor.get('scaleTarget')} of {predictor.get('scaleMetric')}"
        if predictor.get("timeout", 0) <= Settings.model_fields["batch_timeout_ms"].default / 1000:
            yield f"{name_of(item)}: its time-out comes before the service's own"
        if not 2 <= predictor.get("minReplicas", 1) < predictor.get("maxReplicas", 0):
            yield f"{name_of(item)}: at least two replicas, and room to grow"
