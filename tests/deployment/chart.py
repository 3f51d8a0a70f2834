"""The Helm chart, as a cluster would get it: rendered by helm."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.deployment import tools
from tests.deployment.manifests import FOLDER, Object

CHART = FOLDER / "chart"
GPU = CHART / "values-gpu.yaml"
NAMESPACE = "parseq"
CHECKSUM = "checksum/settings"
"""The annotation of a pod that changes with its settings; kustomize changes the name of the ConfigMap instead."""
NAMED = {"env", "tolerations", "volumes", "volumeMounts"}
"""Lists whose order means nothing here."""


class ChartError(RuntimeError):
    """Helm refuses; the message is its own."""


def render(values: Mapping[str, Any] | None = None, *files: Path, release: str = "stable") -> list[Object]:
    """The objects of a release; yours to change.

    Args:
        values: What `--set` would say; it comes after the files.
        files: Files of values.
        release: Its name.

    Raises:
        ChartError: The values do not fit the schema, or one another.
    """
    return deepcopy(_render(json.dumps(dict(values or {})), files, release))


@functools.cache
def _render(values: str, files: tuple[Path, ...], release: str) -> list[Object]:
    with TemporaryDirectory() as folder:
        own = Path(folder) / "values.json"
        own.write_text(values)
        options = [word for file in (*files, own) for word in ("--values", str(file))]
        made = _helm("template", release, str(CHART), "--namespace", NAMESPACE, *options)
    return [item for item in yaml.safe_load_all(made) if item]


def lint(*files: Path) -> None:
    """What `helm lint --strict` says of the chart with files of values.

    Raises:
        ChartError: It complains.
    """
    _helm("lint", "--strict", str(CHART), *(word for file in files for word in ("--values", str(file))))


def package(folder: Path) -> Path:
    """The archive that would be published."""
    _helm("package", str(CHART), "--destination", str(folder))
    (archive,) = folder.glob("*.tgz")
    return archive


def _helm(*words: str) -> str:
    done = subprocess.run([*tools.command("helm"), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChartError(done.stderr + done.stdout)
    return done.stdout


def plain(objects: list[Object], names: Mapping[str, str]) -> list[Object]:
    """Objects, made comparable: ordered, and without the two ways to say that settings have changed.

    Args:
        objects: Of either build.
        names: What to call, wherever it is named, an object that the two builds call differently.
    """
    found = [_plain(item, names) for item in objects]
    return sorted(found, key=lambda item: (item["kind"], item["metadata"]["name"]))


def _plain(value: Any, names: Mapping[str, str], field: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _plain(part, names, key) for key, part in value.items() if key != CHECKSUM}
    if isinstance(value, list):
        parts = [_plain(part, names) for part in value]
        return sorted(parts, key=functools.partial(json.dumps, sort_keys=True)) if field in NAMED else parts
    return names.get(value, value) if isinstance(value, str) else value
