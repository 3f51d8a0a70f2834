"""The hash-pinned requirements of the images against pyproject.toml and the versions that the tests run with."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployment.dockerfile import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
IN_IMAGES = {"cpu": ("read", "tracing"), "gpu": ("tracing",)}
"""Extras, but for `gpu`, of which the base image has most. Not `cpu`: pyarrow, for parseq-bulk, is larger than all the rest."""
RUNTIMES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}
both = pytest.mark.parametrize("kind", RUNTIMES)


def read(name: str) -> list[str]:
    """The requirements of a file in docker/, each with its hashes on one line, without comments."""
    lines = (ROOT / "docker" / name).read_text().replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pins(name: str) -> dict[str, str]:
    """Version by package, of those that are installed here: tqdm wants another one on Windows."""
    found = {}
    for line in read(name):
        requirement = Requirement(line.partition("--hash")[0])
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        found[canonicalize_name(requirement.name)] = pin.version
    return found


def versions_of_the_tests() -> dict[str, str]:
    """Version by package, of constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def needed(requirements: list[str]) -> set[str]:
    """The packages of requirements and all that these need, as installed here."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        extras = requirement.extras or {""}
        waiting.extend(
            each
            for each in map(Requirement, requires(name) or [])
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
        )
    return found


@pytest.mark.parametrize("name", ["requirements-build.txt", "requirements-cpu.txt", "requirements-gpu.txt"])
def test_every_requirement_is_one_version_with_its_hashes(name: str) -> None:
    assert read(name)
    for line in read(name):
        assert re.fullmatch(r"[\w.-]+==\S+( ; [^-]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", line), line


@both
def test_the_versions_are_those_that_the_tests_run_with(kind: str) -> None:
    versions = versions_of_the_tests()
    for name, version in pins(f"requirements-{kind}.txt").items():
        assert version == versions["onnxruntime" if name == RUNTIMES[kind] else name], name


@both
def test_what_pyproject_asks_for_is_met(kind: str) -> None:
    found = pins(f"requirements-{kind}.txt")
    extras = {*IN_IMAGES[kind], *({"gpu"} if kind == "gpu" else ())}
    for line in PYPROJECT["project"]["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]:
        requirement = Requirement(line)
        assert found[canonicalize_name(requirement.name)] in requirement.specifier, line


@both
def test_there_is_nothing_missing_and_nothing_else(kind: str) -> None:
    """Fails, too, when a dependency was dropped; then the files are to be made anew with the command at their top."""
    extras = [line for extra in ("read", "tracing") if extra in IN_IMAGES[kind] for line in EXTRAS[extra]]
    runtime = [line for line in EXTRAS["read"] if line.startswith("onnxruntime")]
    wanted = needed(PYPROJECT["project"]["dependencies"] + extras + runtime) - {"onnxruntime"} | {RUNTIMES[kind]}
    assert pins(f"requirements-{kind}.txt").keys() == wanted


def test_the_build_has_what_pyproject_asks_for() -> None:
    found = pins("requirements-build.txt")
    wanted = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]
    assert {canonicalize_name(requirement.name) for requirement in wanted} == found.keys()
    assert all(found[canonicalize_name(requirement.name)] in requirement.specifier for requirement in wanted)


@both
def test_no_path_or_index_of_a_machine_is_in_them(kind: str) -> None:
    text = (ROOT / "docker" / f"requirements-{kind}.txt").read_text()
    assert not re.search(r"://|find-links|index-url| /\w", text)


@pytest.mark.parametrize("name", ["requirements-build.txt", "requirements-cpu.txt", "requirements-gpu.txt"])
def test_the_command_that_makes_them_is_documented(name: str) -> None:
    command = (ROOT / "docker" / name).read_text().splitlines()[1].removeprefix("#").strip()
    assert command.endswith(f"-o docker/{name}")
    assert command in (ROOT / "docs" / "container_images.md").read_text().splitlines()
