"""What both images promise, as far as the files show it; `make verify-images` builds and runs them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from service import healthcheck
from service.config import Settings
from tests.deployment.dockerfile import DOCKERFILES, ROOT, Instruction, final_stage, is_sent, pairs, read_stages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UID = 10001
LABELS = {
    "title": "text",
    "description": "text",
    "version": "semver",
    "revision": "text",
    "licenses": "spdx",
    "base.name": "text",
}
READING = ("parseq-read", "parseq-evaluate")
"""What the CPU image has besides the service."""
IGNORE_MARK = "# hadolint ignore="

both = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def one(stage: list[Instruction], name: str) -> Instruction:
    found = [instruction for instruction in stage if instruction.name == name]
    assert len(found) == 1, f"{len(found)} instructions {name}"
    return found[0]


@both
def test_hadolint_at_its_strictest_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    labels = [f"--require-label=org.opencontainers.image.{name}:{kind}" for name, kind in LABELS.items()]
    command = [str(hadolint), "--no-color", "--failure-threshold=style", "--strict-labels", *labels, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@both
def test_every_exception_from_hadolint_has_its_reason(path: Path) -> None:
    """The reason stands above it, or above the first one of the same rule."""
    lines, explained = path.read_text().splitlines(), set()
    for above, line in pairwise(lines):
        rules = line.removeprefix(IGNORE_MARK) if line.startswith(IGNORE_MARK) else None
        if rules and above.startswith("# "):
            explained.add(rules)
        assert rules is None or rules in explained, f"{path.name}: why is {rules} ignored?"
    assert not (ROOT / ".hadolint.yaml").exists(), "exceptions belong to the line they are for"


@both
def test_it_runs_as_a_user_that_owns_nothing(path: Path) -> None:
    stage = final_stage(path)
    assert one(stage, "USER").value == f"{UID}:{UID}", "by number: Kubernetes cannot tell whether a name is root"
    created = [instruction.value for instruction in stage if "useradd" in instruction.value]
    assert len(created) == 1
    assert f"--gid {UID} " in created[0]
    assert f"--uid {UID} " in created[0]
    assert not any("--chown" in instruction.value for instruction in stage)
    assert not any(instruction.name in ("RUN", "COPY", "ADD") for instruction in stage[stage.index(one(stage, "USER")) :])


@both
def test_it_listens_where_it_says(path: Path) -> None:
    stage = final_stage(path)
    assert one(stage, "EXPOSE").value == str(Settings.model_fields["port"].default)
    assert pairs(stage, "ENV")["PARSEQ_HOST"] == "0.0.0.0"


@both
def test_every_setting_in_it_exists(path: Path) -> None:
    settings = {name: value for name, value in pairs(final_stage(path), "ENV").items() if name.startswith("PARSEQ_")}
    assert settings
    assert {name.removeprefix("PARSEQ_").lower() for name in settings} <= Settings.model_fields.keys()
    Settings.model_validate({name.removeprefix("PARSEQ_").lower(): value for name, value in settings.items()})


@both
def test_it_starts_the_service_without_a_shell_and_ends_it_in_peace(path: Path) -> None:
    stage = final_stage(path)
    *init, command = one(stage, "ENTRYPOINT").exec_form
    assert init == ["/usr/bin/tini", "--"]
    assert any("apt-get install" in each.value and " tini" in each.value for each in stage)
    assert PROJECT["scripts"][command] == "service.entry:serve"
    assert one(stage, "STOPSIGNAL").value == "SIGTERM"
    assert not [instruction for instruction in stage if instruction.name == "CMD"], "it would be taken for options"


@both
def test_its_health_check_asks_the_service(path: Path) -> None:
    interpreter, option, module = one(final_stage(path), "HEALTHCHECK").exec_form
    assert (interpreter, option) == ("python3", "-m")
    assert find_spec(module), f"there is no module {module}"


@both
def test_it_says_which_version_it_holds(path: Path) -> None:
    assert pairs(final_stage(path), "LABEL")["org.opencontainers.image.version"] == PROJECT["version"]
    tag = f" -t parseq-service:{PROJECT['version']}{'-cpu' if 'cpu' in path.name else ''} "
    assert tag in path.read_text(), "the comment at the top names the image"


@both
def test_its_base_is_pinned_and_can_be_pinned_by_digest(path: Path) -> None:
    (base,) = read_stages(path)[0]
    name, _, image = base.value.partition("=")
    repository, _, tag = image.partition(":")
    assert base.name == "ARG"
    assert repository
    assert any(character.isdigit() for character in tag), f"{image} is whatever is newest"
    stages = read_stages(path)[1:]
    known = {f"${{{name}}}"} | {stage[0].words[-1] for stage in stages}
    assert all(stage[0].words[0] in known for stage in stages)
    assert f"--build-arg {name}={image}@sha256:..." in path.read_text()
    assert pairs(stages[-1], "LABEL")["org.opencontainers.image.base.name"] == f"${{{name}}}"


def test_the_two_differ_only_in_what_they_run_on() -> None:
    gpu, cpu = ([(each.name, each.value) for each in final_stage(path) if "apt-get" not in each.value] for path in DOCKERFILES)
    differing = {name for (name, value), (_, other) in zip(gpu, cpu, strict=True) if value != other}
    assert differing == {"FROM", "ENV", "ARG", "LABEL", "HEALTHCHECK"}
    gpu_settings, cpu_settings = (pairs(final_stage(path), "ENV") for path in DOCKERFILES)
    assert gpu_settings == cpu_settings | {"PARSEQ_PROVIDER": "cuda"}, "a GPU that is not there must not go unnoticed"


def test_the_two_are_built_in_the_same_way() -> None:
    """But for the distribution's packages, the list of requirements, and the commands that read on a CPU."""
    gpu, cpu = (
        [(each.name, each.value.replace(f"requirements-{kind}", "requirements")) for each in read_stages(path)[1][1:]]
        for path, kind in zip(DOCKERFILES, ("gpu", "cpu"), strict=True)
    )
    kept = "".join(f" ! -name {command}" for command in READING)
    cpu = [(name, value.replace(kept, "")) for name, value in cpu if value not in ("model model", "reading reading")]
    assert [each for each in gpu if "apt-get" not in each[1]] == cpu


@both
def test_packages_are_wheels_with_hashes_and_are_cached(path: Path) -> None:
    stage = read_stages(path)[1]
    variables = pairs(stage, "ENV")
    assert variables["PIP_ONLY_BINARY"] == ":all:"
    runs = [instruction.value for instruction in stage if instruction.name == "RUN"]
    [install] = [value for value in runs if "-r " in value]
    assert f"--mount=type=cache,target={variables['PIP_CACHE_DIR']} " in install
    used = re.findall(r"install --require-hashes -r (\S+)", install)
    copied = [word for each in stage if each.name == "COPY" for word in each.words[:-1] if "requirements" in word]
    assert install.count(" -r ") == len(used) == 2
    assert [Path(name).name for name in copied] == used
    folders = [each.words for each in stage if each.name == "COPY" and each.words[-1] != "./"]
    rooms, commands = ["artifact", "service"], ["parseq-serve"]
    if path.name == "cpu.Dockerfile":
        rooms, commands = ["artifact", "model", "reading", "service"], ["parseq-serve", *READING]
    assert folders == [[room, room] for room in rooms]
    assert f"'parseq-*' {' '.join(f'! -name {command}' for command in commands)} -delete" in runs[-1]
    assert set(commands) <= PROJECT["scripts"].keys()


@both
def test_the_health_check_waits_longer_than_its_program_and_comes_often(path: Path) -> None:
    options = dict(re.findall(r"--(\w+)=(\d+)s", one(final_stage(path), "HEALTHCHECK").value))
    assert int(options["timeout"]) > healthcheck.TIMEOUT_S
    assert int(options["interval"]) <= 30


def test_nothing_gets_into_a_build_but_what_it_needs() -> None:
    dockerignore = (ROOT / ".dockerignore").read_text()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    sent = {path for path in listed.stdout.splitlines() if is_sent(path, dockerignore)}
    rooms = ("artifact/", "model/", "reading/", "service/")
    assert {path for path in sent if not path.startswith(rooms)} == {
        "LICENSE",
        "README.md",
        "docker/requirements-build.txt",
        "docker/requirements-cpu.txt",
        "docker/requirements-gpu.txt",
        "pyproject.toml",
    }
    assert {path for path in listed.stdout.splitlines() if path.startswith(rooms)} - sent == {
        path for path in listed.stdout.splitlines() if path.startswith("model/weights/")
    }


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        ".venv/bin/python",
        ".venv-serve/pyvenv.cfg",
        "build/x",
        "mine.onnx",
        "model/weights/parseq-mini.safetensors",
        "service/__pycache__/app.cpython-311.pyc",
        "service/engine/__pycache__/queue.cpython-311.pyc",
        "service/bundled/parseq-mini.onnx.tensorrt/engine",
        "tests/conftest.py",
    ],
)
def test_what_lies_about_does_not_get_into_a_build(path: str) -> None:
    assert not is_sent(path, (ROOT / ".dockerignore").read_text())


@both
def test_what_is_copied_is_sent(path: Path) -> None:
    dockerignore = (ROOT / ".dockerignore").read_text()
    copied = [
        word
        for stage in read_stages(path)
        for instruction in stage
        if instruction.name == "COPY" and "--from=" not in instruction.value
        for word in instruction.words[:-1]
    ]
    assert copied
    for source in copied:
        files = [source] if (ROOT / source).is_file() else [f"{source}/__init__.py"]
        assert all((ROOT / file).is_file() and is_sent(file, dockerignore) for file in files), source
