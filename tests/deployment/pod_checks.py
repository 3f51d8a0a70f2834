"""What a pod must be: within PodSecurity's profile `restricted`, probed, bounded, configured, and given time to drain."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from service.config import ENV_PREFIX, Settings, env_name
from service.fetch_artifact import URL_VARIABLE
from tests.deployment.manifests import Object, Workload, environment
from tests.fakes import request, toy_runtime

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ENGINE_STOP_S = 1
OK = 200
GATEWAY_IDLE_S = 60
"""After which a gateway closes an idle connection, as the manifests and docs/deployment.md have it."""
RESTRICTED_VOLUMES = {
    "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
PROBES = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
KSERVE_PROBES = {
    "startupProbe": "/v2/health/ready", "readinessProbe": "/v2/health/ready", "livenessProbe": "/v2/health/live",
}  # fmt: skip
"""Of what speaks version 2 of its protocol."""
KSERVE_MODELS = "/mnt/models"
"""Where KServe puts the files of a model."""
FETCH = "service.fetch_artifact"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
LOST_NODE = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
LOST_NODE_S = range(30, 61)
"""How long a pod may stay bound to a node that is not heard of; Kubernetes' own 300 s are long for what starts in seconds."""
DEFAULT_PROGRESS_DEADLINE_S = 600
MIN_START_S = 60
MAX_HANG_S = 120
"""How long a pod that hangs may get requests before the liveness probe ends it."""
MIN_LIVENESS_TIMEOUT_S = 3
"""A busy machine must not look like a dead process."""
MEASURED_LIMITS = {"max_body_bytes": 8 * 2**20, "max_image_pixels": 2**22}
MEASURED_BYTES = 533 * 2**20
MEASURED_ARENAS = "2"
"""What 32 connections needed with these limits and so many arenas of glibc (docs/deployment.md)."""
BODIES = "PARSEQ_MAX_BODIES_BYTES"
MEASURED_BODIES_BYTES = 32 * MEASURED_LIMITS["max_body_bytes"]
READY_BYTES, FULL_QUEUE_BYTES = 120 * 2**20, 178 * 2**20
"""Of a process that has just started, and of one with full requests in the queue and all lanes busy, measured too."""
BYTES_PER_BODY_BYTE = (MEASURED_BYTES - READY_BYTES) / MEASURED_BODIES_BYTES
"""What a byte of bodies in flight costs, with what is made of them: 1.6."""
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def pod_complaints(workload: Workload, objects: Sequence[Object]) -> Iterator[str]:
    """Everything about a workload's pods that does not depend on other objects but their settings."""
    checks = [restricted_complaints, _hardening, _time_to_stop, _lost_nodes]
    for check in checks:
        yield from (f"{workload.name}: {complaint}" for complaint in check(workload, objects))
    for container in workload.pod["containers"]:
        for complaint in (
            *_probes(workload, container),
            *_settings(workload, container, objects),
            *_device(workload, container, objects),
        ):
            yield f"{workload.name}: container {container['name']}: {complaint}"
    for container in workload.containers():
        for complaint in (
            *_resources(container),
            *_shares(container),
            *_image(container),
            *_mounts(workload, container),
            *_command(container, objects),
        ):
            yield f"{workload.name}: container {container['name']}: {complaint}"


def restricted_complaints(workload: Workload, _objects: Sequence[Object] = ()) -> Iterator[str]:
    """What the profile `restricted` would refuse."""
    pod = workload.pod
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key} is not allowed"
    for volume in pod.get("volumes", []):
        yield from (f"volume {volume['name']}: {kind} is not allowed" for kind in volume.keys() - RESTRICTED_VOLUMES)
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls are not allowed here"
    for container in (*workload.containers(), *pod.get("ephemeralContainers", [])):
        yield from (f"container {container['name']}: {text}" for text in _not_restricted(pod, container))


def _not_restricted(pod: Object, container: Object) -> Iterator[str]:
    own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
    effective = shared | own
    capabilities = own.get("capabilities", {})
    if own.get("privileged"):
        yield "privileged is not allowed"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation must be false"
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities must drop ALL"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities may not be added"
    if effective.get("runAsNonRoot") is not True:
        yield "runAsNonRoot must be true"
    if effective.get("runAsUser") == 0:
        yield "runAsUser may not be 0"
    if effective.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile must be RuntimeDefault"
    if own.get("procMount", "Default") != "Default":
        yield "procMount must be the default"
    if effective.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined" or effective.get("seLinuxOptions"):
        yield "the profiles of AppArmor and SELinux are the node's"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort is not allowed"


def _hardening(workload: Workload, _objects: Sequence[Object]) -> Iterator[str]:
    pod = workload.pod
    if pod.get("automountServiceAccountToken") is not False:
        yield "a token is mounted"
    if pod.get("enableServiceLinks") is not False:
        yield "enableServiceLinks must be false: a Service called parseq would set PARSEQ_PORT"
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        if pod.get("securityContext", {}).get(key) != 10001:
            yield f"{key} is not that of the image, 10001"
    for container in workload.containers():
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"container {container['name']}: the root file system can be written"


def _time_to_stop(workload: Workload, objects: Sequence[Object]) -> Iterator[str]:
    grace_s = workload.pod.get("terminationGracePeriodSeconds", 30)
    for container in workload.pod["containers"]:
        delay_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if delay_s < 5:
            yield "without a preStop delay of some seconds requests still arrive when the port is closed"
        drain_s = int(_value(environment(container, objects), "drain_timeout_s"))
        if grace_s <= delay_s + drain_s + ENGINE_STOP_S:
            yield f"grace period {grace_s} s <= preStop {delay_s} s + drain {drain_s} s + {ENGINE_STOP_S} s to end the threads"


def _lost_nodes(workload: Workload, _objects: Sequence[Object]) -> Iterator[str]:
    tolerated = {each["key"]: each for each in workload.pod.get("tolerations", []) if each.get("key") in LOST_NODE}
    for key in LOST_NODE:
        each = tolerated.get(key, {})
        if (each.get("operator"), each.get("effect")) != ("Exists", "NoExecute") or each.get(
            "tolerationSeconds"
        ) not in LOST_NODE_S:
            yield f"{key}: stays with a lost node for another time than {LOST_NODE_S.start} to {LOST_NODE_S.stop - 1} s: {each}"
    local = {volume["name"] for volume in workload.pod.get("volumes", []) if "emptyDir" in volume}
    if set(workload.annotations().get(SAFE_TO_EVICT, "").split(",")) != local:
        yield f"the cluster autoscaler would not remove a node with the volumes {sorted(local)}: {SAFE_TO_EVICT}"


def _probes(workload: Workload, container: Object) -> Iterator[str]:
    for name, path in (KSERVE_PROBES if _of_kserve(workload) else PROBES).items():
        probe = container.get(name, {}).get("httpGet")
        if probe is None:
            yield f"has no {name}"
        elif probe.get("port") not in workload.port_names():
            yield f"{name}: there is no port {probe.get('port')!r}"
        elif probe.get("path") != path:
            yield f"{name}: asks {probe.get('path')}, not {path}"
        elif status_of(path) != OK:
            yield f"{name}: the app answers {path} with {status_of(path)}"
        elif unknown := probe.keys() - {"path", "port", "scheme"}:
            yield f"{name}: {sorted(unknown)} is not what the kubelet's plain request has"
    startup = container.get("startupProbe", {})
    budget_s = startup.get("failureThreshold", 3) * startup.get("periodSeconds", 10)
    deadline_s = workload.owner["spec"].get("progressDeadlineSeconds", DEFAULT_PROGRESS_DEADLINE_S)
    if budget_s >= deadline_s:
        yield f"a start may take {budget_s} s, but a rollout has failed after {deadline_s} s"
    if budget_s < MIN_START_S:
        yield f"a start may take {budget_s} s only"
    liveness = container.get("livenessProbe", {})
    misses = liveness.get("failureThreshold", 3)
    if misses < 2 or liveness.get("timeoutSeconds", 1) < MIN_LIVENESS_TIMEOUT_S:
        yield "the liveness probe takes a slow answer for a dead process"
    if misses * liveness.get("periodSeconds", 10) > MAX_HANG_S:
        yield f"the liveness probe lets a process hang for longer than {MAX_HANG_S} s"


@functools.cache
def status_of(path: str) -> int:
    """What the app answers to a GET, once it is ready."""
    return request(toy_runtime(), "GET", path).status_code


def _settings(workload: Workload, container: Object, objects: Sequence[Object]) -> Iterator[str]:
    found = {name: value for name, value in environment(container, objects).items() if name.startswith(ENV_PREFIX)}
    fields = {env_name(field): field for field in Settings.model_fields}
    for unknown in found.keys() - fields.keys():
        yield f"{unknown} is no setting of the service"
    try:
        # Without the environment of the tests.
        settings = Settings(_env_prefix="NONE_", **{fields[name]: value for name, value in found.items() if name in fields})
    except ValueError as error:
        yield f"the service would not start: {error}"
        return
    if settings.keep_alive_s <= GATEWAY_IDLE_S:
        yield f"PARSEQ_KEEP_ALIVE_S={settings.keep_alive_s}: a gateway may use a connection that was just closed"
    if settings.host != "0.0.0.0":
        yield "PARSEQ_HOST must be 0.0.0.0: nobody outside the pod could connect"
    if [port.get("containerPort") for port in container.get("ports", []) if port.get("name") == "http"] != [settings.port]:
        yield f"the port called http is not PARSEQ_PORT={settings.port}"
    path = settings.artifact.as_posix().rpartition("=")[2]
    if env_name("artifact") in found and not _mounted(container, path) and not (_of_kserve(workload) and path == KSERVE_MODELS):
        yield f"PARSEQ_ARTIFACT={settings.artifact} is in no mounted volume"
    if _of_kserve(workload) and found.get(env_name("artifact")) != f"{{{{.Name}}}}={KSERVE_MODELS}":
        yield f"PARSEQ_ARTIFACT must be what KServe puts into {KSERVE_MODELS}, by the name that its clients know"
    for initial in workload.pod.get("initContainers", []):
        if settings.artifact.as_posix() not in initial.get("args", []):
            yield f"container {initial['name']} does not write PARSEQ_ARTIFACT={settings.artifact}"
        if _volume_at(initial, settings.artifact.as_posix()) != _volume_at(container, settings.artifact.as_posix()):
            yield f"container {initial['name']} writes to another volume than that of PARSEQ_ARTIFACT={settings.artifact}"
    limit = container.get("resources", {}).get("limits", {}).get("memory", "0")
    yield from memory_complaints(_bytes(limit), settings, environment(container, objects).get("MALLOC_ARENA_MAX"))
    yield from bodies_complaints(_bytes(limit), environment(container, objects))
    cache = environment(container, objects).get("XDG_CACHE_HOME", "/tmp")
    if not _mounted(container, f"{cache}/file"):
        yield f"the cache folder {cache} is in no mounted volume, so nothing is remembered"


def _of_kserve(workload: Workload) -> bool:
    return bool(workload.owner["kind"] == "InferenceService")


def _device(workload: Workload, container: Object, objects: Sequence[Object]) -> Iterator[str]:
    provider = environment(container, objects).get("PARSEQ_PROVIDER", "auto")
    limits, requests = (container.get("resources", {}).get(kind, {}) for kind in ("limits", "requests"))
    devices = {name for name in (*limits, *requests) if name not in {"cpu", "memory"}}
    on_gpu = "nvidia.com/gpu" in limits
    if provider not in ({"cuda", "tensorrt"} if on_gpu else {"cpu", "openvino"}):
        yield f"PARSEQ_PROVIDER={provider} does not say strictly what the pod is given"
    if container["image"].endswith("-cpu") == on_gpu:
        yield f"the image {container['image']} is for another device"
    if devices - {"nvidia.com/gpu"} or any(limits.get(name) != requests.get(name) for name in devices):
        yield f"{sorted(devices)}: of GPUs, nvidia.com/gpu, requests and limits must be the same"
    own = [each for each in workload.pod.get("tolerations", []) if each.get("key") not in LOST_NODE]
    tolerated = {each.get("key") for each in own}
    if tolerated != ({"nvidia.com/gpu"} if on_gpu else set()) or on_gpu != ("runtimeClassName" in workload.pod):
        yield "a toleration and a runtime class belong to a pod with a GPU, and to no other"
    if any((each.get("operator"), each.get("effect")) != ("Exists", "NoSchedule") for each in own):
        yield "GPU nodes are closed to new pods, whatever the value"
    if on_gpu and workload.pod.get("runtimeClassName") != "nvidia":
        yield f"{workload.pod.get('runtimeClassName')} is not what the GPU operator calls its runtime class"
    if not str(limits.get("nvidia.com/gpu", "1")).isdigit():
        yield "GPUs come whole"


def _resources(container: Object) -> Iterator[str]:
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        yield from (f"no {kind} of {name}" for name in ("cpu", "memory") if name not in resources.get(kind, {}))
    cpus = resources.get("limits", {}).get("cpu", "0")
    if not cpus.isdigit():
        yield f"the CPU limit {cpus} is no whole number: the service would plan for less"


def _shares(container: Object) -> Iterator[str]:
    """Of every container, since one alone takes the class Guaranteed from the pod, and with it cores of its own."""
    requests, limits = (container.get("resources", {}).get(kind, {}) for kind in ("requests", "limits"))
    for name in ("cpu", "memory"):
        if requests.get(name) != limits.get(name):
            yield f"requests {requests.get(name)} of {name}, but is limited to {limits.get(name)}"


def memory_complaints(limit_bytes: float, settings: Settings, arenas: str | None) -> Iterator[str]:
    """Why a memory limit is not one that was measured to be enough for these settings and so many arenas of glibc."""
    if limit_bytes < MEASURED_BYTES:
        yield f"{limit_bytes:.0f} bytes of memory are less than was measured to be needed, {MEASURED_BYTES}"
    for field, most in MEASURED_LIMITS.items():
        if getattr(settings, field) > most:
            yield f"{env_name(field)}={getattr(settings, field)}: the memory was measured with {most}"
    if arenas != MEASURED_ARENAS:
        yield f"the memory was measured with MALLOC_ARENA_MAX={MEASURED_ARENAS}, not {arenas}"


def bodies_complaints(limit_bytes: float, found: Mapping[str, str]) -> Iterator[str]:
    """Whether all bodies in flight fit the memory limit beside queue and lanes."""
    if BODIES not in found:
        yield f"{BODIES} is not set: nothing bounds what all bodies in flight take"
        return
    needed_bytes = FULL_QUEUE_BYTES + BYTES_PER_BODY_BYTE * float(found[BODIES])
    if needed_bytes > limit_bytes:
        yield f"{BODIES}={found[BODIES]} may need {needed_bytes:.0f} bytes of memory, of {limit_bytes:.0f}"
    largest_bytes = int(_value(dict(found), "max_body_bytes"))
    if float(found[BODIES]) < 4 * largest_bytes:
        yield f"{BODIES}={found[BODIES]} has no room for a few bodies of {largest_bytes} bytes"


def _bytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * UNITS.get(unit, 0)


def _image(container: Object) -> Iterator[str]:
    tag = container["image"].rsplit("/", 1)[-1].partition(":")[2]
    if tag not in {VERSION, f"{VERSION}-cpu"}:
        yield f"the image {container['image']} is not of version {VERSION} (pyproject.toml)"


def _command(container: Object, objects: Sequence[Object]) -> Iterator[str]:
    words, found = [*container.get("command", []), *container.get("args", [])], environment(container, objects)
    for name in re.findall(r"\$\((\w+)\)", " ".join(words)):
        if name not in found:
            yield f"the variable {name} of its command is not set"
    if "-m" in words and find_spec(words[words.index("-m") + 1]) is None:
        yield f"there is no module {words[words.index('-m') + 1]}"
    if FETCH in words:
        given = [re.sub(r"\$\((\w+)\)", lambda name: found.get(name[1], ""), word) for word in container.get("args", [])]
        if len(given) != 2 or not re.fullmatch(r"[0-9a-f]{64}", given[0]):
            yield f"{FETCH} takes SHA256 and destination, and no URL, which everybody could read: {given}"
        if "://" not in found.get(URL_VARIABLE, ""):
            yield f"{FETCH} finds no URL in {URL_VARIABLE}"
    if words and words[0] != "python3":
        yield f"the images promise python3, not {words[0]}"


def _mounts(workload: Workload, container: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"there is no volume {mount['name']}"


def _mounted(container: Object, path: str) -> bool:
    return _volume_at(container, path) is not None


def _volume_at(container: Object, path: str) -> str | None:
    """The volume that holds a file; `None` for one in the image."""
    mounts = {mount["mountPath"]: str(mount["name"]) for mount in container.get("volumeMounts", [])}
    return next((name for place, name in mounts.items() if PurePosixPath(path).is_relative_to(place)), None)


def _value(found: dict[str, str], field: str) -> Any:
    return found.get(env_name(field), Settings.model_fields[field].default)
