"""Do the checks of the manifests see what they are for? Each way of breaking one must bring a complaint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.core.metrics import Metrics
from tests.deployment import promql
from tests.deployment.apply_checks import apply_complaints
from tests.deployment.manifest_checks import complaints
from tests.deployment.manifests import Object, in_cluster, of_kind
from tests.deployment.pod_checks import bodies_complaints

ALL = "examples/everything"
"""Not a folder: the objects of overlays with gateway, monitoring and KEDA on top of the CPU."""


class Cluster:
    """A build, by short names."""

    def __init__(self, target: str) -> None:
        if target == ALL:
            self.objects = in_cluster("overlays/keda")
            for overlay, kinds in (("gateway", ["HTTPRoute"]), ("monitoring", ["ServiceMonitor", "PrometheusRule"])):
                self.objects += of_kind(in_cluster(f"overlays/{overlay}"), *kinds)
        else:
            self.objects = in_cluster(target)

    def __getitem__(self, kind: str) -> Object:
        (item,) = of_kind(self.objects, kind)
        return item

    def remove(self, kind: str) -> None:
        self.objects.remove(self[kind])

    @property
    def settings(self) -> Object:
        """The one of several ConfigMaps that is the artifact's."""
        (item,) = (item for item in of_kind(self.objects, "ConfigMap") if "ARTIFACT_SHA256" in item["data"])
        return item

    @property
    def pod(self) -> Object:
        spec: Object = self["Deployment"]["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        container: Object = self.pod["containers"][0]
        return container

    @property
    def trigger(self) -> Object:
        trigger: Object = self["ScaledObject"]["spec"]["triggers"][0]
        return trigger

    def rename(self, old: str, new: str, value: Any = None) -> None:
        """Replace a text wherever it stands in the objects (or in `value`)."""
        value = self.objects if value is None else value
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            if isinstance(value[key], dict | list):
                self.rename(old, new, value[key])
            elif isinstance(value[key], str):
                value[key] = value[key].replace(old, new)

    def rename_value(self, key: str, new: str, value: Object) -> None:
        """Change a field wherever it stands, one level down."""
        for inner in value.values():
            put(inner, key, new)

    def rename_key(self, old: str, new: str, value: Object) -> None:
        """Misspell a field wherever it stands, one level down."""
        for inner in value.values():
            move(inner, old, new)


def move(value: Object, old: str, new: str) -> None:
    """Misspell a field."""
    value[new] = value.pop(old)


def put(value: Any, key: Any, new: Any) -> None:
    assert value.get(key) != new if isinstance(value, dict) else value[key] != new
    value[key] = new


def drop(value: Object, key: str) -> None:
    del value[key]


Break = Callable[[Cluster], Any]

FIELDS: dict[str, Break] = {
    "misspelt field of the container": lambda c: move(c.container, "readinessProbe", "readynessProbe"),
    "misspelt field of the pod": lambda c: move(c.pod, "terminationGracePeriodSeconds", "terminationGracePeriodSecond"),
    "misspelt field of the Deployment": lambda c: move(c["Deployment"]["spec"], "minReadySeconds", "minReadySecond"),
    "misspelt field of the Service": lambda c: move(c["Service"]["spec"]["ports"][0], "targetPort", "targetport"),
    "misspelt field of the NetworkPolicy": lambda c: move(c["NetworkPolicy"]["spec"], "policyTypes", "policyType"),
    "misspelt field of the PodDisruptionBudget": lambda c: move(
        c["PodDisruptionBudget"]["spec"], "maxUnavailable", "maxUnavailble"
    ),
    "misspelt field of the HTTPRoute": lambda c: move(c["HTTPRoute"]["spec"]["rules"][0]["timeouts"], "request", "requests"),
    "misspelt field of the ServiceMonitor": lambda c: move(
        c["ServiceMonitor"]["spec"]["endpoints"][0], "interval", "intervall"
    ),
    "misspelt field of the PrometheusRule": lambda c: move(c["PrometheusRule"]["spec"]["groups"][0]["rules"][0], "expr", "exp"),
    "misspelt field of the ScaledObject": lambda c: move(c["ScaledObject"]["spec"], "maxReplicaCount", "maxReplicas"),
    "misspelt setting of a trigger": lambda c: move(c.trigger["metadata"], "threshold", "treshold"),
    "a number as text": lambda c: put(c["Deployment"]["spec"], "minReadySeconds", "5"),
    "a value that is none of its kind": lambda c: put(
        c.pod["topologySpreadConstraints"][0], "whenUnsatisfiable", "ScheduleAnyways"
    ),
    "a duration that is none": lambda c: put(c["HTTPRoute"]["spec"]["rules"][0]["timeouts"], "request", "1 minute"),
    "an API version that is gone": lambda c: put(c["PodDisruptionBudget"], "apiVersion", "policy/v1beta1"),
    "a quantity that is none": lambda c: put(c.container["resources"]["limits"], "memory", "768Mb"),
    "a size that is none": lambda c: put(c.pod["volumes"][0]["emptyDir"], "sizeLimit", "64 Mi"),
    "a label key to match that no pod has": lambda c: put(
        c.pod["topologySpreadConstraints"][0], "matchLabelKeys", ["pod-template-hsh"]
    ),
    "an application protocol that is none": lambda c: put(c["Service"]["spec"]["ports"][0], "appProtocol", "htpp"),
    "a kind that nobody knows": lambda c: put(c["Service"], "kind", "Servce"),
    "a behaviour that KEDA does not know": lambda c: put(c["ScaledObject"]["spec"]["fallback"], "behavior", "keep"),
}

REFERENCES: dict[str, Break] = {
    "targetPort by a wrong name": lambda c: put(c["Service"]["spec"]["ports"][0], "targetPort", "web"),
    "port of the container by another name": lambda c: put(c.container["ports"][0], "name", "web"),
    "port of a probe by a wrong name": lambda c: put(c.container["livenessProbe"]["httpGet"], "port", "htpp"),
    "path of a probe": lambda c: put(c.container["readinessProbe"]["httpGet"], "path", "/healthz"),
    "liveness that asks for readiness": lambda c: put(c.container["livenessProbe"]["httpGet"], "path", "/readyz"),
    "no startup probe": lambda c: drop(c.container, "startupProbe"),
    "selector of the Service": lambda c: put(c["Service"]["spec"]["selector"], "app.kubernetes.io/name", "parseq"),
    "selector of the PodDisruptionBudget": lambda c: put(
        c["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"], "app.kubernetes.io/name", "parseq"
    ),
    "selector of the NetworkPolicy": lambda c: put(
        c["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"], "app.kubernetes.io/instance", "other"
    ),
    "selector of the ServiceMonitor": lambda c: put(
        c["ServiceMonitor"]["spec"]["selector"]["matchLabels"], "app.kubernetes.io/name", "parseq"
    ),
    "selector of the spread": lambda c: put(
        c.pod["topologySpreadConstraints"][1]["labelSelector"]["matchLabels"], "app.kubernetes.io/name", "parseq"
    ),
    "label of the pods": lambda c: put(
        c["Deployment"]["spec"]["template"]["metadata"]["labels"], "app.kubernetes.io/name", "x"
    ),
    "no disruption budget": lambda c: c.remove("PodDisruptionBudget"),
    "target of the ScaledObject": lambda c: put(c["ScaledObject"]["spec"]["scaleTargetRef"], "name", "parseq"),
    "port of the ServiceMonitor": lambda c: put(c["ServiceMonitor"]["spec"]["endpoints"][0], "port", "metrics"),
    "path of the ServiceMonitor": lambda c: put(c["ServiceMonitor"]["spec"]["endpoints"][0], "path", "/metric"),
    "label that names the job": lambda c: put(c["ServiceMonitor"]["spec"], "jobLabel", "app"),
    "port of the NetworkPolicy": lambda c: put(c["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0], "port", "web"),
    "a NetworkPolicy that lets everything out": lambda c: put(c["NetworkPolicy"]["spec"], "egress", [{}]),
    "a NetworkPolicy that lets everything in": lambda c: put(c["NetworkPolicy"]["spec"], "ingress", [{}]),
    "backend of the HTTPRoute": lambda c: put(c["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0], "name", "parseq"),
    "port of the backend": lambda c: put(c["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0], "port", 8000),
    "ConfigMap by a wrong name": lambda c: put(c.container["envFrom"][0]["configMapRef"], "name", "parseq-service"),
    "ServiceAccount by a wrong name": lambda c: put(c.pod, "serviceAccountName", "default-2"),
    "no namespace": lambda c: c.remove("Namespace"),
    "another namespace": lambda c: put(c["Service"]["metadata"], "namespace", "default"),
    "rules that differ": lambda c: put(c["PrometheusRule"]["spec"]["groups"][0]["rules"][0], "expr", "vector(1)"),
    "another protocol of the Service": lambda c: put(c["Service"]["spec"]["ports"][0], "protocol", "UDP"),
    "another protocol of the NetworkPolicy": lambda c: put(
        c["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0], "protocol", "UDP"
    ),
    "a probe by TLS": lambda c: put(c.container["livenessProbe"]["httpGet"], "scheme", "HTTPS"),
    "a budget that lets no node be drained": lambda c: put(c["PodDisruptionBudget"]["spec"], "maxUnavailable", 0),
    "a budget that lets all go": lambda c: put(c["PodDisruptionBudget"]["spec"], "maxUnavailable", "100%"),
    "a volume that is not there": lambda c: put(c.container["volumeMounts"][0], "name", "temp"),
}

SERVICE: dict[str, Break] = {
    "a setting that does not exist": lambda c: move(c["ConfigMap"]["data"], "PARSEQ_DRAIN_TIMEOUT_S", "PARSEQ_DRAIN_TIMEOUT"),
    "a setting that cannot be used": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_MAX_BODY_BYTES", "8Mi"),
    "another port than that of the container": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_PORT", "9000"),
    "listening to the pod itself only": lambda c: drop(c["ConfigMap"]["data"], "PARSEQ_HOST"),
    "a provider that may fall back": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_PROVIDER", "auto"),
    "the image of another device": lambda c: put(c.container, "image", c.container["image"].removesuffix("-cpu")),
    "an image of another version": lambda c: put(c.container, "image", "parseq-service:9.9.9-cpu"),
    "an image without a version": lambda c: put(c.container, "image", "parseq-service"),
    "a drain longer than the grace period": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_DRAIN_TIMEOUT_S", "60"),
    "a grace period of just preStop and drain": lambda c: put(c.pod, "terminationGracePeriodSeconds", 40),
    "no preStop": lambda c: drop(c.container, "lifecycle"),
    "a start longer than a rollout": lambda c: put(c.container["startupProbe"], "failureThreshold", 300),
    "a connection closed before the gateway does": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_KEEP_ALIVE_S", "5"),
    "a time-out before the service's own": lambda c: put(
        c["HTTPRoute"]["spec"]["rules"][0]["timeouts"], "backendRequest", "10s"
    ),
    "metrics for everybody": lambda c: put(c["HTTPRoute"]["spec"]["rules"][0]["matches"][0]["path"], "value", "/"),
    "a surge that loses a pod": lambda c: put(c["Deployment"]["spec"]["strategy"]["rollingUpdate"], "maxUnavailable", 1),
    "half a core": lambda c: put(c.container["resources"]["limits"], "cpu", "1500m"),
    "no time to start": lambda c: put(c.container["startupProbe"], "failureThreshold", 1),
    "a slow answer taken for a dead process": lambda c: put(c.container["livenessProbe"], "failureThreshold", 1),
    "a liveness time-out of a moment": lambda c: put(c.container["livenessProbe"], "timeoutSeconds", 1),
    "a liveness probe once in ten minutes": lambda c: put(c.container["livenessProbe"], "periodSeconds", 600),
    "all pods taken at once": lambda c: put(c["Deployment"]["spec"]["strategy"], "type", "Recreate"),
    "more requested than allowed": lambda c: put(c.container["resources"]["requests"], "memory", "2Gi"),
    "fewer cores requested than allowed": lambda c: put(c.container["resources"]["requests"], "cpu", "1"),
    "milli-bytes": lambda c: c.rename("768Mi", "768m", c.container["resources"]),
    "less memory than was measured": lambda c: c.rename("768Mi", "256Mi", c.container["resources"]),
    "larger bodies than were measured": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_MAX_BODY_BYTES", "33554432"),
    "more bodies in flight than fit": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_MAX_BODIES_BYTES", "734003200"),
    "any number of bodies in flight": lambda c: drop(c["ConfigMap"]["data"], "PARSEQ_MAX_BODIES_BYTES"),
    "larger pictures than were measured": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_MAX_IMAGE_PIXELS", "8388608"),
    "a misspelt variable of glibc": lambda c: put(c.container["env"][0], "name", "MALLOC_ARENAS_MAX"),
    "more replicas at least than at most": lambda c: put(c["ScaledObject"]["spec"], "minReplicaCount", 20),
    "no replicas at night": lambda c: put(c["ScaledObject"]["spec"], "minReplicaCount", 0),
    "a fallback to fewer": lambda c: put(c["ScaledObject"]["spec"]["fallback"], "replicas", 1),
    "no memory limit": lambda c: drop(c.container["resources"]["limits"], "memory"),
    "replicas beside a scaler": lambda c: put(c["Deployment"]["spec"], "replicas", 3),
    "two scalers": lambda c: c.objects.append(Cluster("overlays/cpu")["HorizontalPodAutoscaler"]),
    "a metric that does not exist": lambda c: c.rename(
        "parseq_predicted_wait_seconds", "parseq_predicted_wait", c.trigger["metadata"]
    ),
    "scaling on something else": lambda c: c["ScaledObject"]["spec"]["triggers"].pop(0),
    "scaling on CPU": lambda c: put(c.trigger, "type", "cpu"),
    "scaling on another namespace": lambda c: c.rename('namespace="parseq"', 'namespace="other"', c.trigger["metadata"]),
    "a threshold that is never reached": lambda c: put(c.trigger["metadata"], "threshold", "10"),
    "a mean that is divided once more": lambda c: c.rename("sum(avg_over", "avg(avg_over", c.trigger["metadata"]),
    "another half of a histogram": lambda c: c.rename(
        "_seconds_sum", "_seconds_count", c["ScaledObject"]["spec"]["triggers"][1]
    ),
    "a Prometheus without a scheme": lambda c: put(c.trigger["metadata"], "serverAddress", "prometheus-operated:9090"),
    "a fallback at once": lambda c: put(c["ScaledObject"]["spec"]["fallback"], "failureThreshold", 0),
    "a time-out of 40 minutes": lambda c: c["HTTPRoute"]["spec"]["rules"][0].update(
        timeouts={"request": "60m", "backendRequest": "40m"}
    ),
    "one path instead of all below it": lambda c: put(
        c["HTTPRoute"]["spec"]["rules"][0]["matches"][0]["path"], "type", "Exact"
    ),
    "a Gateway in the wrong namespace": lambda c: drop(c["HTTPRoute"]["spec"]["parentRefs"][0], "namespace"),
    "a backend that gets nothing": lambda c: put(c["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0], "weight", 0),
    "a scrape every quarter of an hour": lambda c: put(c["ServiceMonitor"]["spec"]["endpoints"][0], "interval", "15m"),
    "a scrape by TLS": lambda c: put(c["ServiceMonitor"]["spec"]["endpoints"][0], "scheme", "https"),
    "replicas given back to the default": lambda c: c["Deployment"]["spec"].update(replicas=None),
    "a strategy without a type": lambda c: drop(c["Deployment"]["spec"]["strategy"], "type"),
    "a list that storage drops": lambda c: put(c["NetworkPolicy"]["spec"], "egress", []),
    "a list of the pod that storage drops": lambda c: put(c.pod, "imagePullSecrets", []),
    "an annotation that storage drops": lambda c: put(c["Service"]["metadata"], "annotations", {}),
    "a backend without its default weight": lambda c: drop(c["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0], "weight"),
    "a backend without its default group": lambda c: drop(c["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0], "group"),
    "a parent without its default kind": lambda c: drop(c["HTTPRoute"]["spec"]["parentRefs"][0], "kind"),
    "an interval that only counts from zero": lambda c: put(c["ScaledObject"]["spec"], "pollingInterval", 15),
    "a pod that waits 5 minutes for its node": lambda c: c.pod["tolerations"].pop(),
    "a pod that waits long for its node": lambda c: put(c.pod["tolerations"][0], "tolerationSeconds", 300),
    "a pod that waits for ever": lambda c: drop(c.pod["tolerations"][1], "tolerationSeconds"),
    "a pod that does not wait for a short loss": lambda c: put(c.pod["tolerations"][1], "tolerationSeconds", 0),
    "a volume that keeps the node": lambda c: drop(c["Deployment"]["spec"]["template"]["metadata"], "annotations"),
    "an empty answer counts as none": lambda c: drop(c.trigger["metadata"], "ignoreNullValues"),
    "no fallback": lambda c: drop(c["ScaledObject"]["spec"], "fallback"),
}

SECURITY: dict[str, Break] = {
    "no securityContext of the pod": lambda c: drop(c.pod, "securityContext"),
    "no securityContext of the container": lambda c: drop(c.container, "securityContext"),
    "root": lambda c: put(c.pod["securityContext"], "runAsUser", 0),
    "root by leave": lambda c: put(c.container["securityContext"], "runAsNonRoot", False),
    "no seccomp": lambda c: drop(c.pod["securityContext"], "seccompProfile"),
    "a seccomp profile of the container's own": lambda c: put(
        c.container["securityContext"], "seccompProfile", {"type": "Unconfined"}
    ),
    "escalation": lambda c: drop(c.container["securityContext"], "allowPrivilegeEscalation"),
    "capabilities kept": lambda c: put(c.container["securityContext"]["capabilities"], "drop", ["NET_RAW"]),
    "capabilities added": lambda c: put(c.container["securityContext"]["capabilities"], "add", ["SYS_NICE"]),
    "privileged": lambda c: put(c.container["securityContext"], "privileged", True),
    "a writable root": lambda c: put(c.container["securityContext"], "readOnlyRootFilesystem", False),
    "the node's network": lambda c: put(c.pod, "hostNetwork", True),
    "a port of the node": lambda c: put(c.container["ports"][0], "hostPort", 8000),
    "a folder of the node": lambda c: c.pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "a token in the pod": lambda c: drop(c.pod, "automountServiceAccountToken"),
    "a token of the account": lambda c: put(c["ServiceAccount"], "automountServiceAccountToken", True),
    "a namespace that enforces less": lambda c: put(
        c["Namespace"]["metadata"]["labels"], "pod-security.kubernetes.io/enforce", "baseline"
    ),
    "a misspelt mode of PodSecurity": lambda c: move(
        c["Namespace"]["metadata"]["labels"], "pod-security.kubernetes.io/warn", "pod-security.kubernetes.io/warning"
    ),
    "variables for each Service": lambda c: drop(c.pod, "enableServiceLinks"),
}

GPU: dict[str, Break] = {
    "no GPU asked for": lambda c: drop(c.container["resources"]["limits"], "nvidia.com/gpu"),
    "a GPU by another name": lambda c: c.rename_key("nvidia.com/gpu", "nvidia.com/gpus", c.container["resources"]),
    "a node that refuses the pod": lambda c: put(c.pod["tolerations"][0], "key", "nvidia.com/gpus"),
    "a taint tolerated by value": lambda c: put(c.pod["tolerations"][0], "operator", "Equal"),
    "a taint of another effect": lambda c: put(c.pod["tolerations"][0], "effect", "NoExecute"),
    "a runtime class by another name": lambda c: put(c.pod, "runtimeClassName", "nvdia"),
    "half a GPU": lambda c: c.rename_value("nvidia.com/gpu", "0.5", c.container["resources"]),
    "no runtime class": lambda c: drop(c.pod, "runtimeClassName"),
    "a claim by a wrong name": lambda c: put(c["PersistentVolumeClaim"]["metadata"], "name", "cache"),
    "a claim on nothing": lambda c: c.rename_key("storage", "storge", c["PersistentVolumeClaim"]["spec"]["resources"]),
    "a mode of access that is none": lambda c: put(c["PersistentVolumeClaim"]["spec"], "accessModes", ["ReadWriteAll"]),
    "the provider of another device": lambda c: put(c["ConfigMap"]["data"], "PARSEQ_PROVIDER", "cpu"),
    "a cache that is not kept": lambda c: c.rename("/cache", "/nowhere", c.container["env"]),
    "too little time for a rollout": lambda c: drop(c["Deployment"]["spec"], "progressDeadlineSeconds"),
    "replicas that an apply would set back": lambda c: put(c["Deployment"]["spec"], "replicas", 1),
    "a pod with a GPU that waits for its lost node": lambda c: c.pod["tolerations"].pop(2),
}

HPA: dict[str, Break] = {
    "target": lambda c: put(c["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"], "name", "parseq"),
    "misspelt field": lambda c: move(c["HorizontalPodAutoscaler"]["spec"], "minReplicas", "minReplica"),
    "misspelt field of the behaviour": lambda c: move(
        c["HorizontalPodAutoscaler"]["spec"]["behavior"], "scaleDown", "scaledown"
    ),
    "misspelt field of a policy": lambda c: move(
        c["HorizontalPodAutoscaler"]["spec"]["behavior"]["scaleUp"]["policies"][0], "periodSeconds", "periodSecond"
    ),
    "another version of the target": lambda c: put(
        c["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"], "apiVersion", "apps/v2"
    ),
    "a window longer than any": lambda c: put(
        c["HorizontalPodAutoscaler"]["spec"]["behavior"]["scaleDown"], "stabilizationWindowSeconds", 30_000
    ),
    "a period longer than any": lambda c: put(
        c["HorizontalPodAutoscaler"]["spec"]["behavior"]["scaleUp"]["policies"][0], "periodSeconds", 6000
    ),
    "more at least than at most": lambda c: put(c["HorizontalPodAutoscaler"]["spec"], "minReplicas", 20),
    "a target that is never met": lambda c: put(
        c["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["resource"]["target"], "averageUtilization", 600
    ),
    "a target that is no utilization": lambda c: move(
        c["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["resource"]["target"], "averageUtilization", "averageValue"
    ),
    "a resource that is none": lambda c: put(c["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["resource"], "name", "cpus"),
}

OTHER_MODEL: dict[str, Break] = {
    "an artifact where none is put": lambda c: c.rename("/artifact/model.onnx", "/artifact/m.onnx", c.pod),
    "an artifact outside the volume": lambda c: c.rename("/artifact/model.onnx", "/model.onnx"),
    "a variable by a wrong name": lambda c: c.rename("ARTIFACT_SHA256", "ARTIFACT_SHA", c.pod),
    "arguments in another order": lambda c: c.pod["initContainers"][0]["args"].reverse(),
    "a URL among the arguments": lambda c: c.pod["initContainers"][0]["args"].insert(0, "$(ARTIFACT_URL)"),
    "a URL in a ConfigMap": lambda c: put(c.settings["data"], "ARTIFACT_URL", "https://models.example/m.onnx?signature=1"),
    "a URL by another name in a ConfigMap": lambda c: put(c.settings["data"], "FROM", "https://models.example/m.onnx"),
    "a Secret by a wrong name": lambda c: put(c.pod["initContainers"][0]["envFrom"][1]["secretRef"], "name", "parseq-artifact"),
    "a Secret that is not there": lambda c: c.remove("Secret"),
    "a Secret without a URL": lambda c: c.rename_key("ARTIFACT_URL", "URL", {"data": c["Secret"]["data"]}),
    "an init container that asks for less than it may use": lambda c: put(
        c.pod["initContainers"][0]["resources"]["requests"], "cpu", "100m"
    ),
    "an init container with more memory than it asks for": lambda c: put(
        c.pod["initContainers"][0]["resources"]["limits"], "memory", "256Mi"
    ),
    "a volume that keeps the node": lambda c: put(
        c["Deployment"]["spec"]["template"]["metadata"]["annotations"],
        "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
        "tmp",
    ),
    "a volume mounted elsewhere": lambda c: put(c.pod["initContainers"][0]["volumeMounts"][0], "mountPath", "/artefact"),
    "an interpreter that is not in the image": lambda c: put(c.pod["initContainers"][0]["command"], 0, "python"),
    "a way out on another port": lambda c: put(c["NetworkPolicy"]["spec"]["egress"][0]["ports"][2], "port", 444),
    "a program that is not in the image": lambda c: c.rename("service.fetch_artifact", "service.fetch", c.pod),
    "an init container with rights": lambda c: drop(c.pod["initContainers"][0], "securityContext"),
    "an init container of another version": lambda c: put(c.pod["initContainers"][0], "image", "parseq-service"),
    "an init container that reaches nobody": lambda c: drop(c["NetworkPolicy"]["spec"], "egress"),
}

KSERVE: dict[str, Break] = {
    "container by another name": lambda c: put(c["ServingRuntime"]["spec"]["containers"][0], "name", "kserv-container"),
    "scaling on nothing": lambda c: put(c["InferenceService"]["spec"]["predictor"], "scaleMetric", "cpus"),
    "a mode that is none": lambda c: c.rename("Standard", "Standrd", c["InferenceService"]["metadata"]["annotations"]),
    "a time-out before the service's own": lambda c: put(c["InferenceService"]["spec"]["predictor"], "timeout", 20),
    "more at least than at most": lambda c: put(c["InferenceService"]["spec"]["predictor"], "minReplicas", 20),
    "misspelt field": lambda c: move(c["InferenceService"]["spec"]["predictor"], "minReplicas", "minReplica"),
    "pods that wait for a lost node": lambda c: drop(c["InferenceService"]["spec"]["predictor"], "tolerations"),
    "a volume that keeps the node": lambda c: drop(c["InferenceService"]["spec"]["predictor"], "annotations"),
    "misspelt field of the container": lambda c: move(
        c["ServingRuntime"]["spec"]["containers"][0], "livenessProbe", "liveProbe"
    ),
    "a runtime by another name": lambda c: put(c["InferenceService"]["spec"]["predictor"]["model"], "runtime", "parseq"),
    "another format": lambda c: put(c["InferenceService"]["spec"]["predictor"]["model"]["modelFormat"], "name", "onnx"),
    "another protocol": lambda c: put(c["ServingRuntime"]["spec"], "protocolVersions", ["v1"]),
    "no files": lambda c: drop(c["InferenceService"]["spec"]["predictor"]["model"], "storageUri"),
    "a name that no client knows": lambda c: put(
        c["ServingRuntime"]["spec"]["containers"][0]["env"][0], "value", "/mnt/models"
    ),
    "a probe that is not of the protocol": lambda c: put(
        c["ServingRuntime"]["spec"]["containers"][0]["livenessProbe"]["httpGet"], "path", "/livez"
    ),
    "misspelt field of the runtime": lambda c: move(c["ServingRuntime"]["spec"], "protocolVersions", "protocolVersion"),
    "a grace period too short": lambda c: put(c["InferenceService"]["spec"]["predictor"], "terminationGracePeriodSeconds", 30),
}

GROUPS = [(ALL, FIELDS), (ALL, REFERENCES), (ALL, SERVICE), (ALL, SECURITY)]
GROUPS += [("overlays/gpu", GPU), ("overlays/cpu", HPA), ("examples/other-model", OTHER_MODEL), ("examples/kserve", KSERVE)]
CASES = [
    pytest.param(target, change, id=f"{target.rpartition('/')[2]}: {name}")
    for target, group in GROUPS
    for name, change in group.items()
]


def test_what_is_broken_below_is_right_before() -> None:
    assert complaints(Cluster(ALL).objects) == []


@pytest.mark.parametrize(("target", "change"), CASES)
def test_a_broken_manifest_brings_a_complaint(target: str, change: Break) -> None:
    cluster = Cluster(target)
    change(cluster)
    assert complaints(cluster.objects)


@pytest.mark.parametrize(
    ("limit_mib", "bodies_mib", "right"),
    [(768, 256, True), (768, 340, True), (768, 400, False), (512, 256, False), (768, 16, False)],
)
def test_bodies_in_flight_must_fit_beside_queue_and_lanes(limit_mib: int, bodies_mib: int, right: bool) -> None:
    found = {"PARSEQ_MAX_BODY_BYTES": "8388608", "PARSEQ_MAX_BODIES_BYTES": str(bodies_mib * 2**20)}
    assert (list(bodies_complaints(limit_mib * 2**20, found)) == []) == right


def test_a_metric_renamed_in_the_code_brings_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(self: Metrics, name: str, *arguments: Any) -> Any:
        return original(self, name.replace("predicted_wait", "expected_wait"), *arguments)

    original = Metrics._gauge
    monkeypatch.setattr(Metrics, "_gauge", renamed)
    promql.known_metrics.cache_clear()
    found: Sequence[str] = complaints(Cluster(ALL).objects)
    promql.known_metrics.cache_clear()
    assert any("parseq_predicted_wait_seconds" in complaint for complaint in found)


@pytest.mark.parametrize("label", ["app.kubernetes.io/name", "app.kubernetes.io/instance"])
def test_an_object_that_the_selector_would_not_find_brings_a_complaint(label: str) -> None:
    # Of every kind that is there. They are not parameters: kustomize would run whenever tests are collected.
    for target in (ALL, "overlays/gpu", "examples/other-model"):
        kinds = {item["kind"] for item in Cluster(target).objects}
        assert kinds
        for kind in kinds:
            cluster = Cluster(target)
            del of_kind(cluster.objects, kind)[0]["metadata"]["labels"][label]
            complained = apply_complaints(cluster.objects)
            assert any(kind in complaint and "does not find" in complaint for complaint in complained), (target, kind)


def test_pods_of_a_canary_that_the_first_service_would_find_bring_a_complaint() -> None:
    objects = in_cluster("examples/canary")
    for item in of_kind(objects, "Deployment", "Service"):
        item["metadata"]["labels"]["app.kubernetes.io/instance"] = "stable"
    for item in of_kind(objects, "Deployment"):
        item["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] = "stable"
    assert any("finds" in complaint for complaint in complaints(objects))
